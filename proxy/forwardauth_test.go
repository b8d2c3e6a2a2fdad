package proxy_test

import (
	"bufio"
	"fmt"
	"io"
	"net/http"
	"strings"
	"testing"
)

// asked is a house that answers another proxy.
func asked(t *testing.T, dialect, routes string) *house {
	t.Helper()
	return build(t, plan{
		routes: routes,
		listen: ", forward_auth: {addr: '127.0.0.1:0', from: 127.0.0.1, dialect: " + dialect + "}",
		more:   "trusted_proxies: 127.0.0.1",
	})
}

// askAs asks with these field lines; a valid token replaces "TOKEN".
func (h *house) askAs(fields ...string) *reply {
	h.t.Helper()
	text := "GET /whatever HTTP/1.0\r\nHost: gateway.internal\r\n" + strings.Join(fields, "\r\n") + "\r\n\r\n"
	c := h.connect(h.addrs.ForwardAuth, strings.ReplaceAll(text, "TOKEN", h.token()))
	res, err := http.ReadResponse(bufio.NewReader(c), nil)
	if err != nil {
		h.t.Fatal(err)
	}
	defer res.Body.Close()
	body, err := io.ReadAll(res.Body)
	if err != nil {
		h.t.Fatal(err)
	}
	return &reply{res, string(body)}
}

// told returns the fields by which each product describes a request.
func told(dialect, method, host, uri string) []string {
	if dialect == "nginx" {
		return []string{"X-Original-Method: " + method, "X-Original-URL: https://" + host + uri}
	}
	return []string{"X-Forwarded-Method: " + method, "X-Forwarded-Proto: https", "X-Forwarded-Host: " + host, "X-Forwarded-Uri: " + uri}
}

func dialects() []string { return []string{"nginx", "traefik", "caddy"} }

const authRoutes = `
  - {host: models.test, path: /v1, methods: [GET, POST, HEAD], upstream: '%s', callers: issuer/corp, rules: [{allow: [post, head], who: {scope: models.predict}}, {allow: get, who: {scope: models.read}}]}
  - {host: models.test, path: /open, upstream: '%s', callers: anonymous, rules: [{allow: "*"}], cors: {origins: "*"}, limits: {rate: {per: address, limit: 1/h}}}
  - {host: models.test, path: /closed, respond: {status: 200, body: closed}, callers: anonymous}
  - {host: models.test, path: /office, upstream: '%s', callers: anonymous, rules: [{allow: "*"}], allow_from: 192.0.2.0/24}
  - {host: models.test, path: /named, upstream: '%s', callers: issuer/corp, rules: [{allow: "*"}], identity: {principal: X-Remote-User, scopes: off, name: Remote-User, email: Remote-Email, groups: Remote-Groups}}
`

func TestForwardAuthPermits(t *testing.T) {
	for _, dialect := range dialects() {
		t.Run(dialect, func(t *testing.T) {
			h := asked(t, dialect, authRoutes)
			got := h.askAs(append(told(dialect, "POST", "models.test", "/v1/models/m:predict?q=%2F"), "Authorization: Bearer TOKEN", "X-Forwarded-For: 10.9.9.9, 192.0.2.7", "Content-Type: application/json")...)
			if got.StatusCode != 200 || got.body != "" {
				t.Fatalf("got %d %s", got.StatusCode, got.body)
			}
			for name, want := range map[string]string{
				"X-Sallyport-Principal": "issuer/corp:alice", "X-Sallyport-Scopes": "models.predict", "X-Sallyport-Request-Id": got.Header.Get("X-Request-Id"), "Cache-Control": "no-store",
			} {
				if v := got.Header.Values(name); len(v) != 1 || v[0] != want {
					t.Errorf("%s: %q; want %q", name, v, want)
				}
			}
			h.untouched()
			rec := h.ended()
			for name, want := range map[string]any{
				"method": "POST", "host": "models.test", "path": "/v1/models/m:predict", "route": "GET,POST,HEAD models.test/v1", "client": "192.0.2.7",
				"principal": "issuer/corp:alice", "status": 200.0, "upstream": "forward_auth",
			} {
				if rec[name] != want {
					t.Errorf("recorded %s: %v; want %v", name, rec[name], want)
				}
			}
		})
	}
}

