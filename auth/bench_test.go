package auth

import (
	"fmt"
	"testing"
)

// benchmarkCold verifies a token that is in no cache.
func benchmarkCold(b *testing.B, k pair) {
	clock, p := newClock(), newProvider(b, k.jwkOf())
	a, chain := newAuth(b, clock, p.config())
	h := head("Bearer " + k.token(p.claims(clock.now(), nil)))
	b.ReportAllocs()
	for b.Loop() {
		if _, err := chain.Authenticate(b.Context(), h, client); err != nil {
			b.Fatal(err)
		}
		a.tokens.sweep(1 << 62)
	}
}

func BenchmarkColdRS256(b *testing.B) { benchmarkCold(b, pair{"k", "RS256", rsaOne()}) }
func BenchmarkColdES256(b *testing.B) { benchmarkCold(b, ecPair("k")) }
func BenchmarkColdEdDSA(b *testing.B) { benchmarkCold(b, pair{"k", "EdDSA", newEd()}) }

// BenchmarkCachedToken looks up one token in turn of ten thousand, as large as
// Keycloak's.
func BenchmarkCachedToken(b *testing.B) {
	ed := pair{"k", "EdDSA", newEd()}
	clock, p := newClock(), newProvider(b, ed.jwkOf())
	_, chain := newAuth(b, clock, p.config())
	heads := make([]string, 10_000)
	filler := map[string]any{"realm_access": map[string]any{"roles": []string{"offline_access", "default-roles-ml", "uma_authorization"}},
		"preferred_username": "service-account-batch", "jti": "5f1c1f2e-7e1b-4a4e-9c59-0d0e1f6c7a11", "azp": "svc-batch", "session_state": "1fd8a1f4-2f1e-4d27-a4b5-4df9d2b1dfbd",
		"resource_access": map[string]any{"account": map[string]any{"roles": []string{"manage-account", "manage-account-links", "view-profile"}}}}
	for i := range heads {
		filler["sub"] = fmt.Sprintf("caller-%06d-7e1b-4a4e-9c59-0d0e1f6c7a11", i)
		heads[i] = "Bearer " + ed.token(p.claims(clock.now(), filler))
		if _, err := chain.Authenticate(b.Context(), head(heads[i]), client); err != nil {
			b.Fatal(err)
		}
	}
	b.Logf("tokens of %d bytes", len(heads[0])-7)
	h := head("")
	i := 0
	b.ReportAllocs()
	for b.Loop() {
		h.Fields[0].Value = heads[i%len(heads)]
		i += 7
		if _, err := chain.Authenticate(b.Context(), h, client); err != nil {
			b.Fatal(err)
		}
	}
}

// BenchmarkRefusedToken is what a token of an unknown kid costs.
func BenchmarkRefusedToken(b *testing.B) {
	k := ecPair("k")
	clock, p := newClock(), newProvider(b, k.jwkOf())
	_, chain := newAuth(b, clock, p.config())
	h := head("Bearer " + ecPair("unknown").token(p.claims(clock.now(), nil)))
	b.ReportAllocs()
	for b.Loop() {
		if _, err := chain.Authenticate(b.Context(), h, client); err == nil {
			b.Fatal("accepted")
		}
	}
}
