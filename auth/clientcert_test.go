package auth

import (
	"context"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"encoding/base64"
	"encoding/hex"
	"encoding/pem"
	"net/netip"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"sallyport/auth/authtest"
	"sallyport/auth/clientcert"
	"sallyport/auth/identity"
	"sallyport/proxy/message"
	"sallyport/proxy/setting"
)

// balancer is the address of the balancer that may send certificates in a field.
var balancer = netip.MustParseAddr("10.0.0.7")

// register is an Auth with an issuer, corp, and a CA of client certificates.
type register struct {
	t        testing.TB
	clock    *authtest.Clock
	ca       authtest.Cert
	provider *provider
	signer   authtest.Key
	memory   *Memory
	revoked  *Revocations // nil: none
}

func newRegister(t testing.TB) *register {
	r := &register{t: t, clock: authtest.NewClock(), signer: authtest.NewKey("ed", "EdDSA", authtest.Ed25519())}
	r.ca = authtest.NewCA("lab", r.clock.Now(), nil)
	r.provider = newProvider(t, r.signer.JWK())
	r.memory = NewMemory(MemoryOptions{Now: r.clock.Now, Budget: Budget{Burst: 5}})
	return r
}

func (r *register) file(name string, text []byte) setting.Path {
	r.t.Helper()
	path := filepath.Join(r.t.TempDir(), name)
	if err := os.WriteFile(path, text, 0o600); err != nil {
		r.t.Fatal(err)
	}
	return setting.Path(path)
}

// chain returns the chain of a route. bound is bound_tokens of the issuer, and change alters the
// entry of client_certificates.
func (r *register) chain(bound string, change func(*clientcert.Config), callers ...string) *Chain {
	r.t.Helper()
	entry := clientcert.Config{CA: setting.List[setting.Path]{r.file("ca.pem", authtest.PEM(r.ca))}}
	if change != nil {
		change(&entry)
	}
	hosts, err := clientcert.New([]clientcert.Config{entry}, clientcert.NewMemory(clientcert.MemoryOptions{}), r.clock.Now)
	if err != nil {
		r.t.Fatal(err)
	}
	ic := r.provider.config()
	ic.BoundTokens = bound
	a := activeAuth(r.t, r.memory, Config{Issuers: map[string]IssuerConfig{"corp": ic}, ClientCerts: hosts, Revoked: r.revoked})
	c, err := a.Route(Demand{Callers: callers})
	if err != nil {
		r.t.Fatal(err)
	}
	return c
}

// overTLS is a request over a connection with this chain; no certificates: without one.
func overTLS(h *message.Head, chain ...authtest.Cert) *Request {
	h.Host = "models.example"
	return &Request{Head: h, Peer: client, Via: client, Conn: &tls.ConnectionState{PeerCertificates: authtest.ChainOf(chain...)}}
}

// viaBalancer is a request of a listed balancer over a connection with its own certificate.
func viaBalancer(h *message.Head, own ...authtest.Cert) *Request {
	r := overTLS(h, own...)
	r.Via = balancer
	return r
}

// outcome returns the caller, or the reason of the refusal.
func (r *register) outcome(c *Chain, q *Request) string {
	r.t.Helper()
	proof, err := c.Authenticate(context.Background(), q)
	if err == nil {
		return proof.Caller.String()
	}
	if e := asError(err); e.Err == nil || e.Status() != 401 && e.Status() != 429 {
		r.t.Errorf("%s with the status %d and the cause %v", e.Reason, e.Status(), e.Err)
	}
	return reason(r.t, err)
}

func (r *register) want(what string, c *Chain, q *Request, want string) {
	r.t.Helper()
	if got := r.outcome(c, q); got != want {
		r.t.Errorf("%s: got %s, want %s", what, got, want)
	}
}

func TestCertificateProvesItsName(t *testing.T) {
	r := newRegister(t)
	batch, web := r.ca.Client("x", authtest.URIs("spiffe://lab/batch")), r.ca.Client("web", nil)
	any, one := r.chain("", nil, "cert"), r.chain("", nil, "cert/spiffe://lab/batch")
	r.want("any, SPIFFE", any, overTLS(head(), batch), "cert:spiffe://lab/batch")
	r.want("any, subject", any, overTLS(head(), web), "cert:CN=web")
	r.want("one, the same", one, overTLS(head(), batch), "cert:spiffe://lab/batch")
	r.want("one, another", one, overTLS(head(), web), CertificateName)
	r.want("none", any, overTLS(head()), CertificateMissing)
	q := overTLS(head())
	q.Conn = nil
	r.want("no TLS", any, q, CertificateMissing)
}

