package auth

import (
	"context"
	"testing"
	"time"

	"sallyport/auth/authtest"
	"sallyport/proxy/message"
	"sallyport/proxy/setting"
)

// recheck returns the caller of a request that another chain accepted, or the reason of
// the refusal.
func recheck(t *testing.T, c *Chain, h *message.Head, earlier Proof) string {
	t.Helper()
	proof, err := c.Recheck(context.Background(), from(client, h), earlier)
	if err != nil {
		if !proof.Caller.IsZero() {
			t.Errorf("%s is known beside %v", proof.Caller.String(), err)
		}
		return reason(t, err)
	}
	return proof.Caller.String()
}

// accepted returns the proof of a request that the chain must accept.
func accepted(t *testing.T, c *Chain, h *message.Head) Proof {
	t.Helper()
	proof, err := c.Authenticate(context.Background(), from(client, h))
	if err != nil {
		t.Fatal(err)
	}
	return proof
}

// TestRecheckOfTokens checks that a request in flight is accepted if the new configuration
// accepts its token for the same caller.
func TestRecheckOfTokens(t *testing.T) {
	for name, c := range map[string]struct {
		change func(*IssuerConfig)
		want   string
	}{
		"nothing":         {nil, "issuer/corp:alice"},
		"harmless":        {require("sub", "alice"), "issuer/corp:alice"},
		"audience":        {func(c *IssuerConfig) { c.Audience = []string{"batch"} }, WrongAudience},
		"require":         {require("tenant", "a"), MissingClaim},
		"another caller":  {func(c *IssuerConfig) { c.Principal = "azp" }, BadCredential},
		"issuer is away":  {func(c *IssuerConfig) { c.JWKS = mustURL("http://127.0.0.1:1/jwks") }, IssuerUnavailable},
		"another issuer":  {func(c *IssuerConfig) { c.JWKS, c.URL = mustURL(c.URL+"/jwks"), "https://other.example" }, BadCredential},
		"other algorithm": {func(c *IssuerConfig) { c.Algorithms = []string{"RS256"} }, BadCredential},
	} {
		t.Run(name, func(t *testing.T) {
			r := newReloads(t)
			before, old := r.load(t, nil)
			before.Activate()
			defer before.Close()
			h := head("Bearer " + r.token(map[string]any{"azp": "svc"}))
			proof := accepted(t, old, h)
			after, fresh := r.load(t, c.change)
			if got := recheck(t, fresh, h, proof); c.want != BadCredential && c.change == nil && got != IssuerUnavailable {
				t.Errorf("before it is active: got %s", got)
			}
			after.Activate()
			defer after.Close()
			if got := recheck(t, fresh, h, proof); got != c.want {
				t.Errorf("got %s, want %s", got, c.want)
			}
		})
	}
}

// TestRecheckRefusesWithdrawnKeysAndExpiredTokens, so that their streams end.
func TestRecheckRefusesWithdrawnKeysAndExpiredTokens(t *testing.T) {
	r := newReloads(t)
	a, c := r.load(t, nil)
	a.Activate()
	defer a.Close()
	h := head("Bearer " + r.token(nil))
	proof := accepted(t, c, h)
	r.clock.Add(2 * time.Hour)
	if got := recheck(t, c, h, proof); got != TokenExpired {
		t.Errorf("after its end: got %s", got)
	}
	h = head("Bearer " + r.token(nil))
	proof = accepted(t, c, h)
	r.Publish(authtest.NewKey("two", "EdDSA", authtest.Ed25519()).JWK())
	refresh(t, a)
	if got := recheck(t, c, h, proof); got != BadCredential {
		t.Errorf("of a withdrawn key: got %s", got)
	}
}

// TestRecheckCountsNoFailure checks that a reload with many streams does not spend the
// budget of their address, and works if a forger has spent it.
func TestRecheckCountsNoFailure(t *testing.T) {
	r := newReloads(t)
	r.memory.budget = newBudget(Budget{Burst: 2, Every: time.Hour})
	before, old := r.load(t, nil)
	before.Activate()
	defer before.Close()
	h := head("Bearer " + r.token(nil))
	proof := accepted(t, old, h)
	strict, refusing := r.load(t, require("tenant", "a"))
	strict.Activate()
	defer strict.Close()
	for range 5 {
		if got := recheck(t, refusing, h, proof); got != MissingClaim {
			t.Fatalf("got %s", got)
		}
	}
	evil := authtest.NewKey("one", "EdDSA", authtest.Ed25519())
	for _, reason := range []string{BadCredential, BadCredential, TooManyFailures} {
		want(t, old, evil.Token(r.claims(r.clock.Now(), nil)), reason)
	}
	lax, accepting := r.load(t, require("sub", "*"))
	lax.Activate()
	defer lax.Close()
	if got := recheck(t, accepting, h, proof); got != "issuer/corp:alice" {
		t.Errorf("got %s", got)
	}
}

