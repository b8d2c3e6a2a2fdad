package proxy_test

import (
	"net/http"
	"strings"
	"testing"
)

const fixedRoutes = `
  - {host: models.test, upstream: '%s', callers: issuer/corp, rules: [{allow: "*"}]}
  - {host: models.test, path: /closed, respond: 503, callers: anonymous, headers: {response: {set: {Retry-After: "3600"}}}}
  - {host: models.test, path: /json, respond: {status: 200, body: '{"a": 1}'}, callers: anonymous}
  - {host: models.test, path: /text, respond: {status: 418, body: tea, content_type: text/html}, callers: anonymous}
  - {host: models.test, path: /gone, respond: 204, callers: anonymous}
  - {host: models.test, path: /moved, respond: 308, callers: anonymous, headers: {response: {set: {Location: "https://other.test/"}}}}
  - {host: models.test, path: /members, respond: {status: 200, body: hello}, callers: issuer/corp}
  - {host: models.test, path: /readers, upstream: '%s', respond: {status: 200, body: hello}, callers: issuer/corp, rules: [{allow: get, who: {scope: read}}]}
`

func TestRespond(t *testing.T) {
	h := build(t, plan{routes: fixedRoutes})
	for _, c := range []struct {
		method, path string
		status       int
		contentType  string
		body         string
	}{
		{"GET", "/closed/x", 503, "", ""},
		{"POST", "/closed", 503, "", ""},
		{"GET", "/json", 200, "application/json", `{"a": 1}`},
		{"HEAD", "/json", 200, "application/json", ""},
		{"GET", "/text", 418, "text/html", "tea"},
		{"DELETE", "/gone", 204, "", ""},
		{"GET", "/moved", 308, "", ""},
	} {
		for _, h2 := range []bool{false, true} {
			req, err := http.NewRequest(c.method, "https://models.test"+c.path, strings.NewReader("content"))
			if err != nil {
				t.Fatal(err)
			}
			got := h.send(h.client(h2), req)
			if got.StatusCode != c.status || got.body != c.body || got.Header.Get("Content-Type") != c.contentType {
				t.Errorf("%s %s: got %d %q of type %s", c.method, c.path, got.StatusCode, got.body, got.Header.Get("Content-Type"))
			}
			if got.Header.Get("X-Request-Id") == "" || got.Header.Get("X-Content-Type-Options") != "nosniff" {
				t.Errorf("%s %s: fields of the gateway are missing: %v", c.method, c.path, got.Header)
			}
		}
	}
	if got := h.do("GET", "/closed", "", nil); got.Header.Get("Retry-After") != "3600" {
		t.Errorf("Retry-After: %q", got.Header.Get("Retry-After"))
	}
	h.untouched()
}

// Unlike nginx's return, a fixed answer is only for callers admitted by callers and rules.
func TestRespondIsForCallersOnly(t *testing.T) {
	h := build(t, plan{routes: fixedRoutes})
	h.refused(h.do("GET", "/members", "", map[string]string{"Authorization": ""}), 401, "no_credential")
	h.refused(h.do("GET", "/readers", "", nil), 403, "insufficient_scope")
	if got := h.do("GET", "/members", "", nil); got.StatusCode != 200 || got.body != "hello" {
		t.Errorf("got %d %s", got.StatusCode, got.body)
	}
	h.untouched()
	if rec := h.ended(); rec["status"] != 200.0 || rec["route"] != "models.test/members" || rec["principal"] != "issuer/corp:alice" {
		t.Errorf("record %v", rec)
	}
}
