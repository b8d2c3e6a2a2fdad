package login_test

import (
	"context"
	"errors"
	"net/http"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"sallyport/auth"
	"sallyport/auth/authtest"
	"sallyport/auth/login"
)

// passes asks for a page of the route that passes tokens on, with the browser's cookies.
func (b *browser) passes() (auth.Proof, error) {
	b.t.Helper()
	p, err := b.passing.Authenticate(context.Background(), request(host, b.field()))
	if err == nil {
		b.take(p.Session.Renewed(b.clock.Now()))
	}
	if err != nil && p.Tokens != (login.Tokens{}) {
		b.t.Errorf("tokens beside error %v", err)
	}
	return p, err
}

// passed checks that the server gets the last tokens that the provider made, of the kinds that are wanted.
func (b *browser) passed(what string, given *given) {
	b.t.Helper()
	p, err := b.passes()
	want := given.tokens()
	if !b.config.Passed.Access {
		want.Access = ""
	}
	if !b.config.Passed.ID {
		want.ID = ""
	}
	if err != nil || p.Tokens != want {
		b.t.Errorf("%s: got tokens of %d and %d bytes, %v; want those of %d and %d bytes that the provider gave last",
			what, len(p.Tokens.Access), len(p.Tokens.ID), err, len(want.Access), len(want.ID))
	}
}

// notPassed checks that a request for which there is no token is refused for a reason, and that neither
// reason nor cause has one.
func (b *browser) notPassed(what, reason string) {
	b.t.Helper()
	_, err := b.passes()
	if reasonOf(err) != reason || strings.Contains(err.Error(), "eyJ") {
		b.t.Errorf("%s: got %v, want %s", what, err, reason)
	}
}

// given are the tokens that the provider gave last.
type given struct {
	mu   sync.Mutex // guards last
	last login.Tokens
}

func (g *given) tokens() login.Tokens {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.last
}

// gives notes the tokens that the provider gives, and lets change change its answers.
func (d *desk) gives(change func(answer map[string]any)) *given { return d.givesOf(nil, change) }

// givesOf does so with changed claims of ID tokens.
func (d *desk) givesOf(claims, change func(map[string]any)) *given {
	g := &given{}
	d.provider.Change(claims, func(answer map[string]any) {
		if change != nil {
			change(answer)
		}
		g.mu.Lock()
		defer g.mu.Unlock()
		g.last.Access, _ = answer["access_token"].(string)
		if id, ok := answer["id_token"].(string); ok {
			g.last.ID = id
		}
	})
	return g
}

// passing returns a change of a desk that passes tokens on.
func passing(of login.Passed, memory bool) func(*desk) {
	return func(d *desk) { d.config.Passed, d.config.Memory = of, memory }
}

var everyPassed = []login.Passed{{Access: true}, {ID: true}, {Access: true, ID: true}}

// TestServersGetValidTokens: the issuer's tokens go to the server, those of the last refresh, and a request
// waits for the refresh when they have ended meanwhile. Routes that pass none have none, and look at none.
func TestServersGetValidTokens(t *testing.T) {
	for _, memory := range []bool{false, true} {
		for _, of := range everyPassed {
			d := newDesk(t, passing(of, memory))
			g := d.gives(nil)
			b := d.browser()
			b.signIn()
			b.passed("signed in", g)
			if p, err := b.ask(); err != nil || p.Tokens != (login.Tokens{}) {
				t.Errorf("a route that passes none: %v, %v", p.Tokens != (login.Tokens{}), err)
			}
			d.clock.Add(4 * time.Minute) // of five: a refresh is due
			_, _ = b.passes()
			d.settle(1)
			b.passed("refreshed in the background", g)
			d.clock.Add(40 * time.Minute) // nobody came for longer than the tokens live
			b.passed("refreshed at once", g)
			d.settle(2)
		}
	}
}

// TestSealedTokensOutliveTheProcess opens the cookie of a session in another process.
func TestSealedTokensOutliveTheProcess(t *testing.T) {
	for _, of := range everyPassed {
		d := newDesk(t, passing(of, false), func(d *desk) { d.config.Keys = mustKeys(t) })
		g := d.gives(nil)
		b := d.browser()
		b.signIn()
		d.memory = newMemory(d)
		d.reload()
		b.passed("another process", g)
		d.settle(0)
	}
}

