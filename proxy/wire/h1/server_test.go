package h1

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"sallyport/proxy/message"
	"sallyport/proxy/wire"
)

var testOptions = wire.ServerOptions{HeadTime: 10 * time.Second, IdleTime: time.Minute}

// ok answers with the request's body, or with its target if there is none.
func ok(s wire.Stream) {
	text, err := io.ReadAll(s.Body())
	if err != nil {
		s.CloseAfter()
	}
	if len(text) == 0 {
		text = []byte(s.Head().Target)
	}
	status := 200
	if s.Head().Fault != nil {
		status = 400
	}
	_ = s.Respond(&message.Response{Status: status, ContentLength: int64(len(text))}, false)
	_, _ = s.Write(text)
	_ = s.Finish(nil)
}

// piped runs f in a synctest bubble with a client of a server. All goroutines of the server must
// end soon after the client has closed.
func piped(t *testing.T, h wire.Handler, f func(t *testing.T, client net.Conn, s *Server)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		client, conn := net.Pipe()
		s := NewServer(h, testOptions)
		s.ServeConn(conn)
		f(t, client, s)
		client.Close()
		time.Sleep(time.Minute)
	})
}

// pass advances the time, and waits for all that happens in it.
func pass(d time.Duration) {
	time.Sleep(d)
	synctest.Wait()
}

// rest reads until the server closes.
func rest(c net.Conn) string {
	all, _ := io.ReadAll(c)
	return string(all)
}

func send(t *testing.T, c net.Conn, text string) {
	t.Helper()
	if _, err := io.WriteString(c, text); err != nil {
		t.Fatal(err)
	}
}

func TestSlowHead(t *testing.T) {
	var fault error
	h := func(s wire.Stream) { fault = s.Head().Fault; ok(s) }
	piped(t, h, func(t *testing.T, c net.Conn, _ *Server) {
		start := time.Now()
		go func() { // a byte every five seconds
			for i := range get {
				if _, err := io.WriteString(c, get[i:i+1]); err != nil {
					return
				}
				time.Sleep(5 * time.Second)
			}
		}()
		answer := make([]byte, 12)
		if _, err := io.ReadFull(c, answer); err != nil || string(answer) != "HTTP/1.1 400" || !errors.Is(fault, message.ErrHeadTimeout) {
			t.Errorf("got %q, %v; the fault is %v", answer, err, fault)
		}
		if took := time.Since(start); took < 10*time.Second || took > 11*time.Second {
			t.Errorf("after %v, want 10 s", took)
		}
		if s := rest(c); !strings.Contains(s, "Connection: close") {
			t.Errorf("the connection goes on: %q", s)
		}
	})
}

func TestIdleConnectionsEndSilently(t *testing.T) {
	for name, c := range map[string]struct {
		first string
		after time.Duration
	}{
		"fresh":           {"", 10 * time.Second},
		"after a request": {get + "\r\n", time.Minute},
	} {
		t.Run(name, func(t *testing.T) {
			var calls atomic.Int32
			piped(t, func(s wire.Stream) { calls.Add(1); ok(s) }, func(t *testing.T, conn net.Conn, _ *Server) {
				start := time.Now()
				in := bufio.NewReader(conn)
				if c.first != "" {
					send(t, conn, c.first)
					if text := response(t, in); text != "/p" {
						t.Errorf("answered %q", text)
					}
				}
				before := calls.Load()
				left, err := io.ReadAll(in)
				if took := time.Since(start); len(left) > 0 || err != nil || took < c.after || took > c.after+time.Second || calls.Load() != before {
					t.Errorf("got %q, %v after %v, and %d calls; want a silent end after %v", left, err, took, calls.Load()-before, c.after)
				}
			})
		})
	}
}

// response reads an answer with a length.
func response(t *testing.T, in *bufio.Reader) string {
	t.Helper()
	length := 0
	for {
		line, err := in.ReadString('\n')
		if err != nil {
			t.Fatal(err)
		}
		if n, found := strings.CutPrefix(line, "Content-Length: "); found {
			fmt.Sscan(n, &length)
		}
		if line == "\r\n" {
			break
		}
	}
	text := make([]byte, length)
	if _, err := io.ReadFull(in, text); err != nil {
		t.Fatal(err)
	}
	return string(text)
}

