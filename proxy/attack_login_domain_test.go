package proxy_test

import (
	"net/http"
	"net/url"
	"os"
	"strings"
	"testing"

	"sallyport/auth/login"
)

// toss sets a cookie as the server of evil.lab.test does in the browsers of those who visit it.
func (b *browser) toss(path, pair string) {
	b.t.Helper()
	name, value, _ := strings.Cut(pair, "=")
	at := &url.URL{Scheme: "https", Host: "evil.lab.test", Path: "/"}
	b.jar.SetCookies(at, []*http.Cookie{{Name: name, Value: value, Domain: "lab.test", Path: path, Secure: true}})
}

// TestAttackTossedSessions lets a hostile host of the domain set cookies of the session's names in a
// person's browser.
func TestAttackTossedSessions(t *testing.T) {
	for _, kind := range []string{"cookie", "memory"} {
		l := openSite(t, kind, plan{})
		beside := l.browser(true)
		beside.visit("https://a.lab.test/")
		l.provider.Person("mallory", nil)
		thief := l.browser(false)
		thief.visit("https://a.lab.test/")
		mallory := thief.cookiesAt("a.lab.test")
		l.provider.Person("alice", nil)
		for _, c := range []struct {
			name   string
			toss   func(victim *browser)
			status int // of the next page; 303 means that signing in again helps
		}{
			{"made up, for one path", func(v *browser) { v.toss("/app", siteCookie+"=1.AAAA") }, 200},
			{"made up parts", func(v *browser) {
				v.toss("/app", siteCookie+".1=x")
				v.toss("/", siteCookie+".1=y")
			}, 200},
			{"several, made up", func(v *browser) {
				for _, path := range []string{"/app", "/app/x", "/app/"} {
					v.toss(path, siteCookie+"=2."+path[1:])
				}
			}, 200},
			{"made up, over the person's own", func(v *browser) { v.toss("/", siteCookie+"=1.AAAA") }, 303},
			{"another number of parts, over the person's own", func(v *browser) { v.toss("/", siteCookie+"=4.AAAA") }, 303},
			{"removed", func(v *browser) { v.toss("/", siteCookie+"=") }, 303},
			{"under the name of one host's session", func(v *browser) { v.toss("/app", strings.Replace(mallory, siteCookie, "__Host-sallyport", 1)) }, 200},
			{"under the name of another domain's", func(v *browser) { v.toss("/app", strings.Replace(mallory, siteCookie, siteCookie+".", 1)) }, 200},
			// What README warns of: nothing tells that the person did not sign in as mallory. The rules do not admit him.
			{"the thief's own, over the person's own", func(v *browser) { v.toss("/", mallory) }, 403},
			// Both end, so that the foreign one does not outlast the sign-in.
			{"the thief's own, for one path", func(v *browser) { v.toss("/app", mallory) }, 303},
		} {
			t.Run(kind+", "+c.name, func(t *testing.T) {
				l := l.in(t)
				victim := l.browser(false)
				if r := victim.visit("https://a.lab.test/app/x/y"); r.StatusCode != 200 {
					t.Fatalf("before: %d %s", r.StatusCode, r.body)
				}
				c.toss(victim)
				hits := l.model.hits.Load()
				r := victim.request("GET", "https://a.lab.test/app/x/y", "", nil)
				switch n := l.model.hits.Load() - hits; {
				case r.StatusCode != c.status || (n > 0) != (c.status == 200):
					t.Errorf("got %d, and the upstream saw %d requests: %s", r.StatusCode, n, r.body)
				case c.status == 403:
					l.refusedPage(r, 403, "forbidden", hits)
					if !strings.Contains(r.body, "You are signed in as mallory, who may not do this.") {
						t.Errorf("the page does not say who is signed in: %s", r.body)
					}
				}
				if c.status == 303 {
					if r := victim.visit("https://a.lab.test/app/x/y"); r.StatusCode != 200 {
						t.Errorf("after signing in again: %d %s", r.StatusCode, r.body)
					}
				}
				if seen, _ := l.model.seen(); seen.Header.Get("X-Sallyport-Principal") != "issuer/corp:alice" {
					t.Errorf("the upstream saw %s", seen.Header.Get("X-Sallyport-Principal"))
				}
				if r := beside.request("GET", "https://b.lab.test/app", "", nil); r.StatusCode != 200 {
					t.Errorf("a person beside: %d %s", r.StatusCode, r.body)
				}
			})
		}
		_ = l.stop()
		found := false
		for _, rec := range l.audit.records(t) {
			cause, _ := rec["cause"].(string)
			found = found || strings.Contains(cause, "there are sessions of issuer/corp:mallory and issuer/corp:alice")
		}
		if !found {
			t.Errorf("%s: no record names whose sessions came", kind)
		}
	}
}

