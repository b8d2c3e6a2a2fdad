package h1

import (
	"fmt"
	"strings"
	"testing"
)

// answer is a row of the client's table: a server's answer to one request, and how the client reads
// it.
type answer struct {
	section string
	name    string
	method  string // of the request; GET if empty
	raw     string
	want    string // the answer, as formatted by reading
	end     ending // kept: the connection accepts another request
}

const (
	ok200  = "HTTP/1.1 200 OK\r\n"
	empty  = "Content-Length: 0\r\n\r\n"
	pieces = ok200 + "Transfer-Encoding: chunked\r\n\r\n"
)

// String is the form that the rows compare.
func (r reading) String() string {
	var text string
	for _, m := range r.interim {
		text += fmt.Sprintf("%d; ", m.Status)
	}
	switch {
	case r.status == 0:
		return text + r.err.Error()
	case r.err != nil:
		return text + fmt.Sprintf("%d, then: %v", r.status, r.err)
	}
	text += fmt.Sprintf("%d %d", r.status, r.length)
	if r.body != "" {
		text += " " + r.body
	}
	for _, f := range r.trailers {
		text += fmt.Sprintf(" +%s=%s", f.Name, f.Value)
	}
	return text
}

func answers() []answer {
	return append(append(append([]answer(nil), statusLines...), answerFields...), answerContents...)
}

func TestAnswers(t *testing.T) {
	for _, c := range answers() {
		t.Run(c.section+": "+c.name, func(t *testing.T) {
			method := c.method
			if method == "" {
				method = "GET"
			}
			for _, step := range []int{1 << 20, 7, 1} {
				if len(c.raw) > 1000*step {
					break
				}
				got := readAnswer(c.raw, method, step)
				if got.String() != c.want || got.reusable != (c.end == kept) {
					t.Errorf("in pieces of %d: %s, kept %v; want %s, %v", step, got, got.reusable, c.want, c.end == kept)
				}
			}
			if c.end == kept {
				got := readAnswer(c.raw+ok200+"Content-Length: 4\r\n\r\nevil", method, 1<<20)
				if got.String() != c.want || got.reusable {
					t.Errorf("with an answer behind it that nobody asked for: %s, kept %v; want %s and the connection closed", got, got.reusable, c.want)
				}
			}
		})
	}
}

