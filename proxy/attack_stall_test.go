package proxy_test

import (
	"crypto/tls"
	"io"
	"net"
	"net/http"
	"strings"
	"testing"
	"time"

	"golang.org/x/net/http2"

	"sallyport/proxy/message"
)

// stalling builds a gateway whose model server opens a tunnel for each request but /honest and passes
// it to do. ended gets a value when do returns.
func stalling(t *testing.T, do func(net.Conn)) (h *house, ended chan struct{}) {
	t.Helper()
	ended = make(chan struct{}, 8)
	h = build(t, plan{
		routes: strings.TrimRight(oneRoute, "\n") + "\n    websocket: true\n    timeouts: {idle: 500ms}\n",
		handler: func(w http.ResponseWriter, r *http.Request) {
			if r.URL.Path == "/honest" {
				return
			}
			c, _ := openSocket(w, r, "")
			defer c.Close()
			do(c)
			ended <- struct{}{}
		},
	})
	return h, ended
}

// over waits until the exchange has ended on the model server's side. A victim's request must be
// answered meanwhile.
func (h *house) over(ended chan struct{}) {
	h.t.Helper()
	if got := h.raw("GET /honest HTTP/1.1\r\nHost: models.test\r\nAuthorization: Bearer TOKEN\r\nConnection: close\r\n\r\n"); !strings.HasPrefix(got, "HTTP/1.1 200 ") {
		h.t.Errorf("the victim got %s", got)
	}
	select {
	case <-ended:
	case <-time.After(40 * time.Second): // without the idle time, a socket ends the write after a minute
		h.t.Error("the exchange goes on")
	}
}

// flood writes until it fails.
func flood(c io.Writer) {
	for err := error(nil); err == nil; {
		_, err = c.Write(make([]byte, 64<<10))
	}
}

const upgrade = "GET /x HTTP/1.1\r\nHost: models.test\r\nAuthorization: Bearer TOKEN\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n" + wsKey + "\r\n\r\n"

// A peer that reads nothing is cut off after the idle time, whatever it sends meanwhile.
func TestAttackPeersThatReadNothing(t *testing.T) {
	t.Parallel()
	begin := func(t *testing.T, h *house, text string) *tls.Conn {
		t.Helper()
		c := h.dial("models.test")
		if _, err := io.WriteString(c, strings.ReplaceAll(text, "TOKEN", h.token())); err != nil {
			t.Fatal(err)
		}
		return c
	}
	t.Run("a client in a tunnel", func(t *testing.T) {
		h, ended := stalling(t, func(c net.Conn) { flood(c) })
		c := begin(t, h, upgrade)
		go func() { // it sends now and then, so it is not silent
			for err := error(nil); err == nil; time.Sleep(100 * time.Millisecond) {
				_, err = io.WriteString(c, "x")
			}
		}()
		h.over(ended)
	})
	t.Run("a client in a tunnel over HTTP/2", func(t *testing.T) {
		h, ended := stalling(t, func(c net.Conn) { flood(c) })
		f := h.frames(http2.Setting{ID: http2.SettingInitialWindowSize, Val: 10})
		f.headers(1, false, h.extended("/x")...)
		h.over(ended)
		if f.wait(1); f.got[1].status != "200" || f.got[1].reset == "" {
			t.Errorf("the tunnel ended with %+v", f.got[1])
		}
	})
	t.Run("a server in a tunnel", func(t *testing.T) {
		release := make(chan struct{})
		h, _ := stalling(t, func(net.Conn) { <-release })
		t.Cleanup(func() { close(release) })
		c, ended := begin(t, h, upgrade), make(chan struct{}, 1)
		go func() { flood(c); ended <- struct{}{} }()
		h.over(ended)
	})
}

// informed is a request that records the write deadline of its interim response.
type informed struct {
	deadlineStream
	bound time.Duration
}

func (s *informed) Inform(*message.Response) error {
	s.bound = s.write
	return nil
}

func TestInterimResponsesAreBounded(t *testing.T) {
	h := build(t, plan{
		routes:  "\n  - {host: models.test, upstream: %s, callers: anonymous, rules: [{allow: \"*\"}]}\n",
		handler: func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusEarlyHints) },
	})
	var x informed
	x.request("")
	x.head.Fields.Del("authorization")
	h.gateway.Serve(&x)
	if x.status != 200 || x.bound < 55*time.Second || x.bound > 65*time.Second {
		t.Errorf("status %d, bound %s", x.status, x.bound)
	}
}
