package proxy_test

import (
	"html"
	"maps"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"testing"

	"sallyport/auth/login"
)

// TestPeopleSignInBehindServiceWorker signs in where a service worker of the server asks for every page in the
// browser's stead, by fetch(event.request). The heads are those that Chromium 156 sent.
func TestPeopleSignInBehindServiceWorker(t *testing.T) {
	l := openLobby(t, plan{})
	b := l.browser(true)
	worker := map[string]string{"Accept": "text/html,*/*;q=0.8", "Sec-Fetch-Mode": "navigate", "Sec-Fetch-Dest": "empty", "Sec-Fetch-Site": "same-origin"}
	fromIssuer := maps.Clone(worker)
	fromIssuer["Sec-Fetch-Site"] = "cross-site"
	at := func(header map[string]string, target string) string {
		t.Helper()
		r := b.request("GET", target, "", header)
		if r.StatusCode != http.StatusSeeOther {
			t.Fatalf("%s: got %d %s", target, r.StatusCode, r.body)
		}
		return r.Header.Get("Location")
	}
	issuer := at(worker, at(worker, "/a?b=c"))
	page := at(fromIssuer, b.request("GET", issuer, "", nil).Header.Get("Location"))
	if page != "/a?b=c" {
		t.Errorf("the person is sent to %s", page)
	}
	if r := b.request("GET", page, "", fromIssuer); r.StatusCode != 200 {
		t.Errorf("the page: %d %s", r.StatusCode, r.body)
	}
	out := maps.Clone(worker)
	out["Origin"] = "https://models.test"
	if r := b.request("POST", "/.sallyport/sign-out", "", out); r.StatusCode != http.StatusSeeOther && r.StatusCode != 200 {
		t.Errorf("sign-out: %d %s", r.StatusCode, r.body)
	}
}

// window is the head of a person who opens a page in a window.
func window() map[string]string {
	return map[string]string{"Accept": "text/html,*/*;q=0.8", "Sec-Fetch-Mode": "navigate", "Sec-Fetch-Dest": "document", "Sec-Fetch-Site": "cross-site"}
}

// forgetAttempts removes the cookies of logins under way, as browsers do after ten minutes.
func (b *browser) forgetAttempts() {
	at := &url.URL{Scheme: "https", Host: "models.test", Path: "/"}
	for _, c := range b.jar.Cookies(at) {
		if strings.HasPrefix(c.Name, "__Host-sallyport-login.") {
			b.jar.SetCookies(at, []*http.Cookie{{Name: c.Name, Path: "/", Secure: true, MaxAge: -1}})
		}
	}
}

// cookieField returns the Cookie field that the browser sends.
func (b *browser) cookieField() string {
	var all []string
	for _, c := range b.jar.Cookies(&url.URL{Scheme: "https", Host: "models.test", Path: "/"}) {
		all = append(all, c.Name+"="+c.Value)
	}
	return strings.Join(all, "; ")
}

// TestLateAnswersLeadOn brings answers of the issuer whose attempt the browser has forgotten or finished: from
// a page for signing in that was left open, by the browser's button to go back, from a bookmark. Somebody who is
// signed in gets the page that they wanted, and anybody else a page with the way to it.
func TestLateAnswersLeadOn(t *testing.T) {
	l := openLobby(t, plan{})
	b := l.browser(true)
	late, other := b.answer("/a?b=c"), b.answer("/d")
	b.forgetAttempts()
	hits := l.model.hits.Load()
	r := b.request("GET", late, "", window())
	l.refusedPage(r, 400, "login_state", hits)
	if !strings.Contains(html.UnescapeString(r.body), `href="`+login.SignInPath+`?to=%2Fa%3Fb%3Dc"`) || !strings.Contains(r.body, "longer than ten minutes") {
		t.Errorf("the page does not lead to what the person wanted: %s", r.body)
	}
	b.signIn()
	for answer, to := range map[string]string{late: "/a?b=c", other: "/d"} {
		for range 2 {
			if r := b.request("GET", answer, "", window()); r.StatusCode != http.StatusSeeOther || r.Header.Get("Location") != to {
				t.Errorf("with a session: %d to %q %s", r.StatusCode, r.Header.Get("Location"), r.body)
			}
		}
	}
	again := b.answer("/e")
	for range 2 { // the button to go back
		if r := b.request("GET", again, "", window()); r.StatusCode != http.StatusSeeOther || r.Header.Get("Location") != "/e" {
			t.Errorf("an answer again: %d to %q %s", r.StatusCode, r.Header.Get("Location"), r.body)
		}
	}
	if r := b.request("GET", "/", "", nil); r.StatusCode != 200 {
		t.Errorf("the session: %d %s", r.StatusCode, r.body)
	}
	l.until("a record has the late answer", func() bool {
		return slices.ContainsFunc(l.audit.records(t), func(r map[string]any) bool {
			return r["reason"] == "login_state" && r["status"] == 303.0 && r["login_event"] == "refused"
		})
	})
	program := l.browser(true)
	program.signIn()
	if r := program.request("GET", late, "", map[string]string{"Accept": "*/*"}); r.StatusCode != 400 || r.reason() != "login_state" {
		t.Errorf("a script: %d %s", r.StatusCode, r.body)
	}
}

