package proxy_test

import (
	"bufio"
	"fmt"
	"io"
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"

	"sallyport/auth/apikey"
	"sallyport/auth/authtest"
	"sallyport/auth/httpsig"
	"sallyport/proxy"
)

// passedRoutes pass tokens on: the access token in a field of its own at models.test, and the ID token in
// Authorization at other.test, whose servers get claims too. plain.test passes none to the same servers.
const passedRoutes = `
  - {host: models.test, upstream: m, callers: [login/corp, issuer/corp, apikey], websocket: true, rules: [{allow: "*", models: "*"}],
     identity: {access_token: X-Forwarded-Access-Token}}
  - {host: other.test, upstream: m, callers: [login/corp, issuer/corp], rules: [{allow: "*", models: "*"}],
     identity: {id_token: Authorization, claims: {preferred_username: X-Forwarded-Preferred-Username, department: X-Department,
       email_verified: X-Verified, level: X-Level, teams: X-Teams, one: X-One, address: X-Address, "address.city": X-City, "https://lab.test/tenant": X-Tenant}}}
  - {host: plain.test, upstream: m, callers: [login/corp, issuer/corp], rules: [{allow: "*", models: "*"}]}
`

// passing is a lobby whose routes pass tokens on.
type passing struct {
	*lobby
	key string // an API key

	mu   sync.Mutex // guards the fields below
	last map[string]string
}

func openPassing(t *testing.T, p plan) *passing {
	t.Helper()
	l := &passing{key: apikey.New()}
	if p.routes == "" {
		p.routes = passedRoutes + "upstreams: {m: {rest: '%s'}}\n"
	}
	p.more += fmt.Sprintf("api_keys: {batch: {hash: '%s'}}\n", apikey.HashText(l.key))
	l.lobby = openLobby(t, p)
	l.gives(nil)
	return l
}

// gives notes the tokens that the provider gives, and lets change change its answers.
func (l *passing) gives(change func(answer map[string]any)) {
	l.provider.Change(nil, func(answer map[string]any) {
		if change != nil {
			change(answer)
		}
		l.mu.Lock()
		defer l.mu.Unlock()
		l.last = map[string]string{}
		for _, name := range []string{"access_token", "id_token", "refresh_token"} {
			l.last[name], _ = answer[name].(string)
		}
	})
}

func (l *passing) given(name string) string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.last[name]
}

// got checks that the upstream got a field with one value, or not at all if that is "-".
func (l *passing) got(what, name, want string) {
	l.t.Helper()
	r, _ := l.model.seen()
	got := r.Header.Values(name)
	if want == "-" && len(got) > 0 || want != "-" && (len(got) != 1 || got[0] != want) {
		l.t.Errorf("%s: the upstream got %s: %.60q; want %.60q", what, name, got, want)
	}
}

// TestServersGetThePersonsTokens: each route passes on what it names, of the caller that it has.
func TestServersGetThePersonsTokens(t *testing.T) {
	l := openPassing(t, plan{})
	b := l.browser(true)
	b.signIn()
	if r := b.request("GET", "/", "", nil); r.StatusCode != 200 {
		t.Fatalf("got %d %s", r.StatusCode, r.body)
	}
	l.got("a person", "X-Forwarded-Access-Token", l.given("access_token"))
	l.got("a person", "Authorization", "-")
	own := l.token()
	l.do("GET", "/", "", map[string]string{"Authorization": "Bearer " + own})
	l.got("a bearer token", "X-Forwarded-Access-Token", own)
	l.got("a bearer token", "Authorization", "-")
	l.do("GET", "/", "", map[string]string{"Authorization": "Bearer " + l.key})
	l.got("an API key", "X-Forwarded-Access-Token", "-")
	l.got("an API key", "X-Sallyport-Principal", "apikey:batch")
}

