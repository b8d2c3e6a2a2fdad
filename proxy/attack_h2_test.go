package proxy_test

import (
	"fmt"
	"slices"
	"strings"
	"testing"

	"golang.org/x/net/http2"
)

// framing is an HTTP/2 request that two parsers could read differently.
type framing struct {
	name  string
	lines []string // of the head; "{p}" is a path unique to the row
	data  []string // DATA frames, after which the stream ends; nil: it ends with the head
	tail  []string // trailers after the data
}

// TestAttackFramesBaseRequestsSucceed checks that the base requests, from which each attack differs in one
// point, succeed.
func TestAttackFramesBaseRequestsSucceed(t *testing.T) {
	j := newJudge(t, nil)
	h := build(t, plan{routes: j.before("")})
	f := h.frames()
	f.headers(1, true, h.usual("GET", "/a?b", "te: trailers", "x-odd: a\tb")...)
	f.headers(3, false, h.usual("POST", "/b", "content-length: 5")...)
	f.data(3, false, "hel")
	f.data(3, true, "lo")
	f.headers(5, false, h.usual("POST", "/c", "trailer: x-sum, x-sallyport-principal")...)
	f.data(5, false, "")
	f.data(5, false, "hello")
	f.headers(5, true, "x-sum: 7", "x-sallyport-principal: root", "x-unannounced: a")
	f.headers(7, true, h.usual("GET", "/d", "cookie: a=1", "x-b: 1", "cookie: b=2", "cookie: c=3", "host: models.test")...)
	f.headers(9, false, h.usual("POST", "/e", "content-length: 0")...)
	f.data(9, true, "")
	for _, id := range []uint32{1, 3, 5, 7, 9} {
		if got := f.wait(id); got != "200" {
			t.Errorf("stream %d: %s", id, got)
		}
	}
	up := j.taken()
	if got := targets(up); got != "GET /a?b, GET /d, POST /b hello, POST /c hello, POST /e" {
		t.Errorf("the upstream saw %s", got)
	}
	for _, r := range up {
		switch r.Target {
		case "/d":
			if r.get("cookie") != "a=1; b=2; c=3" || r.get("host") != strings.TrimPrefix(j.URL, "http://") {
				t.Errorf("cookie %q, host %q", r.get("cookie"), r.get("host"))
			}
		case "/c":
			if fmt.Sprint(r.Trailers) != "[[x-sum 7] [x-unannounced a]]" {
				t.Errorf("trailers %v; want those that are not ours", r.Trailers)
			}
		}
	}
	f.c.Close()
	h.end(j, up)
}

func TestAttackFrames(t *testing.T) {
	j := newJudge(t, nil)
	h := build(t, plan{routes: j.before("")})
	token := "authorization: Bearer " + h.token()
	for i, x := range framings(token) {
		t.Run(x.name, func(t *testing.T) {
			h.t = t
			f := h.frames()
			for k := range x.lines {
				x.lines[k] = strings.ReplaceAll(x.lines[k], "{p}", fmt.Sprintf("/r%d", i))
			}
			f.headers(1, x.data == nil && x.tail == nil, x.lines...)
			for i, d := range x.data {
				f.data(1, x.tail == nil && i == len(x.data)-1, d)
			}
			if x.tail != nil {
				f.headers(1, true, x.tail...)
			}
			got := f.wait(1)
			refused := strings.HasPrefix(got, "4") || strings.HasPrefix(got, "RST ") || strings.HasPrefix(got, "GOAWAY ") || got == "501" || got == "505"
			if up := j.taken(); !refused || len(up) > 0 {
				t.Errorf("row %d: %s, upstream %s; want a refusal and nothing", i, got, targets(up))
			}
			j.sound(t)
		})
	}
	h.t = t
	h.end(j, nil)
}

// TestAttackTableSizeUpdates: a header block may begin with two table size updates (RFC 7541,
// section 4.2). A third ends the connection, and no request results.
func TestAttackTableSizeUpdates(t *testing.T) {
	j := newJudge(t, nil)
	h := build(t, plan{routes: j.before("")})
	send := func(updates string) string {
		f := h.frames()
		block := append([]byte(updates), f.block(h.usual("GET", "/r")...)...)
		_ = f.fr.WriteHeaders(http2.HeadersFrameParam{StreamID: 1, BlockFragment: block, EndStream: true, EndHeaders: true})
		return f.wait(1)
	}
	if got := send("\x20\x20\x20"); !strings.HasPrefix(got, "GOAWAY COMPRESSION_ERROR") {
		t.Errorf("three updates: %s", got)
	}
	if up := j.taken(); len(up) > 0 {
		t.Errorf("three updates: upstream %s", targets(up))
	}
	if got, up := send("\x20\x3f\xe1\x1f"), j.taken(); got != "200" || len(up) != 1 {
		t.Errorf("two updates: %s, upstream %s", got, targets(up))
	}
}

