package login_test

import (
	"encoding/base64"
	"net/url"
	"strings"
	"testing"
	"time"

	"sallyport/auth"
	"sallyport/auth/login"
)

// bearer returns a chain's answer to a token with more claims.
func (d *desk) bearer(c *auth.Chain, more map[string]any) (auth.Proof, error) {
	d.t.Helper()
	claims := d.issuer.Claims("alice")
	for name, value := range more {
		claims[name] = value
	}
	token, err := d.issuer.Sign(claims)
	if err != nil {
		d.t.Fatal(err)
	}
	r := request(host, "")
	r.Head.Fields.Set("authorization", "Bearer "+token)
	return c.Authenticate(d.t.Context(), r)
}

// demanding returns the chain of a route for sessions and tokens.
func (d *desk) demanding(values ...string) *auth.Chain {
	d.t.Helper()
	c, err := d.auth.Route(auth.Demand{Callers: []string{"login/corp", "issuer/corp"}, StepUp: &login.StepUp{ACR: values}})
	if err != nil {
		d.t.Fatal(err)
	}
	return c
}

// TestOneClaimTellsTheFactor holds sessions and tokens to the claim of the issuer, and to no other.
func TestOneClaimTellsTheFactor(t *testing.T) {
	type claims = map[string]any
	for name, c := range map[string]struct {
		claim  string
		claims claims
		says   string // what the route is told; "" if the claim is refused
	}{
		"amr":                  {"amr", claims{"amr": []string{"pwd", "mfa"}}, "pwd mfa"},
		"amr of one string":    {"amr", claims{"amr": "mfa"}, "mfa"},
		"amr besides acr":      {"amr", claims{"amr": []string{"mfa"}, "acr": "pwd"}, "mfa"},
		"amr with other types": {"amr", claims{"amr": []any{"mfa", 1}}, ""},
		"acr instead of amr":   {"amr", claims{"acr": "mfa"}, ""},
		"acrs instead of amr":  {"amr", claims{"acrs": []string{"mfa"}}, ""},
		"amr is an object":     {"amr", claims{"amr": claims{"mfa": true}}, ""},
		"its name below":       {"amr", claims{"amr": claims{"amr": "mfa"}}, ""},
		"amr has a null":       {"amr", claims{"amr": []any{"mfa", nil}}, ""},
		"amr is true":          {"amr", claims{"amr": true}, ""},
		"amr is empty":         {"amr", claims{"amr": []string{}}, ""},
		"amr is empty text":    {"amr", claims{"amr": ""}, ""},
		"two words in one":     {"amr", claims{"amr": "pwd mfa"}, ""},
		"two in one of a list": {"amr", claims{"amr": []string{"pwd mfa", "otp"}}, ""},
		"another letter case":  {"amr", claims{"amr": []string{"MFA"}}, ""},
		"a part of a word":     {"amr", claims{"amr": []string{"mfa2", "xmfa"}}, ""},
		"with a zero byte":     {"amr", claims{"amr": []string{"mfa\x00"}}, ""},
		"amr instead of acr":   {"", claims{"amr": []string{"mfa"}}, ""},
		"acr":                  {"", claims{"acr": "mfa", "amr": []string{"pwd"}}, "mfa"},
		"acr is a list":        {"", claims{"acr": []string{"mfa"}}, ""},
		"acr as amr":           {"", claims{"acr": "amr\x00mfa"}, ""},
		"acrs":                 {"acrs", claims{"acrs": []string{"c1", "mfa"}}, "c1 mfa"},
		"a claim of one's own": {"https://example.com/amr", claims{"https://example.com/amr": []string{"mfa"}}, "mfa"},
		"below another":        {"info.amr", claims{"info": claims{"amr": []string{"mfa"}}}, "mfa"},
		"two of one path":      {"info.amr", claims{"info": claims{"amr": []string{"mfa"}}, "info.amr": "pwd"}, ""},
	} {
		t.Run(name, func(t *testing.T) {
			d := newDesk(t, func(d *desk) {
				if c.claim != "" {
					d.rules.ACR = &auth.ACRConfig{Claim: c.claim}
				}
			})
			route := d.demanding("mfa")
			d.provider.Person("alice", c.claims)
			b := d.browser()
			b.signIn()
			session, refused := route.Authenticate(t.Context(), request(host, b.field()))
			token, alike := d.bearer(route, c.claims)
			for kind, got := range map[string]struct {
				proof auth.Proof
				err   error
			}{"session": {session, refused}, "token": {token, alike}} {
				want := ""
				if c.says == "" {
					want = auth.StepUpNeeded
				}
				wantReason(t, kind, got.err, want)
				if says := got.proof.Authentication.Values; says != c.says {
					t.Errorf("%s: the route is told %q; want %q", kind, says, c.says)
				}
			}
			victim := d.browser()
			strong := map[string]any{"acr": "mfa"}
			if c.claim != "" && !strings.Contains(c.claim, "info.") {
				strong = map[string]any{c.claim: "mfa"}
			} else if c.claim != "" {
				strong = map[string]any{"info": map[string]any{"amr": "mfa"}}
			}
			d.provider.Person("bob", strong)
			victim.signIn()
			_, err := route.Authenticate(t.Context(), request(host, victim.field()))
			wantReason(t, "the victim", err, "")
		})
	}
}

