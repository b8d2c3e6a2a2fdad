package proxy_test

import (
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
)

const socketRoutes = `
  - {name: closed, host: [models.test, other.test], upstream: %s, callers: issuer/corp, rules: [{allow: "*"}]}
  - {name: second, host: models.test, path: /second, upstream: %s, callers: issuer/corp, rules: [{allow: "*"}]}
  - {name: open, host: models.test, path: /open, upstream: %s, callers: issuer/corp, rules: [{allow: "*"}], websocket: true}
`

// warnings returns the log's lines about WebSockets that are not allowed.
func warnings(log *lines) []string {
	log.mu.Lock()
	defer log.mu.Unlock()
	var all []string
	for line := range strings.Lines(log.buf.String()) {
		if strings.Contains(line, "clients ask for a WebSocket") {
			all = append(all, line)
		}
	}
	return all
}

// withLog returns the plan with a log, and that log.
func withLog(p plan) (plan, *lines) {
	log := &lines{}
	p.options.Log = slog.New(slog.NewTextHandler(log, nil))
	return p, log
}

// An Upgrade that the route does not allow is not forwarded. The record says so. The log says once for
// each route which setting would allow it.
func TestDroppedUpgradeIsRecordedAndWarnedOf(t *testing.T) {
	p, log := withLog(plan{routes: socketRoutes})
	h := build(t, p)
	upgrade := func(host, path, version, fields string) string {
		return "GET " + path + " HTTP/" + version + "\r\nHost: " + host + "\r\nAuthorization: Bearer TOKEN\r\n" + fields + "\r\n"
	}
	const socket, bye = "Connection: Upgrade, close\r\nUpgrade: WebSocket\r\n" + wsKey + "\r\n", "Connection: close\r\n"
	var want []string
	for _, c := range []struct {
		request, word string
		warned        int // so far
	}{
		{upgrade("models.test", "/", "1.1", bye), "", 0},
		{upgrade("models.test", "/", "1.1", "Connection: Upgrade, close\r\nUpgrade: h2c\r\n"), "upgrade", 0},
		{upgrade("models.test", "/", "1.1", bye+"Upgrade: websocket\r\n"), "upgrade", 0},
		{upgrade("models.test", "/", "1.0", "Connection: Upgrade\r\nUpgrade: websocket\r\n"), "upgrade", 0},
		{upgrade("models.test", "/", "1.1", socket), "upgrade", 1},
		{upgrade("models.test", "/", "1.1", socket), "upgrade", 1},
		{upgrade("models.test", "/second", "1.1", socket), "upgrade", 2},
		{upgrade("models.test", "/open", "1.1", "Connection: Upgrade, close\r\nUpgrade: websocket, h2c\r\n"), "upgrade", 2},
	} {
		if got := h.raw(c.request); !strings.HasPrefix(got, "HTTP/1.1 200 ") {
			t.Errorf("%q: got %s", c.request, got)
		}
		if r, _ := h.model.seen(); r.Header.Get("Upgrade") != "" {
			t.Errorf("%q: the upstream got Upgrade: %s", c.request, r.Header.Get("Upgrade"))
		}
		if got := warnings(log); len(got) != c.warned {
			t.Errorf("%q: %d warnings; want %d: %q", c.request, len(got), c.warned, got)
		}
		want = append(want, c.word)
	}
	for i, line := range warnings(log) {
		if route := []string{"route=closed", "route=second"}[i]; !strings.Contains(line, route) || !strings.Contains(line, "websocket: true") || !strings.Contains(line, "level=WARN") {
			t.Errorf("the warning does not say where, or the cure: %s", line)
		}
	}
	h.ended()
	for i, rec := range h.audit.records(t) {
		if word, _ := rec["dropped"].(string); word != want[i] || rec["reason"] != nil {
			t.Errorf("record %d: dropped %q; want %q; %v", i, word, want[i], rec)
		}
	}
}

// A client without a credential must not cause lines in the log.
func TestUpgradeWithoutCredentialIsNotWarnedOf(t *testing.T) {
	p, log := withLog(plan{routes: socketRoutes})
	h := build(t, p)
	h.refused(h.do("GET", "/", "", map[string]string{"Authorization": "", "Connection": "Upgrade", "Upgrade": "websocket"}), 401, "no_credential")
	if got := warnings(log); got != nil {
		t.Errorf("warned: %q", got)
	}
}

