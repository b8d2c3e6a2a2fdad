package h1

import (
	"fmt"
	"io"
	"strings"
	"testing"

	"sallyport/proxy/message"
	"sallyport/proxy/wire"
)

// heard is a request as the handler got it.
type heard struct {
	head     message.Head
	body     string
	trailers message.Fields
	err      error // of the body
}

// String is what the tables compare.
func (h heard) String() string {
	switch {
	case h.head.Fault != nil:
		return h.head.Fault.Error()
	case h.err != nil:
		return fmt.Sprintf("%s %s, then: %v", h.head.Method, h.head.Target, h.err)
	}
	return strings.TrimSpace(fmt.Sprintf("%s %s %d %s", h.head.Method, h.head.Target, h.head.ContentLength, h.body))
}

// listen gives a server raw bytes, in pieces of step, and returns the requests
// that its handler got and the bytes that it answered.
func listen(raw string, step int) (got []heard, written string) {
	conn := newCanned(raw, step)
	s := NewServer(func(s wire.Stream) {
		h := heard{head: *s.Head()}
		var body []byte
		body, h.err = io.ReadAll(s.Body())
		h.body, h.trailers = string(body), s.Body().Trailers()
		got = append(got, h)
		if h.err != nil {
			s.CloseAfter()
		}
		_ = s.Respond(&message.Response{Status: 204}, false)
		_ = s.Finish(nil)
	}, ServerOptions{HeadBytes: 4 << 10})
	newServerConn(s, conn).serve()
	return got, conn.written.String()
}

const (
	get  = "GET /p HTTP/1.1\r\nHost: a\r\n"
	post = "POST /p HTTP/1.1\r\nHost: a\r\n"
	next = "GET /smuggled HTTP/1.1\r\nHost: a\r\n\r\n"
)

