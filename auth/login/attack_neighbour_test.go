package login_test

import (
	"context"
	"net/http"
	"net/netip"
	"net/url"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"sallyport/auth/authtest"
	"sallyport/auth/login"
	"sallyport/auth/login/endfile"
)

// holdTokens makes the provider wait before it answers requests for tokens, until hold is closed. held
// has room for what it holds.
func (d *desk) holdTokens() (hold chan struct{}, held chan struct{}) {
	d.t.Helper()
	hold, held = make(chan struct{}), make(chan struct{}, 1000)
	own := d.issuer
	d.provider.AnswerTokens(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		held <- struct{}{}
		<-hold
		d.provider.AnswerTokens(nil)
		own.ServeHTTP(w, r)
	}))
	return hold, held
}

// neighbour returns another desk in the same process, at another issuer.
func (d *desk) neighbour() *desk {
	return newDesk(d.t, func(n *desk) {
		n.clock, n.memory = d.clock, d.memory
		n.issuer = authtest.StartAt(n.t, n.clock.Now)
		n.provider = n.issuer.Provide("other", "secret-of-client")
		n.config.ClientID, n.rules.URL = "other", n.issuer.URL
	})
}

// TestIssuerThatHangsHoldsNoOtherLogin: made-up codes fill all turns at an issuer that does not answer.
// People at another issuer get in.
func TestIssuerThatHangsHoldsNoOtherLogin(t *testing.T) {
	d := newDesk(t)
	hold, held := d.holdTokens()
	var answers []login.Answer
	for range 64 {
		b := d.browser()
		q, _ := url.ParseQuery(b.visit(b.begin("/")))
		q.Set("code", "made up")
		answers = append(answers, login.Answer{Host: host, Origin: origin, Query: q.Encode(), Cookie: b.field()})
	}
	victim := d.neighbour().browser()
	page := victim.visit(victim.begin("/"))
	var flood sync.WaitGroup
	var over atomic.Bool // one of them has ended
	for _, answer := range answers {
		flood.Go(func() {
			_, _ = d.login.Finish(t.Context(), answer)
			over.Store(true)
		})
	}
	for range 64 {
		<-held
	}
	if _, err := victim.finish(page); err != nil {
		t.Error(err)
	}
	if over.Load() {
		t.Error("a person at another issuer has waited for the one that hangs")
	}
	close(hold)
	flood.Wait()
}

// TestIssuerThatHangsHoldsNoOtherRefresh: sessions at an issuer that hangs fill all turns for refreshes.
// A session at another issuer is refreshed.
func TestIssuerThatHangsHoldsNoOtherRefresh(t *testing.T) {
	d := newDesk(t)
	n := d.neighbour()
	victim := n.browser()
	victim.signIn()
	var all []*browser
	for range 40 {
		b := d.browser()
		b.signIn()
		all = append(all, b)
	}
	hold, held := d.holdTokens()
	d.clock.Add(4 * time.Minute)
	for _, b := range all {
		b.serves("issuer/corp:alice")
	}
	for range 32 {
		<-held
	}
	refreshed := make(chan struct{}, 1)
	n.provider.AnswerTokens(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		refreshed <- struct{}{}
		w.WriteHeader(http.StatusServiceUnavailable)
	}))
	victim.serves("issuer/corp:alice")
	select {
	case <-refreshed:
	case <-time.After(time.Minute):
		t.Error("the session at the other issuer is not refreshed")
	}
	close(hold)
	d.login.Settle()
}

// TestPersonWhoSignsInAndOutEndsNobodyElse ends more sessions than are remembered. A victim who signed in before stays signed in,
// and the person's own sessions stay ended.
func TestPersonWhoSignsInAndOutEndsNobodyElse(t *testing.T) {
	for kind, change := range map[string]func(*desk){
		"cookie": func(d *desk) { d.config.Keys = mustKeys(d.t) },
		"memory": func(d *desk) { d.config.Memory = true },
	} {
		d := newDesk(t, change)
		victim, mallory := d.browser(), d.browser()
		victim.signIn()
		d.provider.Person("mallory", nil)
		s := mallory.signIn()
		d.clock.Add(time.Second)
		if err := s.EndCopies(endfile.MaxEnds + 7); err != nil {
			t.Fatal(err)
		}
		mallory.refused(login.SessionEnded)
		victim.serves("issuer/corp:alice")
		d.clock.Add(time.Second)
		again := d.browser()
		again.signIn()
		again.serves("issuer/corp:mallory")
		if t.Failed() {
			t.Error(kind)
		}
	}
}

// TestClientThatLeavesDelaysNoSignIn: while the issuer takes its time with its document, those who asked first
// leave. Who stays waits for that one fetch.
func TestClientThatLeavesDelaysNoSignIn(t *testing.T) {
	d := newDesk(t)
	asked, free := make(chan struct{}, 100), make(chan struct{})
	d.issuer.Answer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		asked <- struct{}{}
		<-free
		d.issuer.Answer(nil)
		d.issuer.ServeHTTP(w, r)
	}))
	begin := func(ctx context.Context) error {
		_, err := d.login.Begin(ctx, login.Attempt{Host: host, Origin: origin, To: "/"})
		return err
	}
	flood, leave := context.WithCancel(t.Context())
	var left, stays sync.WaitGroup
	for range 20 {
		left.Go(func() { wantReason(t, "who leaves", begin(flood), login.Unavailable) })
	}
	<-asked
	stays.Go(func() {
		if err := begin(t.Context()); err != nil {
			t.Error(err)
		}
	})
	leave()
	left.Wait()
	close(free)
	stays.Wait()
	if n := len(asked); n != 0 {
		t.Errorf("the document was fetched %d times more", n)
	}
}

