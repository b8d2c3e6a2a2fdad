package clientcert

import (
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/asn1"
	"fmt"
	"math/big"
	"testing"
	"time"

	"sallyport/auth/authtest"
	"sallyport/proxy/setting"
)

func TestChainsAreJudged(t *testing.T) {
	clock := authtest.NewClock()
	root := authtest.NewCA("root", clock.Now(), nil)
	other := authtest.NewCA("root", clock.Now(), nil) // the same name and another key
	sub := root.CA("sub", nil)
	deep := sub.CA("deep", nil)
	deeper := deep.CA("deeper", nil)
	deepest := deeper.CA("deepest", nil)
	change := func(f func(*x509.Certificate)) func(*x509.Certificate) {
		return func(c *x509.Certificate) {
			authtest.URIs("spiffe://lab/batch")(c)
			if f != nil {
				f(c)
			}
		}
	}
	usage := func(all ...x509.ExtKeyUsage) func(*x509.Certificate) {
		return change(func(c *x509.Certificate) { c.ExtKeyUsage = all })
	}
	serverOnly := root.CA("servers", func(c *x509.Certificate) { c.ExtKeyUsage = []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth} })
	noPath := root.CA("no path", func(c *x509.Certificate) { c.MaxPathLen, c.MaxPathLenZero = 0, true })
	beyond := noPath.CA("beyond", nil)
	notCA := root.Client("not a CA", nil)
	ended := root.CA("ended", func(c *x509.Certificate) { c.NotAfter = clock.Now().Add(-time.Minute) })
	critical := func(c *x509.Certificate) {
		c.ExtraExtensions = append(c.ExtraExtensions, pkix.Extension{Id: asn1.ObjectIdentifier{1, 2, 3, 4}, Critical: true, Value: []byte{5, 0}})
	}
	const ok = "cert:spiffe://lab/batch"
	for name, c := range map[string]struct {
		chain []authtest.Cert
		want  string
	}{
		"none":                      {nil, Missing},
		"of the root":               {[]authtest.Cert{root.Client("a", change(nil))}, ok},
		"of the root, and the root": {[]authtest.Cert{root.Client("a", change(nil)), root}, ok},
		"with its CA":               {[]authtest.Cert{sub.Client("a", change(nil)), sub}, ok},
		"with strange ones":         {[]authtest.Cert{sub.Client("a", change(nil)), other, sub}, ok},
		"without its CA":            {[]authtest.Cert{sub.Client("a", change(nil))}, UnknownCA},
		"three CAs between":         {[]authtest.Cert{deeper.Client("a", change(nil)), deeper, deep, sub}, ok},
		"four CAs between":          {[]authtest.Cert{deepest.Client("a", change(nil)), deepest, deeper, deep, sub}, Chain},
		"no extended key usage":     {[]authtest.Cert{root.Client("a", usage())}, ok},
		"any extended key usage":    {[]authtest.Cert{root.Client("a", usage(x509.ExtKeyUsageAny))}, ok},
		"several usages":            {[]authtest.Cert{root.Client("a", usage(x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth))}, ok},
		"for servers":               {[]authtest.Cert{root.Client("a", usage(x509.ExtKeyUsageServerAuth))}, WrongUsage},
		"of a CA for servers":       {[]authtest.Cert{serverOnly.Client("a", change(nil)), serverOnly}, WrongUsage},
		"of a CA":                   {[]authtest.Cert{sub}, WrongUsage},
		"of the root itself":        {[]authtest.Cert{root}, WrongUsage},
		"another root":              {[]authtest.Cert{other.Client("a", change(nil))}, UnknownCA},
		"another root, sent":        {[]authtest.Cert{other.Client("a", change(nil)), other}, UnknownCA},
		"self-signed":               {[]authtest.Cert{authtest.NewCA("a", clock.Now(), change(func(c *x509.Certificate) { c.IsCA = false }))}, UnknownCA},
		"expired":                   {[]authtest.Cert{root.Client("a", change(func(c *x509.Certificate) { c.NotAfter = clock.Now().Add(-time.Second) }))}, Expired},
		"not yet valid":             {[]authtest.Cert{root.Client("a", change(func(c *x509.Certificate) { c.NotBefore = clock.Now().Add(time.Second) }))}, NotYetValid},
		"of an ended CA":            {[]authtest.Cert{ended.Client("a", change(func(c *x509.Certificate) { c.NotAfter = clock.Now().Add(time.Hour) })), ended}, Expired},
		"of one that is no CA":      {[]authtest.Cert{notCA.Client("a", change(nil)), notCA}, UnknownCA},
		"path too long":             {[]authtest.Cert{beyond.Client("a", change(nil)), beyond, noPath}, Chain},
		"unknown critical":          {[]authtest.Cert{root.Client("a", change(critical))}, Chain},
	} {
		t.Run(name, func(t *testing.T) {
			trust := trusting(t, clock, nil, root)
			for range 2 { // the second time from the cache
				want(t, "outcome", outcome(t, trust, c.chain...), c.want)
			}
		})
	}
}

