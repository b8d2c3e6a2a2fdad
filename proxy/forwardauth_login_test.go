package proxy_test

import (
	"net/http"
	"strings"
	"testing"
	"time"

	"sallyport/auth/login"
	"sallyport/proxy"
)

// inMemory returns sections of logins with sessions that are kept in memory.
func inMemory(sections string) string {
	return strings.ReplaceAll(sections, "{keys: {file: keys}}", "{kind: memory}")
}

// besideProxy is a lobby with a proxy that asks, and puts the Cookie of the answer in the place of its client's.
func besideProxy(t *testing.T, dialect string, p plan) *lobby {
	t.Helper()
	p.listen = ", insecure_plain: {addr: '127.0.0.1:0', from: 127.0.0.1}, forward_auth: {addr: '127.0.0.1:0', from: 127.0.0.1, dialect: " + dialect + ", replaces_cookie: true}"
	if !strings.Contains(p.more, "logins:") {
		p.more += inMemory(loginSections)
	}
	p.more += "trusted_proxies: 127.0.0.1\n"
	return openLobby(t, p)
}

// navigation are the fields of a browser that opens a page.
func navigation(dialect, host, uri, cookie string) []string {
	return append(told(dialect, "GET", host, uri), "Sec-Fetch-Mode: navigate", "Sec-Fetch-Site: none", "Sec-Fetch-Dest: document", "Accept: text/html,*/*;q=0.8", "Cookie: "+cookie)
}

// hasOurCookie reports the fields of an answer that hold the session's cookie, or any cookie for the browser.
func hasOurCookie(r *reply, session string) (all []string) {
	_, value, _ := strings.Cut(session, "=")
	for name, values := range r.Header {
		if text := strings.Join(values, "\n"); name == "Set-Cookie" || strings.Contains(text, value) || name == "Cookie" && strings.Contains(text, "sallyport=") {
			all = append(all, name+": "+text)
		}
	}
	return all
}

// TestForwardAuthTakesSessions: a session counts where the other proxy replaces the Cookie of its client, and
// never goes on.
func TestForwardAuthTakesSessions(t *testing.T) {
	for _, dialect := range dialects() {
		t.Run(dialect, func(t *testing.T) {
			l := besideProxy(t, dialect, plan{})
			session, last := l.browser(false).signIn(), ""
			for cookie, want := range map[string]string{
				"app=1; " + session + "; more=\"a b\"": `app=1; more="a b"`,
				session:                                "sallyport-none=1",
				session + "; __Host-sallyport-login.1234=y; __Secure-sallyport.example=z": "sallyport-none=1",
			} {
				r := l.askAs(navigation(dialect, "models.test", "/page", cookie)...)
				if got := r.Header.Values("Cookie"); r.StatusCode != 200 || len(got) != 1 || got[0] != want {
					t.Errorf("%s: %d with Cookie %q; want %q", cookie, r.StatusCode, got, want)
				}
				if r.Header.Get("X-Sallyport-Principal") != "issuer/corp:alice" {
					t.Errorf("principal %q", r.Header.Get("X-Sallyport-Principal"))
				}
				if leaks := hasOurCookie(r, session); leaks != nil {
					t.Errorf("%s: the answer has %q", cookie, leaks)
				}
				last = r.Header.Get("X-Request-Id")
			}
			l.untouched()
			if rec := l.record(last); rec["login"] != "corp" || rec["credential"] != "login" || rec["upstream"] != "forward_auth" {
				t.Errorf("record %v", rec)
			}
		})
	}
}

// Every permission replaces the Cookie, whoever the caller is: the session's cookie is there all the same.
func TestForwardAuthReplacesCookiesOfAllCallers(t *testing.T) {
	l := besideProxy(t, "caddy", plan{routes: loginRoutes + `
  - {host: models.test, path: /open, upstream: '%s', callers: anonymous, rules: [{allow: "*", models: "*"}]}
  - {host: models.test, path: /tokens, upstream: '%s', callers: [issuer/corp, login/corp], rules: [{allow: "*", models: "*"}]}
`})
	session := l.browser(false).signIn()
	for _, path := range []string{"/open", "/tokens"} {
		for cookie, want := range map[string]string{"": "sallyport-none=1", "a=b": "a=b", session: "sallyport-none=1", "a=b; " + session: "a=b"} {
			fields := append(told("caddy", "GET", "models.test", path), "Authorization: Bearer TOKEN")
			if cookie != "" {
				fields = append(fields, "Cookie: "+cookie)
			}
			r := l.askAs(fields...)
			if got := r.Header.Values("Cookie"); r.StatusCode != 200 || len(got) != 1 || got[0] != want {
				t.Errorf("%s with %q: %d with Cookie %q; want %q", path, cookie, r.StatusCode, got, want)
			}
			if leaks := hasOurCookie(r, session); leaks != nil {
				t.Errorf("%s: the answer has %q", path, leaks)
			}
		}
	}
}