// TestParallelRequestsWaitForOneRefresh: the tabs of a person come back after hours, all at once. The issuer
// takes each refresh token once.
func TestParallelRequestsWaitForOneRefresh(t *testing.T) {
	d := newDesk(t, passing(login.Passed{Access: true}, false))
	g := d.gives(nil)
	b := d.browser()
	b.signIn()
	before := g.tokens()
	d.clock.Add(30 * time.Minute)
	var tabs sync.WaitGroup
	for range 50 {
		tabs.Go(func() {
			p, err := d.passing.Authenticate(context.Background(), request(host, b.field()))
			if err != nil || p.Tokens.Access == before.Access || p.Tokens.Access == "" {
				t.Errorf("a tab: a token of %d bytes, %v", len(p.Tokens.Access), err)
			}
		})
	}
	tabs.Wait()
	d.settle(1)
}

// TestTabsShareARefreshThatFails: of tabs that come back all at once, none asks the issuer again for what another has
// just been refused, or has not got.
func TestTabsShareARefreshThatFails(t *testing.T) {
	for name, fails := range map[string]http.Handler{
		"down": authtest.Status(http.StatusBadGateway), "withdrawn": says(http.StatusBadRequest, "invalid_grant"),
	} {
		for _, later := range []time.Duration{4 * time.Minute, 30 * time.Minute} { // a refresh is due, or waited for
			for range 20 {
				d := newDesk(t, passing(login.Passed{Access: true}, false))
				b := d.browser()
				b.signIn()
				var asked atomic.Int64
				d.provider.AnswerTokens(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
					asked.Add(1)
					fails.ServeHTTP(w, r)
				}))
				d.clock.Add(later)
				var tabs sync.WaitGroup
				for range 50 {
					tabs.Go(func() { _, _ = d.passing.Authenticate(context.Background(), request(host, b.field())) })
				}
				tabs.Wait()
				d.login.Settle()
				if n := asked.Load(); n != 1 {
					t.Errorf("%s, after %v: the issuer was asked %d times", name, later, n)
				}
			}
		}
	}
}

// TestEndedTokenIsNotPassed: without a refresh nothing that has ended goes to a server. A person whose issuer
// is down gets 503, and one without a refresh token signs in anew; other routes serve both.
func TestEndedTokenIsNotPassed(t *testing.T) {
	for _, of := range everyPassed {
		d := newDesk(t, passing(of, false))
		g := d.gives(nil)
		b := d.browser()
		b.signIn()
		d.provider.AnswerTokens(authtest.Status(http.StatusBadGateway))
		d.clock.Add(4 * time.Minute)
		b.passed("still valid", g)
		d.login.Settle()
		d.clock.Add(2 * time.Minute)
		b.notPassed("issuer down", auth.IssuerUnavailable)
		b.serves("issuer/corp:alice")
		b.notPassed("just tried", auth.IssuerUnavailable)
		d.provider.AnswerTokens(nil)
		b.notPassed("just tried", auth.IssuerUnavailable)
		d.clock.Add(5 * time.Second)
		b.passed("issuer back", g)

		d = newDesk(t, passing(of, false))
		g = d.gives(func(answer map[string]any) { delete(answer, "refresh_token") })
		b = d.browser()
		b.signIn()
		d.clock.Add(4 * time.Minute)
		b.passed("valid", g)
		d.clock.Add(time.Minute - 5*time.Second)
		b.notPassed("about to end", login.SessionExpired)
		b.serves("issuer/corp:alice")
		d.clock.Add(time.Hour - 5*time.Minute)
		b.notPassed("ended", login.SessionExpired)
		b.signIn()
		b.passed("signed in anew", g)
		d.settle(0)
	}
}

// TestIssuerThatRefusesEndsTheSession: the request that waits for the refresh learns that too.
func TestIssuerThatRefusesEndsTheSession(t *testing.T) {
	d := newDesk(t, passing(login.Passed{Access: true}, false))
	b, victim := d.browser(), d.browser()
	b.signIn()
	d.provider.Forget()
	g := d.gives(nil)
	victim.signIn()
	d.clock.Add(10 * time.Minute)
	b.notPassed("withdrawn", login.SessionEnded)
	victim.passed("the victim", g)
}