// TestBadCertificatesAreRefused: a bad certificate is not excused by a good token.
func TestBadCertificatesAreRefused(t *testing.T) {
	r := newRegister(t)
	other := authtest.NewCA("lab", r.clock.Now(), nil)
	sub := r.ca.CA("a", nil)
	deep := sub.CA("b", nil).CA("c", nil)
	bound := r.ca.CA("bound", func(c *x509.Certificate) { c.PermittedURIDomains = []string{"lab"} })
	gone := r.ca.Client("gone", nil)
	change := func(c *clientcert.Config) {
		c.CRL = setting.List[setting.Source]{{File: r.file("crl", r.ca.Revoke(r.clock.Now(), func(l *x509.RevocationList) { l.NextUpdate = r.clock.Now().Add(48 * time.Hour) }, gone))}}
		c.MaxDepth = new(int)
	}
	c := r.chain("", change, "issuer/corp", "cert")
	token := "Bearer " + r.signer.Token(r.provider.claims(r.clock.Now(), nil))
	r.want("victim's token", c, overTLS(head(token)), "issuer/corp:alice")
	victim := r.ca.Client("victim", nil)
	for name, k := range map[string]struct {
		chain []authtest.Cert
		want  string
	}{
		"self-signed":      {[]authtest.Cert{authtest.NewCA("x", r.clock.Now(), func(c *x509.Certificate) { c.IsCA = false })}, CertificateUnknownCA},
		"unknown CA":       {[]authtest.Cert{other.Client("x", nil)}, CertificateUnknownCA},
		"expired":          {[]authtest.Cert{r.ca.Client("x", func(c *x509.Certificate) { c.NotAfter = r.clock.Now().Add(-time.Minute) })}, CertificateExpired},
		"not yet valid":    {[]authtest.Cert{r.ca.Client("x", func(c *x509.Certificate) { c.NotBefore = r.clock.Now().Add(time.Minute) })}, CertificateNotYetValid},
		"wrong usage":      {[]authtest.Cert{r.ca.Client("x", func(c *x509.Certificate) { c.ExtKeyUsage = []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth} })}, CertificateWrongUsage},
		"revoked":          {[]authtest.Cert{gone}, CertificateRevoked},
		"wrong SAN":        {[]authtest.Cert{r.ca.Client("x", authtest.URIs("spiffe://lab/a", "spiffe://lab/b"))}, CertificateName},
		"name constraints": {[]authtest.Cert{bound.Client("x", authtest.URIs("spiffe://prod/a")), bound}, CertificateName},
		"over-deep":        {[]authtest.Cert{sub.Client("x", nil), sub}, CertificateChain},
		"broken chain":     {[]authtest.Cert{deep.Client("x", nil), deep}, CertificateUnknownCA},
	} {
		r.memory.budget = newBudget(Budget{})
		r.want(name, c, overTLS(head(token), k.chain...), k.want)
		r.want(name+", no token", c, overTLS(head(), k.chain...), k.want)
		r.want(name+", victim", c, overTLS(head(), victim), "cert:CN=victim")
		proof, err := c.Recheck(context.Background(), overTLS(head(), k.chain...), Proof{Caller: identity.Principal{Source: "cert", Name: "CN=x"}})
		if err == nil || !proof.Caller.IsZero() || reason(t, err) != k.want {
			t.Errorf("%s, recheck: got %v, %v", name, proof.Caller, err)
		}
	}
	r.clock.Add(49 * time.Hour)
	r.want("after the end of all", c, overTLS(head(), victim), CertificateExpired)
}

