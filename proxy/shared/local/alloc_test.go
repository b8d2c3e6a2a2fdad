//go:build !race

package local

import (
	"context"
	"fmt"
	"runtime"
	"testing"
	"time"

	"sallyport/proxy/shared"
)

// A million claims under a thousand keys, spread over the window.
func TestMillionClaimsFitInto64MiB(t *testing.T) {
	const claims, most = 1_000_000, 64 << 20
	r, c := fresh(t, claims, claims)
	keys := make([]string, 1000)
	for i := range keys {
		keys[i] = fmt.Sprintf("key-%d", i)
	}
	heap := func() uint64 {
		runtime.GC()
		var m runtime.MemStats
		runtime.ReadMemStats(&m)
		return m.HeapAlloc
	}
	before := heap()
	for n := range uint64(claims) {
		if err := r.Claim(context.Background(), keys[n%1000], numbered(n), c.at, c.at.Add(maxAge)); err != nil {
			t.Fatal(err)
		}
		c.at = c.at.Add(60 * time.Microsecond)
	}
	after := heap()
	if live := r.Status().Live; live != claims {
		t.Fatalf("got %d live, want %d", live, claims)
	}
	t.Logf("%d MiB", (after-before)>>20)
	if after-before > most {
		t.Errorf("a million claims take %d bytes, want at most %d", after-before, most)
	}
	runtime.KeepAlive(r)
}

// A claim allocates nothing except for the growth of the store.
func TestClaimDoesNotAllocate(t *testing.T) {
	r, c := fresh(t, 1<<20, 1<<20)
	n := uint64(0)
	claim := func() {
		n++
		if err := r.Claim(context.Background(), "acme", numbered(n), c.at, c.at.Add(maxAge)); err != nil {
			t.Fatal(err)
		}
	}
	for range 1000 {
		claim()
	}
	if got := testing.AllocsPerRun(100_000, claim); got != 0 {
		t.Errorf("a claim makes %v allocations, want 0", got)
	}
	again := func() {
		if err := r.Claim(context.Background(), "acme", numbered(1), c.at, c.at.Add(maxAge)); err != shared.ErrReplayed {
			t.Fatal(err)
		}
	}
	if got := testing.AllocsPerRun(1000, again); got != 0 {
		t.Errorf("a replay makes %v allocations, want 0", got)
	}
}