// All identity fields are always sent, so that the other proxy replaces those of the client.
func TestForwardAuthAlwaysSendsEveryIdentityField(t *testing.T) {
	h := asked(t, "caddy", authRoutes)
	got := h.askAs(told("caddy", "GET", "models.test", "/office")...)
	if got.StatusCode != 403 || got.reason() != "address_not_allowed" {
		t.Errorf("got %d %s", got.StatusCode, got.body)
	}
	got = h.askAs(append(told("caddy", "GET", "models.test", "/office"), "X-Forwarded-For: 192.0.2.1")...)
	scopes, there := got.Header["X-Sallyport-Scopes"]
	if got.StatusCode != 200 || got.Header.Get("X-Sallyport-Principal") != "anonymous" || !there || scopes[0] != "" {
		t.Errorf("got %d, header %v", got.StatusCode, got.Header)
	}
	got = h.askAs(append(told("caddy", "GET", "models.test", "/named"), "Authorization: Bearer TOKEN")...)
	if got.StatusCode != 200 || got.Header.Get("X-Remote-User") != "issuer/corp:alice" || got.Header["X-Sallyport-Scopes"] != nil {
		t.Errorf("got %d, header %v", got.StatusCode, got.Header)
	}
	// Without a value the fields are there all the same, so that the proxy replaces its client's.
	for name, want := range map[string]string{"Remote-User": "alice", "Remote-Email": "", "Remote-Groups": ""} {
		if values := got.Header[name]; len(values) != 1 || values[0] != want {
			t.Errorf("the proxy got %s: %q; want %q", name, values, want)
		}
	}
}

