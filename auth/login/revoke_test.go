package login_test

import (
	"bytes"
	"fmt"
	"log/slog"
	"net/http"
	"net/url"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"sallyport/auth"
	"sallyport/auth/authtest"
	"sallyport/auth/login"
)

// signOut signs out as the browser does, and waits for the revocation.
func (b *browser) signOut(s *login.Session) {
	b.t.Helper()
	r, err := b.login.End(b.t.Context(), s, login.Answer{Host: host, Origin: origin, Cookie: b.field()})
	if err != nil {
		b.t.Fatal(err)
	}
	b.take(r.Cookies)
}

// TestSignOutRevokesTheRefreshToken signs one of two people out. The client proves itself as at the token
// endpoint.
func TestSignOutRevokesTheRefreshToken(t *testing.T) {
	for name, change := range map[string]func(*desk){
		"basic":  func(*desk) {},
		"post":   func(d *desk) { d.config.ClientAuth = login.ClientAuthPost },
		"public": func(d *desk) { d.config.ClientSecret = ""; d.provider = d.issuer.Provide("gateway", "") },
		"memory": func(d *desk) { d.config.Memory = true },
	} {
		d := newDesk(t, change)
		b, other := d.browser(), d.browser()
		s := b.signIn()
		other.signIn()
		b.signOut(s)
		d.login.Settle()
		if n, left := d.provider.Revocations(), d.provider.RefreshTokens(); n != 1 || left != 1 {
			t.Errorf("%s: %d revocations, %d tokens are left", name, n, left)
		}
		d.clock.Add(4 * time.Minute)
		other.serves("issuer/corp:alice")
		d.settle(1)
		other.serves("issuer/corp:alice")
	}
}

// What the person does not end, or the operator wants to keep, is not revoked.
func TestWhatIsNotRevoked(t *testing.T) {
	d := newDesk(t, func(d *desk) { d.config.KeepTokens = true })
	b := d.browser()
	b.signOut(b.signIn())
	d.config.KeepTokens = false
	d.reload()
	b.signIn()
	if _, err := d.login.BackChannel(t.Context(), d.provider.LogoutToken("", "alice", nil)); err != nil {
		t.Fatal(err)
	}
	b.refused(login.SessionEnded)
	d.provider.Change(nil, func(answer map[string]any) { delete(answer, "refresh_token") })
	d.clock.Add(time.Second)
	b.signOut(b.signIn())
	d.login.Settle()

	poor := newDesk(t, func(d *desk) { d.provider.Lack("revocation_endpoint") })
	b = poor.browser()
	b.signOut(b.signIn())
	poor.login.Settle()
	if n := d.provider.Revocations() + poor.provider.Revocations(); n != 0 || poor.memory.Logins().Unrevoked() != 0 {
		t.Errorf("%d revocations, %d failed", n, poor.memory.Logins().Unrevoked())
	}
}

// TestRevocationThatFails tries twice at most, delays nobody, and tells no token.
func TestRevocationThatFails(t *testing.T) {
	for name, c := range map[string]struct {
		answer http.Handler
		tries  int64
		cause  string
	}{
		"the issuer is down":      {authtest.Status(http.StatusBadGateway), 2, "bad status 502"},
		"the client is not known": {authtest.Status(http.StatusUnauthorized), 1, "bad status 401"},
		"an endless answer":       {huge(), 1, "too large"},
	} {
		var log bytes.Buffer
		d := newDesk(t, func(d *desk) {
			d.memory = auth.NewMemory(auth.MemoryOptions{Now: d.clock.Now, Log: slog.New(slog.NewTextHandler(&log, nil))})
			d.memory.Logins().SetLeaving(0)
		})
		var token atomic.Pointer[string]
		d.provider.AnswerRevocations(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			token.Store(new(r.FormValue("token")))
			c.answer.ServeHTTP(w, r)
		}))
		b := d.browser()
		b.signOut(b.signIn())
		d.login.Settle()
		b.refused(auth.NoCredential)
		text := log.String()
		if d.provider.Revocations() != c.tries || d.memory.Logins().Unrevoked() != 1 || !strings.Contains(text, "was not revoked") || !strings.Contains(text, c.cause) {
			t.Errorf("%s: %d tries, %d not revoked: %s", name, d.provider.Revocations(), d.memory.Logins().Unrevoked(), text)
		}
		for _, secret := range []string{*token.Load(), url.QueryEscape(*token.Load()), "secret-of-client"} {
			if strings.Contains(text, secret) {
				t.Errorf("%s: the log has a secret: %s", name, text)
			}
		}
	}
}

