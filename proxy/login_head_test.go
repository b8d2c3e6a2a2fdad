package proxy_test

import (
	"net/http"
	"strings"
	"testing"

	"sallyport/auth/login"
)

// Probes, link checkers and browsers ask for pages by HEAD. They get the head of the page, and use up
// nothing: no login, no answer of the issuer, and not the way to its sign-out.
func TestHeadOfTheOwnPages(t *testing.T) {
	l := openLobby(t, plan{
		issuers: "  more: {url: 'https://login.example.com', audience: models}",
		more:    strings.Replace(loginSections, "{corp:", "{more: {issuer: more, client_id: x, session: {kind: memory}}, corp:", 1),
		routes: strings.Replace(loginRoutes, "[models.test, other.test]", "models.test", 1) +
			"  - {host: other.test, upstream: %s, callers: [login/corp, login/more], rules: [{allow: \"*\", models: \"*\"}]}\n",
	})
	window := map[string]string{"Sec-Fetch-Mode": "navigate", "Sec-Fetch-Dest": "document", "Sec-Fetch-Site": "none"}
	stranger, person := l.browser(false), l.browser(true)
	person.signIn()
	for _, c := range []struct {
		browser           *browser
		at                string
		status            int
		contentType, goes string
	}{
		{stranger, login.SignInPath, 200, "", ""},
		{stranger, "https://other.test" + login.SignInPath, 200, "text/html; charset=utf-8", ""},
		{stranger, login.SignOutPath, 200, "text/html; charset=utf-8", ""},
		{stranger, login.SignedOutPath, 200, "text/html; charset=utf-8", ""},
		{person, login.SignedOutPath, 303, "", login.SignOutPath},
		{stranger, login.SessionPath, 401, "application/problem+json", ""},
		{person, login.SessionPath, 200, "application/json", ""},
	} {
		r := c.browser.request("HEAD", c.at, "", map[string]string{"Accept": "*/*"})
		if r.StatusCode != c.status || r.Header.Get("Content-Type") != c.contentType || r.Header.Get("Location") != c.goes || r.body != "" || len(r.Cookies()) > 0 {
			t.Errorf("HEAD %s: %d %v %q", c.at, r.StatusCode, r.Header, r.body)
		}
		if c.at == login.SignInPath {
			continue
		}
		get := c.browser.request("GET", c.at, "", map[string]string{"Accept": "*/*"})
		if get.StatusCode != c.status || get.Header.Get("Content-Length") != r.Header.Get("Content-Length") || get.Header.Get("Content-Security-Policy") != r.Header.Get("Content-Security-Policy") {
			t.Errorf("HEAD %s: %v, and GET: %d %v", c.at, r.Header, get.StatusCode, get.Header)
		}
	}
	for path, allow := range map[string]string{
		login.CallbackPath("corp"): "GET", login.LeavePath: "GET", login.BackChannelPath: "POST",
	} {
		if r := stranger.request("HEAD", path, "", nil); r.StatusCode != http.StatusMethodNotAllowed || r.Header.Get("Allow") != allow {
			t.Errorf("HEAD %s: %d, Allow: %q", path, r.StatusCode, r.Header.Get("Allow"))
		}
	}
	if r := stranger.request("PUT", login.SignOutPath, "", nil); r.Header.Get("Allow") != "GET, HEAD, POST" {
		t.Errorf("PUT: %d, Allow: %q", r.StatusCode, r.Header.Get("Allow"))
	}

	// A probe asks every few seconds, from the address of people perhaps.
	for range 200 {
		if r := stranger.request("HEAD", login.SignInPath+"?to=/a", "", window); r.StatusCode != 200 || len(r.Cookies()) > 0 {
			t.Fatalf("a probe: %d %v", r.StatusCode, r.Header)
		}
	}
	if r := stranger.request("GET", login.SignInPath, "", window); r.StatusCode != 303 {
		t.Errorf("the person after the probes: %d %s", r.StatusCode, r.body)
	}

	// The answer of the issuer waits for the browser, however often somebody looks at its address first.
	b := l.browser(false)
	answer := b.answer("/a")
	if r := b.request("HEAD", answer, "", window); r.StatusCode != http.StatusMethodNotAllowed || len(r.Cookies()) > 0 {
		t.Errorf("HEAD of the issuer's answer: %d %v", r.StatusCode, r.Header)
	}
	if r := b.request("GET", answer, "", window); r.StatusCode != 303 || r.Header.Get("Location") != "/a" {
		t.Errorf("GET after it: %d %v %s", r.StatusCode, r.Header, r.body)
	}
	l.untouched()
}
