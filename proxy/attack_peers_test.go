package proxy_test

import (
	"fmt"
	"strings"
	"testing"
)

// These tests cover vulnerabilities known from other proxies. Each checks the refusal and that the
// upstream saw nothing, or checks what the upstream received.

func TestIdentityIsSetAfterHopByHopFieldsAreRemoved(t *testing.T) {
	for _, name := range []string{"X-Sallyport-Principal", "x-sallyport-scopes", "X-Forwarded-For", "X-Auth-User", "Content-Type"} {
		t.Run(name, func(t *testing.T) {
			h := build(t, plan{})
			got := h.raw("GET / HTTP/1.1\r\nHost: models.test\r\nAuthorization: Bearer TOKEN\r\nConnection: close, " + name + "\r\n\r\n")
			if !strings.HasPrefix(got, "HTTP/1.1 400 ") {
				t.Errorf("got %s; want 400", got)
			}
			h.untouched()
		})
	}
	t.Run("an ordinary Connection", func(t *testing.T) {
		h := build(t, plan{})
		got := h.raw("GET / HTTP/1.1\r\nHost: models.test\r\nAuthorization: Bearer TOKEN\r\nConnection: TE, close, keep-alive\r\nTE: trailers\r\nKeep-Alive: 5\r\n\r\n")
		r, _ := h.model.seen()
		if !strings.HasPrefix(got, "HTTP/1.1 200 ") || r.Header.Get("X-Sallyport-Principal") != "issuer/corp:alice" {
			t.Fatalf("got %s", got)
		}
		for _, name := range []string{"Te", "Keep-Alive", "Proxy-Connection"} {
			if v := r.Header.Get(name); v != "" {
				t.Errorf("the upstream got %s: %s", name, v)
			}
		}
	})
}

func TestUpgradesAreDroppedUnlessTheRouteAllowsWebSocket(t *testing.T) {
	for _, upgrade := range []string{"h2c", "websocket", "TLS/1.0", "h2c, websocket"} {
		t.Run(upgrade, func(t *testing.T) {
			h := build(t, plan{})
			got := h.raw("GET / HTTP/1.1\r\nHost: models.test\r\nAuthorization: Bearer TOKEN\r\nConnection: Upgrade, HTTP2-Settings, close\r\nUpgrade: " + upgrade + "\r\nHTTP2-Settings: AAMAAABkAAQAAP__\r\n\r\n")
			if !strings.HasPrefix(got, "HTTP/1.1 200 ") {
				t.Fatalf("got %s", got)
			}
			r, _ := h.model.seen()
			for _, name := range []string{"Upgrade", "Http2-Settings", "Connection"} {
				if v := r.Header.Get(name); v != "" {
					t.Errorf("the upstream got %s: %s", name, v)
				}
			}
		})
	}
}

func TestNamesThatFoldOntoProtectedOnesAreRefused(t *testing.T) {
	for _, name := range []string{
		"X-Sallyport-Principal", "x_sallyport_principal", "X.Sallyport.Principal", "X-Sallyport_Scopes", "x~sallyport~request~id", "X-Sallyport-Anything",
		"X-Remote-User", "X_Remote_User", "x.remote.user",
		"X_Forwarded_For", "X.Forwarded.Proto", "X_Real_Ip",
		"Content_Length", "Transfer_Encoding", "Transfer.Encoding", "Content_Type", "X_Api_Key", "Script_Name",
		"X-HTTP-Method-Override", "X-Method-Override", "X_HTTP_Method",
	} {
		t.Run(name, func(t *testing.T) {
			h := build(t, plan{routes: oneRoute + `
  - {host: other.test, upstream: '%s', callers: anonymous, rules: [{allow: "*"}], identity: {principal: X-Remote-User}}
`})
			h.refused(h.do("GET", "/", "", map[string]string{name: "admin"}), 400, "protected_field")
		})
	}
	t.Run("names that servers take for their own variables are dropped", func(t *testing.T) {
		h := build(t, plan{})
		got := h.do("GET", "/", "", map[string]string{"Script-Name": "/admin", "Remote-User": "root", "Proxy": "http://evil", "X-Original-Url": "/admin", "X-Rewrite-Url": "/admin", "X-Custom": "kept"})
		r, _ := h.model.seen()
		if got.StatusCode != 200 || r.Header.Get("X-Custom") != "kept" {
			t.Fatalf("got %d, header %v", got.StatusCode, r.Header)
		}
		for _, name := range []string{"Script-Name", "Remote-User", "Proxy", "X-Original-Url", "X-Rewrite-Url"} {
			if v := r.Header.Get(name); v != "" {
				t.Errorf("the upstream got %s: %s", name, v)
			}
		}
	})
}

