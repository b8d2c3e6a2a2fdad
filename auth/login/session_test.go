package login_test

import (
	"crypto/rand"
	"encoding/base64"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"testing"
	"time"

	"sallyport/auth"
	"sallyport/auth/authtest"
	"sallyport/auth/login"
	"sallyport/proxy/setting"
)

// TestPersonIsSamePrincipalByLoginAsByToken compares both for one person.
func TestPersonIsSamePrincipalByLoginAsByToken(t *testing.T) {
	d := newDesk(t, func(d *desk) { d.rules.Principal = "preferred_username" })
	d.provider.Person("1234", map[string]any{"preferred_username": "alice", "groups": []string{"ml", "ops"}})
	b := d.browser()
	s := b.signIn()
	proof, err := b.ask()
	if err != nil {
		t.Fatal(err)
	}
	claims := d.issuer.Claims("1234")
	claims["preferred_username"], claims["groups"] = "alice", []string{"ml", "ops"}
	token, err := d.issuer.Sign(claims)
	if err != nil {
		t.Fatal(err)
	}
	r := request(host, "")
	r.Head.Fields.Add("authorization", "Bearer "+token)
	byToken, err := d.chain.Authenticate(t.Context(), r)
	if err != nil {
		t.Fatal(err)
	}
	a, o := proof.Caller, byToken.Caller
	if a.String() != o.String() || a.String() != "issuer/corp:alice" || !slices.Equal(a.Groups, o.Groups) || len(a.Groups) != 2 || a.KeyID != o.KeyID {
		t.Errorf("by login %q %q %q, by token %q %q %q", a.String(), a.Groups, a.KeyID, o.String(), o.Groups, o.KeyID)
	}
	if a.Kind() != "login" || o.Kind() != "bearer" || byToken.Session != nil || proof.Session == nil || proof.Field != "cookie" || !proof.Revocable {
		t.Errorf("kinds %s and %s", a.Kind(), o.Kind())
	}
	if s.Principal().String() != a.String() || s.Login() != "corp" || s.SID() == "" || s.Authentication().Time == 0 || !a.Expires.Equal(s.Expires()) || s.Expires().Sub(s.Begun()) != 8*time.Hour {
		t.Errorf("session of %s from %s to %s", s.Principal().String(), s.Begun(), s.Expires())
	}
	if got := d.chain.Logins(); !slices.Equal(got, []string{"corp"}) {
		t.Errorf("the chain has logins %q", got)
	}
	if _, err := d.chain.Authenticate(t.Context(), request(host, "")); challenge(d.chain, "models", err) != `Bearer realm="models", Cookie realm="models", form-action="/.sallyport/sign-in", cookie-name="__Host-sallyport"` {
		t.Errorf("challenge: %s", challenge(d.chain, "models", err))
	}
}

func TestSessionEndsByItsLifetimes(t *testing.T) {
	for _, memory := range []bool{false, true} {
		d := newDesk(t, func(d *desk) {
			d.config.Memory, d.config.Idle, d.config.Absolute = memory, 40*time.Minute, 3*time.Hour
		})
		d.provider.Change(nil, func(answer map[string]any) { delete(answer, "refresh_token") })
		idle, busy := d.browser(), d.browser()
		idle.signIn()
		busy.signIn()
		for range 8 {
			d.clock.Add(20 * time.Minute)
			busy.serves("issuer/corp:alice")
			d.reload()
		}
		idle.refused(login.SessionExpired)
		d.clock.Add(20*time.Minute - time.Second)
		busy.serves("issuer/corp:alice")
		d.clock.Add(time.Second)
		busy.refused(login.SessionExpired)
	}
}

