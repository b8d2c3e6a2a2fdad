package proxy_test

import (
	"encoding/json"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"testing"
	"time"

	"sallyport/auth/login"
)

// openAMRVault returns a vault before an issuer that says in amr how people signed in, as Auth0 does, and when
// they prove a second factor.
func openAMRVault(t *testing.T, p plan) (v *vault, at time.Time) {
	t.Helper()
	p.audience = "[models], acr: {claim: amr, ask_as: {mfa: urn:multi-factor}}"
	v = openVault(t, p)
	at = v.clock.now().UTC().Truncate(time.Second)
	v.answers(func(asked url.Values, claims map[string]any) {
		claims["acr"], claims["amr"], claims["auth_time"] = "mfa", []string{"pwd"}, v.clock.now().Add(-time.Hour).Unix()
		if slices.Contains(strings.Fields(asked.Get("acr_values")), "urn:multi-factor") {
			claims["acr"], claims["amr"], claims["auth_time"] = "pwd", []string{"pwd", "mfa"}, at.Unix()
		}
	})
	return v, at
}

// TestPeopleStepUpByTheClaimOfTheIssuer steps up where acr says the opposite of amr. Page, session, record and
// challenge go by amr, also after a reload that names another claim.
func TestPeopleStepUpByTheClaimOfTheIssuer(t *testing.T) {
	v, at := openAMRVault(t, plan{more: unwatched})
	b, victim := v.browser(true), v.browser(false)
	b.signIn()
	if r := victim.visit("/admin"); r.StatusCode != 200 {
		t.Fatalf("the victim: %d %s", r.StatusCode, r.body)
	}
	hits := v.model.hits.Load()
	r := b.request("GET", "/admin", "", map[string]string{"Sec-Fetch-Mode": "cors", "Sec-Fetch-Site": "same-origin"})
	if r.StatusCode != 401 || r.reason() != "step_up" || !strings.Contains(r.Header.Get("WWW-Authenticate"), `acr_values="urn:multi-factor hwk", max_age="600"`) || v.model.hits.Load() != hits {
		t.Errorf("a script without the factor: %d %s %s", r.StatusCode, r.body, r.Header.Get("WWW-Authenticate"))
	}
	if cause := v.causeOf(r); cause != `the session of issuer/corp:alice: amr is "pwd", demanded is one of "mfa", "hwk"` {
		t.Errorf("the cause is %s", cause)
	}
	if r := b.visit("/admin"); r.StatusCode != 200 || v.demanded() != "urn:multi-factor hwk,600,login" {
		t.Fatalf("got %d %s after a sign-in that demands %s", r.StatusCode, r.body, v.demanded())
	}
	v.tells(b, []string{"pwd", "mfa"}, at)
	for token, want := range map[string]int{
		v.claimed(map[string]any{"amr": []string{"mfa"}, "acr": "pwd", "auth_time": v.clock.now().Unix()}): 200,
		v.claimed(map[string]any{"amr": []string{"pwd"}, "acr": "mfa", "auth_time": v.clock.now().Unix()}): 401,
	} {
		if r := v.do("GET", "/admin", "", map[string]string{"Authorization": "Bearer " + token}); r.StatusCode != want {
			t.Errorf("a token gets %d %s; want %d", r.StatusCode, r.body, want)
		}
	}

	exchanges := v.provider.Exchanges()
	v.edit("acr: {claim: amr, ask_as: {mfa: urn:multi-factor}}", "acr: {claim: acrs, ask_by: claims}")
	if changes := strings.Join(v.reload("changed").Changes, "; "); !strings.Contains(changes, "issuer corp changed") {
		t.Errorf("the reload says: %s", changes)
	}
	v.tells(b, []string{}, at)
	hits = v.model.hits.Load()
	if r := b.visit("/admin"); r.StatusCode != 403 || r.Header.Get("Location") != "" || v.model.hits.Load() != hits {
		t.Errorf("an issuer that never says acrs: %d %s", r.StatusCode, r.body)
	} else if cause := v.causeOf(r); cause != `acrs is absent, demanded is one of "mfa", "hwk"` {
		t.Errorf("the cause is %s", cause)
	}
	if n := v.provider.Exchanges() - exchanges; n != 1 {
		t.Errorf("%d codes were redeemed; want 1", n)
	}
	v.mu.Lock()
	asked := v.asked.Get("claims")
	v.mu.Unlock()
	if asked != `{"id_token":{"acrs":{"essential":true,"values":["mfa","hwk"]}}}` {
		t.Errorf("the issuer is asked for %s", asked)
	}
	v.edit("acr: {claim: acrs, ask_by: claims}", "acr: {claim: amr}")
	v.reload("changed")
	if r := b.visit("/admin"); r.StatusCode != 200 || v.provider.Exchanges() != exchanges+1 {
		t.Errorf("with the claim of before: %d %s", r.StatusCode, r.body)
	}

	if err := v.stop(); err != nil {
		t.Fatal(err)
	}
	signedIn, used := 0, 0
	for _, rec := range v.audit.records(t) {
		switch {
		case rec["acr"] == "pwd mfa" && rec["acr_claim"] == "amr" && rec["login_event"] == "signed_in":
			signedIn++
		case rec["acr"] != nil && rec["acr_claim"] != "amr":
			t.Errorf("the record %v does not say which claim has the means", rec)
		case rec["acr"] != nil && rec["route"] == "models.test/admin" && rec["status"] == 200.0:
			used++
		}
	}
	if signedIn != 2 || used < 4 {
		t.Errorf("%d logins and %d requests are recorded with amr", signedIn, used)
	}
}

// tells checks what the session page says of the means and the time of the sign-in.
func (v *vault) tells(b *browser, acr []string, at time.Time) {
	v.t.Helper()
	r := b.request("GET", login.SessionPath, "", map[string]string{"Sec-Fetch-Mode": "cors", "Sec-Fetch-Site": "same-origin"})
	var s struct {
		ACR           []string
		Authenticated string
	}
	if err := json.Unmarshal([]byte(r.body), &s); err != nil || r.StatusCode != http.StatusOK {
		v.t.Fatalf("%d %s", r.StatusCode, r.body)
	}
	if s.ACR == nil || !slices.Equal(s.ACR, acr) || s.Authenticated != at.Format(time.RFC3339) {
		v.t.Errorf("the session page says %s; want acr %q at %s", r.body, acr, at)
	}
}

// A reload that names another claim ends streams whose token does not have it.
func TestStreamsAndTheClaimOfTheIssuer(t *testing.T) {
	v, _ := openAMRVault(t, plan{more: unwatched, handler: ticking})
	c := v.client(true)
	now := v.clock.now().Unix()
	mfa := v.house.stream(c, "/admin", v.claimed(map[string]any{"amr": "mfa", "acr": "pwd", "auth_time": now, "exp": now + 36000}))
	both := v.house.stream(c, "/admin", v.claimed(map[string]any{"amr": "mfa", "acr": "hwk", "auth_time": now, "exp": now + 36000}))
	v.gateway.Revisit(t.Context())
	goesOn(t, "amr alone", mfa)
	goesOn(t, "both", both)
	v.edit(", acr: {claim: amr, ask_as: {mfa: urn:multi-factor}}", "")
	v.reload("changed")
	isCut(t, "amr alone", mfa)
	goesOn(t, "both", both)
}
