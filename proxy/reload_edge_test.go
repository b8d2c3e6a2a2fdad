package proxy_test

import (
	"io"
	"os"
	"strings"
	"testing"

	"sallyport/proxy"
)

// reloaded rewrites the house's configuration and reloads it.
func (h *house) reloaded(g *proxy.Gateway, text string) {
	h.t.Helper()
	if err := os.WriteFile(h.file, []byte(text), 0o600); err != nil {
		h.t.Fatal(err)
	}
	if r := g.Reload(h.t.Context()); r.Result != proxy.ReloadChanged {
		h.t.Fatalf("reload: %+v", r)
	}
}

// A reload changes hosts and connection limits for new handshakes. An existing connection continues
// and counts towards the new limit.
func TestReloadChangesHostsAndConnectionBound(t *testing.T) {
	h := build(t, plan{more: unwatched})
	if err := h.stop(); err != nil {
		t.Fatal(err)
	}
	cfg, err := proxy.LoadConfig(h.file)
	if err != nil {
		t.Fatal(err)
	}
	g := h.start(cfg)
	alive := h.dial("models.test", "http/1.1")
	text, err := os.ReadFile(h.file)
	if err != nil {
		t.Fatal(err)
	}
	first := string(text)

	both := strings.Replace(first, "host: models.test", "host: [models.test, other.test]", 1)
	h.reloaded(g, both)
	h.dial("other.test").Close()

	h.reloaded(g, "limits: {connections: 1}\n"+both)
	if c, err := tlsDial(h, "models.test"); err == nil {
		c.Close()
		t.Error("a second connection came in under a bound of one")
	}

	h.reloaded(g, strings.Replace(first, "host: models.test", "host: other.test", 1))
	h.dial("other.test").Close()
	if _, err := tlsDial(h, "models.test"); err == nil || !strings.Contains(err.Error(), "unrecognized name") {
		t.Errorf("the host that was removed: got %v, want alert unrecognized_name", err)
	}
	if _, err := io.WriteString(alive, "GET / HTTP/1.1\r\nHost: models.test\r\nConnection: close\r\n\r\n"); err != nil {
		t.Fatal(err)
	}
	if answer, err := io.ReadAll(alive); err != nil || !strings.HasPrefix(string(answer), "HTTP/1.1 4") {
		t.Errorf("the connection from before: got %q, error %v; want the route refused in an answer", answer, err)
	}
}
