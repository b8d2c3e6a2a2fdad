package proxy_test

import (
	"bytes"
	"crypto/rand"
	"encoding/base64"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strings"
	"testing"
	"time"

	"sallyport/auth/login"
	"sallyport/proxy"
)

const twoLogins = `
logins:
  corp: {issuer: corp, client_id: gateway, client_secret: {file: secret}, session: {keys: {file: keys}}}
  more: {issuer: corp, client_id: gateway, client_secret: {file: secret}, session: {keys: {file: keys}}}
  kept: {issuer: corp, client_id: gateway, client_secret: {file: secret}, session: {kind: memory}}
  also: {issuer: corp, client_id: gateway, client_secret: {file: secret}, session: {kind: memory}}
`

// TestAttackSealedForAnotherPurpose uses what the gateway sealed for one login, host or purpose as
// another. All logins have the same issuer, client and keys.
func TestAttackSealedForAnotherPurpose(t *testing.T) {
	route := func(host, path, callers string) string {
		return fmt.Sprintf("  - {host: %s, path: %s, upstream: '%%s', callers: [%s], rules: [{allow: '*', models: '*', who: {principal: 'issuer/corp:alice'}}]}\n", host, path, callers)
	}
	l := openLobby(t, plan{more: twoLogins, routes: "\n" + route("models.test", "/corp", "login/corp") + route("models.test", "/more", "login/more") + route("models.test", "/kept", "login/kept") +
		route("models.test", "/also", "login/also") + route("models.test", "/both", "login/corp, login/more, login/kept, login/also") + route("other.test", "/", "login/corp, login/more, login/kept, login/also")})
	all := []string{"corp", "more", "kept", "also"}
	sessions := map[string]string{}
	for _, name := range all {
		sessions[name] = l.browser(false).signInWith(name)
	}
	begun := l.browser(true)
	begun.answerOf("corp", "/")
	attempt := ""
	for _, c := range begun.jar.Cookies(&url.URL{Scheme: "https", Host: "models.test", Path: "/"}) {
		attempt = c.Value
	}
	c := l.client(true)
	ask := func(host, path, cookie string, want int) {
		t.Helper()
		hits := l.model.hits.Load()
		req, err := http.NewRequest("GET", "https://"+host+path, nil)
		if err != nil {
			t.Fatal(err)
		}
		req.Header.Set("Cookie", cookie)
		r := l.send(c, req)
		if r.StatusCode != want || want == 401 && l.model.hits.Load() != hits {
			t.Errorf("%s%s with %.40s: got %d %s; want %d, and the upstream untouched by refusals", host, path, cookie, r.StatusCode, r.body, want)
		}
	}
	for _, of := range all {
		for _, at := range all {
			ask("models.test", "/"+at, sessions[of], map[bool]int{true: 200, false: 401}[at == of])
		}
		ask("models.test", "/both", sessions[of], 200)
		ask("other.test", "/x", sessions[of], 401)
	}
	for _, cookie := range []string{"__Host-sallyport=" + attempt, "__Host-sallyport=1." + attempt} {
		ask("models.test", "/both", cookie, 401)
	}
	// A session is no attempt either: its seal does not finish a login.
	b := l.browser(false)
	at, _ := url.Parse(b.answerOf("corp", "/"))
	state := strings.TrimPrefix(at.Query().Get("state"), "corp.")
	forged := "__Host-sallyport-login." + state[:8] + "=" + strings.TrimPrefix(sessions["corp"], "__Host-sallyport=1.")
	r := l.do("GET", at.RequestURI(), "", map[string]string{"Authorization": "", "Cookie": forged, "Sec-Fetch-Mode": "navigate"})
	l.refusedPage(r, 400, "login_state", l.model.hits.Load())
}

// incompressible returns random text of about this length.
func incompressible(length int) string {
	b := make([]byte, length*3/4)
	_, _ = rand.Read(b)
	return base64.RawURLEncoding.EncodeToString(b)
}

