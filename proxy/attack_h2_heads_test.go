package proxy_test

import (
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
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

// TestAttackLargeTrailersOfCalls: streams of calls may end in trailers, which a proxy in front passes.
func TestAttackLargeTrailersOfCalls(t *testing.T) {
	h, _ := buildGRPC(t, grpcRoute)
	f := h.frames()
	call := func(id uint32, method string, end bool) {
		f.headers(id, false, h.usual("POST", "/a.B/"+method, "content-type: application/grpc", "te: trailers")...)
		f.data(id, end, string(framedText("hello")))
	}
	call(1, "Hang", false) // the victim
	call(3, "Hang", false)
	f.headers(3, true, "x-sum: "+strings.Repeat("v", 20_000))
	if f.wait(3); f.got[3] == nil || f.got[3].grpc != "3" {
		t.Errorf("large trailers: %+v, %s", f.got[3], f.end)
	}
	call(5, "Fail", true)
	if got := f.wait(5); got != "200" || f.got[5].grpc != "5" {
		t.Errorf("the next call: %s, %+v", got, f.got[5])
	}
	if v := f.got[1]; f.end != "" || v != nil && v.done {
		t.Errorf("the victim: %+v, %s", v, f.end)
	}
}

// TestAttackLargeAnswerAmongOthers: the requests of many callers share a connection to an upstream that
// speaks HTTP/2. An answer whose head is too large is 502 for the one who asked.
func TestAttackLargeAnswerAmongOthers(t *testing.T) {
	protocols := new(http.Protocols)
	protocols.SetUnencryptedHTTP2(true)
	goOn := make(chan struct{})
	s := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		switch r.URL.Path {
		case "/head":
			w.Header().Set("X-Long", strings.Repeat("v", 200_000))
		case "/trailers":
			_, _ = io.WriteString(w, "content")
			w.Header().Set(http.TrailerPrefix+"X-Long", strings.Repeat("v", 200_000))
		case "/slow":
			_, _ = io.WriteString(w, "one ")
			_ = http.NewResponseController(w).Flush()
			<-goOn
			_, _ = io.WriteString(w, "two")
		}
	}))
	s.Config.Protocols = protocols
	conns := make(chan struct{}, 10)
	s.Config.ConnState = func(_ net.Conn, state http.ConnState) {
		if state == http.StateNew {
			conns <- struct{}{}
		}
	}
	s.Start()
	defer s.Close()
	h := build(t, plan{routes: `
  - {host: models.test, upstream: 'h2c://` + s.Listener.Addr().String() + `', callers: issuer/corp, rules: [{allow: "*"}]}
`})
	f := h.frames()
	f.headers(1, true, h.usual("GET", "/slow")...) // the victim
	for f.got[1] == nil || f.got[1].body != "one " {
		if !f.next() {
			t.Fatal(f.end)
		}
	}
	f.headers(3, true, h.usual("GET", "/head")...)
	if got := f.wait(3); got != "502" {
		t.Errorf("a large head: %s, %+v", got, f.got[3])
	}
	f.headers(5, true, h.usual("GET", "/trailers")...)
	if f.wait(5); f.got[5].reset == "" {
		t.Errorf("large trailers: %+v; want a cut answer", f.got[5])
	}
	close(goOn)
	if got := f.wait(1); got != "200" || f.got[1].body != "one two" || f.got[1].reset != "" {
		t.Errorf("the victim: %s, %+v", got, f.got[1])
	}
	f.headers(7, true, h.usual("GET", "/next")...)
	if got := f.wait(7); got != "200" || len(conns) != 1 {
		t.Errorf("the next: %s, over %d connections", got, len(conns))
	}
}
