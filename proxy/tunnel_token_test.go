package proxy_test

import (
	"bufio"
	"encoding/base64"
	"fmt"
	"io"
	"maps"
	"net/http"
	"net/url"
	"strings"
	"testing"
	"time"

	"sallyport/auth/apikey"
	"sallyport/proxy"
)

// tokenRoutes takes tokens and API keys in subprotocols, and from whom has none but Authorization.
const tokenRoutes = `
  - {name: both, host: models.test, upstream: '%s', callers: [issuer/corp, apikey], rules: [{allow: "*"}], websocket: true, websocket_token: [kubernetes, openai]}
  - {name: one, host: models.test, path: /openai, upstream: '%s', callers: issuer/corp, rules: [{allow: "*"}], websocket: true, websocket_token: openai}
  - {name: handed, host: models.test, path: /handed, upstream: '%s', callers: [issuer/corp, apikey], rules: [{allow: "*", when: '!("sec-websocket-protocol" in request.headers)'}], websocket: true, websocket_token: kubernetes, insecure_forward_authorization: true}
  - {name: open, host: models.test, path: /open, upstream: '%s', callers: anonymous, rules: [{allow: "*"}], websocket: true}
  - {name: left, host: models.test, path: /left, upstream: '%s', callers: anonymous, rules: [{allow: "*"}], websocket: true, insecure_forward_authorization: true}
`

// kubernetes is the subprotocol by which clients of Kubernetes send a token.
func kubernetes(token string) string {
	return "base64url.bearer.authorization.k8s.io." + base64.RawURLEncoding.EncodeToString([]byte(token))
}

// openAI is the subprotocol by which clients of OpenAI's Realtime API send a token.
func openAI(token string) string { return "openai-insecure-api-key." + token }

// choosing is a WebSocket server that chooses the subprotocol in X-Choose, none without it, and then echoes
// lines.
func choosing(w http.ResponseWriter, r *http.Request) {
	if r.Header.Get("Upgrade") == "" {
		return
	}
	fields := ""
	if choice := r.Header.Get("X-Choose"); choice != "" {
		fields = "Sec-WebSocket-Protocol: " + choice + "\r\n"
	}
	c, rw := openSocket(w, r, fields)
	defer c.Close()
	for {
		line, err := rw.ReadString('\n')
		if err != nil || line == "bye\n" {
			return
		}
		_, _ = io.WriteString(c, "echo "+line)
	}
}

// tokenHouse is a house with tokenRoutes and one API key.
type tokenHouse struct {
	*house
	log *lines
	key string
}

func newTokenHouse(t *testing.T, now func() time.Time) *tokenHouse {
	key := apikey.New()
	p, log := withLog(plan{handler: choosing, routes: tokenRoutes, options: proxy.Options{Now: now}, more: unwatched + "api_keys: {lab: {hash: '" + apikey.HashText(key) + "'}}"})
	return &tokenHouse{build(t, p), log, key}
}

// open asks for a WebSocket, sends two lines, and returns the whole answer.
func (h *house) open(path string, fields ...string) string {
	return h.raw("GET " + path + " HTTP/1.1\r\nHost: models.test\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\n" + wsKey + "\r\n" + strings.Join(append(fields, ""), "\r\n") + "\r\nhi\nbye\n")
}

// opened fails the test unless an answer is that of a tunnel, with this subprotocol.
func opened(t *testing.T, name, got, subprotocol string) {
	t.Helper()
	head, rest, _ := strings.Cut(got, "\r\n\r\n")
	r, err := http.ReadResponse(bufio.NewReader(strings.NewReader(head+"\r\n\r\n")), nil)
	if err != nil || r.StatusCode != 101 || rest != "echo hi\n" || strings.Join(r.Header["Sec-Websocket-Protocol"], "|") != subprotocol {
		t.Errorf("%s: got %q, %v; want %q", name, got, err, subprotocol)
	}
}

