package proxy_test

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"encoding/pem"
	"fmt"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/coreos/go-oidc/v3/oidc"
)

// pemKey returns a private key, PKCS #8 in PEM.
func pemKey(t *testing.T, key crypto.Signer) string {
	t.Helper()
	der, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		t.Fatal(err)
	}
	return string(pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: der}))
}

// assertionHouse has upstreams whose credentials are assertions by an Ed25519 key in Authorization,
// and by a P-256 key in a field of its own.
func assertionHouse(t *testing.T) (*house, *shown) {
	_, ed, _ := ed25519.GenerateKey(rand.Reader)
	_, next, _ := ed25519.GenerateKey(rand.Reader)
	_, gone, _ := ed25519.GenerateKey(rand.Reader)
	ec, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	s := &shown{}
	server := newModelServer(t, s.ServeHTTP)
	h := build(t, plan{
		more: unwatched + fmt.Sprintf(`signing_keys:
  ed: {private_key: {file: ed}, use: sign_assertion}
  ec: {private_key: {file: ec}, use: sign_assertion}
  next: {private_key: {file: next}, use: sign_assertion, not_before: 2125-01-01}
  gone: {private_key: {file: gone}, use: sign_assertion, not_after: 2025-01-01}
upstreams:
  ed: {rest: %q, credentials: {assertion: {key: ed, audience: https://tf.internal}}}
  ec: {rest: %q, credentials: {assertion: {key: ec, audience: https://ec.internal, issuer: lab, ttl: 10s, claims: scopes, header: X-Caller}}}
  next: {rest: %q, credentials: {assertion: {key: next, audience: a}}}
`, server.URL, server.URL, server.URL),
		routes: `
  - {host: models.test, path: /ed, upstream: ed, callers: issuer/corp, rules: [{allow: "*"}]}
  - {host: models.test, path: /ec, upstream: ec, callers: issuer/corp, rules: [{allow: "*"}]}
  - {host: models.test, path: /next, upstream: next, callers: issuer/corp, rules: [{allow: "*"}]}
  - {host: models.test, path: /open, upstream: ed, callers: anonymous, rules: [{allow: "*"}]}
`,
		files: map[string]string{"ed": pemKey(t, ed), "ec": pemKey(t, ec), "next": pemKey(t, next), "gone": pemKey(t, gone)},
	})
	return h, s
}

// A server verifies who calls with a library of others, by the keys that the gateway publishes.
func TestServersVerifyAssertions(t *testing.T) {
	h, s := assertionHouse(t)
	ctx := oidc.ClientContext(t.Context(), h.client(false))
	keys := oidc.NewRemoteKeySet(ctx, "https://models.test/.well-known/sallyport/jwks")
	seen := map[string]bool{}
	for _, c := range []struct {
		path, field, prefix, issuer, audience, subject, scope string
		life                                                  int64
	}{
		{"/ed", "authorization", "Bearer ", "sallyport", "https://tf.internal", "issuer/corp:alice", "", 60},
		{"/ed", "authorization", "Bearer ", "sallyport", "https://tf.internal", "issuer/corp:alice", "", 60},
		{"/open", "authorization", "Bearer ", "sallyport", "https://tf.internal", "anonymous", "", 60},
		{"/ec", "x-caller", "", "lab", "https://ec.internal", "issuer/corp:alice", "models.predict", 10},
	} {
		if got := h.do("GET", c.path, "", map[string]string{"X-Caller": "mallory", "X_Caller": "mallory"}); got.StatusCode != 200 {
			t.Fatalf("%s: got %d %s", c.path, got.StatusCode, got.body)
		}
		values := s.values(c.field)
		if len(values) != 1 || !strings.HasPrefix(values[0], c.prefix) {
			t.Fatalf("%s: the server got %q", c.path, values)
		}
		raw := strings.TrimPrefix(values[0], c.prefix)
		verify := func(audience string) (*oidc.IDToken, error) {
			return oidc.NewVerifier(c.issuer, keys, &oidc.Config{ClientID: audience, SupportedSigningAlgs: []string{"EdDSA", "ES256"}}).Verify(ctx, raw)
		}
		token, err := verify(c.audience)
		if err != nil {
			t.Fatalf("%s: %v", c.path, err)
		}
		var claims struct {
			Sub, Scope, Jti string
			Iat, Exp        int64
			Groups          any
		}
		if err := token.Claims(&claims); err != nil {
			t.Fatal(err)
		}
		if claims.Sub != c.subject || claims.Scope != c.scope || claims.Groups != nil || claims.Exp-claims.Iat != c.life || time.Since(time.Unix(claims.Iat, 0)).Abs() > time.Minute || seen[claims.Jti] {
			t.Errorf("%s: claims %+v", c.path, claims)
		}
		seen[claims.Jti] = true
		if _, err := verify("https://other.internal"); err == nil {
			t.Errorf("%s: another server took the assertion", c.path)
		}
	}
}

// The published set has keys before they sign, so that servers know them, and none that has ended. A
// key out of its time signs nothing.
func TestPublishedKeysOfAssertions(t *testing.T) {
	h, _ := assertionHouse(t)
	got := h.do("GET", "/.well-known/sallyport/jwks", "", map[string]string{"Authorization": ""})
	if got.StatusCode != 200 || got.Header.Get("Content-Type") != "application/jwk-set+json" {
		t.Fatalf("got %d %s", got.StatusCode, got.body)
	}
	for id, want := range map[string]bool{"ed": true, "ec": true, "next": true, "gone": false} {
		if strings.Contains(got.body, `"kid":"`+id+`"`) != want {
			t.Errorf("%s: %t; want %t in %s", id, !want, want, got.body)
		}
	}
	if strings.Contains(got.body, `"d"`) {
		t.Errorf("a private half is published: %s", got.body)
	}
	h.refused(h.do("POST", "/.well-known/sallyport/jwks", "", nil), 405, "method_not_allowed")
	if got := h.do("GET", "/next", "", nil); got.StatusCode != http.StatusServiceUnavailable || got.reason() != "upstream_credential_unavailable" {
		t.Errorf("a key that begins later: got %d %s", got.StatusCode, got.body)
	}
	plain := build(t, plan{})
	plain.refused(plain.do("GET", "/.well-known/sallyport/jwks", "", nil), 404, "no_route")
}
