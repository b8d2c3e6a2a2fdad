package proxy_test

import (
	"crypto/x509"
	"encoding/base64"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"sallyport/auth/authtest"
)

// sfBytes writes a certificate as RFC 9440 has it.
func sfBytes(c authtest.Cert) string {
	return ":" + base64.StdEncoding.EncodeToString(c.Raw) + ":"
}

// certHouse is a gateway behind a balancer that ends TLS: models.test takes the balancer's
// field, and far.test takes that of another balancer.
type certHouse struct {
	*house
	ca authtest.Cert
}

func newCertHouse(t *testing.T, routes string) *certHouse {
	ca := authtest.NewCA("lab", time.Now(), nil)
	return &certHouse{build(t, plan{routes: routes, files: map[string]string{"ca.pem": string(authtest.PEM(ca)), "a.crl": string(ca.Revoke(time.Now(), nil))}, more: unwatched + `
client_certificates:
  - {hosts: models.test, ca: ca.pem, crl: a.crl, header: {name: Client-Cert, from: 127.0.0.1}}
  - {hosts: far.test, ca: ca.pem, header: {name: Client-Cert, from: 10.0.0.7}}
`}), ca}
}

// rawTo sends raw bytes to a host, and returns everything received until the gateway closes.
func (h *house) rawTo(host, request string) string {
	h.t.Helper()
	c := h.dial(host)
	defer c.Close()
	if _, err := io.WriteString(c, request); err != nil {
		h.t.Fatal(err)
	}
	all, _ := io.ReadAll(c)
	return string(all)
}

const certRoutes = `
  - {host: models.test, upstream: '%s', callers: cert, rules: [{allow: "*"}]}
  - {host: models.test, path: /open, upstream: '%s', callers: anonymous, rules: [{allow: "*"}]}
  - {host: far.test, upstream: '%s', callers: cert, rules: [{allow: "*"}]}
  - {host: far.test, path: /open, upstream: '%s', callers: anonymous, rules: [{allow: "*"}]}
`

// TestCertificateFieldsCountFromTheirBalancerAlone: from others they prove nothing, and no upstream
// gets them from anybody.
func TestCertificateFieldsCountFromTheirBalancerAlone(t *testing.T) {
	h := newCertHouse(t, certRoutes)
	batch := sfBytes(h.ca.Client("x", authtest.URIs("spiffe://lab/batch")))
	ask := func(host, path string) int {
		t.Helper()
		got := h.rawTo(host, "GET "+path+" HTTP/1.1\r\nHost: "+host+"\r\nConnection: close\r\nClient-Cert: "+batch+
			"\r\nClient-Cert-Chain: "+sfBytes(h.ca)+"\r\nX-Forwarded-Client-Cert: Hash=00\r\n\r\n")
		status := 0
		fmt.Sscanf(got, "HTTP/1.1 %d", &status)
		return status
	}
	hits := int64(0)
	for _, c := range []struct {
		host, path, principal string
		status                int
	}{
		{"models.test", "/", "cert:spiffe://lab/batch", 200},
		{"models.test", "/open", "anonymous", 200},
		{"far.test", "/", "", 401},
		{"far.test", "/open", "anonymous", 200},
	} {
		if got := ask(c.host, c.path); got != c.status {
			t.Errorf("%s%s: got %d, want %d", c.host, c.path, got, c.status)
		}
		if c.status == 200 {
			hits++
			up, _ := h.model.seen()
			if got := up.Header.Get("X-Sallyport-Principal"); got != c.principal {
				t.Errorf("%s%s: the upstream was told %s, want %s", c.host, c.path, got, c.principal)
			}
			for _, name := range []string{"Client-Cert", "Client-Cert-Chain", "X-Forwarded-Client-Cert"} {
				if v := up.Header.Get(name); v != "" {
					t.Errorf("%s%s: the upstream got %s: %s", c.host, c.path, name, v)
				}
			}
		}
		if n := int64(h.model.hits.Load()); n != hits {
			t.Errorf("%s%s: the upstream saw %d requests, want %d", c.host, c.path, n, hits)
		}
	}
	for _, name := range []string{"Client_Cert", "client.cert", "Client-Cert_Chain", "X_Forwarded-Client-Cert"} {
		r := h.do("GET", "/open", "", map[string]string{name: batch})
		if up, _ := h.model.seen(); r.StatusCode != 200 || strings.Contains(fmt.Sprint(up.Header), batch) {
			t.Errorf("%s: status %d, and the upstream got %v", name, r.StatusCode, up.Header)
		}
	}
}

