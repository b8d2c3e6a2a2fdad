package proxy_test

import (
	"maps"
	"net/http"
	"strings"
	"testing"
)

const corsRoutes = `
  - host: models.test
    methods: [GET, POST]
    upstream: %s
    callers: issuer/corp
    rules: [{allow: "*"}]
    cors: {origins: ["https://demo.test", "http://localhost:3000"], headers: [Authorization, X-Trace], expose: Retry-After, max_age: 1h, credentials: true}
  - {host: models.test, methods: DELETE, upstream: '%s', callers: issuer/corp, rules: [{allow: "*"}]}
  - {host: models.test, path: /any, upstream: '%s', callers: anonymous, rules: [{allow: "*"}], cors: {origins: "*"}}
  - {host: models.test, path: /plain, upstream: '%s', callers: issuer/corp, rules: [{allow: "*"}]}
`

func asks(origin, method string) map[string]string {
	return map[string]string{"Authorization": "", "Origin": origin, "Access-Control-Request-Method": method, "Access-Control-Request-Headers": "authorization,x-evil"}
}

func TestCORSPreflight(t *testing.T) {
	h := build(t, plan{routes: corsRoutes})
	for _, c := range []struct {
		path, origin string
		want         map[string]string
	}{
		{"/v1", "https://demo.test", map[string]string{
			"Access-Control-Allow-Origin": "https://demo.test", "Access-Control-Allow-Methods": "GET, POST", "Access-Control-Allow-Headers": "authorization, x-trace",
			"Access-Control-Max-Age": "3600", "Access-Control-Allow-Credentials": "true", "Vary": "Origin,Access-Control-Request-Method,Access-Control-Request-Headers",
		}},
		{"/any", "https://anyone.test", map[string]string{
			"Access-Control-Allow-Origin": "*", "Access-Control-Allow-Methods": "GET, HEAD, POST", "Access-Control-Allow-Headers": "authorization, content-type",
			"Access-Control-Max-Age": "600", "Access-Control-Allow-Credentials": "",
		}},
	} {
		got := h.do("OPTIONS", c.path, "", asks(c.origin, "POST"))
		if got.StatusCode != 204 || got.body != "" || got.Header.Get("X-Request-Id") == "" {
			t.Errorf("%s: got %d %s", c.path, got.StatusCode, got.body)
		}
		for name, want := range c.want {
			if v := strings.Join(got.Header.Values(name), ","); v != want {
				t.Errorf("%s: %s: %q; want %q", c.path, name, v, want)
			}
		}
	}
	h.untouched()
}

func TestCORSPreflightIsRefused(t *testing.T) {
	for _, c := range []struct {
		name, path, origin, method string
		status                     int
		reason                     string
	}{
		{"another origin", "/", "https://evil.test", "POST", 403, "origin_not_allowed"},
		{"null", "/", "null", "POST", 403, "origin_not_allowed"},
		{"letter case", "/", "https://Demo.test", "POST", 403, "origin_not_allowed"},
		{"suffix", "/", "https://demo.test.evil.test", "POST", 403, "origin_not_allowed"},
		{"prefix", "/", "https://evil-demo.test", "POST", 403, "origin_not_allowed"},
		{"port", "/", "https://demo.test:8443", "POST", 403, "origin_not_allowed"},
		{"scheme", "/", "http://demo.test", "POST", 403, "origin_not_allowed"},
		{"several", "/", "https://demo.test https://evil.test", "POST", 403, "origin_not_allowed"},
		{"a route without cors", "/plain", "https://demo.test", "POST", 401, "no_credential"},
		{"a method of a route without cors", "/", "https://demo.test", "DELETE", 405, "method_not_allowed"},
	} {
		t.Run(c.name, func(t *testing.T) {
			h := build(t, plan{routes: corsRoutes})
			got := h.do("OPTIONS", c.path, "", asks(c.origin, c.method))
			h.refused(got, c.status, c.reason)
			if v := got.Header.Get("Access-Control-Allow-Origin"); v != "" {
				t.Errorf("the page may read it: %s", v)
			}
		})
	}
}

// A request that is not exactly a preflight passes all steps.
func TestOnlyExactPreflightsSkipAuthentication(t *testing.T) {
	for name, change := range map[string]func(map[string]string) string{
		"another method": func(map[string]string) string { return "POST" },
		"no origin":      func(m map[string]string) string { delete(m, "Origin"); return "OPTIONS" },
		"no method":      func(m map[string]string) string { delete(m, "Access-Control-Request-Method"); return "OPTIONS" },
	} {
		t.Run(name, func(t *testing.T) {
			h := build(t, plan{routes: strings.Replace(corsRoutes, "methods: [GET, POST]", "methods: [GET, POST, OPTIONS]", 1)})
			header := asks("https://demo.test", "POST")
			method := change(header)
			h.refused(h.do(method, "/", "", header), 401, "no_credential")
		})
	}
	t.Run("an address that is not allowed", func(t *testing.T) {
		h := build(t, plan{routes: strings.Replace(corsRoutes, "    cors:", "    allow_from: 10.0.0.0/8\n    cors:", 1)})
		h.refused(h.do("OPTIONS", "/", "", asks("https://demo.test", "POST")), 403, "address_not_allowed")
	})
}

func TestCORSOfAnswers(t *testing.T) {
	handler := func(w http.ResponseWriter, _ *http.Request) {
		maps.Copy(w.Header(), http.Header{
			"Access-Control-Allow-Origin": {"*"}, "Access-Control-Allow-Credentials": {"true"}, "Access-Control-Expose-Headers": {"X-Secret"}, "Vary": {"Accept"},
		})
	}
	for _, c := range []struct {
		name, path, origin, token string
		status                    int
		allow, credentials        string
		expose, vary              string
	}{
		{"a listed origin", "/", "https://demo.test", "good", 200, "https://demo.test", "true", "x-request-id, retry-after", "Accept,Origin"},
		{"another listed origin", "/", "http://localhost:3000", "good", 200, "http://localhost:3000", "true", "x-request-id, retry-after", "Accept,Origin"},
		{"another", "/", "https://evil.test", "good", 200, "", "", "", "Accept,Origin"},
		{"no page", "/", "", "good", 200, "", "", "", "Accept,Origin"},
		{"any page", "/any", "https://evil.test", "", 200, "*", "", "x-request-id", "Accept,Origin"},
		{"any page would get another answer than this", "/any", "", "", 200, "", "", "", "Accept,Origin"},
		{"a refusal", "/", "https://demo.test", "", 401, "https://demo.test", "true", "x-request-id, retry-after", "Origin"},
		{"a refusal to another", "/", "https://evil.test", "", 401, "", "", "", "Origin"},
		{"a route without cors is the upstream's own", "/plain", "https://demo.test", "good", 200, "*", "true", "X-Secret", "Accept"},
	} {
		t.Run(c.name, func(t *testing.T) {
			h := build(t, plan{routes: corsRoutes, handler: handler})
			header := map[string]string{"Origin": c.origin}
			if c.token == "" {
				header["Authorization"] = ""
			}
			got := h.do("GET", c.path, "", header)
			if got.StatusCode != c.status {
				t.Errorf("got %d %s", got.StatusCode, got.body)
			}
			for name, want := range map[string]string{
				"Access-Control-Allow-Origin": c.allow, "Access-Control-Allow-Credentials": c.credentials, "Access-Control-Expose-Headers": c.expose, "Vary": c.vary,
			} {
				if v := strings.Join(got.Header.Values(name), ","); v != want {
					t.Errorf("%s: %q; want %q", name, v, want)
				}
			}
		})
	}
}