// Each refusal equals the gateway's own, except that nginx gets 403 for every 4xx: it takes no
// other status for a refusal.
func TestForwardAuthRefuses(t *testing.T) {
	t.Parallel()
	const token = "Authorization: Bearer TOKEN"
	for _, c := range []struct {
		name, method, host, uri string
		fields                  []string
		status                  int
		reason                  string
	}{
		{"no credential", "POST", "models.test", "/v1", nil, 401, "no_credential"},
		{"a bad one", "POST", "models.test", "/v1", []string{"Authorization: Bearer x.y.z"}, 401, "bad_credential"},
		{"two", "POST", "models.test", "/v1", []string{token, token}, 400, "bad_field"},
		{"no scope", "GET", "models.test", "/v1", []string{token}, 403, "insufficient_scope"},
		{"a verb that no rule names", "HEAD", "models.test", "/v1x", []string{token}, 404, "no_route"},
		{"a method of no route", "DELETE", "models.test", "/v1", []string{token}, 405, "method_not_allowed"},
		{"another host", "POST", "other.test", "/v1", []string{token}, 404, "no_route"},
		{"a fixed answer is not leave", "GET", "models.test", "/closed", nil, 403, "not_for_another_proxy"},
		{"a preflight is not leave", "OPTIONS", "models.test", "/open", []string{"Origin: https://a.test", "Access-Control-Request-Method: GET"}, 403, "not_for_another_proxy"},
		{"our names", "POST", "models.test", "/v1", []string{token, "X-Sallyport-Principal: root"}, 400, "protected_field"},
		{"our names, as WSGI folds them", "POST", "models.test", "/v1", []string{token, "X_Sallyport_Principal: root"}, 400, "protected_field"},
		{"another method", "GET", "models.test", "/open", []string{"X-HTTP-Method-Override: DELETE"}, 400, "protected_field"},
		{"dot segments", "GET", "models.test", "/open/../v1", nil, 400, "ambiguous_path"},
		{"escaped dot segments", "GET", "models.test", "/open/%2e%2e/v1", nil, 400, "ambiguous_path"},
		{"an escaped slash", "GET", "models.test", "/open%2fv1", nil, 400, "ambiguous_path"},
		{"two slashes", "GET", "models.test", "//open", nil, 400, "ambiguous_path"},
		{"a parameter", "GET", "models.test", "/open;x", nil, 400, "ambiguous_path"},
		{"a form that would not be forwarded", "GET", "models.test", "/%6fpen", nil, 400, "ambiguous_path"},
		{"digits in lower case", "GET", "models.test", "/open/%c3%a9", nil, 400, "ambiguous_path"},
		{"letter case", "GET", "models.test", "/Open", nil, 400, "ambiguous_path"},
		{"a fragment", "GET", "models.test", "/open#x", nil, 400, "ambiguous_path"},
		{"no path", "GET", "models.test", "", nil, 400, ""},
		{"no method", "", "models.test", "/open", nil, 400, "bad_target"},
		{"a method that is none", "GE T", "models.test", "/open", nil, 400, "bad_target"},
		{"CONNECT", "CONNECT", "models.test", "/open", nil, 501, "bad_method"},
		{"a host that is none", "GET", "models.test:x", "/open", nil, 400, "bad_authority"},
		{"several hosts", "GET", "models.test, other.test", "/open", nil, 400, "bad_authority"},
		{"a user", "GET", "u@models.test", "/open", nil, 400, "bad_authority"},
	} {
		for _, dialect := range dialects() {
			t.Run(c.name+" "+dialect, func(t *testing.T) {
				h := asked(t, dialect, authRoutes)
				got := h.askAs(append(told(dialect, c.method, c.host, c.uri), c.fields...)...)
				status := c.status
				if dialect == "nginx" && status != 401 && status < 500 {
					status = 403
				}
				if got.StatusCode != status || c.reason != "" && got.reason() != c.reason {
					t.Errorf("got %d %s; want %d with reason %s", got.StatusCode, got.body, status, c.reason)
				}
				if got.Header.Get("X-Sallyport-Reason") != got.reason() || got.Header.Get("X-Sallyport-Status") != fmt.Sprint(c.status) {
					t.Errorf("header %v", got.Header)
				}
				if got.Header.Get("X-Sallyport-Principal") != "" || status == 401 && got.Header.Get("Www-Authenticate") == "" {
					t.Errorf("header %v", got.Header)
				}
				if rec := h.ended(); rec["status"] != float64(status) || rec["reason"] != got.reason() {
					t.Errorf("record %v", rec)
				}
			})
		}
	}
}

// Only the configured family of fields describes the request, and each field once: a client may
// send the others, or a second line.
func TestForwardAuthTrustsOnlyTheConfiguredFields(t *testing.T) {
	for _, c := range []struct {
		name, dialect string
		fields        []string
		reason        string
	}{
		{"the other family alone", "nginx", told("traefik", "GET", "models.test", "/open"), "request_not_told"},
		{"the other family alone", "traefik", told("nginx", "GET", "models.test", "/open"), "request_not_told"},
		{"the other family besides", "nginx", append(told("nginx", "GET", "models.test", "/v1"), told("traefik", "GET", "models.test", "/open")...), "no_credential"},
		{"the other family besides", "caddy", append(told("caddy", "GET", "models.test", "/v1"), told("nginx", "GET", "models.test", "/open")...), "no_credential"},
		{"a path twice", "traefik", append(told("traefik", "GET", "models.test", "/v1"), "X-Forwarded-Uri: /open"), "request_not_told"},
		{"a URL twice", "nginx", append(told("nginx", "GET", "models.test", "/v1"), "X-Original-URL: https://models.test/open"), "request_not_told"},
		{"a method twice", "nginx", append(told("nginx", "GET", "models.test", "/v1"), "X-Original-Method: POST"), "request_not_told"},
		{"no method", "nginx", told("nginx", "GET", "models.test", "/open")[1:], "request_not_told"},
		{"no path", "caddy", told("caddy", "GET", "models.test", "/open")[:3], "request_not_told"},
		{"nothing", "caddy", nil, "request_not_told"},
		{"another scheme", "traefik", append(told("traefik", "GET", "models.test", "/open")[2:], "X-Forwarded-Method: GET", "X-Forwarded-Proto: ws"), "bad_target"},
		{"a rewritten URL", "traefik", append(told("traefik", "GET", "models.test", "/v1"), "X-Rewrite-Url: /open", "X-Original-Uri: /open"), "no_credential"},
	} {
		t.Run(c.dialect+" "+c.name, func(t *testing.T) {
			h := asked(t, c.dialect, authRoutes)
			if got := h.askAs(c.fields...); got.StatusCode == 200 || got.reason() != c.reason {
				t.Errorf("got %d %s; want reason %s", got.StatusCode, got.body, c.reason)
			}
		})
	}
}

