package proxy_test

import (
	"fmt"
	"net/http"
	"net/url"
	"strings"
	"testing"

	"sallyport/auth/authtest"
	"sallyport/auth/login"
)

// withParameter returns a URL with another value of a parameter; "" removes it.
func withParameter(t *testing.T, at, name, value string) string {
	t.Helper()
	u, err := url.Parse(at)
	if err != nil {
		t.Fatal(err)
	}
	q := u.Query()
	if q.Set(name, value); value == "" {
		q.Del(name)
	}
	u.RawQuery = q.Encode()
	return u.String()
}

// TestAttackAnswersOfTheIssuer presents answers that the browser's login does not belong to. Each is
// refused with a page, the upstream sees nothing, and a victim beside the attacker works on.
func TestAttackAnswersOfTheIssuer(t *testing.T) {
	l := openLobby(t, plan{})
	victim := l.browser(true)
	victim.signIn()
	other := func(f func(c map[string]any)) func(*browser) string {
		return func(b *browser) string {
			l.provider.Change(f, nil)
			return b.answer("/")
		}
	}
	for _, c := range []struct {
		name   string
		attack func(attacker *browser) string // the callback that is then visited
		status int
		reason string
	}{
		{"state of another browser, to sign a victim in as the attacker", func(b *browser) string { return l.browser(false).answer("/") }, 400, "login_state"},
		{"no state", func(b *browser) string { return withParameter(t, b.answer("/"), "state", "") }, 400, "login_state"},
		{"state of another login", func(b *browser) string {
			return withParameter(t, b.answer("/"), "state", "more.AAAAAAAAAAAAAAAAAAAAAA")
		}, 400, "login_state"},
		{"a state that was not given out", func(b *browser) string {
			return withParameter(t, b.answer("/"), "state", "corp.AAAAAAAAAAAAAAAAAAAAAA")
		}, 400, "login_state"},
		{"a parameter twice", func(b *browser) string { return b.answer("/") + "&state=corp.AAAAAAAAAAAAAAAAAAAAAA" }, 400, "login_state"},
		{"a code used twice", func(b *browser) string {
			at, place := b.answer("/"), &url.URL{Scheme: "https", Host: "models.test", Path: "/"}
			thief := l.browser(true) // has the cookie of the attempt, and no session
			thief.jar.SetCookies(place, b.jar.Cookies(place))
			if r := thief.request("GET", at, "", nil); r.StatusCode != http.StatusSeeOther {
				t.Errorf("the first use: %d %s", r.StatusCode, r.body)
			}
			return at
		}, 400, "login_state"},
		{"a code of another browser's login", func(b *browser) string {
			foreign, _ := url.Parse(l.browser(false).answer("/"))
			return withParameter(t, b.answer("/"), "code", foreign.Query().Get("code"))
		}, 400, "login_state"},
		{"an answer of another issuer", func(b *browser) string { return withParameter(t, b.answer("/"), "iss", "https://evil.example") }, 400, "login_issuer"},
		{"an answer without its issuer, which promised to name itself", func(b *browser) string { return withParameter(t, b.answer("/"), "iss", "") }, 400, "login_issuer"},
		{"nonce of another login", other(func(c map[string]any) { c["nonce"] = "another" }), 403, "login_token"},
		{"no nonce", other(func(c map[string]any) { delete(c, "nonce") }), 403, "login_token"},
		{"an ID token for another client", other(func(c map[string]any) { c["aud"] = "others" }), 403, "login_token"},
		{"an ID token of another issuer", other(func(c map[string]any) { c["iss"] = "https://evil.example" }), 403, "login_token"},
		{"an ID token that has expired", other(func(c map[string]any) { c["exp"] = 1000 }), 403, "login_token"},
		{"an ID token without a subject", other(func(c map[string]any) { delete(c, "sub") }), 403, "login_token"},
		{"an access token for an ID token", func(b *browser) string {
			l.provider.Change(nil, func(answer map[string]any) { answer["id_token"] = answer["access_token"] })
			return b.answer("/")
		}, 403, "login_token"},
		{"no ID token", func(b *browser) string {
			l.provider.Change(nil, func(answer map[string]any) { delete(answer, "id_token") })
			return b.answer("/")
		}, 403, "login_token"},
		{"a refusal of the issuer", func(b *browser) string {
			l.provider.Refuse("access_denied")
			defer l.provider.Refuse("")
			return b.answer("/")
		}, 403, "login_refused"},
		{"a refusal with a text for the page", func(b *browser) string {
			return withParameter(t, withParameter(t, b.answer("/"), "code", ""), "error", "<script>alert(1)</script>")
		}, 403, "login_refused"},
		{"a callback on another host of the gateway", func(b *browser) string {
			return strings.Replace(b.answer("/"), "https://models.test", "https://other.test", 1)
		}, 400, "login_state"},
		{"an issuer that does not answer at the token endpoint", func(b *browser) string {
			l.provider.AnswerTokens(authtest.Status(503))
			return b.answer("/")
		}, 503, "login_unavailable"},
	} {
		t.Run(c.name, func(t *testing.T) {
			l := l.in(t)
			attacker := l.browser(false)
			hits := l.model.hits.Load()
			at := c.attack(attacker)
			r := attacker.request("GET", at, "", nil)
			l.provider.Change(nil, nil)
			l.provider.AnswerTokens(nil)
			l.refusedPage(r, c.status, c.reason, hits)
			if strings.Contains(r.body, "<script") {
				t.Error("the page has the attacker's script")
			}
			for _, cookie := range r.Cookies() {
				if cookie.Name == "__Host-sallyport" && cookie.Value != "" {
					t.Errorf("the refusal sets a session: %s", cookie)
				}
			}
			if r := victim.request("GET", "/", "", nil); r.StatusCode != 200 {
				t.Errorf("the victim: %d %s", r.StatusCode, r.body)
			}
		})
	}
}

