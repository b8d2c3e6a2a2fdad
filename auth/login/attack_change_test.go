package login_test

import (
	"testing"
	"time"

	"sallyport/auth"
	"sallyport/auth/authtest"
	"sallyport/auth/login"
)

// TestChangedLoginKeepsNoSessionThatItWouldNotGive changes a login while a person is signed in. The
// session ends at once, although its seal is whole.
func TestChangedLoginKeepsNoSessionThatItWouldNotGive(t *testing.T) {
	for _, memory := range []bool{false, true} {
		for name, c := range map[string]struct {
			change func(d *desk)
			reason string
		}{
			"another issuer at the name of the old one": {func(d *desk) { d.rules.URL = authtest.StartAt(t, d.clock.Now).URL }, login.BadSession},
			"another issuer at another name": {func(d *desk) {
				d.config.Issuer, d.rules.URL = "partner", authtest.StartAt(t, d.clock.Now).URL
			}, login.BadSession},
			"a shorter life":             {func(d *desk) { d.config.Absolute = 30 * time.Minute }, login.SessionExpired},
			"a shorter time without use": {func(d *desk) { d.config.Idle = time.Minute }, login.SessionExpired},
			"a stronger authentication":  {func(d *desk) { d.config.ACR = []string{"mfa"} }, login.BadSession},
		} {
			d := newDesk(t, func(d *desk) { d.config.Memory = memory })
			d.provider.Change(nil, func(answer map[string]any) { delete(answer, "refresh_token") })
			b := d.browser()
			b.signIn()
			b.serves("issuer/corp:alice")
			d.clock.Add(40 * time.Minute)
			rules, config := d.rules, d.config
			c.change(d)
			d.reload()
			if p, err := b.chain.Authenticate(t.Context(), request(host, b.field())); reasonOf(err) != c.reason {
				t.Errorf("%s, memory %v: got %q, %v; want %s", name, memory, p.Caller.String(), err, c.reason)
			}
			d.rules, d.config = rules, config
			d.reload()
			b.serves("issuer/corp:alice") // nothing else was wrong with it
		}
	}
}

// TestEndedSessionStaysEndedUnderNewName signs out, and then the issuer's entry gets another name.
func TestEndedSessionStaysEndedUnderNewName(t *testing.T) {
	for _, memory := range []bool{false, true} {
		d := newDesk(t, func(d *desk) { d.config.Memory = memory })
		thief, victim := d.browser(), d.browser()
		s := thief.signIn()
		victim.signIn()
		d.login.End(t.Context(), s, login.Answer{Host: host, Origin: origin})
		thief.refused(login.SessionEnded)
		d.config.Issuer = "renamed"
		d.reload()
		thief.refused(login.SessionEnded)
		victim.serves("issuer/renamed:alice")
	}
}

// TestSignOutOvertakesRefresh signs out while the issuer is refreshing the session. The refresh succeeds
// and brings nothing back: neither the old cookie nor a newer one serves.
func TestSignOutOvertakesRefresh(t *testing.T) {
	for _, memory := range []bool{false, true} {
		d := newDesk(t, func(d *desk) { d.config.Memory = memory })
		b, victim := d.browser(), d.browser()
		b.signIn()
		victim.signIn()
		hold, held := d.holdTokens()
		d.clock.Add(4 * time.Minute)
		p, err := d.chain.Authenticate(t.Context(), request(host, b.field()))
		if err != nil {
			t.Fatal(err)
		}
		<-held
		d.login.End(t.Context(), p.Session, login.Answer{Host: host, Origin: origin, Cookie: b.field()})
		close(hold)
		d.settle(1)
		if got := p.Session.Renewed(d.clock.Now()); got != nil {
			t.Errorf("memory %v: an answer under way has a new session: %q", memory, got)
		}
		b.refused(login.SessionEnded)
		d.reload()
		b.refused(login.SessionEnded)
		victim.serves("issuer/corp:alice")
		d.login.Settle()
	}
}

