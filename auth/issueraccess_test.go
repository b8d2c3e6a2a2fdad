package auth

import (
	"bytes"
	"encoding/pem"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"sallyport/auth/authtest"
	"sallyport/proxy/setting"
)

// TestTokenFileIsReadForEachFetch checks an API server of Kubernetes, which demands a token that
// rotates: the new one is sent without a reload, and the configuration stays the same.
func TestTokenFileIsReadForEachFetch(t *testing.T) {
	key := ecPair("one")
	var mu sync.Mutex
	var seen []string
	s := httptest.NewTLSServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		mu.Lock()
		seen = append(seen, r.Header.Get("Authorization"))
		mu.Unlock()
		_, _ = w.Write([]byte(authtest.KeySet(key.JWK())))
	}))
	t.Cleanup(s.Close)
	dir := t.TempDir()
	write := func(name, text string) setting.Path {
		t.Helper()
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		return setting.Path(filepath.Join(dir, name))
	}
	var logged bytes.Buffer
	c := IssuerConfig{URL: "https://kubernetes.default.svc", Audience: setting.List[string]{"models"}, JWKS: mustURL(s.URL + "/openid/v1/jwks")}
	c.CA = write("ca.pem", string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: s.Certificate().Raw})))
	c.TokenFile = setting.Place(write("token", "secret-one\n"))
	m := NewMemory(MemoryOptions{Log: slog.New(slog.NewTextHandler(&logged, nil))})
	a := activeAuth(t, m, Config{Issuers: map[string]IssuerConfig{"cluster": c}})
	refresh(t, a)
	before := setting.Digest(c)
	write("token", "secret-two\n")
	refresh(t, a)
	if setting.Digest(c) != before || len(setting.Files(c)) != 1 {
		t.Error("a token that rotates changes the configuration")
	}
	if err := os.Remove(string(c.TokenFile)); err != nil {
		t.Fatal(err)
	}
	refresh(t, a)
	mu.Lock()
	if got := strings.Join(seen, ", "); got != "Bearer secret-one, Bearer secret-two" {
		t.Errorf("the issuer saw %q", got)
	}
	mu.Unlock()
	if st := a.Status()[0]; st.Keys != 1 || st.LastError != "keys: token not read" {
		t.Errorf("got %+v; want the keys to stay", st)
	}
	if strings.Contains(logged.String(), "secret-") || !strings.Contains(logged.String(), string(c.TokenFile)) {
		t.Errorf("logged: %s", logged.String())
	}
	var f setting.Faults
	if c.CheckFiles("issuers.cluster", &f); len(f) != 1 || f[0].Path != "issuers.cluster.token_file" || f[0].Cure == "" {
		t.Errorf("got %v", f)
	}
}

// TestFaultsOfProxyCredentialsShowNoSecret checks the form of the file.
func TestFaultsOfProxyCredentialsShowNoSecret(t *testing.T) {
	c := IssuerConfig{URL: "https://login.example.com", Audience: setting.List[string]{"models"}}
	c.Proxy.URL = mustURL("http://127.0.0.1:1")
	for _, text := range []string{"secret", ":secret"} {
		c.Proxy.Credentials = setting.Literal([]byte(text))
		var f setting.Faults
		if c.CheckFiles("issuers.corp", &f); len(f) != 1 || f[0].Path != "issuers.corp.proxy.credentials" || strings.Contains(f.Error(), "secret") || f[0].Cure == "" {
			t.Errorf("got %v", f)
		}
		if _, err := New(Config{Issuers: map[string]IssuerConfig{"corp": c}}, NewMemory(MemoryOptions{})); err == nil || strings.Contains(err.Error(), "secret") {
			t.Errorf("got %v", err)
		}
	}
}