// TestWebSocketTokenInSubprotocol checks that a token or an API key in a subprotocol proves the caller over
// both versions of HTTP, and that the upstream gets the other subprotocols alone.
func TestWebSocketTokenInSubprotocol(t *testing.T) {
	h := newTokenHouse(t, nil)
	token := h.token()
	var secrets []string
	for _, c := range []struct {
		name, offered, choice string
		upstream, subprotocol string
		principal             string
	}{
		{"Kubernetes", kubernetes(token) + ", chat,v2.chat", "v2.chat", "chat,v2.chat", "v2.chat", "issuer/corp:alice"},
		{"Kubernetes, last", "v1.chat ,v2.chat, " + kubernetes(token), "v1.chat", "v1.chat ,v2.chat", "v1.chat", "issuer/corp:alice"},
		{"OpenAI", "realtime, " + openAI(token) + ", openai-beta.realtime-v1", "realtime", "realtime, openai-beta.realtime-v1", "realtime", "issuer/corp:alice"},
		{"an API key, Kubernetes", "chat, " + kubernetes(h.key), "chat", "chat", "chat", "apikey:lab"},
		{"an API key, OpenAI", "realtime, " + openAI(h.key), "realtime", "realtime", "realtime", "apikey:lab"},
		{"a server of OpenAI's API that chooses none", "realtime, " + openAI(token), "", "realtime", "realtime", "issuer/corp:alice"},
		{"a server that chooses none", kubernetes(token) + ", realtime", "", "realtime", "", "issuer/corp:alice"},
	} {
		opened(t, c.name, h.open("/", "Sec-WebSocket-Protocol: "+c.offered, "X-Choose: "+c.choice, "Origin: https://other.example"), c.subprotocol)
		r, _ := h.model.seen()
		if got := strings.Join(r.Header["Sec-Websocket-Protocol"], "|"); got != c.upstream || r.Header.Get("X-Sallyport-Principal") != c.principal || r.Header.Get("Authorization") != "" {
			t.Errorf("%s: the upstream got %v", c.name, r.Header)
		}
		f := h.frames()
		f.headers(1, false, ":protocol: websocket", ":method: CONNECT", ":scheme: https", ":authority: models.test", ":path: /", "sec-websocket-version: 13", "sec-websocket-protocol: "+c.offered, "x-choose: "+c.choice)
		f.data(1, false, "hi\nbye\n")
		if got := f.wait(1); got != "200" || f.got[1].body != "echo hi\n" {
			t.Errorf("%s over HTTP/2: %s", c.name, got)
		}
		f.c.Close()
		r, _ = h.model.seen()
		if got := strings.Join(r.Header["Sec-Websocket-Protocol"], "|"); got != c.upstream || r.Header.Get("X-Sallyport-Principal") != c.principal {
			t.Errorf("%s over HTTP/2: the upstream got %v", c.name, r.Header)
		}
		secrets = append(secrets, strings.Split(token, ".")[2], kubernetes(token), kubernetes(h.key), h.key)
	}
	h.secretIn(h.log, secrets...)
	for _, rec := range h.audit.records(t) {
		if rec["dropped"] != nil || rec["reason"] != nil || rec["status"] != 101. {
			t.Errorf("record %v", rec)
		}
	}
}

