package auth

import (
	"context"
	"crypto/elliptic"
	"strings"
	"testing"

	"sallyport/auth/httpsig"
	"sallyport/auth/identity"
)

func p256() elliptic.Curve { return elliptic.P256() }

// TestChainChoosesCaller tries each pair of credentials on routes that list both kinds.
func TestChainChoosesCaller(t *testing.T) {
	s := newSigning(t)
	token := func(sub string) string {
		return "authorization: Bearer " + s.issuer.Token(s.claims(s.clock.Now(), map[string]any{"sub": sub}))
	}
	tokens := map[string]string{"alice": token("alice"), "bob": token("bob"), "carol": token("carol"), "forged": "authorization: Bearer x.y.z", "basic": "authorization: Basic eDp5"}
	routes := map[string]*Chain{
		"token":        s.route(t, Demand{Callers: []string{"issuer/corp"}}),
		"key":          s.route(t, Demand{Callers: []string{"key"}}),
		"token or key": s.route(t, Demand{Callers: []string{"issuer/corp", "key"}}),
		"key or token": s.route(t, Demand{Callers: []string{"key", "issuer/corp"}}),
		"all":          s.route(t, Demand{Callers: []string{"issuer/corp", "key"}, All: true}),
		"all, key":     s.route(t, Demand{Callers: []string{"key/acme", "issuer/corp"}, All: true}),
		"independent":  s.route(t, Demand{Callers: []string{"issuer/corp", "key"}, All: true, Independent: true}),
		"always":       s.route(t, Demand{Callers: []string{"issuer/corp"}, Signatures: SignatureDemand{Always: true}}),
		"anonymous":    s.route(t, Demand{Callers: []string{"anonymous"}}),
	}
	for _, c := range []struct{ route, token, key, want string }{
		{"token", "alice", "", "issuer/corp:alice"}, {"token", "", "acme-1", "unlisted_credential"}, {"token or key", "basic", "", "unlisted_credential"}, {"token", "alice", "forged", "issuer/corp:alice"},
		{"key", "", "acme-1", "key:acme+"}, {"key", "alice", "", "signature_missing"}, {"key", "forged", "acme-1", "key:acme+"},
		{"token or key", "alice", "", "issuer/corp:alice"}, {"token or key", "", "orbit-1", "key:orbit+"}, {"token or key", "alice", "acme-1", "key:acme+"}, {"token or key", "alice", "acme-1 over the token", "issuer/corp:alice+"}, {"key or token", "alice", "acme-1 over the token", "key:acme+"},
		{"token or key", "forged", "acme-1", "bad_credential+"}, {"token or key", "alice", "forged", "bad_signature"}, {"token or key", "", "", "no_credential"},
		{"key or token", "alice", "acme-1", "key:acme+"}, {"key or token", "alice", "", "issuer/corp:alice"},
		{"all", "alice", "acme-1", "issuer/corp:alice+"}, {"all", "alice", "", "signature_missing"}, {"all", "", "acme-1", "no_credential+"}, {"all", "", "", "no_credential"},
		{"all", "bob", "acme-1", "proofs_differ+"}, {"all", "alice", "orbit-1", "proofs_differ+"}, {"all", "carol", "orbit-1", "proofs_differ+"},
		{"all", "alice", "forged", "bad_signature"}, {"all", "forged", "acme-1", "bad_credential+"},
		{"all, key", "alice", "acme-1", "key:acme+"}, {"all, key", "alice", "orbit-1", "bad_signature"},
		{"independent", "bob", "acme-1", "issuer/corp:bob+"}, {"independent", "carol", "orbit-1", "issuer/corp:carol+"}, {"independent", "bob", "", "signature_missing"}, {"independent", "", "acme-1", "no_credential+"},
		{"always", "alice", "acme-1", "issuer/corp:alice+"}, {"always", "alice", "", "signature_missing"}, {"always", "bob", "acme-1", "proofs_differ+"}, {"always", "", "acme-1", "no_credential+"},
		{"anonymous", "forged", "forged", "anonymous"},
	} {
		var fields []string
		if c.token != "" {
			fields = append(fields, tokens[c.token])
		}
		h := request(fields...)
		switch c.key {
		case "":
		case "forged":
			h = s.signed(t, hmacKey(t, "acme-1", "wrong"), h, nil)
		case "acme-1 over the token":
			h = s.signed(t, s.keys["acme-1"], h, func(p *httpsig.Profile) { p.Cover = append(p.Cover, "authorization") })
		default:
			h = s.signed(t, s.keys[c.key], h, nil)
		}
		if got := outcome(t, routes[c.route], h, client); got != c.want {
			t.Errorf("%s, token of %q, signature of %q: got %s, want %s", c.route, c.token, c.key, got, c.want)
		}
	}
}