// Without the option no request with the cookie of a session gets a permission, whoever proves to be the
// caller: the other proxy would forward it.
func TestForwardAuthForwardsNoSessionOfOthers(t *testing.T) {
	for _, dialect := range dialects() {
		l := openLobby(t, plan{
			listen: ", forward_auth: {addr: '127.0.0.1:0', from: 127.0.0.1, dialect: " + dialect + "}", more: "trusted_proxies: 127.0.0.1\n",
			routes: loginRoutes + `
  - {host: models.test, path: /open, upstream: '%s', callers: anonymous, rules: [{allow: "*", models: "*"}]}
  - {host: models.test, path: /tokens, upstream: '%s', callers: [issuer/corp, login/corp], rules: [{allow: "*", models: "*"}]}
  - {host: plain.test, upstream: '%s', callers: anonymous, rules: [{allow: "*", models: "*"}]}
`})
		session := l.browser(false).signIn()
		for path, cookie := range map[string]string{"/": session, "/open": session, "/tokens": session, "/open/": "__Secure-sallyport.test=1.x"} {
			r := l.askAs(append(told(dialect, "GET", "models.test", path), "Authorization: Bearer TOKEN", "Cookie: "+cookie)...)
			if r.StatusCode != 403 || r.reason() != "not_for_another_proxy" {
				t.Errorf("%s %s: %d %s", dialect, path, r.StatusCode, r.body)
			}
			if cause, _ := l.record(r.Header.Get("X-Request-Id"))["cause"].(string); !strings.Contains(cause, "listen.forward_auth.replaces_cookie") {
				t.Errorf("%s %s: the cause is %q", dialect, path, cause)
			}
			r = l.askAs(append(told(dialect, "GET", "models.test", path), "Authorization: Bearer TOKEN", "Cookie: app=1")...)
			if r.StatusCode != 200 || r.Header.Values("Cookie") != nil {
				t.Errorf("%s %s without a session: %d, Cookie %q", dialect, path, r.StatusCode, r.Header.Values("Cookie"))
			}
		}
		r := l.askAs(append(told(dialect, "GET", "plain.test", "/"), "Cookie: __Secure-sallyport.test=1.x")...)
		l.refused(r, 403, "not_for_another_proxy") // a host where nobody signs in gets the sessions of its domain
		if r := asked(t, dialect, authRoutes).askAs(append(told(dialect, "GET", "models.test", "/open"), "Cookie: "+session)...); r.StatusCode != 200 {
			t.Errorf("%s, where there are no logins: %d %s", dialect, r.StatusCode, r.body)
		}
	}
}

