package h1

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"io"
	"net"
	"net/http"
	"net/http/httputil"
	"strings"
	"sync"
	"testing"
	"time"

	"sallyport/proxy/message"
	"sallyport/proxy/wire"
)

// canned is a connection that returns a prepared answer in pieces of step bytes.
type canned struct {
	answer []byte
	step   int
	closed bool

	until   string // must be written before anything can be read
	mu      sync.Mutex
	wrote   *sync.Cond
	written bytes.Buffer
}

func (c *canned) Read(p []byte) (int, error) {
	c.mu.Lock()
	for c.until != "" && !strings.HasSuffix(c.written.String(), c.until) {
		c.wrote.Wait()
	}
	c.mu.Unlock()
	if len(c.answer) == 0 {
		return 0, io.EOF
	}
	n := copy(p[:min(len(p), c.step)], c.answer)
	c.answer = c.answer[n:]
	return n, nil
}

func (c *canned) Write(p []byte) (int, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.wrote.Broadcast()
	return c.written.Write(p)
}

func (c *canned) Close() error                     { c.closed = true; return nil }
func (c *canned) LocalAddr() net.Addr              { return nil }
func (c *canned) RemoteAddr() net.Addr             { return nil }
func (c *canned) SetDeadline(time.Time) error      { return nil }
func (c *canned) SetReadDeadline(time.Time) error  { return nil }
func (c *canned) SetWriteDeadline(time.Time) error { return nil }

func newCanned(answer string, step int) *canned {
	c := &canned{answer: []byte(answer), step: step}
	c.wrote = sync.NewCond(&c.mu)
	return c
}

func cannedClient(answer string, step int) (*Client, *canned) {
	conn := newCanned(answer, step)
	return NewClient(conn, NewSocket(conn), new(wire.Buffers)), conn
}

// reading is an answer as the client of h1 reads it.
type reading struct {
	status   int
	length   int64
	fields   message.Fields
	body     string
	trailers message.Fields
	interim  []message.Response
	reusable bool
	err      error // of the head or the content
}

func readAnswer(answer, method string, step int) (got reading) {
	c, conn := cannedClient(answer, step)
	r := &wire.Request{Method: method, Target: "/", Host: "a", Inform: func(m *message.Response) error {
		got.interim = append(got.interim, *m)
		return nil
	}}
	var x wire.Response
	if got.err = c.Exchange(context.Background(), r, &x); got.err != nil {
		return got
	}
	got.status, got.length, got.fields = x.Head.Status, x.Head.ContentLength, x.Head.Fields
	var body []byte
	body, got.err = io.ReadAll(&x)
	got.body, got.trailers = string(body), x.Trailers()
	got.reusable = x.Close() && len(conn.answer) == 0 // Alive detects bytes that arrive later
	return got
}

func FuzzResponse(f *testing.F) {
	for _, c := range answers() {
		if len(c.raw) < 2000 {
			f.Add(c.raw, c.method == "HEAD")
			f.Add(c.raw, c.method != "HEAD")
		}
	}
	f.Fuzz(func(t *testing.T, answer string, head bool) {
		method := "GET"
		if head {
			method = "HEAD"
		}
		got := readAnswer(answer, method, 1<<20)
		if other := readAnswer(answer, method, 1); other.status != got.status || other.body != got.body || (other.err == nil) != (got.err == nil) {
			t.Fatalf("in one piece %+v, in many %+v", got, other)
		}
		if got.status == 0 {
			return
		}
		checkAgainstStandard(t, answer, method, got)
	})
}

// checkAgainstStandard compares with net/http. It is more lenient, so it must read every accepted
// answer the same way.
func checkAgainstStandard(t *testing.T, answer, method string, got reading) {
	t.Helper()
	in := bufio.NewReader(strings.NewReader(answer))
	var std *http.Response
	for {
		var err error
		if std, err = http.ReadResponse(in, &http.Request{Method: method}); err != nil {
			if got.status == 204 || len(answer) > 10 && answer[9] == '1' {
				return // it reads framing where RFC 9112, section 6.3, says that there is none
			}
			t.Fatalf("we accept %+v, net/http says %v", got, err)
		}
		if std.StatusCode >= 200 {
			break
		}
	}
	defer std.Body.Close()
	if std.StatusCode != got.status || method != "HEAD" && got.status != 304 && got.status != 204 && std.ContentLength != got.length {
		t.Fatalf("status and length are %d, %d, net/http reads %d, %d", got.status, got.length, std.StatusCode, std.ContentLength)
	}
	body, err := io.ReadAll(std.Body)
	if err != nil && strings.Contains(err.Error(), "invalid byte in chunk length") && strings.HasPrefix(got.body, string(body)) {
		return // it takes no blanks between a size and an extension, which the grammar has
	}
	if got.err == nil && (err != nil || string(body) != got.body) {
		t.Fatalf("content is %q, net/http reads %q, %v", got.body, body, err)
	}
	if got.err != nil && err == nil && !errors.As(got.err, new(malformed)) {
		t.Fatalf("content fails with %v, net/http reads %q", got.err, body)
	}
	for _, f := range got.fields {
		if f.Name != strings.ToLower(f.Name) || !message.ValidName(f.Name) || !message.ValidValue(f.Value) || message.OfConnection(f.Name) {
			t.Fatalf("field %q: %q", f.Name, f.Value)
		}
		if !strings.Contains(strings.Join(std.Header.Values(f.Name), "\x00"), f.Value) {
			t.Fatalf("field %q is %q, net/http reads %q", f.Name, f.Value, std.Header.Values(f.Name))
		}
	}
}

func FuzzChunked(f *testing.F) {
	for _, c := range requests() {
		if text, ok := strings.CutPrefix(c.raw, chunks); ok && len(text) < 2000 {
			f.Add(text, uint8(1), uint8(3))
			f.Add(text, uint8(255), uint8(255))
		}
	}
	f.Fuzz(func(t *testing.T, text string, step, size uint8) {
		conn := newCanned(text, max(1, int(step)))
		in := &reader{conn: conn, bufs: new(wire.Buffers), before: func() error { return nil }}
		var k chunked
		var got []byte
		var err error
		buf := make([]byte, max(1, int(size)))
		for err == nil {
			var n int
			n, err = k.read(in, buf)
			got = append(got, buf[:n]...)
		}
		if err != io.EOF {
			return
		}
		std, err := io.ReadAll(httputil.NewChunkedReader(strings.NewReader(text)))
		if err != nil || !bytes.Equal(std, got) {
			t.Fatalf("content is %q, httputil reads %q, %v", got, std, err)
		}
		if left := len(conn.answer) + in.buffered(); !strings.HasSuffix(text[:len(text)-left], "\r\n\r\n") {
			t.Fatalf("the end is not at an empty line but after %q", text[:len(text)-left])
		}
	})
}
