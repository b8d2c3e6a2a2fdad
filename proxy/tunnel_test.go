package proxy_test

import (
	"io"
	"net/http"
	"strings"
	"testing"
	"time"

	"sallyport/proxy"
)

// The example pair of RFC 6455, section 1.3.
const (
	wsKey    = "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ=="
	wsAccept = "Sec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo="
)

// onlyListens opens a tunnel in which the server sends for longer than the idle time, and the client only
// listens. It returns false if the machine was so busy that the server itself paused for half that time.
func onlyListens(t *testing.T, request string) bool {
	const idle, ticks = time.Second, 12
	longest := make(chan time.Duration, 1)
	h := build(t, plan{routes: strings.TrimRight(oneRoute, "\n") + "\n    websocket: true\n    timeouts: {idle: 1s}\n", handler: func(w http.ResponseWriter, _ *http.Request) {
		c, _, _ := w.(http.Hijacker).Hijack()
		defer c.Close()
		_, _ = io.WriteString(c, "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"+wsAccept+"\r\n\r\n")
		pause, last := time.Duration(0), time.Now()
		for range ticks {
			time.Sleep(idle / 10)
			_, _ = io.WriteString(c, "tick\n")
			pause, last = max(pause, time.Since(last)), time.Now()
		}
		longest <- pause
		_, _ = io.Copy(io.Discard, c) // until the gateway considers both idle
	}})
	got := h.raw(request)
	if <-longest > idle/2 {
		return false
	}
	if strings.Count(got, "tick\n") != ticks {
		t.Errorf("got %q; want %d ticks", got, ticks)
	}
	if r := h.ended(); r["reason"] != nil || r["cause"] != "both sides were silent for 1s (timeouts.idle)" {
		t.Errorf("record %v", r)
	}
	return true
}

func TestWebSocket(t *testing.T) {
	t.Parallel()
	echo := func(w http.ResponseWriter, _ *http.Request) {
		c, rw, err := w.(http.Hijacker).Hijack()
		if err != nil {
			panic(err)
		}
		defer c.Close()
		_, _ = io.WriteString(c, "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"+wsAccept+"\r\n\r\nhello\n")
		line, _ := rw.ReadString('\n')
		_, _ = io.WriteString(c, "echo "+line)
	}
	const request = "GET / HTTP/1.1\r\nHost: models.test\r\nAuthorization: Bearer TOKEN\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n" + wsKey + "\r\n\r\nearly\n"
	t.Run("on a route that allows it", func(t *testing.T) {
		h := build(t, plan{handler: echo, routes: strings.TrimRight(oneRoute, "\n") + "\n    websocket: true\n"})
		got := h.raw(request)
		if !strings.HasPrefix(got, "HTTP/1.1 101 ") || !strings.HasSuffix(got, "\r\n\r\nhello\necho early\n") || !strings.Contains(strings.ToLower(got), strings.ToLower(wsAccept)) {
			t.Errorf("got %q", got)
		}
		if err := h.stop(); err != nil {
			t.Fatal(err)
		}
		if rec := h.audit.records(t); len(rec) != 1 || rec[0]["status"] != 101. || rec[0]["bytes_in"] != 6. || rec[0]["bytes_out"] != 17. {
			t.Errorf("records %v", rec)
		}
	})
	t.Run("without a token", func(t *testing.T) {
		h := build(t, plan{handler: echo, routes: strings.TrimRight(oneRoute, "\n") + "\n    websocket: true\n"})
		if got := h.raw(strings.ReplaceAll(request, "TOKEN", "x.y.z")); !strings.HasPrefix(got, "HTTP/1.1 401 ") {
			t.Errorf("got %q", got)
		}
		h.untouched()
	})
	t.Run("a side that only listens is not idle", func(t *testing.T) {
		for n := 0; !onlyListens(t, request); n++ {
			if n == 20 {
				t.Fatal("this machine never wrote for a second without a pause of half a second")
			}
		}
	})
	t.Run("ends with the credential", func(t *testing.T) {
		now, exp := stopped()
		h := build(t, plan{options: proxy.Options{Now: now}, routes: strings.TrimRight(oneRoute, "\n") + "\n    websocket: true\n", handler: func(w http.ResponseWriter, _ *http.Request) {
			c, _, _ := w.(http.Hijacker).Hijack()
			_, _ = io.WriteString(c, "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"+wsAccept+"\r\n\r\n")
			_, _ = io.Copy(io.Discard, c)
			c.Close()
		}})
		got := h.raw(strings.ReplaceAll(request, "TOKEN", h.ending(exp))) // returns when the gateway closes
		if !strings.HasPrefix(got, "HTTP/1.1 101 ") {
			t.Errorf("got %q", got)
		}
		if err := h.stop(); err != nil {
			t.Fatal(err)
		}
		if rec := h.audit.records(t); len(rec) != 1 || rec[0]["reason"] != "credential_expired_in_stream" {
			t.Errorf("records %v", rec)
		}
	})
}

// A request for a WebSocket that has content is refused before the model server hears
// of it, and costs no connection there.
func TestWebSocketWithABody(t *testing.T) {
	h := build(t, plan{routes: strings.TrimRight(oneRoute, "\n") + "\n    websocket: true\n"})
	head := "POST / HTTP/1.1\r\nHost: models.test\r\nAuthorization: Bearer TOKEN\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n" + wsKey + "\r\n"
	for name, rest := range map[string]string{
		"of a length":           "Content-Length: 5\r\n\r\nhello",
		"in chunks":             "Transfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n",
		"in chunks, but empty":  "Transfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
		"that does not come":    "Content-Length: 5\r\n\r\n",
		"larger than is held":   "Content-Length: 100000\r\n\r\n" + strings.Repeat("x", 100000),
		"in chunks, and no end": "Transfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n",
	} {
		t.Run(name, func(t *testing.T) {
			got := h.in(t).raw(head + rest)
			if !strings.HasPrefix(got, "HTTP/1.1 400 ") || !strings.Contains(got, "upgrade_with_body") {
				t.Errorf("got %q", got)
			}
		})
	}
	h.untouched()
}