// TestRequestInFlightUsesItsSession rechecks a stream that lasts longer than the idle lifetime.
func TestRequestInFlightUsesItsSession(t *testing.T) {
	d := newDesk(t, func(d *desk) { d.config.Idle = 10 * time.Minute })
	b := d.browser()
	s := b.signIn()
	r := request(host, b.field())
	proof, err := d.chain.Authenticate(t.Context(), r)
	if err != nil {
		t.Fatal(err)
	}
	for range 4 {
		d.clock.Add(15 * time.Minute)
		if proof, err = d.chain.Recheck(t.Context(), r, proof); err != nil {
			t.Fatal(err)
		}
	}
	b.serves("issuer/corp:alice")
	d.login.End(t.Context(), s, login.Answer{Host: host, Origin: origin})
	_, err = d.chain.Recheck(t.Context(), r, proof)
	wantReason(t, "after sign-out", err, login.SessionEnded)
}

// TestSessionOfStreamsReachesTheBrowser keeps a session alive by a stream alone, whose answer began long ago.
// The page's scripts ask for the session now and then, and with the cookies of that it outlives a restart,
// though the first refresh token was replaced. Asking alone keeps nothing alive.
func TestSessionOfStreamsReachesTheBrowser(t *testing.T) {
	for name, c := range map[string]struct {
		asks, streams bool
		want          string
	}{"asks and streams": {true, true, ""}, "streams alone": {false, true, login.SessionExpired}, "asks alone": {true, false, login.SessionExpired}} {
		keys := mustKeys(t)
		d := newDesk(t, func(d *desk) { d.config.Idle, d.config.Keys = 10*time.Minute, keys })
		b := d.browser()
		b.signIn()
		r := request(host, b.field())
		stream, err := d.chain.Authenticate(t.Context(), r)
		if err != nil {
			t.Fatal(err)
		}
		for range 6 {
			d.clock.Add(4 * time.Minute)
			if c.streams {
				if stream, err = d.chain.Recheck(t.Context(), r, stream); err != nil {
					t.Fatal(err)
				}
				d.login.Settle()
			}
			look := request(host, b.field())
			look.Look = true
			if p, err := d.chain.Authenticate(t.Context(), look); err == nil && c.asks {
				kept := p.Session.Kept(d.clock.Now())
				if !c.streams && kept != nil {
					t.Errorf("%s: cookies are set", name)
				}
				b.take(kept)
			}
		}
		if n := d.provider.Refreshes(); (n > 1) != c.streams {
			t.Errorf("%s: %d refreshes", name, n)
		}
		d.memory = newMemory(d)
		d.reload()
		if _, err := b.ask(); reasonOf(err) != c.want {
			t.Errorf("%s, after a restart: %v", name, err)
		}
		if d.clock.Add(4 * time.Minute); c.want == "" {
			b.afterRefresh(name, func(_ []string, err error) bool { return err == nil })
		}
	}
}

// TestLargeSessionIsSplit signs people in whose claims need one to four cookies, and one whose claims
// need more.
func TestLargeSessionIsSplit(t *testing.T) {
	d := newDesk(t)
	groups := func(n int) []string { return strings.Split(manyGroups(n), `","`) }
	b := d.browser()
	for _, x := range []struct{ groups, cookies int }{{1, 1}, {140, 2}, {240, 3}, {340, 4}, {1, 1}} {
		d.provider.Person("alice", map[string]any{"groups": groups(x.groups)})
		b.signIn()
		p, err := b.ask()
		if err != nil || len(p.Caller.Groups) != x.groups {
			t.Errorf("%d groups: got %d, %v", x.groups, len(p.Caller.Groups), err)
		}
		if len(b.cookies) != x.cookies {
			t.Errorf("%d groups are in %d cookies, want %d", x.groups, len(b.cookies), x.cookies)
		}
		if x.cookies > 1 {
			last := fmt.Sprintf("__Host-sallyport.%d", x.cookies-1)
			kept := b.cookies[last]
			delete(b.cookies, last)
			b.refused(login.BadSession)
			b.cookies[last] = kept[:len(kept)-3]
			b.refused(login.BadSession)
			b.cookies[last] = kept
			b.cookies["__Host-sallyport.1"], b.cookies["__Host-sallyport"] = b.cookies["__Host-sallyport"], b.cookies["__Host-sallyport.1"]
			b.refused(login.BadSession)
			b.cookies["__Host-sallyport.1"], b.cookies["__Host-sallyport"] = b.cookies["__Host-sallyport"], b.cookies["__Host-sallyport.1"]
			b.serves("issuer/corp:alice")
		}
	}
	d.provider.Person("alice", map[string]any{"groups": groups(434)})
	stranger := d.browser()
	_, err := stranger.finish(stranger.visit(stranger.begin("/")))
	wantReason(t, "too large", err, login.SessionTooLarge)
	stranger.refused("no_credential")
	d.config.Memory = true
	d.reload()
	stranger.signIn()
	if p, err := stranger.ask(); err != nil || len(p.Caller.Groups) != 434 || len(stranger.field()) > 256 {
		t.Errorf("in memory: %d groups, %d bytes, %v", len(p.Caller.Groups), len(stranger.field()), err)
	}
}

