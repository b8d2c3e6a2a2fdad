package limit

import (
	"fmt"
	"math/rand/v2"
	"net/netip"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"sallyport/proxy/setting"
)

// clock is a clock that tests advance by hand.
type clock struct{ t time.Time }

func newClock() *clock                { return &clock{time.Date(2026, 11, 1, 0, 0, 0, 0, time.UTC)} }
func (c *clock) now() time.Time       { return c.t }
func (c *clock) pass(d time.Duration) { c.t = c.t.Add(d) }

func rate(n int, per time.Duration) setting.Rate { return setting.Rate{N: n, Per: per} }

func TestRateRefillsEvenly(t *testing.T) {
	c := newClock()
	r := NewRate(RateConfig{Scope: per("principal"), Limit: rate(10, time.Second), Burst: 3}, c.now)
	step := func(key string, pass time.Duration, want time.Duration) {
		t.Helper()
		c.pass(pass)
		retry, ok := r.Allow(key)
		if ok != (want == 0) || retry != want {
			t.Errorf("Allow(%s) after %s = %s, %t, want a wait of %s", key, pass, retry, ok, want)
		}
	}
	ms := time.Millisecond
	step("a", 0, 0)
	step("a", 0, 0)
	step("a", 0, 0)
	step("a", 0, 100*ms)
	step("a", 40*ms, 60*ms) // a refusal takes nothing
	step("b", 0, 0)         // a separate allowance
	step("a", 60*ms, 0)
	step("a", 0, 100*ms)
	step("a", time.Hour, 0) // a quiet time refills the burst and no more
	step("a", 0, 0)
	step("a", 0, 0)
	step("a", 0, 100*ms)
}

func TestBurstDefaultsToTheLimit(t *testing.T) {
	c := newClock()
	r := NewRate(RateConfig{Scope: per("route"), Limit: rate(5, time.Minute)}, c.now)
	n := 0
	for range 20 {
		if _, ok := r.Allow(""); ok {
			n++
		}
	}
	if n != 5 {
		t.Errorf("5/m admitted %d at once, want 5", n)
	}
}

func TestRateWithoutLimitAllowsOne(t *testing.T) {
	c := newClock()
	r := NewRate(RateConfig{Scope: per("route")}, c.now)
	n := 0
	for range 100 {
		c.pass(time.Hour)
		if _, ok := r.Allow(""); ok {
			n++
		}
	}
	if n > 1 {
		t.Errorf("a rate without a limit admitted %d, want at most 1", n)
	}
}

func TestAddressesOfOneNetworkShareARate(t *testing.T) {
	r := NewRate(RateConfig{Scope: per("address"), Limit: rate(1, time.Hour)}, newClock().now)
	for _, tt := range []struct {
		addr string
		want bool
	}{
		{"192.0.2.1", true}, {"192.0.2.1", false}, {"::ffff:192.0.2.1", false}, {"192.0.2.2", true},
		{"2001:db8::1", true}, {"2001:db8::ffff:1", false}, {"2001:db8:0:1::1", true},
	} {
		if _, ok := r.AllowAddr(netip.MustParseAddr(tt.addr)); ok != tt.want {
			t.Errorf("AllowAddr(%s) = %t, want %t", tt.addr, ok, tt.want)
		}
	}
}

