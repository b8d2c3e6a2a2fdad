package auth

import (
	"strings"
	"testing"
	"time"

	"sallyport/auth/authtest"
	"sallyport/auth/login"
)

// A route whose callers could prove themselves otherwise must not seem to demand a step-up.
func TestStepUpNeedsCallersThatTell(t *testing.T) {
	k := newKeyring(t)
	demand := &login.StepUp{ACR: []string{"mfa"}}
	for _, c := range []struct {
		callers string
		all, ok bool
	}{
		{"issuer/corp", false, true},
		{"issuer/corp, apikey", false, false},
		{"apikey", false, false},
		{"anonymous", false, false},
		{"issuer/corp, apikey", true, true},
	} {
		_, err := k.auth.Route(Demand{Callers: strings.Split(c.callers, ", "), All: c.all, Independent: c.all, StepUp: demand})
		if (err == nil) != c.ok {
			t.Errorf("%s, all %v: %v", c.callers, c.all, err)
		}
	}
}

// With all, the token is held to it, whoever is the caller.
func TestStepUpOfOneOfAllProofs(t *testing.T) {
	k := newKeyring(t)
	c, err := k.auth.Route(Demand{Callers: []string{"apikey", "issuer/corp"}, All: true, Independent: true, StepUp: &login.StepUp{MaxAge: time.Minute}})
	if err != nil {
		t.Fatal(err)
	}
	now := k.auth.memory.now()
	token := func(authTime int64) string {
		return k.signer.Token(k.provider.claims(now, map[string]any{"auth_time": authTime}))
	}
	p, err := c.Authenticate(t.Context(), from(client, fields("x-api-key", k.acme, "authorization", "Bearer "+token(now.Unix()))))
	if err != nil || p.Caller.Source != "apikey" || p.Authentication.Time != now.Unix() {
		t.Errorf("got %s, %v", p.Caller.String(), err)
	}
	_, err = c.Authenticate(t.Context(), from(client, fields("x-api-key", k.acme, "authorization", "Bearer "+token(now.Unix()-121))))
	if reason(t, err) != StepUpNeeded {
		t.Errorf("too old: %v", err)
	}
	if got := challenge(c, "models.test", err); !strings.Contains(got, `error="insufficient_user_authentication"`) || !strings.HasSuffix(got, `max_age="60"`) && !strings.Contains(got, `max_age="60", `) || strings.Contains(got, "invalid_token") {
		t.Errorf("the challenge is %s", got)
	}
}

// The holder of a token learns which flags get a better one.
func TestExplainTellsHowToStepUp(t *testing.T) {
	x := newExplained(t)
	name := ""
	for n, iss := range x.issuers {
		if iss.url == keycloak {
			name = n
		}
	}
	c, err := x.Route(Demand{Callers: []string{"issuer/" + name}, StepUp: &login.StepUp{ACR: []string{"mfa"}}})
	if err != nil {
		t.Fatal(err)
	}
	claims := authtest.Claims(keycloak, x.now, map[string]any{"acr": "pwd"})
	got := x.Explain(t.Context(), c, from(client, head("Bearer "+x.key.Token(claims))))
	if got.Reason != StepUpNeeded || len(got.Findings) != 1 || got.Findings[0].Problem != `acr is "pwd", demanded is one of "mfa"` || !strings.Contains(got.Findings[0].Cure, "--acr-values") {
		t.Errorf("got %+v", got)
	}
}
