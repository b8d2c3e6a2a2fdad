package proxy_test

import (
	"encoding/json"
	"io"
	"maps"
	"net/http"
	"net/url"
	"regexp"
	"strings"
	"testing"
	"time"

	"sallyport/auth/login"
	"sallyport/proxy"
)

// What a request without a session gets depends on whether a person looks at the answer, in a window of
// its own: only then does the browser go to sign in.
func TestWhoIsSentToSignIn(t *testing.T) {
	l := openLobby(t, plan{})
	const (
		program = iota // 401 and JSON
		page           // 401 and a page
		signIn         // 303
	)
	html := "text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8"
	fetch := func(mode, dest, site string) map[string]string {
		return map[string]string{"Sec-Fetch-Mode": mode, "Sec-Fetch-Dest": dest, "Sec-Fetch-Site": site, "Accept": "*/*"}
	}
	with := func(header map[string]string, more ...string) map[string]string {
		all := maps.Clone(header)
		for i := 0; i < len(more); i += 2 {
			all[more[i]] = more[i+1]
		}
		return all
	}
	window := with(fetch("navigate", "document", "none"), "Accept", html)
	for name, c := range map[string]struct {
		method string
		header map[string]string
		want   int
	}{
		"a window":                            {"GET", window, signIn},
		"a window, by a link of another site": {"GET", with(window, "Sec-Fetch-Site", "cross-site"), signIn},
		"HEAD of a window":                    {"HEAD", window, signIn},
		"a window, by a service worker":       {"GET", with(fetch("navigate", "empty", "same-origin"), "Accept", html), signIn},
		"a window of an app on a phone":       {"GET", with(window, "X-Requested-With", "com.example.app"), signIn},
		"a form":                              {"POST", with(window, "Sec-Fetch-Site", "same-origin"), page},
		"a browser without Sec-Fetch-*":       {"GET", map[string]string{"Accept": html}, signIn},
		"HEAD of such a browser":              {"HEAD", map[string]string{"Accept": html}, signIn},
		"jQuery without Sec-Fetch-*":          {"GET", map[string]string{"Accept": "text/html, */*; q=0.01", "X-Requested-With": "XMLHttpRequest"}, program},
		"a frame":                             {"GET", fetch("navigate", "iframe", "same-origin"), page},
		"a frame of another site":             {"GET", fetch("navigate", "iframe", "cross-site"), page},
		"an old frame":                        {"GET", fetch("navigate", "frame", "same-origin"), page},
		"an embedded object":                  {"GET", fetch("navigate", "object", "same-origin"), page},
		"a picture":                           {"GET", fetch("no-cors", "image", "same-origin"), program},
		"a script":                            {"GET", fetch("no-cors", "script", "same-origin"), program},
		"a style sheet":                       {"GET", fetch("no-cors", "style", "same-origin"), program},
		"a font":                              {"GET", fetch("cors", "font", "same-origin"), program},
		"fetch":                               {"GET", fetch("cors", "empty", "same-origin"), program},
		"fetch that takes a page":             {"GET", with(fetch("cors", "empty", "same-origin"), "Accept", html), program},
		"a download":                          {"GET", fetch("navigate", "empty", "same-origin"), page},
		"the script of a service worker":      {"GET", with(fetch("same-origin", "serviceworker", "same-origin"), "Service-Worker", "script"), program},
		"a manifest":                          {"GET", fetch("cors", "manifest", "same-origin"), program},
		"an EventSource":                      {"GET", with(fetch("cors", "empty", "same-origin"), "Accept", "text/event-stream"), program},
		"a page fetched ahead":                {"GET", with(window, "Sec-Purpose", "prefetch"), program},
		"a page rendered ahead":               {"GET", with(window, "Sec-Purpose", "prefetch;prerender"), program},
		"a page fetched ahead by Safari":      {"GET", with(window, "X-Purpose", "preview"), program},
		"a page fetched ahead by Firefox":     {"GET", map[string]string{"Accept": html, "X-Moz": "prefetch"}, program},
		"a page fetched ahead by old Chrome":  {"GET", map[string]string{"Accept": html, "Purpose": "prefetch"}, program},
		"curl":                                {"GET", map[string]string{"Accept": "*/*"}, program},
		"curl -I":                             {"HEAD", map[string]string{"Accept": "*/*"}, program},
		"a client without Accept":             {"GET", map[string]string{"User-Agent": "x"}, program},
		"a client for JSON":                   {"GET", map[string]string{"Accept": "application/json"}, program},
		"a client for JSON or else HTML":      {"GET", map[string]string{"Accept": "application/json, text/html;q=0.5"}, program},
		"a client for problems":               {"GET", map[string]string{"Accept": "text/html, application/problem+json"}, program},
		"a client that takes no HTML":         {"GET", map[string]string{"Accept": "text/html;q=0.0, */*"}, program},
		"a browser of another spelling":       {"GET", map[string]string{"Accept": "Text/HTML; q=0.9, */*"}, signIn},
	} {
		t.Run(name, func(t *testing.T) {
			b := l.in(t).browser(false)
			r := b.request(c.method, "/a?b=c", "", c.header)
			switch at := r.Header.Get("Location"); c.want {
			case signIn:
				if r.StatusCode != http.StatusSeeOther || at != login.SignInPath+"?login=corp&to=%2Fa%3Fb%3Dc" {
					t.Errorf("got %d to %s %s; want to sign in", r.StatusCode, at, r.body)
				}
			case page:
				l.in(t).refusedPage(r, 401, "no_credential", 0)
				framed := c.header["Sec-Fetch-Dest"] != "document"
				if got := r.Header.Get("Content-Security-Policy"); strings.Contains(got, "frame-ancestors 'self'") != framed {
					t.Errorf("the policy is %s", got)
				}
				if strings.Contains(r.body, `target="_blank"`) != framed || !strings.Contains(r.body, `href="`+login.SignInPath) {
					t.Errorf("the page is %s", r.body)
				}
			default:
				if r.StatusCode != 401 || c.method == "GET" && r.reason() != "no_credential" || at != "" || r.Header.Get("WWW-Authenticate") == "" {
					t.Errorf("got %d %v %s; want 401 for programs", r.StatusCode, r.Header, r.body)
				}
			}
			if len(r.Cookies()) > 0 {
				t.Errorf("the answer sets %v: a login was begun", r.Cookies())
			}
			// Sign-in itself begins nothing for pages that nobody has opened.
			if ahead := c.header["Sec-Purpose"]; ahead != "" {
				r := b.request("GET", login.SignInPath, "", c.header)
				if r.StatusCode != 403 || r.reason() != "fetched_ahead" || len(r.Cookies()) > 0 {
					t.Errorf("sign-in: got %d %s %v", r.StatusCode, r.body, r.Cookies())
				}
			}
		})
	}
	l.untouched()
}