// TestAttackWebSocketTokens tries credentials that must not count while a victim uses its tunnel. The
// upstream hears of none of them.
func TestAttackWebSocketTokens(t *testing.T) {
	h := newTokenHouse(t, nil)
	victim := h.dial("models.test")
	token := h.token()
	_, _ = io.WriteString(victim, "GET / HTTP/1.1\r\nHost: models.test\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\n"+wsKey+"\r\nSec-WebSocket-Protocol: chat, "+kubernetes(token)+"\r\n\r\n")
	in := bufio.NewReader(victim)
	if r, err := http.ReadResponse(in, nil); err != nil || r.StatusCode != 101 {
		t.Fatalf("the victim: %v %v", r, err)
	}
	expired, err := h.issuer.Sign(func() map[string]any {
		claims := h.issuer.Claims("alice", "models.predict")
		claims["exp"] = time.Now().Add(-time.Hour).Unix()
		return claims
	}())
	if err != nil {
		t.Fatal(err)
	}
	const field = "Sec-WebSocket-Protocol: "
	raw := func(encoded string) string { return field + "chat, base64url.bearer.authorization.k8s.io." + encoded }
	forged := token[:len(token)-6] + "AAAAAA"
	for _, c := range []struct {
		name, path string
		fields     []string
		status     int
		reason     string
	}{
		{"none", "/", []string{field + "chat"}, 401, "no_credential"},
		{"forged", "/", []string{field + "chat, " + kubernetes(forged)}, 401, "bad_credential"},
		{"expired", "/", []string{field + "realtime, " + openAI(expired)}, 401, "token_expired"},
		{"unknown API key", "/", []string{field + "realtime, " + openAI(apikey.New())}, 401, "api_key_unknown"},
		{"twice", "/", []string{field + "chat, " + kubernetes(token) + ", " + kubernetes(token)}, 401, "bad_credential"},
		{"in two lines", "/", []string{field + "chat, " + kubernetes(token), field + kubernetes(token)}, 401, "bad_credential"},
		{"a forged one behind a good one", "/", []string{field + "chat, " + kubernetes(token) + ", " + openAI(forged)}, 401, "bad_credential"},
		{"beside Authorization", "/", []string{field + "chat, " + kubernetes(token), "Authorization: Bearer " + token}, 401, "bad_credential"},
		{"beside an API key", "/", []string{field + "chat, " + kubernetes(h.key), "X-Api-Key: " + h.key}, 401, "bad_credential"},
		{"alone", "/", []string{field + kubernetes(token)}, 400, "subprotocol_missing"},
		{"alone in two lines", "/", []string{field + " ,", field + openAI(token)}, 400, "subprotocol_missing"},
		{"empty", "/", []string{raw("")}, 401, "bad_credential"},
		{"quoted", "/", []string{field + `chat, "` + kubernetes(token) + `"`}, 401, "bad_credential"},
		{"behind a blank", "/", []string{field + "chat " + kubernetes(token)}, 400, "subprotocol_missing"},
		{"behind another", "/", []string{field + "chat, v2/" + openAI(token)}, 401, "bad_credential"},
		{"beside one in quotes", "/", []string{field + `chat, "` + openAI(token) + `", ` + kubernetes(token)}, 401, "bad_credential"},
		{"padded", "/", []string{raw(base64.URLEncoding.EncodeToString([]byte("abcd")))}, 401, "bad_credential"},
		{"not base64", "/", []string{raw("***")}, 401, "bad_credential"},
		{"not UTF-8", "/", []string{raw(base64.RawURLEncoding.EncodeToString([]byte{0xff, 0xfe}))}, 401, "bad_credential"},
		{"a second line smuggled", "/", []string{raw(base64.RawURLEncoding.EncodeToString([]byte(token + "\r\nX-Remote-User: admin")))}, 401, "bad_credential"},
		{"too long", "/", []string{field + "chat, " + kubernetes(strings.Repeat("a", 17<<10))}, 401, "bad_credential"},
		{"in a form that the route does not take", "/openai", []string{field + "chat, " + kubernetes(token)}, 401, "unlisted_credential"},
		{"an API key where tokens count", "/openai", []string{field + "realtime, " + openAI(h.key)}, 401, "unlisted_credential"},
		{"in the query", "/?token=" + token, []string{field + "chat"}, 401, "no_credential"},
		{"and in the query", "/?access_token=" + token, []string{field + "chat, " + kubernetes(token)}, 401, "bad_credential"},
	} {
		hits := h.model.hits.Load()
		got := h.open(c.path, c.fields...)
		if !strings.HasPrefix(got, fmt.Sprintf("HTTP/1.1 %d ", c.status)) || !strings.Contains(got, c.reason) || c.status == 401 && !strings.Contains(strings.ToLower(got), "\r\nwww-authenticate: bearer ") || strings.Contains(got, "eyJ") {
			t.Errorf("%s: got %q; want %d %s", c.name, got, c.status, c.reason)
		}
		if n := h.model.hits.Load(); n != hits {
			t.Errorf("%s: the upstream heard of it", c.name)
		}
		_, _ = io.WriteString(victim, c.name+"\n")
		if line, err := in.ReadString('\n'); line != "echo "+c.name+"\n" {
			t.Fatalf("%s: the victim got %q, %v", c.name, line, err)
		}
	}
	// A request that is no handshake does not authenticate by a subprotocol.
	hits := h.model.hits.Load()
	if got := h.raw("GET / HTTP/1.1\r\nHost: models.test\r\nConnection: close\r\n" + field + "chat, " + kubernetes(token) + "\r\n\r\n"); !strings.HasPrefix(got, "HTTP/1.1 401 ") || h.model.hits.Load() != hits {
		t.Errorf("a plain request: %q", got)
	}
	victim.Close()
	h.secretIn(h.log, strings.Split(token, ".")[2], kubernetes(token), h.key, kubernetes(h.key), kubernetes(forged), strings.Split(expired, ".")[2])
}