// TestMemoryKeepsFewSessions bounds the sessions in memory: of all people, and of one.
func TestMemoryKeepsFewSessions(t *testing.T) {
	d := newDesk(t, func(d *desk) { d.config.Memory, d.config.Sessions = true, 50 })
	victim, first := d.browser(), d.browser()
	victim.signIn()
	d.provider.Person("mallory", nil)
	first.signIn()
	for range 100 {
		d.clock.Add(time.Second)
		d.browser().signIn()
	}
	victim.serves("issuer/corp:alice")
	first.refused(login.SessionEnded)
	if n := d.login.Live(); n > 33 {
		t.Errorf("%d sessions live", n)
	}
	for i := range 100 {
		d.clock.Add(time.Second)
		d.provider.Person(fmt.Sprint("person-", i), nil)
		d.browser().signIn()
	}
	if n := d.login.Live(); n != 50 {
		t.Errorf("%d sessions live", n)
	}
	victim.refused(login.SessionEnded)
}

// TestRevocationEndsSessions revokes a person, a session and a key of the issuer.
func TestRevocationEndsSessions(t *testing.T) {
	d := newDesk(t)
	b := d.browser()
	b.signIn()
	p, err := b.ask()
	if err != nil {
		t.Fatal(err)
	}
	for _, line := range []string{
		"principal issuer/corp:alice", "principal issuer/corp:alice before " + d.clock.Now().Add(time.Second).UTC().Format(time.RFC3339),
		"jti issuer/corp " + p.Caller.ID, "key issuer/corp " + p.Caller.KeyID,
	} {
		all, err := revocations(t, line)
		if err != nil {
			t.Fatal(err)
		}
		d.auth.Revoke(all)
		b.refused("revoked")
		if d.chain.Revokes(&p.Caller) == nil {
			t.Errorf("%s: a request in flight goes on", line)
		}
		d.auth.Revoke(nil)
		b.serves("issuer/corp:alice")
	}
}

// TestNewRulesCountForOldSessions changes what the issuer's section says about principals.
func TestNewRulesCountForOldSessions(t *testing.T) {
	for _, memory := range []bool{false, true} {
		d := newDesk(t, func(d *desk) { d.config.Memory = memory })
		d.provider.Person("1234", map[string]any{"email": "alice@example.com", "groups": []string{"ml"}})
		b := d.browser()
		b.signIn()
		b.serves("issuer/corp:1234")
		d.rules.Principal = "email"
		d.reload()
		b.serves("issuer/corp:alice@example.com")
		d.rules.Require = map[string]setting.List[auth.ClaimValue]{"groups": {"ops"}}
		d.reload()
		b.refused(login.BadSession)
		d.rules.Require = nil
		d.reload()
		b.serves("issuer/corp:alice@example.com")
	}
}