func TestSelfSignedIsNamedAsSuch(t *testing.T) {
	clock := authtest.NewClock()
	trust := trusting(t, clock, nil, authtest.NewCA("root", clock.Now(), nil))
	mallory := authtest.NewCA("mallory", clock.Now(), func(c *x509.Certificate) { c.IsCA = false })
	want(t, "cause", cause(trust, mallory), fmt.Sprintf("certificate_unknown_ca: the certificate with the fingerprint sha256:%x… is self-signed", fingerprintOf(mallory)[:8]))
}

// TestIntermediateInTheBundleIsNoRoot: the constraints and the list of its issuer bind it too.
func TestIntermediateInTheBundleIsNoRoot(t *testing.T) {
	clock := authtest.NewClock()
	root := authtest.NewCA("root", clock.Now(), func(c *x509.Certificate) {
		c.PermittedURIDomains, c.PermittedDNSDomainsCritical = []string{"lab"}, true
	})
	sub := root.CA("sub", nil)
	good, bad := sub.Client("a", authtest.URIs("spiffe://lab/a")), sub.Client("b", authtest.URIs("spiffe://prod/b"))
	both := trusting(t, clock, nil, root, sub)
	want(t, "good", outcome(t, both, good), "cert:spiffe://lab/a")
	want(t, "bad", outcome(t, both, bad), Name)
	alone := trusting(t, clock, nil, sub)
	want(t, "sub alone", outcome(t, alone, bad), "cert:spiffe://prod/b")
}

func TestFingerprintsAllowAndDeny(t *testing.T) {
	clock := authtest.NewClock()
	root := authtest.NewCA("root", clock.Now(), nil)
	sub := root.CA("sub", nil)
	alice, bob := root.Client("alice", nil), sub.Client("bob", nil)
	print := func(c authtest.Cert) setting.List[string] {
		id := trusting(t, clock, nil, root)
		_, sum, err := id.Holder(authtest.ChainOf(c, sub))
		if err != nil {
			sum = fingerprintOf(c)
		}
		return setting.List[string]{fingerprintPrefix + hexColons(sum)}
	}
	allow := trusting(t, clock, func(c *Config) { c.AllowFingerprints = print(alice) }, root)
	want(t, "allowed", outcome(t, allow, alice), "cert:CN=alice")
	want(t, "not allowed", outcome(t, allow, bob, sub), Name)
	deny := trusting(t, clock, func(c *Config) { c.DenyFingerprints = print(alice) }, root)
	want(t, "denied", outcome(t, deny, alice), Name)
	want(t, "not denied", outcome(t, deny, bob, sub), "cert:CN=bob")
	denyCA := trusting(t, clock, func(c *Config) { c.DenyFingerprints = print(sub) }, root)
	want(t, "of a denied CA", outcome(t, denyCA, bob, sub), Name)
	want(t, "of another CA", outcome(t, denyCA, alice), "cert:CN=alice")
}

func TestManyCertificatesAreNotRead(t *testing.T) {
	clock := authtest.NewClock()
	root := authtest.NewCA("root", clock.Now(), nil)
	trust := trusting(t, clock, nil, root)
	alice := root.Client("alice", nil)
	flood := []authtest.Cert{alice}
	for range defaultDepth + spareCertificates {
		flood = append(flood, root)
	}
	want(t, "cause", cause(trust, flood...), "certificate_chain: the client sent 8 certificates, at most 7 are read")
	large := root.Client("large", func(c *x509.Certificate) {
		c.ExtraExtensions = []pkix.Extension{{Id: asn1.ObjectIdentifier{1, 2, 3}, Value: make([]byte, maxChainBytes)}}
	})
	want(t, "large", outcome(t, trust, large), Chain)
	want(t, "victim", outcome(t, trust, alice), "cert:CN=alice")
}

// TestRequestsAreJudgedByTheClock: a cached verdict ends with any certificate of the chain.
func TestRequestsAreJudgedByTheClock(t *testing.T) {
	clock := authtest.NewClock()
	root := authtest.NewCA("root", clock.Now(), nil)
	sub := root.CA("sub", func(c *x509.Certificate) { c.NotAfter = clock.Now().Add(time.Minute) })
	chain := authtest.ChainOf(sub.Client("a", func(c *x509.Certificate) { c.NotAfter = clock.Now().Add(time.Hour) }), sub)
	trust := trusting(t, clock, nil, root)
	p, err := trust.Verify(chain)
	if err != nil || !p.Expires.Equal(clock.Now().Add(time.Minute)) {
		t.Fatalf("got %v until %v, want an end in a minute", err, p)
	}
	clock.Add(time.Minute)
	want(t, "at the end", outcomeOf(t, trust, chain), "cert:CN=a")
	clock.Add(time.Second)
	want(t, "after the end", outcomeOf(t, trust, chain), Expired)
}

