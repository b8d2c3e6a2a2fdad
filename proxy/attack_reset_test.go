package proxy_test

import (
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/net/http2"
)

// busy is a handler that counts its concurrent requests, without those that the gateway gives up at once:
// a busy machine may begin many of them before it learns of that. It returns when the gateway gives up.
type busy struct{ all, now, most atomic.Int64 }

func (b *busy) ServeHTTP(_ http.ResponseWriter, r *http.Request) {
	if r.URL.Path == "/honest" {
		return
	}
	b.all.Add(1)
	_, _ = io.Copy(io.Discard, r.Body)
	select {
	case <-r.Context().Done():
		return
	case <-time.After(50 * time.Millisecond):
	}
	n := b.now.Add(1)
	defer b.now.Add(-1)
	for m := b.most.Load(); n > m && !b.most.CompareAndSwap(m, n); m = b.most.Load() {
	}
	select {
	case <-r.Context().Done():
	case <-time.After(200 * time.Millisecond):
	}
}

// Streams are opened and reset at once: by the client (CVE-2023-44487), or by the gateway because
// the client provokes it (CVE-2025-8671). They cost the upstream no more than regular streams.
func TestAttackRapidReset(t *testing.T) {
	for name, reset := range map[string]func(f *frames, id uint32){
		"by the client":          func(f *frames, id uint32) { _ = f.fr.WriteRSTStream(id, http2.ErrCodeCancel) },
		"by a window of nothing": func(f *frames, id uint32) { _ = f.fr.WriteWindowUpdate(id, 0) },
		"by a window too large":  func(f *frames, id uint32) { _ = f.fr.WriteWindowUpdate(id, 1<<31-1) },
		"by a priority of its own": func(f *frames, id uint32) {
			_ = f.fr.WritePriority(id, http2.PriorityParam{StreamDep: id})
		},
	} {
		t.Run(name, func(t *testing.T) {
			leavesNothing(t)
			var b busy
			h := build(t, plan{handler: b.ServeHTTP, more: "limits: {streams: 20}"})
			h.meanwhile(func() {
				for range 3 {
					f := h.frames()
					f.mute = true
					usual := h.usual("GET", "/")
					over := make(chan struct{})
					go func() {
						defer close(over)
						for f.next() {
						}
					}()
					for id := uint32(1); id < 2000; id += 2 {
						f.headers(id, true, usual...)
						reset(f, id)
					}
					f.c.Close()
					<-over
				}
			})
			// Requests that the gateway has given up continue at the upstream until it notices.
			if m := b.most.Load(); m > 3*20+60 {
				t.Errorf("%d requests at once came up, %d in all", m, b.all.Load())
			}
			eventually(t, "the upstream is idle", func() bool { return b.now.Load() == 0 })
		})
	}
}

// Streams beyond the limit are refused without waiting.
func TestAttackManyStreams(t *testing.T) {
	leavesNothing(t)
	var b busy
	h := build(t, plan{handler: b.ServeHTTP, more: "limits: {streams: 20}"})
	h.meanwhile(func() {
		f := h.frames()
		usual := h.usual("GET", "/")
		for id := uint32(1); id < 400; id += 2 {
			f.headers(id, true, usual...)
		}
		for f.next() && len(f.got) < 200 {
		}
		f.c.Close()
	})
	if m := b.most.Load(); m > 20 {
		t.Errorf("%d requests at once came up", m)
	}
	eventually(t, "the upstream is idle", func() bool { return b.now.Load() == 0 })
}

// Floods of control frames that demand replies end the connection.
func TestAttackControlFrames(t *testing.T) {
	leavesNothing(t)
	h := build(t, plan{})
	h.meanwhile(func() {
		for name, send := range map[string]func(*frames) error{
			"pings": func(f *frames) error { return f.fr.WritePing(false, [8]byte{}) },
			"settings": func(f *frames) error {
				return f.fr.WriteSettings(http2.Setting{ID: http2.SettingInitialWindowSize, Val: 7})
			},
			"priorities": func(f *frames) error { return f.fr.WritePriority(1, http2.PriorityParam{StreamDep: 3}) },
			"unknown":    func(f *frames) error { return f.fr.WriteRawFrame(0xfa, 0, 1, make([]byte, 100)) },
		} {
			f := h.frames()
			_ = f.c.SetDeadline(time.Now().Add(2 * time.Second)) // nothing is read, so writes block once buffers are full
			for i := 0; i < 20_000 && send(f) == nil; i++ {
			}
			f.c.Close()
			_ = name
		}
	})
	h.model.hits.Store(0)
	h.untouched()
}

// rawUpstream calls talk for each of the gateway's connections, once a request head has arrived.
func rawUpstream(t *testing.T, talk func(net.Conn)) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	var conns sync.WaitGroup
	conns.Go(func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			conns.Go(func() {
				defer c.Close()
				buf := make([]byte, 64<<10)
				for n := 0; !strings.Contains(string(buf[:n]), "\r\n\r\n"); {
					m, err := c.Read(buf[n:])
					if err != nil {
						return
					}
					n += m
				}
				talk(c)
			})
		}
	})
	t.Cleanup(func() { l.Close(); conns.Wait() })
	return "http://" + l.Addr().String()
}

// forever writes text until the gateway closes the connection.
func forever(before, text string) func(net.Conn) {
	text = strings.Repeat(text, 1+4096/len(text))
	return func(c net.Conn) {
		for _, err := io.WriteString(c, before); err == nil; {
			_, err = io.WriteString(c, text)
		}
	}
}