// Rate limits apply to decisions as they do to requests.
func TestForwardAuthDecisionsCountTowardsRates(t *testing.T) {
	h := asked(t, "traefik", authRoutes)
	ask := func() *reply { return h.askAs(told("traefik", "GET", "models.test", "/open")...) }
	if got := ask(); got.StatusCode != 200 {
		t.Fatalf("got %d %s", got.StatusCode, got.body)
	}
	if got := ask(); got.StatusCode != 429 || got.Header.Get("Retry-After") == "" {
		t.Errorf("got %d %s", got.StatusCode, got.body)
	}
}

// Only listed proxies may ask, and request listeners do not offer it.
func TestForwardAuthIsForListedPeersOnly(t *testing.T) {
	h := build(t, plan{listen: ", forward_auth: {addr: '127.0.0.1:0', from: 10.0.0.1, dialect: nginx}", more: "trusted_proxies: 10.0.0.1"})
	if all, _ := io.ReadAll(h.connect(h.addrs.ForwardAuth, "")); len(all) > 0 {
		t.Errorf("got %q", all)
	}
	got := h.do("GET", "/", "", map[string]string{"X-Original-Method": "GET", "X-Original-Url": "https://models.test/x"})
	if r, _ := h.model.seen(); got.StatusCode != 200 || r.URL.Path != "/" {
		t.Errorf("got %d for %s", got.StatusCode, r.URL)
	}
}

// A question with content is answered without reading the content.
func TestForwardAuthReadsNoContent(t *testing.T) {
	h := asked(t, "traefik", authRoutes)
	got := h.askAs(append(told("traefik", "POST", "models.test", "/v1"), "Authorization: Bearer TOKEN", "Content-Length: 1000000")...)
	if got.StatusCode != 200 {
		t.Errorf("got %d %s", got.StatusCode, got.body)
	}
}

// TestForwardAuthNeverReadsTheModelFromTheBody: the proxy keeps the body, and one that it shows need
// not be what it forwards. The path of a description names a model all the same.
func TestForwardAuthNeverReadsTheModelFromTheBody(t *testing.T) {
	const routes = `
  - host: models.test
    upstream: '%s'
    serves: openai
    callers: issuer/corp
    rules: [{allow: "*", models: public}, {allow: "*", models: "*", who: {scope: admin}}]
`
	for _, dialect := range dialects() {
		t.Run(dialect, func(t *testing.T) {
			h := asked(t, dialect, routes)
			ask := func(method, path string, more ...string) *reply {
				return h.askAs(append(told(dialect, method, "models.test", path), append([]string{"Authorization: Bearer TOKEN"}, more...)...)...)
			}
			h.refused(ask("POST", "/v1/completions"), 403, "not_for_another_proxy")
			h.refused(ask("POST", "/v1/completions", "Content-Type: application/json", "Content-Length: 18", "", `{"model":"public"}`), 403, "not_for_another_proxy")
			h.refused(ask("GET", "/v1/models/secret"), 403, "insufficient_scope")
			if got := ask("GET", "/v1/models/public"); got.StatusCode != 200 {
				t.Errorf("the description of an allowed model: %d %s", got.StatusCode, got.body)
			}
			if got := h.askAs(append(told(dialect, "POST", "models.test", "/v1/embeddings"), "Authorization: Bearer "+h.token("admin"))...); got.StatusCode != 200 {
				t.Errorf("a rule about no model: %d %s", got.StatusCode, got.body)
			}
		})
	}
}

