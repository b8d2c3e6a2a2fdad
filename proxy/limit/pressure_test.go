package limit

import (
	"context"
	"net/netip"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"
)

func TestPressureIsMeasured(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var used atomic.Int64
		m := NewPressure(10, used.Load)
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan error, 1)
		go func() { done <- m.Run(ctx) }()
		for _, c := range []struct {
			used int64
			want bool
		}{{10, false}, {11, true}, {9, false}} {
			used.Store(c.used)
			time.Sleep(2 * lookEvery)
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

func TestPressureWithoutABudget(t *testing.T) {
	m := NewPressure(0, nil)
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := m.Run(ctx); err != nil || m.Spent() {
		t.Errorf("%v, spent %v", err, m.Spent())
	}
	if n := heapInUse(); n < 1<<20 || n > 1<<40 {
		t.Errorf("%d bytes in use", n)
	}
}

// A reload may set or remove a budget.
func TestPressureFollowsItsBudget(t *testing.T) {
	m := NewPressure(0, func() int64 { return 100 })
	for _, c := range []struct {
		budget int64
		want   bool
	}{{0, false}, {50, true}, {200, false}, {99, true}, {0, false}} {
		if m.SetBudget(c.budget); m.Spent() != c.want {
			t.Errorf("100 of %d: spent %v", c.budget, m.Spent())
		}
	}
}

// A counted connection leaves correctly, even if a reload changed the exemption of its address.
func TestConnsKeepTheirCountsOverAReload(t *testing.T) {
	a, b := netip.MustParseAddr("192.0.2.1"), netip.MustParseAddr("192.0.2.2")
	all := []netip.Prefix{netip.MustParsePrefix("192.0.2.1/32")}
	c := NewConns(ConnsConfig{Total: 10, PerAddress: 1, Exempt: all})
	for range 2 {
		if !c.Enter(a) {
			t.Fatal("an exempt address was refused")
		}
	}
	if !c.Enter(b) || c.Enter(b) {
		t.Fatal("the first limits are not applied")
	}
	c.SetConfig(ConnsConfig{Total: 10, PerAddress: 3})
	if !c.Enter(a) || c.Enter(a) {
		t.Error("connections of a formerly exempt address are not counted after the reload")
	}
	for range 3 {
		c.Leave(a)
	}
	c.Leave(b)
	if n := c.Len(); n != 0 || len(c.byAddr) != 0 {
		t.Errorf("%d connections, %d addresses after all have left", n, len(c.byAddr))
	}
}

func TestBytes(t *testing.T) {
	b := NewBytes(10)
	if !b.Take(6) || b.Take(5) || !b.Take(4) || b.Used() != 10 {
		t.Errorf("%d of %d taken", b.Used(), b.Total())
	}
	b.Give(6)
	if !b.Take(6) || b.Take(1) {
		t.Error("returned bytes cannot be taken again")
	}
	if NewBytes(0).Take(1) {
		t.Error("an empty budget admits a byte")
	}
}