// People read what happened and what to do. Programs read what they always did.
func TestPeopleReadWhatToDo(t *testing.T) {
	clock := &shiftedClock{}
	l := openLobby(t, plan{
		options: proxy.Options{Now: clock.now},
		more:    loginSections + "pages: {title: Model lab}\n",
		routes: `
  - {host: models.test, path: /down, upstream: 'http://127.0.0.1:9', callers: login/corp, rules: [{allow: "*", models: "*"}]}
  - {host: models.test, path: /slow, upstream: %s, callers: login/corp, rules: [{allow: "*", models: "*"}], timeouts: {head: 100ms}}
  - {host: models.test, path: /once, upstream: %s, callers: login/corp, rules: [{allow: "*", models: "*"}], limits: {rate: {per: principal, limit: 1/h}}}
  - {host: models.test, path: /small, upstream: %s, callers: login/corp, rules: [{allow: "*", models: "*"}], limits: {body: 1KiB}}
  - {host: models.test, path: /secret, upstream: %s, callers: login/corp, rules: [{allow: "*", models: "*", who: {principal: issuer/corp:bob}}]}
  - {host: models.test, path: /broken, upstream: %s, callers: login/corp, rules: [{allow: "*", models: "*"}]}
  - {host: models.test, path: "=/get", upstream: %s, callers: login/corp, methods: [GET], rules: [{allow: "*", models: "*"}]}
`,
		handler: func(w http.ResponseWriter, r *http.Request) {
			_, _ = io.Copy(io.Discard, r.Body)
			switch r.URL.Path {
			case "/slow":
				<-r.Context().Done()
			case "/broken":
				c, _, _ := w.(http.Hijacker).Hijack()
				_, _ = io.WriteString(c, "HTTP/1.1 hello\r\n\r\n")
				c.Close()
			}
		},
	})
	l.provider.Change(nil, func(answer map[string]any) { delete(answer, "refresh_token") })
	b := l.browser(false)
	b.signIn()
	b.request("GET", "/once", "", nil)
	navigation := map[string]string{"Sec-Fetch-Mode": "navigate", "Sec-Fetch-Dest": "document", "Sec-Fetch-Site": "same-origin", "Accept": "text/html"}
	cross := maps.Clone(navigation)
	cross["Sec-Fetch-Site"] = "cross-site"
	for _, c := range []struct {
		method, path, body string
		header             map[string]string
		status             int
		reason, text, link string
	}{
		{"GET", "/secret", "", navigation, 403, "forbidden", "You are signed in as alice, who may not do this.", login.SignOutPath},
		{"POST", "/small", "x", cross, 403, "cross_site", "another website may have asked for it", ""},
		{"GET", "/once", "", navigation, 429, "rate_limited", "Wait ", "/once"},
		{"POST", "/small", strings.Repeat("x", 2000), navigation, 413, "body_too_large", "You sent more than Model lab takes.", ""},
		{"GET", "/down?a=b", "", navigation, 502, "upstream_refused", "You did nothing wrong.", "/down?a=b"},
		{"GET", "/slow", "", navigation, 504, "upstream_timeout", "Model lab did not answer in time.", "/slow"},
		{"GET", "/broken", "", navigation, 502, "upstream_garbage", "does not work as it should", "/broken"},
		{"GET", "/nothing", "", navigation, 404, "no_route", "Nothing is at this address.", ""},
		{"POST", "/get", "x", navigation, 405, "method_not_allowed", "This address does not do what was asked of it.", ""},
		{"GET", "/.sallyport/other", "", navigation, 404, "no_route", "Nothing is at this address.", ""},
		{"GET", login.CallbackPath("corp") + "?state=corp.A&code=x", "", navigation, 400, "login_state", "The sign-in was begun in another browser", login.SignInPath + "?to=%2F"},
	} {
		hits := l.model.hits.Load()
		r := b.request(c.method, c.path, c.body, c.header)
		if c.status < 502 && c.path != "/broken" && l.model.hits.Load() != hits {
			t.Errorf("%s: the upstream saw the request", c.path)
		}
		l.refusedPage(r, c.status, c.reason, l.model.hits.Load())
		link := ""
		if found := regexp.MustCompile(`<a class="act first" href="([^"]*)"`).FindStringSubmatch(r.body); found != nil {
			link = found[1]
		}
		if !strings.Contains(r.body, c.text) || link != c.link || !strings.Contains(r.body, "<span>Model lab</span>") {
			t.Errorf("%s %s: want a page that says %q and leads to %q, got %q and\n%s", c.method, c.path, c.text, c.link, link, r.body)
		}
		if strings.Contains(r.body, "bob") {
			t.Errorf("%s %s: the page names another person:\n%s", c.method, c.path, r.body)
		}
		if retry := r.Header.Get("Retry-After"); (retry != "") != (c.status == 429) {
			t.Errorf("%s %s: Retry-After is %q", c.method, c.path, retry)
		}
		if c.path[1] == '.' {
			continue
		}
		h := maps.Clone(c.header)
		h["Sec-Fetch-Mode"] = "cors"
		if r := b.request(c.method, c.path, c.body, h); r.StatusCode != c.status || r.reason() != c.reason || strings.Contains(r.body, "<") {
			t.Errorf("%s %s as a program: %d %s", c.method, c.path, r.StatusCode, r.body)
		}
	}
	clock.ahead.Store(int64(2 * time.Hour))
	r := b.request("POST", "/small", "x", navigation)
	l.refusedPage(r, 401, "session_expired", l.model.hits.Load())
	if !strings.Contains(r.body, "Sign in to go on.") {
		t.Errorf("after the idle lifetime: %s", r.body)
	}
}

