package proxy_test

import (
	"bufio"
	"io"
	"net"
	"net/http"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"sallyport/proxy"
)

// revokedNow revokes a principal and reloads a gateway that is stopping.
func (h *house) revokedNow(name string) {
	h.t.Helper()
	h.until("it is stopping", func() bool {
		return strings.HasPrefix(h.gateway.Reload(h.t.Context()).Summary, "the gateway is stopping")
	})
	r, err := proxy.ParseRevocation("principal " + name + " before 2099-01-01")
	if err != nil {
		h.t.Fatal(err)
	}
	if added, err := proxy.Revoke(filepath.Join(filepath.Dir(h.file), "revoked.txt"), r); err != nil || !added {
		h.t.Fatal(added, err)
	}
	if r := h.gateway.Reload(h.t.Context()); r.Result != proxy.ReloadRefused || !strings.Contains(r.Summary, "; revocations count all the same") {
		h.t.Errorf("report %+v", r)
	}
}

// A gateway that is stopping may serve for as long as drain_delay and drain say. A caller who is revoked
// meanwhile gets nothing more; others are served on.
func TestRevocationCountsWhileDraining(t *testing.T) {
	h := build(t, plan{more: unwatched + "revoked: revoked.txt\ndrain: 1h\ndrain_delay: 1h\n", handler: ticking, files: map[string]string{"revoked.txt": "# none yet\n"}})
	thief, victim := h.tokenOf("mallory"), h.tokenOf("bob")
	cut, kept := h.stream(h.client(true), "/", thief), h.stream(h.client(true), "/", victim)
	stopped := make(chan error, 1)
	go func() { stopped <- h.stop() }()
	h.revokedNow("issuer/corp:mallory")
	if _, err := io.Copy(io.Discard, cut); err == nil {
		t.Error("the stream of the revoked caller ended cleanly; want it cut")
	}
	hits := h.model.hits.Load()
	if r := h.do("GET", "/", "", map[string]string{"Authorization": "Bearer " + thief}); r.StatusCode != 401 || r.reason() != "revoked" {
		t.Errorf("the revoked caller: %d %s", r.StatusCode, r.body)
	}
	if got := h.model.hits.Load(); got != hits {
		t.Error("the model server was asked")
	}
	for range 10 {
		if _, err := kept.ReadByte(); err != nil {
			t.Fatalf("the stream of another: %v", err)
		}
	}
	h.gateway.Kill()
	if err := <-stopped; err != nil {
		t.Error(err)
	}
}

// The same holds for WebSockets, which the gateway waits for when all else has ended.
func TestRevocationCutsTunnelsWhileDraining(t *testing.T) {
	h := build(t, plan{
		more: unwatched + "revoked: revoked.txt\ndrain: 1h\n", files: map[string]string{"revoked.txt": "# none yet\n"}, routes: strings.TrimRight(oneRoute, "\n") + "\n    websocket: true\n",
		handler: func(w http.ResponseWriter, _ *http.Request) {
			c, rw, _ := w.(http.Hijacker).Hijack()
			defer c.Close()
			_, _ = io.WriteString(c, "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"+wsAccept+"\r\n\r\n")
			_, _ = io.Copy(c, rw)
		},
	})
	open := func(name string) (net.Conn, *bufio.Reader) {
		c := h.dial("models.test", "http/1.1")
		_, _ = io.WriteString(c, "GET / HTTP/1.1\r\nHost: models.test\r\nAuthorization: Bearer "+h.tokenOf(name)+"\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"+wsKey+"\r\n\r\n")
		in := bufio.NewReader(c)
		if res, err := http.ReadResponse(in, nil); err != nil || res.StatusCode != 101 {
			t.Fatal(res, err)
		}
		_, _ = io.WriteString(c, "hello\n")
		if line, err := in.ReadString('\n'); line != "hello\n" {
			t.Fatalf("the tunnel of %s: %q, %v", name, line, err)
		}
		return c, in
	}
	thief, fromThief := open("mallory")
	victim, fromVictim := open("bob")
	stopped := make(chan error, 1)
	go func() { stopped <- h.stop() }()
	h.until("it takes no connections", func() bool {
		c, err := net.DialTimeout("tcp", h.addrs.HTTPS[0].String(), time.Second)
		if err == nil {
			c.Close()
		}
		return err != nil
	})
	h.revokedNow("issuer/corp:mallory")
	_ = thief.SetReadDeadline(time.Now().Add(time.Minute))
	if _, err := fromThief.ReadByte(); err == nil || strings.Contains(err.Error(), "timeout") {
		t.Errorf("the tunnel of the revoked caller: %v; want it cut", err)
	}
	_, _ = io.WriteString(victim, "still here\n")
	if line, err := fromVictim.ReadString('\n'); line != "still here\n" {
		t.Errorf("the tunnel of another: %q, %v\n%s", line, err, h.audit.text())
	}
	h.gateway.Kill()
	if err := <-stopped; err != nil {
		t.Error(err)
	}
}

func (h *house) tokenOf(name string) string {
	h.t.Helper()
	token, err := h.issuer.Sign(h.issuer.Claims(name, "models.predict"))
	if err != nil {
		h.t.Fatal(err)
	}
	return token
}