func TestEndedListRefusesCertificates(t *testing.T) {
	r := newRegister(t)
	c := r.chain("", func(c *clientcert.Config) {
		c.CRL = setting.List[setting.Source]{{File: r.file("crl", r.ca.Revoke(r.clock.Now(), nil))}}
	}, "cert")
	batch := r.ca.Client("batch", nil)
	r.want("current", c, overTLS(head(), batch), "cert:CN=batch")
	r.clock.Add(2 * time.Hour)
	r.want("ended", c, overTLS(head(), batch), CertificateRevocationUnknown)
}

// TestForgerDoesNotLockOutCertificates: once the failures of an address are used up, bad
// certificates get 429, and good ones behind the same address do not notice.
func TestForgerDoesNotLockOutCertificates(t *testing.T) {
	r := newRegister(t)
	c := r.chain("", nil, "cert")
	mallory := authtest.NewCA("lab", r.clock.Now(), nil).Client("mallory", nil)
	for range 5 {
		r.want("forger", c, overTLS(head(), mallory), CertificateUnknownCA)
	}
	r.want("forger, then", c, overTLS(head(), mallory), TooManyFailures)
	r.want("victim, new", c, overTLS(head(), r.ca.Client("victim", nil)), "cert:CN=victim")
	other := overTLS(head(), mallory)
	other.Peer = netip.MustParseAddr("192.0.2.8")
	r.want("another address", c, other, CertificateUnknownCA)
}

func TestCertificateBesideOtherKinds(t *testing.T) {
	r := newRegister(t)
	batch := r.ca.Client("batch", nil)
	token := "Bearer " + r.signer.Token(r.provider.claims(r.clock.Now(), nil))
	c := r.chain("", nil, "cert", "issuer/corp")
	r.want("nothing", c, overTLS(head()), NoCredential)
	r.want("certificate", c, overTLS(head(), batch), "cert:CN=batch")
	r.want("token", c, overTLS(head(token)), "issuer/corp:alice")
	r.want("both", c, overTLS(head(token), batch), "cert:CN=batch")
	r.want("a bad token", c, overTLS(head("Bearer x"), batch), BadCredential)
	_, err := c.Authenticate(t.Context(), overTLS(head()))
	if got := challenge(c, "m", err); got != `Bearer realm="m"` {
		t.Errorf("the challenge is %q", got)
	}
	_, err = c.Authenticate(t.Context(), overTLS(head(), authtest.NewCA("x", r.clock.Now(), nil).Client("x", nil)))
	if got := challenge(c, "m", err); got != `Bearer realm="m"` {
		t.Errorf("the challenge for a bad certificate is %q: a token is not at fault", got)
	}
	alone := r.chain("", nil, "cert")
	_, err = alone.Authenticate(t.Context(), overTLS(head()))
	if got := challenge(alone, "m", err); got != `ClientCertificate realm="m"` {
		t.Errorf("the challenge of certificates alone is %q", got)
	}
	r.want("a token where only cert is listed", alone, overTLS(head(token)), CertificateMissing)
	list := r.chain("", nil, "issuer/corp")
	r.want("a certificate where it is not listed", list, overTLS(head(), batch), UnlistedCredential)
	r.want("neither", list, overTLS(head()), NoCredential)
	r.want("a certificate without the token that may be bound to it", r.chain(BoundAccept, nil, "issuer/corp"), overTLS(head(), batch), NoCredential)
}

// sf writes a certificate as RFC 9440 has it.
func sf(c authtest.Cert) string { return ":" + base64.StdEncoding.EncodeToString(c.Raw) + ":" }

// encoded writes certificates as Envoy does.
func encoded(all ...authtest.Cert) string {
	return strings.ReplaceAll(url.QueryEscape(string(authtest.PEM(all...))), "+", "%20")
}

func fingerprint(c authtest.Cert) string {
	sum := sha256.Sum256(c.Raw)
	return hex.EncodeToString(sum[:])
}

func fromBalancer(name string) func(*clientcert.Config) {
	return func(c *clientcert.Config) {
		c.Header = &clientcert.HeaderConfig{Name: name, From: setting.List[setting.CIDR]{{Prefix: netip.PrefixFrom(balancer, 32)}}}
	}
}