// A page may ask for the session again and again, and show the question of sign-out: neither is a use of
// the session, which ends by its idle lifetime all the same.
func TestAskingForTheSessionDoesNotKeepItAlive(t *testing.T) {
	for kind, section := range map[string]string{"cookie": loginSections, "memory": strings.Replace(loginSections, "{keys: {file: keys}}", "{kind: memory}", 1)} {
		t.Run(kind, func(t *testing.T) {
			clock := &shiftedClock{}
			l := openLobby(t, plan{options: proxy.Options{Now: clock.now}, more: section})
			l.provider.Change(func(claims map[string]any) { claims["exp"] = clock.now().Add(time.Hour).Unix() }, func(answer map[string]any) { delete(answer, "refresh_token") })
			b := l.browser(true)
			b.signIn()
			ask := func() (expires, idle time.Time) {
				t.Helper()
				r := b.request("GET", login.SessionPath, "", map[string]string{"Sec-Fetch-Mode": "cors", "Sec-Fetch-Site": "same-origin"})
				var said struct {
					Expires time.Time `json:"expires"`
					Idle    time.Time `json:"idle_expires"`
				}
				if err := json.Unmarshal([]byte(r.body), &said); r.StatusCode != 200 || err != nil {
					t.Fatalf("got %d %s (%v)", r.StatusCode, r.body, err)
				}
				if r.Header.Get("Set-Cookie") != "" {
					t.Errorf("to ask renews the session: %v", r.Header)
				}
				return said.Expires, said.Idle
			}
			expires, idle := ask()
			if left := idle.Sub(clock.now()); left < 59*time.Minute || left > time.Hour {
				t.Errorf("idle_expires is in %s; want an hour", left)
			}
			for range 2 {
				clock.ahead.Add(int64(20 * time.Minute))
				if r := b.request("GET", login.SignOutPath, "", nil); !strings.Contains(r.body, "as alice") {
					t.Errorf("the question of sign-out: %s", r.body)
				}
				if e, i := ask(); !e.Equal(expires) || !i.Equal(idle) {
					t.Errorf("to ask moves the ends to %s and %s; want %s and %s", e, i, expires, idle)
				}
			}
			b.request("GET", "/", "", nil)
			if _, i := ask(); i.Sub(idle) < 39*time.Minute || i.Sub(idle) > 41*time.Minute {
				t.Errorf("a use moves idle_expires by %s; want 40m", i.Sub(idle))
			}
			for range 11 { // used now and then, until the absolute lifetime is near
				clock.ahead.Add(int64(39 * time.Minute))
				b.request("GET", "/", "", nil)
			}
			if e, i := ask(); !e.Equal(expires) || i.After(e) {
				t.Errorf("idle_expires is %s, after expires %s", i, e)
			}
			hits := l.model.hits.Load()
			fresh := l.browser(false)
			fresh.signInWith("corp")
			b = fresh
			for range 3 {
				clock.ahead.Add(int64(19 * time.Minute))
				ask()
			}
			clock.ahead.Add(int64(4 * time.Minute))
			r := b.request("GET", login.SessionPath, "", map[string]string{"Accept": "*/*"})
			if r.StatusCode != 401 || r.reason() != "session_expired" {
				t.Errorf("asked until idle: %d %s", r.StatusCode, r.body)
			}
			if r := b.request("GET", "/", "", map[string]string{"Accept": "*/*"}); r.StatusCode != 401 || r.reason() != "session_expired" || l.model.hits.Load() != hits {
				t.Errorf("a request after that: %d %s", r.StatusCode, r.body)
			}
		})
	}
}

