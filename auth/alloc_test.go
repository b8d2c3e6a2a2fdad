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

// TestCertificateAllocatesNothing bounds the allocations for a verified certificate, alone and as
// the one of a bound token in the cache.
func TestCertificateAllocatesNothing(t *testing.T) {
	r := newRegister(t)
	mine := r.ca.Client("mine", nil)
	for name, c := range map[string]struct {
		chain   *Chain
		request *Request
	}{
		"connection":  {r.chain("", nil, "cert"), overTLS(head(), mine)},
		"bound token": {r.chain(BoundRequire, nil, "issuer/corp"), overTLS(head(r.token(boundTo(mine))), mine)},
	} {
		if n := testing.AllocsPerRun(200, func() {
			if _, err := c.chain.Authenticate(t.Context(), c.request); err != nil {
				t.Fatal(err)
			}
		}); n > 0 {
			t.Errorf("%s: %v allocations, want none", name, n)
		}
	}
}