// statusLines cover sections 2 and 4, and section 15 of RFC 9110.
var statusLines = []answer{
	{"4", "the least answer", "", "HTTP/1.1 200 OK\r\n" + empty, "200 0", kept},
	{"4", "no reason", "", "HTTP/1.1 404 \r\n" + empty, "404 0", kept},
	{"4", "reason in UTF-8, with a tab", "", "HTTP/1.1 200 D\xc3\xa9j\xc3\xa0\tvu\r\n" + empty, "200 0", kept},
	{"4", "no space before the reason", "", "HTTP/1.1 200\r\n" + empty, "200 0", kept}, // "MUST send the space", but no reader needs it
	{"4", "two spaces before the status", "", "HTTP/1.1  200 OK\r\n" + empty, badStatusLine, closed},
	{"4", "tab before the status", "", "HTTP/1.1\t200 OK\r\n" + empty, badStatusLine, closed},
	{"4", "two digits", "", "HTTP/1.1 20 OK\r\n" + empty, badStatusLine, closed},
	{"4", "four digits", "", "HTTP/1.1 2000 OK\r\n" + empty, badStatusLine, closed},
	{"4", "signed status", "", "HTTP/1.1 +20 OK\r\n" + empty, "malformed: bad status", closed},
	{"4", "status in words", "", "HTTP/1.1 two OK\r\n" + empty, "malformed: bad status", closed},
	{"9110 15", "status 000", "", "HTTP/1.1 000 OK\r\n" + empty, "malformed: status out of range", closed},
	{"9110 15", "status 600", "", "HTTP/1.1 600 OK\r\n" + empty, "malformed: status out of range", closed},
	{"9110 15", "status 299", "", "HTTP/1.1 299 OK\r\n" + empty, "299 0", kept},
	{"4", "control in the reason", "", "HTTP/1.1 200 O\x00K\r\n" + empty, "malformed: bad reason phrase", closed},
	{"4", "bare CR in the reason", "", "HTTP/1.1 200 O\rK\r\n" + empty, "malformed: bad reason phrase", closed},
	{"2.3", "HTTP/1.0", "", "HTTP/1.0 200 OK\r\nContent-Length: 3\r\n\r\nabc", "200 3 abc", closed},
	{"2.3", "HTTP/1.2", "", "HTTP/1.2 200 OK\r\n" + empty, badStatusLine, closed},
	{"2.3", "HTTP/2.0", "", "HTTP/2.0 200 OK\r\n" + empty, badStatusLine, closed},
	{"2.3", "HTTP/2", "", "HTTP/2 200 OK\r\n" + empty, badStatusLine, closed},
	{"2.3", "http/1.1", "", "http/1.1 200 OK\r\n" + empty, badStatusLine, closed},
	{"2.3", "HTTP/0.9", "", "<html>\n", badEnd, closed},
	{"2.3", "another protocol", "", "SSH-2.0-OpenSSH_9.2\r\n\r\n", badStatusLine, closed},
	{"2.2", "nothing", "", "", "unexpected EOF", closed},
	{"2.2", "half a status line", "", "HTTP/1.1 20", "unexpected EOF", closed},
	{"2.2", "half a head", "", ok200 + "A: b\r\n", "unexpected EOF", closed},
	{"2.2", "empty line first", "", "\r\n" + ok200 + empty, "malformed: no status line", closed},
	{"2.2", "a field line first", "", "A: b\r\n" + empty, badStatusLine, closed},
	{"2.2", "bare LF behind the status", "", "HTTP/1.1 200 OK\nContent-Length: 0\n\n", badEnd, closed},
	{"2.2", "bare LF behind a field", "", ok200 + "A: b\n" + empty, badEnd, closed},
	{"2.2", "bare LF ends the head", "", ok200 + "Content-Length: 0\r\n\n", badEnd, closed},
	{"2.2", "white space before the first field", "", ok200 + " A: b\r\n" + empty, badFieldName, closed},

	{"9110 15.2", "100 first", "", "HTTP/1.1 100 Continue\r\n\r\n" + ok200 + empty, "200 0", kept},
	{"9110 15.2", "103 first", "", "HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\n" + ok200 + empty, "103; 200 0", kept},
	{"9110 15.2", "as many as may be", "", strings.Repeat("HTTP/1.1 102 Processing\r\n\r\n", 8) + ok200 + empty, strings.Repeat("102; ", 8) + "200 0", kept},
	{"9110 15.2", "one more", "", strings.Repeat("HTTP/1.1 100 Continue\r\n\r\n", 9) + ok200 + empty, "malformed: too many interim responses", closed},
	{"9110 15.2", "no final answer", "", "HTTP/1.1 100 Continue\r\n\r\n", "unexpected EOF", closed},
	{"6.3", "interim answer with a length", "", "HTTP/1.1 103 Early\r\nContent-Length: 1\r\n\r\na" + ok200 + empty, "103; " + badStatusLine, closed},
	{"6.3", "interim answer that announces content", "", "HTTP/1.1 103 Early\r\nContent-Length: 1\r\nTransfer-Encoding: gzip\r\n\r\n" + ok200 + empty, "103; 200 0", closed},
	{"6.3", "interim answer with length 0", "", "HTTP/1.1 100 Continue\r\nContent-Length: 0\r\n\r\n" + ok200 + empty, "200 0", kept},
	{"6.1", "interim answer in chunks", "", "HTTP/1.1 103 Early\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n" + ok200 + empty, "103; " + badStatusLine, closed},
	{"9110 7.8", "101 that was not asked for", "", "HTTP/1.1 101 Switching\r\nConnection: upgrade\r\nUpgrade: websocket\r\n\r\n", notAsked, closed},
	{"9110 7.8", "200 that names a protocol", "", ok200 + "Upgrade: h2c\r\nConnection: upgrade\r\n" + empty, "200 0", kept},
	{"9110 7.8", "Upgrade in two lines", "", ok200 + "Upgrade: h2c\r\nUpgrade: websocket\r\n" + empty, "200 0", kept},
}

const (
	badStatusLine = "malformed: bad status line"
	badEnd        = "malformed: line does not end in CRLF"
	badFieldName  = "malformed: bad field name"
	badFieldValue = "malformed: bad field value"
	badChunkSize  = "malformed: bad chunk size"
	notAsked      = "malformed: switch to a protocol that was not asked for"
	badLength     = "malformed: bad or repeated Content-Length"
	badCoding     = "malformed: Transfer-Encoding is not chunked alone"
	bothFramings  = "malformed: both Content-Length and Transfer-Encoding"
)