func TestWarningOfRefusedWebSocketOverHTTP2NamesTheSetting(t *testing.T) {
	t.Parallel()
	p, log := withLog(plan{routes: socketRoutes})
	h := build(t, p)
	f := h.frames()
	for id := uint32(1); id < 8; id += 2 {
		f.headers(id, true, h.extended("/")...)
		if got := f.wait(id); got != "501" {
			t.Fatalf("got %s", got)
		}
	}
	if got := warnings(log); len(got) != 1 || !strings.Contains(got[0], "websocket: true") {
		t.Errorf("warned: %q", got)
	}
	if rec := h.ended(); !strings.Contains(fmt.Sprint(rec["cause"]), "websocket: true") || rec["reason"] != "bad_method" {
		t.Errorf("record %v", rec)
	}
	h.untouched()
}

// The record says that trailers were not forwarded, whatever the reason.
func TestDroppedTrailersAreRecorded(t *testing.T) {
	two := blocks(t)
	const routes = `
  - {host: models.test, upstream: %s, callers: issuer/corp, rules: [{allow: "*"}]}
  - {host: models.test, path: /one, upstream: one, callers: issuer/corp, rules: [{allow: "*"}]}
  - {host: models.test, path: /both, upstream: both, callers: issuer/corp, rules: [{allow: "*"}]}
`
	for _, c := range []struct {
		name, path, kind string
		length           int64
		trailers         []string
		want             string
	}{
		{"no trailers", "/", "text/plain", -1, nil, ""},
		{"forwarded over HTTP/1.1", "/", "text/plain", -1, []string{"X-Sum"}, ""},
		{"one that is banned", "/", "text/plain", -1, []string{"X-Sum", "X-Forwarded-For"}, "trailers"},
		{"one that is the gateway's", "/", "text/plain", -1, []string{"X-Sallyport-Principal"}, "trailers"},
		{"over HTTP/2 without request_trailers", "/one", "text/plain", -1, []string{"X-Sum"}, "trailers"},
		{"over HTTP/2 with request_trailers", "/both", "text/plain", -1, []string{"X-Sum"}, ""},
		{"of a gRPC call", "/both/C", "application/grpc", -1, []string{"X-Sum"}, "trailers"},
	} {
		for _, h2 := range []bool{false, true} {
			if c.kind == "application/grpc" && !h2 {
				continue
			}
			t.Run(fmt.Sprintf("%s, HTTP/2 %t", c.name, h2), func(t *testing.T) {
				h := build(t, plan{routes: routes, more: fmt.Sprintf("upstreams: {one: {rest: %q, grpc: %q}, both: {rest: %q, grpc: %q, request_trailers: true}}", two, two, two, two)})
				req, _ := http.NewRequest("POST", "https://models.test"+c.path, struct{ io.Reader }{strings.NewReader("x")})
				req.Header = http.Header{"Authorization": {"Bearer " + h.token()}, "Content-Type": {c.kind}, "Te": {"trailers"}}
				for _, name := range c.trailers {
					if req.Trailer == nil {
						req.Trailer = http.Header{}
					}
					req.Trailer[name] = []string{"7"}
				}
				if got := h.send(h.client(h2), req); got.StatusCode != 200 {
					t.Fatalf("got %d %s", got.StatusCode, got.body)
				}
				if rec := h.ended(); fmt.Sprint(rec["dropped"]) != fmt.Sprint(any(c.want)) && !(c.want == "" && rec["dropped"] == nil) {
					t.Errorf("dropped %v; want %q", rec["dropped"], c.want)
				}
			})
		}
	}
}

// X-Forwarded-For from a peer that is not a trusted proxy is dropped. If the peer is the operator's
// balancer, the record shows that trusted_proxies lacks it.
func TestDroppedForwardedFieldsAreRecorded(t *testing.T) {
	for more, want := range map[string]any{"": "forwarded", "trusted_proxies: 127.0.0.1": nil} {
		h := build(t, plan{more: more})
		if got := h.do("GET", "/", "", map[string]string{"X-Forwarded-For": "192.0.2.7"}); got.StatusCode != 200 {
			t.Fatalf("got %d %s", got.StatusCode, got.body)
		}
		if rec := h.ended(); rec["dropped"] != want {
			t.Errorf("%q: dropped %v; want %v", more, rec["dropped"], want)
		}
	}
}