// TestAliasesUseQualifiedNames: equal names of two sources must not be confused.
func TestAliasesUseQualifiedNames(t *testing.T) {
	s := newSigning(t)
	c := s.route(t, Demand{Callers: []string{"issuer/corp", "key"}})
	for _, x := range []struct{ sub, key, alias string }{{"alice", "", "batch"}, {"", "acme-1", "batch"}, {"acme", "", ""}, {"", "orbit-1", ""}, {"key:acme", "", ""}} {
		h := request()
		if x.sub != "" {
			h = request("authorization: Bearer " + s.issuer.Token(s.claims(s.clock.Now(), map[string]any{"sub": x.sub})))
		}
		if x.key != "" {
			h = s.signed(t, s.keys[x.key], h, nil)
		}
		proof, err := c.Authenticate(context.Background(), from(client, h))
		if err != nil || proof.Caller.Alias != x.alias {
			t.Errorf("%v: %s is known as %q (%v)", x, proof.Caller.String(), proof.Caller.Alias, err)
		}
	}
}

func TestInvalidDemandsAreRefused(t *testing.T) {
	s := newSigning(t)
	for want, d := range map[string]Demand{
		"admits nobody":                                     {},
		"unknown caller \"keys\"":                           {Callers: []string{"keys"}},
		"unknown caller \"issuer/x\"":                       {Callers: []string{"issuer/x"}},
		"is listed twice":                                   {Callers: []string{"key", "issuer/corp", "key"}},
		"no signing key verifies requests of these callers": {Callers: []string{"key/nobody"}},
		"all of one kind of proof":                          {Callers: []string{"key/acme", "key/orbit"}, All: true},
		"list two kinds":                                    {Callers: []string{"issuer/corp"}, All: true},
		"must be the only caller":                           {Callers: []string{"anonymous", "key"}},
		"checks no signature":                               {Callers: []string{"anonymous"}, Signatures: SignatureDemand{Always: true}},
		"so it has no audience":                             {Callers: []string{"anonymous"}, Audience: []string{"models"}},
		"of none of the route":                              {Callers: []string{"key"}, Audience: []string{"models"}},
		"checks no signature ":                              {Callers: []string{"anonymous"}, All: true},
	} {
		c, err := s.auth.Route(d)
		if err == nil || !strings.Contains(err.Error(), strings.TrimSpace(want)) || c != nil {
			t.Errorf("%+v: got %v, %v; want %s", d, c, err, want)
		}
	}
	bare := activeAuth(t, NewMemory(MemoryOptions{}), Config{})
	if _, err := bare.Route(Demand{Callers: []string{"key"}}); err == nil {
		t.Error("a route for keys where there are none")
	}
}

func TestZeroChainsAdmitNobody(t *testing.T) {
	s := newSigning(t)
	for _, c := range []*Chain{nil, {}, {anyRequired: true}, {bind: true}} {
		if got := outcome(t, c, s.signed(t, s.keys["acme-1"], request(), nil), client); got != "no_credential" {
			t.Errorf("got %s", got)
		}
		if c.Signs() || c.Anonymous() || c.AcceptSignature() != "" {
			t.Error("a zero chain accepts something")
		}
	}
	var nobody identity.Principal
	if c := (&Chain{aliases: map[string]string{"": "batch"}}); c.alias(&nobody) != "" {
		t.Error("nobody has an alias")
	}
}