// answerFields cover sections 5 and 9.
var answerFields = []answer{
	{"5.1", "white space around a value", "", ok200 + "A: \t b \t\r\nContent-Length:\t3 \r\n\r\nabc", "200 3 abc", kept},
	// "A proxy MUST remove" that space; this client refuses the whole answer.
	{"5.1", "space before the colon", "", ok200 + "Content-Length : 0\r\n\r\n", badFieldName, closed},
	{"5.1", "no colon", "", ok200 + "A\r\n" + empty, "malformed: line without a colon", closed},
	{"5.1", "no name", "", ok200 + ": b\r\n" + empty, badFieldName, closed},
	{"5.1", "NUL in a name", "", ok200 + "A\x00: b\r\n" + empty, badFieldName, closed},
	{"5.1", "name above ASCII", "", ok200 + "\xc3\xa9: b\r\n" + empty, badFieldName, closed},
	{"5.2", "folded", "", ok200 + "A: b\r\n c\r\n" + empty, badFieldName, closed}, // the RFC also allows replacing the fold; this client refuses (502)
	{"5.2", "folded by a tab", "", ok200 + "A: b\r\n\tc\r\n" + empty, badFieldName, closed},
	{"9110 5.5", "bare CR in a value", "", ok200 + "A: b\rC: d\r\n" + empty, badFieldValue, closed},
	{"9110 5.5", "NUL in a value", "", ok200 + "A: b\x00\r\n" + empty, badFieldValue, closed},
	{"9110 5.5", "high bytes in a value", "", ok200 + "A: \xff\r\n" + empty, "200 0", kept},
	{"9110 5.4", "as many fields as may be", "", ok200 + strings.Repeat("A: b\r\n", 199) + empty, "200 0", kept},
	{"9110 5.4", "one field more", "", ok200 + strings.Repeat("A: b\r\n", 200) + empty, "malformed: too many fields", closed},
	{"9110 5.4", "a large head", "", ok200 + "A: " + strings.Repeat("b", 60<<10) + "\r\n" + empty, "200 0", kept},
	{"9110 5.4", "head too large", "", ok200 + "A: " + strings.Repeat("b", 64<<10) + "\r\n" + empty, "malformed: head or trailers are too long", closed},
	{"9110 5.4", "line without an end", "", strings.Repeat("b", 70<<10), "malformed: head or trailers are too long", closed},

	{"9.6", "close", "", ok200 + "Connection: Keep-Alive, CLOSE\r\n" + empty, "200 0", closed},
	{"9.6", "close in the second line", "", ok200 + "Connection: keep-alive\r\nConnection: close\r\n" + empty, "200 0", closed},
	{"9.3", "keep-alive", "", ok200 + "Connection: keep-alive\r\nKeep-Alive: timeout=5, max=100\r\n" + empty, "200 0", kept},
	{"9.3", "keep-alive of no time", "", ok200 + "Keep-Alive: timeout=x\r\n" + empty, "200 0", kept},
	{"9.3", "keep-alive for no time", "", ok200 + "Keep-Alive: timeout=0\r\n" + empty, "200 0", closed},
	{"9.3", "keep-alive for no further request", "", ok200 + "Keep-Alive: timeout=5, max=0\r\n" + empty, "200 0", closed},
	{"9.3", "keep-alive in capitals", "", ok200 + "Keep-Alive: Timeout=5; Max=0, MAX=1\r\n" + empty, "200 0", kept},
	{"9.3", "keep-alive of HTTP/1.0", "", "HTTP/1.0 200 OK\r\nConnection: keep-alive\r\n" + empty, "200 0", closed},
	{"9110 7.6.1", "Connection is no list", "", ok200 + "Connection: a b\r\n" + empty, "malformed: bad Connection", closed},
	{"9110 7.6.1", "Connection with an empty list", "", ok200 + "Connection: ,\r\n" + empty, "200 0", kept},
}

