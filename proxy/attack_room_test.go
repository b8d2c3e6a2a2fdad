package proxy_test

import (
	"fmt"
	"io"
	"net/http"
	"strings"
	"sync/atomic"
	"testing"
)

// A client with many requests on one connection, or many fields in one request, hits the configured
// limits. Others are not affected.
func TestAttackRequestsPerConnection(t *testing.T) {
	h := build(t, plan{more: "limits: {requests: 2, fields: 16}"})
	get := "GET /x HTTP/1.1\r\nHost: models.test\r\nAuthorization: Bearer TOKEN\r\n\r\n"
	got := h.raw(get + get + get) // ends because the gateway closes
	if strings.Count(got, "HTTP/1.1 200 ") != 2 || strings.Count(got, "Connection: close") != 1 || h.model.hits.Load() != 2 {
		t.Errorf("%d requests came through:\n%s", h.model.hits.Load(), got)
	}
	many := strings.Replace(get, "\r\n\r\n", strings.Repeat("\r\nX-A: 1", 15)+"\r\n\r\n", 1)
	if got := h.raw(many); !strings.HasPrefix(got, "HTTP/1.1 431 ") || h.model.hits.Load() != 2 {
		t.Errorf("17 fields: %s", got)
	}
}

// Connections that come too fast are dropped before the handshake; existing ones continue.
func TestAttackAcceptRate(t *testing.T) {
	h := build(t, plan{more: "limits: {accepts_per_address: 2/h}"})
	old := h.dial("models.test")
	h.dial("models.test")
	if c, err := tlsDial(h, "models.test"); err == nil {
		c.Close()
		t.Error("a third connection within an hour came through")
	}
	fmt.Fprintf(old, "GET /x HTTP/1.1\r\nHost: models.test\r\nAuthorization: Bearer %s\r\nConnection: close\r\n\r\n", h.token())
	if got, _ := io.ReadAll(old); !strings.HasPrefix(string(got), "HTTP/1.1 200 ") {
		t.Errorf("on a connection from before: %s", got)
	}
}

// When memory runs out, new requests are refused and running ones finish.
func TestAttackMemory(t *testing.T) {
	var used atomic.Int64
	entered, leave := make(chan struct{}, 1), make(chan struct{})
	h := build(t, plan{more: "limits: {memory: 64MiB}", memory: used.Load, handler: func(w http.ResponseWriter, r *http.Request) {
		entered <- struct{}{}
		<-leave
		io.WriteString(w, "whole")
	}})
	c := h.dial("models.test")
	ask := fmt.Sprintf("GET /x HTTP/1.1\r\nHost: models.test\r\nAuthorization: Bearer %s\r\n\r\n", h.token())
	io.WriteString(c, ask)
	<-entered
	other := h.dial("models.test")
	used.Store(65 << 20)
	// Memory is measured a few times a second: until then connections are accepted.
	eventually(t, "no connection is accepted", func() bool {
		late, err := tlsDial(h, "models.test")
		if err == nil {
			late.Close()
		}
		return err != nil
	})
	io.WriteString(other, strings.Replace(ask, "\r\n\r\n", "\r\nConnection: close\r\n\r\n", 1))
	got, _ := io.ReadAll(other)
	if !strings.HasPrefix(string(got), "HTTP/1.1 503 ") || !strings.Contains(string(got), `"reason":"overloaded"`) || !strings.Contains(string(got), "Retry-After: 1") {
		t.Errorf("with no memory left: %s", got)
	}
	if n := h.model.hits.Load(); n != 1 {
		t.Errorf("the upstream saw %d requests; want the one from before", n)
	}
	close(leave)
	buf := make([]byte, 4<<10)
	n, _ := c.Read(buf)
	if answer := string(buf[:n]); !strings.HasPrefix(answer, "HTTP/1.1 200 ") {
		t.Errorf("what was under way: %s", answer)
	}
	used.Store(0)
	eventually(t, "with memory again, connections come through", func() bool {
		late, err := tlsDial(h, "models.test")
		if err == nil {
			late.Close()
		}
		return err == nil
	})
}