// Pages of servers with accounts of their own send their tokens in Authorization. On a route for sessions
// alone the record says that the server did not get one, and the setting sends it on.
func TestAuthorizationOfPagesIsRecordedOrForwarded(t *testing.T) {
	l := openLobby(t, plan{routes: `
  - {host: models.test, upstream: %s, callers: login/corp, rules: [{allow: "*"}]}
  - {host: models.test, path: /accounts, upstream: %s, callers: login/corp, rules: [{allow: "*"}], insecure_forward_authorization: true}
  - {host: models.test, path: /tokens, upstream: %s, callers: [issuer/corp, login/corp], rules: [{allow: "*"}]}
`})
	b := l.browser(true)
	b.signIn()
	var want []string
	for _, c := range []struct{ path, token, word, upstream string }{
		{"/", "", "", ""},
		{"/", "its-own", "authorization", ""},
		{"/accounts", "its-own", "", "Bearer its-own"},
		{"/tokens", l.token(), "", ""},
	} {
		header := map[string]string{"Sec-Fetch-Site": "same-origin"}
		if c.token != "" {
			header["Authorization"] = "Bearer " + c.token
		}
		if r := b.request("GET", c.path, "", header); r.StatusCode != 200 {
			t.Fatalf("%s: %d %s", c.path, r.StatusCode, r.body)
		}
		if r, _ := l.model.seen(); r.Header.Get("Authorization") != c.upstream {
			t.Errorf("%s: the upstream got %q; want %q", c.path, r.Header.Get("Authorization"), c.upstream)
		}
		want = append(want, c.word)
	}
	l.ended()
	all := l.audit.records(t)
	for i, rec := range all[len(all)-len(want):] {
		if word, _ := rec["dropped"].(string); word != want[i] {
			t.Errorf("record %d: dropped %q; want %q", i, word, want[i])
		}
	}
}

// Tornado's servers refuse WebSockets whose Origin is not their Host. The log says once which setting shows
// them the name that the browser called.
func TestServersThatCompareOriginWithHostAreWarnedOf(t *testing.T) {
	compares := func(w http.ResponseWriter, r *http.Request) {
		if r.Header.Get("Origin") != "https://"+r.Host {
			w.WriteHeader(http.StatusForbidden)
		}
	}
	server := httptest.NewServer(http.HandlerFunc(compares))
	t.Cleanup(server.Close)
	p, log := withLog(plan{
		handler: compares,
		more:    fmt.Sprintf("upstreams: {seen: {rest: %q, host: client}}", server.URL),
		routes: `
  - {name: other, host: models.test, upstream: %s, callers: issuer/corp, rules: [{allow: "*"}], websocket: true}
  - {name: same, host: models.test, path: /same, upstream: seen, callers: issuer/corp, rules: [{allow: "*"}], websocket: true}
`,
	})
	h := build(t, p)
	warned := func() int { return strings.Count(log.text(), "compare Origin with Host") }
	var want []bool
	for _, c := range []struct {
		path, origin, upgrade, status string
		warned                        int // so far
		cause                         bool
	}{
		{"/", "https://models.test", "", "403", 0, false},
		{"/", "https://other.test", "websocket", "403", 0, false},
		{"/", "https://models.test", "websocket", "403", 1, true},
		{"/", "https://models.test", "websocket", "403", 1, true},
		{"/same", "https://other.test", "websocket", "403", 1, false},
		{"/same", "https://models.test", "websocket", "200", 1, false},
	} {
		fields := "Connection: close\r\n"
		if c.upgrade != "" {
			fields = "Connection: Upgrade, close\r\nUpgrade: " + c.upgrade + "\r\n" + wsKey + "\r\n"
		}
		got := h.raw("GET " + c.path + " HTTP/1.1\r\nHost: models.test\r\nAuthorization: Bearer TOKEN\r\nOrigin: " + c.origin + "\r\n" + fields + "\r\n")
		if !strings.HasPrefix(got, "HTTP/1.1 "+c.status+" ") || warned() != c.warned {
			t.Errorf("%+v: %d warnings, got %s", c, warned(), got)
		}
		want = append(want, c.cause)
	}
	h.ended()
	for i, rec := range h.audit.records(t) {
		if cause := fmt.Sprint(rec["cause"]); strings.Contains(cause, "host: client") != want[i] || rec["reason"] != nil {
			t.Errorf("record %d: %v", i, rec)
		}
	}
	if line := log.text(); !strings.Contains(line, "host: client") || !strings.Contains(line, "route=other") {
		t.Errorf("the warning does not say where, or the cure: %s", line)
	}
}