// want is: the requests, as heard.String has them.
var requests = []struct{ name, raw, want string }{
	// RFC 9112, section 3: the request line.
	{"plain", get + "\r\n", "GET /p 0"},
	{"HTTP/1.0", "GET /p HTTP/1.0\r\nHost: a\r\n\r\n" + next, "GET /p 0"},
	{"any method", "BREW /p HTTP/1.1\r\nHost: a\r\n\r\n", "BREW /p 0"},
	{"method in lower case", "get /p HTTP/1.1\r\nHost: a\r\n\r\n", "get /p 0"},
	{"absolute form is left to Settle", "GET http://b/p HTTP/1.1\r\nHost: a\r\n\r\n", "GET http://b/p 0"},
	{"odd characters in the target", "GET /p?a=[]|^`{}\" HTTP/1.1\r\nHost: a\r\n\r\n", "GET /p?a=[]|^`{}\" 0"},
	{"HTTP/1.2", "GET /p HTTP/1.2\r\nHost: a\r\n\r\n" + next, "version is neither 1.0, 1.1 nor 2"},
	{"HTTP/2.0", "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", "version is neither 1.0, 1.1 nor 2"},
	{"HTTP/0.9", "GET /p HTTP/0.9\r\n\r\n", "version is neither 1.0, 1.1 nor 2"},
	{"no version", "GET /p\r\nHost: a\r\n\r\n" + next, syntax},
	{"HTTP/1.10", "GET /p HTTP/1.10\r\nHost: a\r\n\r\n", syntax},
	{"HTTP/1", "GET /p HTTP/1\r\nHost: a\r\n\r\n", syntax},
	{"HTTP/1,1", "GET /p HTTP/1,1\r\nHost: a\r\n\r\n", syntax},
	{"http/1.1", "GET /p http/1.1\r\nHost: a\r\n\r\n", syntax},
	{"two spaces", "GET  /p HTTP/1.1\r\nHost: a\r\n\r\n" + next, syntax},
	{"two spaces before the version", "GET /p  HTTP/1.1\r\nHost: a\r\n\r\n", syntax},
	{"space at the end", "GET /p HTTP/1.1 \r\nHost: a\r\n\r\n", syntax},
	{"space at the beginning", " GET /p HTTP/1.1\r\nHost: a\r\n\r\n", syntax},
	{"space in the target", "GET /p q HTTP/1.1\r\nHost: a\r\n\r\n", syntax},
	{"tab for a space", "GET\t/p HTTP/1.1\r\nHost: a\r\n\r\n", syntax},
	{"no target", "GET  HTTP/1.1\r\nHost: a\r\n\r\n", syntax},
	{"byte above ASCII in the target", "GET /\xc3\xa9 HTTP/1.1\r\nHost: a\r\n\r\n", syntax},
	{"control in the target", "GET /\x01 HTTP/1.1\r\nHost: a\r\n\r\n", syntax},
	{"DEL in the target", "GET /\x7f HTTP/1.1\r\nHost: a\r\n\r\n", syntax},
	{"bare CR in the line", "GET /p HTTP/1.1\rX: y\r\nHost: a\r\n\r\n", syntax},
	{"bare CR before the CRLF", "GET /p HTTP/1.1\r\r\nHost: a\r\n\r\n", syntax},
	{"bare LF ends the line", "GET /p HTTP/1.1\nHost: a\r\n\r\n", syntax},
	{"bad method", "GE/T /p HTTP/1.1\r\nHost: a\r\n\r\n", syntax},
	{"empty line first", "\r\n" + get + "\r\n", syntax},
	{"bare LF first", "\n" + get + "\r\n", syntax},
	{"TLS", "\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03\r\n\r\n", syntax},
	{"line too long", "GET /" + strings.Repeat("x", 5000) + " HTTP/1.1\r\nHost: a\r\n\r\n", "head is too large"},

	// Section 3.2: Host.
	{"no Host is left to Settle", "GET /p HTTP/1.1\r\n\r\n", "GET /p 0"},
	{"Host twice", get + "host: a\r\n\r\n" + next, "duplicate of a field that may occur once"},

	// Section 5: fields.
	{"white space around a value", get + "X: \t y \t\r\n\r\n", "GET /p 0"},
	{"empty value", get + "X:\r\n\r\n", "GET /p 0"},
	{"high bytes in a value", get + "X: \xff\xc3\xa9\r\n\r\n", "GET /p 0"},
	{"space before the colon", get + "X : y\r\n\r\n" + next, syntax},
	{"tab before the colon", get + "X\t: y\r\n\r\n", syntax},
	{"no colon", get + "X\r\n\r\n", syntax},
	{"no name", get + ": y\r\n\r\n", syntax},
	{"name of other bytes", get + "X(1): y\r\n\r\n", syntax},
	{"name with NUL", get + "X\x00: y\r\n\r\n", syntax},
	{"name above ASCII", get + "\xc3\xa9: y\r\n\r\n", syntax},
	{"folded", get + "X: y\r\n z\r\n\r\n" + next, syntax},
	{"folded by a tab", get + "X: y\r\n\tz\r\n\r\n", syntax},
	{"folded before all", "GET /p HTTP/1.1\r\n X: y\r\nHost: a\r\n\r\n", syntax},
	{"bare LF ends a field", get + "X: y\nZ: a\r\n\r\n", syntax},
	{"bare LF ends the head", get + "\n" + next, syntax},
	{"bare CR in a value", get + "X: y\rZ: a\r\n\r\n", syntax},
	{"NUL in a value", get + "X: y\x00\r\n\r\n", syntax},
	{"ESC in a long value", get + "X: 0123456789abcdef\x1b0123456789abcdef\r\n\r\n", syntax},
	{"DEL in a long value", get + "X: 0123456789abcdef\x7f0123456789abcdef\r\n\r\n", syntax},
	{"as many fields as may be", get + strings.Repeat("X: y\r\n", 127) + "\r\n", "GET /p 0"},
	{"one field more", get + strings.Repeat("X: y\r\n", 128) + "\r\n", "too many fields"},
	{"head too large", get + "X: " + strings.Repeat("y", 4<<10) + "\r\n\r\n", "head is too large"},
	{"head without an end", get + strings.Repeat("X: "+strings.Repeat("y", 1000)+"\r\n", 5), "head is too large"},

	// Section 6: framing.
	{"length", post + "Content-Length: 5\r\n\r\nhello", "POST /p 5 hello"},
	{"length 0", post + "Content-Length: 0\r\n\r\n", "POST /p 0"},
	{"length with zeros before it", post + "Content-Length: 0005\r\n\r\nhello", "POST /p 5 hello"},
	{"GET with content", get + "Content-Length: 5\r\n\r\nhello" + get + "\r\n", "GET /p 5 hello; GET /p 0"},
	{"signed length", post + "Content-Length: +5\r\n\r\nhello", framed},
	{"negative length", post + "Content-Length: -5\r\n\r\nhello", framed},
	{"hexadecimal length", post + "Content-Length: 0x5\r\n\r\nhello", framed},
	{"empty length", post + "Content-Length:\r\n\r\n", framed},
	{"list of lengths", post + "Content-Length: 5, 5\r\n\r\nhello", framed},
	{"equal lengths", post + "Content-Length: 5\r\nContent-Length: 5\r\n\r\nhello", framed},
	{"length of 19 digits", post + "Content-Length: 1000000000000000000\r\n\r\n", framed},
	{"length and chunks", post + "Content-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n" + next, framed},
	{"chunks and length", post + "Transfer-Encoding: chunked\r\nContent-Length: 5\r\n\r\n0\r\n\r\n" + next, framed},
	{"chunks in HTTP/1.0", "POST /p HTTP/1.0\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", framed},
	{"chunks", post + "Transfer-Encoding: chunked\r\n\r\n3\r\nhel\r\n2;x=y\r\nlo\r\n0\r\n\r\n" + get + "\r\n", "POST /p -1 hello; GET /p 0"},
	{"chunks in capitals", post + "Transfer-Encoding: CHUNKED\r\n\r\n0\r\n\r\n", "POST /p -1"},
	{"chunked twice", post + "Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", coding},
	{"chunked listed twice", post + "Transfer-Encoding: chunked, chunked\r\n\r\n0\r\n\r\n", coding},
	{"gzip and chunked", post + "Transfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n", coding},
	{"identity", post + "Transfer-Encoding: identity\r\n\r\n", coding},
	{"empty coding", post + "Transfer-Encoding:\r\n\r\n", coding},
	{"Kelvin sign", post + "Transfer-Encoding: chun\u212aed\r\n\r\n0\r\n\r\n", coding},
	{"framing among the trailers announced", post + "Trailer: X, content-length\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", framed},

	// Section 7.1: chunks.
	{"chunk size with a space", post + "Transfer-Encoding: chunked\r\n\r\n5 \r\nhello\r\n0\r\n\r\n" + next, "POST /p, then: malformed: bad chunk size"},
	{"chunk longer than its size", post + "Transfer-Encoding: chunked\r\n\r\n4\r\nhello\r\n0\r\n\r\n" + next, "POST /p, then: malformed: line is too long"},
	{"chunk without CRLF behind it", post + "Transfer-Encoding: chunked\r\n\r\n5\r\nhelloXX\r\n0\r\n\r\n", "POST /p, then: malformed: line is too long"},
	{"bare LF behind a size", post + "Transfer-Encoding: chunked\r\n\r\n5\nhello\r\n0\r\n\r\n", "POST /p, then: malformed: line does not end in CRLF"},
	{"bare LF in trailers", post + "Transfer-Encoding: chunked\r\n\r\n0\r\nX: y\n\r\n", "POST /p, then: malformed: line does not end in CRLF"},
	{"folded trailer", post + "Transfer-Encoding: chunked\r\n\r\n0\r\nX: y\r\n z\r\n\r\n", "POST /p, then: malformed: bad field name"},
	{"extension too long", post + "Transfer-Encoding: chunked\r\n\r\n5;" + strings.Repeat("x", 300) + "\r\nhello\r\n0\r\n\r\n", "POST /p, then: malformed: line is too long"},

	// Section 8: messages that are not whole, and what follows others.
	{"nothing", "", ""},
	{"half a head", get, ""},
	{"half a body", post + "Content-Length: 5\r\n\r\nhell", "POST /p, then: unexpected EOF"},
	{"half a chunk", post + "Transfer-Encoding: chunked\r\n\r\n5\r\nhell", "POST /p, then: unexpected EOF"},
	{"no last chunk", post + "Transfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n", "POST /p, then: unexpected EOF"},
	{"two", get + "\r\n" + get + "\r\n", "GET /p 0; GET /p 0"},
	{"the second is bad", get + "\r\n\r\n" + next, "GET /p 0; " + syntax},
	{"close", get + "Connection: x, Close\r\n\r\n" + next, "GET /p 0"},
}