// TestAttackTossedSessionEndsAtTheDoor tosses a thief's session for the paths of the gateway's own pages, where
// the person signs out, signs in, or asks who is signed in.
func TestAttackTossedSessionEndsAtTheDoor(t *testing.T) {
	for _, kind := range []string{"cookie", "memory"} {
		l := openSite(t, kind, plan{})
		beside := l.browser(true)
		beside.visit("https://a.lab.test/")
		signOut := func(v *browser) *reply {
			return v.request("POST", "https://a.lab.test"+login.SignOutPath, "", map[string]string{"Sec-Fetch-Site": "same-origin", "Accept": "*/*"})
		}
		signIn := func(v *browser) *reply {
			return v.visit("https://a.lab.test" + login.SignInPath + "?" + url.Values{"login": {"corp"}, "to": {"/app"}}.Encode())
		}
		ask := func(v *browser) *reply {
			v.request("GET", "https://a.lab.test"+login.SessionPath, "", map[string]string{"Accept": "*/*"})
			return v.visit("https://a.lab.test/app")
		}
		for _, c := range []struct {
			what  string
			act   func(victim *browser) *reply
			paths []string
		}{
			{"sign-out", signOut, []string{"/.sallyport", "/.sallyport/", login.SignOutPath}},
			{"sign-in", signIn, []string{"/.sallyport", "/.sallyport/callback"}},
			{"session", ask, []string{"/.sallyport", login.SessionPath}},
		} {
			for _, path := range c.paths {
				victim, thief := l.browser(false), l.browser(false)
				victim.visit("https://a.lab.test/app")
				own := victim.cookiesAt("a.lab.test")
				l.provider.Person("mallory", nil)
				thief.visit("https://a.lab.test/")
				theirs := thief.cookiesAt("a.lab.test")
				l.provider.Person("alice", nil)
				victim.toss(path, theirs)
				if r := c.act(victim); r.StatusCode != 200 {
					t.Errorf("%s, %s for %s: %d %s", kind, c.what, path, r.StatusCode, r.body)
				}
				hits := l.model.hits.Load()
				for whose, cookie := range map[string]string{"victim": own, "thief": theirs} {
					if r := l.with("b.lab.test", cookie); r.StatusCode != 401 || r.reason() != "session_ended" || l.model.hits.Load() != hits {
						t.Errorf("%s, %s for %s: the session of the %s: %d %s", kind, c.what, path, whose, r.StatusCode, r.body)
					}
				}
				if r := victim.visit("https://b.lab.test/app"); r.StatusCode != 200 {
					t.Errorf("%s, %s for %s: signing in again: %d %s", kind, c.what, path, r.StatusCode, r.body)
				}
				if seen, _ := l.model.seen(); seen.Header.Get("X-Sallyport-Principal") != "issuer/corp:alice" {
					t.Errorf("%s, %s for %s: the upstream saw %s", kind, c.what, path, seen.Header.Get("X-Sallyport-Principal"))
				}
				if r := beside.request("GET", "https://b.lab.test/app", "", nil); r.StatusCode != 200 {
					t.Errorf("%s, %s for %s: a person beside: %d", kind, c.what, path, r.StatusCode)
				}
			}
		}
	}
}

