// Package introspection holds the story of opaque tokens, about which the gateway asks the
// provider.
package introspection

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"sallyport/examples/story"
)

func TestMain(m *testing.M) { os.Exit(story.Run(m)) }

// house is the gateway before the provider.
type house struct {
	provider *story.Provider
	gateway  *story.Gateway
}

func start(t *testing.T, replace ...string) *house {
	t.Helper()
	h := &house{provider: story.StartProvider(t, "TOKEN_FORMAT=opaque")}
	secret := filepath.Join(t.TempDir(), "gateway.secret")
	if err := os.WriteFile(secret, []byte(h.provider.Secret+"\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	h.gateway = story.StartGateway(t, append([]string{"https://localhost:9000", h.provider.URL, "../openid-provider/provider.crt", h.provider.CA, "gateway.secret", secret}, replace...)...)
	return h
}

func (h *house) get(t *testing.T, token string) story.Answer {
	t.Helper()
	return h.gateway.Curl(t, "/", "-H", "Authorization: Bearer "+token)
}

// refused checks the answer to a token.
func (h *house) refused(t *testing.T, token string, status int, reason string) {
	t.Helper()
	a := h.get(t, token)
	if a.Status != status || !strings.Contains(a.Body, reason) {
		t.Errorf("got %d %s, want %d %s", a.Status, a.Body, status, reason)
	}
	if challenge := a.Header.Get("WWW-Authenticate"); (status == 401) != strings.Contains(challenge, `error="invalid_token"`) {
		t.Errorf("challenge %q", challenge)
	}
	if retry := a.Header.Get("Retry-After"); (status == 503) != (retry != "") {
		t.Errorf("Retry-After %q", retry)
	}
	if strings.Contains(a.Body+h.gateway.Process.Output(), token) {
		t.Error("the answer or the log holds the token")
	}
}

func TestOpaqueTokens(t *testing.T) {
	h := start(t)
	token := h.provider.Token(t, "models.predict", "")
	if strings.Contains(token, ".") {
		t.Fatal("the provider gave out a JWT")
	}
	a := h.get(t, token)
	if a.Status != 200 {
		t.Fatalf("got %d %s", a.Status, a.Body)
	}
	if r := h.gateway.Record(t, a.Header.Get("X-Request-Id")); r.Principal != "issuer/lab:batch" {
		t.Errorf("the record names %q", r.Principal)
	}
	h.refused(t, "opaque-token-of-nobody", 401, "token_inactive")
	h.refused(t, h.provider.Token(t, "models.predict", "https://other.example"), 401, "wrong_audience")
	h.refused(t, "eyJhbGciOiJkaXIifQ.a.b.c.d", 503, "issuer_unavailable") // the provider answers 400 to it

	h.provider.Revoke(t, token)
	revoked := time.Now()
	for h.get(t, token).Status == 200 {
		if time.Since(revoked) > 10*time.Second {
			t.Fatal("the revoked token is still taken after 10 s; max_age is 2 s")
		}
		time.Sleep(100 * time.Millisecond)
	}
	h.refused(t, token, 401, "token_inactive")

	late := h.provider.Token(t, "models.predict", "")
	h.provider.Stop(t)
	h.refused(t, late, 503, "issuer_unavailable")
	if strings.Contains(h.gateway.Process.Output(), h.provider.Secret) {
		t.Error("the log holds the secret of the client")
	}
}

// TestSignedAnswers takes those alone (RFC 9701).
func TestSignedAnswers(t *testing.T) {
	h := start(t, "max_age: 2s", "signed: true")
	if a := h.get(t, h.provider.Token(t, "models.predict", "")); a.Status != 200 {
		t.Errorf("got %d %s", a.Status, a.Body)
	}
	h.refused(t, "opaque-token-of-nobody", 401, "token_inactive")
}
