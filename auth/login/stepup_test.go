package login_test

import (
	"net/url"
	"slices"
	"strings"
	"testing"
	"time"

	"sallyport/auth"
	"sallyport/auth/login"
)

func TestDemandsOfLoginAndPageAreCombined(t *testing.T) {
	for name, c := range map[string]struct{ login, page, want login.StepUp }{
		"none":                 {},
		"of the login":         {login: login.StepUp{ACR: []string{"a"}, MaxAge: time.Hour, Prompt: "login"}, want: login.StepUp{ACR: []string{"a"}, MaxAge: time.Hour, Prompt: "login"}},
		"of the page":          {page: login.StepUp{ACR: []string{"a"}, MaxAge: time.Hour, Prompt: "login"}, want: login.StepUp{ACR: []string{"a"}, MaxAge: time.Hour, Prompt: "login"}},
		"of both, page first":  {login.StepUp{ACR: []string{"a", "b", "c"}, MaxAge: time.Hour, Prompt: "consent"}, login.StepUp{ACR: []string{"c", "x", "a"}, MaxAge: time.Minute, Prompt: "login"}, login.StepUp{ACR: []string{"c", "a"}, MaxAge: time.Minute, Prompt: "login"}},
		"the login is younger": {login.StepUp{MaxAge: time.Minute}, login.StepUp{MaxAge: time.Hour}, login.StepUp{MaxAge: time.Minute}},
		"nothing in common":    {login.StepUp{ACR: []string{"a"}}, login.StepUp{ACR: []string{"b"}}, login.StepUp{ACR: []string{"b"}}}, // such a session is refused
	} {
		got := c.login.And(c.page)
		if !slices.Equal(got.ACR, c.want.ACR) || got.MaxAge != c.want.MaxAge || got.Prompt != c.want.Prompt {
			t.Errorf("%s: got %+v; want %+v", name, got, c.want)
		}
	}
}

func TestDemandsHoldToTheSecond(t *testing.T) {
	now := time.Unix(1_800_000_000, 0)
	const ten = 10 * time.Minute
	for name, c := range map[string]struct {
		demand   login.StepUp
		acr      string
		authTime int64
		lacking  string // the beginning of the text
	}{
		"nothing is demanded": {},
		"one of two":          {login.StepUp{ACR: []string{"a", "b"}}, "b", 0, ""},
		"another":             {login.StepUp{ACR: []string{"a", "b"}}, "c", 0, `acr is "c", demanded is one of "a", "b"`},
		"absent":              {login.StepUp{ACR: []string{"a"}}, "", 0, "acr is absent"},
		"in time":             {login.StepUp{MaxAge: ten}, "", now.Unix() - 660, ""},
		"a second too late":   {login.StepUp{MaxAge: ten}, "", now.Unix() - 661, "auth_time is 661 s ago, max_age is 600 s, skew is 1m"},
		"clock ahead":         {login.StepUp{MaxAge: ten}, "", now.Unix() + 60, ""},
		"too far ahead":       {login.StepUp{MaxAge: ten}, "", now.Unix() + 61, "auth_time is 61 s in the future"},
		"at no time":          {login.StepUp{MaxAge: ten}, "", 0, "auth_time is absent"},
	} {
		if got := c.demand.Lacking(login.Authentication{Claim: "acr", Values: c.acr, Time: c.authTime}, now, time.Minute); !strings.HasPrefix(got, c.lacking) || (got == "") != (c.lacking == "") {
			t.Errorf("%s: got %q; want %q", name, got, c.lacking)
		}
	}
}

// strongChain returns the chain of a route that demands mfa of ten minutes ago.
func strongChain(t *testing.T, d *desk) *auth.Chain {
	t.Helper()
	c, err := d.auth.Route(auth.Demand{Callers: []string{"login/corp"}, StepUp: &login.StepUp{ACR: []string{"mfa"}, MaxAge: 10 * time.Minute}})
	if err != nil {
		t.Fatal(err)
	}
	return c
}

// A refresh proves nothing new: whatever acr and auth_time a refreshed ID token has, those of the sign-in
// count (OpenID Connect Core, section 12.2).
func TestRefreshIsNoStepUp(t *testing.T) {
	d := newDesk(t)
	strong := strongChain(t, d)
	sessions := map[string]*browser{}
	for name, acr := range map[string]string{"step_up": "pwd", "": "mfa"} {
		d.provider.Person("alice", map[string]any{"acr": acr, "auth_time": d.clock.Now().Unix()})
		sessions[name] = d.browser()
		sessions[name].signIn()
	}
	ask := func(want map[string]string) {
		t.Helper()
		for name, b := range sessions {
			_, err := strong.Authenticate(t.Context(), request(host, b.field()))
			wantReason(t, "the session that had "+name, err, want[name])
		}
	}
	ask(map[string]string{"step_up": "step_up", "": ""})
	d.provider.Change(func(claims map[string]any) {
		claims["acr"], claims["auth_time"] = map[any]string{"pwd": "mfa", "mfa": "pwd"}[claims["acr"]], d.clock.Now().Unix()
	}, nil)
	d.clock.Add(4 * time.Minute)
	for _, b := range sessions {
		b.serves("issuer/corp:alice")
	}
	d.login.Settle()
	if n := d.provider.Refreshes(); n != 2 {
		t.Fatalf("%d refreshes; want 2", n)
	}
	for _, b := range sessions {
		b.serves("issuer/corp:alice") // with the new cookie
	}
	ask(map[string]string{"step_up": "step_up", "": ""})
	d.clock.Add(7*time.Minute + time.Second)
	ask(map[string]string{"step_up": "step_up", "": "step_up"})
}