// TestAttackLateAnswers brings a victim who is signed in answers that somebody else made or changed. The session
// stays the victim's, and no page is one of another host or of the attacker's making.
func TestAttackLateAnswers(t *testing.T) {
	l := openLobby(t, plan{})
	victim, attacker := l.browser(true), l.browser(true)
	victim.signIn()
	session := victim.cookieField()
	theirs := attacker.answer("/a")
	state := func(f func(random, page string) string) string {
		u, _ := url.Parse(theirs)
		random, page, _ := strings.Cut(strings.TrimPrefix(u.Query().Get("state"), "corp."), ".")
		return withParameter(t, theirs, "state", "corp."+f(random, page))
	}
	for name, c := range map[string]struct{ answer, to string }{
		"the attacker's":       {theirs, "/a"}, // a link to it would do the same
		"without a page":       {state(func(random, _ string) string { return random }), "/"},
		"a page in the clear":  {state(func(random, _ string) string { return random + ".Ly9ldmlsLmV4YW1wbGU" }), "/"},
		"a page cut":           {state(func(random, page string) string { return random + "." + page[:len(page)-4] }), "/"},
		"a page changed":       {state(func(random, page string) string { return random + "." + page[:len(page)-4] + "AAAA" }), "/"},
		"two pages":            {state(func(random, page string) string { return random + "." + page + "." + page }), "/"},
		"a page in two lines":  {state(func(random, page string) string { return random + "." + page[:9] + "\r\n" + page[9:] }), "/"},
		"the state for a page": {state(func(random, _ string) string { return random + "." + random }), "/"},
	} {
		r := victim.request("GET", c.answer, "", window())
		if r.StatusCode != http.StatusSeeOther || r.Header.Get("Location") != c.to {
			t.Errorf("%s: got %d to %q %s", name, r.StatusCode, r.Header.Get("Location"), r.body)
		}
		if got := victim.cookieField(); got != session {
			t.Errorf("%s: the victim has other cookies", name)
		}
	}
	for name, answer := range map[string]string{
		"a state of another form": state(func(random, page string) string { return random[:20] + "." + page }),
		"of another host":         strings.Replace(theirs, "https://models.test", "https://other.test", 1),
		"another code":            withParameter(t, victim.answer("/"), "code", "guess"),
	} {
		if r := victim.request("GET", answer, "", window()); r.StatusCode != 400 || !strings.Contains(r.body, "<dd>login_state</dd>") {
			t.Errorf("%s: got %d to %q %s", name, r.StatusCode, r.Header.Get("Location"), r.body)
		}
	}
	if n := l.provider.Exchanges(); n != 2 { // the victim's own and the guess
		t.Errorf("%d codes were redeemed", n)
	}
}

