package limit

import (
	"fmt"
	"net/netip"
	"sync"
	"sync/atomic"
	"testing"
	"time"
)

var client = netip.MustParseAddr("192.0.2.1")

// left counts what the allowance of key in r has left, and uses it up.
func left(r *Rate, key string) int {
	n := 0
	for {
		if _, ok := r.Allow(key); !ok {
			return n
		}
		n++
	}
}

func TestRefusalByOneLimitTakesFromNone(t *testing.T) {
	c := newClock()
	s := NewRates([]RateConfig{
		{Per: "route", Limit: rate(100, time.Hour)},
		{Per: "principal", Limit: rate(2, time.Hour)},
		{Per: "address", Limit: rate(50, time.Hour)},
	}, c.now)
	for i := range 20 {
		if _, ok := s.Allow("alice", client); ok != (i < 2) {
			t.Fatalf("request %d: allowed %t", i, ok)
		}
	}
	if n := left(s[0], ""); n != 98 {
		t.Errorf("the route has %d left, want 98 after 2 requests", n)
	}
	if _, n := s[2].AllowAddr(client); !n {
		t.Error("the address has none left after 2 of 50 requests")
	}
}

func TestRefusalTellsTheLongestWait(t *testing.T) {
	c := newClock()
	s := NewRates([]RateConfig{
		{Per: "route", Limit: rate(1, time.Second)},
		{Per: "principal", Limit: rate(1, time.Minute)},
	}, c.now)
	s.Allow("alice", client)
	if retry, ok := s.Allow("alice", client); ok || retry != time.Minute {
		t.Errorf("got a wait of %s, %t, want a minute: after a second the second limit still refuses", retry, ok)
	}
}

func TestLimitsTakeOnlyWhatPasses(t *testing.T) {
	const routeBurst, workers, each = 100, 8, 400
	c := newClock()
	s := NewRates([]RateConfig{
		{Per: "route", Limit: rate(1, time.Hour), Burst: routeBurst},
		{Per: "principal", Limit: rate(1, time.Hour), Burst: 5},
	}, c.now)
	// Each worker has one name that is soon used up, and names that are fresh.
	var passed atomic.Int64
	var wg sync.WaitGroup
	for w := range workers {
		wg.Go(func() {
			for i := range each {
				name := fmt.Sprint("greedy", w)
				if i%20 == 0 {
					name = fmt.Sprint("fresh", w, i)
				}
				if _, ok := s.Allow(name, client); ok {
					passed.Add(1)
				}
			}
		})
	}
	wg.Wait()
	rest := int64(left(s[0], ""))
	if got := passed.Load() + rest; got != routeBurst {
		t.Errorf("%d passed and the route has %d left: %d in all, want %d", passed.Load(), rest, got, routeBurst)
	}
}

// TestGivingBackFindsWhereItWasTaken takes and gives back, as a request does that another
// one came before, in a table where some keys have places and others share.
func TestGivingBackFindsWhereItWasTaken(t *testing.T) {
	c := newClock()
	r := NewRate(RateConfig{Per: "principal", Limit: rate(1, time.Hour), Burst: 1000}, c.now)
	for i := range 400_000 {
		r.Allow(fmt.Sprint("flood", i))
	}
	sharing := 0
	for i := range 1000 {
		hash := r.hash(fmt.Sprint("late", i), client)
		before := r.wait(hash)
		wait, shared := r.take(hash)
		if wait != before {
			t.Fatalf("take waits %s, wait says %s", wait, before)
		}
		if wait > 0 {
			continue
		}
		at := r.shards[hash%shards].full(hash)
		r.give(hash, shared)
		if got := r.shards[hash%shards].full(hash); at-got != r.interval {
			t.Fatalf("giving back changed the time by %d, want one interval, %d", at-got, r.interval)
		}
		if shared {
			sharing++
		}
	}
	hash := r.hash("flood1", client) // has its place, and 999 of 1000 left
	if wait, shared := r.take(hash); wait > 0 || shared {
		t.Fatalf("take waits %s, shared %t", wait, shared)
	}
	r.give(hash, false)
	if n := left(r, "flood1"); n != 999 {
		t.Errorf("after take and give %d are left, want 999", n)
	}
	if sharing == 0 {
		t.Error("no key had to share: the table was not full")
	}
}

// full is the time that counts for hash.
func (s *shard) full(hash uint64) int64 {
	s.mu.Lock()
	defer s.mu.Unlock()
	set := &s.sets[s.index(hash)]
	if i, _ := set.find(hash, 0); i >= 0 {
		return set.full[i]
	}
	return set.shared
}

func TestAskingTakesNoPlace(t *testing.T) {
	c := newClock()
	r := NewRate(RateConfig{Per: "principal", Limit: rate(1, time.Hour)}, c.now)
	for i := range 10_000 {
		if wait := r.wait(r.hash(fmt.Sprint(i), client)); wait != 0 {
			t.Fatalf("a fresh key waits %s", wait)
		}
	}
	for i := range r.shards {
		if n := len(r.shards[i].sets); n != 1 {
			t.Fatalf("asking made a shard grow to %d sets", n)
		}
	}
}
