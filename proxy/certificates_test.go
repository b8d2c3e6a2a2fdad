package proxy_test

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"fmt"
	"io"
	"log"
	"log/slog"
	"math/rand/v2"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/letsencrypt/pebble/v2/ca"
	"github.com/letsencrypt/pebble/v2/db"
	"github.com/letsencrypt/pebble/v2/va"
	"github.com/letsencrypt/pebble/v2/wfe"

	"sallyport/proxy"
)

// acmeAuthority is an ACME server that resolves localhost by the system's resolver.
type acmeAuthority struct {
	directory, bundle string
	roots             *x509.CertPool
}

func newACMEAuthority(t *testing.T, httpPort, httpsPort int) *acmeAuthority {
	t.Helper()
	t.Setenv("PEBBLE_VA_NOSLEEP", "1")
	t.Setenv("PEBBLE_WFE_NONCEREJECT", "0")
	quiet := log.New(io.Discard, "", 0)
	store := db.NewMemoryStore()
	authority := ca.New(quiet, store, "", "ecdsa", 0, 1, map[string]ca.Profile{"default": {}})
	front := wfe.New(quiet, store, va.New(quiet, httpPort, httpsPort, false, "", store), authority, []string{"pebble.test"}, false, false, 0, 0)
	server := httptest.NewTLSServer(front.Handler())
	t.Cleanup(server.Close)
	a := &acmeAuthority{directory: server.URL + "/dir", bundle: filepath.Join(t.TempDir(), "bundle.pem"), roots: x509.NewCertPool()}
	text := pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: server.Certificate().Raw})
	if err := os.WriteFile(a.bundle, text, 0o600); err != nil {
		t.Fatal(err)
	}
	a.roots.AppendCertsFromPEM(authority.GetRootCert(0).PEM())
	return a
}

// freePort returns a port that was unused a moment ago. It lies below the range from which systems take
// ports for connections, so that no client has it by the time the gateway wants it.
func freePort(t *testing.T) int {
	t.Helper()
	for range 100 {
		l, err := net.Listen("tcp", fmt.Sprintf("127.0.0.1:%d", 10_000+rand.IntN(22_000)))
		if err != nil {
			continue
		}
		defer l.Close()
		return l.Addr().(*net.TCPAddr).Port
	}
	t.Fatal("no free port")
	return 0
}

// acmeConfig loads a configuration in which an authority certifies localhost.
func acmeConfig(t *testing.T, challenge string) (*proxy.Config, *acmeAuthority) {
	t.Helper()
	https, plain := freePort(t), freePort(t)
	a := newACMEAuthority(t, plain, https)
	file := filepath.Join(t.TempDir(), "gateway.yaml")
	text := fmt.Sprintf(`
listen: {https: "127.0.0.1:%d", http: "127.0.0.1:%d", health: "127.0.0.1:0"}
tls: {acme: {email: ops@example.com, directory: %q, ca: %q, challenges: %s}}
routes:
  - {host: localhost, upstream: "http://127.0.0.1:1", callers: anonymous, rules: [{allow: "*"}]}
`, https, plain, a.directory, a.bundle, challenge)
	if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	cfg, err := proxy.LoadConfig(file)
	if err != nil {
		t.Fatal(err)
	}
	return cfg, a
}

// A gateway obtains its certificate through its own listeners, plain HTTP included, and is ready
// before that.
func TestGatewayObtainsCertificates(t *testing.T) {
	for _, challenge := range []string{"http-01", "tls-alpn-01"} {
		t.Run(challenge, func(t *testing.T) {
			cfg, a := acmeConfig(t, challenge)
			g, err := proxy.New(cfg, proxy.Options{Log: slog.New(slog.DiscardHandler), Stdout: io.Discard})
			if err != nil {
				t.Fatal(err)
			}
			ctx, cancel := context.WithCancel(t.Context())
			done := make(chan error, 1)
			go func() { done <- g.Run(ctx) }()
			defer func() {
				cancel()
				if err := <-done; err != nil {
					t.Error(err)
				}
			}()
			<-g.Ready()
			answer, err := http.Get("http://" + g.Addrs().Health.String() + "/readyz")
			if err != nil {
				t.Fatal(err)
			}
			answer.Body.Close()
			if answer.StatusCode != http.StatusOK {
				t.Errorf("ready: %d before there is a certificate, want 200", answer.StatusCode)
			}
			config := &tls.Config{ServerName: "localhost", RootCAs: a.roots}
			for end := time.Now().Add(time.Minute); ; time.Sleep(50 * time.Millisecond) {
				c, err := tls.Dial("tcp", g.Addrs().HTTPS[0].String(), config)
				if err == nil {
					c.Close()
					return
				}
				if time.Now().After(end) {
					t.Fatalf("no certificate: %v", err)
				}
			}
		})
	}
}

// Commands obtain certificates while no gateway runs, try out without storing anything, and export.
func TestCertificates(t *testing.T) {
	cfg, a := acmeConfig(t, "http-01")
	certs, err := proxy.OpenCertificates(cfg, proxy.Options{})
	if err != nil {
		t.Fatal(err)
	}
	if all := certs.List(); len(all) != 1 || !all[0].NotAfter.IsZero() || all[0].Source != "acme" {
		t.Errorf("before: %+v", all)
	}
	if err := certs.TryOut(t.Context(), nil, a.directory); err != nil {
		t.Errorf("trying out: %v", err)
	}
	if _, _, err := certs.Export("localhost"); err == nil {
		t.Error("the trial was kept")
	}
	if err := certs.Obtain(t.Context(), []string{"other.example.com"}, false); err == nil || !strings.Contains(err.Error(), "not one of the names") {
		t.Errorf("a name of no route: %v", err)
	}
	if err := certs.Obtain(t.Context(), nil, false); err != nil {
		t.Fatal(err)
	}
	first, _, err := certs.Export("localhost")
	if err != nil {
		t.Fatal(err)
	}
	if err := certs.Obtain(t.Context(), nil, true); err != nil {
		t.Fatal(err)
	}
	chain, key, err := certs.Export("localhost")
	if err != nil {
		t.Fatal(err)
	}
	if string(chain) == string(first) {
		t.Error("it was not renewed")
	}
	if _, err := tls.X509KeyPair(chain, key); err != nil {
		t.Error(err)
	}
	if all := certs.List(); all[0].NotAfter.IsZero() || all[0].LastError != "" {
		t.Errorf("after: %+v", all)
	}
}