// TestTokensMustProvePerson changes each claim that the check of an ID token depends on.
func TestTokensMustProvePerson(t *testing.T) {
	forged := authtest.NewKey("k", "RS256", authtest.RSA())
	d := newDesk(t)
	now := d.clock.Now().Unix()
	good := map[string]any{"iss": d.issuer.URL, "aud": "gateway", "sub": "mallory", "iat": now, "exp": now + 300}
	text := fmt.Sprintf(`{"iss":%q,"aud":"gateway","sub":"mallory","iat":%d,"exp":%d}`, d.issuer.URL, now, now+300)
	access, err := d.issuer.Sign(good)
	if err != nil {
		t.Fatal(err)
	}
	for name, x := range map[string]struct {
		claims func(map[string]any)
		answer func(map[string]any)
	}{
		"no ID token":       {answer: func(a map[string]any) { delete(a, "id_token") }},
		"not a token":       {answer: func(a map[string]any) { a["id_token"] = "text" }},
		"unsigned":          {answer: func(a map[string]any) { a["id_token"] = unsigned(text) }},
		"signed by another": {answer: func(a map[string]any) { a["id_token"] = forged.Token(text) }},
		"MAC with the secret": {answer: func(a map[string]any) {
			a["id_token"] = authtest.HS256(`{"alg":"HS256"}`, text, []byte("secret-of-client"))
		}},
		"an access token":       {answer: func(a map[string]any) { a["id_token"] = access }},
		"another issuer":        {claims: func(c map[string]any) { c["iss"] = "https://evil.example" }},
		"another audience":      {claims: func(c map[string]any) { c["aud"] = "other" }},
		"several audiences":     {claims: func(c map[string]any) { c["aud"] = []string{"gateway", "other"} }},
		"azp of another":        {claims: func(c map[string]any) { c["azp"] = "other" }},
		"no subject":            {claims: func(c map[string]any) { delete(c, "sub") }},
		"no nonce":              {claims: func(c map[string]any) { delete(c, "nonce") }},
		"expired":               {claims: func(c map[string]any) { c["exp"] = now - 61 }},
		"of the future":         {claims: func(c map[string]any) { c["iat"] = now + 62 }},
		"no iat":                {claims: func(c map[string]any) { delete(c, "iat") }},
		"another hash":          {claims: func(c map[string]any) { c["at_hash"] = "AAAAAAAAAAAAAAAAAAAAAA" }},
		"sid is no text":        {claims: func(c map[string]any) { c["sid"] = 7 }},
		"sub in upper case":     {claims: func(c map[string]any) { c["SUB"] = "mallory" }},
		"nonce in another case": {claims: func(c map[string]any) { c["noncE"] = c["nonce"]; delete(c, "nonce") }},
		"a second nonce":        {claims: func(c map[string]any) { c["Nonce"] = "of another login" }},
		"azp in another case":   {claims: func(c map[string]any) { c["AZP"] = "gateway" }},
		"a long s in sid":       {claims: func(c map[string]any) { c["\u017fid"] = "x" }},
		"invisible name":        {claims: func(c map[string]any) { c["sub"] = "alice\u202e" }},
	} {
		d.provider.Change(x.claims, x.answer)
		b := d.browser()
		_, err := b.finish(b.visit(b.begin("/")))
		wantReason(t, name, err, login.BadTokens)
		b.refused("no_credential")
	}
	// Clocks may differ by the skew.
	for _, by := range []int64{-59, 59} {
		d.provider.Change(func(c map[string]any) { c["iat"], c["exp"] = now+by, now+by }, nil)
		if by < 0 {
			d.provider.Change(func(c map[string]any) { c["iat"], c["exp"] = now+by-300, now+by }, nil)
		}
		b := d.browser()
		if _, err := b.finish(b.visit(b.begin("/"))); err != nil {
			t.Errorf("skew of %d s: %v", by, err)
		}
	}
	d.provider.Change(func(c map[string]any) { c["aud"], c["azp"] = []string{"gateway", "other"}, "gateway" }, nil)
	b := d.browser()
	b.signIn()
}

