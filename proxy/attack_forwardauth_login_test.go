package proxy_test

import (
	"net/url"
	"os"
	"strings"
	"testing"

	"sallyport/auth/login"
)

// TestAttackPagesOfOthersBehindAProxyThatAsks: a page of another site makes no request in a person's name that
// changes anything, and opens no WebSocket. A proxy may leave Upgrade out of its question.
func TestAttackPagesOfOthersBehindAProxyThatAsks(t *testing.T) {
	socket := []string{"Sec-WebSocket-Version: 13", wsKey}
	for _, dialect := range dialects() {
		l := besideProxy(t, dialect, plan{})
		victim := l.browser(false).signIn()
		for _, c := range []struct {
			name, method string
			fields       []string
			status       int
		}{
			{"a form of the page", "POST", []string{"Sec-Fetch-Site: same-origin"}, 200},
			{"a script of the page, by Origin", "DELETE", []string{"Origin: https://models.test"}, 200},
			{"a WebSocket of the page", "GET", append(socket, "Origin: https://models.test"), 200},
			{"a WebSocket of an app for iOS", "GET", append(socket, "Origin: wss://models.test"), 200},
			{"a WebSocket of an app of others", "GET", append(socket, "Origin: wss://evil.example"), 403},
			{"no WebSocket", "POST", []string{"Origin: wss://models.test"}, 403},
			{"a link on another site", "GET", []string{"Sec-Fetch-Site: cross-site", "Sec-Fetch-Mode: navigate"}, 200},
			{"a form of another site", "POST", []string{"Sec-Fetch-Site: cross-site"}, 403},
			{"a form of another host of the site", "POST", []string{"Sec-Fetch-Site: same-site"}, 403},
			{"a form of another site, by Origin", "POST", []string{"Origin: https://evil.example"}, 403},
			{"a form of a page without TLS", "POST", []string{"Origin: http://models.test", "X-Forwarded-Proto: http"}, 403},
			{"no word of where it comes from", "POST", nil, 403},
			{"a WebSocket of another site", "GET", append(socket, "Origin: https://evil.example"), 403},
			{"a WebSocket of another host of the site", "GET", append(socket, "Sec-Fetch-Site: same-site", "Origin: https://other.test"), 403},
			{"a WebSocket in Upgrade alone", "GET", []string{"Connection: Upgrade", "Upgrade: websocket", "Origin: https://evil.example"}, 403},
		} {
			if dialect != "nginx" && strings.Contains(strings.Join(c.fields, " "), "X-Forwarded-Proto") {
				continue // told twice
			}
			r := l.askAs(append(append(told(dialect, c.method, "models.test", "/"), "Accept: */*", "Cookie: app=1; "+victim), c.fields...)...)
			if r.StatusCode != c.status || c.status == 403 && r.Header.Get("X-Sallyport-Reason") != "cross_site" {
				t.Errorf("%s, %s: %d %s; want %d", dialect, c.name, r.StatusCode, r.body, c.status)
			}
			if cookie := r.Header.Get("Cookie"); r.StatusCode == 200 && cookie != "app=1" || r.StatusCode != 200 && cookie != "" {
				t.Errorf("%s, %s: %d with Cookie %q", dialect, c.name, r.StatusCode, cookie)
			}
		}
		l.untouched()
	}
}

