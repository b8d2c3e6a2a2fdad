package h1

import (
	"strings"
	"testing"
)

// The files rfc9112_*_test.go hold tables for RFC 9112 and its additions in RFC 9110. Each row has
// the section, the bytes, and the verdict. If the RFC leaves a choice, or asks for leniency that
// has enabled smuggling, the verdict is the strict one, and the row says what it costs.

// ending is the state of a connection after the last request of a row.
type ending uint8

const (
	kept     ending = iota // the next request is served
	closed                 // the answer announces the close; nothing after the request is read
	vanished               // the client left in the middle
)

const (
	get    = "GET /p HTTP/1.1\r\nHost: a\r\n"
	post   = "POST /p HTTP/1.1\r\nHost: a\r\n"
	chunks = post + "Transfer-Encoding: chunked\r\n\r\n"
	next   = "GET /smuggled HTTP/1.1\r\nHost: a\r\n\r\n"
)

// These are the results for refused heads.
const (
	syntax     = "head breaks the grammar"
	framed     = "the end of the content is announced badly, or twice"
	coding     = "transfer coding is not chunked alone"
	version    = "version is neither 1.0, 1.1 nor 2"
	target     = "bad request target"
	authority  = "bad authority"
	duplicate  = "duplicate of a field that may occur once"
	field      = "bad field"
	method     = "method is not served"
	tooLarge   = "head is too large"
	longTarget = "request target is too long"
	named      = "an end-to-end field is named by Connection"
	expected   = "expectation is not 100-continue"
	ambiguous  = "ambiguous path"
)

// request is a row: one client's bytes, and how the server reads them.
type request struct {
	section string // of RFC 9112, or of RFC 9110 with its number before it
	name    string
	raw     string
	want    string // the requests as formatted by heard, separated by "; "
	end     ending
}

// requests are all rows.
func requests() []request {
	var all []request
	for _, table := range [][]request{requestLines, hosts, fieldLines, framings, chunkedContents, connections} {
		all = append(all, table...)
	}
	return all
}

func TestRequests(t *testing.T) {
	for _, c := range requests() {
		t.Run(c.section+": "+c.name, func(t *testing.T) {
			for _, step := range []int{1 << 20, 7, 1} {
				if len(c.raw) > 1000*step {
					break // smaller steps take long and find nothing new
				}
				c.check(t, step)
			}
		})
	}
}

// check feeds the row to a server in pieces of step bytes, and again with a second request
// appended. That one must be served if the connection continues, and ignored if it ends.
func (c *request) check(t *testing.T, step int) {
	t.Helper()
	got, written := listen(c.raw, step)
	if s := said(got); s != c.want {
		t.Errorf("in pieces of %d: %s; want %s", step, s, c.want)
	}
	if answers := strings.Count(written, "HTTP/1.1 204 "); answers != len(got) {
		t.Errorf("in pieces of %d: %d answers to %d requests:\n%s", step, answers, len(got), written)
	}
	closes := strings.Count(written, "Connection: close\r\n")
	if c.end == vanished {
		return
	}
	if want := int(c.end); closes != want || want == 1 && !strings.HasSuffix(written, "Connection: close\r\n\r\n") {
		t.Errorf("in pieces of %d: %d answers close the connection; want %d, the last:\n%s", step, closes, want, written)
	}
	want := c.want
	if c.end == kept {
		want = strings.TrimPrefix(want+"; GET /smuggled 0", "; ")
	}
	if got, _ := listen(c.raw+next, step); said(got) != want {
		t.Errorf("in pieces of %d, with a request behind it: %s; want %s", step, said(got), want)
	}
}

func said(all []heard) string {
	var texts []string
	for _, h := range all {
		texts = append(texts, h.String())
	}
	return strings.Join(texts, "; ")
}
