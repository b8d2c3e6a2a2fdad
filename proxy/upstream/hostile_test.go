package upstream

import (
	"bufio"
	"context"
	"errors"
	"io"
	"net"
	"strings"
	"testing"
	"time"
)

// after is the behavior of a server after its answer.
type after uint8

const (
	stayOpen after = iota // wait until the client closes
	hangUp
	reset
)

// scripted answers each connection's first request with fixed bytes.
func scripted(tb testing.TB, answer string, then after) string {
	tb.Helper()
	return rawServer(tb, func(c net.Conn) {
		if _, err := readRequestHead(bufio.NewReader(c)); err != nil {
			return
		}
		io.WriteString(c, answer)
		switch then {
		case hangUp:
			c.(*net.TCPConn).CloseWrite() // Close with unread bytes would send a reset
			io.Copy(io.Discard, c)
		case stayOpen:
			io.Copy(io.Discard, c)
		case reset:
			c.(*net.TCPConn).SetLinger(0)
		}
	})
}

// outcome sends a request and reads its content; the error is of either.
func outcome(u *Upstream, r *Request) (status int, body string, err error) {
	x, err := u.Send(context.Background(), r)
	if err != nil {
		return 0, "", err
	}
	defer x.Close()
	b, err := io.ReadAll(x.Body)
	return x.Head.Status, string(b), err
}

func get() *Request {
	return &Request{Method: "GET", Target: "/x", Host: "a.example", Timeouts: Timeouts{Connect: time.Minute, Head: time.Minute, Idle: time.Minute}}
}

const ok200 = "HTTP/1.1 200 OK\r\n"

// The grammar of responses is tested in proxy/wire/h1. These tests cover the connection and
// the exchange.
func TestHostileAnswers(t *testing.T) {
	const cutOff = Kind(0xff) // a reset whose content ends early
	for name, c := range map[string]struct {
		answer string
		then   after
		want   Kind
	}{
		"end before the head":                  {"", hangUp, Reset},
		"reset before the head":                {"", reset, Reset},
		"end within the status line":           {"HTTP/1.1 20", hangUp, Reset},
		"end within the head":                  {ok200 + "A: b\r\n", hangUp, Reset},
		"reset within the head":                {ok200 + "A: b\r\n", reset, Reset},
		"not HTTP":                             {"SSH-2.0-OpenSSH_9.2\r\n\r\n", stayOpen, Garbage},
		"huge head":                            {ok200 + "A: " + strings.Repeat("b", 70<<10) + "\r\n\r\n", stayOpen, Garbage},
		"two lengths":                          {ok200 + "Content-Length: 1\r\nContent-Length: 2\r\n\r\nab", stayOpen, Garbage},
		"both framings":                        {ok200 + "Content-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", stayOpen, Garbage},
		"chunked on 1.0":                       {"HTTP/1.0 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", hangUp, Garbage},
		"flood of interim responses":           {strings.Repeat("HTTP/1.1 103 Early\r\n\r\n", 1000), stayOpen, Garbage},
		"flood of 100":                         {strings.Repeat("HTTP/1.1 100 Continue\r\n\r\n", 1000), stayOpen, Garbage},
		"interim response with content":        {"HTTP/1.1 103 Early\r\nContent-Length: 1\r\n\r\na" + ok200 + "\r\n", stayOpen, Garbage},
		"101 without a request for an upgrade": {"HTTP/1.1 101 Switching\r\nConnection: upgrade\r\nUpgrade: websocket\r\n\r\n", stayOpen, Garbage},
		"cut content":                          {ok200 + "Content-Length: 10\r\n\r\nabc", hangUp, cutOff},
		"reset in the content":                 {ok200 + "Content-Length: 10\r\n\r\nabc", reset, Reset},
		"cut between chunks":                   {ok200 + "Transfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n", hangUp, cutOff},
		"cut in a chunk":                       {ok200 + "Transfer-Encoding: chunked\r\n\r\n3\r\nab", hangUp, cutOff},
		"cut in a size":                        {ok200 + "Transfer-Encoding: chunked\r\n\r\n3", hangUp, cutOff},
		"cut before the last empty line":       {ok200 + "Transfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n", hangUp, cutOff},
		"cut in the trailers":                  {ok200 + "Transfer-Encoding: chunked\r\n\r\n0\r\nA: b\r\n", hangUp, cutOff},
		"chunk longer than its size":           {ok200 + "Transfer-Encoding: chunked\r\n\r\n3\r\nabcd\r\n0\r\n\r\n", stayOpen, Garbage},
		"size too large":                       {ok200 + "Transfer-Encoding: chunked\r\n\r\nffffffffffffffff\r\nabc", stayOpen, Garbage},
		"endless extension":                    {ok200 + "Transfer-Encoding: chunked\r\n\r\n3;" + strings.Repeat("a", 300), stayOpen, Garbage},
		"endless trailer":                      {ok200 + "Transfer-Encoding: chunked\r\n\r\n0\r\nA: " + strings.Repeat("b", 9<<10), stayOpen, Garbage},
		"reset in content to the end":          {ok200 + "\r\nabc", reset, Reset},
		"101 with a length":                    {"HTTP/1.1 101 S\r\nContent-Length: 0\r\n\r\n", stayOpen, Garbage},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			u := newUpstream(t, scripted(t, c.answer, c.then))
			_, _, err := outcome(u, get())
			var fault *Error
			if !errors.As(err, &fault) {
				t.Fatalf("error is %v, want an upstream Error", err)
			}
			want := c.want
			if want == cutOff {
				if want = Reset; !errors.Is(err, io.ErrUnexpectedEOF) {
					t.Errorf("error is %v, want an unexpected end", err)
				}
			}
			if fault.Kind != want {
				t.Errorf("kind is %v (%v), want %v", fault.Kind, err, want)
			}
			if s := statusOf(u)[0]; s.InFlight != 0 || s.Idle != 0 {
				t.Errorf("after the failure %d in flight and %d idle, want none", s.InFlight, s.Idle)
			}
		})
	}
}

