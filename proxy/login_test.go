package proxy_test

import (
	"encoding/json"
	"html"
	"io"
	"maps"
	"net/http"
	"net/http/cookiejar"
	"net/url"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"golang.org/x/net/publicsuffix"

	"sallyport/auth/authtest"
	"sallyport/auth/login"
)

// lobby is a house where people sign in, with the provider at which they do.
type lobby struct {
	*house
	provider *authtest.Provider
}

const loginRoutes = `
  - host: [models.test, other.test]
    upstream: %s
    callers: [login/corp, issuer/corp]
    websocket: true
    rules: [{allow: "*", models: "*", who: {principal: issuer/corp:alice}}]
`

const loginSections = `
logins: {corp: {issuer: corp, client_id: gateway, client_secret: {file: secret}, scopes: [offline_access], session: {keys: {file: keys}}}}
`

// openLobby starts a house with the login corp.
func openLobby(t *testing.T, p plan) *lobby {
	t.Helper()
	if p.routes == "" {
		p.routes = loginRoutes
	}
	if !strings.Contains(p.more, "logins:") {
		p.more += loginSections
	}
	files := map[string]string{"secret": "s3cret-of-the-client", "keys": login.NewKey() + "\n"}
	maps.Copy(files, p.files)
	p.files = files
	l := &lobby{house: build(t, p)}
	l.provider = l.issuer.Provide("gateway", "s3cret-of-the-client")
	return l
}

// in returns the lobby for a subtest.
func (l *lobby) in(t *testing.T) *lobby { return &lobby{l.house.in(t), l.provider} }

// browser is a browser of one person, with its own cookies.
type browser struct {
	*lobby
	client *http.Client
	jar    *cookiejar.Jar
	header map[string]string // of every request, such as X-Forwarded-For
}

func (l *lobby) browser(h2 bool) *browser {
	l.t.Helper()
	jar, err := cookiejar.New(&cookiejar.Options{PublicSuffixList: publicsuffix.List})
	if err != nil {
		l.t.Fatal(err)
	}
	c := l.client(h2)
	c.Jar = jar
	return &browser{lobby: l, client: c, jar: jar}
}

// request sends one request; navigations have no header of their own.
func (b *browser) request(method, target, body string, header map[string]string) *reply {
	b.t.Helper()
	if strings.HasPrefix(target, "/") {
		target = "https://models.test" + target
	}
	req, err := http.NewRequest(method, target, strings.NewReader(body))
	if err != nil {
		b.t.Fatal(err)
	}
	if header == nil {
		header = map[string]string{"Sec-Fetch-Mode": "navigate", "Sec-Fetch-Site": "none", "Accept": "text/html,*/*;q=0.8"}
	}
	for _, fields := range []map[string]string{header, b.header} {
		for name, value := range fields {
			req.Header.Set(name, value)
		}
	}
	if !strings.HasPrefix(target, "https://") { // the provider
		c := &http.Client{CheckRedirect: b.client.CheckRedirect}
		return b.send(c, req)
	}
	return b.send(b.client, req)
}

// visit goes to a page, and wherever it is sent from there.
func (b *browser) visit(target string) *reply {
	b.t.Helper()
	at, err := url.Parse("https://models.test/")
	if err != nil {
		b.t.Fatal(err)
	}
	for range 10 {
		if at, err = at.Parse(target); err != nil {
			b.t.Fatal(err)
		}
		r := b.request("GET", at.String(), "", nil)
		if r.StatusCode < 300 || r.StatusCode > 399 {
			return r
		}
		target = r.Header.Get("Location")
	}
	b.t.Fatalf("sent on and on, at last to %s", at)
	return nil
}

// answer begins a login and returns the URL of the callback with the provider's answer, unopened.
func (b *browser) answer(to string) string {
	b.t.Helper()
	return b.answerOf("corp", to)
}

// answerOf does so with one login of several.
func (b *browser) answerOf(name, to string) string {
	b.t.Helper()
	r := b.request("GET", login.SignInPath+"?"+url.Values{"login": {name}, "to": {to}}.Encode(), "", nil)
	if r.StatusCode != http.StatusSeeOther {
		b.t.Fatalf("sign-in: %d %s", r.StatusCode, r.body)
	}
	return b.request("GET", r.Header.Get("Location"), "", nil).Header.Get("Location")
}

// signIn signs in, and returns the Cookie field that a browser sends afterwards.
func (b *browser) signIn() string {
	b.t.Helper()
	return b.signInWith("corp")
}