func TestSlowBody(t *testing.T) {
	var got error
	h := func(s wire.Stream) {
		_ = s.SetReadDeadline(time.Now().Add(2 * time.Second))
		_, got = io.ReadAll(s.Body())
		ok(s)
	}
	piped(t, h, func(t *testing.T, c net.Conn, _ *Server) {
		send(t, c, post+"Content-Length: 5\r\n\r\nhe")
		if s := rest(c); !strings.HasPrefix(s, "HTTP/1.1 200") || !strings.Contains(s, "Connection: close") {
			t.Errorf("answered %q", s)
		}
		if !errors.Is(got, os.ErrDeadlineExceeded) {
			t.Errorf("read: %v, want a deadline", got)
		}
	})
}

// A deadline that is moved during a read applies to that read.
func TestReadIsInterrupted(t *testing.T) {
	var took time.Duration
	h := func(s wire.Stream) {
		start := time.Now()
		go func() {
			time.Sleep(time.Second)
			s.CloseAfter()
			_ = s.SetReadDeadline(longAgo)
		}()
		_, err := io.ReadAll(s.Body())
		if took = time.Since(start); !errors.Is(err, os.ErrDeadlineExceeded) {
			t.Errorf("read: %v", err)
		}
	}
	piped(t, h, func(t *testing.T, c net.Conn, _ *Server) {
		send(t, c, post+"Content-Length: 5\r\n\r\n")
		rest(c)
		pass(time.Second)
		if took != time.Second {
			t.Errorf("interrupted after %v, want 1 s", took)
		}
	})
}

// Unread content of a request is skipped, within limits, even after an early answer and an
// interrupted read.
func TestUnreadBodyIsSkipped(t *testing.T) {
	h := func(s wire.Stream) {
		if s.Head().Target == "/early" {
			_ = s.SetReadDeadline(longAgo)
			if _, err := io.ReadAll(s.Body()); !errors.Is(err, os.ErrDeadlineExceeded) {
				t.Errorf("read: %v", err)
			}
			_ = s.Respond(&message.Response{Status: 200, ContentLength: 5}, false)
			_, _ = s.Write([]byte("early"))
			_ = s.Finish(nil)
			return
		}
		ok(s)
	}
	for _, c := range []struct {
		name string
		size int
		slow time.Duration
		next string // the second answer; "" for none
	}{
		{"small", 100, 0, "/next"},
		{"slow", 100, 3 * time.Second, ""},
		{"as much as may be", 200 << 10, 0, "/next"},
		{"more", 300 << 10, 0, ""},
	} {
		t.Run(c.name, func(t *testing.T) {
			piped(t, h, func(t *testing.T, conn net.Conn, _ *Server) {
				go func() {
					_, _ = fmt.Fprintf(conn, "POST /early HTTP/1.1\r\nHost: a\r\nContent-Length: %d\r\n\r\n", c.size)
					time.Sleep(c.slow)
					_, _ = conn.Write(make([]byte, c.size))
					_, _ = io.WriteString(conn, "GET /next HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n")
				}()
				in := bufio.NewReader(conn)
				if got := response(t, in); got != "early" {
					t.Errorf("answered %q", got)
				}
				left, _ := io.ReadAll(in)
				if got := string(left); got == "" != (c.next == "") || !strings.HasSuffix(got, c.next) {
					t.Errorf("answered %q, want %q", got, c.next)
				}
			})
		})
	}
}

func TestClientThatNeverReads(t *testing.T) {
	var got error
	h := func(s wire.Stream) {
		_ = s.SetWriteDeadline(time.Now().Add(2 * time.Second))
		_ = s.Respond(&message.Response{Status: 200, ContentLength: -1}, false)
		for got == nil {
			_, got = s.Write(make([]byte, 32<<10))
		}
	}
	piped(t, h, func(t *testing.T, c net.Conn, _ *Server) {
		send(t, c, get+"\r\n")
		pass(10 * time.Second)
		if !errors.Is(got, os.ErrDeadlineExceeded) {
			t.Errorf("write: %v, want a deadline", got)
		}
	})
}

func TestInterimResponseHasAWriteDeadline(t *testing.T) {
	var got error
	h := func(s wire.Stream) {
		_ = s.SetWriteDeadline(time.Now().Add(2 * time.Second))
		got = s.Inform(&message.Response{Status: 103, Fields: message.Fields{{Name: "link", Value: "</x>"}}})
	}
	piped(t, h, func(t *testing.T, c net.Conn, _ *Server) {
		send(t, c, get+"\r\n")
		pass(10 * time.Second)
		if !errors.Is(got, os.ErrDeadlineExceeded) {
			t.Errorf("write: %v, want a deadline", got)
		}
	})
}