func TestValidAnswers(t *testing.T) {
	for name, c := range map[string]struct {
		answer string
		then   after
		status int
		body   string
		kept   bool // the connection serves again
	}{
		"length":                     {ok200 + "Content-Length: 3\r\n\r\nabc", stayOpen, 200, "abc", true},
		"empty":                      {ok200 + "Content-Length: 0\r\n\r\n", stayOpen, 200, "", true},
		"chunks":                     {ok200 + "Transfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n2;x=\"y\"\r\nde\r\n0\r\n\r\n", stayOpen, 200, "abcde", true},
		"to the end":                 {ok200 + "Connection: close\r\n\r\nabc", hangUp, 200, "abc", false},
		"to the end, unannounced":    {ok200 + "\r\nabc", hangUp, 200, "abc", false},
		"HTTP/1.0 with length":       {"HTTP/1.0 200 OK\r\nContent-Length: 3\r\n\r\nabc", stayOpen, 200, "abc", false},
		"close":                      {ok200 + "Connection: Keep-Alive, CLOSE\r\nContent-Length: 3\r\n\r\nabc", stayOpen, 200, "abc", false},
		"304 with a length":          {"HTTP/1.1 304 Not Modified\r\nContent-Length: 100\r\n\r\n", stayOpen, 304, "", true},
		"103 first":                  {"HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\n" + ok200 + "Content-Length: 3\r\n\r\nabc", stayOpen, 200, "abc", true},
		"bytes behind the answer":    {ok200 + "Content-Length: 3\r\n\r\nabcHTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nevil", stayOpen, 200, "abc", false},
		"bytes behind the chunks":    {ok200 + "Transfer-Encoding: chunked\r\n\r\n0\r\n\r\nx", stayOpen, 200, "", false},
		"content behind 304":         {"HTTP/1.1 304 Not Modified\r\nContent-Length: 3\r\n\r\nabc", stayOpen, 304, "", false},
		"reset behind the answer":    {ok200 + "Content-Length: 3\r\n\r\nabc", reset, 200, "abc", true},
		"a large content":            {ok200 + "Content-Length: 200000\r\n\r\n" + strings.Repeat("x", 200000), stayOpen, 200, strings.Repeat("x", 200000), true},
		"announces a short keeptime": {ok200 + "Keep-Alive: timeout=5, max=100\r\nContent-Length: 0\r\n\r\n", stayOpen, 200, "", true},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			u := newUpstream(t, scripted(t, c.answer, c.then))
			status, body, err := outcome(u, get())
			if status != c.status || body != c.body || err != nil {
				t.Fatalf("got %d %.50q %v, want %d %.50q", status, body, err, c.status, c.body)
			}
			if idle := statusOf(u)[0].Idle; (idle == 1) != c.kept {
				t.Errorf("%d connections kept, want kept: %v", idle, c.kept)
			}
		})
	}
}