// TestAttackPartsOfSeveralSessions mixes the cookies of large sessions.
func TestAttackPartsOfSeveralSessions(t *testing.T) {
	l := openLobby(t, plan{})
	l.provider.Person("alice", map[string]any{"groups": incompressible(9000)})
	mine, other := l.browser(false), l.browser(true)
	parts, others := strings.Split(mine.signIn(), "; "), strings.Split(other.signIn(), "; ")
	if len(parts) < 3 || len(parts) != len(others) {
		t.Fatalf("the sessions have %d and %d cookies", len(parts), len(others))
	}
	hits := l.model.hits.Load()
	for i := range parts {
		mixed := append([]string{}, parts...)
		mixed[i] = others[i]
		missing := append(append([]string{}, parts[:i]...), parts[i+1:]...)
		for _, cookies := range [][]string{mixed, missing, append([]string{others[i]}, parts...)} {
			if r := l.do("GET", "/", "", map[string]string{"Authorization": "", "Cookie": strings.Join(cookies, "; ")}); r.StatusCode != 401 {
				t.Errorf("part %d: got %d %s", i, r.StatusCode, r.body)
			}
		}
	}
	if n := l.model.hits.Load() - hits; n != 0 {
		t.Errorf("the upstream saw %d requests", n)
	}
	for _, b := range []*browser{mine, other} {
		if r := b.request("GET", "/", "", nil); r.StatusCode != 200 {
			t.Errorf("a session whole: %d %s", r.StatusCode, r.body)
		}
		if seen, _ := l.model.seen(); seen.Header.Get("Cookie") != "" {
			t.Errorf("the upstream got the cookies %q", seen.Header.Get("Cookie"))
		}
	}
}

// TestAttackCookieLines spreads cookies over lines, as HTTP/2 allows. The upstream gets the application's
// alone, and two of the session's name are refused.
func TestAttackCookieLines(t *testing.T) {
	l := openLobby(t, plan{})
	session := l.browser(false).signIn()
	for _, c := range []struct {
		lines  []string
		status string
		want   string
	}{
		{[]string{"a=1", session}, "200", "a=1"},
		{[]string{session, "a=1", "b=2"}, "200", "a=1; b=2"},
		{[]string{"a=1; " + session, "b=2"}, "200", "a=1; b=2"},
		{[]string{session, session}, "401", ""},
		{[]string{session, "__Host-sallyport"}, "401", ""},
		{[]string{session, "__Host-sallyport.1=x", "__Host-sallyport.1=x"}, "401", ""},
	} {
		hits := l.model.hits.Load()
		check := func(version, status string) {
			t.Helper()
			seen, _ := l.model.seen()
			if n := l.model.hits.Load() - hits; status != c.status || n != map[string]int64{"200": 1}[status] || n == 1 && seen.Header.Get("Cookie") != c.want {
				t.Errorf("%s, %.60q: got %s, and the upstream saw %d requests with %q; want %s and %q", version, c.lines, status, n, seen.Header.Get("Cookie"), c.status, c.want)
			}
			hits = l.model.hits.Load()
		}
		check("HTTP/1.1", statuses(l.tell("GET / HTTP/1.1\r\nHost: models.test\r\nConnection: close\r\nCookie: "+strings.Join(c.lines, "\r\nCookie: ")+"\r\n\r\n")))
		f := l.frames()
		lines := []string{":method: GET", ":scheme: https", ":authority: models.test", ":path: /"}
		for _, line := range c.lines {
			lines = append(lines, "cookie: "+line)
		}
		f.headers(1, true, lines...)
		check("HTTP/2", f.wait(1))
	}
}

// TestAttackTunnelsWithSession opens a WebSocket from another site over HTTP/2, and keeps one open after
// sign-out. It ends; that of another session goes on.
func TestAttackTunnelsWithSession(t *testing.T) {
	l := openLobby(t, plan{handler: func(w http.ResponseWriter, r *http.Request) {
		c, rw := openSocket(w, r, "Set-Cookie: __Host-sallyport=1.evil; Path=/; Secure\r\n")
		defer c.Close()
		_, _ = io.WriteString(c, "cookies "+r.Header.Get("Cookie")+"\n")
		_, _ = rw.ReadString('\n')
	}})
	thief, victim := l.browser(false), l.browser(true)
	session, kept := thief.signIn(), victim.signIn()
	head := []string{":protocol: websocket", ":method: CONNECT", ":scheme: https", ":authority: models.test", ":path: /", "sec-websocket-version: 13", "cookie: a=1; " + session}
	for _, from := range []string{"origin: https://evil.example", "origin: null", "sec-fetch-site: same-site", "sec-fetch-mode: websocket"} {
		f := l.frames()
		f.headers(1, false, append(head, from)...)
		if got := f.wait(1); got != "403" {
			t.Errorf("%s: got %s", from, got)
		}
	}
	l.untouched()
	open := func(session string) (*frames, string) {
		f := l.frames()
		f.headers(1, false, append(head[:len(head)-1:len(head)-1], "cookie: a=1; "+session, "origin: https://models.test")...)
		for f.next() && (f.got[1] == nil || f.got[1].body == "" && !f.got[1].done) {
		}
		return f, f.got[1].body
	}
	f, got := open(session)
	other, gotOther := open(kept)
	if got != "cookies a=1\n" || gotOther != got {
		t.Fatalf("the tunnels began with %q and %q", got, gotOther)
	}
	thief.request("POST", login.SignOutPath, "", map[string]string{"Sec-Fetch-Site": "same-origin"})
	if n := l.gateway.RevisitSessions(t.Context()); n != 1 {
		t.Errorf("%d tunnels are cut, want 1", n)
	}
	f.wait(1)
	other.data(1, false, "x\n")
	if got := other.wait(1); got != "200" {
		t.Errorf("the tunnel of another session: %s", got)
	}
}