func TestProtectedFieldsAreReplacedNeverAppended(t *testing.T) {
	h := build(t, plan{})
	got := h.do("GET", "/", "", map[string]string{
		"X-Forwarded-For": "10.9.9.9", "X-Forwarded-Proto": "http", "X-Forwarded-Host": "evil.test", "X-Forwarded-User": "admin",
		"X-Forwarded-Groups": "admins", "X-Forwarded-Uri": "/public", "X-Forwarded-Prefix": "/x", "X-Forwarded-Port": "80", "Forwarded": "for=10.9.9.9", "X-Real-Ip": "10.9.9.9",
	})
	if got.StatusCode != 200 {
		t.Fatalf("got %d %s", got.StatusCode, got.body)
	}
	r, _ := h.model.seen()
	want := map[string]string{
		"X-Forwarded-For": "127.0.0.1", "X-Forwarded-Proto": "https", "X-Forwarded-Host": "models.test", "Forwarded": "for=127.0.0.1;proto=https;host=models.test",
		"X-Sallyport-Principal": "issuer/corp:alice", "X-Sallyport-Scopes": "models.predict", "X-Sallyport-Request-Id": got.Header.Get("X-Request-Id"),
	}
	for name, value := range want {
		if v := r.Header.Values(name); len(v) != 1 || v[0] != value {
			t.Errorf("the upstream got %s: %q; want exactly %q", name, v, value)
		}
	}
	for name := range r.Header {
		if strings.HasPrefix(name, "X-Forwarded-") && want[name] == "" || name == "X-Real-Ip" || name == "Authorization" {
			t.Errorf("the upstream got %s: %s", name, r.Header.Get(name))
		}
	}
}

func TestDuplicatesAreRefused(t *testing.T) {
	for _, c := range []struct{ name, fields string }{
		{"Authorization", "Authorization: Bearer TOKEN\r\nAuthorization: Bearer TOKEN\r\n"},
		{"Authorization of two kinds", "Authorization: Bearer TOKEN\r\nAuthorization: Basic YTpi\r\n"},
		{"Signature", "Authorization: Bearer TOKEN\r\nSignature: a=:AA==:\r\nSignature: b=:AA==:\r\n"},
		{"Signature-Input", "Authorization: Bearer TOKEN\r\nSignature-Input: a=()\r\nSignature-Input: b=()\r\n"},
		{"Content-Digest", "Authorization: Bearer TOKEN\r\nContent-Digest: a\r\nContent-Digest: b\r\n"},
		{"DPoP", "Authorization: Bearer TOKEN\r\nDPoP: a\r\nDPoP: b\r\n"},
		{"Host", "Host: other.test\r\nAuthorization: Bearer TOKEN\r\n"},
	} {
		t.Run(c.name, func(t *testing.T) {
			h := build(t, plan{})
			if got := h.raw("GET / HTTP/1.1\r\nHost: models.test\r\n" + c.fields + "\r\n"); !strings.HasPrefix(got, "HTTP/1.1 400 ") {
				t.Errorf("got %s; want 400", got)
			}
			h.untouched()
		})
	}
}

func TestTrustedProxies(t *testing.T) {
	h := build(t, plan{more: "trusted_proxies: [127.0.0.0/8, 10.0.0.0/8]"})
	got := h.do("GET", "/", "", map[string]string{"X-Forwarded-For": "6.6.6.6, 203.0.113.7, 10.0.0.1", "X-Forwarded-Proto": "http", "X-Forwarded-Host": "Public.example"})
	r, _ := h.model.seen()
	if got.StatusCode != 200 || r.Header.Get("X-Forwarded-For") != "203.0.113.7, 127.0.0.1" || r.Header.Get("X-Forwarded-Host") != "public.example" || r.Header.Get("X-Forwarded-Proto") != "http" {
		t.Errorf("got %d, upstream %v", got.StatusCode, r.Header)
	}
	if err := h.stop(); err != nil {
		t.Fatal(err)
	}
	if rec := h.audit.records(t); len(rec) != 1 || rec[0]["client"] != "203.0.113.7" {
		t.Errorf("records %v; want the client 203.0.113.7", rec)
	}
}