// Whatever a hostile upstream sends, the result is 502 or 504, in bounded memory and time.
func TestAttackHostileUpstream(t *testing.T) {
	t.Parallel()
	for name, talk := range map[string]func(net.Conn){
		"a head without end":      forever("HTTP/1.1 200 OK\r\n", "X: y\r\n"),
		"a field without end":     forever("HTTP/1.1 200 OK\r\nX: ", "y"),
		"a status without end":    forever("HTTP/1.1 200 ", "OK"),
		"garbage without end":     forever("", "\x00\xff"),
		"empty lines without end": forever("", "\r\n"),
		"continues without end":   forever("", "HTTP/1.1 100 Continue\r\n\r\n"),
		"hints without end":       forever("", "HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\n"),
		"silence":                 func(c net.Conn) { _, _ = c.Read(make([]byte, 1)) },
		"a slow head":             func(c net.Conn) { trickle(c, "HTTP/1.1 200 OK\r\nX: "+strings.Repeat("y", 1000)) },
		"a smuggled second answer": func(c net.Conn) {
			_, _ = io.WriteString(c, "HTTP/1.1 200 OK\r\nContent-Length: 2\r\nContent-Length: 3\r\n\r\nokHTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nevil")
		},
		"fields with line breaks": func(c net.Conn) {
			_, _ = io.WriteString(c, "HTTP/1.1 200 OK\r\nContent-Length: 0\r\nX: a\rSet-Cookie: b\r\n\r\n")
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			bad := rawUpstream(t, talk)
			h := build(t, plan{routes: oneRoute + fmt.Sprintf(`
  - {host: models.test, path: /bad, upstream: %q, callers: anonymous, rules: [{allow: "*"}], timeouts: {head: 500ms, idle: 500ms}}
`, bad)})
			h.meanwhile(func() {
				for _, h2 := range []bool{false, true} {
					req, _ := http.NewRequest("POST", "https://models.test/bad", strings.NewReader("{}"))
					got, err := h.client(h2).Do(req)
					if err != nil {
						t.Fatal(err)
					}
					got.Body.Close()
					if got.StatusCode != 502 && got.StatusCode != 504 {
						t.Errorf("h2 %v: status %d; want 502 or 504", h2, got.StatusCode)
					}
				}
			})
		})
	}
}

// An endless body ends when its client has left or has stopped reading.
func TestAttackEndlessAnswer(t *testing.T) {
	t.Parallel()
	var begun, talking atomic.Int64
	talk := forever("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n", "400\r\n"+strings.Repeat("x", 0x400)+"\r\n")
	bad := rawUpstream(t, func(c net.Conn) {
		begun.Add(1)
		talking.Add(1)
		defer talking.Add(-1)
		talk(c)
	})
	h := build(t, plan{more: "timeouts: {idle: 500ms}", routes: oneRoute + fmt.Sprintf(`
  - {host: models.test, path: /bad, upstream: %q, callers: anonymous, rules: [{allow: "*"}]}
`, bad)})
	h.meanwhile(func() {
		for round, leaves := range []bool{true, false} {
			c := h.dial("models.test")
			fmt.Fprintf(c, "GET /bad HTTP/1.1\r\nHost: models.test\r\n\r\n")
			_, _ = io.ReadFull(c, make([]byte, 100_000))
			f := h.frames()
			f.mute = true
			f.headers(1, true, h.usual("GET", "/bad")...)
			for f.next() && (f.got[1] == nil || f.got[1].body == "") {
			}
			eventually(t, "both are answered", func() bool { return begun.Load() == int64(2*round+2) })
			if leaves {
				c.Close()
				f.c.Close()
			}
			eventually(t, "the upstream is left alone", func() bool { return talking.Load() == 0 })
		}
	})
}

// If the upstream breaks off during an upload, the client gets an answer.
func TestAttackUpstreamBreaksOffDuringUpload(t *testing.T) {
	t.Parallel()
	h := build(t, plan{routes: strings.ReplaceAll(oneRoute, "%s", rawUpstream(t, func(net.Conn) {}))})
	for _, framing := range []string{"Transfer-Encoding: chunked\r\n\r\n5\r\nhel", "Content-Length: 100000\r\n\r\nhel"} {
		got := h.tell("POST / HTTP/1.1\r\nHost: models.test\r\nAuthorization: Bearer " + h.token() + "\r\n" + framing)
		if statuses(got) != "502" || !strings.Contains(got, "upstream_reset") {
			t.Errorf("got %q; want 502 upstream_reset", got)
		}
	}
}

// A client requests more than its windows take, and closes the connection. The unsent answers must not
// block any other connection.
func TestAttackClientThatLeavesDuringAnswers(t *testing.T) {
	leavesNothing(t)
	answer := make([]byte, 20<<10)
	h := build(t, plan{handler: func(w http.ResponseWriter, _ *http.Request) { _, _ = w.Write(answer) }})
	h.meanwhile(func() {
		var clients sync.WaitGroup
		for range 4 {
			clients.Go(func() {
				for round := range 60 {
					f := h.frames()
					f.mute = true
					usual := h.usual("GET", "/")
					for id := uint32(1); id < 80; id += 2 {
						f.headers(id, true, usual...)
						if int(id)/2 == round%40 {
							f.c.Close()
						}
					}
					f.c.Close()
				}
			})
		}
		clients.Wait()
	})
}