// TestAttackSessionsOfSite presents sessions at hosts, for logins and under names for which they are not.
func TestAttackSessionsOfSite(t *testing.T) {
	l := openSite(t, "cookie", plan{})
	victim := l.browser(true)
	victim.visit("https://a.lab.test/")
	site := victim.cookiesAt("a.lab.test")
	value := strings.TrimPrefix(site, siteCookie+"=")
	alone := l.browser(false)
	alone.visit("https://models.test/")
	ofHost := strings.TrimPrefix(alone.cookiesAt("models.test"), "__Host-sallyport=")
	for _, c := range []struct{ name, host, cookie, reason string }{
		{"cut", "b.lab.test", site[:len(site)-4], "bad_session"},
		{"for one host", "a.lab.test", "__Host-sallyport=" + value, "no_credential"},
		{"of another site's host and login", "a.lab.test", siteCookie + "=" + ofHost, "bad_session"},
		{"at a host of another site", "models.test", site, "no_credential"},
		{"at a host of another site, under its name", "models.test", "__Host-sallyport=" + value, "bad_session"},
		{"at a host of another site, for a domain of it", "models.test", "__Secure-sallyport.models.test=" + value, "no_credential"},
		{"under the name of a parent domain", "a.lab.test", "__Secure-sallyport.test=" + value, "no_credential"},
		{"in other letters", "a.lab.test", strings.Replace(site, "lab.test", "LAB.test", 1), "no_credential"},
		{"without a domain", "a.lab.test", "__Secure-sallyport=" + value, "no_credential"},
	} {
		hits := l.model.hits.Load()
		if r := l.with(c.host, c.cookie); r.StatusCode != 401 || r.reason() != c.reason || l.model.hits.Load() != hits {
			t.Errorf("%s: %d %s; want %s", c.name, r.StatusCode, r.body, c.reason)
		}
		if r := victim.request("GET", "https://b.lab.test/", "", nil); r.StatusCode != 200 {
			t.Errorf("%s: the victim: %d %s", c.name, r.StatusCode, r.body)
		}
	}
	// An answer of the issuer belongs to the host at which the login began.
	r := victim.request("GET", "https://a.lab.test"+login.SignInPath, "", nil)
	answer := victim.request("GET", r.Header.Get("Location"), "", nil).Header.Get("Location")
	hits := l.model.hits.Load()
	elsewhere := strings.Replace(answer, "a.lab.test", "b.lab.test", 1)
	l.refusedPage(l.browser(true).request("GET", elsewhere, "", nil), 400, "login_state", hits)
	if r := victim.request("GET", elsewhere, "", nil); r.StatusCode != http.StatusSeeOther || len(r.Cookies()) > 0 { // in the session from before
		t.Errorf("at another host: %d %v %s", r.StatusCode, r.Cookies(), r.body)
	}
	if r := victim.request("GET", answer, "", nil); r.StatusCode != http.StatusSeeOther {
		t.Errorf("at its own host: %d %s", r.StatusCode, r.body)
	}
}

// TestAttackFromOtherHostsOfSite sends to b.lab.test what a page at a.lab.test can, with the session that
// counts at both.
func TestAttackFromOtherHostsOfSite(t *testing.T) {
	l := openSite(t, "cookie", plan{})
	victim := l.browser(false)
	victim.visit("https://a.lab.test/")
	const from = "https://a.lab.test"
	socket := map[string]string{"Connection": "Upgrade", "Upgrade": "websocket", "Sec-WebSocket-Version": "13", "Sec-WebSocket-Key": "AAAAAAAAAAAAAAAAAAAAAA=="}
	and := func(base map[string]string, more ...string) map[string]string {
		all := map[string]string{"Accept": "*/*"}
		for name, value := range base {
			all[name] = value
		}
		for i := 0; i < len(more); i += 2 {
			all[more[i]] = more[i+1]
		}
		return all
	}
	for _, c := range []struct {
		name, method, path string
		header             map[string]string
		status             int
	}{
		{"a form", "POST", "/x", and(nil, "Origin", from, "Sec-Fetch-Site", "same-site", "Sec-Fetch-Mode", "navigate", "Content-Type", "application/x-www-form-urlencoded"), 403},
		{"fetch with credentials", "POST", "/x", and(nil, "Origin", from, "Sec-Fetch-Site", "same-site", "Sec-Fetch-Mode", "cors"), 403},
		{"fetch without an answer", "POST", "/x", and(nil, "Origin", from, "Sec-Fetch-Site", "same-site", "Sec-Fetch-Mode", "no-cors"), 403},
		{"an old browser", "POST", "/x", and(nil, "Origin", from), 403},
		{"a beacon without an origin", "POST", "/x", and(nil, "Origin", "null"), 403},
		{"DELETE", "DELETE", "/x", and(nil, "Origin", from, "Sec-Fetch-Site", "same-site", "Sec-Fetch-Mode", "cors"), 403},
		{"WebSocket", "GET", "/x", and(socket, "Origin", from, "Sec-Fetch-Site", "same-site", "Sec-Fetch-Mode", "websocket"), 403},
		{"WebSocket of an old browser", "GET", "/x", and(socket, "Origin", from), 403},
		{"sign-out", "POST", login.SignOutPath, and(nil, "Origin", from, "Sec-Fetch-Site", "same-site", "Sec-Fetch-Mode", "cors"), 403},
		{"its own page", "POST", "/x", and(nil, "Origin", "https://b.lab.test", "Sec-Fetch-Site", "same-origin", "Sec-Fetch-Mode", "cors"), 200},
	} {
		hits := l.model.hits.Load()
		r := victim.request(c.method, "https://b.lab.test"+c.path, "", c.header)
		n := l.model.hits.Load() - hits
		if r.StatusCode != c.status || (n > 0) != (c.status == 200) || c.status == 403 && !strings.Contains(r.body, "cross_site") {
			t.Errorf("%s: %d %s, and the upstream saw %d requests", c.name, r.StatusCode, r.body, n)
		}
	}
	// What changes nothing is answered, and the page cannot read it: no field lets another origin.
	for _, path := range []string{"/x", login.SessionPath} {
		r := victim.request("GET", "https://b.lab.test"+path, "", and(nil, "Origin", from, "Sec-Fetch-Site", "same-site", "Sec-Fetch-Mode", "cors"))
		if got := r.Header.Get("Access-Control-Allow-Origin") + r.Header.Get("Access-Control-Allow-Credentials"); r.StatusCode != 200 || got != "" {
			t.Errorf("reading %s: %d, allowed is %q", path, r.StatusCode, got)
		}
	}
	if r := victim.request("GET", "https://b.lab.test/", "", nil); r.StatusCode != 200 {
		t.Errorf("the victim was signed out: %d", r.StatusCode)
	}
}