// TestAttackReplacedSessionServesOn keeps the cookie of a session that was replaced, in either kind.
func TestAttackReplacedSessionServesOn(t *testing.T) {
	for _, memory := range []bool{false, true} {
		d := newDesk(t, func(d *desk) { d.config.Memory = memory })
		b, victim := d.browser(), d.browser()
		victim.signIn()
		before := b.signIn()
		thief := &browser{d, map[string]string{}}
		for name, value := range b.cookies {
			thief.cookies[name] = value
		}
		b.signIn()
		thief.serves("issuer/corp:alice")
		login.Discard(before)
		thief.refused(login.SessionEnded)
		b.serves("issuer/corp:alice")
		victim.serves("issuer/corp:alice")
	}
}

// The demand of a page is in the request to the issuer, and sealed with the attempt.
func TestDemandIsOfTheAttempt(t *testing.T) {
	d := newDesk(t, func(d *desk) { d.config.ACR = []string{"otp", "hwk"} })
	d.provider.Person("alice", map[string]any{"acr": "otp"})
	b := d.browser()
	r, err := d.login.Begin(t.Context(), login.Attempt{Host: host, Origin: origin, To: "/admin", Cookie: b.field(), StepUp: login.StepUp{ACR: []string{"mfa", "hwk"}, MaxAge: time.Hour, Prompt: "login"}})
	if err != nil {
		t.Fatal(err)
	}
	b.take(r.Cookies)
	page, err := url.Parse(r.Location)
	if err != nil {
		t.Fatal(err)
	}
	if q := page.Query(); q.Get("acr_values") != "hwk" || q.Get("max_age") != "3600" || q.Get("prompt") != "login" {
		t.Errorf("the issuer is asked for %v", q)
	}
	_, err = b.finish(b.visit(r.Location)) // otp suffices for the login alone
	wantReason(t, "otp", err, login.WeakerThanAsked)
	d.provider.Person("alice", map[string]any{"acr": "otp"})
	b.signIn()
}

// The cookie of an attempt fits, whatever page and contexts it has at most.
func TestLargestDemandFitsInACookie(t *testing.T) {
	site := "models.example"
	for len(site) < 200 {
		site = strings.Repeat("a", 50) + "." + site
	}
	d := newDesk(t, func(d *desk) { d.config.CookieDomain, d.config.SignInHost = "models.example", "a."+site })
	far, err := d.login.Begin(t.Context(), login.Attempt{
		Host: "a." + site, Origin: "https://a." + site + ":50000", To: "https://b." + site + ":50000/" + strings.Repeat("p", 2000),
		StepUp: login.StepUp{ACR: []string{strings.Repeat("a", 512)}, MaxAge: time.Hour},
	})
	if err != nil {
		t.Fatal(err)
	}
	d.browser().take(far.Cookies) // checks the size
	d = newDesk(t)
	b := d.browser()
	acr := []string{strings.Repeat("a", 512)}
	r, err := d.login.Begin(t.Context(), login.Attempt{Host: host, Origin: origin, To: "/" + strings.Repeat("p", 2047), StepUp: login.StepUp{ACR: acr, MaxAge: time.Hour}})
	if err != nil {
		t.Fatal(err)
	}
	b.take(r.Cookies) // checks the size
	d.provider.Person("alice", map[string]any{"acr": acr[0]})
	if f, err := b.finish(b.visit(r.Location)); err != nil || len(f.Location) != 2048 {
		t.Errorf("%v, to %d bytes", err, len(f.Location))
	}
}

// TestAnswerAfterANewDemand begins sign-ins before reloads that demand more of the proof of the person.
func TestAnswerAfterANewDemand(t *testing.T) {
	d := newDesk(t)
	b, victim := d.browser(), d.browser()
	d.provider.Authenticate(func(_ url.Values, claims map[string]any) {
		claims["auth_time"] = d.clock.Now().Add(-5 * time.Hour).Unix()
	})
	stale := b.visit(b.begin("/"))
	d.provider.Authenticate(func(_ url.Values, claims map[string]any) { claims["auth_time"] = d.clock.Now().Unix() })
	fresh := victim.visit(victim.begin("/"))
	d.config.MaxAge = time.Hour
	d.reload()
	if _, err := b.finish(stale); reasonOf(err) != login.WeakerThanAsked {
		t.Errorf("got %v", err)
	}
	if _, err := victim.finish(fresh); err != nil {
		t.Errorf("the victim: %v", err)
	}
	weak := b.visit(b.begin("/"))
	d.config.ACR = []string{"mfa"}
	d.reload()
	if _, err := b.finish(weak); reasonOf(err) != login.WeakerThanAsked {
		t.Errorf("got %v", err)
	}
}