// TestUnreadWebSocketTokensStayHere checks that no upstream gets a subprotocol with a token that the gateway
// did not check, unless the route forwards credentials. A key of the gateway goes nowhere.
func TestUnreadWebSocketTokensStayHere(t *testing.T) {
	h := newTokenHouse(t, nil)
	token := h.token()
	want := map[string]int{} // records, by path and by what was dropped
	for _, c := range []struct{ name, path, offered, upstream, dropped string }{
		{"Kubernetes", "/open", "chat, " + kubernetes(token), "chat", "token"},
		{"OpenAI", "/open", "realtime, " + openAI("sk-1"), "realtime", "token"},
		{"in odd letters", "/open", "chat, Base64URL.Bearer.Authorization.K8s.IO.YQ", "chat", "token"},
		{"alone", "/open", kubernetes(token), "", "token"},
		{"quoted", "/open", `chat, "` + kubernetes(token) + `"`, "chat", "token"},
		{"behind a blank", "/open", "chat, v2 " + openAI("sk-1"), "chat", "token"},
		{"behind a semicolon, in odd letters", "/open", "chat;OpenAI-Insecure-Api-Key.sk-1, chat", "chat", "token"},
		{"a key of the gateway in quotes", "/left", `realtime, "` + openAI(h.key) + `"`, "realtime", "token"},
		{"none", "/open", "chat", "chat", ""},
		{"forwarded", "/left", "realtime, " + openAI("sk-1"), "realtime, " + openAI("sk-1"), ""},
		{"a key of the gateway", "/left", "realtime, " + openAI(h.key), "realtime", "token"},
		{"a key of the gateway, encoded", "/left", "chat, " + kubernetes(h.key), "chat", "token"},
	} {
		choice, _, _ := strings.Cut(c.upstream, ",")
		opened(t, c.name, h.open(c.path, "Sec-WebSocket-Protocol: "+c.offered, "X-Choose: "+choice), choice)
		r, _ := h.model.seen()
		if got := r.Header.Get("Sec-Websocket-Protocol"); got != c.upstream {
			t.Errorf("%s: the upstream got %q", c.name, got)
		}
		plain := h.raw("GET " + c.path + " HTTP/1.1\r\nHost: models.test\r\nConnection: close\r\nSec-WebSocket-Protocol: " + c.offered + "\r\n\r\n")
		if r, _ = h.model.seen(); !strings.HasPrefix(plain, "HTTP/1.1 200 ") || r.Header.Get("Sec-Websocket-Protocol") != c.upstream {
			t.Errorf("%s without a handshake: the upstream got %q", c.name, r.Header.Get("Sec-Websocket-Protocol"))
		}
		want[c.path+" "+c.dropped] += 2
	}
	h.secretIn(h.log, strings.Split(token, ".")[2], kubernetes(token), h.key, kubernetes(h.key))
	got := map[string]int{}
	for _, rec := range h.audit.records(t) {
		dropped, _ := rec["dropped"].(string)
		got[rec["path"].(string)+" "+dropped]++
	}
	if !maps.Equal(got, want) {
		t.Errorf("records by path and what was dropped: %v, want %v", got, want)
	}
}

