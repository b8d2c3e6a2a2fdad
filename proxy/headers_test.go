package proxy_test

import (
	"net/http"
	"strings"
	"testing"
)

const editedRoutes = `
  - host: models.test
    upstream: %s
    callers: issuer/corp
    rules: [{allow: "*"}]
    headers:
      request: {set: {X-Tenant: research, accept-encoding: identity}, remove: [X-Debug, cookie], add: {X-Label: [a, b]}}
      response: {set: {Cache-Control: no-store, X-Frame-Options: DENY}, remove: [X-Runtime, Referrer-Policy], add: {Link: "</docs>; rel=help"}}
  - {host: models.test, path: /open, upstream: '%s', callers: anonymous, rules: [{allow: "*"}]}
`

func TestHeadersOfRequests(t *testing.T) {
	h := build(t, plan{routes: editedRoutes})
	got := h.raw("POST / HTTP/1.1\r\nHost: models.test\r\nAuthorization: Bearer TOKEN\r\nX-Tenant: admin\r\nx_tenant: admin\r\nX.Tenant: admin\r\nX-Debug: 1\r\nX_Debug: 1\r\nCookie: a=b\r\nX-Label: mine\r\nAccept-Encoding: br\r\nTransfer-Encoding: chunked\r\nTrailer: X-Tenant\r\nConnection: close\r\n\r\n1\r\nx\r\n0\r\nX-Tenant: admin\r\nX-Sum: 1\r\n\r\n")
	if !strings.HasPrefix(got, "HTTP/1.1 200 ") {
		t.Fatalf("got %s", got)
	}
	r, _ := h.model.seen()
	for name, want := range map[string]string{"X-Tenant": "research", "X-Label": "mine,a,b", "Accept-Encoding": "identity"} {
		if v := strings.Join(r.Header.Values(name), ","); v != want {
			t.Errorf("the upstream got %s: %q; want %q", name, v, want)
		}
	}
	for name := range r.Header {
		switch strings.ToLower(name) {
		case "x_tenant", "x.tenant", "x-debug", "x_debug", "cookie":
			t.Errorf("the upstream got %s: %s", name, r.Header.Get(name))
		}
	}
	if v := r.Trailer.Get("X-Tenant"); v != "" {
		t.Errorf("the upstream got X-Tenant: %s after the body", v)
	}
}

// Two routes share an upstream, which cannot know by which of them a request came. So a field set
// by one route cannot be sent through the other.
func TestHeadersThatAreSetCannotBeSentByAnotherRoute(t *testing.T) {
	h := build(t, plan{routes: editedRoutes})
	if got := h.do("GET", "/open", "", map[string]string{"X-Tenant": "admin", "X_tenant": "admin", "X-Other": "kept", "Authorization": ""}); got.StatusCode != 200 {
		t.Fatalf("got %d %s", got.StatusCode, got.body)
	}
	r, _ := h.model.seen()
	if r.Header.Get("X-Tenant") != "" || r.Header["X_tenant"] != nil || r.Header.Get("X-Other") != "kept" {
		t.Errorf("the upstream got %v", r.Header)
	}
}

// The configuration may name one server several times, with its URL spelled differently each time.
func TestHeadersThatAreSetAreProtectedForEverySpellingOfAServer(t *testing.T) {
	model := newModelServer(t, nil)
	port := model.URL[strings.LastIndexByte(model.URL, ':')+1:]
	h := build(t, plan{
		more: "upstreams: {named: {rest: 'http://localhost:" + port + "'}, both: {rest: ['http://127.0.0.1:" + port + "', 'http://127.0.0.1:1']}}",
		routes: `
  - {host: models.test, upstream: 'http://127.0.0.1:` + port + `', callers: issuer/corp, rules: [{allow: "*"}], headers: {request: {set: {X-Tenant: research}}}}
  - {host: models.test, path: /name, upstream: named, callers: anonymous, rules: [{allow: "*"}]}
  - {host: models.test, path: /case, upstream: 'HTTP://LocalHost:` + port + `/', callers: anonymous, rules: [{allow: "*"}]}
  - {host: models.test, path: /dialect, upstream: 'http://127.0.0.1:` + port + `', serves: flask, callers: anonymous, rules: [{allow: "*"}]}
  - {host: models.test, path: /several, upstream: both, callers: anonymous, rules: [{allow: "*"}]}
  - {host: models.test, path: /mapped, upstream: 'http://[::ffff:127.0.0.1]:` + port + `', callers: anonymous, rules: [{allow: "*"}]}
  - {host: models.test, path: /other, upstream: %s, callers: anonymous, rules: [{allow: "*"}]}
`})
	attempt := map[string]string{"X-Tenant": "admin", "X_tenant": "admin", "Authorization": ""}
	for _, path := range []string{"/name", "/case", "/dialect", "/several", "/mapped"} {
		if got := h.do("GET", path, "", attempt); got.StatusCode != 200 {
			t.Errorf("%s: got %d %s", path, got.StatusCode, got.body)
			continue
		}
		if r, _ := model.seen(); r.URL.Path != path || r.Header.Get("X-Tenant") != "" || r.Header["X_tenant"] != nil {
			t.Errorf("%s: the upstream got %s %v", path, r.URL.Path, r.Header)
		}
	}
	if got := h.do("GET", "/other", "", attempt); got.StatusCode != 200 {
		t.Fatalf("got %d %s", got.StatusCode, got.body)
	}
	if r, _ := h.model.seen(); r.Header.Get("X-Tenant") != "admin" {
		t.Errorf("another server lost the field of its client: %v", r.Header)
	}
}

func TestHeadersOfAnswers(t *testing.T) {
	h := build(t, plan{routes: editedRoutes, handler: func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Cache-Control", "public")
		w.Header().Add("Link", "</a>; rel=next")
		w.Header().Set("X-Runtime", "3")
		w.Header().Set("Referrer-Policy", "unsafe-url")
	}})
	got := h.do("GET", "/", "", nil)
	for name, want := range map[string]string{
		"Cache-Control": "no-store", "Link": "</a>; rel=next,</docs>; rel=help", "X-Frame-Options": "DENY", "X-Runtime": "",
		"Referrer-Policy": "strict-origin-when-cross-origin", // the upstream's is removed, so the gateway's own applies
	} {
		if v := strings.Join(got.Header.Values(name), ","); v != want {
			t.Errorf("%s: %q; want %q", name, v, want)
		}
	}
}