// TestRecheckOfSignatures checks that the key must still exist with the same secret, use
// and route. Age and nonce were checked when the request began.
func TestRecheckOfSignatures(t *testing.T) {
	s := newSigning(t)
	usual := Demand{Callers: []string{"key"}}
	mac := s.signed(t, s.keys["acme-1"], request("x-tenant: a"), nil)
	public := s.signed(t, s.keys["orbit-ed"], request(), nil)
	macProof, publicProof := accepted(t, s.route(t, usual), mac), accepted(t, s.route(t, usual), public)
	s.clock.Add(12 * time.Hour) // long after both signatures are stale
	sum := func(change func(map[string]SigningKeyConfig)) *Auth {
		config := map[string]SigningKeyConfig{
			"acme-1":   {Principal: "acme", Secret: literal(secretOf("acme-1"))},
			"orbit-ed": {Principal: "planet", PublicKey: s.publicKey},
		}
		if change != nil {
			change(config)
		}
		keys, err := ReadSigningKeys(config)
		if err != nil {
			t.Fatal(err)
		}
		return activeAuth(t, s.memory, Config{Issuers: map[string]IssuerConfig{"corp": s.config()}, Keys: keys})
	}
	yes := func(string) bool { return true }
	for name, c := range map[string]struct {
		keys        func(map[string]SigningKeyConfig)
		demand      Demand
		mac, public string
	}{
		"the same": {nil, usual, "key:acme", "key:planet"},
		"another secret": {func(m map[string]SigningKeyConfig) {
			m["acme-1"] = SigningKeyConfig{Principal: "acme", Secret: literal(secretOf("acme-2"))}
		}, usual, "bad_signature", "key:planet"},
		"another public key": {func(m map[string]SigningKeyConfig) {
			m["orbit-ed"] = SigningKeyConfig{Principal: "planet", PublicKey: writeFile(t, pemOf(t, "PUBLIC KEY", authtest.Ed25519().Public()))}
		}, usual, "key:acme", "bad_signature"},
		"another kind of key": {func(m map[string]SigningKeyConfig) {
			m["orbit-ed"] = SigningKeyConfig{Principal: "planet", Secret: literal(secretOf("x"))}
		}, usual, "key:acme", "bad_signature"},
		"no such key":        {func(m map[string]SigningKeyConfig) { delete(m, "acme-1") }, usual, "bad_signature", "key:planet"},
		"no such public key": {func(m map[string]SigningKeyConfig) { delete(m, "orbit-ed") }, usual, "key:acme", "bad_signature"},
		"for answers only": {func(m map[string]SigningKeyConfig) {
			m["acme-1"] = SigningKeyConfig{Principal: "acme", Secret: literal(secretOf("acme-1")), Use: setting.List[string]{SignResponse}}
		}, usual, "bad_signature", "key:planet"},
		"ended": {func(m map[string]SigningKeyConfig) {
			m["acme-1"] = SigningKeyConfig{Principal: "acme", Secret: literal(secretOf("acme-1")), NotAfter: setting.Time{Time: s.clock.Now()}}
		}, usual, "key_expired", "key:planet"},
		"of another caller": {func(m map[string]SigningKeyConfig) {
			m["acme-1"] = SigningKeyConfig{Principal: "other", Secret: literal(secretOf("acme-1"))}
		}, usual, "bad_credential", "key:planet"},
		"route for acme":       {nil, Demand{Callers: []string{"key/acme"}}, "key:acme", "bad_signature"},
		"route for tokens":     {nil, Demand{Callers: []string{"issuer/corp"}}, "unlisted_credential", "unlisted_credential"},
		"route for both":       {nil, Demand{Callers: []string{"key", "issuer/corp"}, All: true}, "no_credential", "no_credential"},
		"route for everyone":   {nil, Demand{Callers: []string{"anonymous"}}, "anonymous", "anonymous"},
		"covers more":          {nil, Demand{Callers: []string{"key"}, Signatures: SignatureDemand{Authority: yes, Cover: []string{"x-tenant"}}}, "coverage", "key:planet"},
		"another host":         {nil, Demand{Callers: []string{"key"}, Signatures: SignatureDemand{Authority: func(string) bool { return false }}}, "authority", "authority"},
		"any key, or a token":  {nil, Demand{Callers: []string{"issuer/corp", "key"}}, "key:acme", "key:planet"},
		"signatures on top":    {nil, Demand{Callers: []string{"issuer/corp"}, Signatures: SignatureDemand{Always: true, Authority: yes}}, "no_credential", "no_credential"},
		"headers are enough":   {nil, Demand{Callers: []string{"key"}, Signatures: SignatureDemand{Authority: yes, HeadersOnly: true}}, "key:acme", "key:planet"},
		"both keys by caller":  {nil, Demand{Callers: []string{"key/acme", "key/planet"}}, "key:acme", "key:planet"},
		"only the other's key": {nil, Demand{Callers: []string{"key/planet"}}, "bad_signature", "key:planet"},
	} {
		t.Run(name, func(t *testing.T) {
			if c.demand.Signatures.Authority == nil {
				c.demand.Signatures.Authority = yes
			}
			chain, err := sum(c.keys).Route(c.demand)
			if err != nil {
				t.Fatal(err)
			}
			if got := recheck(t, chain, mac, macProof); got != c.mac {
				t.Errorf("by a secret: got %s, want %s", got, c.mac)
			}
			if got := recheck(t, chain, public, publicProof); got != c.public {
				t.Errorf("by a public key: got %s, want %s", got, c.public)
			}
		})
	}
}

