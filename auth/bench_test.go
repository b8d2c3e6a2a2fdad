package auth

import (
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	"sallyport/auth/apikey"
	"sallyport/auth/authtest"
	"sallyport/proxy/message"
	"sallyport/proxy/setting"
)

// benchmarkCold verifies a token that is in no cache.
func benchmarkCold(b *testing.B, k authtest.Key) {
	clock, p := authtest.NewClock(), newProvider(b, k.JWK())
	a, chain := newAuth(b, clock, p.config())
	h := head("Bearer " + k.Token(p.claims(clock.Now(), nil)))
	b.ReportAllocs()
	for b.Loop() {
		if _, err := chain.Authenticate(b.Context(), from(client, h)); err != nil {
			b.Fatal(err)
		}
		a.memory.tokens.sweep(1 << 62)
	}
}

func BenchmarkColdRS256(b *testing.B) {
	benchmarkCold(b, authtest.NewKey("k", "RS256", authtest.RSA()))
}
func BenchmarkColdES256(b *testing.B) { benchmarkCold(b, ecPair("k")) }
func BenchmarkColdEdDSA(b *testing.B) {
	benchmarkCold(b, authtest.NewKey("k", "EdDSA", authtest.Ed25519()))
}

// BenchmarkCachedToken looks up one token in turn of a hundred or of ten thousand, as large as
// Keycloak's. The text of ten thousand is not in the processor's cache, as a request's would be.
func BenchmarkCachedToken(b *testing.B) {
	for _, n := range []int{100, 10_000} {
		b.Run(strconv.Itoa(n), func(b *testing.B) { benchmarkCachedToken(b, n) })
	}
}

func benchmarkCachedToken(b *testing.B, n int) {
	ed := authtest.NewKey("k", "EdDSA", authtest.Ed25519())
	clock, p := authtest.NewClock(), newProvider(b, ed.JWK())
	_, chain := newAuth(b, clock, p.config())
	heads := make([]string, n)
	filler := map[string]any{"realm_access": map[string]any{"roles": []string{"offline_access", "default-roles-ml", "uma_authorization"}},
		"preferred_username": "service-account-batch", "jti": "5f1c1f2e-7e1b-4a4e-9c59-0d0e1f6c7a11", "azp": "svc-batch", "session_state": "1fd8a1f4-2f1e-4d27-a4b5-4df9d2b1dfbd",
		"resource_access": map[string]any{"account": map[string]any{"roles": []string{"manage-account", "manage-account-links", "view-profile"}}}}
	for i := range heads {
		filler["sub"] = fmt.Sprintf("caller-%06d-7e1b-4a4e-9c59-0d0e1f6c7a11", i)
		heads[i] = "Bearer " + ed.Token(p.claims(clock.Now(), filler))
		if _, err := chain.Authenticate(b.Context(), from(client, head(heads[i]))); err != nil {
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
		if _, err := chain.Authenticate(b.Context(), from(client, h)); err != nil {
			b.Fatal(err)
		}
	}
}

// BenchmarkRefusedToken measures refusing a token with an unknown kid.
func BenchmarkRefusedToken(b *testing.B) {
	k := ecPair("k")
	clock, p := authtest.NewClock(), newProvider(b, k.JWK())
	_, chain := newAuth(b, clock, p.config())
	h := head("Bearer " + ecPair("unknown").Token(p.claims(clock.Now(), nil)))
	b.ReportAllocs()
	for b.Loop() {
		if _, err := chain.Authenticate(b.Context(), from(client, h)); err == nil {
			b.Fatal("accepted")
		}
	}
}

// BenchmarkCachedSession looks up one session in turn of a hundred or of ten thousand.
func BenchmarkCachedSession(b *testing.B) {
	for _, n := range []int{100, 10_000} {
		b.Run(strconv.Itoa(n), func(b *testing.B) {
			p := newPeople(b)
			heads := make([]*Request, n)
			for i := range heads {
				heads[i] = pageRequest(p.signIn(fmt.Sprint("person-", i), map[string]any{"groups": []string{"ml", "ops", "offline_access"}}))
				if _, err := p.chain.Authenticate(b.Context(), heads[i]); err != nil {
					b.Fatal(err)
				}
			}
			i := 0
			b.ReportAllocs()
			for b.Loop() {
				if _, err := p.chain.Authenticate(b.Context(), heads[i%n]); err != nil {
					b.Fatal(err)
				}
				i += 7
			}
		})
	}
}

// BenchmarkOpenedSession opens a session that is in no cache.
func BenchmarkOpenedSession(b *testing.B) {
	p := newPeople(b)
	r := pageRequest(p.signIn("alice", map[string]any{"groups": []string{"ml", "ops", "offline_access"}}))
	b.ReportAllocs()
	for b.Loop() {
		if _, err := p.chain.Authenticate(b.Context(), r); err != nil {
			b.Fatal(err)
		}
		p.auth.memory.tokens.sweep(1 << 62)
	}
}

// BenchmarkCachedOpaqueToken is as BenchmarkCachedToken, for tokens that an issuer was asked about.
func BenchmarkCachedOpaqueToken(b *testing.B) {
	for _, n := range []int{100, 10_000} {
		b.Run(strconv.Itoa(n), func(b *testing.B) { benchmarkCachedOpaqueToken(b, n) })
	}
}

func benchmarkCachedOpaqueToken(b *testing.B, n int) {
	o := newOpaque(b, nil)
	heads := make([]string, n)
	for i := range heads {
		token := o.know(fmt.Sprintf("ory_at_%043d.%043d", i, i), nil)
		heads[i] = "Bearer " + token
		if _, err := o.chain.Authenticate(b.Context(), from(client, head(heads[i]))); err != nil {
			b.Fatal(err)
		}
	}
	h := head("")
	i := 0
	b.ReportAllocs()
	for b.Loop() {
		h.Fields[0].Value = heads[i%len(heads)]
		i += 7
		if _, err := o.chain.Authenticate(b.Context(), from(client, h)); err != nil {
			b.Fatal(err)
		}
	}
}

// BenchmarkAPIKey looks up one key in turn of a hundred or of ten thousand.
func BenchmarkAPIKey(b *testing.B) {
	for _, n := range []int{100, 10_000} {
		b.Run(strconv.Itoa(n), func(b *testing.B) {
			var file strings.Builder
			heads := make([]*message.Head, n)
			for i := range heads {
				key := apikey.New()
				heads[i] = head("Bearer " + key)
				fmt.Fprintf(&file, "user-%d %s\n", i, apikey.HashText(key))
			}
			name := filepath.Join(b.TempDir(), "keys")
			if err := os.WriteFile(name, []byte(file.String()), 0o600); err != nil {
				b.Fatal(err)
			}
			keys, err := ReadAPIKeys(nil, setting.Path(name))
			if err != nil {
				b.Fatal(err)
			}
			chain, err := activeAuth(b, NewMemory(MemoryOptions{}), Config{APIKeys: keys}).Route(Demand{Callers: []string{"apikey"}})
			if err != nil {
				b.Fatal(err)
			}
			i := 0
			b.ReportAllocs()
			for b.Loop() {
				if _, err := chain.Authenticate(b.Context(), from(client, heads[i%n])); err != nil {
					b.Fatal(err)
				}
				i += 7
			}
		})
	}
}