// TestReloadRevokesCertificates: a certificate that was cached is refused after its CA has revoked
// it, and another still counts. A list that cannot be read changes nothing.
func TestReloadRevokesCertificates(t *testing.T) {
	h := newCertHouse(t, certRoutes)
	alice, bob := h.ca.Client("alice", nil), h.ca.Client("bob", nil)
	write := func(name, text string) {
		t.Helper()
		if err := os.WriteFile(filepath.Join(filepath.Dir(h.file), name), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	expect := func(when string, c authtest.Cert, want int) {
		t.Helper()
		if r := h.do("GET", "/", "", map[string]string{"Client-Cert": sfBytes(c)}); r.StatusCode != want {
			t.Errorf("%s: got %d %s, want %d", when, r.StatusCode, r.body, want)
		}
	}
	expect("at first", alice, 200)
	write("a.crl", string(h.ca.Revoke(time.Now(), nil, alice)))
	h.reload("changed")
	expect("revoked", alice, 401)
	expect("victim", bob, 200)
	write("a.crl", "garbage")
	h.reload("refused")
	expect("revoked, list broken", alice, 401)
	expect("victim, list broken", bob, 200)
}

// refusedCertificates are requests whose client certificate is missing or at fault.
func refusedCertificates(t *testing.T) *refusals {
	now := time.Now()
	ca, other := authtest.NewCA("lab", now, nil), authtest.NewCA("elsewhere", now, nil)
	sub, bound := ca.CA("sub", nil), ca.CA("bound", func(c *x509.Certificate) { c.PermittedURIDomains = []string{"lab"} })
	gone := ca.Client("gone", nil)
	r := &refusals{house: build(t, plan{files: map[string]string{"ca.pem": string(authtest.PEM(ca, bound)), "a.crl": string(ca.Revoke(now, nil, gone))}, routes: `
  - {host: models.test, upstream: '%s', callers: cert, rules: [{allow: "*"}]}
  - {host: models.test, path: /one, upstream: '%s', callers: cert/CN=one, rules: [{allow: "*"}]}
  - {host: models.test, path: /bound, upstream: '%s', callers: issuer/strict, rules: [{allow: "*"}]}
`, issuers: "  strict: {url: 'http://127.0.0.1:1', audience: models, bound_tokens: require}\n", more: `
client_certificates: {ca: ca.pem, crl: a.crl, max_depth: 0, header: {name: Client-Cert, from: 127.0.0.1}}
`})}
	send := func(c authtest.Cert, more ...string) string {
		return r.ask("GET / HTTP/1.1", append(more, "Client-Cert: "+r.secret(sfBytes(c)))...)
	}
	long := strings.Repeat("n", 60)
	r.expect("certificate_missing", 401, "the client has sent no certificate; the route takes cert", r.ask("GET / HTTP/1.1"))
	r.expect("certificate_missing", 401, "the client has sent no certificate; the route takes cert", r.ask("GET / HTTP/1.1", "Authorization: Bearer x"))
	r.expect("certificate_unknown_ca", 401, `no CA in ca, and none that the client sent, has issued the certificate with the fingerprint sha256:…; its issuer is "CN=elsewhere"`, send(other.Client("alice", nil)))
	r.expect("certificate_unknown_ca", 401, "the certificate with the fingerprint sha256:… is self-signed", send(authtest.NewCA("x", now, func(c *x509.Certificate) { c.IsCA = false })))
	r.expect("certificate_expired", 401, "the certificate with the fingerprint sha256:… ended at …", send(ca.Client("x", func(c *x509.Certificate) { c.NotAfter = now.Add(-time.Minute) })))
	r.expect("certificate_not_yet_valid", 401, "the certificate with the fingerprint sha256:… is not valid before …", send(ca.Client("x", func(c *x509.Certificate) { c.NotBefore = now.Add(time.Hour) })))
	r.expect("certificate_wrong_usage", 401, "the certificate with the fingerprint sha256:…, or a CA above it, is not for clients: its extended key usage lacks clientAuth", send(ca.Client("x", func(c *x509.Certificate) { c.ExtKeyUsage = []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth} })))
	r.expect("certificate_revoked", 401, `"CN=lab" has revoked "CN=gone", serial number …`, send(gone))
	r.expect("certificate_chain", 401, `1 CA certificates stand between "CN=x" and the root, max_depth is 0`, send(sub.Client("x", nil), "Client-Cert-Chain: "+sfBytes(sub)))
	r.expect("certificate_chain", 401, "client-cert: not one byte sequence of RFC 8941, as RFC 9440 wants", r.ask("GET / HTTP/1.1", "Client-Cert: x"))
	r.expect("certificate_chain", 401, "2 lines of client-cert, want one", r.ask("GET / HTTP/1.1", "Client-Cert: "+sfBytes(gone), "Client-Cert: "+sfBytes(gone)))
	r.expect("certificate_name", 401, `"CN=x" has 2 names of the kind dns; it may have one`, send(ca.Client("x", func(c *x509.Certificate) { c.DNSNames = []string{"a.lab", "b.lab"} })))
	r.expect("certificate_name", 401, `the spiffe name "spiffe://lab/nnn…" cannot be a caller: it is malformed or too long`, send(ca.Client("x", authtest.URIs("spiffe://lab/"+strings.Repeat(long+"/", 5)+"a"))))
	r.expect("certificate_name", 401, "the route does not list cert:CN=x", r.ask("GET /one HTTP/1.1", "Client-Cert: "+sfBytes(ca.Client("x", nil))))
	return r
}

// refusedByEndedLists are requests whose certificate may have been revoked.
func refusedByEndedLists(t *testing.T) *refusals {
	now := time.Now()
	ca := authtest.NewCA("lab", now, nil)
	r := &refusals{house: build(t, plan{files: map[string]string{"ca.pem": string(authtest.PEM(ca)), "a.crl": string(ca.Revoke(now.Add(-2*time.Hour), nil))}, routes: `
  - {host: models.test, upstream: '%s', callers: cert, rules: [{allow: "*"}]}
  - {host: far.test, upstream: '%s', callers: cert, rules: [{allow: "*"}]}
`, more: `
client_certificates:
  - {hosts: models.test, ca: ca.pem, crl: a.crl, header: {name: Client-Cert, from: 127.0.0.1}}
  - {hosts: far.test, ca: ca.pem, crl: "http://127.0.0.1:1/a.crl", header: {name: Client-Cert, from: 127.0.0.1}}
`})}
	field := "Client-Cert: " + sfBytes(ca.Client("x", nil))
	r.expect("certificate_revocation_unknown", 401, `the revocation list of "CN=lab" ended at …; crl_grace is not set`, r.ask("GET / HTTP/1.1", field))
	r.expect("certificate_revocation_unknown", 401, `there is no revocation list of "CN=lab", and none has come from "http://127.0.0.1:PORT/a.crl" yet`, r.rawTo("far.test", "GET / HTTP/1.1\r\nHost: far.test\r\nConnection: close\r\n"+field+"\r\n\r\n"))
	return r
}