// signInWith does so with one login of several.
func (b *browser) signInWith(name string) string {
	b.t.Helper()
	if r := b.request("GET", b.answerOf(name, "/"), "", nil); r.StatusCode != http.StatusSeeOther {
		b.t.Fatalf("signing in: %d %s", r.StatusCode, r.body)
	}
	var all []string
	for _, c := range b.jar.Cookies(&url.URL{Scheme: "https", Host: "models.test", Path: "/"}) {
		all = append(all, c.Name+"="+c.Value)
	}
	if len(all) == 0 {
		b.t.Fatal("no session")
	}
	return strings.Join(all, "; ")
}

// refusedPage checks that a person sees a page with the reason, and that the upstream saw no more
// requests than before.
func (l *lobby) refusedPage(r *reply, status int, reason string, before int64) {
	l.t.Helper()
	if r.StatusCode != status || !strings.Contains(r.body, "<dd>"+reason+"</dd>") {
		l.t.Errorf("got %d %s %s; want a page with %d %s", r.StatusCode, r.Header.Get("Location"), r.body, status, reason)
	}
	if got := r.Header.Get("Content-Security-Policy"); !strings.HasPrefix(got, "default-src 'none'") || r.Header.Get("Cache-Control") != "no-store" || r.Header.Get("Referrer-Policy") != "no-referrer" {
		l.t.Errorf("the page has the fields %v", r.Header)
	}
	if id := r.Header.Get("X-Request-Id"); id == "" || !strings.Contains(r.body, id) {
		l.t.Error("the page lacks the request id")
	}
	if n := l.model.hits.Load(); n != before {
		l.t.Errorf("the upstream saw %d requests; want %d", n, before)
	}
}

func TestPeopleSignInAndReturnToTheirPage(t *testing.T) {
	for _, h2 := range []bool{false, true} {
		t.Run(map[bool]string{false: "HTTP/1.1", true: "HTTP/2"}[h2], func(t *testing.T) {
			l := openLobby(t, plan{handler: func(w http.ResponseWriter, r *http.Request) {
				http.SetCookie(w, &http.Cookie{Name: "app", Value: "1", Path: "/"})
				_, _ = io.WriteString(w, "page "+r.RequestURI)
			}})
			b := l.browser(h2)
			first := b.request("GET", "/app?x=%2F1&y", "", nil)
			if first.StatusCode != http.StatusSeeOther || !strings.HasPrefix(first.Header.Get("Location"), login.SignInPath+"?") {
				t.Fatalf("got %d to %s; want to sign in", first.StatusCode, first.Header.Get("Location"))
			}
			l.untouched()
			if r := b.visit("/app?x=%2F1&y"); r.StatusCode != http.StatusOK || r.body != "page /app?x=%2F1&y" {
				t.Fatalf("got %d %s", r.StatusCode, r.body)
			}
			hits := l.model.hits.Load()
			for range 3 {
				if r := b.request("GET", "/app", "", nil); r.StatusCode != http.StatusOK {
					t.Errorf("got %d %s", r.StatusCode, r.body)
				}
			}
			if n := l.model.hits.Load() - hits; n != 3 {
				t.Errorf("the upstream saw %d of 3 requests", n)
			}
			seen, _ := l.model.seen()
			if got := seen.Header.Get("X-Sallyport-Principal"); got != "issuer/corp:alice" {
				t.Errorf("the upstream learned of %s", got)
			}
			if got := seen.Header.Get("Cookie"); got != "app=1" {
				t.Errorf("the upstream got the cookies %q; want app=1 alone", got)
			}
			r := b.request("GET", login.SessionPath, "", map[string]string{"Sec-Fetch-Mode": "cors", "Sec-Fetch-Site": "same-origin"})
			var who struct{ Principal, Name, Login, Expires string }
			if err := json.Unmarshal([]byte(r.body), &who); err != nil || who.Principal != "issuer/corp:alice" || who.Name != "alice" || who.Login != "corp" || who.Expires == "" {
				t.Errorf("the session is %d %s", r.StatusCode, r.body)
			}
			if err := l.stop(); err != nil {
				t.Fatal(err)
			}
			events := map[string]int{}
			for _, rec := range l.audit.records(t) {
				if e, ok := rec["login_event"].(string); ok {
					events[e]++
					if e == "signed_in" && (rec["principal"] != "issuer/corp:alice" || rec["login"] != "corp" || !strings.HasPrefix(rec["sid"].(string), "sid-")) {
						t.Errorf("the record of the login is %v", rec)
					}
				}
			}
			if events["begun"] != 1 || events["signed_in"] != 1 {
				t.Errorf("the records have the events %v", events)
			}
		})
	}
}