// attempts returns how many cookies of logins under way a browser keeps, and how long its Cookie field is.
func (b *browser) attempts() (count, size int) {
	for _, c := range b.jar.Cookies(&url.URL{Scheme: "https", Host: "models.test", Path: "/"}) {
		if size += len(c.Name) + len(c.Value) + 3; strings.HasPrefix(c.Name, "__Host-sallyport-login.") {
			count++
		}
	}
	return count, size
}

// TestAttackManyLoginsInOneBrowser makes a person's browser begin logins over and over, with the longest
// page to return to, in one window after another and in many at once. Its cookies stay few, so that the
// person neither gets 431 nor is kept out.
func TestAttackManyLoginsInOneBrowser(t *testing.T) {
	clock := &shiftedClock{}
	l := openLobby(t, plan{options: proxy.Options{Now: clock.now}})
	at := login.SignInPath + "?" + url.Values{"to": {"/" + strings.Repeat("a", 2000)}}.Encode()
	b := l.browser(true)
	b.header = map[string]string{"Sec-Fetch-Site": "cross-site", "Sec-Fetch-Dest": "document"}
	most := 0
	for range 200 {
		clock.ahead.Add(int64(100 * time.Millisecond)) // as often as one address may
		if r := b.request("GET", at, "", nil); r.StatusCode != http.StatusSeeOther {
			t.Fatalf("got %d %s", r.StatusCode, r.body)
		}
		n, size := b.attempts()
		if most = max(most, n); n > 4 || size > 16<<10 {
			t.Fatalf("the browser has %d logins under way, in %d bytes of cookies", n, size)
		}
	}
	if most != 4 {
		t.Errorf("the browser had at most %d logins under way; the test proves nothing", most)
	}
	b.header = nil
	b.signIn()
	if r := b.request("GET", "/", "", nil); r.StatusCode != 200 {
		t.Errorf("the person: %d %s", r.StatusCode, r.body)
	}

	// Windows that a browser opens all at once do not know of each other's cookies.
	clock.ahead.Add(int64(time.Minute))
	restored := l.browser(true)
	for range 40 {
		tab := l.browser(true)
		r := tab.request("GET", login.SignInPath+"?to=%2Fa%2Fb", "", nil)
		restored.jar.SetCookies(&url.URL{Scheme: "https", Host: "models.test", Path: "/"}, r.Cookies())
	}
	if n, size := restored.attempts(); n != 40 || size > 32<<10 {
		t.Errorf("the browser has %d logins under way, in %d bytes", n, size)
	}
	restored.signIn()
	if n, size := restored.attempts(); n > 24 || size > 7<<10 {
		t.Errorf("%d logins are under way after the next one", n)
	}
	if r := restored.request("GET", "/", "", nil); r.StatusCode != 200 {
		t.Errorf("the person with many windows: %d %s", r.StatusCode, r.body)
	}
}

