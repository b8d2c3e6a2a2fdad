package login_test

import (
	"context"
	"crypto/elliptic"
	"fmt"
	"net/http"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"sallyport/auth/authtest"
	"sallyport/auth/login"
)

// settle waits for the refreshes that run, and checks how many there were.
func (d *desk) settle(n int64) {
	d.t.Helper()
	d.login.Settle()
	if got := d.provider.Refreshes(); got != n {
		d.t.Errorf("%d refreshes, want %d", got, n)
	}
}

// afterRefresh asks, waits for the refresh that this may have started, and checks what the next answer is.
func (b *browser) afterRefresh(what string, holds func(groups []string, err error) bool) {
	b.t.Helper()
	_, _ = b.ask()
	b.login.Settle()
	if p, err := b.ask(); !holds(p.Caller.Groups, err) {
		b.t.Errorf("%s: got %q, %v", what, p.Caller.Groups, err)
	}
}

// TestSessionIsRefreshedOnceInBackground sends many requests when a refresh is due, from tabs with the
// same cookie. The provider takes each refresh token once.
func TestSessionIsRefreshedOnceInBackground(t *testing.T) {
	for _, memory := range []bool{false, true} {
		d := newDesk(t, func(d *desk) { d.config.Memory = memory })
		d.provider.Person("alice", map[string]any{"groups": []string{"old"}})
		b := d.browser()
		b.signIn()
		late := d.browser()
		for name, value := range b.cookies {
			late.cookies[name] = value
		}
		d.clock.Add(3 * time.Minute) // of five
		b.serves("issuer/corp:alice")
		if n := d.provider.Refreshes(); n != 0 {
			t.Errorf("refreshed %d times before it is due", n)
		}
		d.provider.Change(func(claims map[string]any) { claims["groups"] = []string{"new"} }, nil)
		d.clock.Add(30 * time.Second)
		var tabs sync.WaitGroup
		for range 50 {
			tabs.Go(func() {
				if _, err := d.chain.Authenticate(t.Context(), request(host, late.field())); err != nil {
					t.Error(err)
				}
			})
		}
		tabs.Wait()
		isNew := func(groups []string, err error) bool { return err == nil && slices.Equal(groups, []string{"new"}) }
		b.afterRefresh("first tab", isNew)
		late.afterRefresh("late tab", isNew)
		if n := d.provider.Refreshes(); n != 1 {
			t.Errorf("refreshed %d times, want once", n)
		}
		// The browser has a cookie that works without this process's memory of the session.
		if !memory {
			b.serves("issuer/corp:alice")
			d.reload()
			b.afterRefresh("after a reload", isNew)
			late.afterRefresh("late tab after a reload", isNew)
		}
		d.clock.Add(4 * time.Minute)
		b.serves("issuer/corp:alice")
		d.settle(2)
		late.afterRefresh("late tab", isNew)
		if n := d.provider.Refreshes(); n != 2 {
			t.Errorf("refreshed %d times, want twice", n)
		}
	}
}

// says returns a handler that answers with an error of OAuth.
func says(status int, code string) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "application/json")
		w.WriteHeader(status)
		fmt.Fprintf(w, `{"error":%q,"error_description":"a text"}`, code)
	})
}

// TestSessionServesWhileIssuerIsDown keeps a session over failed refreshes until its lifetime ends.
func TestSessionServesWhileIssuerIsDown(t *testing.T) {
	d := newDesk(t)
	b := d.browser()
	b.signIn()
	for name, h := range map[string]http.Handler{"down": authtest.Status(http.StatusBadGateway), "garbage": authtest.Text("<html>"), "not our fault": authtest.Status(http.StatusUnauthorized),
		"our secret ended": says(http.StatusUnauthorized, "invalid_client"), "we may not refresh": says(http.StatusBadRequest, "unauthorized_client"),
		"a moment": says(http.StatusBadRequest, "temporarily_unavailable"), "an error of its own": says(http.StatusInternalServerError, "invalid_request")} {
		d.clock.Add(4 * time.Minute)
		var failed atomic.Bool
		d.provider.AnswerTokens(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			h.ServeHTTP(w, r)
			failed.Store(true)
		}))
		b.afterRefresh(name, func(_ []string, err error) bool {
			if err != nil {
				t.Fatalf("%s: %v", name, err)
			}
			return failed.Load()
		})
	}
	d.clock.Add(8*time.Hour - 28*time.Minute)
	b.refused(login.SessionExpired)
}