// TestRecheckRequiresEveryProof uses a route that requires a token and a signature.
func TestRecheckRequiresEveryProof(t *testing.T) {
	s := newSigning(t)
	token := func(sub string) string {
		return "authorization: Bearer " + s.issuer.Token(s.claims(s.clock.Now(), map[string]any{"sub": sub}))
	}
	all := s.route(t, Demand{Callers: []string{"issuer/corp", "key"}, All: true})
	either := s.route(t, Demand{Callers: []string{"issuer/corp", "key"}})
	tokens := s.route(t, Demand{Callers: []string{"issuer/corp"}})
	anyone := s.route(t, Demand{Callers: []string{"anonymous"}})
	h := s.signed(t, s.keys["acme-1"], request(token("alice")), nil)
	both := accepted(t, all, h)
	if got := recheck(t, all, h, both); got != "issuer/corp:alice" {
		t.Errorf("both: got %s", got)
	}
	if got := recheck(t, tokens, h, both); got != "issuer/corp:alice" {
		t.Errorf("now a token is enough: got %s", got)
	}
	// The caller would be who signed, since the signature does not cover the token.
	if got := recheck(t, either, h, both); got != "bad_credential" {
		t.Errorf("now either is enough: got %s", got)
	}
	if got := recheck(t, all, h, accepted(t, tokens, h)); got != "signature_missing" {
		t.Errorf("the signature was never verified: got %s", got)
	}
	unbound := activeAuth(t, s.memory, Config{Issuers: map[string]IssuerConfig{"corp": s.config()}, Keys: s.auth.keys})
	strict, err := unbound.Route(Demand{Callers: []string{"issuer/corp", "key"}, All: true, Signatures: SignatureDemand{Authority: func(string) bool { return true }}})
	if err != nil {
		t.Fatal(err)
	}
	if got := recheck(t, strict, h, both); got != "proofs_differ" {
		t.Errorf("without the alias: got %s", got)
	}
	open := accepted(t, anyone, h)
	if got := recheck(t, anyone, h, open); got != "anonymous" {
		t.Errorf("anonymous: got %s", got)
	}
	if got := recheck(t, tokens, h, open); got != "bad_credential" {
		t.Errorf("anonymous before, a token now: got %s", got)
	}
	if got := recheck(t, tokens, request(), open); got != "no_credential" {
		t.Errorf("anonymous before, nothing now: got %s", got)
	}
	for _, c := range []*Chain{nil, {}} {
		if got := recheck(t, c, h, both); got != "no_credential" {
			t.Errorf("a zero chain: got %s", got)
		}
	}
}