func TestProgramsGet401AndNoRedirect(t *testing.T) {
	l := openLobby(t, plan{})
	b := l.browser(false)
	for name, header := range map[string]map[string]string{
		"fetch":         {"Sec-Fetch-Mode": "cors", "Accept": "text/html"},
		"XHR":           {"Sec-Fetch-Mode": "same-origin", "Accept": "*/*"},
		"curl":          {"Accept": "*/*"},
		"a bad token":   {"Authorization": "Bearer x.y.z", "Accept": "*/*"},
		"no Accept":     {"User-Agent": "x"},
		"a script file": {"Sec-Fetch-Mode": "no-cors", "Accept": "*/*"},
	} {
		r := b.request("GET", "/", "", header)
		if r.StatusCode != 401 || r.reason() == "" || !strings.Contains(strings.Join(r.Header.Values("WWW-Authenticate"), ", "), "Cookie ") {
			t.Errorf("%s: got %d %s %v", name, r.StatusCode, r.body, r.Header)
		}
	}
	if r := b.request("POST", "/", "x", nil); r.StatusCode != 401 {
		t.Errorf("a form without a session: %d", r.StatusCode)
	}
	l.untouched()
	// A bearer token serves on the same route, from any site.
	if r := l.do("POST", "/", "x", map[string]string{"Sec-Fetch-Site": "cross-site"}); r.StatusCode != 200 {
		t.Errorf("a token: %d %s", r.StatusCode, r.body)
	}
}

func TestPeopleSignOut(t *testing.T) {
	l := openLobby(t, plan{})
	b := l.browser(true)
	cookie := b.signIn()
	hits := l.model.hits.Load()
	if r := b.request("GET", login.SignedOutPath, "", nil); r.StatusCode != http.StatusSeeOther || r.Header.Get("Location") != login.SignOutPath {
		t.Errorf("alice is told that she is signed out: %d %s", r.StatusCode, r.body)
	}
	if r := b.request("GET", login.SignOutPath, "", nil); r.StatusCode != 200 || !strings.Contains(r.body, "as alice") {
		t.Errorf("the question: %d %s", r.StatusCode, r.body)
	}
	r := b.request("POST", login.SignOutPath, "", map[string]string{"Sec-Fetch-Mode": "navigate", "Sec-Fetch-Site": "cross-site", "Accept": "text/html"})
	l.refusedPage(r, 403, "cross_site", hits)
	if r := b.visit("/"); r.StatusCode != 200 {
		t.Fatalf("another site signed alice out: %d", r.StatusCode)
	}
	hits++
	r = b.request("POST", login.SignOutPath, "", map[string]string{"Sec-Fetch-Mode": "navigate", "Sec-Fetch-Site": "same-origin", "Accept": "text/html"})
	next := regexp.MustCompile(`href="(/.sallyport/leave[^"]*)"`).FindStringSubmatch(r.body)
	if r.StatusCode != 200 || next == nil {
		t.Fatalf("signing out: %d %s", r.StatusCode, r.body)
	}
	if r := b.request("GET", html.UnescapeString(next[1]), "", nil); !strings.HasPrefix(r.Header.Get("Location"), l.issuer.URL+"/logout?") {
		t.Errorf("the issuer's sign-out: %d %s", r.StatusCode, r.Header.Get("Location"))
	}
	if r := b.request("GET", "/", "", nil); r.StatusCode != http.StatusSeeOther {
		t.Errorf("after sign-out: %d", r.StatusCode)
	}
	// The cookie of before is of no use to whoever kept it.
	replayed := l.do("GET", "/", "", map[string]string{"Authorization": "", "Cookie": cookie})
	if replayed.StatusCode != 401 || replayed.reason() != "session_ended" {
		t.Errorf("replayed after sign-out: %d %s", replayed.StatusCode, replayed.body)
	}
	if n := l.model.hits.Load(); n != hits {
		t.Errorf("the upstream saw %d requests; want %d", n, hits)
	}
	if r := b.request("GET", login.SignedOutPath, "", nil); r.StatusCode != 200 || !strings.Contains(r.body, "You are signed out") {
		t.Errorf("the page after sign-out: %d %s", r.StatusCode, r.body)
	}
	if err := l.stop(); err != nil {
		t.Fatal(err)
	}
	for _, rec := range l.audit.records(t) {
		if rec["login_event"] == "signed_out" && rec["principal"] == "issuer/corp:alice" && rec["sid"] != nil {
			return
		}
	}
	t.Error("no record of the sign-out")
}