// The other proxy forwards its client's Upgrade by itself. Permission for a plain request must not
// become permission for a tunnel.
func TestForwardAuthRefusesUpgradesThatTheRouteDoesNotAllow(t *testing.T) {
	t.Parallel()
	const routes = `
  - {host: models.test, path: /plain, upstream: '%s', callers: anonymous, rules: [{allow: "*"}]}
  - {host: models.test, path: /socket, upstream: '%s', callers: anonymous, rules: [{allow: "*"}], websocket: true}
`
	for _, c := range []struct {
		name   string
		fields []string
		socket bool // the route with websocket: true permits it
	}{
		{"WebSocket", []string{"Connection: Upgrade", "Upgrade: websocket", "Sec-WebSocket-Version: 13", "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ=="}, true},
		{"WebSocket without the fields of the connection", []string{"Sec-WebSocket-Version: 13", "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ=="}, true},
		{"Upgrade alone", []string{"Upgrade: WebSocket"}, true},
		{"HTTP/2", []string{"Connection: Upgrade, HTTP2-Settings", "Upgrade: h2c", "HTTP2-Settings: AAMAAABk"}, false},
		{"several", []string{"Connection: Upgrade", "Upgrade: websocket, h2c"}, false},
		{"another", []string{"Connection: Upgrade", "Upgrade: connect-udp"}, false},
	} {
		for _, dialect := range dialects() {
			t.Run(c.name+" "+dialect, func(t *testing.T) {
				h := asked(t, dialect, routes)
				for path, permitted := range map[string]bool{"/plain": false, "/socket": c.socket} {
					got := h.askAs(append(told(dialect, "GET", "models.test", path), c.fields...)...)
					if permitted && got.StatusCode != 200 || !permitted && (got.StatusCode != 403 || got.Header.Get("X-Sallyport-Reason") != "upgrade_not_allowed") {
						t.Errorf("%s: got %d %s", path, got.StatusCode, got.body)
					}
				}
				if got := h.askAs(told(dialect, "GET", "models.test", "/plain")...); got.StatusCode != 200 {
					t.Errorf("without an upgrade: got %d %s", got.StatusCode, got.body)
				}
			})
		}
	}
}

// ingress-nginx describes requests as nginx is told to, and adds fields of its own to every question.
func TestForwardAuthTakesQuestionsOfIngressNginx(t *testing.T) {
	h := asked(t, "nginx", authRoutes)
	ask := func(more ...string) *reply {
		return h.askAs(append(append(told("nginx", "POST", "models.test", "/v1/models/m:predict"), "Authorization: Bearer TOKEN", "X-Request-ID: 8e6f", "X-Sent-From: nginx-ingress-controller",
			"X-Real-IP: 192.0.2.7", "X-Forwarded-For: 192.0.2.7"), more...)...)
	}
	if got := ask("X-Auth-Request-Redirect: /v1/models/m:predict"); got.StatusCode != 200 {
		t.Errorf("got %d %s", got.StatusCode, got.body)
	}
	for _, spoofed := range []string{"X-Auth-Request-User: root", "X_Auth_Request_Redirect: /", "X-Auth-Request-Redirect-User: root"} {
		if got := ask(spoofed); got.StatusCode != 403 || got.reason() != "protected_field" {
			t.Errorf("%s: got %d %s", spoofed, got.StatusCode, got.body)
		}
	}
}