// TestAttackCookies presents sessions that the gateway did not give to this browser for this host.
func TestAttackCookies(t *testing.T) {
	l := openLobby(t, plan{})
	victim := l.browser(true)
	cookie := victim.signIn()
	const name = "__Host-sallyport="
	value := strings.TrimPrefix(cookie, name)
	if value == cookie || strings.Contains(value, ";") {
		t.Fatalf("the session is in %d bytes of another form", len(cookie))
	}
	flip := func(i int) string {
		b := []byte(value)
		if b[i]++; b[i] > 'y' || b[i] < '0' || b[i] > '9' && b[i] < 'A' || b[i] > 'Z' && b[i] < 'a' {
			b[i] = 'b'
		}
		return string(b)
	}
	for _, c := range []struct {
		name, host, cookie, reason string
	}{
		{"of another host", "other.test", cookie, "bad_session"},
		{"cut", "models.test", cookie[:len(cookie)-4], "bad_session"},
		{"cut in the middle", "models.test", cookie[:len(cookie)/2], "bad_session"},
		{"enlarged", "models.test", cookie + "AAAA", "bad_session"},
		{"enlarged beyond all bounds", "models.test", cookie + strings.Repeat("A", 30<<10), "bad_session"},
		{"with another byte at its start", "models.test", name + flip(4), "bad_session"},
		{"with another byte at its end", "models.test", name + flip(len(value)-3), "bad_session"},
		{"empty", "models.test", name, "bad_session"},
		{"two of the name, the good one first", "models.test", cookie + "; " + name + "1.AAAA", "bad_session"},
		{"two of the name, the good one last", "models.test", name + "1.AAAA; " + cookie, "bad_session"},
		{"the same twice", "models.test", cookie + "; " + cookie, "bad_session"},
		{"a second part that is not there", "models.test", name + "2" + value[1:], "bad_session"},
		{"tossed from a subdomain, under the name without the prefix", "models.test", "sallyport=" + value, "no_credential"},
		{"under the name for a domain", "models.test", "__Secure-sallyport=" + value, "no_credential"},
		{"in other letters", "models.test", "__host-Sallyport=" + value, "no_credential"},
	} {
		t.Run(c.name, func(t *testing.T) {
			l := l.in(t)
			hits := l.model.hits.Load()
			for _, h2 := range []bool{false, true} {
				req, err := http.NewRequest("GET", "https://"+c.host+"/", nil)
				if err != nil {
					t.Fatal(err)
				}
				req.Header.Set("Cookie", c.cookie)
				if r := l.send(l.client(h2), req); r.StatusCode != 401 || r.reason() != c.reason {
					t.Errorf("got %d %s; want 401 %s", r.StatusCode, r.body, c.reason)
				}
			}
			if n := l.model.hits.Load(); n != hits {
				t.Errorf("the upstream saw %d requests", n-hits)
			}
			if r := victim.request("GET", "/", "", nil); r.StatusCode != 200 {
				t.Errorf("the victim: %d %s", r.StatusCode, r.body)
			}
		})
	}
	t.Run("a person with two of the name is not sent around forever", func(t *testing.T) {
		l := l.in(t)
		r := l.do("GET", "/", "", map[string]string{"Authorization": "", "Cookie": cookie + "; " + cookie, "Sec-Fetch-Mode": "navigate"})
		l.refusedPage(r, 401, "bad_session", l.model.hits.Load())
		if !strings.Contains(r.body, "First delete the cookies of models.test in your browser.") {
			t.Errorf("the page does not say what helps: %s", r.body)
		}
	})
}

