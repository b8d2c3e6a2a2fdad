package proxy_test

import (
	"fmt"
	"io"
	"strings"
	"sync"
	"testing"
)

// smuggle is a raw HTTP/1.1 request with its expected outcome. In raw, {p} is a path unique to the
// row, {h} are Host and a valid token, and {c} is "Connection: close". {s} is a second request
// without a token, which the upstream must never receive.
type smuggle struct {
	name, raw string
	want      string // the statuses of all answers; "-" if the connection just closes
	upstream  string // the requests that reach the upstream, with bodies; "" for none
}

const (
	smuggledSecond = "GET /smuggled HTTP/1.1\r\nHost: models.test\r\n\r\n"
	smuggleHead    = "Host: models.test\r\nAuthorization: Bearer TOKEN\r\n"
)

func (s *smuggle) bytes(i int) string {
	return strings.NewReplacer("{p}", fmt.Sprintf("/r%d", i), "{h}", smuggleHead, "{s}", smuggledSecond, "{c}", "Connection: close\r\n").Replace(s.raw)
}

// play sends each row over its own connection and passes the outcome to check.
func play(t *testing.T, rows []smuggle, check func(t *testing.T, s *smuggle, got, upstream string)) {
	j := newJudge(t, nil)
	h := build(t, plan{routes: j.before(""), more: "timeouts: {idle: 300ms}\nlimits: {head_time: 5s, keep_alive: 2s}"})
	var all []*judged
	token := h.token()
	for i := range rows {
		s := &rows[i]
		t.Run(s.name, func(t *testing.T) {
			h.t = t
			raw := strings.ReplaceAll(s.bytes(i), "TOKEN", token)
			got := statuses(h.tell(raw))
			if got == "-" && len(raw) > 4<<10 {
				got = "400" // the connection was reset during the write, and the answer lost
			}
			up := j.taken()
			all = append(all, up...)
			j.sound(t)
			for _, r := range up {
				if strings.Contains(r.Target, "smuggled") {
					t.Errorf("the smuggled request came up")
				}
			}
			check(t, s, got, strings.ReplaceAll(targets(up), fmt.Sprintf("/r%d", i), "{p}"))
		})
	}
	h.t = t
	h.end(j, all)
}

func TestAttackSmuggling(t *testing.T) {
	play(t, smuggles(), func(t *testing.T, s *smuggle, got, upstream string) {
		if got != s.want || upstream != s.upstream {
			t.Errorf("answers %s, upstream %q; want %s and %q", got, upstream, s.want, s.upstream)
		}
	})
}