// TestFactorStaysOverRefreshAndReload refreshes a session with an ID token that says less or more, and changes the
// claim of the issuer while sessions live: what another claim said counts for nothing.
func TestFactorStaysOverRefreshAndReload(t *testing.T) {
	for _, memory := range []bool{false, true} {
		d := newDesk(t, func(d *desk) { d.config.Memory, d.rules.ACR = memory, &auth.ACRConfig{Claim: "amr"} })
		strong, weak := d.browser(), d.browser()
		d.provider.Person("alice", map[string]any{"amr": []string{"pwd", "mfa"}, "acr": "1"})
		strong.signIn()
		d.provider.Person("alice", map[string]any{"amr": []string{"pwd"}, "acr": "mfa"})
		weak.signIn()
		ask := func(when, wantStrong, wantWeak string) {
			t.Helper()
			route := d.demanding("mfa")
			_, err := route.Authenticate(t.Context(), request(host, strong.field()))
			wantReason(t, when+", strong", err, wantStrong)
			_, err = route.Authenticate(t.Context(), request(host, weak.field()))
			wantReason(t, when+", weak", err, wantWeak)
		}
		ask("at first", "", auth.StepUpNeeded)
		d.provider.Change(func(claims map[string]any) {
			if amr, _ := claims["amr"].([]string); len(amr) == 2 {
				delete(claims, "amr") // as Auth0 does
			} else {
				claims["amr"] = []string{"mfa"}
			}
		}, nil)
		d.clock.Add(4 * time.Minute)
		for _, b := range []*browser{strong, weak} {
			b.serves("issuer/corp:alice")
			d.login.Settle()
			b.serves("issuer/corp:alice") // with the new cookie
		}
		if n := d.provider.Refreshes(); n != 2 {
			t.Fatalf("%d refreshes; want 2", n)
		}
		ask("refreshed", "", auth.StepUpNeeded)
		d.rules.ACR = nil
		d.reload()
		ask("with the claim acr", auth.StepUpNeeded, auth.StepUpNeeded)
		d.rules.ACR = &auth.ACRConfig{Claim: "acrs"}
		d.reload()
		ask("with the claim acrs", auth.StepUpNeeded, auth.StepUpNeeded)
		d.rules.ACR = &auth.ACRConfig{Claim: "amr"}
		d.reload()
		ask("as before", "", auth.StepUpNeeded)
		d.config.ACR = []string{"mfa"}
		d.reload()
		ask("demanded by the login", "", login.BadSession)
	}
}

// TestAttackACRThatLooksLikeAnotherClaim signs in with an acr that is written as the session stores another claim.
func TestAttackACRThatLooksLikeAnotherClaim(t *testing.T) {
	d := newDesk(t)
	b, victim := d.browser(), d.browser()
	d.provider.Person("mallory", map[string]any{"acr": "amr\x00mfa"})
	b.signIn()
	d.rules.ACR = &auth.ACRConfig{Claim: "amr"}
	d.reload()
	d.provider.Person("alice", map[string]any{"amr": "mfa"})
	victim.signIn()
	route := d.demanding("mfa")
	_, err := route.Authenticate(t.Context(), request(host, b.field()))
	wantReason(t, "the attacker", err, auth.StepUpNeeded)
	_, err = route.Authenticate(t.Context(), request(host, victim.field()))
	wantReason(t, "the victim", err, "")
}