// TestDemandedStrengthIsChecked asks for contexts and times of authentication.
func TestDemandedStrengthIsChecked(t *testing.T) {
	now := newDesk(t).clock.Now().Unix()
	for name, x := range map[string]struct {
		demand login.Config
		claims map[string]any
		reason string
	}{
		"no acr":        {login.Config{ACR: []string{"mfa"}}, nil, login.WeakerThanAsked},
		"another acr":   {login.Config{ACR: []string{"mfa"}}, map[string]any{"acr": "pwd"}, login.WeakerThanAsked},
		"one of them":   {login.Config{ACR: []string{"mfa", "hwk"}}, map[string]any{"acr": "hwk"}, ""},
		"long ago":      {login.Config{MaxAge: time.Minute}, map[string]any{"auth_time": now - 121}, login.WeakerThanAsked},
		"nobody knows":  {login.Config{MaxAge: time.Minute}, map[string]any{"auth_time": nil}, login.WeakerThanAsked},
		"recently":      {login.Config{MaxAge: time.Minute}, map[string]any{"auth_time": now - 30}, ""},
		"not of a time": {login.Config{}, map[string]any{"auth_time": -5}, login.BadTokens},
	} {
		d := newDesk(t, func(d *desk) { d.config.ACR, d.config.MaxAge = x.demand.ACR, x.demand.MaxAge })
		d.provider.Person("alice", x.claims)
		b := d.browser()
		r, err := d.login.Begin(t.Context(), login.Attempt{Host: host, Origin: origin})
		if err != nil {
			t.Fatal(err)
		}
		b.take(r.Cookies)
		_, err = b.finish(b.visit(r.Location))
		wantReason(t, name, err, x.reason)
	}
}

// TestIssuerDownAtSignIn is told apart from refusals, and heals.
func TestIssuerDownAtSignIn(t *testing.T) {
	d := newDesk(t)
	d.issuer.Answer(authtest.Status(http.StatusBadGateway))
	_, err := d.login.Begin(t.Context(), login.Attempt{Host: host, Origin: origin, To: "/"})
	wantReason(t, "discovery", err, login.Unavailable)
	asked := d.issuer.Requests()
	for range 100 {
		_, err = d.login.Begin(t.Context(), login.Attempt{Host: host, Origin: origin, To: "/"})
		wantReason(t, "at once again", err, login.Unavailable)
	}
	if n := d.issuer.Requests() - asked; n > 0 {
		t.Errorf("the issuer was asked %d times more", n)
	}
	d.issuer.Answer(nil)
	d.clock.Add(6 * time.Second)
	b := d.browser()
	for name, h := range map[string]http.Handler{
		"no answer": authtest.Status(http.StatusServiceUnavailable), "garbage": authtest.Text("<html>"), "empty": authtest.Text("{}"), "huge": huge(),
	} {
		answer := b.visit(b.begin("/"))
		d.provider.AnswerTokens(h)
		_, err = b.finish(answer)
		wantReason(t, name, err, login.Unavailable)
		d.provider.AnswerTokens(nil)
	}
	for _, code := range []string{"invalid_client", "unauthorized_client"} {
		answer := b.visit(b.begin("/"))
		d.provider.AnswerTokens(says(http.StatusBadRequest, code))
		_, err = b.finish(answer)
		wantReason(t, code, err, login.Unavailable)
		if cause := err.Error(); !strings.Contains(cause, code) || !strings.Contains(cause, "client_secret") {
			t.Errorf("%s: the cause does not say what to mend: %s", code, cause)
		}
		d.provider.AnswerTokens(nil)
	}
	b.signIn()
	d.issuer.Answer(authtest.Hang())
	b.serves("issuer/corp:alice")
	d.issuer.Answer(nil)
	if err := errors.Unwrap(err); err == nil {
		t.Error("the cause is lost")
	}
}