// send sends a request to a host with the caller's own fields.
func (l *passing) send(host, token string, header map[string]string) *reply {
	l.t.Helper()
	req, err := http.NewRequest("GET", "https://"+host+"/", nil)
	if err != nil {
		l.t.Fatal(err)
	}
	if token != "" {
		req.Header.Set("Authorization", "Bearer "+token)
	}
	for name, value := range header {
		req.Header[name] = []string{value}
	}
	return l.house.send(l.client(false), req)
}

// TestTokenInAuthorization: the server gets the ID token of a person, or the token of a caller, as a bearer
// token. What a client sends there goes no further, beside a session and without.
func TestTokenInAuthorization(t *testing.T) {
	l := openPassing(t, plan{})
	b := l.browser(false)
	l.provider.Register("https://other.test/.sallyport/callback/corp")
	if r := b.visit("https://other.test/"); r.StatusCode != 200 {
		t.Fatalf("got %d %s", r.StatusCode, r.body)
	}
	l.got("a person", "Authorization", "Bearer "+l.given("id_token"))
	l.got("a person", "X-Forwarded-Access-Token", "-")
	for _, value := range []string{"Basic cm9vdDpyb290", "Digest username=root", "Bearer", "root"} {
		before := l.model.hits.Load()
		r := b.request("GET", "https://other.test/", "", map[string]string{"Authorization": value, "Accept": "*/*"})
		if l.model.hits.Load() > before {
			l.got("a person who sends "+value, "Authorization", "Bearer "+l.given("id_token"))
		} else if r.StatusCode != 401 {
			t.Errorf("%s: %d %s", value, r.StatusCode, r.body)
		}
	}
	own := l.token()
	l.send("other.test", own, nil)
	l.got("a bearer token", "Authorization", "Bearer "+own)
	l.send("plain.test", own, nil)
	l.got("a route that passes none", "Authorization", "-")
}

// TestClaimsInFields: each kind of value has one form, and what has none is empty. A list of one is no text.
func TestClaimsInFields(t *testing.T) {
	l := openPassing(t, plan{})
	claims := l.issuer.Claims("alice", "models.predict")
	for name, value := range map[string]any{
		"preferred_username": "Müller, \"A\"\r\nX-Forwarded-User: root", "department": "Research, 50 %", "email_verified": false, "level": 7.5,
		"teams": []string{"a,b", "c d", "e"}, "one": []string{"a, b"}, "address": map[string]any{"city": "Bonn"}, "https://lab.test/tenant": nil,
	} {
		claims[name] = value
	}
	token, err := l.issuer.Sign(claims)
	if err != nil {
		t.Fatal(err)
	}
	if r := l.send("other.test", token, nil); r.StatusCode != 200 {
		t.Fatalf("got %d %s", r.StatusCode, r.body)
	}
	for name, want := range map[string]string{
		"X-Forwarded-Preferred-Username": "M%C3%BCller, \"A\"%0D%0AX-Forwarded-User: root", "X-Department": "Research, 50 %25", "X-Verified": "false", "X-Level": "7.5",
		"X-Teams": "a%2Cb,c%20d,e", "X-One": "a%2C%20b", "X-Address": "", "X-City": "Bonn", "X-Tenant": "", "X-Forwarded-User": "-",
	} {
		l.got("claims", name, want)
	}
	l.send("other.test", l.token(), nil)
	for _, name := range []string{"X-Forwarded-Preferred-Username", "X-Teams", "X-Level", "X-City"} {
		l.got("no claims", name, "")
	}
}