// TestRefusedRefreshEndsSession withdraws the refresh token, as issuers do when a password changes.
func TestRefusedRefreshEndsSession(t *testing.T) {
	for name, change := range map[string]func(*desk){
		"refused":        func(d *desk) { d.provider.Forget() },
		"another person": func(d *desk) { d.provider.Change(func(c map[string]any) { c["sub"] = "mallory" }, nil) },
		"another issuer": func(d *desk) {
			d.provider.Change(func(c map[string]any) { c["iss"] = "https://evil.example" }, nil)
		},
		"bad token":     func(d *desk) { d.provider.Change(func(c map[string]any) { c["aud"] = "other" }, nil) },
		"as Auth0 does": func(d *desk) { d.provider.AnswerTokens(says(http.StatusForbidden, "invalid_grant")) },
		"as Dex does":   func(d *desk) { d.provider.AnswerTokens(says(http.StatusBadRequest, "invalid_request")) },
		"a second factor": func(d *desk) {
			d.provider.AnswerTokens(says(http.StatusBadRequest, "interaction_required"))
		},
	} {
		d := newDesk(t)
		b := d.browser()
		b.signIn()
		change(d)
		d.clock.Add(4 * time.Minute)
		b.afterRefresh(name, func(_ []string, err error) bool { return reasonOf(err) == login.SessionEnded })
		d.reload()
		b.refused(login.SessionEnded)
	}
}

// TestAttackRefreshByAnotherTenant refreshes a session with the ID token of another tenant of the issuer. Its
// administrators choose the same sub as they like, and its groups are not those of the person's tenant.
func TestAttackRefreshByAnotherTenant(t *testing.T) {
	const own, other = "00000000-0000-4000-8000-000000000001", "00000000-0000-4000-8000-000000000002"
	for name, c := range map[string]struct {
		tenant string // at the refresh
		serves bool
	}{"the same tenant": {own, true}, "another tenant": {other, false}} {
		d := newDesk(t, func(d *desk) {
			d.provider.OmitIssuer()
			d.provider.Describe(map[string]any{"issuer": d.issuer.URL + "/{tenantid}", "authorization_response_iss_parameter_supported": false})
			d.rules.URL, d.rules.Tenants = d.issuer.URL+"/{tenantid}", []string{own, other}
			if err := d.rules.Discovery.UnmarshalText([]byte(d.issuer.URL + "/.well-known/openid-configuration")); err != nil {
				t.Fatal(err)
			}
		})
		of := func(tenant, group string) {
			d.provider.Change(func(c map[string]any) { c["iss"], c["groups"] = d.issuer.URL+"/"+tenant, []string{group} }, nil)
		}
		of(own, "guests")
		b, victim := d.browser(), d.browser()
		b.signIn()
		victim.signIn()
		of(c.tenant, "admins")
		d.clock.Add(4 * time.Minute)
		b.afterRefresh(name, func(groups []string, err error) bool {
			if c.serves {
				return err == nil && slices.Equal(groups, []string{"admins"})
			}
			return reasonOf(err) == login.SessionEnded && groups == nil
		})
		of(own, "guests")
		victim.afterRefresh(name+": the other session", func(_ []string, err error) bool { return err == nil })
	}
}

