package proxy_test

import (
	"fmt"
	"strings"
	"testing"
)

// What is refused before there is a route is written in the shape of the host's routes,
// says what is wrong, and leaves the byte and its place in the record.
func TestRefusalBeforeTheMatchSaysWhatIsWrong(t *testing.T) {
	t.Parallel()
	h := build(t, plan{routes: `
  - {host: models.test, upstream: '%s', serves: openai, callers: issuer/corp, rules: [{allow: "*", models: "*"}]}
`})
	get := "GET / HTTP/1.1\r\nHost: models.test\r\n"
	rows := []struct {
		name, raw   string
		status      int
		body, cause string // what they hold
	}{
		{"a dot segment", "GET /a/../b HTTP/1.1\r\nHost: models.test\r\n\r\n", 400, `read in more than one way: .. at byte 3 of the request target."`, ".. at byte 3 of the request target: a dot segment"},
		{"an encoded slash", "GET /a%2fb HTTP/1.1\r\nHost: models.test\r\n\r\n", 400, "%2f at byte 2", "paths: {encoded_slash: keep} in the route accepts it"},
		{"a fragment", "GET /a?b#c HTTP/1.1\r\nHost: models.test\r\n\r\n", 400, "# at byte 4", "# at byte 4 of the request target: a byte that is not allowed in a query"},
		{"a byte above ASCII", "GET /a\xff HTTP/1.1\r\nHost: models.test\r\n\r\n", 400, "%FF at byte 2", "%FF at byte 2 of the request target"},
		{"a bad Host", "GET / HTTP/1.1\r\nHost: mod@els.test\r\n\r\n", 400, "The Host is invalid.", "byte 0x40 at 3 of its value"},
		{"no Host", "GET / HTTP/1.1\r\n\r\n", 400, "The Host is invalid.", "host: there is none"},
		{"a bad field name", get + "a b: c\r\n\r\n", 400, "not a well-formed HTTP request", "line 3: byte 0x20 at 1"},
		{"a control in a value", get + "ab: c\x00d\r\n\r\n", 400, "not a well-formed HTTP request", "line 3: byte 0x00 at 5"},
		{"two credentials", get + "Authorization: Bearer a\r\nAuthorization: Bearer b\r\n\r\n", 400, "may occur once was sent twice", "authorization"},
		{"a field in Connection", get + "Connection: keep-alive, x-foo\r\n\r\n", 400, "Connection names a field that is not of the connection", "connection: the option at byte 12 of its value names a field"},
		{"another method", get + "X-HTTP-Method-Override: DELETE\r\n\r\n", 400, "overrides the method", "x-http-method-override"},
		{"another method, by a name that reads as such", get + "X_Method.Override: PUT\r\n\r\n", 400, "Send the request with the method that is meant", "x_method.override"},
		{"an identity field in Connection", get + "Connection: X-Sallyport-Principal\r\n\r\n", 400, "Leave it out of Connection", "connection: the option at byte 0 of its value names a field"},
		{"another spelling", get + "X_Api_Key: a\r\n\r\n", 400, "can be read as that of another field", "x_api_key: some servers take it for x-api-key"},
		{"our own field", get + "X-Sallyport-Principal: root\r\n\r\n", 400, "only the gateway may set", "x-sallyport-principal"},
		{"no TLS server's name", "GET / HTTP/1.1\r\nHost: other.test\r\n\r\n", 404, `"title":"No route has this host and path."`, ""},
	}
	for _, c := range rows {
		got := h.raw(strings.Replace(c.raw, "\r\n\r\n", "\r\nConnection: close\r\n\r\n", 1))
		shape := `{"error":{"message":`
		if c.status == 404 {
			shape = `{"title":` // of a host that no route has
		}
		if !strings.HasPrefix(got, fmt.Sprintf("HTTP/1.1 %d ", c.status)) || !strings.Contains(got, c.body) || !strings.Contains(got, shape) {
			t.Errorf("%s: %s; want %d and %s", c.name, got, c.status, c.body)
		}
	}
	if err := h.stop(); err != nil {
		t.Fatal(err)
	}
	all := h.audit.records(t)
	if len(all) != len(rows) {
		t.Fatalf("%d records; want %d", len(all), len(rows))
	}
	for i, c := range rows {
		if cause, _ := all[i]["cause"].(string); !strings.Contains(cause, c.cause) {
			t.Errorf("%s: the cause is %q; want %q in it", c.name, cause, c.cause)
		}
	}
	h.untouched()
}

// Routes of several kinds on a host have no shape in common.
func TestRefusalBeforeTheMatchIsAProblemWhereRoutesDiffer(t *testing.T) {
	t.Parallel()
	h := build(t, plan{routes: strings.ReplaceAll(`
  - {host: models.test, upstream: '%s', serves: openai, callers: issuer/corp, rules: [{allow: "*", models: "*"}]}
  - {host: models.test, path: /app, upstream: '%s', callers: issuer/corp, rules: [{allow: "*"}]}
`, "%s", "http://127.0.0.1:1")})
	if got := h.raw("GET /a%2fb HTTP/1.1\r\nHost: models.test\r\nConnection: close\r\n\r\n"); !strings.Contains(got, `{"title":"The path can be read in more than one way: %2f at byte 2 of the request target."`) {
		t.Errorf("got %s", got)
	}
}
