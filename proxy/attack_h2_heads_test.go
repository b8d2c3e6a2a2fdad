package proxy_test

import (
	"fmt"
	"slices"
	"strings"
	"testing"
)

// TestAttackLargeHeadAmongOthers: a load balancer sends the requests of many callers over one connection.
// A caller with a head that is too large is refused in its own way, and the others go on, whatever its head
// holds.
func TestAttackLargeHeadAmongOthers(t *testing.T) {
	l := openLobby(t, plan{})
	f := l.frames()
	// The victim's request has begun.
	f.headers(1, false, l.usual("POST", "/victim", "x-indexed: by the encoder")...)
	f.data(1, false, "he")

	cookies := func(n, size int) (lines []string) {
		for i := range n {
			lines = append(lines, fmt.Sprintf("cookie: c%d=%s", i, strings.Repeat("v", size)))
		}
		return lines
	}
	window := []string{"accept: text/html", "sec-fetch-mode: navigate", "sec-fetch-dest: document"}
	script := []string{"accept: */*", "sec-fetch-mode: cors", "sec-fetch-dest: empty"}
	id := uint32(3)
	for _, c := range []struct {
		name   string
		fields []string
		method string
		want   func(*framed) bool
	}{
		{"a window with all the cookies that a browser keeps", slices.Concat(window, cookies(180, 4000)), "GET", func(s *framed) bool {
			return s.status == "431" && strings.Contains(s.body, "Delete the cookies of models.test in your browser")
		}},
		{"a window with one large cookie", slices.Concat(window, cookies(1, 300_000)), "GET", func(s *framed) bool {
			return s.status == "431" && strings.Contains(s.body, "Delete the cookies of models.test in your browser")
		}},
		{"a script", slices.Concat(script, cookies(100, 4000)), "GET", func(s *framed) bool {
			return s.status == "431" && strings.Contains(s.body, `"head_too_large"`)
		}},
		{"cookies first", slices.Concat(cookies(100, 4000), window), "GET", func(s *framed) bool {
			return s.status == "431" && strings.Contains(s.body, `"head_too_large"`)
		}},
		{"a call", slices.Concat([]string{"content-type: application/grpc", "te: trailers", "x-large-bin: " + strings.Repeat("A", 200_000)}, cookies(10, 4000)), "POST", func(s *framed) bool {
			return s.status == "200" && s.grpc == "8" && s.body == ""
		}},
		{"a call with many fields", append([]string{"content-type: application/grpc", "te: trailers"}, manyLines(400)...), "POST", func(s *framed) bool {
			return s.status == "200" && s.grpc == "8" && s.body == ""
		}},
		{"a name", append(slices.Clone(script), strings.Repeat("n", 200_000)+": v"), "GET", func(s *framed) bool { return s.status == "431" }},
	} {
		refused := strings.Count(l.audit.text(), `"reason":"head_too_large"`)
		f.headers(id, true, append([]string{":method: " + c.method, ":scheme: https", ":authority: models.test", ":path: /a.B/C"}, c.fields...)...)
		f.wait(id)
		if got := f.got[id]; got == nil || !c.want(got) {
			t.Errorf("%s: %+v, %s", c.name, got, f.end)
		}
		l.until("the record of "+c.name, func() bool { return strings.Count(l.audit.text(), `"reason":"head_too_large"`) == refused+1 })
		id += 2
	}
	if text := l.audit.text(); strings.Count(text, "(limits.head_bytes)") != 6 || strings.Count(text, "(limits.fields)") != 1 || strings.Contains(text, "vvvv") {
		t.Errorf("records: %.2000s", text)
	}
	if n := l.model.hits.Load(); n > 1 {
		t.Errorf("the upstream saw %d requests; want only the victim's", n)
	}

	// Trailers cost their stream too.
	f.headers(id, false, l.usual("POST", "/trailers")...)
	f.data(id, false, "x")
	f.headers(id, true, "x-sum: "+strings.Repeat("v", 300_000))
	if got := f.wait(id); got != "400" || !strings.Contains(f.got[id].body, `"bad_body"`) {
		t.Errorf("trailers: %s, %s", got, f.end)
	}
	l.until("the record of the trailers", func() bool { return strings.Contains(l.audit.text(), `"cause":"trailers are too large"`) })
	// The victim is served, and the compression goes on.
	f.data(1, true, "llo")
	if got := f.wait(1); got != "200" {
		t.Errorf("the victim: %s", got)
	}
	f.headers(id+2, true, l.usual("GET", "/next", "x-indexed: by the encoder")...)
	if got := f.wait(id + 2); got != "200" {
		t.Errorf("the next request: %s", got)
	}
	if r, _ := l.model.seen(); r == nil || r.URL.Path != "/next" || r.Header.Get("X-Indexed") != "by the encoder" {
		t.Errorf("the upstream saw %v", r)
	}
}

// TestCookiesOfABrowserOverBothVersions: over HTTP/2 each cookie has a field of its own (RFC 9113, section
// 8.2.3), over HTTP/1.1 all are in one line. The application sees the same.
func TestCookiesOfABrowserOverBothVersions(t *testing.T) {
	j := newJudge(t, nil)
	h := build(t, plan{routes: j.before("")})
	var all, crumbs []string
	for i := range 180 { // Chromium keeps as many for a host
		all = append(all, fmt.Sprintf("name%d=value-%d", i, i))
		crumbs = append(crumbs, "cookie: "+all[i])
	}
	cookie := strings.Join(all, "; ")
	if got := h.raw("GET /one HTTP/1.1\r\nHost: models.test\r\nAuthorization: Bearer TOKEN\r\nConnection: close\r\nCookie: " + cookie + "\r\n\r\n"); !strings.HasPrefix(got, "HTTP/1.1 200 ") {
		t.Errorf("HTTP/1.1: %.300s", got)
	}
	f := h.frames()
	f.headers(1, true, h.usual("GET", "/two", crumbs...)...)
	if got := f.wait(1); got != "200" {
		t.Errorf("HTTP/2: %s", got)
	}
	f.headers(3, true, h.usual("GET", "/three", append(crumbs, manyLines(129)...)...)...)
	if got := f.wait(3); got != "431" {
		t.Errorf("129 other fields: %s", got)
	}
	f.headers(5, true, h.usual("GET", "/five", slices.Repeat([]string{"cookie: a=1"}, 100_000)...)...)
	if got := f.wait(5); got != "431" {
		t.Errorf("100,000 cookies: %s", got)
	}
	up := j.taken()
	if got := targets(up); got != "GET /one, GET /two" {
		t.Fatalf("the upstream saw %s", got)
	}
	for _, r := range up {
		if r.get("cookie") != cookie {
			t.Errorf("%s: %.100s", r.Target, r.get("cookie"))
		}
	}
	f.c.Close()
	h.end(j, up)
}