func TestIssuerEndsSessions(t *testing.T) {
	l := openLobby(t, plan{})
	alice, victim := l.browser(false), l.browser(false)
	const sid = "sid-of-one-session"
	l.provider.Person("alice", map[string]any{"sid": sid})
	alice.signIn()
	l.provider.Person("alice", nil)
	victim.signIn()
	end := func(token string) *reply {
		return l.do("POST", login.BackChannelPath, url.Values{"logout_token": {token}}.Encode(), map[string]string{"Authorization": "", "Content-Type": "application/x-www-form-urlencoded"})
	}
	for name, token := range map[string]string{
		"forged":              strings.Replace(l.provider.LogoutToken(sid, "", nil), ".", ".A", 1),
		"of another client":   l.provider.LogoutToken(sid, "", func(c map[string]any) { c["aud"] = "others" }),
		"with a nonce":        l.provider.LogoutToken(sid, "", func(c map[string]any) { c["nonce"] = "n" }),
		"without the event":   l.provider.LogoutToken(sid, "", func(c map[string]any) { delete(c, "events") }),
		"an access token":     l.token(),
		"garbage":             "x",
		"of nobody":           l.provider.LogoutToken("", "", nil),
		"of another provider": l.provider.LogoutToken(sid, "", func(c map[string]any) { c["iss"] = "https://evil.example" }),
	} {
		if r := end(token); r.StatusCode != 400 || r.reason() != "logout_token" {
			t.Errorf("%s: got %d %s; want 400 logout_token", name, r.StatusCode, r.body)
		}
	}
	if r := alice.request("GET", "/", "", nil); r.StatusCode != 200 {
		t.Fatalf("alice's session ended: %d", r.StatusCode)
	}
	if r := end(l.provider.LogoutToken(sid, "", nil)); r.StatusCode != 200 {
		t.Fatalf("back-channel logout: %d %s", r.StatusCode, r.body)
	}
	hits := l.model.hits.Load()
	r := alice.request("GET", "/", "", map[string]string{"Accept": "application/json"})
	if r.StatusCode != 401 || r.reason() != "session_ended" || l.model.hits.Load() != hits {
		t.Errorf("alice after logout: %d %s", r.StatusCode, r.body)
	}
	if r := victim.request("GET", "/", "", nil); r.StatusCode != 200 {
		t.Errorf("the other session of the same person: %d %s", r.StatusCode, r.body)
	}
}

func TestReloadKeepsSessions(t *testing.T) {
	l := openLobby(t, plan{more: unwatched})
	b := l.browser(false)
	cookie := b.signIn()
	dir := filepath.Dir(l.file)
	old, err := os.ReadFile(filepath.Join(dir, "keys"))
	if err != nil {
		t.Fatal(err)
	}
	load := func(keys string) {
		t.Helper()
		if err := os.WriteFile(filepath.Join(dir, "keys"), []byte(keys), 0o600); err != nil {
			t.Fatal(err)
		}
		l.reload("changed")
	}
	next := login.NewKey() + "\n"
	load(next + string(old))
	if r := b.request("GET", "/", "", nil); r.StatusCode != 200 {
		t.Errorf("with the old key second: %d %s", r.StatusCode, r.body)
	}
	load(next)
	hits := l.model.hits.Load()
	r := l.do("GET", "/", "", map[string]string{"Authorization": "", "Cookie": cookie})
	if r.StatusCode != 401 || r.reason() != "bad_session" || l.model.hits.Load() != hits {
		t.Errorf("sealed with a retired key: %d %s", r.StatusCode, r.body)
	}
}

func TestSeveralLoginsLetPeopleChoose(t *testing.T) {
	l := openLobby(t, plan{
		issuers: "  more: {url: 'https://login.example.com', audience: models}",
		more:    strings.Replace(loginSections, "{corp:", "{more: {issuer: more, client_id: x, title: More & more, session: {kind: memory}}, corp:", 1) + "pages: {title: Model lab}\n",
		routes:  strings.Replace(loginRoutes, "login/corp,", "login/corp, login/more,", 1),
	})
	b := l.browser(false)
	r := b.visit("/a?b=c")
	if r.StatusCode != 200 || !strings.Contains(r.body, "<span>Model lab</span>") || !strings.Contains(r.body, "Sign in with More &amp; more") {
		t.Fatalf("got %d %s", r.StatusCode, r.body)
	}
	links := regexp.MustCompile(`href="([^"]*login=corp[^"]*)"`).FindStringSubmatch(r.body)
	if links == nil {
		t.Fatalf("no link for corp: %s", r.body)
	}
	if r := b.visit(html.UnescapeString(links[1])); r.StatusCode != 200 {
		t.Errorf("corp: %d %s", r.StatusCode, r.body)
	}
	if seen, _ := l.model.seen(); seen == nil || seen.RequestURI != "/a?b=c" {
		t.Errorf("the upstream saw %v", seen)
	}
}