// What explain says of the gateway's own pages is what the gateway does.
func TestExplainKnowsTheOwnPages(t *testing.T) {
	l := openLobby(t, plan{})
	config, err := proxy.LoadConfig(l.file)
	if err != nil {
		t.Fatal(err)
	}
	x, err := proxy.NewExplainer(config)
	if err != nil {
		t.Fatal(err)
	}
	b := l.browser(false)
	answered := 0
	const own, metadata = "/.sallyport", "/.well-known/oauth-protected-resource"
	for _, path := range []string{
		own, own + "/", own + "/sign-in", own + "/callback", own + "/callback/corp", own + "/sign-out", own + "/leave", own + "/signed-out",
		own + "/session", own + "/backchannel-logout", own + "/other", own + "/Sign-In", metadata, metadata + "/v1",
	} {
		for _, method := range []string{"GET", "HEAD", "POST", "PUT", "OPTIONS"} {
			at := "https://models.test" + path
			d, err := x.Explain(&proxy.Question{Method: method, URL: at})
			if err != nil {
				t.Fatal(err)
			}
			r := b.request(method, at, "", map[string]string{"Accept": "*/*"})
			refused := r.StatusCode == http.StatusNotFound || r.StatusCode == http.StatusMethodNotAllowed
			if d.Allowed == refused || refused && d.Status != r.StatusCode || d.Allowed != (d.Page != "") {
				t.Errorf("%s %s: the gateway answers %d, and explain says %+v", method, path, r.StatusCode, d)
			}
			if d.Allowed {
				answered++
			}
		}
	}
	if answered < 18 {
		t.Errorf("explain knows %d pages", answered)
	}
	l.untouched()
}