// TestRevocationIsBounded revokes the tokens of many people while the issuer hangs. The first does so more
// often than the others, whose places are their own. All of it happens in less time than the issuer may hang.
func TestRevocationIsBounded(t *testing.T) {
	d := newDesk(t)
	free := make(chan struct{})
	d.provider.AnswerRevocations(http.HandlerFunc(func(http.ResponseWriter, *http.Request) { <-free }))
	const most, of, running = 1024, 32, 32
	b := d.browser()
	s := b.signIn()
	others := make([]*login.Session, most/of-1)
	for i := range others {
		d.provider.Person(fmt.Sprint("person-", i), nil)
		others[i] = d.browser().signIn()
	}
	d.provider.Person("late", nil)
	late := b.signIn()
	for range most + 3 {
		s.Revoke()
	}
	if n := d.memory.Logins().Unrevoked(); n != most+3-of {
		t.Errorf("%d of one person were not revoked, want %d", n, most+3-of)
	}
	for _, s := range others {
		for range of {
			s.Revoke()
		}
	}
	if n := d.memory.Logins().Unrevoked(); n != most+3-of {
		t.Errorf("%d of others were not revoked", n-(most+3-of))
	}
	late.Revoke()
	if n := d.memory.Logins().Unrevoked(); n != most+3-of+1 {
		t.Errorf("%d were not revoked, want %d", n, most+3-of+1)
	}
	if n := d.provider.Revocations(); n > running {
		t.Errorf("%d requests at once, want at most %d", n, running)
	}
	close(free)
	d.login.Settle()
	if n := d.provider.Revocations(); n != most {
		t.Errorf("%d revocations, want %d", n, most)
	}
	b.signOut(b.signIn())
	d.login.Settle()
	if n := d.provider.Revocations(); n != most+1 {
		t.Errorf("%d revocations, want one more", n)
	}
}

// A revocation waits for the issuer's own sign-out. If the gateway stops meanwhile, that is counted.
func TestRevocationWaitsForTheIssuersSignOut(t *testing.T) {
	d := newDesk(t, func(d *desk) { d.memory.Logins().SetLeaving(time.Hour) })
	b := d.browser()
	b.signOut(b.signIn())
	d.memory.Logins().End()
	if n := d.provider.Revocations(); n != 0 || d.memory.Logins().Unrevoked() != 1 {
		t.Errorf("%d revocations, %d failed", n, d.memory.Logins().Unrevoked())
	}

	d = newDesk(t, func(d *desk) {
		d.provider.Lack("end_session_endpoint")
		d.memory.Logins().SetLeaving(time.Hour)
	})
	b = d.browser()
	b.signOut(b.signIn())
	d.login.Settle()
	if n := d.provider.Revocations(); n != 1 {
		t.Errorf("without a sign-out of the issuer: %d revocations", n)
	}
}

// A refresh under way at the sign-out brings a new token, which is revoked too.
func TestTokenOfALateRefreshIsRevoked(t *testing.T) {
	d := newDesk(t)
	b := d.browser()
	s := b.signIn()
	begun, free := make(chan bool), make(chan bool)
	d.provider.Change(func(map[string]any) { begun <- true; <-free }, nil)
	d.clock.Add(4 * time.Minute)
	b.serves("issuer/corp:alice")
	<-begun
	out := make(chan bool)
	go func() { b.signOut(s); close(out) }()
	<-out
	free <- true
	d.login.Settle()
	if left := d.provider.RefreshTokens(); left != 0 {
		t.Errorf("%d tokens are left, after %d revocations", left, d.provider.Revocations())
	}
}

// A session that a new one of the browser replaces is not revoked, and neither is the token that a refresh
// brings it meanwhile: an issuer may end all tokens of the grant, which the new session has too.
func TestTokenOfAReplacedSessionIsNotRevoked(t *testing.T) {
	for name, end := range map[string]func(*desk, *login.Session) error{
		"replaced": func(_ *desk, s *login.Session) error { login.Discard(s); return nil },
		"ended by the issuer": func(d *desk, s *login.Session) error {
			_, err := d.login.BackChannel(t.Context(), d.provider.LogoutToken("", s.Principal().Name, nil))
			return err
		},
	} {
		d := newDesk(t)
		b := d.browser()
		s := b.signIn()
		begun, free := make(chan bool), make(chan bool)
		d.provider.Change(func(map[string]any) { begun <- true; <-free }, nil)
		d.clock.Add(4 * time.Minute)
		b.serves("issuer/corp:alice")
		<-begun
		if err := end(d, s); err != nil {
			t.Error(name, err)
		}
		free <- true
		d.login.Settle()
		if n := d.provider.Revocations(); n != 0 {
			t.Errorf("%s: %d revocations", name, n)
		}
		b.refused(login.SessionEnded)
	}
}