// TestKnownDocumentDelaysNobody: after its hour the document is fetched anew, and the issuer hangs. Nobody
// waits for it.
func TestKnownDocumentDelaysNobody(t *testing.T) {
	d := newDesk(t)
	b := d.browser()
	page := b.begin("/")
	b.visit(page)
	d.clock.Add(2 * time.Hour)
	asked, free := make(chan struct{}, 100), make(chan struct{})
	d.issuer.Answer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) {
		asked <- struct{}{}
		<-free
	}))
	for range 20 {
		b.begin("/")
	}
	<-asked
	close(free)
	d.login.Settle()
	if n := len(asked); n != 0 {
		t.Errorf("the document was fetched %d times more", n)
	}
}

// TestOneAddressDoesNotFillTheLine: made-up codes from one address take all turns at an issuer that takes its time,
// and many more wait. A person at another address waits for two turns only.
func TestOneAddressDoesNotFillTheLine(t *testing.T) {
	d := newDesk(t)
	mallory, alice := netip.MustParseAddr("2001:db8::"), netip.MustParseAddr("192.0.2.9")
	made := func(code string, from netip.Addr) login.Answer {
		b := d.browser()
		q, _ := url.ParseQuery(b.visit(b.begin("/")))
		if code != "" {
			q.Set("code", code)
		}
		return login.Answer{Host: host, Origin: origin, Query: q.Encode(), Cookie: b.field(), Client: from}
	}
	const most, more = 64, 100
	var all []login.Answer
	for range most + more {
		all = append(all, made("made up", mallory))
	}
	honest := made("", alice)
	hold, asked := make(chan struct{}), make(chan string, 1000)
	d.provider.AnswerTokens(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		asked <- r.FormValue("code")
		<-hold
		w.WriteHeader(http.StatusServiceUnavailable)
	}))
	wait := func(taken, waiting int) {
		t.Helper()
		for {
			if a, b := d.login.Turns(); a == taken && b == waiting {
				return
			}
			time.Sleep(time.Millisecond)
		}
	}
	leaves, leave := context.WithCancel(t.Context())
	var flood, person sync.WaitGroup
	for i := range all {
		flood.Go(func() { _, _ = d.login.Finish(leaves, all[i]) })
	}
	wait(most, more)
	person.Go(func() {
		_, err := d.login.Finish(t.Context(), honest)
		wantReason(t, "the issuer says 503", err, login.Unavailable)
	})
	wait(most, more+1)
	for range most {
		<-asked
	}
	hold <- struct{}{}
	hold <- struct{}{}
	if first, second := <-asked, <-asked; first == "made up" && second == "made up" {
		t.Error("two turns later the person still waits")
	}
	wait(most, more-1)
	leave()
	close(hold)
	flood.Wait()
	person.Wait()
	wait(0, 0)
	d.provider.AnswerTokens(nil)
	if _, err := d.login.Finish(t.Context(), made("", mallory)); err != nil {
		t.Errorf("after the flood: %v", err)
	}
}

// TestPersonOfManySessionsCostsNobodyTheirRefresh: a session was refreshed, and its browser has not got the new
// token yet. Another person brings more sessions than are known. The old token is not used again.
func TestPersonOfManySessionsCostsNobodyTheirRefresh(t *testing.T) {
	d := newDesk(t)
	victim := d.browser()
	victim.signIn()
	d.clock.Add(4 * time.Minute)
	victim.serves("issuer/corp:alice") // begins the refresh
	d.login.Settle()
	d.provider.Person("mallory", nil)
	d.clock.Add(time.Second)
	mallory := d.browser().signIn()
	mallory.OpenCopies(40_000)
	if n := d.login.Live(); n > 2+64 {
		t.Errorf("%d sessions are known", n)
	}
	d.reload() // the cookie is opened anew, as when the cache has dropped it
	victim.serves("issuer/corp:alice")
	d.login.Settle()
	victim.serves("issuer/corp:alice")
	if n := d.provider.Refreshes(); n != 1 {
		t.Errorf("%d refreshes", n)
	}
}

// TestRefreshTokensAreBounded has an issuer whose refresh tokens are long. Sessions in memory would keep them all.
func TestRefreshTokensAreBounded(t *testing.T) {
	for _, memory := range []bool{true, false} {
		d := newDesk(t, func(d *desk) { d.config.Memory = memory })
		long := func(size int) {
			d.provider.Change(nil, func(answer map[string]any) { answer["refresh_token"] = strings.Repeat("x", size) })
		}
		long(8 << 10)
		b := d.browser()
		b.signIn()
		b.serves("issuer/corp:alice")
		long(64<<10 + 1)
		other := d.browser()
		_, err := other.finish(other.visit(other.begin("/")))
		wantReason(t, "sign-in", err, login.BadTokens)
	}
}
