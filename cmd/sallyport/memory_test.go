package main

import (
	"context"
	"math"
	"runtime"
	"runtime/debug"
	"testing"
	"time"
)

func TestWorthCollecting(t *testing.T) {
	const mib = 1 << 20
	for _, tt := range []struct {
		name                         string
		before, last, collected, now heap
		want                         bool
	}{
		{"much left behind and nothing to do", heap{900 * mib, 30 * mib}, heap{900 * mib, 30 * mib}, heap{}, heap{900*mib + 1000, 30 * mib}, true},
		{"much to do until the last look", heap{899 * mib, 30 * mib}, heap{900 * mib, 30 * mib}, heap{}, heap{900*mib + 1000, 30 * mib}, false},
		{"much left behind and much to do", heap{900 * mib, 30 * mib}, heap{900 * mib, 30 * mib}, heap{}, heap{901 * mib, 30 * mib}, false},
		{"collected a moment ago", heap{900 * mib, 30 * mib}, heap{900 * mib, 30 * mib}, heap{900 * mib, 30 * mib}, heap{900*mib + 1000, 30 * mib}, false},
		{"little since", heap{907 * mib, 30 * mib}, heap{907 * mib, 30 * mib}, heap{900 * mib, 30 * mib}, heap{907*mib + 1000, 30 * mib}, false},
		{"enough since", heap{909 * mib, 30 * mib}, heap{909 * mib, 30 * mib}, heap{900 * mib, 30 * mib}, heap{909*mib + 1000, 30 * mib}, true},
		{"little for so large a heap", heap{909 * mib, 100 * mib}, heap{909 * mib, 100 * mib}, heap{900 * mib, 100 * mib}, heap{909*mib + 1000, 100 * mib}, false},
	} {
		if got := tt.now.worthCollecting(tt.collected) && tt.now.quiet(tt.before, tt.last); got != tt.want {
			t.Errorf("%s: %v", tt.name, got)
		}
	}
}

// TestQuietGatewayCollects makes garbage and then stays quiet until it is collected.
func TestQuietGatewayCollects(t *testing.T) {
	before := debug.SetGCPercent(-1) // nothing else collects
	defer debug.SetGCPercent(before)
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan struct{})
	go func() {
		defer close(done)
		collectWhenQuiet(ctx)
	}()
	for range 64 {
		garbage = make([]byte, 1<<20)
	}
	garbage = nil
	for end := time.Now().Add(time.Minute); ; time.Sleep(50 * time.Millisecond) {
		var m runtime.MemStats
		runtime.ReadMemStats(&m)
		if m.HeapInuse < 32<<20 && m.HeapIdle < m.HeapReleased+8<<20 {
			break
		} else if time.Now().After(end) {
			t.Fatalf("of the heap %d bytes are in use, and of %d that are not, %d were given back", m.HeapInuse, m.HeapIdle, m.HeapReleased)
		}
	}
	cancel()
	<-done
}

// garbage prevents the compiler from optimizing the allocations away.
var garbage []byte

// A reload may raise the budget or drop it; a limit that stays would keep the collector busy.
func TestLimitMemoryFollowsTheBudget(t *testing.T) {
	t.Setenv("GOMEMLIMIT", "")
	before := debug.SetMemoryLimit(-1)
	defer debug.SetMemoryLimit(before)
	for _, tt := range []struct{ budget, want int64 }{{8 << 30, (8 << 30) / 10 * 9}, {16 << 30, (16 << 30) / 10 * 9}, {0, math.MaxInt64}} {
		limitMemory(tt.budget)
		if got := debug.SetMemoryLimit(-1); got != tt.want {
			t.Errorf("a budget of %d: limit %d; want %d", tt.budget, got, tt.want)
		}
	}
	t.Setenv("GOMEMLIMIT", "1GiB")
	limitMemory(8 << 30)
	if got := debug.SetMemoryLimit(-1); got != math.MaxInt64 {
		t.Errorf("with GOMEMLIMIT: limit %d", got)
	}
}
