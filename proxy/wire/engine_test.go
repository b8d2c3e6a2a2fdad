package wire_test

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"strconv"
	"strings"
	"testing"
	"time"

	"sallyport/proxy/message"
	"sallyport/proxy/wire"
	"sallyport/proxy/wire/h1"
	"sallyport/proxy/wire/stdhttp"
)

// server is the common interface of the engines.
type server interface {
	Serve(net.Listener) error
	Shutdown(context.Context) error
	Close() error
}

// engines are the HTTP/1.1 engines.
var engines = []struct {
	name string
	make func(wire.Handler) server
}{
	{"h1", func(h wire.Handler) server { return h1.NewServer(h, wire.ServerOptions{}) }},
	{"stdhttp", func(h wire.Handler) server { return stdhttp.New(h, stdhttp.Options{}) }},
}

// each runs a test with each engine.
func each(t *testing.T, f func(*testing.T, engine)) {
	for _, e := range engines {
		t.Run(e.name, func(t *testing.T) { f(t, e.make) })
	}
}

type engine func(wire.Handler) server

// start serves h on loopback and returns the address.
func (e engine) start(t *testing.T, h wire.Handler) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	s := e(h)
	done := make(chan error, 1)
	go func() { done <- s.Serve(l) }()
	t.Cleanup(func() {
		s.Close()
		if err := <-done; err != nil {
			t.Errorf("Serve: %v", err)
		}
	})
	return l.Addr().String()
}

// talk sends raw bytes and returns everything received until the server closes.
func talk(t *testing.T, addr, raw string) string {
	t.Helper()
	c, err := net.Dial("tcp", addr)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	_ = c.SetDeadline(time.Now().Add(time.Minute))
	if _, err := io.WriteString(c, raw); err != nil {
		t.Fatal(err)
	}
	all, _ := io.ReadAll(c)
	return string(all)
}

func answer(s wire.Stream, status int, body string, fields ...message.Field) {
	_ = s.Respond(&message.Response{Status: status, Fields: fields, ContentLength: int64(len(body))}, false)
	_, _ = io.WriteString(streamWriter{s}, body)
	_ = s.Finish(nil)
}

type streamWriter struct{ wire.Stream }

func TestHeadArrivesAsSent(t *testing.T) {
	each(t, func(t *testing.T, e engine) {
		var got message.Head
		addr := e.start(t, func(s wire.Stream) { got = *s.Head(); answer(s, 204, "") })
		talk(t, addr, "POST /a%2Fb?x=%20 HTTP/1.1\r\nHost: A.Example:80\r\nX_Odd: 1\r\nX-B: 2\r\nX-B: 3\r\nContent-Length: 0\r\nConnection: close\r\n\r\n")
		if got.Method != "POST" || got.Target != "/a%2Fb?x=%20" || got.Authority != "A.Example:80" || got.Scheme != "http" || got.Version != message.HTTP11 {
			t.Errorf("head %+v", got)
		}
		if got.Fields.Get("x_odd") != "1" || got.Fields.Count("x-b") != 2 || got.ContentLength != 0 {
			t.Errorf("fields %v, length %d", got.Fields, got.ContentLength)
		}
	})
}

func TestAnswerIsWrittenAsGiven(t *testing.T) {
	each(t, func(t *testing.T, e engine) {
		addr := e.start(t, func(s wire.Stream) {
			answer(s, 418, "<html>", message.Field{Name: "set-cookie", Value: "a=1"}, message.Field{Name: "set-cookie", Value: "b=2"})
		})
		got := talk(t, addr, "GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n")
		for _, want := range []string{"HTTP/1.1 418 ", "Content-Length: 6\r\n", "Set-Cookie: a=1\r\n", "Set-Cookie: b=2\r\n", "\r\n\r\n<html>"} {
			if !strings.Contains(got, want) {
				t.Errorf("answer lacks %q:\n%s", want, got)
			}
		}
		if strings.Contains(got, "Content-Type") {
			t.Errorf("a content type was guessed:\n%s", got)
		}
	})
}

