package proxy_test

import (
	"io"
	"net/http"
	"net/url"
	"os"
	"strings"
	"testing"
	"time"

	"sallyport/auth/login"
	"sallyport/proxy"
)

// A session that is used lasts beyond its idle time: an answer has it anew, which no cache may keep.
func TestSessionsInUseGoOn(t *testing.T) {
	clock := &shiftedClock{}
	l := openLobby(t, plan{options: proxy.Options{Now: clock.now}, handler: func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Cache-Control", "public, max-age=600")
		_, _ = io.WriteString(w, "page")
	}})
	l.provider.Change(nil, func(answer map[string]any) { delete(answer, "refresh_token") }) // the issuer's clock stands
	b := l.browser(true)
	first := b.signIn()
	renewed := 0
	for range 4 {
		clock.ahead.Add(int64(40 * time.Minute))
		r := b.request("GET", "/", "", map[string]string{"Accept": "*/*"})
		if r.StatusCode != 200 {
			t.Fatalf("after %s: %d %s", time.Duration(clock.ahead.Load()), r.StatusCode, r.body)
		}
		if len(r.Header.Values("Set-Cookie")) > 0 {
			if renewed++; r.Header.Get("Cache-Control") != "no-store" {
				t.Errorf("a cache may keep the session: %v", r.Header)
			}
		} else if r.Header.Get("Cache-Control") != "public, max-age=600" {
			t.Errorf("the application's fields changed: %v", r.Header)
		}
	}
	if renewed == 0 {
		t.Error("no answer had the session anew")
	}
	if r := l.do("GET", "/", "", map[string]string{"Authorization": "", "Cookie": first}); r.StatusCode != 200 && r.reason() != "session_expired" {
		t.Errorf("the first cookie: %d %s", r.StatusCode, r.body)
	}
	clock.ahead.Add(int64(8 * time.Hour))
	if r := b.request("GET", "/", "", map[string]string{"Accept": "*/*"}); r.StatusCode != 401 || r.reason() != "session_expired" {
		t.Errorf("after the absolute lifetime: %d %s", r.StatusCode, r.body)
	}
}

// A page of the host opens a WebSocket with its session, which the upstream does not see.
func TestOwnPagesOpenWebSockets(t *testing.T) {
	l := openLobby(t, plan{handler: func(w http.ResponseWriter, r *http.Request) {
		if r.Header.Get("Upgrade") == "" {
			return
		}
		c, rw, err := w.(http.Hijacker).Hijack()
		if err != nil {
			panic(err)
		}
		defer c.Close()
		_, _ = io.WriteString(c, "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"+wsAccept+"\r\n\r\n"+r.Header.Get("Cookie")+"\n")
		_, _ = rw.ReadString('\n')
	}})
	session := l.browser(false).signIn()
	got := l.raw("GET / HTTP/1.1\r\nHost: models.test\r\nCookie: app=1; " + session + "\r\nOrigin: https://models.test\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n" + wsKey + "\r\n\r\nx\n")
	if !strings.HasPrefix(got, "HTTP/1.1 101 ") || !strings.HasSuffix(got, "\r\n\r\napp=1\n") {
		t.Errorf("got %q", got)
	}
}

// Another proxy would forward the session's cookie to the application, so it gets no permission.
func TestSessionsAreNotForOtherProxies(t *testing.T) {
	l := openLobby(t, plan{
		listen: ", forward_auth: {addr: '127.0.0.1:0', from: 127.0.0.1, dialect: traefik}",
		more:   "trusted_proxies: 127.0.0.1\n",
	})
	session := l.browser(false).signInWith("corp")
	for name, fields := range map[string][]string{
		"a page":           append(told("traefik", "GET", "models.test", "/"), "Cookie: "+session),
		"the sign-in page": told("traefik", "GET", "models.test", login.SignInPath),
	} {
		if r := l.askAs(fields...); r.StatusCode != 403 || r.reason() != "not_for_another_proxy" {
			t.Errorf("%s: %d %s", name, r.StatusCode, r.body)
		}
	}
	if r := l.askAs(append(told("traefik", "GET", "models.test", "/"), "Accept: text/html")...); r.StatusCode != 401 {
		t.Errorf("without a session: %d %s", r.StatusCode, r.body)
	}
}