// TestRefreshWithoutIDToken: an issuer need not give an ID token at a refresh. The former goes on while it is
// valid, and then the person signs in anew, without a refresh for each request.
func TestRefreshWithoutIDToken(t *testing.T) {
	d := newDesk(t, passing(login.Passed{ID: true}, false))
	var later bool
	g := d.gives(func(answer map[string]any) {
		if later {
			delete(answer, "id_token")
		}
	})
	b := d.browser()
	b.signIn()
	later = true
	d.clock.Add(4 * time.Minute)
	_, _ = b.passes()
	d.settle(1)
	for range 20 {
		b.passed("valid", g)
	}
	d.settle(1)
	d.clock.Add(time.Minute)
	for range 20 {
		b.notPassed("ended", login.SessionExpired)
	}
	d.login.Settle()
	if n := d.provider.Refreshes(); n > 3 {
		t.Errorf("%d refreshes", n)
	}
}

// TestReloadPassesTokens: sessions that began before a configuration passes tokens on get them by a refresh at
// their next request; those without a refresh token sign in anew.
func TestReloadPassesTokens(t *testing.T) {
	for _, memory := range []bool{false, true} {
		for _, of := range everyPassed {
			d := newDesk(t, passing(login.Passed{}, memory), func(d *desk) { d.config.Keys = mustKeys(t) })
			b, without := d.browser(), d.browser()
			b.signIn()
			d.gives(func(answer map[string]any) { delete(answer, "refresh_token") })
			without.signIn()
			g := d.gives(nil)
			d.config.Passed = of
			d.reload()
			if !of.Access { // nobody noted how long the ID token lives
				without.notPassed("no refresh token", login.SessionExpired)
			}
			b.passed("turned on", g)
			if n := d.provider.Refreshes(); n != 1 {
				t.Errorf("%d refreshes, want 1", n)
			}
			if of.Access {
				without.notPassed("no refresh token", login.SessionExpired)
			}
			without.serves("issuer/corp:alice")
		}
	}
}

// TestReloadDropsTokens: when a configuration passes tokens on no more, sessions do not keep them until their next
// refresh, which never comes without a refresh token. Nobody signs in anew, and the browser's cookie is renewed as
// soon as it would be anyway.
func TestReloadDropsTokens(t *testing.T) {
	for _, memory := range []bool{false, true} {
		for _, of := range everyPassed {
			plain := newDesk(t, passing(login.Passed{}, memory), func(d *desk) { d.config.Keys = mustKeys(t) }).browser().signIn()
			d := newDesk(t, passing(of, memory), func(d *desk) { d.config.Keys = mustKeys(t) })
			d.gives(func(answer map[string]any) { delete(answer, "refresh_token"); delete(answer, "expires_in") })
			b := d.browser()
			large := b.signIn().Size()
			sealed := len(b.field())
			d.config.Passed = login.Passed{}
			d.reload()
			p, err := b.passes()
			if err != nil || p.Tokens != (login.Tokens{}) {
				t.Fatalf("turned off: %+v, %v", p.Tokens, err)
			}
			if of.Access && (p.Session.Size() > plain.Size() || large < plain.Size()+150) {
				t.Errorf("turned off, in memory %t: %d bytes before, now %d; without tokens %d", memory, large, p.Session.Size(), plain.Size())
			}
			d.clock.Add(8 * time.Minute) // an eighth of the idle lifetime
			b.serves("issuer/corp:alice")
			if now := len(b.field()); !memory && of.Access && now > sealed-150 {
				t.Errorf("turned off: the cookie had %d bytes, now %d", sealed, now)
			}
			if n := d.provider.Refreshes(); n != 0 {
				t.Errorf("%d refreshes", n)
			}
		}
	}
}

