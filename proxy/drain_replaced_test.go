package proxy_test

import (
	"io"
	"net/http"
	"os"
	"testing"
	"time"
)

// TestStopWaitsForTunnelsOfReplacedConfigurations opens a tunnel, replaces the configuration and stops. The
// tunnel has the grace period like any request, then it is cut, and its record is written.
func TestStopWaitsForTunnelsOfReplacedConfigurations(t *testing.T) {
	h := build(t, plan{routes: oneRoute + "    websocket: true\n", more: unwatched + "drain: 1h\n", handler: func(w http.ResponseWriter, _ *http.Request) {
		c, _, _ := w.(http.Hijacker).Hijack()
		_, _ = io.WriteString(c, "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"+wsAccept+"\r\n\r\n")
		_, _ = io.Copy(c, c)
		c.Close()
	}})
	c := h.dial("models.test")
	defer c.Close()
	_ = c.SetDeadline(time.Now().Add(time.Minute))
	_, _ = io.WriteString(c, "GET / HTTP/1.1\r\nHost: models.test\r\nAuthorization: Bearer "+h.token()+"\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"+wsKey+"\r\n\r\nping")
	echo := func(text string) {
		t.Helper()
		got := ""
		for b := make([]byte, 1); len(got) < len(text) || got[len(got)-len(text):] != text; got += string(b) {
			if _, err := c.Read(b); err != nil {
				t.Fatalf("%v after %q", err, got)
			}
		}
	}
	echo("ping")
	h.edit("drain: 1h", "drain: 300ms")
	h.reload("changed")
	_, _ = io.WriteString(c, "pong")
	echo("pong")
	stopped := make(chan error, 1)
	go func() { stopped <- h.stop() }()
	_, _ = io.WriteString(c, "still")
	echo("still")
	if _, err := io.Copy(io.Discard, c); err != nil && os.IsTimeout(err) {
		t.Error("the tunnel is not cut at the end of the grace period")
	}
	if err := <-stopped; err != nil {
		t.Error(err)
	}
	records := h.audit.records(t)
	if len(records) != 1 || records[0]["reason"] != "shutdown" {
		t.Errorf("the records are %v", records)
	}
}