func TestAnotherChainIsNotTakenFromTheCache(t *testing.T) {
	clock := authtest.NewClock()
	root := authtest.NewCA("root", clock.Now(), nil)
	sub := root.CA("sub", nil)
	trust := trusting(t, clock, nil, root)
	alice := sub.Client("alice", nil)
	want(t, "with its CA", outcome(t, trust, alice, sub), "cert:CN=alice")
	want(t, "without", outcome(t, trust, alice), UnknownCA)
	want(t, "with another", outcome(t, trust, alice, root), UnknownCA)
	want(t, "again", outcome(t, trust, alice, sub), "cert:CN=alice")
}

// TestRefusedChainsDisplaceNoVerifiedOne: a flood of bad chains costs others nothing.
func TestRefusedChainsDisplaceNoVerifiedOne(t *testing.T) {
	clock := authtest.NewClock()
	root := authtest.NewCA("root", clock.Now(), nil)
	trust := trusting(t, clock, nil, root)
	victim := authtest.ChainOf(root.Client("victim", nil))
	want(t, "victim", outcomeOf(t, trust, victim), "cert:CN=victim")
	for i := range 3 * maxFailed {
		trust.cache.putFailure([32]byte{byte(i), byte(i >> 8)}, failure{err: &Error{Reason: UnknownCA}})
	}
	if n := len(trust.cache.failed.young) + len(trust.cache.failed.old); n > 2*maxFailed {
		t.Errorf("%d refusals are remembered, want at most %d", n, 2*maxFailed)
	}
	if trust.cache.byPointer(victim, 0, clock.Now()) == nil {
		t.Error("the victim's chain is no longer cached")
	}
}

func TestHostsChooseTheirEntry(t *testing.T) {
	clock := authtest.NewClock()
	root := authtest.NewCA("root", clock.Now(), nil)
	ca := setting.List[setting.Path]{file(t, "ca.pem", authtest.PEM(root))}
	hosts, err := New([]Config{
		{Hosts: setting.List[string]{"A.example", "*.b.example"}, CA: ca, Mode: Required},
		{Hosts: setting.List[string]{"x.b.example"}, CA: ca},
	}, NewMemory(MemoryOptions{}), nil)
	if err != nil {
		t.Fatal(err)
	}
	a, x := hosts.For("a.example"), hosts.For("x.b.example")
	if a == nil || x == nil || a == x || !a.Required() || x.Required() || a.ID() == x.ID() {
		t.Errorf("got %v and %v, want two entries of which the first is required", a, x)
	}
	if hosts.For("y.b.example") != a || hosts.For("z.y.b.example") != nil || hosts.For("c.example") != nil {
		t.Error("a host has the entry of another")
	}
	if (*Hosts)(nil).For("a.example") != nil {
		t.Error("no configuration has an entry")
	}
	if len(a.Subjects()) != 1 || string(a.Subjects()[0]) != string(root.RawSubject) {
		t.Error("the subjects are not those of the CAs")
	}
}

// TestHugeKeysAreNotUsed: fields of balancers may have keys that crypto/tls would refuse.
func TestHugeKeysAreNotUsed(t *testing.T) {
	clock := authtest.NewClock()
	root := authtest.NewCA("root", clock.Now(), nil)
	trust := trusting(t, clock, nil, root)
	huge := &rsa.PublicKey{N: new(big.Int).SetBit(big.NewInt(1), 64<<10, 1), E: 1<<31 - 1}
	der, err := x509.CreateCertificate(rand.Reader, &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "huge"}, NotBefore: root.NotBefore, NotAfter: root.NotAfter,
		IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign,
	}, root.Certificate, huge, root.Private)
	if err != nil {
		t.Fatal(err)
	}
	ca, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	alice := root.Client("alice", nil)
	forged := *alice.Certificate
	forged.RawIssuer = ca.RawSubject
	want(t, "huge", outcomeOf(t, trust, []*x509.Certificate{&forged, ca}), Chain)
	want(t, "victim", outcome(t, trust, alice), "cert:CN=alice")
}

// TestManyCAsOfOneNameAreTriedWithinBounds: a chain of CAs with one name and many keys, each of which
// may have signed each other one, costs no more than its length allows.
func TestManyCAsOfOneNameAreTriedWithinBounds(t *testing.T) {
	clock := authtest.NewClock()
	root := authtest.NewCA("same", clock.Now(), nil)
	trust := trusting(t, clock, nil, root)
	forger := authtest.NewCA("same", clock.Now(), nil)
	chain := []authtest.Cert{forger.Client("mallory", nil)}
	for len(chain) < defaultDepth+spareCertificates {
		chain = append(chain, forger.CA("same", nil))
	}
	want(t, "forger", outcome(t, trust, chain...), UnknownCA)
	want(t, "victim", outcome(t, trust, root.Client("alice", nil)), "cert:CN=alice")
}