// TestAttackTokenOfIssuer: an issuer whose access token would split a field, or is longer than servers take,
// signs nobody in where that token is passed on; elsewhere the token is not looked at.
func TestAttackTokenOfIssuer(t *testing.T) {
	for name, token := range map[string]string{
		"a line": "a\r\nX-Forwarded-User: root", "a blank": "a b", "a comma": "a,b", "only padding": "==", "not ASCII": "tök", "NUL": "a\x00",
		"long": strings.Repeat("a", 16<<10+1),
	} {
		d := newDesk(t, passing(login.Passed{Access: true}, true))
		d.provider.Change(nil, func(answer map[string]any) { answer["access_token"] = token })
		b := d.browser()
		_, err := b.finish(b.visit(b.begin("/")))
		wantReason(t, name, err, login.BadTokens)
		if size := strconv.Itoa(len(token)) + " bytes"; strings.Contains(err.Error(), size) != (name == "long") {
			t.Errorf("%s: the cause is %v", name, err)
		}
		d.config.Passed = login.Passed{}
		d.reload()
		b.signIn()
		b.serves("issuer/corp:alice")
	}
}

// TestHangingRefreshHoldsNobodyElse: requests of one session wait for an issuer that hangs, and leave when
// their client does; nothing piles up, and the person's other routes serve.
func TestHangingRefreshHoldsNobodyElse(t *testing.T) {
	d := newDesk(t, passing(login.Passed{Access: true}, false))
	b := d.browser()
	b.signIn()
	d.clock.Add(10 * time.Minute)
	d.provider.AnswerTokens(authtest.Hang())
	var tabs sync.WaitGroup
	for range 50 {
		tabs.Go(func() {
			ctx, leave := context.WithCancel(context.Background())
			leave()
			_, err := d.passing.Authenticate(ctx, request(host, b.field()))
			wantReason(t, "who left", err, auth.IssuerUnavailable)
		})
	}
	tabs.Wait()
	b.serves("issuer/corp:alice")
	d.memory.Logins().End()
}

// TestNoRefreshAtTheEnd: a gateway that stops sends nobody to sign in anew, who could sign in nowhere.
func TestNoRefreshAtTheEnd(t *testing.T) {
	d := newDesk(t, passing(login.Passed{Access: true}, false))
	b := d.browser()
	b.signIn()
	d.clock.Add(10 * time.Minute)
	d.memory.Logins().End()
	b.notPassed("stopping", auth.IssuerUnavailable)
}

// TestBearerTokensStandForBoth: the caller's own token goes on where a person's would; a bad one never.
func TestBearerTokensStandForBoth(t *testing.T) {
	d := newDesk(t, passing(login.Passed{Access: true, ID: true}, false))
	token, err := d.issuer.Sign(d.issuer.Claims("bob"))
	if err != nil {
		t.Fatal(err)
	}
	r := request(host, "")
	r.Head.Fields.Add("authorization", "Bearer "+token)
	p, err := d.passing.Authenticate(t.Context(), r)
	if err != nil || p.Tokens != (login.Tokens{Access: token, ID: token}) {
		t.Errorf("got tokens of %d and %d bytes, %v", len(p.Tokens.Access), len(p.Tokens.ID), err)
	}
	r.Head.Fields[0].Value += "x"
	if p, err := d.passing.Authenticate(t.Context(), r); err == nil || p.Tokens != (login.Tokens{}) {
		t.Errorf("a bad token: %v, %v", p.Tokens, err)
	}
}

// TestAttackOtherCallersToken: of two credentials of a request, the tokens are of the one that proves the
// caller.
func TestAttackOtherCallersToken(t *testing.T) {
	d := newDesk(t, passing(login.Passed{Access: true}, false))
	g := d.gives(nil)
	b := d.browser()
	b.signIn()
	token, err := d.issuer.Sign(d.issuer.Claims("mallory"))
	if err != nil {
		t.Fatal(err)
	}
	r := request(host, b.field())
	r.Head.Fields.Add("authorization", "Bearer "+token)
	p, err := d.passing.Authenticate(t.Context(), r) // the route lists the login first
	if err != nil || p.Caller.String() != "issuer/corp:alice" || p.Tokens.Access != g.tokens().Access {
		t.Errorf("%s with another token, %v", p.Caller.String(), err)
	}
	var refused *auth.Error
	r.Head.Fields[1].Value += "x"
	if _, err := d.passing.Authenticate(t.Context(), r); !errors.As(err, &refused) {
		t.Errorf("a bad token beside the session: %v", err)
	}
}
