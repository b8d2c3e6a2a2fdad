package proxy_test

import (
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"runtime"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/net/http2"
)

// leavesNothing checks at the end of the test, after all other cleanup, that no goroutines are
// left. Call it first.
func leavesNothing(t *testing.T) {
	start := runtime.NumGoroutine()
	t.Cleanup(func() { settled(t, start) })
}

// meanwhile runs f while honest requests are sent, each on its own connection, and checks that all
// of them are served.
func (h *house) meanwhile(f func()) {
	h.t.Helper()
	done := make(chan struct{})
	var served atomic.Int64
	var honest sync.WaitGroup
	client := h.client(false)
	client.Transport.(*http.Transport).DisableKeepAlives = true
	token := h.token()
	honest.Go(func() {
		for ended := false; !ended; {
			select {
			case <-done:
				ended = true // and once more
			case <-time.After(20 * time.Millisecond):
			}
			req, _ := http.NewRequest("GET", "https://models.test/honest", nil)
			req.Header.Set("Authorization", "Bearer "+token)
			res, err := client.Do(req)
			if err != nil {
				h.t.Errorf("an honest request, after %d: %v", served.Load(), err)
				return
			}
			_, _ = io.Copy(io.Discard, res.Body)
			res.Body.Close()
			if res.StatusCode != 200 {
				h.t.Errorf("an honest request, after %d: status %d", served.Load(), res.StatusCode)
				return
			}
			served.Add(1)
		}
	})
	f()
	close(done)
	honest.Wait()
}

// closes reads until the gateway closes the connection. It fails the test at the connection's
// deadline.
func closes(t *testing.T, what string, c net.Conn) string {
	all, err := io.ReadAll(c)
	if errors.Is(err, os.ErrDeadlineExceeded) {
		t.Errorf("%s: still open", what)
	}
	return string(all)
}

// trickle writes single bytes until a write fails.
func trickle(c net.Conn, text string) {
	for i := 0; ; i++ {
		if _, err := io.WriteString(c, text[i%len(text):i%len(text)+1]); err != nil {
			return
		}
		time.Sleep(50 * time.Millisecond)
	}
}

func TestAttackSlowClients(t *testing.T) {
	t.Parallel()
	h := build(t, plan{
		handler: func(w http.ResponseWriter, r *http.Request) {
			if r.URL.Path == "/much" {
				for err := error(nil); err == nil; {
					_, err = w.Write(make([]byte, 64<<10))
				}
				return
			}
			_, _ = io.Copy(io.Discard, r.Body)
		},
		more: "limits: {head_time: 2s, keep_alive: 1s}\ntimeouts: {idle: 300ms, total: 4s}",
	})
	token := h.token()
	head := func(line, more string) string {
		return line + " HTTP/1.1\r\nHost: models.test\r\nAuthorization: Bearer " + token + "\r\n" + more + "\r\n"
	}
	const huge = "Content-Length: 1000000\r\n"
	attacks := []struct {
		name   string
		before string // sent at once
		slowly string // sent byte by byte, over and over; "" for silence
		want   string // statuses of the answers, or several possible ones
	}{
		{"silence", "", "", "-"},
		{"silence after a request", head("GET /", ""), "", "200"},
		{"a slow head", "", head("GET /", "X: "+strings.Repeat("x", 10000)), "- 408 400"},
		{"a slow line", "GET /", "x", "- 408 400"},
		{"half a head", "GET / HTTP/1.1\r\nHost: models.test\r\n", "", "- 408"},
		{"a slow second head", head("GET /", ""), "GET / HTTP/1.1\r\nHost: models.test\r\nX: yyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyy", "200 200-408"},
		{"a body that rests", head("POST /", huge) + "x", "", "408"},
		{"a small body that rests", head("POST /", "Content-Length: 9\r\n") + "x", "", "408"},
		{"a slow body", head("POST /", huge), "x", "504 408 -"},
		{"chunks that rest", head("POST /", "Transfer-Encoding: chunked\r\n") + "5\r\nhel", "", "408"},
		{"slow chunks", head("POST /", "Transfer-Encoding: chunked\r\n"), "1\r\nx\r\n", "504 408 -"},
		{"a body that is waited for", head("POST /", huge+"Expect: 100-continue\r\n"), "", "100-408 408"},
		{"a slow reader", head("GET /much", ""), "", "*"},
		{"a slow upload after 401", strings.Replace(head("POST /", huge), token, "x.y.z", 1), "x", "401 -"},
		{"a slow upload after 400", head("POST //", huge), "x", "400 -"},
		{"a slow upload after 404", strings.Replace(head("POST /", huge), "models.test", "evil.test", 1), "x", "404 -"},
		{"slow chunks after 401", strings.Replace(head("POST /", "Transfer-Encoding: chunked\r\n"), token, "x.y.z", 1), "1\r\nx\r\n", "401 -"},
	}
	// Run all at once: most of them only wait.
	var all sync.WaitGroup
	attack := func(what, before, slowly, want string, c net.Conn) {
		t.Cleanup(func() { c.Close() })
		_ = c.SetDeadline(time.Now().Add(time.Minute))
		_, _ = io.WriteString(c, before)
		if slowly != "" {
			all.Go(func() { trickle(c, slowly) })
		}
		all.Go(func() {
			defer c.Close()
			if want == "*" {
				time.Sleep(2 * time.Second) // then the answer must be truncated
			}
			raw := closes(t, what, c)
			if got := strings.ReplaceAll(statuses(raw), " ", "-"); want != "*" && !strings.Contains(" "+want+" ", " "+got+" ") {
				t.Errorf("%s: answers %s; want one of %s", what, got, want)
			}
		})
	}
	h.meanwhile(func() {
		for _, a := range attacks {
			for range 3 {
				attack(a.name, a.before, a.slowly, a.want, h.dial("models.test"))
			}
		}
		for _, hello := range []string{"", "\x16\x03\x01\x02\x00\x01", "GET / HTTP/1.1\r\n\r\n", strings.Repeat("x", 20000)} {
			c, err := net.Dial("tcp", h.addrs.HTTPS[0].String())
			if err != nil {
				t.Fatal(err)
			}
			attack(fmt.Sprintf("no handshake, but %.10q", hello), hello, "", "*", c)
		}
		all.Wait()
	})
}