func smuggles() []smuggle {
	refused := func(name, raw string) smuggle { return smuggle{name, raw, "400", ""} }
	post := "POST {p} HTTP/1.1\r\n{h}"
	rows := []smuggle{
		// These must succeed, or the refusals prove nothing.
		{"length", post + "{c}Content-Length: 5\r\n\r\nhello", "200", "POST {p} hello"},
		{"length with zeros before it", post + "{c}Content-Length: 0005\r\n\r\nhello", "200", "POST {p} hello"},
		{"chunks", post + "{c}Transfer-Encoding: chunked\r\n\r\n3\r\nhel\r\n2\r\nlo\r\n0\r\n\r\n", "200", "POST {p} hello"},
		{"chunks, coding in capitals", post + "{c}Transfer-Encoding: CHUNKED\r\n\r\n5\r\nhello\r\n0\r\n\r\n", "200", "POST {p} hello"},
		{"chunk extensions", post + "{c}Transfer-Encoding: chunked\r\n\r\n5;a=b;c=\"d\"\r\nhello\r\n0;x\r\n\r\n", "200", "POST {p} hello"},
		{"chunk size in capitals", post + "{c}Transfer-Encoding: chunked\r\n\r\nA\r\n0123456789\r\n0\r\n\r\n", "200", "POST {p} 0123456789"},
		{"an honest second request", post + "Content-Length: 5\r\n\r\nhelloGET {p}/2 HTTP/1.1\r\n{h}{c}\r\n", "200 200", "GET {p}/2, POST {p} hello"},
		{"a second request without a token", post + "Content-Length: 5\r\n\r\nhello{s}GET / HTTP/1.0\r\nHost: models.test\r\n\r\n", "200 401 401", "POST {p} hello"},
		{"HTTP/1.0", "POST {p} HTTP/1.0\r\n{h}Content-Length: 5\r\n\r\nhello", "200", "POST {p} hello"},

		// Content-Length.
		refused("length with a sign", post+"Content-Length: +5\r\n\r\nhello{s}"),
		refused("negative length", post+"Content-Length: -5\r\n\r\nhello{s}"),
		refused("negative zero", post+"Content-Length: -0\r\n\r\n{s}"),
		refused("length list", post+"Content-Length: 5, 5\r\n\r\nhello{s}"),
		refused("length list without a space", post+"Content-Length: 5,5\r\n\r\nhello{s}"),
		refused("length list with another", post+"Content-Length: 5, 0\r\n\r\nhello{s}"),
		refused("hexadecimal length", post+"Content-Length: 0x5\r\n\r\nhello{s}"),
		refused("octal length", post+"Content-Length: 0o5\r\n\r\nhello{s}"),
		refused("length with an underscore", post+"Content-Length: 1_0\r\n\r\nhello{s}"),
		refused("length with a fraction", post+"Content-Length: 5.0\r\n\r\nhello{s}"),
		refused("length with an exponent", post+"Content-Length: 5e0\r\n\r\nhello{s}"),
		refused("empty length", post+"Content-Length:\r\n\r\n{s}"),
		refused("blank length", post+"Content-Length: \t \r\n\r\n{s}"),
		refused("huge length", post+"Content-Length: 99999999999999999999999\r\n\r\nhello{s}"),
		refused("length of 2^63", post+"Content-Length: 9223372036854775808\r\n\r\nhello{s}"),
		refused("length of 2^64+5", post+"Content-Length: 18446744073709551621\r\n\r\nhello{s}"),
		refused("two lengths", post+"Content-Length: 5\r\nContent-Length: 0\r\n\r\nhello{s}"),
		refused("two lengths, one with a sign", post+"Content-Length: 5\r\nContent-Length: +5\r\n\r\nhello{s}"),
		refused("length in words", post+"Content-Length: five\r\n\r\nhello{s}"),
		refused("length in other digits", post+"Content-Length: \u0665\r\n\r\nhello{s}"),
		refused("length with NUL", post+"Content-Length: 5\x00\r\n\r\nhello{s}"),
		refused("length with VT", post+"Content-Length: \v5\r\n\r\nhello{s}"),
		refused("length with a space before the colon", post+"Content-Length : 5\r\n\r\nhello{s}"),
		refused("length under another spelling", post+"Content_Length: 5\r\n\r\nhello{s}"),
		refused("length under a spelling with a dot", post+"Content.Length: 5\r\n\r\nhello{s}"),

		// Transfer-Encoding.
		{"coding chunked twice", post + "Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n{s}", "501", ""},
		refused("coding chunked and a space before the colon", post+"Content-Length: 5\r\nTransfer-Encoding : chunked\r\n\r\n0\r\n\r\n{s}"),
		refused("coding chunked with a tab before the colon", post+"Content-Length: 5\r\nTransfer-Encoding\t: chunked\r\n\r\n0\r\n\r\n{s}"),
		refused("coding under another spelling", post+"Content-Length: 5\r\nTransfer_Encoding: chunked\r\n\r\n0\r\n\r\n{s}"),
		refused("a field before it ends in a bare CR", post+"Content-Length: 5\r\nX: y\rTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n{s}"),

		// Names, values and line ends.
		refused("bare CR in a value", "GET {p} HTTP/1.1\r\n{h}X: a\rb\r\n\r\n{s}"),
		refused("bare CR at the end of a value", "GET {p} HTTP/1.1\r\n{h}X: a\r\r\n\r\n{s}"),
		refused("NUL in a value", "GET {p} HTTP/1.1\r\n{h}X: a\x00b\r\n\r\n{s}"),
		refused("DEL in a value", "GET {p} HTTP/1.1\r\n{h}X: a\x7fb\r\n\r\n{s}"),
		refused("ESC in a value", "GET {p} HTTP/1.1\r\n{h}X: a\x1b[31mb\r\n\r\n{s}"),
		refused("VT in a value", "GET {p} HTTP/1.1\r\n{h}X: a\vb\r\n\r\n{s}"),
		refused("NUL in a name", "GET {p} HTTP/1.1\r\n{h}X\x00: a\r\n\r\n{s}"),
		refused("bare CR in a name", "GET {p} HTTP/1.1\r\n{h}X\rY: a\r\n\r\n{s}"),
		refused("space in a name", "GET {p} HTTP/1.1\r\n{h}X Y: a\r\n\r\n{s}"),
		refused("space before the colon", "GET {p} HTTP/1.1\r\n{h}X : a\r\n\r\n{s}"),
		refused("empty name", "GET {p} HTTP/1.1\r\n{h}: a\r\n\r\n{s}"),
		refused("no colon", "GET {p} HTTP/1.1\r\n{h}X\r\n\r\n{s}"),
		refused("name in quotes", "GET {p} HTTP/1.1\r\n{h}\"X\": a\r\n\r\n{s}"),
		refused("name with a slash", "GET {p} HTTP/1.1\r\n{h}X/Y: a\r\n\r\n{s}"),
		refused("name with parentheses", "GET {p} HTTP/1.1\r\n{h}X(Y): a\r\n\r\n{s}"),
		refused("name with @", "GET {p} HTTP/1.1\r\n{h}X@Y: a\r\n\r\n{s}"),
		refused("name that is not ASCII", "GET {p} HTTP/1.1\r\n{h}X\xc3\xa9: a\r\n\r\n{s}"),
		refused("name with a byte order mark", "GET {p} HTTP/1.1\r\n{h}\xef\xbb\xbfX: a\r\n\r\n{s}"),
		refused("a first line that is folded", "GET {p} HTTP/1.1\r\n X: y\r\n{h}\r\n{s}"),

		// Connection.
		refused("Connection names Content-Length's neighbor", post+"Connection: X-Forwarded-For\r\nContent-Length: 5\r\n\r\nhello"),
		refused("Connection names Authorization", post+"Connection: authorization\r\nContent-Length: 5\r\n\r\nhello"),
		refused("Connection names Cookie", post+"Connection: cookie\r\nContent-Length: 5\r\n\r\nhello"),
		refused("a sneaked header by Connection twice", post+"Connection: close\r\nConnection: x-a\r\nX-A: b\r\nContent-Length: 5\r\n\r\nhello"),
	}
	rows = append(rows, smugglesOfChunks(post)...)
	rows = append(rows, smugglesOfLines()...)
	rows = append(rows, smugglesOfLenience()...)
	return append(rows, smugglesOfHosts()...)
}

