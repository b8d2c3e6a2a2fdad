package limit

import (
	"context"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"
)

func TestMemoryIsLookedAt(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var used atomic.Int64
		m := NewMemory(10, used.Load)
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan error, 1)
		go func() { done <- m.Run(ctx) }()
		for _, c := range []struct {
			used int64
			want bool
		}{{10, false}, {11, true}, {9, false}} {
			used.Store(c.used)
			time.Sleep(2 * memoryEvery)
			synctest.Wait()
			if got := m.Spent(); got != c.want {
				t.Errorf("with %d of 10 in use: %v; want %v", c.used, got, c.want)
			}
		}
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
}

func TestMemoryWithoutABound(t *testing.T) {
	m := NewMemory(0, nil)
	if err := m.Run(t.Context()); err != nil || m.Spent() {
		t.Errorf("%v, spent %v", err, m.Spent())
	}
	if n := heapInUse(); n < 1<<20 || n > 1<<40 {
		t.Errorf("%d bytes in use", n)
	}
}

func TestBytes(t *testing.T) {
	b := NewBytes(10)
	if !b.Take(6) || b.Take(5) || !b.Take(4) || b.Used() != 10 {
		t.Errorf("%d of %d taken", b.Used(), b.Total())
	}
	b.Give(6)
	if !b.Take(6) || b.Take(1) {
		t.Error("what is given back cannot be taken")
	}
	if NewBytes(0).Take(1) {
		t.Error("a budget of nothing gives something")
	}
}