func TestUnfinishedAnswerLooksCut(t *testing.T) {
	each(t, func(t *testing.T, e engine) {
		addr := e.start(t, func(s wire.Stream) {
			_ = s.Respond(&message.Response{Status: 200, ContentLength: -1}, false)
			_, _ = s.Write([]byte("half"))
			_ = s.Flush()
		})
		res, err := http.Get("http://" + addr)
		if err != nil {
			t.Fatal(err)
		}
		defer res.Body.Close()
		if body, err := io.ReadAll(res.Body); err == nil {
			t.Errorf("read %q without an error; want it to look cut", body)
		}
	})
}

func TestTrailersBothWays(t *testing.T) {
	each(t, func(t *testing.T, e engine) {
		addr := e.start(t, func(s wire.Stream) {
			if _, err := io.Copy(io.Discard, s.Body()); err != nil {
				t.Error(err)
			}
			_ = s.Respond(&message.Response{Status: 200, ContentLength: -1}, true)
			_, _ = s.Write([]byte("x"))
			_ = s.Finish(message.Fields{{Name: "x-sum", Value: s.Body().Trailers().Get("x-in")}})
		})
		got := talk(t, addr, "POST / HTTP/1.1\r\nHost: a\r\nConnection: close\r\nTransfer-Encoding: chunked\r\nTrailer: X-In\r\n\r\n1\r\na\r\n0\r\nX-In: 42\r\n\r\n")
		if !strings.HasSuffix(got, "0\r\nX-Sum: 42\r\n\r\n") {
			t.Errorf("no trailer at the end of:\n%s", got)
		}
	})
}

func TestInterimAnswerComesFirst(t *testing.T) {
	each(t, func(t *testing.T, e engine) {
		addr := e.start(t, func(s wire.Stream) {
			_ = s.Inform(&message.Response{Status: 103, Fields: message.Fields{{Name: "link", Value: "</a>"}}})
			answer(s, 200, "ok")
		})
		got := talk(t, addr, "GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n")
		if !strings.HasPrefix(got, "HTTP/1.1 103 ") || strings.Count(got, "Link: </a>") != 1 || !strings.Contains(got, "HTTP/1.1 200 ") {
			t.Errorf("got:\n%s", got)
		}
	})
}

func TestExpectIsAnsweredByTheFirstRead(t *testing.T) {
	each(t, func(t *testing.T, e engine) {
		for _, read := range []bool{true, false} {
			t.Run(fmt.Sprint("read ", read), func(t *testing.T) {
				addr := e.start(t, func(s wire.Stream) {
					if read {
						_, _ = io.Copy(io.Discard, s.Body())
					}
					s.CloseAfter()
					answer(s, 401, "")
				})
				got := talk(t, addr, "POST / HTTP/1.1\r\nHost: a\r\nExpect: 100-continue\r\nContent-Length: 2\r\n\r\nhi")
				if strings.HasPrefix(got, "HTTP/1.1 100 ") != read {
					t.Errorf("got:\n%s", got)
				}
			})
		}
	})
}

// After an early refusal, a client that trickles its body is read only for the lingering time.
func TestCloseAfterDoesNotReadASlowBody(t *testing.T) {
	each(t, func(t *testing.T, e engine) {
		addr := e.start(t, func(s wire.Stream) { s.CloseAfter(); answer(s, 401, "no") })
		c, err := net.Dial("tcp", addr)
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		fmt.Fprintf(c, "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 100\r\n\r\nx")
		_ = c.SetReadDeadline(time.Now().Add(time.Minute))
		all, err := io.ReadAll(c) // ends when the server closes, with 99 bytes still missing
		if err != nil || !strings.Contains(string(all), "HTTP/1.1 401 ") || !strings.Contains(string(all), "Connection: close") {
			t.Errorf("got %q, %v", all, err)
		}
	})
}

