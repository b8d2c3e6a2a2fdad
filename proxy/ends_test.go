package proxy_test

import (
	"bufio"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
)

// These tests end an HTTP/1.1 exchange on one side before the other. The other side must get a
// correct answer or error, and its connection must be usable or closed.

// backend is an upstream whose first connection is scripted; all others answer every request with
// "next".
type backend struct {
	url   string
	conns atomic.Int64
	ended chan string // what the first connection received after the script, and how it ended
}

// newBackend runs script once the head of the first request has arrived. If script returns true, it
// reads on to the end.
func newBackend(t *testing.T, script func(c *net.TCPConn, in *bufio.Reader) bool) *backend {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	b := &backend{url: "http://" + l.Addr().String(), ended: make(chan string, 1)}
	var all sync.WaitGroup
	all.Go(func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			first := b.conns.Add(1) == 1
			all.Go(func() {
				defer c.Close()
				in := bufio.NewReader(c)
				if !first {
					answerNext(c, in)
				} else if readHead(in) && script(c.(*net.TCPConn), in) {
					rest, err := io.ReadAll(in)
					b.ended <- fmt.Sprintf("%q, %v", rest, errorKind(err))
				}
			})
		}
	})
	t.Cleanup(func() { l.Close(); all.Wait() })
	return b
}

func readHead(in *bufio.Reader) bool {
	for {
		line, err := in.ReadString('\n')
		if err != nil || line == "\r\n" {
			return err == nil
		}
	}
}

func answerNext(c net.Conn, in *bufio.Reader) {
	for readHead(in) {
		_, _ = io.WriteString(c, "HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nnext")
	}
}

func errorKind(err error) string {
	if err == nil {
		return "end"
	}
	return "reset"
}

// client is a connection to a house in front of a backend.
type client struct {
	t  *testing.T
	h  *house
	c  *tls.Conn
	in *bufio.Reader
}

func (b *backend) client(t *testing.T) *client {
	t.Helper()
	h := build(t, plan{routes: strings.ReplaceAll(oneRoute, "%s", b.url)})
	c := h.dial("models.test")
	return &client{t, h, c, bufio.NewReader(c)}
}

// send sends a request line, the usual fields and rest.
func (c *client) send(line, rest string) {
	c.t.Helper()
	if _, err := fmt.Fprintf(c.c, "%s HTTP/1.1\r\nHost: models.test\r\nAuthorization: Bearer %s\r\n%s", line, c.h.token(), rest); err != nil {
		c.t.Fatal(err)
	}
}

func (c *client) write(text string) {
	c.t.Helper()
	if _, err := io.WriteString(c.c, text); err != nil {
		c.t.Fatal(err)
	}
}

// hears reads one answer.
func (c *client) hears(status int, body string) {
	c.t.Helper()
	res, err := http.ReadResponse(c.in, nil)
	if err != nil {
		c.t.Fatal(err)
	}
	got, err := io.ReadAll(res.Body)
	if res.StatusCode != status || !strings.Contains(string(got), body) || err != nil {
		c.t.Errorf("answered %d %q, %v; want %d %q", res.StatusCode, got, err, status, body)
	}
}

// goesOn checks that the connection is usable: another request is served, over another connection
// to the upstream.
func (c *client) goesOn(b *backend) {
	c.t.Helper()
	c.send("GET /next", "\r\n")
	c.hears(200, "next")
	if n := b.conns.Load(); n != 2 {
		c.t.Errorf("%d connections to the upstream; want another than the first", n)
	}
}

func (c *client) ends() {
	c.t.Helper()
	if rest, err := io.ReadAll(c.in); len(rest) > 0 || err != nil {
		c.t.Errorf("then %q, %v; want the end", rest, err)
	}
}

// uploads are partially sent requests. Content of known length is forwarded before it is complete
// only if it is large.
var uploads = []struct{ name, half, rest string }{
	{"length", "Content-Length: 100000\r\n\r\nhello", strings.Repeat("world", 19999)},
	{"chunks", "Transfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n", "5\r\nworld\r\n0\r\n\r\n"},
}

// An upstream answers while the client still sends. The answer is forwarded at once. The gateway
// skips the rest of the request and keeps the client's connection. The upstream never gets the
// whole request, and its connection is not reused.
func TestEarlyAnswerKeepsTheClientConnection(t *testing.T) {
	for _, u := range uploads {
		for _, status := range []int{200, 413} {
			for name, framing := range map[string]string{"length": "Content-Length: 5\r\n\r\nearly", "chunks": "Transfer-Encoding: chunked\r\n\r\n5\r\nearly\r\n0\r\n\r\n"} {
				t.Run(fmt.Sprintf("%s, %d in %s", u.name, status, name), func(t *testing.T) {
					t.Parallel()
					b := newBackend(t, func(c *net.TCPConn, in *bufio.Reader) bool {
						_, _ = fmt.Fprintf(c, "HTTP/1.1 %d X\r\n%s", status, framing)
						return true
					})
					c := b.client(t)
					c.send("POST /", u.half)
					c.hears(status, "early")
					c.write(u.rest)
					c.goesOn(b)
					if got := <-b.ended; strings.Contains(got, "world") || !strings.HasSuffix(got, "reset") {
						t.Errorf("the upstream had %s; want half of it, and a reset", got)
					}
				})
			}
		}
	}
}