// An attacker with very many keys uses bounded memory and neither takes nor restores a victim's
// allowance.
func TestFloodOfKeysDoesNotChangeAVictimsAllowance(t *testing.T) {
	c := newClock()
	r := NewRate(RateConfig{Scope: per("principal"), Limit: rate(1, time.Hour), Burst: 2}, c.now)
	spent := func() bool { _, ok := r.Allow("victim"); return !ok }
	r.Allow("victim")
	r.Allow("victim")
	if !spent() {
		t.Fatal("the victim has an allowance left after its burst")
	}
	allowed := 0
	for i := range 400_000 {
		if _, ok := r.Allow(fmt.Sprint("attacker", i)); ok {
			allowed++
		}
	}
	if !spent() {
		t.Error("the flood restored the victim's allowance")
	}
	sets := 0
	for i := range r.shards {
		sets += len(r.shards[i].sets)
	}
	if sets > shards*maxSets {
		t.Errorf("the table has %d sets, want at most %d", sets, shards*maxSets)
	}
	// Each entry once, and the common allowance of each set twice.
	if most := shards * maxSets * (ways + 2); allowed > most {
		t.Errorf("%d requests of the flood were allowed, want at most %d", allowed, most)
	}
	// Once the allowances are full again, the entries are free.
	c.pass(3 * time.Hour)
	for i := range 10_000 {
		if _, ok := r.Allow(fmt.Sprint("new", i)); !ok {
			t.Fatalf("key %d was refused after the flood", i)
		}
	}
}

// GCRA guarantees at most the burst plus the refill in any time span.
func TestRateNeverExceedsBurstAndRefill(t *testing.T) {
	c := newClock()
	const n, burst = 7, 4
	r := NewRate(RateConfig{Scope: per("route"), Limit: rate(n, time.Second), Burst: burst}, c.now)
	var passed []time.Time
	for range 20_000 {
		c.pass(time.Duration(rand.IntN(100)) * time.Millisecond)
		if _, ok := r.Allow("k"); ok {
			passed = append(passed, c.t)
		}
	}
	for i := range passed {
		for j := i; j < min(i+50, len(passed)); j++ {
			most := burst + int(passed[j].Sub(passed[i])/(time.Second/n))
			if got := j - i + 1; got > most {
				t.Fatalf("%d requests in %s, want at most %d", got, passed[j].Sub(passed[i]), most)
			}
		}
	}
}

func TestRateIsExactUnderConcurrency(t *testing.T) {
	r := NewRate(RateConfig{Scope: per("route"), Limit: rate(100, time.Hour)}, newClock().now)
	var allowed atomic.Int64
	var wg sync.WaitGroup
	for range 8 {
		wg.Go(func() {
			for range 100 {
				if _, ok := r.Allow("k"); ok {
					allowed.Add(1)
				}
			}
		})
	}
	wg.Wait()
	if got := allowed.Load(); got != 100 {
		t.Errorf("%d were allowed, want 100", got)
	}
}

func TestEachLimitOfARouteRefuses(t *testing.T) {
	c := newClock()
	a, b := netip.MustParseAddr("192.0.2.1"), netip.MustParseAddr("192.0.2.2")
	s := newRates([]RateConfig{
		{Scope: per("principal"), Limit: rate(2, time.Hour)},
		{Scope: per("address"), Limit: rate(3, time.Hour)},
		{Scope: per("route"), Limit: rate(4, time.Hour)},
	}, c.now)
	for _, tt := range []struct {
		name, principal string
		client          netip.Addr
		want            bool
	}{
		{"first", "alice", a, true},
		{"second", "alice", a, true},
		{"principal exhausted", "alice", b, false},
		{"third of the address", "bob", a, true},
		{"address exhausted", "carol", a, false},
		{"fourth of the route", "dave", b, true},
		{"route exhausted", "eve", b, false},
	} {
		if _, ok := s.Allow(tt.principal, tt.client); ok != tt.want {
			t.Errorf("%s: got %t, want %t", tt.name, ok, tt.want)
		}
	}
	if _, ok := Rates(nil).Allow("alice", a); !ok {
		t.Error("a route without rates refused")
	}
}