func TestCertificateFromTheFieldsOfRFC9440(t *testing.T) {
	r := newRegister(t)
	sub := r.ca.CA("sub", nil)
	batch, web, own := r.ca.Client("batch", nil), sub.Client("web", nil), r.ca.Client("balancer", nil)
	c := r.chain("", fromBalancer("Client-Cert"), "cert")
	for name, k := range map[string]struct {
		head *message.Head
		want string
	}{
		"one":                   {fields("client-cert", sf(batch)), "cert:CN=batch"},
		"with its chain":        {fields("client-cert", sf(web), "client-cert-chain", sf(sub)+", "+sf(r.ca)), "cert:CN=web"},
		"chain in two lines":    {fields("client-cert", sf(web), "client-cert-chain", sf(sub), "client-cert-chain", sf(r.ca)), "cert:CN=web"},
		"without its chain":     {fields("client-cert", sf(web)), CertificateUnknownCA},
		"the balancer's own":    {fields(), CertificateMissing},
		"twice":                 {fields("client-cert", sf(batch), "client-cert", sf(web)), CertificateChain},
		"a list":                {fields("client-cert", sf(batch)+", "+sf(web)), CertificateChain},
		"chain only":            {fields("client-cert-chain", sf(batch)), CertificateChain},
		"empty":                 {fields("client-cert", ""), CertificateChain},
		"empty bytes":           {fields("client-cert", "::"), CertificateChain},
		"a parameter":           {fields("client-cert", sf(batch)+";a=1"), CertificateChain},
		"no colons":             {fields("client-cert", strings.Trim(sf(batch), ":")), CertificateChain},
		"cut off":               {fields("client-cert", sf(batch)[:400]+":"), CertificateChain},
		"broken base64":         {fields("client-cert", ":a!b=:"), CertificateChain},
		"PEM":                   {fields("client-cert", encoded(batch)), CertificateChain},
		"more after DER":        {fields("client-cert", ":"+base64.StdEncoding.EncodeToString(append(slices.Clone(batch.Raw), 0))+":"), CertificateChain},
		"broken chain":          {fields("client-cert", sf(web), "client-cert-chain", sf(sub)+","), CertificateChain},
		"endless chain":         {fields("client-cert", sf(web), "client-cert-chain", strings.Repeat(sf(sub)+", ", 30)+sf(sub)), CertificateChain},
		"Envoy's as well":       {fields("client-cert", sf(batch), "x-forwarded-client-cert", "Cert="+encoded(web)), "cert:CN=batch"},
		"only Envoy's":          {fields("x-forwarded-client-cert", "Cert="+encoded(batch)), CertificateMissing},
		"self-signed":           {fields("client-cert", sf(authtest.NewCA("x", r.clock.Now(), func(c *x509.Certificate) { c.IsCA = false }))), CertificateUnknownCA},
		"huge":                  {fields("client-cert", ":"+strings.Repeat("A", 300_000)+":"), CertificateChain},
		"the same name, no SAN": {fields("client-cert", sf(authtest.NewCA("lab", r.clock.Now(), nil).Client("batch", nil))), CertificateUnknownCA},
	} {
		r.memory.budget = newBudget(Budget{})
		for range 2 {
			r.want(name, c, viaBalancer(k.head, own), k.want)
		}
	}
	// Anybody else's field counts for nothing, whatever address the client claims to have.
	q := overTLS(fields("client-cert", sf(batch)))
	q.Peer = balancer
	r.want("of a stranger", c, q, CertificateMissing)
	r.want("of a stranger with a certificate", c, overTLS(fields("client-cert", sf(batch)), r.ca.Client("mallory", nil)), "cert:CN=mallory")
}

