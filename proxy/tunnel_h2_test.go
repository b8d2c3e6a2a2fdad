package proxy_test

import (
	"bufio"
	"crypto/sha1"
	"encoding/base64"
	"io"
	"net"
	"net/http"
	"strings"
	"testing"
	"time"

	"golang.org/x/net/http2"
)

// socket is a WebSocket server that sends hello and then echoes. It speaks the subprotocol chat where a client
// offers it.
func socket(w http.ResponseWriter, r *http.Request) {
	keys := r.Header["Sec-Websocket-Key"]
	if r.Method != "GET" || len(keys) != 1 || r.Header.Get("Upgrade") != "websocket" || r.Header.Get("Sec-Websocket-Version") != "13" {
		w.WriteHeader(http.StatusBadRequest)
		return
	}
	fields := ""
	if r.Header.Get("Sec-WebSocket-Protocol") == "chat" {
		fields = "Sec-WebSocket-Protocol: chat\r\n"
	}
	c, rw := openSocket(w, r, fields)
	defer c.Close()
	_, _ = io.WriteString(c, "hello\n")
	for {
		line, err := rw.ReadString('\n')
		if err != nil || line == "bye\n" {
			return
		}
		_, _ = io.WriteString(c, "echo "+line)
	}
}

// openSocket accepts a WebSocket, with these field lines in the answer. The caller closes the
// connection.
func openSocket(w http.ResponseWriter, r *http.Request, fields string) (net.Conn, *bufio.ReadWriter) {
	sum := sha1.Sum([]byte(r.Header.Get("Sec-WebSocket-Key") + "258EAFA5-E914-47DA-95CA-C5AB0DC85B11"))
	c, rw, err := w.(http.Hijacker).Hijack()
	if err != nil {
		panic(err)
	}
	_, _ = io.WriteString(c, "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Accept: "+base64.StdEncoding.EncodeToString(sum[:])+"\r\n"+fields+"\r\n")
	return c, rw
}

// extended is the head of an extended CONNECT (RFC 8441).
func (h *house) extended(path string, more ...string) []string {
	lines := append(h.usual("CONNECT", path), "sec-websocket-version: 13", "sec-websocket-protocol: chat")
	return append([]string{":protocol: websocket"}, append(lines, more...)...)
}

func TestWebSocketOverHTTP2(t *testing.T) {
	t.Parallel()
	allowed := strings.TrimRight(oneRoute, "\n") + "\n    websocket: true\n"
	t.Run("on a route that allows it", func(t *testing.T) {
		h := build(t, plan{handler: socket, routes: allowed})
		f := h.frames()
		f.headers(1, false, h.extended("/", "sec-websocket-key: of-the-client")...)
		f.data(1, false, "early\n")
		f.headers(3, true, h.usual("GET", "/elsewhere")...) // the connection also serves other streams
		for f.next() && (f.got[1] == nil || f.got[1].body != "hello\necho early\n") {
		}
		if got := f.wait(3); got != "400" {
			t.Errorf("the request beside it: %s", got)
		}
		f.data(1, false, "late\n")
		f.data(1, false, "bye\n")
		if got := f.wait(1); got != "200" || f.got[1].body != "hello\necho early\necho late\n" {
			t.Errorf("got %s %q", got, f.got[1].body)
		}
		f.c.Close()
		if rec := h.ended(); rec["status"] != 101. || rec["method"] != "GET" || rec["bytes_in"] != 15. || rec["bytes_out"] != 27. {
			t.Errorf("record %v", rec)
		}
	})
	t.Run("the client ends it", func(t *testing.T) {
		for _, cut := range []bool{false, true} {
			h := build(t, plan{handler: socket, routes: allowed})
			f := h.frames()
			f.headers(1, false, h.extended("/")...)
			for f.next() && (f.got[1] == nil || f.got[1].body == "") {
			}
			if cut {
				_ = f.fr.WriteRSTStream(1, http2.ErrCodeCancel)
			} else {
				f.data(1, true, "")
				if got := f.wait(1); got != "200" {
					t.Errorf("got %s", got)
				}
			}
			eventually(t, "the exchange ends", func() bool { return len(h.audit.records(t)) == 1 })
		}
	})
	t.Run("what does not become a tunnel", func(t *testing.T) {
		for _, x := range []struct {
			name, routes, want string
			handler            http.HandlerFunc
			lines              func(*house) []string
			hits               int64
		}{
			{"a route that allows none", oneRoute, "501", socket, func(h *house) []string { return h.extended("/") }, 0},
			{"another protocol", allowed, "501", socket, func(h *house) []string {
				return append([]string{":protocol: connect-udp"}, h.extended("/")[1:]...)
			}, 0},
			{"no token", allowed, "401", socket, func(h *house) []string {
				return []string{":protocol: websocket", ":method: CONNECT", ":scheme: https", ":authority: models.test", ":path: /"}
			}, 0},
			{"a content length", allowed, "400", socket, func(h *house) []string { return h.extended("/", "content-length: 5") }, 0},
			{"another method", allowed, "400", socket, func(h *house) []string {
				return append([]string{":protocol: websocket"}, h.usual("GET", "/")...)
			}, 0},
			{"a server that answers 200", allowed, "502", func(http.ResponseWriter, *http.Request) {}, func(h *house) []string { return h.extended("/") }, 1},
			{"a server that refuses", allowed, "403", func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(403) }, func(h *house) []string { return h.extended("/") }, 1},
			{"a server that answers another key", allowed, "502", func(w http.ResponseWriter, _ *http.Request) {
				c, _, _ := w.(http.Hijacker).Hijack()
				defer c.Close()
				_, _ = io.WriteString(c, "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"+wsAccept+"\r\n\r\n")
			}, func(h *house) []string { return h.extended("/") }, 1},
		} {
			h := build(t, plan{handler: x.handler, routes: x.routes})
			f := h.frames()
			f.headers(1, false, x.lines(h)...)
			f.data(1, false, "GET / HTTP/1.1\r\n\r\n")
			if got := f.wait(1); got != x.want || h.model.hits.Load() != x.hits {
				t.Errorf("%s: %s and %d requests upstream; want %s and %d", x.name, got, h.model.hits.Load(), x.want, x.hits)
			}
		}
	})
	t.Run("the drain ends it", func(t *testing.T) {
		h := build(t, plan{handler: socket, routes: allowed, more: "drain: 200ms"})
		f := h.frames()
		f.headers(1, false, h.extended("/")...)
		for f.next() && (f.got[1] == nil || f.got[1].body == "") {
		}
		start := time.Now()
		if err := h.stop(); err != nil {
			t.Error(err)
		}
		if d := time.Since(start); d > time.Minute {
			t.Errorf("took %v", d)
		}
	})
}
