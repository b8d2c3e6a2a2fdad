package limit

import (
	"fmt"
	"hash/maphash"
	"net/netip"
	"sync"
	"sync/atomic"
	"testing"
	"time"
)

var client = netip.MustParseAddr("192.0.2.1")

// newRates returns a rate for each config, each with its own counts.
func newRates(c []RateConfig, now func() time.Time) Rates {
	return NewCounters(now).Lease().Rates("", c)
}

// per is a scope of all requests.
func per(names ...string) Scope { return Scope{Per: names} }

// Allow takes one request from each rate.
func (s Rates) Allow(principal string, client netip.Addr) (retry time.Duration, ok bool) {
	q := Asked{Principal: principal, Client: client}
	if over := s.Wait(&q, Whole); over != nil {
		return over.Retry, false
	}
	var t [8]taken
	taken := Taken(t[:0])
	if over := s.Take(&q, Whole, &taken); over != nil {
		return over.Retry, false
	}
	return 0, true
}

// left uses up the allowance of key and returns how much was left.
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
	s := newRates([]RateConfig{
		{Scope: per("route"), Limit: rate(100, time.Hour)},
		{Scope: per("principal"), Limit: rate(2, time.Hour)},
		{Scope: per("address"), Limit: rate(50, time.Hour)},
	}, c.now)
	for i := range 20 {
		if _, ok := s.Allow("alice", client); ok != (i < 2) {
			t.Fatalf("request %d: allowed %t", i, ok)
		}
	}
	if n := left(s[0].Rate, ""); n != 98 {
		t.Errorf("the route has %d left, want 98 after 2 requests", n)
	}
	if _, n := s[2].AllowAddr(client); !n {
		t.Error("the address has none left after 2 of 50 requests")
	}
}

func TestRefusalReturnsTheLongestWait(t *testing.T) {
	c := newClock()
	s := newRates([]RateConfig{
		{Scope: per("route"), Limit: rate(1, time.Second)},
		{Scope: per("principal"), Limit: rate(1, time.Minute)},
	}, c.now)
	s.Allow("alice", client)
	if retry, ok := s.Allow("alice", client); ok || retry != time.Minute {
		t.Errorf("got a wait of %s, %t, want a minute: after a second the second limit still refuses", retry, ok)
	}
}

func TestRefusedRequestsTakeNothingUnderConcurrency(t *testing.T) {
	const routeBurst, workers, each = 100, 8, 400
	c := newClock()
	s := newRates([]RateConfig{
		{Scope: per("route"), Limit: rate(1, time.Hour), Burst: routeBurst},
		{Scope: per("principal"), Limit: rate(1, time.Hour), Burst: 5},
	}, c.now)
	// Each worker uses one key that is soon exhausted, and fresh keys.
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
	rest := int64(left(s[0].Rate, ""))
	if got := passed.Load() + rest; got != routeBurst {
		t.Errorf("%d passed and the route has %d left: %d in all, want %d", passed.Load(), rest, got, routeBurst)
	}
}

// take and give are called as for a request that another one overtook. In the table, some keys
// have entries and others use the common allowance.
func TestGiveUndoesTake(t *testing.T) {
	c := newClock()
	r := NewRate(RateConfig{Scope: per("principal"), Limit: rate(1, time.Hour), Burst: 1000}, c.now)
	for i := range 400_000 {
		r.Allow(fmt.Sprint("flood", i))
	}
	overflows := 0
	for i := range 1000 {
		hash := maphash.String(r.seed, fmt.Sprint("late", i))
		before := r.wait(hash)
		wait, overflow := r.take(hash)
		if wait != before {
			t.Fatalf("take waits %s, wait says %s", wait, before)
		}
		if wait > 0 {
			continue
		}
		at := r.shards[hash%shards].full(hash)
		r.give(hash, overflow, 0)
		if got := r.shards[hash%shards].full(hash); at-got != r.interval {
			t.Fatalf("give changed the time by %d, want one interval, %d", at-got, r.interval)
		}
		if overflow {
			overflows++
		}
	}
	hash := maphash.String(r.seed, "flood1") // has an entry, with 999 of 1000 left
	if wait, overflow := r.take(hash); wait > 0 || overflow {
		t.Fatalf("take waits %s, overflow %t", wait, overflow)
	}
	r.give(hash, false, 0)
	if n := left(r, "flood1"); n != 999 {
		t.Errorf("after take and give %d are left, want 999", n)
	}
	if overflows == 0 {
		t.Error("no key used a common allowance: the table was not full")
	}
}

// full returns the time that applies to hash.
func (s *shard) full(hash uint64) int64 {
	s.mu.Lock()
	defer s.mu.Unlock()
	set := &s.sets[s.index(hash)]
	if i, _ := set.find(hash, 0); i >= 0 {
		return set.full[i]
	}
	return set.common
}

func TestWaitAddsNoEntry(t *testing.T) {
	c := newClock()
	r := NewRate(RateConfig{Scope: per("principal"), Limit: rate(1, time.Hour)}, c.now)
	for i := range 10_000 {
		if wait := r.wait(maphash.String(r.seed, fmt.Sprint(i))); wait != 0 {
			t.Fatalf("a fresh key waits %s", wait)
		}
	}
	for i := range r.shards {
		if n := len(r.shards[i].sets); n != 1 {
			t.Fatalf("wait made a shard grow to %d sets", n)
		}
	}
}