func TestMetricsCountLogins(t *testing.T) {
	l := openLobby(t, plan{})
	b := l.browser(false)
	b.signIn()
	b.request("GET", login.CallbackPath("corp")+"?state=corp.x&code=y", "", nil)
	b.request("POST", login.SignOutPath, "", map[string]string{"Sec-Fetch-Site": "same-origin"})
	text := l.metrics()
	for _, want := range []string{
		`sallyport_logins_total{event="begun",login="corp",reason=""} 1`, `sallyport_logins_total{event="signed_in",login="corp",reason=""} 1`,
		`sallyport_logins_total{event="refused",login="corp",reason="login_state"} 1`, `sallyport_logins_total{event="signed_out",login="corp",reason=""} 1`,
		`sallyport_login_sessions{login="corp"} `,
	} {
		if !strings.Contains(text, want) {
			t.Errorf("the metrics lack %s", want)
		}
	}
}

// The pages of sign-in are for the addresses that a route of the host admits.
func TestSignInIsForAdmittedAddresses(t *testing.T) {
	l := openLobby(t, plan{routes: strings.TrimRight(loginRoutes, "\n") + "\n    deny_from: 127.0.0.0/8\n"})
	for _, path := range []string{"/", login.SignInPath, login.SessionPath, login.SignOutPath} {
		r := l.browser(false).request("GET", path, "", map[string]string{"Accept": "*/*"})
		l.refused(r, 403, "address_not_allowed")
	}
	if l.issuer.Fetches() > 1 {
		t.Errorf("the issuer saw %d requests", l.issuer.Fetches())
	}
}

// A route on the host without a login neither sends people to sign in, nor takes their session.
func TestOtherRoutesOfTheHostTakeNoSession(t *testing.T) {
	l := openLobby(t, plan{routes: loginRoutes + `
  - host: models.test
    path: /api
    upstream: %s
    callers: issuer/corp
    rules: [{allow: "*", models: "*"}]
`})
	b := l.browser(false)
	b.signIn()
	hits := l.model.hits.Load()
	r := b.request("GET", "/api", "", nil)
	l.refusedPage(r, 401, "no_credential", hits)
	if strings.Contains(r.body, login.SignInPath) {
		t.Error("the page leads to sign-in, which does not help")
	}
	// Nor does the upstream of that route see the session.
	if r := b.request("GET", "/api", "", map[string]string{"Authorization": "Bearer " + l.token()}); r.StatusCode != 200 {
		t.Fatalf("with a token: %d %s", r.StatusCode, r.body)
	}
	if seen, _ := l.model.seen(); seen.Header.Get("Cookie") != "" {
		t.Errorf("the upstream got the cookies %q", seen.Header.Get("Cookie"))
	}
}

// A person without the right learns who is signed in, and can use another account.
func TestPeopleWithoutTheRightSeeWhoTheyAre(t *testing.T) {
	l := openLobby(t, plan{})
	l.provider.Person("mallory", nil)
	b := l.browser(true)
	b.signInWith("corp")
	r := b.request("GET", "/", "", nil)
	l.refusedPage(r, 403, "forbidden", 0)
	for _, want := range []string{"You are signed in as mallory, who may not do this.", `href="` + login.SignOutPath + `"`} {
		if !strings.Contains(r.body, want) {
			t.Errorf("the page lacks %s: %s", want, r.body)
		}
	}
	l.provider.Person("alice", nil)
	b.request("POST", login.SignOutPath, "", map[string]string{"Sec-Fetch-Site": "same-origin"})
	if r := b.visit("/x"); r.StatusCode != 200 {
		t.Errorf("as alice: %d %s", r.StatusCode, r.body)
	}
}