// manyGroups returns names of groups that compress little, as in JSON.
func manyGroups(n int) string {
	all := make([]string, n)
	for i := range all {
		b := make([]byte, 18)
		_, _ = rand.Read(b)
		all[i] = base64.RawURLEncoding.EncodeToString(b)
	}
	return strings.Join(all, `","`)
}

// TestUserinfoIsBounded takes groups from userinfo, which may be anything.
func TestUserinfoIsBounded(t *testing.T) {
	d := newDesk(t, func(d *desk) { d.config.Claims = login.ClaimsUserinfo })
	d.provider.AnswerUserinfo(authtest.Text(`{"sub":"alice","groups":["ml","ops"],"iss":"https://evil.example","nonce":7}`))
	b := d.browser()
	b.signIn()
	p, err := b.ask()
	if err != nil || !slices.Equal(p.Caller.Groups, []string{"ml", "ops"}) || p.Caller.Claim("iss")[0] != d.issuer.URL {
		t.Errorf("got %q, %v", p.Caller.Groups, err)
	}
	for name, x := range map[string]struct {
		h      http.Handler
		reason string
	}{
		"another person": {authtest.Text(`{"sub":"mallory","groups":["ops"]}`), login.BadTokens},
		"nobody":         {authtest.Text(`{"groups":["ops"]}`), login.BadTokens},
		"garbage":        {authtest.Text(`<html>`), login.Unavailable},
		"twice":          {authtest.Text(`{"sub":"mallory","sub":"alice"}`), login.Unavailable},
		"huge":           {huge(), login.Unavailable},
		"large":          {authtest.Text(`{"sub":"alice","x":"` + strings.Repeat("x", 70<<10) + `"}`), login.Unavailable},
		"down":           {authtest.Status(http.StatusInternalServerError), login.Unavailable},
		"groups of many": {authtest.Text(`{"sub":"alice","groups":["` + manyGroups(900) + `"]}`), login.SessionTooLarge},
		"odd groups":     {authtest.Text(`{"sub":"alice","groups":[1,2]}`), login.BadTokens},
	} {
		d.provider.AnswerUserinfo(x.h)
		b := d.browser()
		_, err := b.finish(b.visit(b.begin("/")))
		wantReason(t, name, err, x.reason)
		b.refused("no_credential")
	}
}

// TestClaimsOfAccessToken takes the principal from the access token, which is judged as a bearer token is.
func TestClaimsOfAccessToken(t *testing.T) {
	d := newDesk(t, func(d *desk) { d.config.Claims = login.ClaimsAccessToken })
	sign := func(change func(map[string]any)) {
		d.provider.Change(nil, func(answer map[string]any) {
			claims := d.issuer.Claims("alice@example.com")
			claims["groups"] = []string{"ml"}
			if change != nil {
				change(claims)
			}
			answer["access_token"], _ = d.issuer.Sign(claims)
		})
	}
	sign(nil)
	b := d.browser()
	b.signIn()
	b.serves("issuer/corp:alice@example.com")
	for name, change := range map[string]func(map[string]any){
		"another audience": func(c map[string]any) { c["aud"] = "other" },
		"expired":          func(c map[string]any) { c["exp"] = 5 },
		"another issuer":   func(c map[string]any) { c["iss"] = "https://evil.example" },
	} {
		sign(change)
		b := d.browser()
		_, err := b.finish(b.visit(b.begin("/")))
		wantReason(t, name, err, login.BadTokens)
	}
	d.provider.Change(nil, func(answer map[string]any) { answer["access_token"] = "opaque" })
	_, err := b.finish(b.visit(b.begin("/")))
	wantReason(t, "opaque", err, login.BadTokens)
}