// TestForwardedTokenOfASubprotocol checks that a route which forwards credentials gives its upstream the
// token in Authorization, and never a key of the gateway.
func TestForwardedTokenOfASubprotocol(t *testing.T) {
	h := newTokenHouse(t, nil)
	token := h.token()
	for credential, want := range map[string]string{token: "Bearer " + token, h.key: ""} {
		opened(t, "handed on", h.open("/handed", "Sec-WebSocket-Protocol: chat, "+kubernetes(credential), "X-Choose: chat"), "chat")
		if r, _ := h.model.seen(); strings.Join(r.Header["Authorization"], "|") != want || r.Header.Get("Sec-Websocket-Protocol") != "chat" {
			t.Errorf("the upstream got %v", r.Header)
		}
	}
}

// TestUpstreamChoosesTheToken checks that no client gets a subprotocol with a token from its upstream. Whatever
// else the upstream chooses passes: clients exist that take what they did not offer.
func TestUpstreamChoosesTheToken(t *testing.T) {
	h := newTokenHouse(t, nil)
	token := h.token()
	for choice, refused := range map[string]bool{
		kubernetes(token): true, openAI(token): true, "chat, " + openAI(token): true, "chat\r\nSec-WebSocket-Protocol: " + kubernetes(token): true,
		"chat": false, "unasked": false, "Chat": false, "chat, v2": false,
	} {
		h.model.handler = func(w http.ResponseWriter, r *http.Request) {
			c, rw := openSocket(w, r, "Sec-WebSocket-Protocol: "+choice+"\r\n")
			defer c.Close()
			line, _ := rw.ReadString('\n')
			_, _ = io.WriteString(c, "echo "+line)
		}
		for _, offered := range []string{"chat, " + kubernetes(token), "chat, " + openAI(token)} {
			got := h.open("/", "Sec-WebSocket-Protocol: "+offered)
			switch {
			case !refused:
				opened(t, choice, got, choice)
			case !strings.HasPrefix(got, "HTTP/1.1 502 ") || !strings.Contains(got, "upstream_garbage") || strings.Contains(got, token) || strings.Contains(got, kubernetes(token)):
				t.Errorf("%q: got %q", choice, got)
			}
		}
		if !refused { // as on every route, also without an offer
			opened(t, choice+", with no offer", h.open("/open"), choice)
		}
	}
	h.secretIn(h.log, strings.Split(token, ".")[2], kubernetes(token))
}

// TestTunnelEndsWithTokenOfItsSubprotocol checks that a tunnel ends when its token does, or when a new
// configuration does not read it.
func TestTunnelEndsWithTokenOfItsSubprotocol(t *testing.T) {
	t.Parallel()
	t.Run("expires", func(t *testing.T) {
		now, exp := stopped()
		h := newTokenHouse(t, now)
		h.waits("credential_expired_in_stream", "Sec-WebSocket-Protocol: chat, "+kubernetes(h.ending(exp)), nil)
	})
	t.Run("reload", func(t *testing.T) {
		h := newTokenHouse(t, nil)
		h.waits("withdrawn_in_stream", "Sec-WebSocket-Protocol: realtime, "+openAI(h.token()), func() {
			h.edit(", websocket_token: [kubernetes, openai]", "")
			h.reload("changed")
		})
	})
}