// While the issuer is down nobody can sign in, and sessions go on.
func TestSessionsOutliveTheIssuer(t *testing.T) {
	l := openLobby(t, plan{})
	b, late := l.browser(true), l.browser(false)
	b.signIn()
	at := late.answer("/")
	l.issuer.Answer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusServiceUnavailable) }))
	hits := l.model.hits.Load()
	r := late.request("GET", at, "", nil)
	l.refusedPage(r, 503, "login_unavailable", hits)
	if r.Header.Get("Retry-After") == "" {
		t.Error("no Retry-After")
	}
	if r := b.request("GET", "/", "", nil); r.StatusCode != 200 {
		t.Errorf("a session: %d %s", r.StatusCode, r.body)
	}
	l.issuer.Answer(nil)
	if r := l.browser(false).visit("/a?" + url.Values{"b": {"c d"}}.Encode()); r.StatusCode != 200 {
		t.Errorf("when it is back: %d %s", r.StatusCode, r.body)
	}
}

// A session in memory has only an id in its cookie. It survives reloads, and ends at sign-out.
func TestSessionsInMemory(t *testing.T) {
	clock := &shiftedClock{}
	l := openLobby(t, plan{options: proxy.Options{Now: clock.now}, more: unwatched + strings.Replace(loginSections, "{keys: {file: keys}}", "{kind: memory, sessions: 3}", 1)})
	b := l.browser(true)
	cookie := b.signIn()
	if len(cookie) > 200 {
		t.Errorf("the cookie has %d bytes", len(cookie))
	}
	text, err := os.ReadFile(l.file)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(l.file, append(text, "drain: 7s\n"...), 0o600); err != nil {
		t.Fatal(err)
	}
	l.reload("changed")
	if r := b.request("GET", "/", "", nil); r.StatusCode != 200 {
		t.Errorf("after a reload: %d %s", r.StatusCode, r.body)
	}
	for range 5 { // more than there is room for: the session that was not used for longest ends
		other := l.browser(false)
		other.signInWith("corp")
		clock.ahead.Add(int64(2 * time.Second)) // last use is known by the second
		if r := b.request("GET", "/", "", nil); r.StatusCode != 200 {
			t.Errorf("beside new sessions: %d %s", r.StatusCode, r.body)
		}
	}
	b.request("POST", login.SignOutPath, "", map[string]string{"Sec-Fetch-Site": "same-origin"})
	if r := l.do("GET", "/", "", map[string]string{"Authorization": "", "Cookie": cookie}); r.StatusCode != 401 || r.reason() != "session_ended" {
		t.Errorf("after sign-out: %d %s", r.StatusCode, r.body)
	}
}

// A page that gets a token for itself, such as Swagger UI's, sends it beside the session. The caller is
// whom the first of the route's callers proves, so that rules can demand the token's scope. A bad token is
// refused although the session would do.
func TestTokenBesideSession(t *testing.T) {
	rest := `
    upstream: %s
    rules: [{allow: "*", models: "*", who: {scope: models.predict}}]
`
	l := openLobby(t, plan{routes: `
  - host: models.test
    path: /token-first
    callers: [issuer/corp, login/corp]` + rest + `
  - host: models.test
    path: /session-first
    callers: [login/corp, issuer/corp]` + rest})
	b := l.browser(true)
	b.signIn()
	bob, err := l.issuer.Sign(l.issuer.Claims("bob", "models.predict"))
	if err != nil {
		t.Fatal(err)
	}
	ask := func(path, token string) *reply {
		header := map[string]string{"Accept": "*/*", "Sec-Fetch-Mode": "cors", "Sec-Fetch-Site": "same-origin"}
		if token != "" {
			header["Authorization"] = "Bearer " + token
		}
		return b.request("GET", path, "", header)
	}
	l.refused(ask("/token-first", ""), 403, "insufficient_scope")
	l.refused(ask("/session-first", bob), 403, "insufficient_scope")
	l.refused(ask("/token-first", bob[:len(bob)-8]+"AAAAAAAA"), 401, "bad_credential")
	l.refused(ask("/session-first", bob[:len(bob)-8]+"AAAAAAAA"), 401, "bad_credential")
	r := ask("/token-first", bob)
	seen, _ := l.model.seen()
	if r.StatusCode != 200 || seen.Header.Get("X-Sallyport-Principal") != "issuer/corp:bob" || seen.Header.Get("Authorization") != "" || seen.Header.Get("Cookie") != "" {
		t.Errorf("with both: %d %s; the upstream got %v", r.StatusCode, r.body, seen.Header)
	}
}