// TestAttackTokenFieldsOfClients: no client brings a token or a claim in a field of the gateway's, in any
// spelling, on any route. The same in trailers is dropped.
func TestAttackTokenFieldsOfClients(t *testing.T) {
	t.Parallel()
	l := openPassing(t, plan{})
	token := l.token()
	for _, host := range []string{"models.test", "other.test", "plain.test"} {
		for _, own := range []string{"x-forwarded-access-token", "x-forwarded-preferred-username", "x-department"} {
			for _, name := range spellings(own) {
				r := l.send(host, token, map[string]string{name: "spoofed"})
				if r.StatusCode != 400 {
					t.Errorf("%s: %s: %d", host, name, r.StatusCode)
				}
			}
		}
		for _, name := range spellings("authorization") {
			if strings.EqualFold(name, "authorization") {
				continue
			}
			if r := l.send(host, token, map[string]string{name: "Bearer spoofed"}); r.StatusCode != 400 {
				t.Errorf("%s: %s: %d", host, name, r.StatusCode)
			}
		}
	}
	l.untouched()
	c := l.dial("other.test")
	_, err := io.WriteString(c, "POST / HTTP/1.1\r\nHost: other.test\r\nConnection: close\r\nAuthorization: Bearer "+token+
		"\r\nTransfer-Encoding: chunked\r\nTrailer: X-Department, Authorization\r\n\r\n0\r\nX-Department: spoofed\r\nAuthorization: Bearer spoofed\r\nX-Fine: 1\r\n\r\n")
	if err != nil {
		t.Fatal(err)
	}
	if r, err := http.ReadResponse(bufio.NewReader(c), nil); err != nil || r.StatusCode != 200 {
		t.Fatalf("%v, %v", r, err)
	}
	l.got("trailers", "Authorization", "Bearer "+token)
	l.got("trailers", "X-Department", "")
	r, _ := l.model.seen()
	for name, values := range r.Trailer {
		if name != "X-Fine" {
			t.Errorf("the upstream got the trailer %s: %q", name, values)
		}
	}
}

// TestAttackAuthorizationOfOtherRoutes: a route to the same server that another route leads to by another of its
// endpoints cannot let clients write the field in which the server gets tokens.
func TestAttackAuthorizationOfOtherRoutes(t *testing.T) {
	l := openPassing(t, plan{routes: `
  - {host: models.test, upstream: two, callers: [login/corp, issuer/corp], rules: [{allow: "*", models: "*"}], identity: {access_token: Authorization}}
  - {host: both.test, upstream: both, callers: [issuer/corp], rules: [{allow: "*", models: "*"}]}
  - {host: other.test, upstream: one, callers: issuer/corp, rules: [{allow: "*", models: "*"}], insecure_forward_authorization: true}
upstreams: {one: {rest: '%s'}, two: {rest: "http://127.0.0.1:1"}, both: {rest: ["%s", "http://127.0.0.1:1"]}}
`})
	token := l.token()
	if r := l.send("other.test", token, nil); r.StatusCode != 200 {
		t.Fatalf("got %d %s", r.StatusCode, r.body)
	}
	l.got("the other route", "Authorization", "-")
}

// TestTokensAreNowhereElse looks for the tokens of a person in everything that the gateway tells: answers, pages,
// the session, records and metrics, of requests that succeed and of those that are refused.
func TestTokensAreNowhereElse(t *testing.T) {
	clock := &shiftedClock{}
	l := openPassing(t, plan{options: proxy.Options{Now: clock.now}})
	b := l.browser(false)
	b.signIn()
	var told strings.Builder
	ask := func(method, target string, header map[string]string) {
		r := b.request(method, target, "", header)
		_ = r.Response.Header.Write(&told)
		told.WriteString(r.body)
	}
	navigation := map[string]string{"Sec-Fetch-Mode": "navigate", "Sec-Fetch-Site": "none", "Accept": "text/html"}
	everywhere := func() {
		for _, target := range []string{"/", "/.sallyport/session", "/.sallyport/sign-out", "/.sallyport/sign-in", "/nowhere?access_token=1"} {
			ask("GET", target, map[string]string{"Accept": "application/json"})
			ask("GET", target, navigation)
			ask("PATCH", target, map[string]string{"X-Forwarded-Access-Token": "x"})
		}
	}
	first := l.given("access_token")
	everywhere()
	l.provider.AnswerTokens(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.WriteHeader(400)
		fmt.Fprintf(w, `{"error": %q, "error_description": %q}`, first, first)
	}))
	clock.ahead.Add(int64(10 * time.Minute))
	everywhere()
	told.WriteString(l.metrics())
	for _, r := range l.audit.records(t) {
		fmt.Fprintln(&told, r)
	}
	for _, name := range []string{"access_token", "id_token", "refresh_token"} {
		token := l.given(name)
		signature := token[strings.LastIndexByte(token, '.')+1:]
		if len(signature) < 20 || strings.Contains(told.String(), signature) {
			t.Errorf("the %s is told", name)
		}
	}
}