// A proxy in front that writes its own Host, as nginx does by default, gets 404 for everything. The record
// names the cure, but only of a proxy that the gateway trusts.
func TestHostOfATrustedProxyIsInTheRecord(t *testing.T) {
	t.Parallel()
	const other = "GET / HTTP/1.1\r\nHost: 127.0.0.1:8080\r\nConnection: close\r\n\r\n"
	for more, want := range map[string]string{
		"":                           "no route names this host",
		"trusted_proxies: 127.0.0.1": "no route names this host; unless clients call this host, the proxy 127.0.0.1 must pass on their Host",
	} {
		h := build(t, plan{more: more})
		if got := h.raw(other); !strings.HasPrefix(got, "HTTP/1.1 404 ") || strings.Contains(got, "pass on") {
			t.Errorf("got %s", got)
		}
		if r := h.ended(); r["reason"] != "no_route" || r["cause"] != want || r["host"] != "127.0.0.1" {
			t.Errorf("got %v; want the cause %s", r, want)
		}
		h.untouched()
	}
}

func TestOneCanonicalPath(t *testing.T) {
	t.Parallel()
	for _, target := range []string{
		"//x/v1/models/secret:predict", "///v1", "/v1//x", "/./v1", "/v1/../admin", "/public/../admin", "/v1/..", "/%2e%2e/admin", "/v1/%2E%2E/admin",
		"/v1%2fmodels", "/v1%5cmodels", `/v1\models`, "/v1%00", "/v1;x=1", "/v1/;a/b", "/v1#frag", "/v1%23frag", "/v1%3fx", "/%252e%252e/admin", "/%c0%ae%c0%ae/admin", "/%zz", "/%",
		"http://models.test/v1", "http:/v1", "ftp://models.test/", "*", "v1", "/v1?x=1#frag",
	} {
		t.Run(target, func(t *testing.T) {
			h := build(t, plan{})
			got := h.raw("GET " + target + " HTTP/1.1\r\nHost: models.test\r\nAuthorization: Bearer TOKEN\r\n\r\n")
			if !strings.HasPrefix(got, "HTTP/1.1 400 ") || !strings.Contains(strings.ToLower(got), "connection: close") {
				t.Errorf("got %s; want 400 and the connection closed", got)
			}
			h.untouched()
		})
	}
}

func TestTheCanonicalFormIsForwarded(t *testing.T) {
	for target, want := range map[string]string{
		"/v1/models/m:predict":         "/v1/models/m:predict",
		"/v1/models/%6D%3Apredict?a=b": "/v1/models/m:predict?a=b",
		"/caf%c3%a9?":                  "/caf%C3%A9?",
		"/a%20b":                       "/a%20b",
		"/?q=%2e%2e%2f&x=//":           "/?q=%2e%2e%2f&x=//",
	} {
		h := build(t, plan{})
		got := h.raw("GET " + target + " HTTP/1.1\r\nHost: Models.TEST.:443\r\nAuthorization: Bearer TOKEN\r\nConnection: close\r\n\r\n")
		r, _ := h.model.seen()
		if !strings.HasPrefix(got, "HTTP/1.1 200 ") || r.RequestURI != want || r.Header.Get("X-Forwarded-Host") != "models.test" {
			t.Errorf("%s was forwarded as %v, %s; want %s", target, r, got, want)
		}
	}
}

func TestStricterRouteCannotBeBypassed(t *testing.T) {
	routes := `
  - {host: models.test, upstream: '%s', callers: issuer/corp, rules: [{allow: "*"}]}
  - {host: models.test, path: /v1/models/secret, upstream: '%s', callers: issuer/corp, rules: [{allow: "*", who: {scope: admin}}]}
  - {host: models.test, path: "=/v1/models/top:predict", upstream: '%s', callers: issuer/corp, rules: [{allow: "*", who: {scope: admin}}]}
  - {host: models.test, path: /reports, methods: GET, upstream: '%s', callers: issuer/corp, rules: [{allow: "*", who: {scope: admin}}]}
`
	for _, c := range []struct {
		method, target string
		status         int
	}{
		{"POST", "/v1/models/secret/x", 403}, {"POST", "/v1/models/%73ecret/x", 403}, {"POST", "/V1/MODELS/secret/x", 400}, {"POST", "/v1/models/SECRET", 400},
		{"POST", "/v1/models/top:predict", 403}, {"POST", "/v1/models/top%3Apredict", 403}, {"POST", "/v1/models/top%3apredict", 403}, {"POST", "/v1/models/Top:predict", 400},
		{"GET", "/reports/x", 403}, {"POST", "/reports/x", 405}, {"DELETE", "/reports", 405}, {"GET", "/Reports", 400},
	} {
		t.Run(c.method+" "+c.target, func(t *testing.T) {
			h := build(t, plan{routes: routes})
			got := h.raw(c.method + " " + c.target + " HTTP/1.1\r\nHost: models.test\r\nAuthorization: Bearer TOKEN\r\nContent-Length: 0\r\nConnection: close\r\n\r\n")
			if !strings.HasPrefix(got, fmt.Sprintf("HTTP/1.1 %d ", c.status)) {
				t.Errorf("got %s; want %d", got, c.status)
			}
			h.untouched()
		})
	}
	h := build(t, plan{routes: routes})
	if got := h.do("POST", "/v1/models/secrets", "{}", nil); got.StatusCode != 200 {
		t.Errorf("a longer name is caught by the route of a shorter: %d %s", got.StatusCode, got.body)
	}
}