// TestForwardAuthForwardsNoOtherTarget: the gateway drops fields by which clients make some servers serve another
// path, host or model. The other proxy would forward them, so there is no permission, unless they say what was
// decided on.
func TestForwardAuthForwardsNoOtherTarget(t *testing.T) {
	for _, dialect := range dialects() {
		h := asked(t, dialect, "\n  - {host: models.test, upstream: '%s', callers: anonymous, rules: [{allow: '*'}]}\n")
		for _, field := range []string{
			"X-Rewrite-URL: /v1", "X-Original-URI: /v1", "X-Original-URI: /open?", "X-Original-Host: other.test", "X-Host: other.test", "X-Envoy-Original-Path: /open",
			"X-Original-URL: /v1", "X-Original-Method: DELETE", "Script-Name: /v1", "Proxy: http://evil.example", "X-Host: models.test.other.test",
			"X-Original-Host: models.test:81", "X-Original-URI: https://models.test:81/open", "X-Original-URI: http://models.test/open", "X-Original-URI: https://x@models.test/open",
			"X-Vertex-Ai-Triton-Redirect: v2/repository/index", "X-Amzn-SageMaker-Target-Model: other",
		} {
			want := "not_for_another_proxy"
			if dialect == "nginx" && (strings.HasPrefix(field, "X-Original-URL") || strings.HasPrefix(field, "X-Original-Method")) {
				want = "request_not_told" // which nginx tells itself
			}
			if dialect == "nginx" && strings.Contains(field, ":81") {
				continue // nginx tells no port
			}
			if r := h.askAs(append(told(dialect, "GET", "models.test", "/open"), field)...); r.StatusCode == 200 || r.reason() != want {
				t.Errorf("%s, %s: %d %s; want %s", dialect, field, r.StatusCode, r.body, want)
			}
		}
		for _, field := range []string{"X-Original-URI: /open?a=b", "X-Rewrite-URL: https://models.test/open?a=b", "X-Original-Host: models.test", "X-Real-IP: 192.0.2.7", "Remote-Addr: 192.0.2.7", "X-Forwarded-Port: 443"} {
			if r := h.askAs(append(told(dialect, "GET", "models.test", "/open?a=b"), field)...); r.StatusCode != 200 {
				t.Errorf("%s, %s: %d %s", dialect, field, r.StatusCode, r.body)
			}
		}
		// nginx has the host in $host, $http_host and $host:$server_port.
		for host, same := range map[string][]string{
			"models.test:8443": {"X-Original-Host: models.test", "X-Host: models.test:8443", "X-Original-URI: https://models.test/open?q=%2f", "X-Rewrite-URL: /open?q=%2f"},
			"Models.Test":      {"X-Original-Host: models.test", "X-Host: models.test:443", "X-Original-URI: https://models.test/open?q=%2f"},
		} {
			if dialect == "nginx" {
				same = append(same, "X-Host: models.test:8443", "X-Original-URI: https://models.test:8443/open?q=%2f") // told without the port
			}
			for _, field := range same {
				if r := h.askAs(append(told(dialect, "GET", host, "/open?q=%2f"), field)...); r.StatusCode != 200 {
					t.Errorf("%s, %s, %s: %d %s", dialect, host, field, r.StatusCode, r.body)
				}
			}
		}
		for _, field := range []string{"X_Original_URI: /v1", "X.Original.Url: /v1", "X_Host: other.test", "Script_Name: /v1"} {
			if r := h.askAs(append(told(dialect, "GET", "models.test", "/open"), field)...); r.StatusCode != 400 && r.StatusCode != 403 {
				t.Errorf("%s, %s: %d %s", dialect, field, r.StatusCode, r.body)
			}
		}
	}
}