// TestPasswordsAreAskedForInBrowsers checks that each challenge has a line of its own: Chromium 156 read the first of
// a line alone, and never asked for the password behind a Bearer. Where people sign in, a page whose session has
// ended must not make the browser ask for one.
func TestPasswordsAreAskedForInBrowsers(t *testing.T) {
	l := openLobby(t, plan{routes: `
  - {host: models.test, path: /tokens, upstream: '%s', callers: [issuer/corp, basic/legacy], rules: [{allow: "*"}]}
  - {host: models.test, path: /people, upstream: '%s', callers: [login/corp, issuer/corp, basic/legacy], rules: [{allow: "*"}]}
`, files: map[string]string{"htpasswd": "bob:" + bcryptOf(t, "sesame") + "\n"}, more: loginSections + "basic: {legacy: {htpasswd: {file: htpasswd}, until: 2099-01-01}}\n"})
	b := l.browser(true)
	frame := window()
	frame["Sec-Fetch-Dest"] = "iframe"
	script := map[string]string{"Accept": "*/*", "Sec-Fetch-Mode": "cors", "Sec-Fetch-Site": "same-origin"}
	form := window()
	delete(form, "Sec-Fetch-Mode") // of a browser that does not send it
	for name, c := range map[string]struct {
		method, path string
		header       map[string]string
		schemes      string
	}{
		"a program":                       {"GET", "/tokens", map[string]string{"Accept": "*/*"}, "Bearer Basic"},
		"a window":                        {"GET", "/tokens", window(), "Bearer Basic"},
		"a script":                        {"GET", "/tokens", script, "Bearer Basic"},
		"a program where people sign in":  {"GET", "/people", map[string]string{"Accept": "*/*"}, "Bearer Cookie Basic"},
		"a script where people sign in":   {"GET", "/people", script, "Bearer Cookie"},
		"a frame where people sign in":    {"GET", "/people", frame, "Bearer Cookie"},
		"a form where people sign in":     {"POST", "/people", window(), "Bearer Cookie"},
		"an old form where people signed": {"POST", "/people", form, "Bearer Cookie"},
	} {
		r := b.request(c.method, c.path, "", c.header)
		var schemes []string
		for _, line := range r.Header.Values("WWW-Authenticate") {
			scheme, _, _ := strings.Cut(line, " ")
			schemes = append(schemes, scheme)
		}
		if got := strings.Join(schemes, " "); r.StatusCode != 401 || got != c.schemes {
			t.Errorf("%s: got %d with %q", name, r.StatusCode, r.Header.Values("WWW-Authenticate"))
		}
	}
}

// TestProgramsUseASession sends what programs do with the cookies of a person's browser: Playwright's requests, and
// scripts with a copy of them.
func TestProgramsUseASession(t *testing.T) {
	l := openLobby(t, plan{})
	b := l.browser(true)
	b.signIn()
	hits := l.model.hits.Load()
	r := b.request("POST", "/", "x", map[string]string{"Accept": "*/*"})
	if l.refused(r, 403, "cross_site"); !strings.Contains(r.body, "A program that uses a session must send the origin of the URL as Origin.") || l.model.hits.Load() != hits {
		t.Errorf("the refusal names no cure: %s", r.body)
	}
	if r := b.request("POST", "/", "x", map[string]string{"Accept": "*/*", "Origin": "https://models.test"}); r.StatusCode != 200 {
		t.Errorf("with the Origin: %d %s", r.StatusCode, r.body)
	}
	if r := b.request("GET", "/", "", map[string]string{"Accept": "*/*"}); r.StatusCode != 200 {
		t.Errorf("GET: %d %s", r.StatusCode, r.body)
	}
}

// TestOldBrowsersSignOut signs out as browsers without Sec-Fetch-Site do, such as Safari before 16.4: the form has
// the Origin that the page's referrer policy leaves (Fetch, 3.2). A program without an Origin does not.
func TestOldBrowsersSignOut(t *testing.T) {
	l := openLobby(t, plan{})
	b := l.browser(true)
	b.signIn()
	old := map[string]string{"Accept": "text/html,*/*;q=0.8"}
	page := b.request("GET", login.SignOutPath, "", old)
	if page.StatusCode != 200 || !strings.Contains(page.body, "<form") {
		t.Fatalf("the page: %d %s", page.StatusCode, page.body)
	}
	form := maps.Clone(old)
	if form["Origin"] = "https://models.test"; page.Header.Get("Referrer-Policy") == "no-referrer" {
		form["Origin"] = "null"
	}
	if r := b.request("POST", login.SignOutPath, "", form); r.StatusCode != http.StatusSeeOther && r.StatusCode != 200 {
		t.Errorf("sign-out: %d %s", r.StatusCode, r.body)
	}
	if r := b.request("GET", login.CallbackPath("corp")+"?code=secret", "", old); r.Header.Get("Referrer-Policy") != "no-referrer" {
		t.Errorf("a page with a code in its address has the policy %s", r.Header.Get("Referrer-Policy"))
	}
}
