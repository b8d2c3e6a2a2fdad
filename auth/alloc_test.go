//go:build !race

package auth

import (
	"fmt"
	"runtime"
	"strings"
	"testing"
	"time"

	"sallyport/auth/authtest"
	"sallyport/auth/fetch"
	"sallyport/auth/login"
)

// TestNewTokenAllocatesLittle bounds the allocations for verifying and caching a token.
func TestNewTokenAllocatesLittle(t *testing.T) {
	for _, k := range []authtest.Key{
		authtest.NewKey("ed", "EdDSA", authtest.Ed25519()),
		authtest.NewKey("rsa", "RS256", authtest.RSA()),
	} {
		clock := authtest.NewClock()
		p := newProvider(t, k.JWK())
		a, chain := newAuth(t, clock, p.config())
		r := from(client, head("Bearer "+k.Token(p.claims(clock.Now(), nil))))
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
	all, err := revocations(t, "apikey other\njti issuer/corp x\nprincipal apikey:other\n")
	if err != nil {
		t.Fatal(err)
	}
	k.auth.Revoke(all)
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
	r := from(client, byPassword("bob", "sesame"))
	if n := testing.AllocsPerRun(200, func() {
		if _, err := c.Authenticate(t.Context(), r); err != nil {
			t.Fatal(err)
		}
	}); n > 0 {
		t.Errorf("%v allocations, want none", n)
	}
}

// TestSessionAllocatesNothing bounds the allocations for a session that was opened before, in one cookie
// and in several, and for the question whether it must be sealed anew.
func TestSessionAllocatesNothing(t *testing.T) {
	large := map[string]any{"more": strings.Repeat("x", 5000)}
	host, domain := newPeople(t), newPeople(t, func(c *login.Config) { c.CookieDomain = "example" })
	for name, x := range map[string]struct {
		*people
		claims map[string]any
	}{"small": {host, nil}, "large": {host, large}, "of a domain": {domain, nil}} {
		p, claims := x.people, x.claims
		r := pageRequest(p.signIn("alice", claims))
		if n := testing.AllocsPerRun(200, func() {
			proof, err := p.chain.Authenticate(t.Context(), r)
			if err != nil {
				t.Fatal(err)
			}
			if proof.Session.Renewed(p.auth.memory.now()) != nil {
				t.Fatal("sealed anew")
			}
		}); n > 0 {
			t.Errorf("%s: %v allocations, want none", name, n)
		}
	}
}

// TestStepUpAllocatesNothing bounds the allocations for tokens and sessions on a route that demands an
// authentication context and its age.
func TestStepUpAllocatesNothing(t *testing.T) {
	p := newPeople(t)
	c, err := p.auth.Route(Demand{Callers: []string{"login/corp", "issuer/corp"}, StepUp: &login.StepUp{ACR: []string{"hwk", "mfa"}, MaxAge: time.Minute}})
	if err != nil {
		t.Fatal(err)
	}
	now := p.auth.memory.now()
	claims := p.issuer.Claims("alice")
	claims["acr"], claims["auth_time"] = "mfa", now.Unix()
	token, err := p.issuer.Sign(claims)
	if err != nil {
		t.Fatal(err)
	}
	for name, r := range map[string]*Request{
		"session": pageRequest(p.signIn("alice", map[string]any{"acr": "mfa", "auth_time": now.Unix()})),
		"token":   from(client, head("Bearer "+token)),
	} {
		if n := testing.AllocsPerRun(200, func() {
			if proof, err := c.Authenticate(t.Context(), r); err != nil || proof.Authentication != (login.Authentication{Claim: "acr", Values: "mfa", Time: now.Unix()}) {
				t.Fatal(err)
			}
		}); n > 0 {
			t.Errorf("%s: %v allocations, want none", name, n)
		}
	}
}

// TestCachedOpaqueTokenAllocatesNothing bounds the allocations for a token whose answer is in
// memory.
func TestCachedOpaqueTokenAllocatesNothing(t *testing.T) {
	o := newOpaque(t, nil)
	for _, token := range []string{"opaque", strings.Repeat("long", 200)} {
		r := from(client, head("Bearer "+o.know(token, nil)))
		if n := testing.AllocsPerRun(200, func() {
			if _, err := o.chain.Authenticate(t.Context(), r); err != nil {
				t.Fatal(err)
			}
		}); n > 0 {
			t.Errorf("%d bytes: %v allocations, want none", len(token), n)
		}
	}
}

// TestOpaqueTokensTakeLittleMemory bounds what a thousand tokens keep allocated.
func TestOpaqueTokensTakeLittleMemory(t *testing.T) {
	o := newOpaque(t, nil)
	in := o.auth.issuers["corp"].memory.Load().introspector
	put := func(i int) {
		token := fmt.Sprint("opaque-", i)
		answer := fmt.Sprintf(`{"active":true,"client_id":"notebook","sub":"user-%d","aud":"models","iss":%q,"scope":"models.predict models.read","token_type":"Bearer","iat":1800000000,"exp":1800003600}`, i, o.URL)
		d := o.memory.digest(token)
		v, why, err := in.judge(t.Context(), &look{digest: d}, &fetch.Answer{Type: plainAnswer, Text: []byte(answer)})
		if why != nil || err != nil {
			t.Fatal(why, err)
		}
		o.memory.tokens.put(v)
	}
	heap := func() int64 {
		runtime.GC()
		runtime.GC()
		var m runtime.MemStats
		runtime.ReadMemStats(&m)
		return int64(m.HeapAlloc)
	}
	put(0)
	before := heap()
	for i := range 1000 {
		put(i + 1)
	}
	if n := heap() - before; n > 1<<20 {
		t.Errorf("1000 tokens take %d bytes, want at most 1 MiB", n)
	} else {
		t.Logf("1000 tokens take %d bytes", n)
	}
	if n := o.memory.CacheStatus().Tokens; n != 1001 {
		t.Errorf("%d tokens are cached", n)
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
