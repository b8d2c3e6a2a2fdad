package proxy_test

import (
	"net"
	"path/filepath"
	"strings"
	"testing"
)

// A listener that a reload has closed is closed when the reload returns, so that the next one can open
// it again.
func TestReloadOpensAtOnceWhatTheLastClosed(t *testing.T) {
	free, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	on := "health: '" + free.Addr().String() + "', control: a.sock"
	free.Close()
	h := build(t, plan{more: unwatched})
	h.edit("health: '127.0.0.1:0'", on)
	h.reload("changed")
	for range 50 {
		h.edit(on, "health: off, control: off")
		h.reload("changed")
		if there, _ := filepath.Glob(filepath.Join(filepath.Dir(h.file), "a.sock")); len(there) > 0 {
			t.Fatal("the control socket is still there")
		}
		h.edit("health: off, control: off", on)
		h.reload("changed")
	}
	if status := get(t, h.client(false), h.token()); status != 200 {
		t.Error(status)
	}
}

// An address that the gateway cannot open beside one of its own is not called another program's.
func TestReloadNamesTheOwnListenerInTheWay(t *testing.T) {
	h := build(t, plan{more: unwatched})
	free, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	_, port, _ := net.SplitHostPort(free.Addr().String())
	free.Close()
	h.edit("health: '127.0.0.1:0'", "health: '127.0.0.1:"+port+"'")
	h.reload("changed")
	now := "health: '127.0.0.1:" + port + "'"
	for _, next := range []string{"health: ':" + port + "'", "health: 'localhost:" + port + "'"} {
		h.edit(now, next)
		r := h.reload("refused")
		if !strings.Contains(r.Summary, "the gateway itself listens there, for listen.health on 127.0.0.1:"+port+"; restart it") || strings.Contains(r.Summary, "program") {
			t.Errorf("%s: %s", next, r.Summary)
		}
		h.edit(next, now)
	}
	if status := get(t, h.client(false), h.token()); status != 200 {
		t.Error(status)
	}
}
