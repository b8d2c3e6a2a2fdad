package auth

import (
	"net/http"
	"strings"
	"testing"
	"time"

	"sallyport/auth/authtest"
	"sallyport/auth/login"
	"sallyport/proxy/message"
)

// people is an Auth with a login at a provider.
type people struct {
	t        testing.TB
	auth     *Auth
	chain    *Chain
	issuer   *authtest.Issuer
	provider *authtest.Provider
}

func newPeople(t testing.TB, change ...func(*login.Config)) *people {
	t.Helper()
	clock := authtest.NewClock()
	return newPeopleOf(t, clock, authtest.StartAt(t, clock.Now), change...)
}

// newPeopleOf returns the same for an issuer that may be away.
func newPeopleOf(t testing.TB, clock *authtest.Clock, issuer *authtest.Issuer, change ...func(*login.Config)) *people {
	t.Helper()
	c := login.Config{Issuer: "corp", ClientID: "gateway"}
	for _, f := range change {
		f(&c)
	}
	p := &people{t: t, issuer: issuer, provider: issuer.Provide("gateway", "")}
	p.auth = activeAuth(t, NewMemory(MemoryOptions{Now: clock.Now}), Config{
		Issuers: map[string]IssuerConfig{"corp": (&provider{issuer}).config()},
		Logins:  map[string]login.Config{"corp": c, "first": c},
	})
	var err error
	if p.chain, err = p.auth.Route(Demand{Callers: []string{"issuer/corp", "login/corp"}}); err != nil {
		t.Fatal(err)
	}
	return p
}

// signIn returns the Cookie field of a browser in which a person has signed in, beside cookies of apps.
func (p *people) signIn(sub string, claims map[string]any) string {
	p.t.Helper()
	p.provider.Person(sub, claims)
	l := p.auth.Login("corp")
	begun, err := l.Begin(p.t.Context(), login.Attempt{Host: "models.example", Origin: "https://models.example", To: "/"})
	if err != nil {
		p.t.Fatal(err)
	}
	r, err := http.NewRequestWithContext(p.t.Context(), http.MethodGet, begun.Location, nil)
	if err != nil {
		p.t.Fatal(err)
	}
	answer, err := http.DefaultTransport.RoundTrip(r)
	if err != nil {
		p.t.Fatal(err)
	}
	answer.Body.Close()
	to, err := answer.Location()
	if err != nil {
		p.t.Fatal(err)
	}
	done, err := l.Finish(p.t.Context(), login.Answer{Host: "models.example", Origin: "https://models.example", Query: to.RawQuery, Cookie: cookies("", begun.Cookies)})
	if err != nil {
		p.t.Fatal(err)
	}
	return cookies("_xsrf=2|1b2c; theme=dark", done.Cookies)
}

// cookies adds what answers set to a Cookie field.
func cookies(field string, set []string) string {
	for _, line := range set {
		pair, rest, _ := strings.Cut(line, ";")
		if !strings.Contains(rest, "Max-Age=0") {
			field += "; " + pair
		}
	}
	return field
}

// pageRequest is a browser's request for a page.
func pageRequest(cookie string) *Request {
	h := &message.Head{Method: "GET", Path: "/", Authority: "models.example", Host: "models.example"}
	h.Fields.Add("cookie", cookie)
	return from(client, h)
}