const (
	syntax = "head breaks the grammar"
	framed = "the end of the content is announced badly, or twice"
	coding = "transfer coding is not chunked alone"
)

func TestRequests(t *testing.T) {
	for _, c := range requests {
		t.Run(c.name, func(t *testing.T) {
			for _, step := range []int{1 << 20, 1, 7} {
				got, written := listen(c.raw, step)
				var all []string
				for _, h := range got {
					all = append(all, h.String())
				}
				if s := strings.Join(all, "; "); s != c.want {
					t.Errorf("in pieces of %d: %s; want %s", step, s, c.want)
				}
				if answers := strings.Count(written, "HTTP/1.1 204 "); answers != len(got) {
					t.Errorf("in pieces of %d: %d answers to %d requests:\n%s", step, answers, len(got), written)
				}
				for i, h := range got {
					if (h.head.Fault != nil || h.err != nil) && (i != len(got)-1 || !strings.Contains(written, "Connection: close\r\n")) {
						t.Errorf("in pieces of %d: the connection goes on after %s", step, h)
					}
				}
			}
		})
	}
}

func TestHeadIsReadAsSent(t *testing.T) {
	got, _ := listen("POST /a%2Fb?x=%20 HTTP/1.0\r\nX-B: 1\r\nHOST: A.Example:80\r\nX_Odd:  a b \r\nx-b: 2\r\nExpect: 100-continue\r\nContent-Length: 1\r\n\r\nx", 1<<20)
	h := got[0].head
	if h.Version != message.HTTP10 || h.Scheme != "http" || h.Authority != "A.Example:80" || h.Target != "/a%2Fb?x=%20" || h.Fault != nil {
		t.Errorf("head %+v", h)
	}
	if s := fmt.Sprint(h.Fields); s != "[{x-b 1} {x_odd a b} {x-b 2} {expect 100-continue} {content-length 1}]" {
		t.Errorf("fields %s", s)
	}
}

// What is known of a request that is refused is there for the record.
func TestFaultKeepsTheRequestLine(t *testing.T) {
	got, _ := listen("PUT /x HTTP/1.1\r\nHost: a\r\nX : y\r\n\r\n", 1<<20)
	if h := got[0].head; h.Method != "PUT" || h.Target != "/x" || h.Version != message.HTTP11 || h.Fields != nil {
		t.Errorf("head %+v", h)
	}
}

func TestTrailersThatMayNotBeBelieved(t *testing.T) {
	got, _ := listen(post+"X-In-Head: 1\r\nTransfer-Encoding: chunked\r\n\r\n0\r\nX-Sum: 1\r\nContent-Length: 3\r\nAuthorization: b\r\nX_In_Head: 2\r\n\r\n", 1<<20)
	if s := fmt.Sprint(got[0].trailers); s != "[{x-sum 1}]" {
		t.Errorf("trailers %s", s)
	}
}
