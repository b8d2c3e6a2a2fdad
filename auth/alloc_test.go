//go:build !race

package auth

import (
	"testing"

	"sallyport/auth/authtest"
)

// TestNewTokenAllocatesLittle: nothing reads a token twice on its way into the cache.
func TestNewTokenAllocatesLittle(t *testing.T) {
	ed, clock := authtest.NewKey("ed", "EdDSA", authtest.Ed25519()), newClock()
	p := newProvider(t, ed.JWK())
	a, chain := newAuth(t, clock, p.config())
	r := from(client, head("Bearer "+ed.Token(p.claims(clock.now(), nil))))
	n := testing.AllocsPerRun(200, func() {
		if _, err := chain.Authenticate(t.Context(), r); err != nil {
			t.Fatal(err)
		}
		a.memory.tokens.sweep(1 << 62)
	})
	if n > 24 {
		t.Errorf("%v allocations for a new token, want at most 24", n)
	}
}