// answerContents cover sections 6 and 7.
var answerContents = []answer{
	{"6.2", "length", "", ok200 + "Content-Length: 3\r\n\r\nabc", "200 3 abc", kept},
	{"6.2", "length with zeros before it", "", ok200 + "Content-Length: 003\r\n\r\nabc", "200 3 abc", kept},
	{"6.3", "to the end", "", ok200 + "\r\nabc", "200 -1 abc", closed},
	{"6.3", "to the end, and close", "", ok200 + "Connection: close\r\n\r\nabc", "200 -1 abc", closed},
	{"6.3", "to the end of HTTP/1.0", "", "HTTP/1.0 200 OK\r\n\r\nabc", "200 -1 abc", closed},
	{"6.3", "to the end, which is at once", "", ok200 + "\r\n", "200 -1", closed},
	{"6.3", "HEAD with a length", "HEAD", ok200 + "Content-Length: 100\r\n\r\n", "200 100", kept},
	{"6.3", "HEAD with chunks", "HEAD", ok200 + "Transfer-Encoding: chunked\r\n\r\n", "200 -1", kept},
	{"6.3", "HEAD without framing", "HEAD", ok200 + "\r\n", "200 -1", kept},
	{"6.3", "HEAD with content", "HEAD", ok200 + "Content-Length: 3\r\n\r\nabc", "200 3", closed},
	{"6.3", "204", "", "HTTP/1.1 204 No\r\n\r\n", "204 0", kept},
	{"6.2", "204 with length 0", "", "HTTP/1.1 204 No\r\n" + empty, "204 0", kept}, // servers in the field send it
	{"6.2", "204 with a length", "", "HTTP/1.1 204 No\r\nContent-Length: 3\r\n\r\nabc", "204 0", closed},
	{"6.3", "204 with a length, and nothing behind it", "", "HTTP/1.1 204 No\r\nContent-Length: 3\r\n\r\n", "204 0", closed},
	{"6.3", "204 with two lengths and chunks", "", "HTTP/1.1 204 No\r\nContent-Length: 3\r\nContent-Length: x\r\nTransfer-Encoding: chunked\r\n\r\n", "204 0", closed},
	{"6.1", "204 in chunks", "", "HTTP/1.1 204 No\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", "204 0", closed},
	{"6.3", "304", "", "HTTP/1.1 304 No\r\n\r\n", "304 -1", kept},
	{"6.3", "304 with a length", "", "HTTP/1.1 304 No\r\nContent-Length: 100\r\n\r\n", "304 100", kept},
	{"6.3", "304 with content", "", "HTTP/1.1 304 No\r\nContent-Length: 3\r\n\r\nabc", "304 3", closed},
	{"6.3", "content of an error", "", "HTTP/1.1 500 No\r\nContent-Length: 3\r\n\r\nabc", "500 3 abc", kept},
	{"8", "half of the content", "", ok200 + "Content-Length: 10\r\n\r\nabc", "200, then: unexpected EOF", closed},
	{"6.3", "two lengths", "", ok200 + "Content-Length: 1\r\nContent-Length: 2\r\n\r\nab", badLength, closed},
	{"6.3", "two equal lengths", "", ok200 + "Content-Length: 1\r\nContent-Length: 1\r\n\r\na", badLength, closed},
	{"6.3", "list of equal lengths", "", ok200 + "Content-Length: 1, 1\r\n\r\na", badLength, closed},
	{"6.3", "two lengths with HEAD", "HEAD", ok200 + "Content-Length: 1\r\nContent-Length: 2\r\n\r\n", badLength, closed},
	{"6.2", "negative length", "", ok200 + "Content-Length: -1\r\n\r\n", badLength, closed},
	{"6.2", "signed length", "", ok200 + "Content-Length: +1\r\n\r\na", badLength, closed},
	{"6.2", "hexadecimal length", "", ok200 + "Content-Length: 0x1\r\n\r\na", badLength, closed},
	{"6.2", "empty length", "", ok200 + "Content-Length:\r\n\r\n", badLength, closed},
	{"6.2", "length of 2^63", "", ok200 + "Content-Length: 9223372036854775808\r\n\r\n", badLength, closed},
	{"6.3", "length and chunks", "", ok200 + "Content-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", bothFramings, closed},
	{"6.3", "chunks and length", "", ok200 + "Transfer-Encoding: chunked\r\nContent-Length: 5\r\n\r\n0\r\n\r\n", bothFramings, closed},

	{"6.1", "chunks", "", pieces + "3\r\nabc\r\n2;x=\"y\"\r\nde\r\n0\r\n\r\n", "200 -1 abcde", kept},
	{"6.1", "chunks in capitals", "", ok200 + "Transfer-Encoding: Chunked\r\n\r\n00A\r\n0123456789\r\n000\r\n\r\n", "200 -1 0123456789", kept},
	{"6.1", "gzip, then chunked", "", ok200 + "Transfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n", badCoding, closed},
	{"6.1", "gzip", "", ok200 + "Transfer-Encoding: gzip\r\n\r\nabc", badCoding, closed},
	{"6.1", "identity", "", ok200 + "Transfer-Encoding: identity\r\n\r\n", badCoding, closed},
	{"6.1", "chunked twice", "", ok200 + "Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", badCoding, closed},
	{"6.1", "VT before chunked", "", ok200 + "Transfer-Encoding: \vchunked\r\n\r\n0\r\n\r\n", badFieldValue, closed},
	{"6.1", "Kelvin sign for a k", "", ok200 + "Transfer-Encoding: chun\u212aed\r\n\r\n0\r\n\r\n", badCoding, closed},
	{"6.1", "empty coding", "", ok200 + "Transfer-Encoding:\r\n\r\n0\r\n\r\n", badCoding, closed},
	{"6.1", "chunks of HTTP/1.0", "", "HTTP/1.0 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", "malformed: Transfer-Encoding on HTTP/1.0", closed},
	{"7.1", "half a size", "", pieces + "3", "200, then: unexpected EOF", closed},
	{"7.1", "half a chunk", "", pieces + "3\r\nab", "200, then: unexpected EOF", closed},
	{"7.1", "no last chunk", "", pieces + "3\r\nabc\r\n", "200, then: unexpected EOF", closed},
	{"7.1", "no last line", "", pieces + "3\r\nabc\r\n0\r\n", "200, then: unexpected EOF", closed},
	{"7.1", "size too small", "", pieces + "3\r\nabcd\r\n0\r\n\r\n", "200, then: malformed: line is too long", closed},
	{"7.1", "bare LF behind a chunk", "", pieces + "3\r\nabc\n0\r\n\r\n", "200, then: " + badEnd, closed},
	{"7.1", "bare LF behind a size", "", pieces + "3\nabc\r\n0\r\n\r\n", "200, then: " + badEnd, closed},
	{"7.1", "size with a sign", "", pieces + "-3\r\nabc\r\n0\r\n\r\n", "200, then: " + badChunkSize, closed},
	{"7.1", "size with 0x", "", pieces + "0x3\r\nabc\r\n0\r\n\r\n", "200, then: " + badChunkSize, closed},
	{"7.1", "space behind a size", "", pieces + "3 \r\nabc\r\n0\t ;x\r\n\r\n", "200 -1 abc", kept},
	{"7.1", "space within a size", "", pieces + "3 0\r\nabc\r\n0\r\n\r\n", "200, then: " + badChunkSize, closed},
	{"7.1", "space before a size", "", pieces + " 3\r\nabc\r\n0\r\n\r\n", "200, then: " + badChunkSize, closed},
	{"7.1", "size of 2^64-1", "", pieces + "ffffffffffffffff\r\nabc", "200, then: malformed: chunk size is too long", closed},
	{"7.1", "empty size", "", pieces + "\r\nabc\r\n0\r\n\r\n", "200, then: malformed: chunk without a size", closed},
	{"7.1.1", "extension without a size", "", pieces + ";a\r\nabc\r\n0\r\n\r\n", "200, then: " + badChunkSize, closed},
	{"7.1.1", "bare CR in an extension", "", pieces + "3;a\rb\r\nabc\r\n0\r\n\r\n", "200, then: " + badChunkSize, closed},
	{"7.1.1", "extension without an end", "", pieces + "3;" + strings.Repeat("a", 300), "200, then: malformed: line is too long", closed},
	{"7.1", "zeros without an end", "", pieces + strings.Repeat("0", 300), "200, then: malformed: line is too long", closed},
	{"7.1.2", "trailers", "", pieces + "3\r\nabc\r\n0\r\nX: y\r\n\r\n", "200 -1 abc +x=y", kept},
	{"7.1.2", "trailers that frame", "", pieces + "0\r\nContent-Length: 5\r\nSet-Cookie: a\r\n\r\n", "200 -1", kept},
	{"7.1.2", "space before the colon of a trailer", "", pieces + "0\r\nA : b\r\n\r\n", "200, then: " + badFieldName, closed},
	{"7.1.2", "too many trailers", "", pieces + "0\r\n" + strings.Repeat("A: b\r\n", 65) + "\r\n", "200, then: malformed: too many fields", closed},
	{"7.1.2", "trailer without an end", "", pieces + "0\r\nA: " + strings.Repeat("b", 9<<10), "200, then: malformed: head or trailers are too long", closed},
	{"7.1.2", "half of the trailers", "", pieces + "0\r\nA: b\r\n", "200, then: unexpected EOF", closed},
}