// waits opens a tunnel, does what ends it, and checks the reason in the record once it has ended.
func (h *tokenHouse) waits(reason, field string, end func()) {
	h.t.Helper()
	c := h.dial("models.test")
	_ = c.SetDeadline(time.Now().Add(time.Minute))
	_, _ = io.WriteString(c, "GET / HTTP/1.1\r\nHost: models.test\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\n"+wsKey+"\r\n"+field+"\r\n\r\nhi\n")
	in := bufio.NewReader(c)
	for line := ""; line != "echo hi\n"; {
		var err error
		if line, err = in.ReadString('\n'); err != nil {
			h.t.Fatal(err)
		}
	}
	if end != nil {
		end()
	}
	if rest, err := io.ReadAll(in); len(rest) > 0 || err != nil && strings.Contains(err.Error(), "timeout") {
		h.t.Errorf("got %q, %v", rest, err)
	}
	if rec := h.ended(); rec["reason"] != reason {
		h.t.Errorf("record %v", rec)
	}
}

// TestWebSocketTokenBesideSession checks that the token of a page of another origin counts, and not the
// cookie that the browser adds. Without a token, such a page gets nothing.
func TestWebSocketTokenBesideSession(t *testing.T) {
	l := openLobby(t, plan{handler: choosing, routes: strings.Replace(loginRoutes, "websocket: true\n", "websocket: true\n    websocket_token: kubernetes\n", 1)})
	b := l.browser(false)
	b.signIn()
	var cookies []string
	for _, c := range b.jar.Cookies(&url.URL{Scheme: "https", Host: "models.test", Path: "/"}) {
		cookies = append(cookies, c.Name+"="+c.Value)
	}
	cookie := "Cookie: theme=dark; " + strings.Join(cookies, "; ")
	foreign := []string{cookie, "Origin: https://app.models.test", "Sec-Fetch-Site: same-site", "X-Choose: chat"}
	offer := func(token string) []string {
		return append([]string{"Sec-WebSocket-Protocol: chat, " + kubernetes(token)}, foreign...)
	}
	opened(t, "a token beside a session", l.open("/x", offer(l.token())...), "chat")
	if r, _ := l.model.seen(); r.Header.Get("X-Sallyport-Principal") != "issuer/corp:alice" || r.Header.Get("Cookie") != "theme=dark" {
		t.Errorf("the upstream got %v", r.Header)
	}
	hits := l.model.hits.Load()
	bob, err := l.issuer.Sign(l.issuer.Claims("bob"))
	if err != nil {
		t.Fatal(err)
	}
	for name, c := range map[string]struct {
		fields []string
		want   string
	}{
		"the token of somebody without rights": {offer(bob), "403 forbidden"},
		"a forged token":                       {offer("x.y.z"), "401 bad_credential"},
		"the session alone":                    {append([]string{"Sec-WebSocket-Protocol: chat"}, foreign...), "403 cross_site"},
		"a form that the route does not take":  {append([]string{"Sec-WebSocket-Protocol: realtime, " + openAI(l.token())}, foreign...), "403 cross_site"},
	} {
		status, reason, _ := strings.Cut(c.want, " ")
		if got := l.open("/x", c.fields...); !strings.HasPrefix(got, "HTTP/1.1 "+status+" ") || !strings.Contains(got, reason) {
			t.Errorf("%s: got %q; want %s", name, got, c.want)
		}
	}
	if n := l.model.hits.Load(); n != hits {
		t.Errorf("the upstream heard of %d refused requests", n-hits)
	}
	for _, rec := range l.recordsAtEnd() {
		if rec["path"] == "/x" && rec["status"] == 101. && (rec["login"] != nil || rec["credential"] != "bearer") {
			t.Errorf("record %v", rec)
		}
	}
}

// recordsAtEnd stops the gateway and returns all of its records.
func (h *house) recordsAtEnd() []map[string]any {
	h.t.Helper()
	h.ended()
	return h.audit.records(h.t)
}