// TestAttackLogoutWhileLoginIsDropped renames a login, and takes that back. What the issuer ended and what people
// left under its first name stays ended.
func TestAttackLogoutWhileLoginIsDropped(t *testing.T) {
	for _, memory := range []bool{false, true} {
		d := newDesk(t, withState(t), func(d *desk) { d.config.Memory = memory })
		left, stays, fired := d.browser(), d.browser(), d.browser()
		s := left.signIn()
		stays.signIn()
		d.provider.Person("mallory", nil)
		fired.signIn()
		if err := endings(d)["sign-out"](s); err != nil {
			t.Fatal(err)
		}
		renamed, err := auth.New(auth.Config{Issuers: map[string]auth.IssuerConfig{d.config.Issuer: d.rules}, Logins: map[string]login.Config{"other": d.config}}, d.memory)
		if err != nil {
			t.Fatal(err)
		}
		renamed.Activate()
		t.Cleanup(renamed.Close)
		d.auth.Close()
		chain, err := renamed.Route(auth.Demand{Callers: []string{"login/other"}})
		if err != nil {
			t.Fatal(err)
		}
		for _, b := range []*browser{left, stays, fired} {
			_, err := chain.Authenticate(t.Context(), request(host, b.field()))
			wantReason(t, "under another name", err, login.BadSession)
		}
		if _, err := renamed.BackChannel(t.Context(), request(host, ""), d.provider.LogoutToken("", "mallory", nil)); err != nil {
			t.Fatal(err)
		}
		d.reload()
		stays.on(d).serves("issuer/corp:alice")
		for range 2 {
			left.on(d).refused(login.SessionEnded)
			fired.on(d).refused(login.SessionEnded)
			d.restart()
		}
	}
}

// TestAttackLogoutWhileClientIsAnother gives a login another client, and takes that back. What the issuer ended
// for the first client meanwhile, and what people left, stays ended; an end for the second one ends nothing of
// the first.
func TestAttackLogoutWhileClientIsAnother(t *testing.T) {
	for _, memory := range []bool{false, true} {
		d := newDesk(t, withState(t), func(d *desk) { d.config.Memory = memory })
		left, stays, fired := d.browser(), d.browser(), d.browser()
		left.signIn()
		stays.signIn()
		d.provider.Person("mallory", nil)
		fired.signIn()
		first := d.config.ClientID
		d.config.ClientID = "gateway-2"
		d.reload()
		for name, b := range map[string]*browser{"who leaves": left, "who stays": stays, "whom the issuer ends": fired} {
			if _, err := b.ask(); reasonOf(err) != login.BadSession {
				t.Errorf("%s, for another client: %v", name, err)
			}
		}
		logout := func(client, sub string) (login.LoggedOut, error) {
			return d.auth.BackChannel(t.Context(), request(host, ""), d.provider.LogoutToken("", sub, func(c map[string]any) { c["aud"] = client }))
		}
		if out, err := logout(first, "mallory"); err != nil || out.Login != "corp" || out.Subject != "mallory" {
			t.Errorf("memory %v: a logout for the earlier client: %+v, %v", memory, out, err)
		}
		if _, err := logout("others", "alice"); reasonOf(err) != login.BadLogoutToken {
			t.Errorf("memory %v: a logout for a client that never was: %v", memory, err)
		}
		if _, err := logout("gateway-2", "alice"); err != nil {
			t.Errorf("memory %v: a logout for the present client: %v", memory, err)
		}
		answer := login.Answer{Host: host, Origin: origin, Cookie: left.field()}
		if s, err := d.login.EndEarlier(answer); err != nil || s == nil || s.Principal().Name != "alice" {
			t.Errorf("memory %v: the sign-out ended %v, %v", memory, s, err)
		}
		d.config.ClientID = first
		d.reload()
		stays.on(d).serves("issuer/corp:alice")
		for range 2 {
			left.on(d).refused(login.SessionEnded)
			fired.on(d).refused(login.SessionEnded)
			d.restart()
		}
		if s, err := d.login.EndEarlier(login.Answer{Host: host, Origin: origin, Cookie: stays.field()}); s != nil || err != nil {
			t.Errorf("memory %v: a session of the present client counts as one of an earlier: %v, %v", memory, s, err)
		}
		if !memory {
			stays.on(d).serves("issuer/corp:alice")
		}
	}
}