func TestCertificateFromTheFieldOfEnvoy(t *testing.T) {
	r := newRegister(t)
	sub := r.ca.CA("sub", nil)
	batch, web := r.ca.Client("batch", nil), sub.Client("web", nil)
	c := r.chain("", fromBalancer("X-Forwarded-Client-Cert"), "cert")
	xfcc := func(v string) *message.Head { return fields("x-forwarded-client-cert", v) }
	for name, k := range map[string]struct {
		head *message.Head
		want string
	}{
		"Cert":                 {xfcc("Cert=" + encoded(batch)), "cert:CN=batch"},
		"quoted":               {xfcc(`Hash=` + fingerprint(batch) + `;Cert="` + encoded(batch) + `";Subject="CN=admin\", x";URI=spiffe://lab/admin`), "cert:CN=batch"},
		"lower case":           {xfcc("cert=" + encoded(batch)), "cert:CN=batch"},
		"plus signs kept":      {xfcc("Cert=" + url.PathEscape(string(authtest.PEM(batch)))), "cert:CN=batch"},
		"Chain":                {xfcc("Chain=" + encoded(web, sub)), "cert:CN=web"},
		"Cert and Chain":       {xfcc("Cert=" + encoded(web) + ";Chain=" + encoded(web, sub)), "cert:CN=web"},
		"Cert without Chain":   {xfcc("Cert=" + encoded(web)), CertificateUnknownCA},
		"another Chain":        {xfcc("Cert=" + encoded(batch) + ";Chain=" + encoded(web, sub)), CertificateChain},
		"another Hash":         {xfcc("Hash=" + fingerprint(web) + ";Cert=" + encoded(batch)), CertificateChain},
		"Hash alone":           {xfcc("Hash=" + fingerprint(batch)), CertificateChain},
		"URI alone":            {xfcc("URI=spiffe://lab/admin"), CertificateChain},
		"two elements":         {xfcc("Cert=" + encoded(batch) + ",Cert=" + encoded(web)), CertificateChain},
		"Cert twice":           {xfcc("Cert=" + encoded(batch) + ";Cert=" + encoded(web)), CertificateChain},
		"two in Cert":          {xfcc("Cert=" + encoded(batch, web)), CertificateChain},
		"two lines":            {fields("x-forwarded-client-cert", "Cert="+encoded(batch), "x-forwarded-client-cert", "Cert="+encoded(web)), CertificateChain},
		"empty":                {xfcc(""), CertificateChain},
		"no pairs":             {xfcc("garbage"), CertificateChain},
		"an open quote":        {xfcc(`Cert="` + encoded(batch)), CertificateChain},
		"a quote within":       {xfcc(`Cert=` + encoded(batch) + `"`), CertificateChain},
		"a comma in a subject": {xfcc(`Subject="CN=a,Cert=x";Cert=` + encoded(batch)), "cert:CN=batch"},
		"a key":                {xfcc("Cert=" + url.QueryEscape(string(pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: []byte{1}})))), CertificateChain},
		"text before":          {xfcc("Cert=x" + encoded(batch)), CertificateChain},
		"RFC 9440's":           {fields("client-cert", sf(batch)), CertificateMissing},
	} {
		r.memory.budget = newBudget(Budget{})
		for range 2 {
			r.want(name, c, viaBalancer(k.head), k.want)
		}
	}
	r.want("of a stranger", c, overTLS(xfcc("Cert="+encoded(batch))), CertificateMissing)
}

// TestRevokedFileNamesCertificates: the file of revocations holds for certificates too, and for the
// tokens that are bound to them.
func TestRevokedFileNamesCertificates(t *testing.T) {
	r := newRegister(t)
	mine, victim := r.ca.Client("mine", nil), r.ca.Client("victim", nil)
	token, other := r.token(boundTo(mine)), r.token(boundTo(victim))
	for name, line := range map[string]string{
		"fingerprint": "certificate sha256:" + strings.ToUpper(fingerprint(mine)),
		"serial":      "certificate " + strings.ToUpper(mine.SerialNumber.Text(16)) + " CN=lab",
		"principal":   "principal cert:CN=mine",
		"issued":      "principal cert:CN=mine before " + mine.NotBefore.Add(time.Second).UTC().Format(time.RFC3339),
	} {
		var err error
		if r.revoked, err = ReadRevocations(r.file("revoked", []byte(line+"\n"))); err != nil {
			t.Fatal(err)
		}
		r.memory.budget = newBudget(Budget{})
		c := r.chain(BoundAccept, nil, "cert")
		r.want(name, c, overTLS(head(), mine), CredentialRevoked)
		r.want(name+", victim", c, overTLS(head(), victim), "cert:CN=victim")
		tokens := r.chain(BoundAccept, nil, "issuer/corp")
		r.want(name+", bound token", tokens, overTLS(head(token), mine), CredentialRevoked)
		r.want(name+", victim's token", tokens, overTLS(head(other), victim), "issuer/corp:alice")
	}
}