// TestAttackRefreshByAnotherPerson has an issuer that mixes people up: its answer to a refresh has no ID token, and the
// access token, which says who the person is, is that of somebody else.
func TestAttackRefreshByAnotherPerson(t *testing.T) {
	for name, c := range map[string]struct {
		signIn string // where claims come from then
		sub    string // of the access token at the refresh
		serves bool
	}{
		"the same person":                      {login.ClaimsAccessToken, "alice-at-models", true},
		"another person":                       {login.ClaimsAccessToken, "mallory-at-models", false},
		"claims come from elsewhere than once": {login.ClaimsIDToken, "alice-at-models", true},
	} {
		d := newDesk(t, func(d *desk) { d.config.Claims = c.signIn })
		give := func(sub, group string, refreshes bool) {
			d.provider.Change(nil, func(answer map[string]any) {
				claims := d.issuer.Claims(sub)
				claims["groups"] = []string{group}
				answer["access_token"], _ = d.issuer.Sign(claims)
				if refreshes {
					delete(answer, "id_token")
				}
			})
		}
		give("alice-at-models", "guests", false)
		b, victim := d.browser(), d.browser()
		b.signIn()
		victim.signIn()
		d.config.Claims = login.ClaimsAccessToken
		d.reload()
		give(c.sub, "admins", true)
		d.clock.Add(4 * time.Minute)
		b.afterRefresh(name, func(groups []string, err error) bool {
			if c.serves {
				return err == nil && slices.Equal(groups, []string{"admins"})
			}
			return reasonOf(err) == login.SessionEnded && groups == nil
		})
		give("alice-at-models", "guests", true)
		victim.afterRefresh(name+": the other session", func(_ []string, err error) bool { return err == nil })
	}
}

// TestRefreshWithoutUserinfoKeepsTokens loses userinfo at a refresh: the new refresh token must not be
// lost, and the groups stay until userinfo answers.
func TestRefreshWithoutUserinfoKeepsTokens(t *testing.T) {
	d := newDesk(t, func(d *desk) { d.config.Claims = login.ClaimsUserinfo })
	d.provider.AnswerUserinfo(authtest.Text(`{"sub":"alice","groups":["old"]}`))
	b := d.browser()
	b.signIn()
	var failed atomic.Bool
	d.provider.AnswerUserinfo(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		w.WriteHeader(http.StatusBadGateway)
		failed.Store(true)
	}))
	d.provider.Change(nil, func(answer map[string]any) { delete(answer, "id_token") })
	d.clock.Add(4 * time.Minute)
	b.afterRefresh("userinfo failed", func(groups []string, err error) bool {
		return err == nil && slices.Equal(groups, []string{"old"}) && failed.Load()
	})
	d.provider.AnswerUserinfo(authtest.Text(`{"sub":"alice"}`))
	d.clock.Add(4 * time.Minute)
	b.afterRefresh("groups were withdrawn", func(groups []string, err error) bool { return err == nil && len(groups) == 0 })
	if n := d.provider.Refreshes(); n != 2 {
		t.Errorf("%d refreshes", n)
	}
}

// TestIdleTimeIsSealedAnew uses a session for longer than its idle lifetime, and then without this
// process's memory of it.
func TestIdleTimeIsSealedAnew(t *testing.T) {
	d := newDesk(t, func(d *desk) { d.config.Keys = mustKeys(t) })
	d.provider.Change(nil, func(answer map[string]any) { delete(answer, "refresh_token") })
	b := d.browser()
	b.signIn()
	first := b.field()
	for range 10 {
		d.clock.Add(20 * time.Minute)
		b.serves("issuer/corp:alice")
	}
	if b.field() == first {
		t.Error("the cookie is the first one")
	}
	// Another replica has the key alone.
	other := *d
	other.memory, other.auth = newMemory(d), nil
	other.reload()
	_, err := other.chain.Authenticate(t.Context(), request(host, first))
	wantReason(t, "the first cookie", err, login.SessionExpired)
	moved := &browser{&other, b.cookies}
	moved.serves("issuer/corp:alice")
}

