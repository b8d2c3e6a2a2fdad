package proxy_test

import (
	"fmt"
	"net/http"
	"strings"
	"testing"
)

// rewritten is a route under /a whose upstream sees other paths.
func rewritten(how string) string {
	return fmt.Sprintf(`
  - {host: models.test, path: /a, %s, upstream: '%%s', callers: issuer/corp, rules: [{allow: "*"}]}
  - {host: models.test, path: /a/admin, upstream: '%%s', callers: issuer/corp, rules: [{allow: "*", who: {scope: root}}]}
`, how)
}

func TestStripAndReplace(t *testing.T) {
	t.Parallel()
	for _, c := range []struct{ how, target, want string }{
		{"strip: /a", "/a", "/"},
		{"strip: /a", "/a/", "/"},
		{"strip: /a", "/a?x=/a", "/?x=/a"},
		{"strip: /a", "/a/v1/models/m:predict?q=1", "/v1/models/m:predict?q=1"},
		{"strip: /a", "/a/v1?", "/v1?"},
		{"strip: /a", "/a/a/a", "/a/a"},
		{"strip: /a", "/a/m%3apredict", "/m:predict"},
		{"strip: /a", "/a/%c3%a9", "/%C3%A9"},
		{"strip: /a", "/%61/b", "/b"},
		{"replace: {with: /v2/b}", "/a", "/v2/b"},
		{"replace: {with: /v2/b}", "/a/", "/v2/b/"},
		{"replace: {prefix: /a, with: /b}", "/a/c?d", "/b/c?d"},
		{"replace: {prefix: /a, with: /}", "/a/c", "/c"},
		{"replace: {prefix: /a, with: /}", "/a", "/"},
		{"replace: {prefix: /, with: /b}", "/a/c", "/b/a/c"},
	} {
		t.Run(c.how+" "+c.target, func(t *testing.T) {
			h := build(t, plan{routes: rewritten(c.how)})
			got := h.raw("GET " + c.target + " HTTP/1.1\r\nHost: models.test\r\nAuthorization: Bearer TOKEN\r\nX-Forwarded-Prefix: /evil\r\nConnection: close\r\n\r\n")
			r, _ := h.model.seen()
			if !strings.HasPrefix(got, "HTTP/1.1 200 ") {
				t.Fatalf("got %s", got)
			}
			if r.RequestURI != c.want {
				t.Errorf("the upstream was asked for %s; want %s", r.RequestURI, c.want)
			}
			prefix := ""
			if strings.HasPrefix(c.how, "strip") {
				prefix = "/a"
			}
			if p := strings.Join(r.Header.Values("X-Forwarded-Prefix"), ","); p != prefix {
				t.Errorf("the upstream was told the prefix %q; want %q", p, prefix)
			}
			if rec := h.ended(); rec["path"] != strings.ReplaceAll(strings.ReplaceAll(strings.ReplaceAll(strings.SplitN(c.target, "?", 2)[0], "%3a", ":"), "%c3%a9", "%C3%A9"), "%61", "a") {
				t.Errorf("recorded path %s; want that of the client, canonical", rec["path"])
			}
		})
	}
}

// A Location of the upstream leads the client back through the gateway.
func TestLocationLeadsThroughTheGateway(t *testing.T) {
	t.Parallel()
	for _, c := range []struct{ how, location, want string }{
		{"strip: /a", "http://HOST/login?next=%2Fx#top", "https://models.test/a/login?next=%2Fx#top"},
		{"strip: /a", "https://HOST/", "https://models.test/a/"},
		{"strip: /a", "http://HOST", "https://models.test/a/"},
		{"strip: /a", "http://HOST?q", "https://models.test/a/?q"},
		{"strip: /a", "/a/login", "/a/login"},
		{"strip: /a", "login", "login"},
		{"strip: /a", "http://elsewhere.example/login", "http://elsewhere.example/login"},
		{"strip: /a", "http://HOST1/login", "http://HOST1/login"},
		{"replace: {with: /v2}", "http://HOST/v2/login", "https://models.test/a/login"},
		{"replace: {with: /v2}", "http://HOST/v2", "https://models.test/a"},
		{"replace: {with: /v2}", "http://HOST/v2beta", "https://models.test/v2beta"},
		{"websocket: false", "http://HOST/login", "https://models.test/login"},
	} {
		t.Run(c.how+" "+c.location, func(t *testing.T) {
			var host string
			h := build(t, plan{routes: rewritten(c.how), handler: func(w http.ResponseWriter, r *http.Request) {
				w.Header().Set("Location", strings.ReplaceAll(c.location, "HOST", r.Host))
				w.WriteHeader(http.StatusFound)
			}})
			host = strings.TrimPrefix(h.model.URL, "http://")
			if got := h.do("GET", "/a", "", nil).Header.Get("Location"); got != strings.ReplaceAll(c.want, "HOST", host) {
				t.Errorf("Location %s; want %s", got, c.want)
			}
		})
	}
}

// Stripping a prefix before the path is canonical, or within a segment, lets a request escape its
// route (CVEs of Traefik and Caddy).
func TestStripDoesNotBypassRoutes(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		target string
		status int
	}{
		{"/ab", 404}, {"/a:predict", 404}, {"/a.b", 404}, {"/a%2Fb", 400}, {"/a%2f..%2fadmin", 400},
		{"/a/../b", 400}, {"/a/..", 400}, {"/a/.", 400}, {"/a/./admin", 400}, {"/a/%2e%2e/b", 400}, {"/a/%2e", 400}, {"/a%2e", 400}, {"/a/.%2E/b", 400},
		{"/a//", 400}, {"/a//b", 400}, {"//a/b", 400}, {"/a//evil.test/b", 400}, {"/a/\\evil.test", 400}, {"/a/%5c", 400}, {"/a/%00", 400},
		{"/a;x/b", 400}, {"/a/b#c", 400}, {"/a/%23", 400}, {"/a/%3f", 400}, {"/a/%252e%252e/b", 400}, {"/a/admin", 403}, {"/a/%61dmin/x", 403},
		{"/A/b", 400}, {"/a/Admin", 400}, {"http://models.test/a/../b", 400},
	} {
		t.Run(c.target, func(t *testing.T) {
			h := build(t, plan{routes: rewritten("strip: /a")})
			got := h.raw("GET " + c.target + " HTTP/1.1\r\nHost: models.test\r\nAuthorization: Bearer TOKEN\r\nConnection: close\r\n\r\n")
			if !strings.HasPrefix(got, fmt.Sprintf("HTTP/1.1 %d ", c.status)) {
				t.Errorf("got %s; want %d", got, c.status)
			}
			h.untouched()
		})
	}
}
