package doctor

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"fmt"
	"math/big"
	"net"
	"strings"
	"testing"
	"time"
)

// pair is a certificate with its key.
type pair struct {
	cert *x509.Certificate
	key  *ecdsa.PrivateKey
}

// issue makes a certificate; nil as the parent makes one that signs itself.
func issue(t *testing.T, parent *pair, name string, from, to time.Duration, ca bool) *pair {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: name}, NotBefore: time.Now().Add(from), NotAfter: time.Now().Add(to),
		IsCA: ca, BasicConstraintsValid: true, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth},
	}
	if !ca {
		template.DNSNames = []string{name}
	}
	signer := &pair{template, key}
	if parent != nil {
		signer = parent
	}
	der, err := x509.CreateCertificate(rand.Reader, template, signer.cert, key.Public(), signer.key)
	if err != nil {
		t.Fatal(err)
	}
	cert, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	return &pair{cert, key}
}

func TestChains(t *testing.T) {
	const day = 24 * time.Hour
	root := issue(t, nil, "Root", -day, 365*day, true)
	middle := issue(t, root, "Middle", -day, 90*day, true)
	ended := issue(t, root, "Ended", -9*day, -day, true)
	roots := x509.NewCertPool()
	roots.AddCert(root.cert)
	leaf := issue(t, middle, "a.example", -day, 60*day, false)
	var b strings.Builder
	for _, c := range []struct {
		name  string
		host  string
		chain []*pair
	}{
		{"good", "a.example", []*pair{leaf, middle}},
		{"nearly at its end", "a.example", []*pair{issue(t, root, "a.example", -95*day, 5*day, false)}},
		{"ended", "a.example", []*pair{issue(t, root, "a.example", -95*day, -day, false)}},
		{"not yet valid", "a.example", []*pair{issue(t, root, "a.example", day, 9*day, false)}},
		{"another host", "b.example", []*pair{leaf, middle}},
		{"a star", "*.example", []*pair{issue(t, root, "*.example", -day, 60*day, false)}},
		{"no intermediate", "a.example", []*pair{leaf}},
		{"an ended intermediate", "a.example", []*pair{issue(t, ended, "a.example", -9*day, 60*day, false), ended}},
		{"signed by itself", "a.example", []*pair{issue(t, nil, "a.example", -day, 60*day, false)}},
		{"an authority of its own", "a.example", []*pair{issue(t, issue(t, nil, "Own", -day, 90*day, true), "a.example", -day, 60*day, false), root}},
	} {
		var chain [][]byte
		for _, p := range c.chain {
			chain = append(chain, p.cert.Raw)
		}
		w := newWorld(t)
		p := &patient{Options: w.options("")}
		fmt.Fprintf(&b, "== %s\n%s", c.name, w.text([]Finding{p.judgeChain(c.host, chain, roots)}))
	}
	p := &patient{Options: newWorld(t).options("")}
	b.WriteString("== garbage\n" + newWorld(t).text([]Finding{p.judgeChain("a.example", [][]byte{{1}}, roots)}))
	golden(t, "chains.txt", b.String())
}

// TestServedChainIsThatOfTheName checks that the running gateway is asked by name, and that a refused
// handshake is a failure.
func TestServedChainIsThatOfTheName(t *testing.T) {
	w := newWorld(t)
	models := "127.0.0.1:1"
	w.serve(t, start+"routes:\n"+route("a.localhost", "http://"+models, "callers: anonymous"))
	got := w.examine(t, start+"routes:\n"+route("[a.localhost, new.localhost]", "http://"+models, "callers: anonymous"), "", "")
	for _, want := range []string{
		"ok      tls a.localhost: a certificate of \"sallyport local CA of HOST\", until DATE, served by the running gateway",
		"fail    tls new.localhost: the handshake with the running gateway at 127.0.0.1:PORT fails: remote error: tls: unrecognized name",
	} {
		if !strings.Contains(got, want) {
			t.Errorf("missing %q in\n%s", want, got)
		}
	}
	if _, _, err := net.SplitHostPort(models); err != nil {
		t.Fatal(err)
	}
}