func TestHeadHasNoContent(t *testing.T) {
	u := newUpstream(t, scripted(t, ok200+"Content-Length: 100\r\n\r\n", stayOpen))
	r := get()
	r.Method = "HEAD"
	x, err := u.Send(t.Context(), r)
	if err != nil {
		t.Fatal(err)
	}
	defer x.Close()
	if n, err := x.Body.Read(make([]byte, 1)); n != 0 || err != io.EOF || x.Head.ContentLength != 100 {
		t.Errorf("read %d, %v with length %d, want the end and 100", n, err, x.Head.ContentLength)
	}
}

func TestHopByHopFieldsAreRemoved(t *testing.T) {
	u := newUpstream(t, scripted(t, ok200+"Connection: X-Secret, keep-alive\r\nX-Secret: a\r\nKeep-Alive: timeout=5\r\nUpgrade: h2c\r\n"+
		"Proxy-Authenticate: Basic\r\nTrailer: x\r\nContent-TYPE:  text/plain \r\nSet-Cookie: a\r\nSet-Cookie: b\r\nContent-Length: 0\r\n\r\n", stayOpen))
	x, err := u.Send(t.Context(), get())
	if err != nil {
		t.Fatal(err)
	}
	defer x.Close()
	var got []string
	for _, f := range x.Head.Fields {
		got = append(got, f.Name+"="+f.Value)
	}
	if s := strings.Join(got, " "); s != "content-type=text/plain set-cookie=a set-cookie=b" {
		t.Errorf("fields are %q", s)
	}
}

func TestForbiddenTrailersAreDropped(t *testing.T) {
	u := newUpstream(t, scripted(t, ok200+"Transfer-Encoding: chunked\r\nX-Head: a\r\n\r\n0\r\nContent-Length: 5\r\nX_Head: b\r\nSet-Cookie: a=b\r\n"+
		"X.Sallyport-Principal: eve\r\nX-Checksum: c\r\nAuthorization: d\r\n\r\n", stayOpen))
	x, err := u.Send(t.Context(), get())
	if err != nil {
		t.Fatal(err)
	}
	defer x.Close()
	if _, err := io.ReadAll(x.Body); err != nil {
		t.Fatal(err)
	}
	if tr := x.Body.Trailers(); len(tr) != 1 || tr[0].Name != "x-checksum" || tr[0].Value != "c" {
		t.Errorf("trailers are %v, want x-checksum alone", tr)
	}
}

func TestSlowServersTimeOut(t *testing.T) {
	for name, c := range map[string]struct {
		answer   string
		timeouts Timeouts
	}{
		"no head":         {"", Timeouts{Head: 50 * time.Millisecond}},
		"half a head":     {ok200 + "A: b", Timeouts{Head: 50 * time.Millisecond}},
		"only 102":        {"HTTP/1.1 102 Processing\r\n\r\n", Timeouts{Head: 50 * time.Millisecond}},
		"no content":      {ok200 + "Content-Length: 10\r\n\r\n", Timeouts{Idle: 50 * time.Millisecond}},
		"half a content":  {ok200 + "Content-Length: 10\r\n\r\nabc", Timeouts{Idle: 50 * time.Millisecond}},
		"half a chunk":    {ok200 + "Transfer-Encoding: chunked\r\n\r\n5\r\nabc", Timeouts{Idle: 50 * time.Millisecond}},
		"no end":          {ok200 + "\r\nabc", Timeouts{Idle: 50 * time.Millisecond}},
		"no head, total":  {"", Timeouts{Total: 50 * time.Millisecond, Head: time.Minute}},
		"no end, total":   {ok200 + "\r\nabc", Timeouts{Total: 50 * time.Millisecond, Idle: time.Minute}},
		"no end, no idle": {ok200 + "\r\nabc", Timeouts{Total: 50 * time.Millisecond}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			u := newUpstream(t, scripted(t, c.answer, stayOpen))
			r := get()
			r.Timeouts = c.timeouts
			_, _, err := outcome(u, r)
			if fault := (*Error)(nil); !errors.As(err, &fault) || fault.Kind != Timeout {
				t.Errorf("error is %v, want a timeout", err)
			}
		})
	}
}
