package proxy_test

import (
	"net"
	"slices"
	"strings"
	"sync"
	"testing"

	"sallyport/proxy"
)

// A configuration that is refused takes over no nonces: it may be corrected, its file of nonces too.
func TestRefusedReloadHoldsNoNonces(t *testing.T) {
	taken, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer taken.Close()
	h := build(t, plan{more: testKeys + unwatched, files: keyFiles()})
	h.edit(
		"callers: issuer/corp", "callers: [issuer/corp, key/acme]", "reload: {watch: false}", "reload: {watch: false}\nintegrity: {state: first}",
		"https: '127.0.0.1:0'", "https: ['127.0.0.1:0', '"+taken.Addr().String()+"']",
	)
	if r := h.reload("refused"); !strings.Contains(r.Summary, "listen.https") {
		t.Fatalf("report %+v", r)
	}
	h.edit("https: ['127.0.0.1:0', '"+taken.Addr().String()+"']", "https: '127.0.0.1:0'", "state: first", "state: second")
	h.reload("changed")

	h.edit("state: second", "state: third")
	if r := h.reload("refused"); len(r.Faults) != 1 || !strings.Contains(r.Faults[0].Problem, "holds ") || !strings.HasSuffix(r.Faults[0].Problem, "second") {
		t.Errorf("report %+v", r)
	}
	// Without a route for signatures nothing is claimed, and the setting means nothing.
	h.edit("callers: [issuer/corp, key/acme]", "callers: issuer/corp", "integrity: {state: third}", "")
	h.reload("changed")
	if status := get(t, h.client(false), h.token()); status != 200 {
		t.Error(status)
	}
}

// The memory budget follows reloads. The budget of a configuration that is refused does not count.
func TestReloadChangesTheMemoryBudget(t *testing.T) {
	var mu sync.Mutex
	var told []int64
	h := build(t, plan{more: unwatched + "limits: {memory: 64MiB}\n", memory: func() int64 { return 0 }, options: proxy.Options{MemoryBudget: func(n int64) {
		mu.Lock()
		defer mu.Unlock()
		told = append(told, n)
	}}})
	h.edit("memory: 64MiB", "memory: 2GiB")
	h.reload("changed")
	h.edit("memory: 2GiB", "memory: 4GiB, unknown: 1")
	h.reload("refused")
	mu.Lock()
	defer mu.Unlock()
	if want := []int64{64 << 20, 2 << 30}; !slices.Equal(told, want) {
		t.Errorf("told %v; want %v", told, want)
	}
}
