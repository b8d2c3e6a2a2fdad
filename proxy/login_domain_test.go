package proxy_test

import (
	"encoding/json"
	"fmt"
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

// siteRoutes are hosts of one site: two with the same login, one without, and one with another login for the
// same domain; and a host of another site.
const siteRoutes = `
  - host: [a.lab.test, b.lab.test]
    upstream: %s
    callers: [login/corp, issuer/corp]
    websocket: true
    rules: [{allow: "*", models: "*", who: {principal: issuer/corp:alice}}]
  - host: c.lab.test
    upstream: %s
    callers: issuer/corp
    rules: [{allow: "*", models: "*"}]
  - host: e.lab.test
    upstream: %s
    callers: login/more
    rules: [{allow: "*", models: "*"}]
  - host: models.test
    upstream: %s
    callers: [login/alone, issuer/corp]
    rules: [{allow: "*", models: "*"}]
`

// siteCookie is the first cookie of a session of the site.
const siteCookie = "__Secure-sallyport.lab.test"

// openSite starts a house with the login corp for all of lab.test, and the login alone for one host. More
// lines of corp's session stand behind the kind of both.
func openSite(t *testing.T, kind string, p plan) *lobby {
	t.Helper()
	kind, more, _ := strings.Cut(kind, ",")
	session := "keys: {file: keys}"
	if kind == "memory" {
		session = "kind: memory"
	}
	p.routes = siteRoutes
	p.more += fmt.Sprintf(`
logins:
  corp: {issuer: corp, client_id: gateway, client_secret: {file: secret}, scopes: [offline_access], session: {%s, cookie_domain: lab.test, %s}}
  more: {issuer: corp, client_id: gateway, client_secret: {file: secret}, session: {%s, cookie_domain: lab.test}}
  alone: {issuer: corp, client_id: gateway, client_secret: {file: secret}, session: {%s}}
`, session, more, session, session)
	return openLobby(t, p)
}

// cookiesAt returns the Cookie field that a browser sends to a host.
func (b *browser) cookiesAt(host string) string {
	var all []string
	for _, c := range b.jar.Cookies(&url.URL{Scheme: "https", Host: host, Path: "/"}) {
		all = append(all, c.Name+"="+c.Value)
	}
	return strings.Join(all, "; ")
}

// with sends a request with these cookies and no others.
func (l *lobby) with(host, cookie string) *reply {
	l.t.Helper()
	b := l.browser(false)
	return b.request("GET", "https://"+host+"/", "", map[string]string{"Cookie": cookie, "Accept": "*/*"})
}

// TestOneSignInServesHostsOfSite walks through a site in one browser.
func TestOneSignInServesHostsOfSite(t *testing.T) {
	for _, kind := range []string{"cookie", "memory"} {
		t.Run(kind, func(t *testing.T) {
			l := openSite(t, kind, plan{handler: func(w http.ResponseWriter, r *http.Request) {
				http.SetCookie(w, &http.Cookie{Name: "app", Value: "1", Path: "/"})
				http.SetCookie(w, &http.Cookie{Name: siteCookie, Value: "1.AAAA", Path: "/", Domain: "lab.test", Secure: true})
				_, _ = io.WriteString(w, r.Host+r.RequestURI)
			}})
			l.provider.Register("https://a.lab.test"+login.CallbackPath("corp"), "https://b.lab.test"+login.CallbackPath("corp"), "https://models.test"+login.CallbackPath("alone"))
			b, beside := l.browser(true), l.browser(false)
			if r := beside.visit("https://b.lab.test/"); r.StatusCode != 200 {
				t.Fatalf("a person beside: %d %s", r.StatusCode, r.body)
			}
			if r := b.visit("https://a.lab.test/x?y=z"); r.StatusCode != 200 || !strings.HasSuffix(r.body, "/x?y=z") {
				t.Fatalf("signing in: %d %s", r.StatusCode, r.body)
			}
			for _, host := range []string{"a.lab.test", "b.lab.test"} {
				if r := b.request("GET", "https://"+host+"/", "", nil); r.StatusCode != 200 {
					t.Errorf("at %s: %d %s", host, r.StatusCode, r.body)
				}
				if seen, _ := l.model.seen(); strings.Contains(seen.Header.Get("Cookie"), "sallyport") || seen.Header.Get("X-Sallyport-Principal") != "issuer/corp:alice" {
					t.Errorf("at %s the upstream got %v", host, seen.Header)
				}
			}
			if n := l.provider.Exchanges(); n != 2 {
				t.Errorf("%d codes for two people", n)
			}
			kept := b.cookiesAt("b.lab.test")
			if !strings.Contains(kept, siteCookie+"=") || strings.Contains(kept, "__Host-") {
				t.Errorf("the browser sends %s", kept)
			}
			// Other hosts: one without a login gets the cookie and takes no notice, nor does its upstream.
			if r := b.request("GET", "https://c.lab.test/", "", map[string]string{"Accept": "*/*"}); r.StatusCode != 401 || r.reason() != "no_credential" {
				t.Errorf("a host without the login: %d %s", r.StatusCode, r.body)
			}
			if r := b.request("GET", "https://c.lab.test/", "", map[string]string{"Authorization": "Bearer " + l.token()}); r.StatusCode != 200 {
				t.Errorf("with a token: %d %s", r.StatusCode, r.body)
			}
			if seen, _ := l.model.seen(); strings.Contains(seen.Header.Get("Cookie"), "sallyport") {
				t.Errorf("the upstream got the session %v", seen.Header)
			}
			if got := b.cookiesAt("models.test"); got != "" {
				t.Errorf("a host of another site gets %s", got)
			}
			hits := l.model.hits.Load()
			if r := b.request("GET", "https://models.test/", "", nil); r.StatusCode != http.StatusSeeOther || l.model.hits.Load() != hits {
				t.Errorf("a host of another site: %d", r.StatusCode)
			}
			// Sign-out at one host is sign-out at all.
			r := b.request("POST", "https://b.lab.test"+login.SignOutPath, "", map[string]string{"Sec-Fetch-Site": "same-origin", "Accept": "*/*"})
			if r.StatusCode != 200 || !strings.Contains(strings.Join(r.Header.Values("Set-Cookie"), "\n"), siteCookie+"=; Path=/; Max-Age=0; HttpOnly; Secure; SameSite=Lax; Domain=lab.test") {
				t.Errorf("sign-out: %d %v", r.StatusCode, r.Header)
			}
			for _, host := range []string{"a.lab.test", "b.lab.test"} {
				if r := b.request("GET", "https://"+host+"/", "", nil); r.StatusCode != http.StatusSeeOther || strings.Contains(b.cookiesAt(host), "__Secure-") {
					t.Errorf("after sign-out, at %s: %d with %s", host, r.StatusCode, b.cookiesAt(host))
				}
				if r := l.with(host, kept); r.StatusCode != 401 || r.reason() != "session_ended" {
					t.Errorf("the cookie of before, at %s: %d %s", host, r.StatusCode, r.body)
				}
				if r := beside.request("GET", "https://"+host+"/", "", nil); r.StatusCode != 200 {
					t.Errorf("a person beside, at %s: %d", host, r.StatusCode)
				}
				hits++
			}
			if n := l.model.hits.Load(); n != hits {
				t.Errorf("the upstream saw %d requests of nobody", n-hits)
			}
		})
	}
}

// TestIssuerEndsSessionsOfSite takes a logout token at one host.
func TestIssuerEndsSessionsOfSite(t *testing.T) {
	l := openSite(t, "cookie", plan{})
	b, beside := l.browser(false), l.browser(false)
	beside.visit("https://a.lab.test/")
	l.provider.Person("alice", map[string]any{"sid": "the-one"})
	b.visit("https://a.lab.test/")
	if r := b.request("GET", "https://b.lab.test/", "", nil); r.StatusCode != 200 {
		t.Fatalf("before: %d", r.StatusCode)
	}
	r := l.browser(false).request("POST", "https://b.lab.test"+login.BackChannelPath, url.Values{"logout_token": {l.provider.LogoutToken("the-one", "", nil)}}.Encode(),
		map[string]string{"Content-Type": "application/x-www-form-urlencoded"})
	if r.StatusCode != 200 {
		t.Fatalf("the logout token: %d %s", r.StatusCode, r.body)
	}
	hits := l.model.hits.Load()
	for _, host := range []string{"a.lab.test", "b.lab.test"} {
		if r := b.request("GET", "https://"+host+"/", "", map[string]string{"Accept": "*/*"}); r.StatusCode != 401 || r.reason() != "session_ended" || l.model.hits.Load() != hits {
			t.Errorf("after it, at %s: %d %s", host, r.StatusCode, r.body)
		}
	}
	if r := beside.request("GET", "https://b.lab.test/", "", nil); r.StatusCode != 200 {
		t.Errorf("another session: %d", r.StatusCode)
	}
}

// TestSessionsOfSiteGoOn uses one at a host, so that it lasts at another beyond its idle time.
func TestSessionsOfSiteGoOn(t *testing.T) {
	clock := &shiftedClock{}
	l := openSite(t, "cookie", plan{options: proxy.Options{Now: clock.now}})
	l.provider.Change(nil, func(answer map[string]any) { delete(answer, "refresh_token") })
	b := l.browser(true)
	b.visit("https://a.lab.test/")
	first := b.cookiesAt("b.lab.test")
	for _, host := range []string{"a.lab.test", "b.lab.test", "a.lab.test", "b.lab.test"} {
		clock.ahead.Add(int64(40 * time.Minute))
		r := b.request("GET", "https://"+host+"/", "", map[string]string{"Accept": "*/*"})
		if r.StatusCode != 200 {
			t.Fatalf("after %s at %s: %d %s", time.Duration(clock.ahead.Load()), host, r.StatusCode, r.body)
		}
		if set := r.Header.Values("Set-Cookie"); len(set) == 0 || !strings.HasPrefix(set[0], siteCookie+"=1.") || !strings.HasSuffix(set[0], "; Domain=lab.test") {
			t.Errorf("the session is set anew by %v", set)
		}
	}
	if now := b.cookiesAt("b.lab.test"); now == first || strings.Count(now, "sallyport") != 1 {
		t.Errorf("the browser sends %d sessions", strings.Count(now, "sallyport"))
	}
}

// TestReloadMovesSessionsToSite gives a login a domain, and takes it away. No session of one kind serves
// as one of the other, and the one of the host is gone when people sign in anew.
func TestReloadMovesSessionsToSite(t *testing.T) {
	l := openSite(t, "cookie", plan{more: unwatched})
	text, err := os.ReadFile(l.file)
	if err != nil {
		t.Fatal(err)
	}
	load := func(text string) {
		t.Helper()
		if err := os.WriteFile(l.file, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		l.reload("changed")
	}
	alone := strings.Replace(string(text), ", cookie_domain: lab.test, }", "}", 1)
	load(alone)
	b := l.browser(false)
	b.visit("https://a.lab.test/")
	b.visit("https://b.lab.test/")
	ofHost := b.cookiesAt("a.lab.test")
	load(string(text))
	hits := l.model.hits.Load()
	value := strings.TrimPrefix(ofHost, "__Host-sallyport=")
	for cookie, reason := range map[string]string{ofHost: "no_credential", siteCookie + "=" + value: "bad_session"} {
		if r := l.with("a.lab.test", cookie); r.StatusCode != 401 || r.reason() != reason || l.model.hits.Load() != hits {
			t.Errorf("the session of the host: %d %s; want %s", r.StatusCode, r.body, reason)
		}
	}
	if r := b.visit("https://a.lab.test/"); r.StatusCode != 200 {
		t.Fatalf("signing in at the site: %d", r.StatusCode)
	}
	if r := b.request("GET", "https://b.lab.test/", "", nil); r.StatusCode != 200 {
		t.Errorf("at another host of it: %d", r.StatusCode)
	}
	ofSite := b.cookiesAt("a.lab.test")
	if strings.Contains(ofSite, "__Host-") {
		t.Error("the session of the host is still there")
	}
	load(alone)
	hits = l.model.hits.Load()
	value = strings.TrimPrefix(ofSite, siteCookie+"=")
	for cookie, reason := range map[string]string{ofSite: "no_credential", "__Host-sallyport=" + value: "bad_session"} {
		if r := l.with("a.lab.test", cookie); r.StatusCode != 401 || r.reason() != reason || l.model.hits.Load() != hits {
			t.Errorf("the session of the site: %d %s; want %s", r.StatusCode, r.body, reason)
		}
	}
}

// TestPeopleSignInAtOneHost sends people of all hosts to the one that the issuer knows, and back, on the
// port of the gateway.
func TestPeopleSignInAtOneHost(t *testing.T) {
	for _, port := range []string{"", ":8443"} {
		l := openSite(t, "cookie, sign_in_host: a.lab.test", plan{})
		l.provider.Register("https://a.lab.test" + port + login.CallbackPath("corp"))
		b := l.browser(true)
		r := b.visit("https://b.lab.test" + port + "/x?y=%2F&z")
		if r.StatusCode != 200 || r.Request.URL.String() != "https://b.lab.test"+port+"/x?y=%2F&z" {
			t.Fatalf("%q: got %d at %s: %s", port, r.StatusCode, r.Request.URL, r.body)
		}
		if r := b.visit("https://a.lab.test" + port + "/own"); r.StatusCode != 200 {
			t.Errorf("%q: at the host itself: %d", port, r.StatusCode)
		}
		r = b.request("POST", "https://b.lab.test"+port+login.SignOutPath, "", map[string]string{"Sec-Fetch-Site": "same-origin", "Accept": "*/*"})
		var answer struct{ Next string }
		if err := json.Unmarshal([]byte(r.body), &answer); err != nil {
			t.Fatalf("%q: sign-out: %d %s", port, r.StatusCode, r.body)
		}
		left := b.request("GET", "https://b.lab.test"+port+answer.Next, "", nil).Header.Get("Location")
		to, err := url.Parse(left)
		if err != nil || to.Query().Get("post_logout_redirect_uri") != "https://a.lab.test"+port+login.SignedOutPath {
			t.Errorf("%q: the issuer's sign-out is %s", port, left)
		}
		if r := b.visit(left); r.StatusCode != 200 || !strings.Contains(r.body, "You are signed out") {
			t.Errorf("%q: after it: %d", port, r.StatusCode)
		}
	}
}