// TestBackChannelEndsSessions ends sessions by sid, by subject, and in both kinds of sessions.
func TestBackChannelEndsSessions(t *testing.T) {
	for _, memory := range []bool{false, true} {
		d := newDesk(t, func(d *desk) { d.config.Memory = memory })
		phone, laptop, other := d.browser(), d.browser(), d.browser()
		s := phone.signIn()
		laptop.signIn()
		d.provider.Person("bob", nil)
		other.signIn()
		d.clock.Add(time.Second)
		out, err := d.auth.BackChannel(t.Context(), request(host, ""), d.provider.LogoutToken(s.SID(), "alice", nil))
		if err != nil || out.SID != s.SID() || out.Subject != "alice" || out.Login != "corp" || out.ID == "" {
			t.Fatalf("%+v, %v", out, err)
		}
		phone.refused(login.SessionEnded)
		laptop.serves("issuer/corp:alice")
		byPassword := d.provider.LogoutToken("", "alice", nil)
		if _, err := d.auth.BackChannel(t.Context(), request(host, ""), byPassword); err != nil {
			t.Fatal(err)
		}
		laptop.refused(login.SessionEnded)
		other.serves("issuer/corp:bob")
		d.reload()
		laptop.refused(login.SessionEnded)
		phone.refused(login.SessionEnded)
		// The old token does not end what began after it.
		d.clock.Add(time.Second)
		d.provider.Person("alice", nil)
		laptop.signIn()
		if _, err := d.auth.BackChannel(t.Context(), request(host, ""), byPassword); err != nil {
			t.Fatal(err)
		}
		laptop.serves("issuer/corp:alice")
	}
}

// TestForgedLogoutTokensEndNothing sends what is no logout token, and bounds what that may cost.
func TestForgedLogoutTokensEndNothing(t *testing.T) {
	d := newDesk(t)
	b := d.browser()
	s := b.signIn()
	d.clock.Add(time.Second)
	now := d.clock.Now().Unix()
	text := fmt.Sprintf(`{"iss":%q,"aud":"gateway","sub":"alice","iat":%d,"exp":%d,"jti":"1","events":{"http://schemas.openid.net/event/backchannel-logout":{}}}`, d.issuer.URL, now, now+100)
	token := func(change func(map[string]any)) string { return d.provider.LogoutToken(s.SID(), "alice", change) }
	var idToken string
	d.provider.Change(nil, func(answer map[string]any) { idToken, _ = answer["id_token"].(string) })
	d.browser().signIn()
	forged := authtest.NewKey("k", "RS256", authtest.RSA())
	all := map[string]string{
		"not a token":            "logout",
		"unsigned":               unsigned(text),
		"another key":            forged.Token(text),
		"an ID token":            idToken,
		"another issuer":         token(func(c map[string]any) { c["iss"] = "https://evil.example" }),
		"another audience":       token(func(c map[string]any) { c["aud"] = "other" }),
		"a nonce":                token(func(c map[string]any) { c["nonce"] = "x" }),
		"no event":               token(func(c map[string]any) { delete(c, "events") }),
		"another event":          token(func(c map[string]any) { c["events"] = map[string]any{"x": map[string]any{}} }),
		"events in another case": token(func(c map[string]any) { c["Events"] = c["events"]; delete(c, "events") }),
		"sid in another case":    token(func(c map[string]any) { c["SID"] = c["sid"]; delete(c, "sid"); delete(c, "sub") }),
		"no jti":                 token(func(c map[string]any) { delete(c, "jti") }),
		"nobody":                 token(func(c map[string]any) { delete(c, "sub"); delete(c, "sid") }),
		"expired":                token(func(c map[string]any) { c["exp"] = now - 61 }),
		"of the future":          token(func(c map[string]any) { c["iat"] = now + 61 }),
		"no iat":                 token(func(c map[string]any) { delete(c, "iat") }),
		"a NUL in sid":           token(func(c map[string]any) { c["sid"] = "x\x00y" }),
	}
	for name, raw := range all {
		_, err := d.auth.BackChannel(t.Context(), request(host, ""), raw)
		wantReason(t, name, err, login.BadLogoutToken)
		b.serves("issuer/corp:alice")
	}
	var last error
	for range 400 {
		_, last = d.auth.BackChannel(t.Context(), request(host, ""), all["another key"])
	}
	wantReason(t, "many", last, "too_many_failures")
	d.issuer.Answer(authtest.Status(http.StatusBadGateway))
	b.serves("issuer/corp:alice")
}