// TestAttackReturnPages asks to return elsewhere. Every login ends on a page of the same host.
func TestAttackReturnPages(t *testing.T) {
	l := openLobby(t, plan{})
	for _, to := range []string{
		"//evil.example", "///evil.example", `\\evil.example`, `/\evil.example`, `/\/evil.example`, "https:evil.example", "https://evil.example/", "https:/evil.example",
		"http://evil.example", "evil.example", "javascript:alert(1)", " //evil.example", "/%09/evil.example", "/\t/evil.example", "/\r\nLocation: https://evil.example", "/\r\nSet-Cookie: a=b",
		"/%0d%0aSet-Cookie: a=b", "/a\x00b", "/..//evil.example", "/%2e%2e//evil.example", "/.//evil.example", "/%2f/evil.example", "/%5cevil.example", "@evil.example", "/@evil.example:443//x",
		"//models.test@evil.example", "https://models.test/ok", "\u2028//evil.example", strings.Repeat("/a", 4000), "", "?x", "#x", "/.sallyport/sign-out", "/.SALLYPORT/sign-in?to=/", "/.sallyport",
	} {
		b := l.browser(false)
		r := b.request("GET", b.answer(to), "", nil)
		got := r.Header.Get("Location")
		if r.StatusCode != http.StatusSeeOther || len(r.Header.Values("Location")) != 1 || r.Header.Get("Set-Cookie") == "a=b" {
			t.Errorf("%q: got %d %v", to, r.StatusCode, r.Header)
			continue
		}
		for _, base := range []string{"https://models.test/", "https://models.test/a/b"} {
			at, _ := url.Parse(base)
			at, err := at.Parse(strings.ReplaceAll(got, `\`, "/"))
			if err != nil || at.Scheme != "https" || at.Host != "models.test" || at.User != nil || !strings.HasPrefix(got, "/") || strings.HasPrefix(strings.ToLower(at.Path), "/.sallyport") {
				t.Errorf("%q leads to %q", to, got)
			}
		}
	}
	l.untouched()
}

// TestAttackFromOtherSites sends requests as pages of other sites can: browsers add the session.
func TestAttackFromOtherSites(t *testing.T) {
	l := openLobby(t, plan{})
	b := l.browser(false)
	b.signIn()
	for _, c := range []struct {
		name, method string
		header       map[string]string
		status       int
	}{
		{"own page", "POST", map[string]string{"Sec-Fetch-Site": "same-origin"}, 200},
		{"typed by the person", "POST", map[string]string{"Sec-Fetch-Site": "none"}, 200},
		{"own page of an old browser", "POST", map[string]string{"Origin": "https://models.test"}, 200},
		{"safe methods change nothing", "GET", map[string]string{"Sec-Fetch-Site": "cross-site"}, 200},
		{"another site", "POST", map[string]string{"Sec-Fetch-Site": "cross-site"}, 403},
		{"a subdomain", "POST", map[string]string{"Sec-Fetch-Site": "same-site"}, 403},
		{"another site with our origin", "POST", map[string]string{"Sec-Fetch-Site": "cross-site", "Origin": "https://models.test"}, 403},
		{"a form of another site, sent once more", "POST", map[string]string{"Sec-Fetch-Site": "none", "Origin": "https://evil.example"}, 403},
		{"a form of a sandbox, sent once more", "POST", map[string]string{"Sec-Fetch-Site": "none", "Origin": "null"}, 403},
		{"an own form, sent once more", "POST", map[string]string{"Sec-Fetch-Site": "none", "Origin": "https://models.test"}, 200},
		{"an own form of a page that tells no other", "POST", map[string]string{"Sec-Fetch-Site": "same-origin", "Origin": "null"}, 200},
		{"an unknown word", "POST", map[string]string{"Sec-Fetch-Site": "Same-Origin"}, 403},
		{"an old browser from another site", "POST", map[string]string{"Origin": "https://evil.example"}, 403},
		{"an old browser from our host without TLS", "POST", map[string]string{"Origin": "http://models.test"}, 403},
		{"an old browser from another port", "POST", map[string]string{"Origin": "https://models.test:8443"}, 403},
		{"an origin that begins like ours", "POST", map[string]string{"Origin": "https://models.test.evil.example"}, 403},
		{"a sandbox", "POST", map[string]string{"Origin": "null"}, 403},
		{"nothing at all", "POST", map[string]string{"Accept": "*/*"}, 403},
		{"PUT", "PUT", map[string]string{"Sec-Fetch-Site": "cross-site"}, 403},
		{"DELETE", "DELETE", map[string]string{"Sec-Fetch-Site": "cross-site"}, 403},
		{"PATCH", "PATCH", map[string]string{"Sec-Fetch-Site": "cross-site"}, 403},
		{"WebSocket of another site", "GET", map[string]string{"Origin": "https://evil.example", "Connection": "Upgrade", "Upgrade": "websocket", "Sec-WebSocket-Version": "13", "Sec-WebSocket-Key": "AAAAAAAAAAAAAAAAAAAAAA=="}, 403},
		{"WebSocket without an origin", "GET", map[string]string{"Connection": "Upgrade", "Upgrade": "websocket", "Sec-WebSocket-Version": "13", "Sec-WebSocket-Key": "AAAAAAAAAAAAAAAAAAAAAA=="}, 403},
	} {
		t.Run(c.name, func(t *testing.T) {
			b.lobby = l.in(t)
			hits := l.model.hits.Load()
			r := b.request(c.method, "/x", "", c.header)
			want := hits
			if c.status == 200 {
				want++
			} else if r.reason() != "cross_site" {
				t.Errorf("the reason is %s: %s", r.reason(), r.body)
			}
			if n := l.model.hits.Load(); r.StatusCode != c.status || n != want {
				t.Errorf("got %d, and the upstream saw %d requests; want %d and %d", r.StatusCode, n-hits, c.status, want-hits)
			}
		})
	}
}

// TestAttackOwnPathsAreNeverForwarded asks for the gateway's own paths in every spelling.
func TestAttackOwnPathsAreNeverForwarded(t *testing.T) {
	l := openLobby(t, plan{})
	b := l.browser(false)
	b.signIn()
	hits := l.model.hits.Load()
	for _, path := range []string{
		"/.sallyport", "/.sallyport/", "/.sallyport/x", "/.Sallyport/session", "/.sallyport/session/", "/.sallyport/sign-in/x", "/%2esallyport/x", "/a/../.sallyport/x", "//.sallyport/x",
		"/.sallyport%2fsession", "/.sallyport;x/session", "/.sallyport//session", "/%2e%73allyport/x", "/.sallyport/callback", "/.sallyport/callback/", "/.sallyport/callback/none", "/.sallyport/Callback/corp", "/.sallyport/callback/corp/", "/./.sallyport/x",
	} {
		for _, method := range []string{"GET", "POST", "PUT", "HEAD", "OPTIONS"} {
			r := b.request(method, path, "", map[string]string{"Sec-Fetch-Site": "same-origin", "Accept": "*/*"})
			if r.StatusCode < 400 || r.StatusCode > 499 {
				t.Errorf("%s %s: got %d", method, path, r.StatusCode)
			}
		}
	}
	if n := l.model.hits.Load(); n != hits {
		r, _ := l.model.seen()
		t.Errorf("the upstream saw %d of them, the last %s", n-hits, r.RequestURI)
	}
}

// TestAttackUpstreamSetsSessions lets the application set cookies of the gateway's names.
func TestAttackUpstreamSetsSessions(t *testing.T) {
	l := openLobby(t, plan{handler: func(w http.ResponseWriter, _ *http.Request) {
		for _, c := range []string{"__Host-sallyport=1.x; Path=/; Secure", " __Host-sallyport =1.x; Path=/; Secure", "__Host-sallyport.1=x; Path=/; Secure", "__Host-sallyport-login.abc=x; Path=/; Secure", "=__Host-sallyport=1.x; Path=/; Secure", "__Secure-sallyport=x; Secure", "app=__Host-sallyport; Path=/", "__Host-app=2; Path=/; Secure"} {
			w.Header().Add("Set-Cookie", c)
		}
	}})
	b := l.browser(true)
	b.signIn()
	got := b.request("GET", "/", "", nil).Header.Values("Set-Cookie")
	if fmt.Sprint(got) != "[app=__Host-sallyport; Path=/ __Host-app=2; Path=/; Secure]" {
		t.Errorf("the browser got %q", got)
	}
}

// TestAttackCookiesOfTheApplicationPass sends cookies around the session's. The upstream gets them byte
// for byte, and never the session.
func TestAttackCookiesOfTheApplicationPass(t *testing.T) {
	l := openLobby(t, plan{})
	session := l.browser(false).signIn()
	for _, c := range []struct{ sent, want string }{
		{"a=1; " + session, "a=1"},
		{session + "; a=1", "a=1"},
		{"a=1; " + session + "; b=2", "a=1; b=2"},
		{`a="x y"; ` + session + `; b==`, `a="x y"; b==`},
		{session, ""},
		{"__Host-sallyport-login.abcdefgh=x; a=1; " + session, "a=1"},
		{"__Host-sallyportal=1; " + session, "__Host-sallyportal=1"},
	} {
		for _, header := range []map[string]string{{"Authorization": "", "Cookie": c.sent}, {"Cookie": c.sent}} {
			if r := l.do("GET", "/", "", header); r.StatusCode != 200 {
				t.Errorf("%q: got %d %s", c.sent, r.StatusCode, r.body)
			}
			if seen, _ := l.model.seen(); seen.Header.Get("Cookie") != c.want {
				t.Errorf("of %q the upstream got %q; want %q", c.sent, seen.Header.Get("Cookie"), c.want)
			}
		}
	}
}

// TestAttackLoginsThatAreNeverEnded begins ten thousand logins. They leave nothing behind, and honest
// people still get in, from other addresses and in sessions that go on.
func TestAttackLoginsThatAreNeverEnded(t *testing.T) {
	l := openLobby(t, plan{more: "trusted_proxies: [127.0.0.1/32]\n"})
	honest := l.browser(true)
	honest.header = map[string]string{"X-Forwarded-For": "192.0.2.7"}
	honest.signIn()
	c := l.client(true)
	begun, refused := 0, 0
	for range 10_000 {
		req, err := http.NewRequest("GET", "https://models.test"+login.SignInPath, nil)
		if err != nil {
			t.Fatal(err)
		}
		req.Header.Set("X-Forwarded-For", "203.0.113.9")
		switch r := l.send(c, req); r.StatusCode {
		case http.StatusSeeOther:
			begun++
		case http.StatusTooManyRequests:
			refused++
		default:
			t.Fatalf("got %d %s", r.StatusCode, r.body)
		}
	}
	if begun < 50 || refused == 0 {
		t.Errorf("%d logins were begun, and %d refused", begun, refused)
	}
	if r := honest.request("GET", "/", "", nil); r.StatusCode != 200 {
		t.Errorf("a session: %d", r.StatusCode)
	}
	late := l.browser(false)
	late.header = map[string]string{"X-Forwarded-For": "192.0.2.8"}
	late.signIn()
}

// TestAttackNoSecretIsRecorded looks for codes, states, tokens and cookies in the records and the pages.
func TestAttackNoSecretIsRecorded(t *testing.T) {
	l := openLobby(t, plan{})
	b := l.browser(false)
	at := b.answer("/")
	_ = b.request("GET", at, "", nil)
	again := b.request("GET", at, "", nil)
	cookie := b.signIn()
	_ = l.do("GET", "/", "", map[string]string{"Authorization": "", "Cookie": cookie[:len(cookie)-4]})
	_ = l.do("POST", login.BackChannelPath, "logout_token="+l.provider.LogoutToken("sid-x", "", nil)+"x", map[string]string{"Authorization": "", "Content-Type": "application/x-www-form-urlencoded"})
	u, _ := url.Parse(at)
	// Proxies in front may spell the callback otherwise. Its code still counts then.
	var codes []string
	for _, instead := range []string{"%3F", "%3f", ";", "/", "&", "%253f", "%0a", "//", "/.;"} {
		at := b.answer("/")
		u, _ := url.Parse(at)
		codes = append(codes, u.Query().Get("code"), u.Query().Get("state"))
		if r := b.request("GET", strings.Replace(at, "?", instead, 1), "", nil); r.StatusCode < 400 {
			t.Errorf("%s instead of the question mark: %d", instead, r.StatusCode)
		}
	}
	_ = l.stop()
	l.audit.mu.Lock()
	defer l.audit.mu.Unlock()
	for _, secret := range append(codes, u.Query().Get("code"), u.Query().Get("state"), cookie[20:60], "s3cret-of-the-client", "eyJ") {
		if strings.Contains(l.audit.buf.String(), secret) || strings.Contains(again.body, secret) {
			t.Errorf("%q is in the records or on a page", secret)
		}
	}
}