func TestAttackSlowStreams(t *testing.T) {
	t.Parallel()
	gone := make(chan struct{}, 10)
	h := build(t, plan{
		handler: func(w http.ResponseWriter, r *http.Request) {
			if r.URL.Path == "/much" {
				for err := error(nil); err == nil; {
					_, err = w.Write(make([]byte, 64<<10))
				}
				gone <- struct{}{}
				return
			}
			_, _ = io.Copy(io.Discard, r.Body)
		},
		more: "limits: {head_time: 2s, keep_alive: 1s}\ntimeouts: {idle: 300ms, total: 4s}",
	})
	var all sync.WaitGroup
	f := h.frames()
	all.Go(func() {
		f.headers(1, false, h.usual("POST", "/", "content-length: 100000")...)
		f.data(1, false, "x")
		f.headers(3, false, h.usual("POST", "/")...)
		f.headers(5, true, h.usual("GET", "/honest")...)
		for id, want := range map[uint32]string{1: "408", 3: "408", 5: "200"} {
			if got := f.wait(id); got != want {
				t.Errorf("stream %d: %s; want %s", id, got, want)
			}
		}
	})
	shut := h.frames(http2.Setting{ID: http2.SettingInitialWindowSize, Val: 10})
	all.Go(func() {
		f := shut
		f.headers(1, true, h.usual("GET", "/much")...)
		if f.wait(1); f.got[1] == nil || f.got[1].reset == "" {
			t.Errorf("the stream was not reset: %+v", f.got[1])
		}
		<-gone
	})
	for name, send := range map[string]func(*frames){
		"silence": func(*frames) {},
		"half a head": func(f *frames) {
			_ = f.fr.WriteHeaders(http2.HeadersFrameParam{StreamID: 1, BlockFragment: f.block(":method: GET")})
		},
		"half a frame":     func(f *frames) { _, _ = f.c.Write([]byte{0, 10, 0, 0}) },
		"the end of a use": func(f *frames) { f.headers(1, true, h.usual("GET", "/")...); f.wait(1) },
	} {
		f := h.frames()
		all.Go(func() {
			send(f)
			for f.next() {
			}
			closes(t, name, f.c)
		})
	}
	all.Wait()
}