// TestAttackSharedCaches lets a cache before the gateway keep what it may. It must not give a page of one
// person to others, nor a session.
func TestAttackSharedCaches(t *testing.T) {
	clock := &shiftedClock{}
	l := openLobby(t, plan{options: proxy.Options{Now: clock.now}, handler: func(w http.ResponseWriter, _ *http.Request) {
		for name, value := range map[string]string{"Cache-Control": "public, max-age=600", "CDN-Cache-Control": "max-age=600", "Surrogate-Control": "max-age=600", "Vendor-CDN-Cache-Control": "max-age=600"} {
			w.Header().Set(name, value)
		}
		_, _ = io.WriteString(w, "page of alice")
	}})
	l.provider.Change(nil, func(answer map[string]any) { delete(answer, "refresh_token") })
	b := l.browser(true)
	if r := b.request("GET", "/", "", nil); r.StatusCode != 303 || r.Header.Get("Cache-Control") != "no-store" {
		t.Errorf("the way to sign in: %d %v", r.StatusCode, r.Header)
	}
	b.signIn()
	r := b.request("GET", "/", "", nil)
	if !strings.Contains(strings.Join(r.Header.Values("Vary"), ","), "Cookie") {
		t.Errorf("a cache gives the page to people without a session: %v", r.Header)
	}
	r = l.do("GET", "/", "", nil)
	if strings.Contains(r.Header.Get("Vary"), "Cookie") || r.Header.Get("Cdn-Cache-Control") == "" {
		t.Errorf("an answer for a token: %v", r.Header)
	}
	clock.ahead.Add(int64(40 * time.Minute))
	r = b.request("GET", "/", "", nil)
	if len(r.Header.Values("Set-Cookie")) == 0 {
		t.Fatal("the session did not come anew")
	}
	for name, values := range r.Header {
		if strings.Contains(name, "Cache-Control") || name == "Surrogate-Control" {
			if got := strings.Join(values, ", "); got != "no-store" {
				t.Errorf("a cache may keep the session: %s: %s", name, got)
			}
		}
	}
}

// TestAttackSignInFromOtherPages lets a page of another site load pictures and frames from sign-in in a
// person's browser, so that this person, and all behind the same address, could not sign in.
func TestAttackSignInFromOtherPages(t *testing.T) {
	l := openLobby(t, plan{})
	victim := l.browser(true)
	for i := range 300 {
		path := []string{login.SignInPath, login.CallbackPath("corp") + "?state=corp.AAAAAAAAAAAAAAAAAAAAAA&code=x"}[i%2]
		dest, mode := []string{"image", "iframe", "empty"}[i%3], []string{"no-cors", "navigate", "cors"}[i%3]
		r := l.do("GET", path, "", map[string]string{"Authorization": "", "Sec-Fetch-Site": []string{"cross-site", "same-site"}[i/2%2], "Sec-Fetch-Dest": dest, "Sec-Fetch-Mode": mode})
		if r.StatusCode != 403 {
			t.Fatalf("%d, %s: got %d %s", i, dest, r.StatusCode, r.body)
		}
	}
	victim.header = map[string]string{"Sec-Fetch-Site": "cross-site", "Sec-Fetch-Dest": "document"} // from a link, and from the issuer
	victim.signIn()
	if r := victim.request("GET", "/", "", nil); r.StatusCode != 200 {
		t.Errorf("the victim: %d %s", r.StatusCode, r.body)
	}
}

