package clientpolicy

import (
	"crypto/tls"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"sallyport/auth/authtest"
	"sallyport/auth/clientcert"
	"sallyport/proxy/config"
	"sallyport/proxy/message"
	"sallyport/proxy/wire"
)

// strictPolicies are the policies of a host that requires certificates of a new CA, and a connection
// with one.
func strictPolicies(t testing.TB) (*Policies, *wire.Conn) {
	t.Helper()
	ca := authtest.NewCA("lab", time.Now(), nil)
	dir := t.TempDir()
	file := filepath.Join(dir, "gateway.yaml")
	text := `listen: {https: '127.0.0.1:0', http: 'off', health: 'off'}
tls: {local: {}}
client_certificates: [{hosts: [models.test, Tokens.test., '[::0:1]'], ca: ca.pem, mode: required}, {hosts: ['*.wild.test'], ca: ca.pem}]
routes:
  - {host: [models.test, '*.wild.test'], callers: cert, rules: [{allow: "*"}], respond: {status: 200}}
  - {host: [tokens.test, '[::0:1]'], callers: anonymous, rules: [{allow: "*"}], respond: {status: 200}}
  - {host: [free.wild.test, plain.test], callers: anonymous, rules: [{allow: "*"}], respond: {status: 200}}
`
	for name, text := range map[string]string{file: text, filepath.Join(dir, "ca.pem"): string(authtest.PEM(ca))} {
		if err := os.WriteFile(name, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	cfg, err := config.Load(file)
	if err != nil {
		t.Fatal(err)
	}
	trusts, err := clientcert.New(cfg.ClientCertificates, clientcert.NewMemory(clientcert.MemoryOptions{}), nil)
	if err != nil {
		t.Fatal(err)
	}
	chain := authtest.ChainOf(ca.Client("alice", authtest.URIs("spiffe://lab/alice")))
	return New(cfg, trusts), &wire.Conn{TLS: &tls.ConnectionState{ServerName: "models.test", PeerCertificates: chain}}
}

func TestHostsAskForCertificatesAsTheirRoutesDo(t *testing.T) {
	p, _ := strictPolicies(t)
	for host, asks := range map[string]bool{
		"models.test": true, "a.wild.test": true, "b.wild.test": true, "free.wild.test": false, "plain.test": false,
		"tokens.test": true, "[::1]": true, "wild.test": false, "a.b.wild.test": false, "": false, "unknown.test": false,
	} {
		if got := p.Of(host) != nil; got != asks {
			t.Errorf("%q asks: %t, want %t", host, got, asks)
		}
	}
}

// TestRequiredCertificatesNeedNoListenerForTLS is about a gateway all of whose requests come from
// balancers.
func TestRequiredCertificatesNeedNoListenerForTLS(t *testing.T) {
	dir := t.TempDir()
	file := filepath.Join(dir, "gateway.yaml")
	text := `listen: {https: 'off', http: 'off', health: 'off', insecure_plain: {addr: '127.0.0.1:0', from: 127.0.0.1}}
trusted_proxies: 127.0.0.1
client_certificates: {ca: ca.pem, mode: required}
routes:
  - {host: models.test, callers: cert, rules: [{allow: "*"}], respond: {status: 200}}
  - {host: models.test, path: /open, callers: anonymous, rules: [{allow: "*"}], respond: {status: 200}}
`
	for name, text := range map[string]string{file: text, filepath.Join(dir, "ca.pem"): string(authtest.PEM(authtest.NewCA("lab", time.Now(), nil)))} {
		if err := os.WriteFile(name, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	cfg, err := config.Load(file)
	if err != nil {
		t.Fatal(err)
	}
	trusts, err := clientcert.New(cfg.ClientCertificates, clientcert.NewMemory(clientcert.MemoryOptions{}), nil)
	if err != nil {
		t.Fatal(err)
	}
	err = New(cfg, trusts).CheckBalanced(&message.Head{Host: "models.test", Path: "/open"}, &wire.Conn{})
	if err == nil || !strings.Contains(err.Error(), "mode: required") {
		t.Errorf("got %v, want a refusal", err)
	}
}

func TestCheckOfAConnectionDoesNotAllocate(t *testing.T) {
	p, c := strictPolicies(t)
	if n := testing.AllocsPerRun(1000, func() {
		if err := p.CheckConn("models.test", c); err != nil {
			t.Fatal(err)
		}
	}); n > 0 {
		t.Errorf("%v allocations", n)
	}
}

// BenchmarkCheckConn measures what a required certificate costs a request before authentication.
func BenchmarkCheckConn(b *testing.B) {
	p, c := strictPolicies(b)
	b.ReportAllocs()
	for b.Loop() {
		if err := p.CheckConn("models.test", c); err != nil {
			b.Fatal(err)
		}
	}
}