// TestAttackCookiesBehindAProxyThatAsks: no form of the session's cookie is in a permission, and what is no session
// gets none.
func TestAttackCookiesBehindAProxyThatAsks(t *testing.T) {
	for _, dialect := range dialects() {
		l := besideProxy(t, dialect, plan{})
		victim, attacker := l.browser(false).signIn(), l.browser(false).signIn()
		_, value, _ := strings.Cut(victim, "=")
		for name, c := range map[string]struct {
			host, cookies string
			status        int
			want          string // Cookie
		}{
			"two cookies of the name":       {"models.test", victim + "; " + attacker, 401, ""},
			"the same twice":                {"models.test", victim + "; " + victim, 401, ""},
			"in two lines":                  {"models.test", victim + "\r\nCookie: " + attacker, 401, ""},
			"an empty line beside":          {"models.test", victim + "\r\nCookie: ", 400, ""},
			"of another host":               {"other.test", victim, 401, ""},
			"cut":                           {"models.test", victim[:len(victim)-4], 401, ""},
			"another name":                  {"models.test", "__Host-sallyport.1=" + value, 401, ""},
			"with parts that do not belong": {"models.test", victim + "; __Host-sallyport.3=x; a=b", 200, "a=b"},
			"between blanks and tabs":       {"models.test", "a=b;\t " + victim + " \t;c=d", 200, "a=b;c=d"},
			"bytes beyond ASCII":            {"models.test", "a=\xe9\xff; " + victim, 200, "a=\xe9\xff"},
			"no pairs":                      {"models.test", ";;; ;" + victim + ";=x;y", 200, ";;; ;=x;y"},
			"a large one of the app":        {"models.test", victim + "; big=" + strings.Repeat("x", 50<<10), 200, "big=" + strings.Repeat("x", 50<<10)},
			"in two lines with the app's":   {"models.test", "a=b\r\nCookie: " + victim + "\r\nCOOKIE: c=d", 200, "a=b; c=d"},
		} {
			r := l.askAs(append(told(dialect, "GET", c.host, "/"), "Accept: */*", "Cookie: "+c.cookies)...)
			status := c.status
			if dialect == "nginx" && status == 400 {
				status = 403
			}
			if r.StatusCode != status || r.Header.Get("Cookie") != c.want {
				t.Errorf("%s, %s: %d %s with Cookie %q; want %d with %q", dialect, name, r.StatusCode, r.body, r.Header.Get("Cookie"), status, c.want)
			}
			for _, values := range r.Header {
				if text := strings.Join(values, " "); strings.Contains(text, value[8:]) {
					t.Errorf("%s, %s: the answer has %q", dialect, name, text)
				}
			}
			if strings.Contains(r.body, value[8:]) {
				t.Errorf("%s, %s: the content has the session", dialect, name)
			}
		}
		l.untouched()
	}
}

// TestAttackToldBesideASession: fields of the client do not describe the request, with a session as without.
func TestAttackToldBesideASession(t *testing.T) {
	routes := loginRoutes + "  - {host: models.test, path: /open, upstream: '%s', callers: anonymous, rules: [{allow: '*', models: '*'}]}\n"
	for _, dialect := range dialects() {
		l := besideProxy(t, dialect, plan{routes: routes})
		l.provider.Person("mallory", nil)
		b := l.browser(false)
		b.signInWith("corp")
		cookie := "Cookie: " + b.cookiesAt("models.test")
		for name, fields := range map[string][]string{
			"told once more":    append(told(dialect, "GET", "models.test", "/"), told(dialect, "GET", "models.test", "/open")...),
			"the other family":  append(told(dialect, "GET", "models.test", "/"), told(map[bool]string{true: "traefik", false: "nginx"}[dialect == "nginx"], "GET", "models.test", "/open")...),
			"the caller's name": append(told(dialect, "GET", "models.test", "/"), "X-Sallyport-Principal: issuer/corp:alice"),
			"the request line":  told(dialect, "GET", "models.test", "/"),
		} {
			r := l.askAs(append(fields, "Accept: */*", cookie)...)
			if r.StatusCode == 200 || r.Header.Get("Cookie") != "" {
				t.Errorf("%s, %s: %d with Cookie %q", dialect, name, r.StatusCode, r.Header.Get("Cookie"))
			}
		}
		l.untouched()
	}
}

// Back-channel logout comes to the plain listener, and ends the session for the questions too.
func TestLogoutAtTheIssuerBehindAProxyThatAsks(t *testing.T) {
	l := besideProxy(t, "nginx", plan{})
	out := l.behind().signIn()
	ask := func(session string) *reply {
		return l.askAs(append(told("nginx", "GET", "models.test", "/"), "Accept: */*", "Cookie: "+session)...)
	}
	if r := ask(out); r.StatusCode != 200 {
		t.Fatalf("%d %s", r.StatusCode, r.body)
	}
	form := url.Values{"logout_token": {l.provider.LogoutToken("", "alice", nil)}}.Encode()
	if r := l.behind().request("POST", login.BackChannelPath, form, map[string]string{"Content-Type": "application/x-www-form-urlencoded"}); r.StatusCode != 200 {
		t.Fatalf("%d %s", r.StatusCode, r.body)
	}
	if r := ask(out); r.StatusCode != 401 || r.reason() != "session_ended" {
		t.Errorf("afterwards: %d %s", r.StatusCode, r.body)
	}
}

