//go:build !race

package auth

import (
	"testing"

	"sallyport/auth/authtest"
)

// TestNewTokenAllocatesLittle bounds the allocations for verifying and caching a token.
func TestNewTokenAllocatesLittle(t *testing.T) {
	for _, k := range []authtest.Key{
		authtest.NewKey("ed", "EdDSA", authtest.Ed25519()),
		authtest.NewKey("rsa", "RS256", authtest.RSA()),
	} {
		clock := newClock()
		p := newProvider(t, k.JWK())
		a, chain := newAuth(t, clock, p.config())
		r := from(client, head("Bearer "+k.Token(p.claims(clock.now(), nil))))
		n := testing.AllocsPerRun(200, func() {
			if _, err := chain.Authenticate(t.Context(), r); err != nil {
				t.Fatal(err)
			}
			a.memory.tokens.sweep(1 << 62)
		})
		if n > 24 {
			t.Errorf("%s: %v allocations for a new token, want at most 24", k.Algorithm, n)
		}
	}
}

// TestAPIKeyAllocatesNothing bounds the allocations for a known API key, in each field but
// Basic's.
func TestAPIKeyAllocatesNothing(t *testing.T) {
	k := newKeyring(t)
	var err error
	if k.auth.revoked, err = revocations(t, "apikey other\njti issuer/corp x\nprincipal apikey:other\n"); err != nil {
		t.Fatal(err)
	}
	c := k.chain("issuer/corp", "apikey")
	for _, pair := range [][]string{{"authorization", "Bearer " + k.acme}, {"x-api-key", k.acme}, {"api-key", k.acme}} {
		r := from(client, fields(pair...))
		if n := testing.AllocsPerRun(200, func() {
			if _, err := c.Authenticate(t.Context(), r); err != nil {
				t.Fatal(err)
			}
		}); n > 0 {
			t.Errorf("%s: %v allocations, want none", pair[0], n)
		}
	}
}

// TestVerifiedPasswordAllocatesNothing bounds the allocations for a password that was verified, beside
// other kinds of credentials.
func TestVerifiedPasswordAllocatesNothing(t *testing.T) {
	k := legacy(t)
	c := k.chain("issuer/corp", "apikey", "basic/legacy")
	r := from(client, login("bob", "sesame"))
	if n := testing.AllocsPerRun(200, func() {
		if _, err := c.Authenticate(t.Context(), r); err != nil {
			t.Fatal(err)
		}
	}); n > 0 {
		t.Errorf("%v allocations, want none", n)
	}
}