// TestAttackReturnURLs asks the host where people sign in to send them elsewhere afterwards.
func TestAttackReturnURLs(t *testing.T) {
	l := openSite(t, "cookie, sign_in_host: a.lab.test", plan{more: unwatched})
	ends := func(b *browser, host, to string) string {
		at := "https://" + host + login.SignInPath + "?" + url.Values{"to": {to}, "login": {"corp"}}.Encode()
		for range 6 {
			r := b.request("GET", at, "", nil)
			next, err := r.Location()
			if err != nil || r.StatusCode != http.StatusSeeOther && r.StatusCode != http.StatusFound || len(r.Header.Values("Location")) != 1 {
				t.Fatalf("%q at %s: %d %v", to, at, r.StatusCode, r.Header)
			}
			if strings.Contains(at, login.CallbackPath("corp")) {
				return next.String()
			}
			at = next.String()
		}
		t.Fatalf("%q: sent on and on", to)
		return ""
	}
	const own = "https://a.lab.test/"
	for to, want := range map[string]string{
		"https://b.lab.test/x?y=z":              "https://b.lab.test/x?y=z",
		"https://a.lab.test/x":                  "https://a.lab.test/x",
		"/x":                                    "https://a.lab.test/x",
		"https://b.lab.test//evil.example":      "https://b.lab.test/",
		"https://b.lab.test/.sallyport/sign-in": "https://b.lab.test/",
		"https://c.lab.test/":                   own, // without the login
		"https://d.lab.test/":                   own, // without a route
		"https://e.lab.test/":                   own, // with another login
		"https://evil.lab.test/":                own,
		"https://lab.test/":                     own,
		"https://models.test/":                  own, // of another site, with another login
		"https://evil.example/":                 own,
		"//evil.example/":                       own,
		"//b.lab.test/":                         own,
		`\\b.lab.test\`:                         own,
		"https://b.lab.test:8443/":              own,
		"https://b.lab.test:443/":               own,
		"http://b.lab.test/":                    own,
		"https://b.lab.test@evil.example/":      own,
		"https://evil@b.lab.test/":              own,
		`https://evil.example\@b.lab.test/`:     own,
		`https://evil.example\.b.lab.test/`:     own,
		"https://b.lab.test.evil.example/":      own,
		"https://evil.exampleb.lab.test/":       own,
		"https://evil.example%2f.b.lab.test/":   own,
		"https://b.lab.test\r\nX: y/":           own,
		"https:b.lab.test/":                     own,
		"https:///b.lab.test/":                  own,
		"javascript://b.lab.test/%0aalert(1)":   own,
	} {
		if got := ends(l.browser(false), "a.lab.test", to); got != want {
			t.Errorf("%q leads to %q; want %q", to, got, want)
		}
	}
	// A host where nobody signs in returns to its own pages alone.
	for to, want := range map[string]string{"/x": "https://b.lab.test/x", "https://a.lab.test/x": "https://b.lab.test/", "https://evil.example/": "https://b.lab.test/"} {
		if got := ends(l.browser(false), "b.lab.test", to); got != want {
			t.Errorf("at b.lab.test, %q leads to %q; want %q", to, got, want)
		}
	}
	// A host that lost its route while a person signed in.
	b := l.browser(false)
	r := b.request("GET", "https://a.lab.test"+login.SignInPath+"?"+url.Values{"to": {"https://b.lab.test/x"}}.Encode(), "", nil)
	answer := b.request("GET", r.Header.Get("Location"), "", nil).Header.Get("Location")
	text, err := os.ReadFile(l.file)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(l.file, []byte(strings.Replace(string(text), "[a.lab.test, b.lab.test]", "[a.lab.test, d.lab.test]", 1)), 0o600); err != nil {
		t.Fatal(err)
	}
	l.reload("changed")
	if r := b.request("GET", answer, "", nil); r.StatusCode != http.StatusSeeOther || r.Header.Get("Location") != "/" {
		t.Errorf("after the reload: %d to %s", r.StatusCode, r.Header.Get("Location"))
	}
	l.untouched()
}