// TestSignInAfterAnIssuerWasAway checks that people can sign in as soon as the issuer answers again, even
// if the next attempt to fetch its keys is not due yet.
func TestSignInAfterAnIssuerWasAway(t *testing.T) {
	clock := authtest.NewClock()
	issuer := authtest.StartAt(t, clock.Now)
	issuer.Answer(authtest.Status(http.StatusServiceUnavailable))
	p := newPeopleOf(t, clock, issuer)
	begun, err := p.auth.Login("corp").Begin(t.Context(), login.Attempt{Host: "models.example", Origin: "https://models.example", To: "/"})
	if err == nil {
		t.Errorf("a login began at %s", begun.Location)
	}
	token, err := issuer.Sign(issuer.Claims("alice"))
	if err != nil {
		t.Fatal(err)
	}
	for range 8 { // each failure makes the next pause longer
		if _, err := ask(p.chain, token); reason(t, err) != IssuerUnavailable {
			t.Fatalf("a token while the issuer is away: %v", err)
		}
		clock.Add(time.Minute)
	}
	if _, err := ask(p.chain, token); reason(t, err) != IssuerUnavailable {
		t.Fatalf("a token while the issuer is away: %v", err)
	}
	issuer.Answer(nil)
	if proof, err := p.chain.Authenticate(t.Context(), pageRequest(p.signIn("alice", nil))); err != nil || proof.Session == nil {
		t.Errorf("a session after the issuer was away: %v", err)
	}
}

// TestCachedSessionOfSecondLogin checks that no key of the first login is tried on it each time.
func TestCachedSessionOfSecondLogin(t *testing.T) {
	p := newPeople(t)
	both, err := p.auth.Route(Demand{Callers: []string{"login/first", "login/corp"}})
	if err != nil {
		t.Fatal(err)
	}
	other, err := p.auth.Route(Demand{Callers: []string{"login/first"}})
	if err != nil {
		t.Fatal(err)
	}
	r := pageRequest(p.signIn("alice", nil))
	for _, when := range []string{"opened", "from the cache"} {
		if proof, err := both.Authenticate(t.Context(), r); err != nil || proof.Session.Login() != "corp" {
			t.Errorf("%s: %v", when, err)
		}
		if _, err := other.Authenticate(t.Context(), r); reason(t, err) != BadSession {
			t.Errorf("%s, at a route of the other login: %v", when, err)
		}
	}
	if n := testing.AllocsPerRun(100, func() { _, _ = both.Authenticate(t.Context(), r) }); n != 0 {
		t.Errorf("%v allocations for a cached session", n)
	}
}

// TestChainTakesSessionsBesideTokens checks what a route with both kinds decides.
func TestChainTakesSessionsBesideTokens(t *testing.T) {
	p := newPeople(t)
	field := p.signIn("alice", nil)
	for name, x := range map[string]struct {
		cookie, token, reason string
		session               bool
	}{
		"session":               {field, "", "", true},
		"nothing":               {"", "", NoCredential, false},
		"cookies of apps":       {"_xsrf=1; sallyport=x", "", NoCredential, false},
		"bad session":           {"__Host-sallyport=1.AAAA", "", BadSession, false},
		"session and bad token": {field, "Bearer forged", BadCredential, false},
	} {
		r := pageRequest(x.cookie)
		if x.token != "" {
			r.Head.Fields.Add("authorization", x.token)
		}
		proof, err := p.chain.Authenticate(t.Context(), r)
		if got := reason(t, err); got != x.reason || (proof.Session != nil) != x.session {
			t.Errorf("%s: %q, session %v", name, got, proof.Session != nil)
		}
	}
	if _, err := p.auth.Route(Demand{Callers: []string{"login/other"}}); err == nil {
		t.Error("a route has a login that does not exist")
	}
	if _, err := New(Config{Logins: map[string]login.Config{"x": {Issuer: "nobody", ClientID: "y"}}}, NewMemory(MemoryOptions{})); err == nil {
		t.Error("a login has an issuer that does not exist")
	}
	// A closed Auth caches nothing, and the session is not lost by that.
	cached := p.auth.memory.CacheStatus().Tokens
	p.auth.Close()
	if n := p.auth.memory.CacheStatus().Tokens; cached != 1 || n != 0 {
		t.Errorf("%d sessions were cached, and %d are after Close", cached, n)
	}
	if _, err := p.chain.Authenticate(t.Context(), pageRequest(field)); err != nil {
		t.Error(err)
	}
}