// framings are the rows of TestAttackFrames. "!" before a line removes the usual line with that
// name.
func framings(token string) []framing {
	usual := func(changes ...string) []string {
		lines := []string{":method: GET", ":scheme: https", ":authority: models.test", ":path: {p}", token}
		for _, c := range changes {
			if name, ok := strings.CutPrefix(c, "!"); ok {
				lines = slices.DeleteFunc(lines, func(l string) bool { return strings.HasPrefix(l, name+":") })
				continue
			}
			i := strings.Index(c[1:], ":") + 1
			if at := slices.IndexFunc(lines, func(l string) bool { return strings.HasPrefix(l, c[:i+1]) && c[0] == ':' }); at >= 0 {
				lines[at] = c
			} else {
				lines = append(lines, c)
			}
		}
		return lines
	}
	var rows []framing
	add := func(name string, changes ...string) {
		rows = append(rows, framing{name: name, lines: usual(changes...)})
	}
	for _, c := range []string{"\r", "\n", "\r\n", "\x00", "\x7f", "\x1b", "\v"} {
		add(fmt.Sprintf("%q in a value", c), "x-a: a"+c+"x-sallyport-principal: root")
		add(fmt.Sprintf("%q at the end of a value", c), "x-a: a"+c)
		add(fmt.Sprintf("%q in a name", c), "x-a"+c+"b: a")
		add(fmt.Sprintf("%q in the path", c), ":path: {p}"+c+"x")
		add(fmt.Sprintf("%q in the query", c), ":path: {p}?a"+c+"x")
		add(fmt.Sprintf("%q in the method", c), ":method: GE"+c+"T")
		add(fmt.Sprintf("%q in the authority", c), ":authority: models.test"+c)
		add(fmt.Sprintf("%q in a cookie", c), "cookie: a"+c+"b")
		add(fmt.Sprintf("%q in the credential", c), "!authorization", token+c)
	}
	add("an empty cookie beside another", "cookie: a=1", "cookie: ")
	add("an empty cookie before another", "cookie: ", "cookie: a=1")
	add("a request in the path", ":path: {p} HTTP/1.1\r\nHost: models.test\r\n\r\nGET /smuggled")
	add("a request in a value", "x-a: b\r\n\r\nGET /smuggled HTTP/1.1\r\nHost: models.test\r\n\r\n")
	add("a request in the method", ":method: GET /smuggled HTTP/1.1\r\nX: ")
	for _, name := range []string{"X-A", "x-A", "Authorization", "Content-Length", "Transfer-Encoding", "Host", "", " ", "x a", "x-a ", " x-a", "x:a", "x(a)", "x/a", "x@a", "x\xc3\xa9", "\"x\"", "x,a", "x;a", "x=a"} {
		rows = append(rows, framing{name: fmt.Sprintf("name %q", name), lines: append(usual(), "\x00"+name)})
	}
	for _, line := range []string{
		"connection: close", "connection: x-sallyport-principal", "keep-alive: 5", "proxy-connection: keep-alive", "transfer-encoding: chunked", "transfer-encoding: identity", "upgrade: websocket", "upgrade: h2c",
		"te: gzip", "te: trailers, gzip",
	} {
		add(line, line)
	}
	add("coding chunked and its chunks", ":method: POST", "transfer-encoding: chunked")
	rows[len(rows)-1].data = []string{"0\r\n\r\nGET /smuggled HTTP/1.1\r\nHost: models.test\r\n\r\n"}
	add("space before a value", "x-a:  a")
	add("space after a value", "x-a: a ")
	add("an odd expectation", "expect: 200-ok")
	add("a protected name", "x-sallyport-principal: root")
	add("a protected name with underscores", "x_sallyport_principal: root")
	add("two credentials", "!authorization", token, token)
	add("two credentials, one empty", "!authorization", token, "authorization: ")
	add("a method override", "x-http-method-override: DELETE")
	rows = append(rows, framingsOfPseudo(token, usual)...)
	return append(rows, framingsOfContent(usual)...)
}

