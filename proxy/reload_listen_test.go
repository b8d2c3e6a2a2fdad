package proxy_test

import (
	"net"
	"path/filepath"
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