func TestRateConfigFaults(t *testing.T) {
	for _, tt := range []struct {
		name   string
		config RateConfig
		want   string // part of the only fault, "" for none
	}{
		{"good", RateConfig{Scope: per("principal"), Limit: rate(200, time.Second), Burst: 50}, ""},
		{"no burst", RateConfig{Scope: per("route"), Limit: rate(10, time.Minute), Burst: 0}, ""},
		{"no per", RateConfig{Limit: rate(10, time.Minute), Burst: 0}, "rate.per: missing"},
		{"unknown per", RateConfig{Scope: per("ip"), Limit: rate(10, time.Minute), Burst: 0}, `rate.per: "ip": unknown`},
		{"no limit", RateConfig{Scope: per("route"), Limit: setting.Rate{}, Burst: 0}, "rate.limit: missing"},
		{"negative burst", RateConfig{Scope: per("route"), Limit: rate(10, time.Minute), Burst: -1}, `rate.burst: "-1": out of range`},
		{"burst of years", RateConfig{Scope: per("route"), Limit: rate(1, time.Hour), Burst: 100_000}, `rate.burst: "100000": would take`},
	} {
		t.Run(tt.name, func(t *testing.T) {
			var f setting.Faults
			tt.config.Check("rate", &f)
			if tt.want == "" && len(f) > 0 || tt.want != "" && (len(f) != 1 || !strings.Contains(f.Error(), tt.want)) {
				t.Errorf("got %q, want %q", f.Error(), tt.want)
			}
		})
	}
}

func TestLimitsDoNotAllocate(t *testing.T) {
	s := newRates([]RateConfig{{Scope: per("principal"), Limit: rate(100_000, time.Second)}, {Scope: per("address"), Limit: rate(100_000, time.Second)}}, nil)
	a := netip.MustParseAddr("2001:db8::1")
	flight, conns := NewCounters(nil).Lease().InFlight("", 10), NewConns(ConnsConfig{Total: 10, PerAddress: 10})
	models := newRates([]RateConfig{{Scope: per("principal", "model"), Limit: rate(100_000, time.Second)}, {Scope: Scope{Per: []string{"group"}, Groups: []string{"ml"}}, Limit: rate(100_000, time.Second)}}, nil)
	places := NewCounters(nil).Lease().Places("", []InFlightConfig{{Scope: per("principal", "model"), Limit: 4}})
	q := Asked{Principal: "issuer/corp:alice", Client: a, Groups: []string{"ml"}, Model: "bert", Verb: "predict"}
	var taken Taken
	var entered Entered
	take := func(s Rates) {
		if s.Wait(&q, Whole) == nil {
			s.Take(&q, Whole, &taken)
		}
		taken.Forget(0)
	}
	for name, f := range map[string]func(){
		"Rates":    func() { take(s) },
		"models":   func() { take(models) },
		"Places":   func() { places.Enter(&q, Whole, &entered); entered.Leave() },
		"InFlight": func() { flight.Enter(); flight.Leave() },
		"Conns":    func() { conns.Enter(a); conns.Leave(a) },
	} {
		if n := testing.AllocsPerRun(1000, f); n != 0 {
			t.Errorf("%s: %v allocations, want 0", name, n)
		}
	}
}

func BenchmarkRate(b *testing.B) {
	names := make([]string, 10_000)
	for i := range names {
		names[i] = fmt.Sprint("issuer/corp:svc-", i)
	}
	for _, keys := range []int{1, len(names)} {
		b.Run(fmt.Sprint("keys=", keys), func(b *testing.B) {
			r := NewRate(RateConfig{Scope: per("principal"), Limit: rate(1000, time.Second)}, nil)
			b.ReportAllocs()
			b.RunParallel(func(pb *testing.PB) {
				for i := 0; pb.Next(); i++ {
					r.Allow(names[i%keys])
				}
			})
		})
	}
}

func BenchmarkConns(b *testing.B) {
	c := NewConns(ConnsConfig{Total: 10000, PerAddress: 1000})
	a := netip.MustParseAddr("192.0.2.1")
	b.ReportAllocs()
	for b.Loop() {
		c.Enter(a)
		c.Leave(a)
	}
}