// An upload that is too long to be skipped ends the client's connection after the answer, once
// the client stops.
func TestEarlyAnswerToAHugeUpload(t *testing.T) {
	b := newBackend(t, func(c *net.TCPConn, in *bufio.Reader) bool {
		_, _ = io.WriteString(c, "HTTP/1.1 413 X\r\nContent-Length: 5\r\n\r\nearly")
		return true
	})
	c := b.client(t)
	c.send("POST /", "Content-Length: 50000000\r\n\r\nhello")
	c.hears(413, "early")
	piece := make([]byte, 64<<10)
	for range 160 { // more than sockets hold
		if _, err := c.c.Write(piece); err != nil {
			t.Fatalf("the client cannot go on: %v", err)
		}
	}
	_ = c.c.Close()
	if got := <-b.ended; !strings.HasSuffix(got, "reset") {
		t.Errorf("the upstream had %s; want a reset", got)
	}
}

// A client that half-closes still gets a prompt, complete answer; the upstream's connection is
// reused.
func TestHalfClosedClientIsAnswered(t *testing.T) {
	for _, rest := range []string{"\r\n", "Content-Length: 5\r\n\r\nhello", "Transfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n"} {
		h := build(t, plan{})
		for range 2 {
			c := &client{t: t, h: h, c: h.dial("models.test")}
			c.in = bufio.NewReader(c.c)
			c.send("POST /", rest)
			if err := errors.Join(c.c.CloseWrite(), c.c.NetConn().(*net.TCPConn).CloseWrite()); err != nil {
				t.Fatal(err)
			}
			c.hears(200, "2.5")
			c.ends()
		}
	}
}

// leaves are the ways in which a client disconnects.
var leaves = map[string]func(*tls.Conn){
	"half-closed": func(c *tls.Conn) { _ = c.CloseWrite() },
	"closed":      func(c *tls.Conn) { _ = c.Close() },
	"cut":         func(c *tls.Conn) { _ = c.NetConn().Close() },
	"reset": func(c *tls.Conn) {
		_ = c.NetConn().(*net.TCPConn).SetLinger(0)
		_ = c.NetConn().Close()
	},
}

// A client that disconnects during its upload, or while it waits, ends the exchange at the
// upstream. The upstream never gets the whole request and sees a reset; its connection is not
// reused.
func TestClientThatVanishesResetsTheUpstream(t *testing.T) {
	t.Parallel()
	points := append(uploads, struct{ name, half, rest string }{"waiting", "\r\n", ""})
	for how, leave := range leaves {
		for _, p := range points {
			t.Run(how+", "+p.name, func(t *testing.T) {
				t.Parallel()
				begun := make(chan struct{})
				b := newBackend(t, func(_ *net.TCPConn, in *bufio.Reader) bool {
					if p.name != "waiting" {
						_, _ = in.Peek(5)
					}
					close(begun)
					return true
				})
				c := b.client(t)
				c.send("POST /", p.half)
				<-begun
				leave(c.c)
				got := <-b.ended
				if strings.Contains(got, `0\r\n\r\n`) || p.name != "waiting" && !strings.HasSuffix(got, "reset") {
					t.Errorf("the upstream had %s; want half of it, and a reset", got)
				}
				c.c, c.in = c.h.dial("models.test"), nil
				c.in = bufio.NewReader(c.c)
				c.goesOn(b)
				if err := c.h.stop(); err != nil {
					t.Fatal(err)
				}
				gone := func(r map[string]any) bool { return r["reason"] == "client_gone" }
				if rec := c.h.audit.records(t); !slices.ContainsFunc(rec, gone) {
					t.Errorf("records %v; want client_gone", rec)
				}
			})
		}
	}
}

// An upstream that resets its connection after a complete answer has answered.
func TestUpstreamThatResetsBehindTheAnswer(t *testing.T) {
	for name, answer := range map[string]string{
		"length": "HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nwhole", "chunks": "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nwhole\r\n0\r\n\r\n",
	} {
		for _, u := range append(uploads, struct{ name, half, rest string }{"none", "\r\n", ""}) {
			t.Run(name+" to "+u.name, func(t *testing.T) {
				t.Parallel()
				b := newBackend(t, func(c *net.TCPConn, in *bufio.Reader) bool {
					_, _ = io.WriteString(c, answer)
					_ = c.SetLinger(0)
					return false
				})
				c := b.client(t)
				c.send("POST /", u.half)
				c.hears(200, "whole")
				c.write(u.rest)
				c.goesOn(b)
			})
		}
	}
}

// An upstream half-closes before, during or after an answer. After a request without content, the
// client's connection stays usable in every case.
func TestHalfClosedUpstream(t *testing.T) {
	for name, c := range map[string]struct {
		answer string
		status int
		body   string
	}{
		"before the answer": {"", 502, "upstream_reset"},
		"in the head":       {"HTTP/1.1 200 OK\r\nA: b\r\n", 502, "upstream_reset"},
		"behind the answer": {"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nwhole", 200, "whole"},
		"as its end":        {"HTTP/1.1 200 OK\r\n\r\nwhole", 200, "whole"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			b := newBackend(t, func(conn *net.TCPConn, in *bufio.Reader) bool {
				_, _ = io.WriteString(conn, c.answer)
				_ = conn.CloseWrite()
				return true
			})
			cl := b.client(t)
			cl.send("POST /", "\r\n")
			cl.hears(c.status, c.body)
			cl.goesOn(b) // a GET is retried if the upstream's end arrives after the request
		})
	}
}