// A page that demands more leads to sign-in again, where the other proxy can say so.
func TestStepUpBehindAProxyThatAsks(t *testing.T) {
	for _, dialect := range dialects() {
		v := openVault(t, plan{
			listen: ", insecure_plain: {addr: '127.0.0.1:0', from: 127.0.0.1}, forward_auth: {addr: '127.0.0.1:0', from: 127.0.0.1, dialect: " + dialect + ", replaces_cookie: true}",
			more:   inMemory(loginSections) + "trusted_proxies: 127.0.0.1\n",
		})
		b := v.behind()
		weak := b.signIn()
		if r := v.askAs(navigation(dialect, "models.test", "/page", weak)...); r.StatusCode != 200 {
			t.Fatalf("%s: %d %s", dialect, r.StatusCode, r.body)
		}
		r := v.askAs(navigation(dialect, "models.test", "/admin?a=b", weak)...)
		if dialect == "nginx" {
			v.wants(r, "nginx", 0)
			if r = b.request("GET", "/admin?a=b", "", nil); r.StatusCode != 303 { // nginx sends it on, by error_page
				t.Fatalf("the ordinary listener: %d %s", r.StatusCode, r.body)
			}
		} else if at := r.Header.Get("Location"); r.StatusCode != 303 || at != "https://models.test/.sallyport/sign-in?login=corp&to=%2Fadmin%3Fa%3Db" {
			t.Fatalf("%s: %d to %s", dialect, r.StatusCode, at)
		}
		v.wants(v.askAs(append(told(dialect, "GET", "models.test", "/admin"), "Accept: */*", "Cookie: "+weak)...), dialect, 0)
		back := b.request("GET", b.request("GET", r.Header.Get("Location"), "", nil).Header.Get("Location"), "", nil).Header.Get("Location")
		if r := b.request("GET", back, "", nil); r.StatusCode != 303 || r.Header.Get("Location") != "/admin?a=b" {
			t.Fatalf("%s, stepping up: %d to %s", dialect, r.StatusCode, r.Header.Get("Location"))
		}
		if r := v.askAs(navigation(dialect, "models.test", "/admin?a=b", b.cookiesAt("models.test"))...); r.StatusCode != 200 || r.Header.Get("Cookie") != "sallyport-none=1" {
			t.Errorf("%s, afterwards: %d %s", dialect, r.StatusCode, r.body)
		}
		v.untouched()
	}
}

// Sessions of a domain count at each of its hosts, people sign in at one of them, and no host's server gets the
// cookie.
func TestOneSignInServesHostsBehindAProxyThatAsks(t *testing.T) {
	l := openSite(t, "memory,sign_in_host: a.lab.test", plan{
		listen: ", insecure_plain: {addr: '127.0.0.1:0', from: 127.0.0.1}, forward_auth: {addr: '127.0.0.1:0', from: 127.0.0.1, dialect: caddy, replaces_cookie: true}",
		more:   "trusted_proxies: 127.0.0.1\n",
	})
	l.provider.Register("https://a.lab.test" + login.CallbackPath("corp"))
	const at = "https://b.lab.test/.sallyport/sign-in?login=corp&to=%2Fx"
	if r := l.askAs(navigation("caddy", "b.lab.test", "/x", "")...); r.StatusCode != 303 || r.Header.Get("Location") != at {
		t.Fatalf("%d to %s", r.StatusCode, r.Header.Get("Location"))
	}
	b := l.behind()
	next := at
	for _, want := range []string{"https://a.lab.test/.sallyport/sign-in?", l.issuer.URL, "https://a.lab.test" + login.CallbackPath("corp"), "https://b.lab.test/x"} {
		if next = b.request("GET", next, "", nil).Header.Get("Location"); !strings.HasPrefix(next, want) {
			t.Fatalf("sent to %s, want %s", next, want)
		}
	}
	for _, host := range []string{"a.lab.test", "b.lab.test", "c.lab.test", "e.lab.test"} {
		cookie := b.cookiesAt(host)
		if !strings.HasPrefix(cookie, siteCookie+"=") {
			t.Fatalf("the browser sends %s to %s", cookie, host)
		}
		r := l.askAs(append(navigation("caddy", host, "/", "app=1; "+cookie), "Authorization: Bearer TOKEN")...)
		if host == "e.lab.test" { // another login's
			if r.StatusCode == 200 {
				t.Errorf("%s: %d", host, r.StatusCode)
			}
			continue
		}
		if r.StatusCode != 200 || r.Header.Get("Cookie") != "app=1" || r.Header.Get("X-Sallyport-Principal") != "issuer/corp:alice" {
			t.Errorf("%s: %d %s with Cookie %q", host, r.StatusCode, r.body, r.Header.Get("Cookie"))
		}
	}
	l.untouched()
}