// TestAttackTossedSessionOfAnotherLogin tosses a good session of one login beside a person's own of
// another, on a route that lists both.
func TestAttackTossedSessionOfAnotherLogin(t *testing.T) {
	for _, callers := range []string{"login/corp, login/more", "login/more, login/corp"} {
		l := openLobby(t, plan{
			more: `
logins:
  corp: {issuer: corp, client_id: gateway, client_secret: {file: secret}, session: {keys: {file: keys}, cookie_domain: models.test}}
  more: {issuer: corp, client_id: gateway, client_secret: {file: secret}, session: {keys: {file: keys}, cookie_domain: models.test}}
`,
			routes: "\n  - {host: [models.test, b.models.test], upstream: '%s', callers: [" + callers + "], rules: [{allow: '*', models: '*'}]}\n",
		})
		victim, thief := l.browser(false), l.browser(false)
		own := victim.signInWith("corp")
		l.provider.Person("mallory", nil)
		theirs := thief.signInWith("more")
		for name, field := range map[string]string{"alice": own, "mallory": theirs} {
			for _, made := range []string{"", "; __Secure-sallyport.models.test=1.AAAA"} {
				r := l.with("b.models.test", field+made)
				if seen, _ := l.model.seen(); r.StatusCode != 200 || seen.Header.Get("X-Sallyport-Principal") != "issuer/corp:"+name {
					t.Errorf("%s, alone%s: %d %s", callers, made, r.StatusCode, r.body)
				}
			}
		}
		for _, join := range []func() string{
			func() string { return own + "; " + theirs },
			func() string { return theirs + "; " + own },
			func() string { return "__Secure-sallyport.models.test=1.AAAA; " + own + "; " + theirs },
		} {
			hits := l.model.hits.Load()
			for _, c := range [][2]string{{join(), "bad_session"}, {own, "session_ended"}, {theirs, "session_ended"}} {
				if r := l.with("b.models.test", c[0]); r.StatusCode != 401 || r.reason() != c[1] || l.model.hits.Load() != hits {
					t.Errorf("%s: %d %s; want %s", callers, r.StatusCode, r.body, c[1])
				}
			}
			theirs = thief.signInWith("more")
			l.provider.Person("alice", nil)
			own = victim.signInWith("corp")
			l.provider.Person("mallory", nil)
		}
		victim.request("POST", login.SignOutPath, "", map[string]string{"Sec-Fetch-Site": "same-origin", "Accept": "*/*"})
		hits := l.model.hits.Load()
		if r := l.with("models.test", "__Secure-sallyport.models.test=1.AAAA; "+own); r.StatusCode != 401 || r.reason() != "session_ended" || l.model.hits.Load() != hits {
			t.Errorf("%s, after sign-out: %d %s", callers, r.StatusCode, r.body)
		}
	}
}