// A person without a session is sent to sign in, at the host of the page: Traefik makes a URL of the gateway's
// own address out of a path. nginx understands 401 alone, and programs get it everywhere.
func TestForwardAuthSendsPeopleToSignIn(t *testing.T) {
	const to = "https://models.test:8443/.sallyport/sign-in?login=corp&to=%2Fpage%3Fa%3Db"
	for _, dialect := range dialects() {
		l := besideProxy(t, dialect, plan{})
		r := l.askAs(navigation(dialect, "models.test:8443", "/page?a=b", "app=1")...)
		switch dialect {
		case "nginx":
			if r.StatusCode != 401 || r.reason() != "no_credential" || r.Header.Get("Location") != "" {
				t.Errorf("nginx: %d %v", r.StatusCode, r.Header)
			}
		default:
			if r.StatusCode != 303 || r.Header.Get("Location") != to || r.Header.Get("Cache-Control") != "no-store" {
				t.Errorf("%s: %d %v", dialect, r.StatusCode, r.Header)
			}
		}
		for name, fields := range map[string][]string{
			"a script":    append(told(dialect, "GET", "models.test", "/page"), "Sec-Fetch-Mode: cors", "Accept: */*"),
			"a program":   append(told(dialect, "GET", "models.test", "/page"), "Accept: */*"),
			"a form":      append(told(dialect, "POST", "models.test", "/page"), "Sec-Fetch-Mode: navigate", "Accept: text/html"),
			"a WebSocket": append(told(dialect, "GET", "models.test", "/page"), "Accept: text/html", "Sec-WebSocket-Version: 13", wsKey),
		} {
			if r := l.askAs(fields...); r.StatusCode != 401 || r.Header.Get("Location") != "" || r.Header.Get("X-Sallyport-Reason") != "no_credential" {
				t.Errorf("%s, %s: %d %v", dialect, name, r.StatusCode, r.Header)
			}
		}
		// The pages of sign-in are not of this listener: a permission would make the proxy forward them.
		for _, path := range []string{login.SignInPath, login.SessionPath, login.SignOutPath, login.CallbackPath("corp")} {
			if r := l.askAs(navigation(dialect, "models.test", path, "app=1")...); r.StatusCode != 403 || r.Header.Get("X-Sallyport-Reason") != "not_for_another_proxy" {
				t.Errorf("%s, %s: %d %s", dialect, path, r.StatusCode, r.body)
			}
		}
		l.untouched()
	}
}

// The proxy forwards /.sallyport/ to the plain listener, where people sign in and out. The session that they get
// there is the one that counts for the questions.
func TestForwardAuthAndThePagesOfSignIn(t *testing.T) {
	for _, dialect := range dialects() {
		clock := &shiftedClock{}
		l := besideProxy(t, dialect, plan{options: proxy.Options{Now: clock.now}})
		l.provider.Change(nil, func(answer map[string]any) { delete(answer, "refresh_token") }) // the issuer's clock stands
		leaves := l.behind()
		used, left, out := l.behind().signIn(), l.behind().signIn(), leaves.signIn()
		ask := func(session string) *reply {
			return l.askAs(append(told(dialect, "GET", "models.test", "/"), "Accept: */*", "Cookie: "+session)...)
		}
		ended := func(what, session, reason string) {
			t.Helper()
			if r := ask(session); r.StatusCode != 401 || r.Header.Get("X-Sallyport-Reason") != reason || r.Header.Values("Cookie") != nil {
				t.Errorf("%s, %s: %d %s", dialect, what, r.StatusCode, r.body)
			}
		}
		for _, session := range []string{used, left, out} {
			if r := ask(session); r.StatusCode != 200 {
				t.Fatalf("%s: %d %s", dialect, r.StatusCode, r.body)
			}
		}
		if r := leaves.request("POST", login.SignOutPath, "", map[string]string{"Sec-Fetch-Site": "same-origin"}); r.StatusCode != 200 {
			t.Errorf("%s, signing out: %d %s", dialect, r.StatusCode, r.body)
		}
		ended("after sign-out", out, "session_ended")
		for range 9 { // questions count as use, so that the idle end moves on
			clock.ahead.Add(int64(50 * time.Minute))
			if r := ask(used); r.StatusCode != 200 || r.Header.Values("Set-Cookie") != nil {
				t.Fatalf("%s, in use: %d %s %q", dialect, r.StatusCode, r.body, r.Header.Values("Set-Cookie"))
			}
		}
		ended("after the idle lifetime", left, "session_expired")
		clock.ahead.Add(int64(31 * time.Minute))
		ended("after the absolute lifetime", used, "session_expired")
		l.untouched()
	}
}

// behind is a browser whose requests come by a proxy, to the plain listener.
func (l *lobby) behind() *browser {
	b := l.browser(false)
	b.client.Transport = plainly{l.addrs.Plain.String()}
	return b
}

// plainly forwards to the plain listener, as another proxy does.
type plainly struct{ addr string }

func (p plainly) RoundTrip(r *http.Request) (*http.Response, error) {
	out := r.Clone(r.Context())
	out.URL.Scheme, out.URL.Host, out.Host = "http", p.addr, r.URL.Host
	out.Header.Set("X-Forwarded-Proto", "https")
	out.Header.Set("X-Forwarded-For", "192.0.2.7")
	return http.DefaultTransport.RoundTrip(out)
}