func TestUpgradeHandsOverEarlyBytes(t *testing.T) {
	each(t, func(t *testing.T, e engine) {
		addr := e.start(t, func(s wire.Stream) {
			_ = s.Head().Settle()
			c, err := s.Upgrade(&message.Response{Status: 101, Fields: message.Fields{{Name: "sec-websocket-accept", Value: "x"}}})
			if err != nil {
				t.Error(err)
				return
			}
			defer c.Close()
			line, _ := bufio.NewReader(c).ReadString('\n')
			fmt.Fprintf(c, "echo %s", line)
		})
		got := talk(t, addr, "GET / HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\nearly\n")
		if !strings.HasPrefix(got, "HTTP/1.1 101 ") || !strings.Contains(strings.ToLower(got), "upgrade: websocket\r\n") || !strings.HasSuffix(got, "\r\n\r\necho early\n") {
			t.Errorf("got %q", got)
		}
	})
}

func TestHTTP2(t *testing.T) {
	// httptest's server brings a certificate and a client that trusts it.
	var got message.Head
	pki := httptest.NewUnstartedServer(nil)
	pki.EnableHTTP2 = true
	pki.StartTLS()
	defer pki.Close()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	s := stdhttp.New(func(s wire.Stream) {
		got = *s.Head()
		if s.Conn().TLS == nil {
			t.Error("no TLS state")
		}
		answer(s, 200, "two")
	}, stdhttp.Options{})
	go func() { _ = s.Serve(tlsListener{l, pki}) }()
	defer s.Close()
	res, err := pki.Client().Get("https://" + l.Addr().String() + "/p?q")
	if err != nil {
		t.Fatal(err)
	}
	defer res.Body.Close()
	if body, _ := io.ReadAll(res.Body); res.ProtoMajor != 2 || string(body) != "two" {
		t.Errorf("%s answered %q", res.Proto, body)
	}
	if got.Version != message.HTTP2 || got.Scheme != "https" || got.Target != "/p?q" {
		t.Errorf("head %+v", got)
	}
}

func TestShutdownWaitsForTheAnswer(t *testing.T) {
	each(t, func(t *testing.T, e engine) {
		entered, leave := make(chan struct{}), make(chan struct{})
		l, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		s := e(func(s wire.Stream) { close(entered); <-leave; answer(s, 200, "late") })
		served := make(chan error, 1)
		go func() { served <- s.Serve(l) }()
		got := make(chan string, 1)
		go func() { got <- talk(t, l.Addr().String(), "GET / HTTP/1.1\r\nHost: a\r\n\r\n") }()
		<-entered
		stopped := make(chan error, 1)
		go func() { stopped <- s.Shutdown(context.Background()) }()
		if err := <-served; err != nil {
			t.Errorf("Serve: %v", err)
		}
		close(leave)
		if err := <-stopped; err != nil {
			t.Errorf("Shutdown: %v", err)
		}
		if a := <-got; !strings.HasSuffix(a, "late") {
			t.Errorf("got %q; want the answer", a)
		}
	})
}

func TestAbortedAnswerIsNeverWhole(t *testing.T) {
	each(t, func(t *testing.T, e engine) {
		addr := e.start(t, func(s wire.Stream) {
			s.KeepEnd()
			length, end, _ := strings.Cut(s.Head().Target[1:], "/")
			n, _ := strconv.Atoi(length)
			if n < 0 {
				_ = s.Respond(&message.Response{Status: 200, ContentLength: -1}, false)
				_, _ = s.Write([]byte("text"))
				_ = s.Finish(nil)
			} else {
				answer(s, 200, strings.Repeat("x", n))
			}
			if end == "abort" {
				s.Abort()
			}
		})
		for _, n := range []int{-1, 0, 1, 2, 4095, 4096, 64 << 10, 1 << 20} {
			for _, method := range []string{"GET", "HEAD"} {
				for _, end := range []string{"finish", "abort"} {
					req, _ := http.NewRequest(method, fmt.Sprintf("http://%s/%d/%s", addr, n, end), nil)
					c := &http.Client{Transport: &http.Transport{DisableKeepAlives: true}}
					res, err := c.Do(req)
					if err == nil {
						_, err = io.ReadAll(res.Body)
						res.Body.Close()
					}
					if (err != nil) != (end == "abort") {
						t.Errorf("%s of %d bytes, %s: error %v", method, n, end, err)
					}
				}
			}
		}
	})
}
