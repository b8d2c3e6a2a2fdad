package auth

import (
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"sallyport/auth/authtest"
	"sallyport/proxy/setting"
)

// TestExplanationsOfOpaqueTokens compares the words about tokens that the issuer is asked about, and
// about the issuer, with the golden file.
func TestExplanationsOfOpaqueTokens(t *testing.T) {
	prefixed := func(c *IssuerConfig) { c.Introspection.Prefix = "corp_" }
	var b strings.Builder
	for _, c := range []struct {
		name   string
		change func(*IssuerConfig)
		answer http.Handler
		token  string
		claims map[string]any // nil: the issuer does not know the token
	}{
		{"accepted", nil, nil, "opaque", map[string]any{}},
		{"inactive", nil, nil, "opaque", nil},
		{"another audience", nil, nil, "opaque", map[string]any{"aud": "account"}},
		{"without the principal", nil, nil, "opaque", map[string]any{"sub": nil}},
		{"another prefix", prefixed, nil, "other_opaque", nil},
		{"the prefix", prefixed, nil, "corp_opaque", map[string]any{}},
		{"characters of no token", nil, nil, "a b", nil},
		{"endpoint down", nil, authtest.Status(503), "opaque", nil},
		{"endpoint without an answer for us", nil, authtest.Status(403), "opaque", nil},
		{"endpoint that wants another request", nil, authtest.Status(400), "opaque", nil},
		{"endpoint that is a page", nil, authtest.Text("<html>"), "opaque", nil},
		{"an endpoint that calls everything active", nil, http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Content-Type", "application/json")
			fmt.Fprint(w, `{"active":true,"sub":"alice","aud":"models","exp":1900000000}`)
		}), "opaque", nil},
	} {
		o := newOpaque(t, c.change)
		if c.claims != nil {
			o.know(c.token, c.claims)
		}
		o.AnswerLookUps(c.answer)
		r := o.auth.Inspect(t.Context())[0].Introspection
		fmt.Fprintf(&b, "== %s: %s\n", c.name, r.URL)
		if r.Problem != "" {
			fmt.Fprintf(&b, "issuer: %s\n    %s\n", r.Problem, r.Cure)
		}
		e := o.auth.Explain(t.Context(), o.chain, o.chain.Present(head(), c.token))
		fmt.Fprintf(&b, "%s\n", decision(&e))
		for _, f := range e.Findings {
			fmt.Fprintf(&b, "%s\n    %s\n", f.Problem, f.Cure)
		}
	}
	golden(t, "testdata/explain_opaque.txt", regexp.MustCompile(`127\.0\.0\.1:\d+`).ReplaceAllString(b.String(), "127.0.0.1:PORT"))
	if strings.Contains(b.String(), clientSecret) {
		t.Error("the texts have the secret")
	}
}

// An issuer that is asked about its JWTs too is asked by the explanation as well.
func TestExplanationAsksAboutJWTs(t *testing.T) {
	o := newOpaque(t, func(c *IssuerConfig) { c.Introspection.JWT = true })
	token := o.key.Token(o.claims(o.clock.Now(), nil))
	e := o.auth.Explain(t.Context(), o.chain, o.chain.Present(head(), token))
	if e.Reason != TokenInactive || len(e.Findings) != 1 || !strings.HasPrefix(e.Findings[0].Cure, "get a new token from issuer corp") {
		t.Errorf("got %+v", e)
	}
	o = newOpaque(t, func(c *IssuerConfig) { c.Introspection.JWT = true })
	token = o.know(o.key.Token(o.claims(o.clock.Now(), nil)), nil)
	if e = o.auth.Explain(t.Context(), o.chain, o.chain.Present(head(), token)); e.Reason != "" {
		t.Errorf("got %+v", e)
	}
}

// A token of an issuer with token_from is presented in that field, as by one of its proxies.
func TestPresentInTheFieldOfTheIssuer(t *testing.T) {
	one := authtest.NewKey("k1", "EdDSA", authtest.Ed25519())
	clock, p := authtest.NewClock(), newProvider(t, one.JWK())
	ic := p.config()
	var from setting.CIDR
	if err := from.UnmarshalText([]byte("10.0.0.7")); err != nil {
		t.Fatal(err)
	}
	ic.TokenFrom = &TokenFromConfig{Header: "Cf-Access-Jwt-Assertion", From: setting.List[setting.CIDR]{from}}
	a, chain := newAuth(t, clock, ic)
	e := a.Explain(t.Context(), chain, chain.Present(head(), one.Token(p.claims(clock.Now(), nil))))
	if e.Caller.String() != "issuer/corp:alice" {
		t.Errorf("got %+v", e)
	}
	e = a.Explain(t.Context(), chain, chain.Present(head(), one.Token(p.claims(clock.Now(), map[string]any{"aud": "x"}))))
	if e.Reason != WrongAudience || !strings.HasPrefix(e.Findings[0].Problem, `aud is ["x"], corp wants ["models"]`) {
		t.Errorf("got %+v", e)
	}
	elsewhere := &Request{Head: head()}
	elsewhere.Head.Fields.Add("authorization", "Bearer x.y.z")
	if _, err := chain.Authenticate(t.Context(), elsewhere); err == nil || !strings.HasSuffix(err.Error(), "the route takes issuer/corp in cf-access-jwt-assertion") {
		t.Errorf("in Authorization: got %v", err)
	}
}

// Access tokens of Cognito have no aud.
func TestExplanationOfAudienceClaims(t *testing.T) {
	one := authtest.NewKey("k1", "EdDSA", authtest.Ed25519())
	const cognito = "https://cognito-idp.eu-central-1.amazonaws.com/eu-central-1_x"
	for claim, want := range map[string]string{
		"":          "aud is absent, corp wants [\"models\"]: write issuers.corp.audience_claim: client_id, and as audience the ids of the clients",
		"client_id": "client_id is [\"app\"], corp wants [\"models\"]: send a token of that client, or add its own to issuers.corp.audience",
	} {
		clock, p := authtest.NewClock(), newProvider(t, one.JWK())
		ic := p.config()
		ic.URL, ic.JWKS, ic.AudienceClaim = cognito, mustURL(p.URL+"/jwks"), claim
		a, chain := newAuth(t, clock, ic)
		e := a.Explain(t.Context(), chain, chain.Present(head(), one.Token(authtest.Claims(cognito, clock.Now(), map[string]any{"aud": nil, "client_id": "app"}))))
		if len(e.Findings) != 1 || !strings.HasPrefix(e.Findings[0].Problem+": "+e.Findings[0].Cure, want) {
			t.Errorf("%q: got %+v", claim, e)
		}
	}
}

// Keys of a file are not fetched.
func TestInspectionOfAKeyFile(t *testing.T) {
	one := authtest.NewKey("k1", "EdDSA", authtest.Ed25519())
	file := filepath.Join(t.TempDir(), "keys.json")
	if err := os.WriteFile(file, []byte(authtest.KeySet(one.JWK(), `{"kty":"oct","kid":"s"}`)), 0o600); err != nil {
		t.Fatal(err)
	}
	a := activeAuth(t, NewMemory(MemoryOptions{}), Config{Issuers: map[string]IssuerConfig{"corp": {URL: "https://issuer.invalid", Audience: setting.List[string]{"models"}, JWKSFile: setting.Path(file)}}})
	r := a.Inspect(t.Context())[0]
	if r.Problem != "" || len(r.Keys) != 1 || len(r.Skipped) != 1 || r.Document != "" {
		t.Errorf("got %+v", r)
	}
}
