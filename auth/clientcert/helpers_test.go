package clientcert

import (
	"crypto/sha256"
	"crypto/x509"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"sallyport/auth/authtest"
	"sallyport/proxy/setting"
)

// file writes a file and returns its path.
func file(t testing.TB, name string, text []byte) setting.Path {
	t.Helper()
	path := filepath.Join(t.TempDir(), name)
	if err := os.WriteFile(path, text, 0o600); err != nil {
		t.Fatal(err)
	}
	return setting.Path(path)
}

// trusting returns the Trust of an entry with these CAs.
func trusting(t testing.TB, c *authtest.Clock, change func(*Config), cas ...authtest.Cert) *Trust {
	t.Helper()
	config := Config{CA: setting.List[setting.Path]{file(t, "ca.pem", authtest.PEM(cas...))}}
	if change != nil {
		change(&config)
	}
	var f setting.Faults
	if config.Check("", &f); len(f) > 0 {
		t.Fatal(f)
	}
	hosts, err := New([]Config{config}, NewMemory(MemoryOptions{}), c.Now)
	if err != nil {
		t.Fatal(err)
	}
	return hosts.For("models.example")
}

// outcome returns the caller that a chain proves, or the reason why it proves none.
func outcome(t testing.TB, trust *Trust, chain ...authtest.Cert) string {
	t.Helper()
	return outcomeOf(t, trust, authtest.ChainOf(chain...))
}

func outcomeOf(t testing.TB, trust *Trust, chain []*x509.Certificate) string {
	t.Helper()
	p, err := trust.Verify(chain)
	if err == nil {
		return p.String()
	}
	var e *Error
	if !errors.As(err, &e) {
		t.Fatalf("got %T, want *Error: %v", err, err)
	}
	if p != nil {
		t.Errorf("%v beside error %v", p, err)
	}
	return e.Reason
}

func cause(trust *Trust, chain ...authtest.Cert) string {
	_, err := trust.Verify(authtest.ChainOf(chain...))
	if err == nil {
		return ""
	}
	return err.Error()
}

func want(t testing.TB, what, got, want string) {
	t.Helper()
	if got != want && !strings.HasSuffix(want, "…") || !strings.HasPrefix(got, strings.TrimSuffix(want, "…")) {
		t.Errorf("%s: got %q, want %q", what, got, want)
	}
}

func fingerprintOf(c authtest.Cert) *[32]byte {
	sum := sha256.Sum256(c.Raw)
	return &sum
}

// hexColons writes a fingerprint as openssl does.
func hexColons(sum *[32]byte) string {
	return strings.ToUpper(strings.TrimSuffix(strings.ReplaceAll(fmt.Sprintf("% x:", *sum), " ", ":"), ":"))
}