// Wherever a client disconnects, the handler sees only the bytes sent, and no goroutine is left.
func TestClientVanishesAnywhere(t *testing.T) {
	const raw = post + "Transfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\nX: y\r\n\r\n"
	for i := range len(raw) + 1 {
		var whole, calls int
		h := func(s wire.Stream) {
			calls++
			text, err := io.ReadAll(s.Body())
			if err == nil && s.Head().Fault == nil {
				whole++
				if string(text) != "hello" {
					t.Errorf("cut at %d: body %q", i, text)
				}
			}
			_ = s.Respond(&message.Response{Status: 204}, false)
			_ = s.Finish(nil)
		}
		piped(t, h, func(t *testing.T, c net.Conn, _ *Server) {
			send(t, c, raw[:i])
			c.Close()
			pass(time.Second)
			if head := strings.Index(raw, "\r\n\r\n") + 4; calls > 1 || calls == 1 != (i >= head) || whole == 1 != (i == len(raw)) {
				t.Errorf("cut at %d: %d calls, %d whole requests", i, calls, whole)
			}
		})
	}
}

func TestPipelining(t *testing.T) {
	piped(t, ok, func(t *testing.T, c net.Conn, _ *Server) {
		var all string
		for i := range 20 {
			all += fmt.Sprintf("POST /%d HTTP/1.1\r\nHost: a\r\nContent-Length: 2\r\n\r\n%02d", i, i)
		}
		go func() { _, _ = io.WriteString(c, all) }()
		in := bufio.NewReader(c)
		for i := range 20 {
			if got := response(t, in); got != fmt.Sprintf("%02d", i) {
				t.Errorf("answer %d is %q", i, got)
			}
		}
	})
}

func TestContextEndsWhenTheClientGoes(t *testing.T) {
	for name, body := range map[string]string{"no body": "\r\n", "body": "Content-Length: 2\r\n\r\nhi", "chunks": "Transfer-Encoding: chunked\r\n\r\n0\r\n\r\n"} {
		t.Run(name, func(t *testing.T) {
			var took time.Duration
			h := func(s wire.Stream) {
				_, _ = io.ReadAll(s.Body())
				start := time.Now()
				<-s.Life().Done()
				took = time.Since(start)
			}
			piped(t, h, func(t *testing.T, c net.Conn, _ *Server) {
				send(t, c, post+body)
				time.Sleep(5 * time.Second)
				c.Close()
				pass(time.Second)
				if took != 5*time.Second {
					t.Errorf("the context ended after %v, want 5 s", took)
				}
			})
		})
	}
}

func TestContextEndsWithTheHandler(t *testing.T) {
	var asked, late context.Context
	var kept wire.Stream
	piped(t, func(s wire.Stream) { asked, kept = s.Life(), s; ok(s) }, func(t *testing.T, c net.Conn, _ *Server) {
		send(t, c, get+"Connection: close\r\n\r\n")
		rest(c)
		pass(time.Second)
		late = kept.Life()
		if asked.Err() == nil || late.Err() == nil {
			t.Errorf("context %v, asked for later %v", asked.Err(), late.Err())
		}
	})
}

// The watch for the client's departure must not lose bytes.
func TestWatchKeepsWhatComesEarly(t *testing.T) {
	h := func(s wire.Stream) { time.Sleep(3 * time.Second); ok(s) }
	for name, between := range map[string]time.Duration{"while it watches": 2 * time.Second, "after the answer": 4 * time.Second, "at once": 0} {
		t.Run(name, func(t *testing.T) {
			piped(t, h, func(t *testing.T, c net.Conn, _ *Server) {
				go func() {
					for i := range 3 {
						_, _ = fmt.Fprintf(c, "GET /%d HTTP/1.1\r\nHost: a\r\n\r\n", i)
						time.Sleep(between)
					}
				}()
				in := bufio.NewReader(c)
				for i := range 3 {
					if got := response(t, in); got != fmt.Sprintf("/%d", i) {
						t.Errorf("answer %d is %q", i, got)
					}
				}
			})
		})
	}
}

func TestHandlerThatPanicsIsCut(t *testing.T) {
	piped(t, func(s wire.Stream) { _ = s.Life(); panic("x") }, func(t *testing.T, c net.Conn, s *Server) {
		send(t, c, get+"\r\n")
		if got := rest(c); got != "" {
			t.Errorf("answered %q", got)
		}
		if err := s.Shutdown(t.Context()); err != nil {
			t.Error(err)
		}
	})
}