func TestTokenCacheKeepsRoutesApart(t *testing.T) {
	routes := `
  - {host: models.test, upstream: '%s', callers: issuer/corp, rules: [{allow: "*"}]}
  - {host: models.test, path: /narrow, upstream: '%s', callers: issuer/corp, audience: batch, rules: [{allow: "*"}]}
  - {host: models.test, path: /other, upstream: '%s', callers: issuer/other, rules: [{allow: "*"}]}
`
	h := build(t, plan{routes: routes, issuers: "  other: {url: 'http://127.0.0.1:1', audience: models}", audience: "[models, batch]"})
	token := map[string]string{"Authorization": "Bearer " + h.token()}
	if got := h.do("GET", "/", "", token); got.StatusCode != 200 {
		t.Fatalf("got %d %s", got.StatusCode, got.body)
	}
	h.model.hits.Store(0)
	h.refused(h.do("GET", "/narrow", "", token), 401, "wrong_audience")
	h.refused(h.do("GET", "/other", "", token), 401, "bad_credential")
}

func TestNoFieldBypassesAuthentication(t *testing.T) {
	for name, value := range map[string]string{
		"User-Agent": "kube-probe/1.31", "X-Forwarded-Uri": "/healthz", "X-Original-Url": "/healthz", "X-Health-Check": "1",
	} {
		h := build(t, plan{})
		h.refused(h.do("GET", "/", "", map[string]string{"Authorization": "", name: value}), 401, "no_credential")
	}
	for _, path := range []string{"/healthz", "/readyz", "/metrics", "/debug/pprof/", "/ping"} {
		h := build(t, plan{})
		h.refused(h.do("GET", path, "", map[string]string{"Authorization": ""}), 401, "no_credential")
	}
}

func TestNoCredentialIsDenied(t *testing.T) {
	h := build(t, plan{})
	got := h.do("POST", "/", "{}", map[string]string{"Authorization": ""})
	h.refused(got, 401, "no_credential")
	if c := got.Header.Get("Www-Authenticate"); !strings.HasPrefix(c, `Bearer realm="models.test", resource_metadata="https://models.test:`) || strings.Contains(c, "error") {
		t.Errorf("challenge %q", c)
	}
	for _, header := range []map[string]string{
		{"Authorization": "Bearer"}, {"Authorization": "Bearer "}, {"Authorization": "Bearer x.y"}, {"Authorization": "Basic YWxpY2U6cHc="}, {"Authorization": "Token " + h.token()},
		{"Authorization": "", "Cookie": "access_token=" + h.token()}, {"Authorization": "", "X-Access-Token": h.token()},
	} {
		got := h.do("GET", "/", "", header)
		if got.StatusCode != 401 || !strings.HasPrefix(got.Header.Get("Www-Authenticate"), "Bearer realm=") {
			t.Errorf("%v: got %d %s; want 401 with a challenge", header, got.StatusCode, got.body)
		}
	}
	if got := h.do("GET", "/?access_token="+h.token(), "", map[string]string{"Authorization": ""}); got.StatusCode != 401 {
		t.Errorf("a token in the query: got %d", got.StatusCode)
	}
	h.untouched()
}

func TestRefusalsDoNotRevealTheCause(t *testing.T) {
	h := build(t, plan{})
	token := h.token()
	got := h.do("GET", "/", "", map[string]string{"Authorization": "Bearer " + token[:len(token)-6] + "AAAAAA"})
	h.refused(got, 401, "bad_credential")
	if err := h.stop(); err != nil {
		t.Fatal(err)
	}
	rec := h.audit.records(t)
	if len(rec) != 1 || rec[0]["cause"] == nil {
		t.Fatalf("records %v; want one with a cause", rec)
	}
	for _, leak := range []string{rec[0]["cause"].(string), "go-oidc", "jose", token[:20]} {
		if strings.Contains(got.body, leak) {
			t.Errorf("the answer %s tells %q", got.body, leak)
		}
	}
	h.audit.mu.Lock()
	defer h.audit.mu.Unlock()
	if log := h.audit.buf.String(); strings.Contains(log, token[:20]) || strings.Contains(log, strings.Split(token, ".")[2][:20]) {
		t.Errorf("the audit log holds a token: %s", log)
	}
}