// TestIssuerIsAskedInItsWords compares the authorization request, and the challenge for tokens.
func TestIssuerIsAskedInItsWords(t *testing.T) {
	const pape = "http://schemas.openid.net/pape/policies/2007/06/multi-factor"
	const rfc = `Bearer realm="models", error="insufficient_user_authentication", error_description="a stronger or more recent authentication is required"`
	entra := func(claims string) string {
		return `Bearer realm="models", error="insufficient_claims", claims="` + base64.StdEncoding.EncodeToString([]byte(claims)) + `", `
	}
	for name, c := range map[string]struct {
		config    *auth.ACRConfig
		demanded  []string
		asked     url.Values // of these two parameters
		challenge string
	}{
		"acr":         {nil, []string{"mfa", "hwk"}, url.Values{"acr_values": {"mfa hwk"}}, rfc + `, acr_values="mfa hwk"`},
		"Auth0":       {&auth.ACRConfig{Claim: "amr", AskAs: map[string]string{"mfa": pape, "otp": pape}}, []string{"otp", "hwk", "mfa"}, url.Values{"acr_values": {pape + " hwk"}}, rfc + `, acr_values="` + pape + ` hwk"`},
		"Entra ID":    {&auth.ACRConfig{Claim: "acrs", AskBy: "claims"}, []string{"c1"}, url.Values{"claims": {`{"id_token":{"acrs":{"essential":true,"value":"c1"}}}`}}, entra(`{"access_token":{"acrs":{"essential":true,"value":"c1"}}}`) + rfc + `, acr_values="c1"`},
		"of several":  {&auth.ACRConfig{Claim: "acrs", AskBy: "claims"}, []string{"c1", "c2"}, url.Values{"claims": {`{"id_token":{"acrs":{"essential":true,"values":["c1","c2"]}}}`}}, entra(`{"access_token":{"acrs":{"essential":true,"values":["c1","c2"]}}}`) + rfc + `, acr_values="c1 c2"`},
		"Keycloak":    {&auth.ACRConfig{AskBy: "claims"}, []string{"gold"}, url.Values{"claims": {`{"id_token":{"acr":{"essential":true,"values":["gold"]}}}`}}, entra(`{"access_token":{"acr":{"essential":true,"values":["gold"]}}}`) + rfc + `, acr_values="gold"`},
		"age alone":   {&auth.ACRConfig{AskBy: "claims"}, nil, url.Values{}, rfc + `, max_age="600"`},
		"other words": {&auth.ACRConfig{AskAs: map[string]string{"x": "y"}}, []string{"mfa"}, url.Values{"acr_values": {"mfa"}}, rfc + `, acr_values="mfa"`},
	} {
		t.Run(name, func(t *testing.T) {
			d := newDesk(t, func(d *desk) { d.rules.ACR = c.config })
			step := login.StepUp{ACR: c.demanded}
			if c.demanded == nil {
				step.MaxAge = 10 * time.Minute
			}
			r, err := d.login.Begin(t.Context(), login.Attempt{Host: host, Origin: origin, To: "/", StepUp: step})
			if err != nil {
				t.Fatal(err)
			}
			page, err := url.Parse(r.Location)
			if err != nil {
				t.Fatal(err)
			}
			for _, name := range []string{"acr_values", "claims"} {
				if got := page.Query()[name]; strings.Join(got, "|") != strings.Join(c.asked[name], "|") {
					t.Errorf("%s is %q; want %q", name, got, c.asked[name])
				}
			}
			route, err := d.auth.Route(auth.Demand{Callers: []string{"issuer/corp"}, StepUp: &step})
			if err != nil {
				t.Fatal(err)
			}
			_, err = d.bearer(route, map[string]any{"auth_time": 1})
			wantReason(t, "a token", err, auth.StepUpNeeded)
			if got := challenge(route, "models", err); got != c.challenge {
				t.Errorf("the challenge is\n%s; want\n%s", got, c.challenge)
			}
		})
	}
}

// Every request on a route with step_up is compared.
func TestComparingAllocatesNothing(t *testing.T) {
	demanded := login.StepUp{ACR: []string{"hwk", "mfa"}}
	for _, by := range []login.Authentication{{Claim: "amr", Values: "pwd otp mfa"}, {Claim: "acr", Values: "hwk"}} {
		if n := testing.AllocsPerRun(100, func() {
			if lacking := demanded.Lacking(by, time.Time{}, 0); lacking != "" {
				t.Fatal(lacking)
			}
		}); n > 0 {
			t.Errorf("%s: %v allocations, want none", by, n)
		}
	}
}

// TestParameterOfGatewayIsNotSetTwice refuses a login whose params would ask for other claims.
func TestParameterOfGatewayIsNotSetTwice(t *testing.T) {
	d := newDesk(t)
	d.config.Params, d.rules.ACR = map[string]string{"Claims": "{}"}, &auth.ACRConfig{AskBy: "claims"}
	make := func() error {
		_, err := auth.New(auth.Config{Issuers: map[string]auth.IssuerConfig{"corp": d.rules}, Logins: map[string]login.Config{"corp": d.config}}, d.memory)
		return err
	}
	if err := make(); err == nil || !strings.Contains(err.Error(), "belongs to the gateway") {
		t.Errorf("got %v", err)
	}
	if d.rules.ACR = nil; make() != nil {
		t.Error("refused, though acr_values asks")
	}
}