// TestAttackUnknownTransferCodings sends values of Transfer-Encoding other than "chunked". Some
// server takes each for chunked, while net/http uses the length.
func TestAttackUnknownTransferCodings(t *testing.T) {
	var rows []smuggle
	for _, v := range []string{
		"xchunked", "chunkedx", "x-chunked", "chunked-x", "chunked;q=1", "chunked ;", "\"chunked\"", "'chunked'", "chun ked", "chunk", "ch\u212anked", "chunKed\u017f",
		"chunked, chunked", "chunked,chunked", "chunked, identity", "identity, chunked", "identity", "gzip", "gzip, chunked", "chunked, gzip", "deflate", "compress, chunked", "br",
		",chunked", "chunked,", ", chunked", "chunked, ,", "\x0bchunked", "chunked\x0b", "\x0cchunked", "chunked\x0c", "\x00chunked", "chunked\x00", "\x08chunked", "\xffchunked", "\u00a0chunked", "chunked\u00a0", "\x85chunked",
		"[chunked]", "{chunked}", "chunked=1", "chunked/1", "trailers", "cow", "null", "1", "5", "close", "true", "*",
	} {
		for _, framing := range []string{"", "Content-Length: 5\r\n"} {
			name := fmt.Sprintf("%q after %q", v, framing)
			rows = append(rows, smuggle{name, "POST {p} HTTP/1.1\r\n{h}" + framing + "Transfer-Encoding: " + v + "\r\n\r\n0\r\n\r\n{s}", "", ""})
		}
	}
	play(t, rows, func(t *testing.T, s *smuggle, got, upstream string) {
		if got != "400" && got != "501" || upstream != "" {
			t.Errorf("answers %s, upstream %q; want 400 or 501 and nothing", got, upstream)
		}
	})
}

// An incomplete request is not forwarded as complete, and a stalled upload ends.
func TestAttackUnfinishedRequests(t *testing.T) {
	t.Parallel()
	j := newJudge(t, nil)
	h := build(t, plan{routes: j.before(""), more: "timeouts: {idle: 300ms}\nlimits: {head_time: 2s}"})
	token := h.token()
	var all sync.WaitGroup
	for name, request := range map[string]string{
		"length too long": "POST /a HTTP/1.1\r\n{h}Content-Length: 6\r\n\r\nhello",
		"no last chunk":   "POST /a HTTP/1.1\r\n{h}Transfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n",
		"half a chunk":    "POST /a HTTP/1.1\r\n{h}Transfer-Encoding: chunked\r\n\r\n6\r\nhello",
		"no end of head":  "POST /a HTTP/1.1\r\n{h}Content-Length: 5\r\n",
		"no last CRLF":    "POST /a HTTP/1.1\r\n{h}Transfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n",
		"large, cut":      "POST /a HTTP/1.1\r\n{h}Content-Length: 200000\r\n\r\n" + strings.Repeat("x", 100000),
	} {
		for _, leaves := range []bool{false, true} {
			c := h.dial("models.test")
			_, _ = io.WriteString(c, strings.NewReplacer("{h}", smuggleHead, "TOKEN", token).Replace(request))
			if leaves {
				c.Close()
				continue
			}
			all.Go(func() {
				got, err := io.ReadAll(c)
				if err != nil || strings.HasPrefix(string(got), "HTTP/1.1 2") || strings.Contains(request, "\r\n\r\n") && !strings.HasPrefix(string(got), "HTTP/1.1 4") {
					t.Errorf("%s: got %q, %v; want no success, and the connection closed", name, got, err)
				}
			})
		}
	}
	all.Wait()
	if up := j.taken(); len(up) > 0 {
		t.Errorf("the upstream saw whole requests: %s", targets(up))
	}
	h.end(j, nil)
}