func framingsOfPseudo(token string, usual func(...string) []string) []framing {
	rows := []framing{
		{name: ":method after a field", lines: []string{":scheme: https", ":authority: models.test", ":path: {p}", token, ":method: GET"}},
		{name: "a pseudo field in capitals", lines: []string{":Method: GET", ":scheme: https", ":authority: models.test", ":path: {p}", token}},
		{name: "no authority and no host", lines: usual("!:authority")},
		{name: "host unlike the authority", lines: usual("host: evil.test")},
		{name: "two hosts", lines: usual("host: models.test", "host: evil.test")},
		{name: "two hosts without an authority", lines: usual("!:authority", "host: models.test", "host: evil.test")},
		{name: "an empty host beside the authority", lines: usual("host: ")},
		{name: "a status", lines: append([]string{":status: 200"}, usual()...)},
		{name: "a protocol", lines: append([]string{":protocol: websocket"}, usual(":method: CONNECT")...)},
		{name: "an unknown pseudo field", lines: append([]string{":odd: x"}, usual()...)},
		{name: "a pseudo field without a name", lines: append([]string{":: x"}, usual()...)},
		{name: "CONNECT", lines: []string{":method: CONNECT", ":authority: models.test:443", token}},
		{name: "CONNECT with a path", lines: usual(":method: CONNECT")},
		{name: "TRACE", lines: usual(":method: TRACE")},
	}
	for _, name := range []string{":method", ":scheme", ":path", ":authority"} {
		lines := usual()
		i := slices.IndexFunc(lines, func(l string) bool { return strings.HasPrefix(l, name+":") })
		rows = append(rows, framing{name: name + " twice", lines: slices.Insert(slices.Clone(lines), i, lines[i])})
		rows = append(rows, framing{name: name + " empty", lines: usual(name + ": ")})
		if name != ":authority" {
			rows = append(rows, framing{name: name + " missing", lines: usual("!" + name)})
		}
	}
	for _, path := range []string{
		"{p} x", "{p}#x", "{p}?a#x", "{p}\\x", "{p}//x", "{p}/../x", "{p}/%2e%2e/x", "{p}%2fx", "{p};x", "//evil.test{p}", "*", "x", "?x", "#", "http://models.test{p}", "https://evil.test{p}", "http:{p}", "models.test:443", "\\x", "{p}\xc3\xa9", "{p}%00", "{p}%zz", "{p}%",
	} {
		rows = append(rows, framing{name: fmt.Sprintf(":path %q", path), lines: usual(":path: " + path)})
	}
	for _, host := range []string{
		"user@models.test", "models.test/x", "models.test?x", "models.test#x", "models.test:x", "models.test:99999", "models.test,evil.test", "models.test evil.test", "models..test", "[models.test]", "https://models.test", "models.test%00", "evil.test",
	} {
		rows = append(rows, framing{name: fmt.Sprintf(":authority %q", host), lines: usual(":authority: " + host)})
	}
	for _, scheme := range []string{"http", "ftp", "HTTPS", "https:", "https://evil.test", "javascript", "h\x00"} {
		rows = append(rows, framing{name: fmt.Sprintf(":scheme %q", scheme), lines: usual(":scheme: " + scheme)})
	}
	for _, method := range []string{"GE T", "GET ", "GET:", "GET\t", "G\xc3\x89T", "\"GET\"", "GET/"} {
		rows = append(rows, framing{name: fmt.Sprintf(":method %q", method), lines: usual(":method: " + method)})
	}
	return rows
}

// framingsOfContent have content that contradicts the head, or bad trailers.
func framingsOfContent(usual func(...string) []string) []framing {
	post := func(more ...string) []string { return usual(append([]string{":method: POST"}, more...)...) }
	rows := []framing{
		{name: "less data than announced", lines: post("content-length: 6"), data: []string{"hello"}},
		{name: "more data than announced", lines: post("content-length: 4"), data: []string{"hello"}},
		{name: "data where none is announced", lines: post("content-length: 0"), data: []string{"hello"}},
		{name: "no data where some is announced", lines: post("content-length: 5")},
		{name: "no data frame's worth where some is announced", lines: post("content-length: 5"), data: []string{""}},
		{name: "much less data than announced", lines: post("content-length: 200000"), data: []string{strings.Repeat("x", 16000), strings.Repeat("x", 16000)}},
		{name: "two lengths", lines: post("content-length: 5", "content-length: 5"), data: []string{"hello"}},
		{name: "two different lengths", lines: post("content-length: 5", "content-length: 6"), data: []string{"hello"}},
	}
	for _, v := range []string{"+5", "-5", "5,5", "5, 5", "0x5", "5.0", "five", "", "5 5", "99999999999999999999", "18446744073709551621", "٥"} {
		rows = append(rows, framing{name: fmt.Sprintf("length %q", v), lines: post("content-length: " + v), data: []string{"hello"}})
	}
	for name, tail := range map[string][]string{
		"a pseudo field":            {":path: /x"},
		"a status":                  {":status: 200"},
		"a name in capitals":        {"X-Sum: 1"},
		"a line break in a value":   {"x-sum: a\r\nx: y"},
		"NUL in a value":            {"x-sum: a\x00"},
		"space in a name":           {"x sum: a"},
		"a pseudo field after some": {"x-sum: 1", ":method: GET"},
	} {
		rows = append(rows, framing{name: "trailers: " + name, lines: post("trailer: x-sum"), data: []string{"hello"}, tail: tail})
	}
	return rows
}