// TestNewKeysOfIssuerKeepSessions replaces the issuer's keys after the login.
func TestNewKeysOfIssuerKeepSessions(t *testing.T) {
	d := newDesk(t)
	b := d.browser()
	s := b.signIn()
	other := authtest.NewKey("next", "ES256", authtest.EC(elliptic.P256()))
	d.issuer.Publish(other.JWK())
	d.clock.Add(time.Minute)
	_, err := d.auth.BackChannel(t.Context(), request(host, ""), d.provider.LogoutToken(s.SID(), "", func(c map[string]any) { c["iat"] = 1 }))
	if err != nil { // the old key is in use until the keys are fetched again
		t.Fatal(err)
	}
	d.reload()
	b.serves("issuer/corp:alice")
	// A key that nobody knows is no reason to end sessions either, nor is an issuer that is down.
	d.issuer.Answer(authtest.Status(http.StatusBadGateway))
	unknown := other.Sign(`{"alg":"ES256","kid":"unknown","typ":"logout+jwt"}`, fmt.Sprintf(`{"iss":%q,"aud":"gateway"}`, d.issuer.URL))
	_, err = d.auth.BackChannel(t.Context(), request(host, ""), unknown)
	wantReason(t, "issuer down", err, login.Unavailable)
	b.serves("issuer/corp:alice")
}

// TestRefreshesEndWithProcess ends the memory while the issuer hangs.
func TestRefreshesEndWithProcess(t *testing.T) {
	d := newDesk(t)
	b := d.browser()
	b.signIn()
	asked := make(chan struct{})
	once := sync.OnceFunc(func() { close(asked) })
	d.provider.AnswerTokens(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		once()
		<-r.Context().Done()
	}))
	d.clock.Add(4 * time.Minute)
	b.serves("issuer/corp:alice")
	<-asked
	ctx, stop := context.WithCancel(t.Context())
	stop()
	if err := d.memory.Run(ctx); err != nil { // returns when the refresh has ended
		t.Fatal(err)
	}
	d.clock.Add(time.Minute)
	b.serves("issuer/corp:alice")
}

// TestOldConfigurationRefreshesForNewOne refreshes a session by a request that began before a reload. The
// new configuration must not use the same refresh token again.
func TestOldConfigurationRefreshesForNewOne(t *testing.T) {
	d := newDesk(t)
	b := d.browser()
	b.signIn()
	r := request(host, b.field())
	proof, err := d.chain.Authenticate(t.Context(), r)
	if err != nil {
		t.Fatal(err)
	}
	earlier, old := *d, d.auth
	d.auth = nil // the old one drains
	d.reload()
	defer old.Close()
	b.serves("issuer/corp:alice")
	d.provider.Change(func(claims map[string]any) { claims["groups"] = []string{"new"} }, nil)
	d.clock.Add(4 * time.Minute)
	if _, err := earlier.chain.Recheck(t.Context(), r, proof); err != nil {
		t.Fatal(err)
	}
	d.settle(1)
	isNew := func(groups []string, err error) bool {
		if err != nil {
			t.Fatal(err)
		}
		return slices.Equal(groups, []string{"new"})
	}
	b.afterRefresh("the new configuration", isNew)
	if n := d.provider.Refreshes(); n != 1 {
		t.Errorf("%d refreshes", n)
	}
}