// TestTokenEnds: a page whose token has ended waits for a fresh one. While the issuer is down people get 503, and
// those without a refresh token sign in anew and come back; a stream that has begun goes on.
func TestTokenEnds(t *testing.T) {
	clock := &shiftedClock{}
	goOn := make(chan struct{})
	l := openPassing(t, plan{options: proxy.Options{Now: clock.now}, handler: func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/stream" {
			_, _ = io.WriteString(w, "begun\n")
			_ = http.NewResponseController(w).Flush()
			<-goOn
		}
		_, _ = io.WriteString(w, "done\n")
	}})
	lifetimes := func(claims map[string]any) {
		claims["iat"], claims["exp"] = clock.now().Unix(), clock.now().Add(5*time.Minute).Unix()
	}
	b := l.browser(false)
	cookie := b.signIn()
	c := l.dial("models.test")
	if _, err := io.WriteString(c, "GET /stream HTTP/1.1\r\nHost: models.test\r\nSec-Fetch-Site: same-origin\r\nCookie: "+cookie+"\r\n\r\n"); err != nil {
		t.Fatal(err)
	}
	stream, err := http.ReadResponse(bufio.NewReader(c), nil)
	if err != nil || stream.StatusCode != 200 {
		t.Fatalf("the stream: %v, %v", stream, err)
	}
	program := map[string]string{"Accept": "application/json"}
	clock.ahead.Add(int64(10 * time.Minute))
	l.provider.AnswerTokens(authtest.Status(http.StatusBadGateway))
	before := l.model.hits.Load()
	if r := b.request("GET", "/", "", program); r.StatusCode != 503 || r.reason() != "issuer_unavailable" {
		t.Errorf("issuer down: %d %s", r.StatusCode, r.body)
	}
	l.refusedPage(b.request("GET", "/", "", nil), 503, "issuer_unavailable", before)
	if r := b.request("GET", "https://plain.test/", "", program); r.StatusCode == 503 {
		t.Errorf("a route that passes none: %d %s", r.StatusCode, r.body)
	}
	l.provider.AnswerTokens(nil)
	l.provider.Change(lifetimes, func(answer map[string]any) {
		l.mu.Lock()
		defer l.mu.Unlock()
		l.last = map[string]string{"access_token": answer["access_token"].(string)}
		delete(answer, "refresh_token")
	})
	clock.ahead.Add(int64(6 * time.Second))
	if r := b.request("GET", "/", "", program); r.StatusCode != 200 {
		t.Errorf("issuer back: %d %s", r.StatusCode, r.body)
	}
	l.got("issuer back", "X-Forwarded-Access-Token", l.given("access_token"))
	for _, reason := range []string{"session_ended", "session_expired"} { // the provider has withdrawn the refresh token; then there is none
		clock.ahead.Add(int64(6 * time.Minute))
		if r := b.request("GET", "/", "", program); r.StatusCode != 401 || r.reason() != reason {
			t.Errorf("want %s: %d %s", reason, r.StatusCode, r.body)
		}
		if r := b.visit("/page"); r.StatusCode != 200 {
			t.Errorf("signing in anew: %d %s", r.StatusCode, r.body)
		}
		l.got("signed in anew", "X-Forwarded-Access-Token", l.given("access_token"))
	}
	close(goOn)
	if text, err := io.ReadAll(stream.Body); err != nil || string(text) != "begun\ndone\n" {
		t.Errorf("the stream: %q, %v", text, err)
	}
}