// A session of before the option is sealed in its cookie, which a permission could not renew: its person signs in
// again.
func TestSealedSessionsBehindAProxyThatAsks(t *testing.T) {
	l := openLobby(t, plan{listen: ", insecure_plain: {addr: '127.0.0.1:0', from: 127.0.0.1}, forward_auth: {addr: '127.0.0.1:0', from: 127.0.0.1, dialect: traefik}", more: unwatched + loginSections + "trusted_proxies: 127.0.0.1\n"})
	sealed := l.browser(false).signIn()
	text, err := os.ReadFile(l.file)
	if err != nil {
		t.Fatal(err)
	}
	changed := inMemory(strings.Replace(string(text), "dialect: traefik", "dialect: traefik, replaces_cookie: true", 1))
	if err := os.WriteFile(l.file, []byte(changed), 0o600); err != nil {
		t.Fatal(err)
	}
	l.reload("changed")
	if r := l.askAs(append(told("traefik", "GET", "models.test", "/"), "Accept: */*", "Cookie: "+sealed)...); r.StatusCode != 401 || r.reason() != "bad_session" {
		t.Errorf("a script: %d %s", r.StatusCode, r.body)
	}
	if r := l.askAs(navigation("traefik", "models.test", "/", sealed)...); r.StatusCode != 303 {
		t.Errorf("a page: %d %s", r.StatusCode, r.body)
	}
	l.untouched()
}

// Servers learn who the person is by the fields of identity, which a permission always has. Several logins lead to
// the page where people choose.
func TestIdentityAndChoiceBehindAProxyThatAsks(t *testing.T) {
	l := besideProxy(t, "traefik", plan{
		routes: "\n  - {host: models.test, upstream: '%s', callers: [login/corp, login/more], rules: [{allow: '*', models: '*'}], identity: {name: Remote-User, email: Remote-Email, groups: Remote-Groups, principal: off, scopes: off}}\n",
		more:   inMemory(strings.Replace(loginSections, "{corp:", "{more: {issuer: corp, client_id: gateway, client_secret: {file: secret}, session: {kind: memory}}, corp:", 1)),
	})
	const at = "https://models.test/.sallyport/sign-in?login=corp&login=more&to=%2F"
	if r := l.askAs(navigation("traefik", "models.test", "/", "")...); r.StatusCode != 303 || r.Header.Get("Location") != at {
		t.Fatalf("%d to %s", r.StatusCode, r.Header.Get("Location"))
	}
	b := l.behind()
	if r := b.request("GET", at, "", nil); r.StatusCode != 200 || strings.Count(r.body, `href="/.sallyport/sign-in?login=`) != 2 {
		t.Errorf("the choice: %d %s", r.StatusCode, r.body)
	}
	l.provider.Person("alice", map[string]any{"email": "alice@example.com", "email_verified": true})
	session := b.signInWith("more")
	r := l.askAs(navigation("traefik", "models.test", "/", session)...)
	for name, want := range map[string]string{"Remote-User": "alice", "Remote-Email": "alice@example.com", "Remote-Groups": "", "Cookie": "sallyport-none=1"} {
		if got := r.Header.Values(name); len(got) != 1 || got[0] != want {
			t.Errorf("%d with %s: %q; want %q", r.StatusCode, name, got, want)
		}
	}
	if leaks := hasOurCookie(r, session); leaks != nil {
		t.Errorf("the answer has %q", leaks)
	}
}