// TestAttackLogoutTokensThatNeverEnd sends a megabyte to the back channel, and then the token of before.
func TestAttackLogoutTokensThatNeverEnd(t *testing.T) {
	l := openLobby(t, plan{})
	victim := l.browser(false)
	victim.signIn()
	form := map[string]string{"Authorization": "", "Content-Type": "application/x-www-form-urlencoded"}
	for _, body := range []string{"logout_token=" + strings.Repeat("x", 1<<20), strings.Repeat("a&", 30<<10), "logout_token=x&logout_token=x", "logout_token=%zz", ""} {
		if r := l.do("POST", login.BackChannelPath, body, form); r.StatusCode != 400 && r.StatusCode != 413 {
			t.Errorf("%d bytes: got %d %s", len(body), r.StatusCode, r.body)
		}
	}
	// A logout token of before is replayed: it ends no session that began later.
	old := l.provider.LogoutToken("", "alice", func(c map[string]any) { c["iat"] = time.Now().Add(-time.Hour).Unix() })
	for range 2 {
		if r := l.do("POST", login.BackChannelPath, url.Values{"logout_token": {old}}.Encode(), form); r.StatusCode != 200 {
			t.Errorf("an old token: %d %s", r.StatusCode, r.body)
		}
	}
	if r := victim.request("GET", "/", "", nil); r.StatusCode != 200 {
		t.Errorf("the victim: %d %s", r.StatusCode, bytes.TrimSpace([]byte(r.body)))
	}
}

// TestAttackLogoutTokensOfPages lets a page of another site send forged logout tokens from the browser of a
// victim. They would count as failed checks of the victim's address, whose programs use new tokens.
func TestAttackLogoutTokensOfPages(t *testing.T) {
	l := openLobby(t, plan{})
	victim := l.browser(false)
	victim.signIn()
	forged := l.provider.LogoutToken("sid", "", nil)
	forged = forged[:len(forged)-8] + "AAAAAAAA"
	c := l.client(true)
	for i := range 600 {
		req, err := http.NewRequest("POST", "https://models.test"+login.BackChannelPath, strings.NewReader("logout_token="+forged))
		if err != nil {
			t.Fatal(err)
		}
		req.Header.Set("Content-Type", "application/x-www-form-urlencoded")
		if req.Header.Set("Origin", "https://evil.example"); i%2 == 0 {
			req.Header.Set("Sec-Fetch-Site", "cross-site")
		}
		if r := l.send(c, req); r.StatusCode != 403 || r.reason() != "cross_site" {
			t.Fatalf("%d: got %d %s", i, r.StatusCode, r.body)
		}
	}
	l.untouched()
	for range 3 {
		if r := l.do("GET", "/", "", map[string]string{"Authorization": "Bearer " + l.token(fmt.Sprint("models.predict s", time.Now().UnixNano()))}); r.StatusCode != 200 {
			t.Errorf("a program with a new token: %d %s", r.StatusCode, r.body)
		}
	}
	if r := victim.request("GET", "/", "", nil); r.StatusCode != 200 {
		t.Errorf("the victim: %d %s", r.StatusCode, r.body)
	}
}

// TestAttackTokensKeepNoLogoutBack lets somebody at the address of the issuer, as behind one NAT, forge tokens. What
// the issuer ends has ended.
func TestAttackTokensKeepNoLogoutBack(t *testing.T) {
	now, _ := stopped() // no failure is forgiven meanwhile
	l := openLobby(t, plan{options: proxy.Options{Now: now}})
	b := l.browser(false)
	b.signIn()
	forged := l.token()
	forged = forged[:len(forged)-8] + "AAAAAAAA"
	l.until("the address has used up its failed checks", func() bool {
		return l.do("GET", "/", "", map[string]string{"Authorization": "Bearer " + forged}).reason() == "too_many_failures"
	})
	r := l.do("POST", login.BackChannelPath, "logout_token="+l.provider.LogoutToken("", "alice", nil), map[string]string{"Content-Type": "application/x-www-form-urlencoded"})
	if r.StatusCode != 200 {
		t.Fatalf("got %d %s", r.StatusCode, r.body)
	}
	if r := b.request("GET", "/", "", nil); r.StatusCode == 200 {
		t.Errorf("the session serves: %d", r.StatusCode)
	}
}