// TestSignatureCoversTokens: nobody between the gateway and the server can replace a token, or add one to the
// request of a caller who has none.
func TestSignatureCoversTokens(t *testing.T) {
	key := apikey.New()
	h := signed(t, plan{more: fmt.Sprintf("api_keys: {batch: {hash: '%s'}}\n", apikey.HashText(key)), routes: `
  - {host: models.test, upstream: m, callers: [issuer/corp, apikey], rules: [{allow: "*"}], identity: {access_token: Authorization}}
upstreams: {m: {rest: '%s', integrity: {sign: out-1}}}
`})
	policy := httpsig.ForwardPolicy(identityFields()...)
	policy.IfPresent = append(policy.IfPresent, "authorization")
	for what, token := range map[string]string{"a bearer token": h.token(), "an API key": key} {
		if r := h.do("GET", "/", "", map[string]string{"Authorization": "Bearer " + token}); r.StatusCode != 200 {
			t.Fatalf("%s: %d %s", what, r.StatusCode, r.body)
		}
		up, _ := h.model.seen()
		s, err := forwardVerifier(t, policy).Verify(received(up))
		if err != nil {
			t.Fatalf("%s: %v", what, err)
		}
		if sent := up.Header.Get("Authorization"); s.Covers("authorization") != (token != key) || sent != "" && sent != "Bearer "+token || sent == "" && token != key {
			t.Errorf("%s: covered: %v", what, s.Covers("authorization"))
		}
		changed := up.Clone(up.Context())
		changed.Header.Set("Authorization", "Bearer other")
		if _, err := forwardVerifier(t, policy).Verify(received(changed)); err == nil {
			t.Errorf("%s: another token is believed", what)
		}
	}
}

// TestSocketsGetTheTokenOfTheirStart sends it with the handshake.
func TestSocketsGetTheTokenOfTheirStart(t *testing.T) {
	tokens := make(chan string, 1)
	l := openPassing(t, plan{handler: func(w http.ResponseWriter, r *http.Request) {
		if r.Header.Get("Upgrade") == "websocket" {
			tokens <- r.Header.Get("X-Forwarded-Access-Token")
			w.WriteHeader(http.StatusForbidden) // enough has been seen
		}
	}})
	cookie := l.browser(false).signIn()
	c := l.dial("models.test")
	if _, err := io.WriteString(c, "GET /socket HTTP/1.1\r\nHost: models.test\r\nOrigin: https://models.test\r\nSec-Fetch-Site: same-origin\r\nCookie: "+cookie+
		"\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\n"+wsKey+"\r\n\r\n"); err != nil {
		t.Fatal(err)
	}
	if got := <-tokens; got != l.given("access_token") {
		t.Errorf("a token of %d bytes", len(got))
	}
}

