package proxy_test

import (
	"encoding/json"
	"fmt"
	"net/http"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

const metadataPath = "/.well-known/oauth-protected-resource"

// resourceHouse is a house with routes of all kinds. Clients see port 8443.
func resourceHouse(t *testing.T) *house {
	t.Helper()
	return build(t, plan{more: "public_https: 8443\n", issuers: `
  other: {url: 'https://login.test/{tenantid}/v2.0', audience: models, tenants: [72f988bf-86f1-41af-91ab-2d7cd011db47], jwks: 'http://127.0.0.1:1'}
  front: {url: 'https://front.test', audience: models, jwks: 'http://127.0.0.1:1', token_from: {header: X-Front, from: 10.9.8.7}}
`, routes: `
  - host: [models.test, "*.wild.test"]
    path: /v1
    upstream: '%s'
    callers: [issuer/corp, issuer/front]
    rules: [{deny: delete, who: {scope: hidden}}, {allow: get, who: {scope: [models.read, models.predict]}}, {allow: "*", who: {scope: models.predict}}]
  - {host: models.test, path: "=/v1/exact", upstream: '%s', callers: issuer/other, rules: [{allow: "*"}]}
  - {host: models.test, path: /both, methods: GET, upstream: '%s', callers: issuer/corp, rules: [{allow: "*", who: {scope: a}}]}
  - {host: models.test, path: /both, methods: POST, upstream: '%s', callers: issuer/other, rules: [{allow: "*", who: {scope: b}}]}
  - {host: models.test, path: /inside, upstream: '%s', callers: issuer/corp, deny_from: 127.0.0.0/8, rules: [{allow: "*"}]}
  - {host: models.test, path: /front, upstream: '%s', callers: issuer/front, rules: [{allow: "*"}]}
  - {host: models.test, path: /open, upstream: '%s', callers: anonymous, rules: [{allow: "*"}]}
  - {host: own.test, upstream: '%s', callers: issuer/corp, rules: [{allow: "*"}]}
  - {host: own.test, path: ` + metadataPath + `/mcp, upstream: '%s', callers: anonymous, rules: [{allow: "*"}]}
  - {host: none.test, upstream: '%s', callers: anonymous, rules: [{allow: "*"}]}
`})
}

func (h *house) metadata(method, host, path string, header map[string]string) *reply {
	h.t.Helper()
	req, err := http.NewRequest(method, "https://"+host+metadataPath+path, nil)
	if err != nil {
		h.t.Fatal(err)
	}
	for name, value := range header {
		req.Header.Set(name, value)
	}
	return h.send(h.client(true), req)
}

// TestMetadataOfRoutes checks the documents of RFC 9728, and that only routes with issuers have one.
func TestMetadataOfRoutes(t *testing.T) {
	h := resourceHouse(t)
	tenant := "https://login.test/72f988bf-86f1-41af-91ab-2d7cd011db47/v2.0"
	type document map[string]any
	list := func(all ...any) []any { return all }
	models := document{
		"resource": "https://models.test:8443/v1", "authorization_servers": list(h.issuer.URL),
		"scopes_supported": list("models.read", "models.predict"), "bearer_methods_supported": list("header"),
	}
	wild := document{}
	for name, value := range models {
		wild[name] = value
	}
	wild["resource"] = "https://a.wild.test:8443/v1"
	for at, want := range map[string]document{
		"models.test/v1":                 models,
		"models.test/v1/models/m:status": models, // clients that ignore the challenge look there
		"a.wild.test/v1":                 wild,
		"models.test/v1/exact":           {"resource": "https://models.test:8443/v1/exact", "authorization_servers": list(tenant), "bearer_methods_supported": list("header")},
		"models.test/both":               {"resource": "https://models.test:8443/both", "authorization_servers": list(h.issuer.URL, tenant), "scopes_supported": list("a", "b"), "bearer_methods_supported": list("header")},
		"own.test":                       {"resource": "https://own.test:8443", "authorization_servers": list(h.issuer.URL), "bearer_methods_supported": list("header")},
		"own.test/":                      {"resource": "https://own.test:8443", "authorization_servers": list(h.issuer.URL), "bearer_methods_supported": list("header")},
		"own.test/deep/er":               {"resource": "https://own.test:8443", "authorization_servers": list(h.issuer.URL), "bearer_methods_supported": list("header")},
	} {
		host, path, _ := strings.Cut(at, "/")
		if path != "" || strings.HasSuffix(at, "/") {
			path = "/" + path
		}
		got := h.metadata("GET", host, path, nil)
		var doc document
		if err := json.Unmarshal([]byte(got.body), &doc); err != nil || got.StatusCode != 200 {
			t.Fatalf("%s: %d %s", at, got.StatusCode, got.body)
		}
		if diff := cmp.Diff(want, doc); diff != "" {
			t.Errorf("%s: %s", at, diff)
		}
		for name, value := range map[string]string{"Content-Type": "application/json", "Cache-Control": "public, max-age=300", "Access-Control-Allow-Origin": "*"} {
			if v := got.Header.Get(name); v != value {
				t.Errorf("%s: %s is %q", at, name, v)
			}
		}
	}
	h.untouched()
	for _, at := range []string{"models.test", "models.test/", "models.test/inside", "models.test/front", "models.test/open", "models.test/nothing", "nobody.test/"} {
		host, path, more := strings.Cut(at, "/")
		if more {
			path = "/" + path
		}
		if host == "nobody.test" {
			if _, err := tlsDial(h, host); err == nil {
				t.Error("a host of no route has a certificate")
			}
			continue
		}
		if got := h.metadata("GET", host, path, nil); got.StatusCode != 404 || got.reason() != "no_route" {
			t.Errorf("%s: %d %s; want what a path of no route gets", at, got.StatusCode, got.body)
		}
	}
	h.untouched()
	// Other servers' own documents are forwarded.
	for _, at := range []string{"own.test/mcp", "own.test/mcp/x", "none.test", "none.test/mcp"} {
		host, path, more := strings.Cut(at, "/")
		if more {
			path = "/" + path
		}
		if got := h.metadata("GET", host, path, nil); got.StatusCode != 200 || !strings.Contains(got.body, "predictions") {
			t.Errorf("%s: %d %s; want the upstream's", at, got.StatusCode, got.body)
		}
	}
}

// TestMetadataMethods checks the methods other than GET. A browser asks first, as clients of MCP send
// a field of their own.
func TestMetadataMethods(t *testing.T) {
	h := resourceHouse(t)
	got := h.metadata("HEAD", "models.test", "/v1", nil)
	if got.StatusCode != 200 || got.body != "" || got.ContentLength < 100 {
		t.Errorf("HEAD: %d, %d bytes, %q", got.StatusCode, got.ContentLength, got.body)
	}
	got = h.metadata("OPTIONS", "models.test", "/v1", map[string]string{"Origin": "https://page.test", "Access-Control-Request-Method": "GET", "Access-Control-Request-Headers": "mcp-protocol-version"})
	for name, value := range map[string]string{"Allow": "GET, HEAD, OPTIONS", "Access-Control-Allow-Origin": "*", "Access-Control-Allow-Methods": "GET, HEAD, OPTIONS", "Access-Control-Allow-Headers": "*", "Access-Control-Allow-Credentials": ""} {
		if v := got.Header.Get(name); got.StatusCode != 204 || v != value {
			t.Errorf("OPTIONS: %d, %s is %q", got.StatusCode, name, v)
		}
	}
	for _, method := range []string{"POST", "DELETE", "PUT"} {
		if got := h.metadata(method, "models.test", "/v1", nil); got.StatusCode != 405 || got.Header.Get("Allow") != "GET, HEAD, OPTIONS" {
			t.Errorf("%s: %d, Allow %q", method, got.StatusCode, got.Header.Get("Allow"))
		}
	}
	// Only the exact path is reserved: what some servers read as another goes the usual way.
	for _, path := range []string{"/.Well-Known/oauth-protected-resource/v1", metadataPath + "x/v1", "/x/.." + metadataPath + "/v1%2F..%2F"} {
		raw := h.tell("GET " + path + " HTTP/1.1\r\nHost: models.test\r\nConnection: close\r\n\r\n")
		if got := statuses(raw); got == "200" {
			t.Errorf("%s: %s", path, raw)
		}
	}
	h.untouched()
}

// TestChallengesNameTheMetadata checks 401 and 403 over both versions, and where there is nothing
// to name.
func TestChallengesNameTheMetadata(t *testing.T) {
	h := resourceHouse(t)
	const v1 = `, resource_metadata="https://models.test:8443` + metadataPath + `/v1"`
	for _, x := range []struct {
		path, token, want string
	}{
		{"/v1/models", "", `Bearer realm="models.test"` + v1},
		{"/v1/models", "x.y.z", `Bearer realm="models.test"` + v1 + `, error="invalid_token", error_description="the token is not valid"`},
		{"/v1/models", h.token("openid"), `Bearer realm="models.test"` + v1 + `, error="insufficient_scope", scope="models.read models.predict"`},
		{"/front", "", `Bearer realm="models.test"`},
	} {
		for _, h2 := range []bool{false, true} {
			req, err := http.NewRequest("GET", "https://models.test"+x.path, nil)
			if err != nil {
				t.Fatal(err)
			}
			if x.token != "" {
				req.Header.Set("Authorization", "Bearer "+x.token)
			}
			if got := h.send(h.client(h2), req).Header["Www-Authenticate"]; fmt.Sprint(got) != "["+x.want+"]" {
				t.Errorf("%s: got %q, want %q", x.path, got, x.want)
			}
		}
	}
	h.untouched()

	plain := build(t, plan{more: "public_https: 443\n"})
	if got := plain.do("GET", "/", "", map[string]string{"Authorization": ""}).Header.Get("Www-Authenticate"); got != `Bearer realm="models.test", resource_metadata="https://models.test`+metadataPath+`"` {
		t.Errorf("port 443, path /: %s", got)
	}
}

// TestOtherProxiesNameNoMetadata checks that a decision for another proxy names no document, since
// that proxy serves the path itself, and that the document is no secret way past it.
func TestOtherProxiesNameNoMetadata(t *testing.T) {
	for _, dialect := range dialects() {
		h := asked(t, dialect, authRoutes)
		got := h.askAs(told(dialect, "GET", "models.test", "/v1/models")...)
		if c := got.Header.Get("Www-Authenticate"); got.StatusCode != 401 || c != `Bearer realm="models.test"` {
			t.Errorf("%s: got %d, challenge %q", dialect, got.StatusCode, c)
		}
		if got := h.askAs(told(dialect, "GET", "models.test", metadataPath+"/v1")...); got.StatusCode == 200 || strings.Contains(got.body, "authorization_servers") {
			t.Errorf("%s: got %d %s", dialect, got.StatusCode, got.body)
		}
	}
}