// TestAskingProxiesGetTokens: the answer to a proxy that asks has the field, empty for callers without a token,
// so that the proxy does not forward what the client has there.
func TestAskingProxiesGetTokens(t *testing.T) {
	key := apikey.New()
	for _, dialect := range dialects() {
		h := build(t, plan{
			listen: ", forward_auth: {addr: '127.0.0.1:0', from: 127.0.0.1, dialect: " + dialect + "}",
			more:   fmt.Sprintf("trusted_proxies: 127.0.0.1\napi_keys: {batch: {hash: '%s'}}\n", apikey.HashText(key)),
			routes: `
  - {host: models.test, upstream: '%s', callers: [issuer/corp, apikey], rules: [{allow: "*"}], identity: {access_token: X-Forwarded-Access-Token, id_token: Authorization}}
  - {host: models.test, path: /open, upstream: '%s', callers: anonymous, rules: [{allow: "*"}]}
  - {host: models.test, path: /own, upstream: '%s', callers: issuer/corp, rules: [{allow: "*"}]}
  - {host: models.test, path: /elsewhere, upstream: 'http://127.0.0.1:9', callers: anonymous, rules: [{allow: "*"}]}
`})
		token := h.token()
		for field, want := range map[string]string{"Authorization: Bearer " + token: token, "X-Api-Key: " + key: ""} {
			got := h.askAs(append(told(dialect, "GET", "models.test", "/"), field)...)
			access, id := got.Header.Values("X-Forwarded-Access-Token"), got.Header.Values("Authorization")
			if want != "" {
				want = "Bearer " + want
			}
			if got.StatusCode != 200 || len(access) != 1 || len(id) != 1 || strings.TrimPrefix(want, "Bearer ") != access[0] || id[0] != want {
				t.Errorf("%s: %d, %d and %d fields", dialect, got.StatusCode, len(access), len(id))
			}
		}
		// Caddy 2.9 and 2.10 forward the client's field in the place of an empty one (GHSA-7r4p-vjf4-gxv4), and the
		// server would take that for a token of the caller.
		for _, fields := range [][]string{
			{"Authorization: Bearer " + key}, {"X-Api-Key: " + key, "Authorization: Basic YWxpY2U6eA=="}, {"X-Api-Key: " + key, "Authorization: Forged " + token},
		} {
			got := h.askAs(append(told(dialect, "GET", "models.test", "/"), fields...)...)
			if dialect == "caddy" {
				h.refused(got, 403, "not_for_another_proxy")
			} else if id := got.Header.Values("Authorization"); got.StatusCode != 200 || len(id) != 1 || id[0] != "" {
				t.Errorf("%s, %s: %d %q", dialect, fields[len(fields)-1][:20], got.StatusCode, id)
			}
		}
		for path, permitted := range map[string]bool{"/open": dialect != "caddy", "/own": true, "/elsewhere": true} {
			got := h.askAs(append(told(dialect, "GET", "models.test", path), "Authorization: Bearer "+token)...)
			if !permitted {
				h.refused(got, 403, "not_for_another_proxy")
			} else if got.StatusCode != 200 || got.Header.Values("Authorization") != nil {
				t.Errorf("%s, %s: %d %q", dialect, path, got.StatusCode, got.Header.Values("Authorization"))
			}
		}
		if got := h.askAs(append(told(dialect, "GET", "models.test", "/"), "Authorization: Bearer "+token, "X_Forwarded_Access_Token: spoofed")...); got.StatusCode == 200 {
			t.Errorf("%s: a client's field: %d", dialect, got.StatusCode)
		}
	}
}

// TestAskingProxiesGetThePersonsTokens: the same with the session of a person, whose token has ended meanwhile.
func TestAskingProxiesGetThePersonsTokens(t *testing.T) {
	clock := &shiftedClock{}
	l := &passing{lobby: besideProxy(t, "nginx", plan{options: proxy.Options{Now: clock.now}, routes: `
  - {host: models.test, upstream: '%s', callers: login/corp, rules: [{allow: "*", models: "*"}], identity: {access_token: X-Forwarded-Access-Token, id_token: Authorization}}
`})}
	l.gives(nil)
	cookie := l.browser(false).signIn()
	before := l.given("access_token")
	for _, ahead := range []time.Duration{0, 10 * time.Minute} {
		if ahead > 0 {
			l.provider.Change(func(claims map[string]any) { claims["exp"] = clock.now().Add(time.Hour).Unix() }, nil)
			clock.ahead.Add(int64(ahead))
		}
		r := l.askAs(navigation("nginx", "models.test", "/page", cookie)...)
		access := r.Header.Get("X-Forwarded-Access-Token")
		if r.StatusCode != 200 || access == "" || (ahead == 0) != (access == before) || !strings.HasPrefix(r.Header.Get("Authorization"), "Bearer ey") {
			t.Errorf("%s later: %d, tokens of %d and %d bytes", ahead, r.StatusCode, len(access), len(r.Header.Get("Authorization")))
		}
	}
	l.provider.AnswerTokens(authtest.Status(http.StatusBadGateway))
	clock.ahead.Add(int64(10 * time.Minute))
	r := l.askAs(navigation("nginx", "models.test", "/page", cookie)...)
	if r.StatusCode != 503 || r.Header.Get("X-Sallyport-Reason") != "issuer_unavailable" || r.Header.Get("X-Forwarded-Access-Token")+r.Header.Get("Authorization") != "" {
		t.Errorf("issuer down: %d %v", r.StatusCode, r.Header)
	}
}
