package limit

import (
	"fmt"
	"testing"
	"time"
)

func TestRateKeepsCountingOverReloads(t *testing.T) {
	c := newClock()
	counters := NewCounters(c.now)
	limits := []RateConfig{{Scope: per("principal"), Limit: rate(10, time.Hour)}}
	old := counters.Lease()
	passed := 0
	for range 100 {
		next := counters.Lease()
		rates := next.Rates("churn", limits)
		old.Release()
		old = next
		if _, ok := rates.Allow("alice", client); ok {
			passed++
		}
	}
	if passed != 10 {
		t.Errorf("%d passed over 100 reloads, want the 10 of one burst", passed)
	}
}

func TestCountersAreSeparateForEachRouteAndLimit(t *testing.T) {
	lease := NewCounters(nil).Lease()
	base := RateConfig{Scope: per("principal"), Limit: rate(10, time.Hour)}
	first := lease.Rates("a", []RateConfig{base})[0].Rate
	again := lease.Rates("a", []RateConfig{{Scope: per("principal"), Limit: rate(10, time.Hour), Burst: 10}})[0].Rate
	if again != first {
		t.Error("an explicit default burst makes another rate")
	}
	for name, other := range map[string]Rates{
		"different route":  lease.Rates("b", []RateConfig{base}),
		"different per":    lease.Rates("a", []RateConfig{{Scope: per("address"), Limit: base.Limit}}),
		"different limit":  lease.Rates("a", []RateConfig{{Scope: per("principal"), Limit: rate(20, time.Hour)}}),
		"different groups": lease.Rates("a", []RateConfig{{Scope: Scope{Per: base.Per, Groups: []string{"a"}}, Limit: base.Limit}}),
		"different burst":  lease.Rates("a", []RateConfig{{Scope: per("principal"), Limit: base.Limit, Burst: 3}}),
	} {
		if other[0].Rate == first {
			t.Errorf("%s: shares the count", name)
		}
	}
	if n := len(lease.Rates("a", []RateConfig{base, base})); n != 1 {
		t.Errorf("two equal entries make %d rates, want 1", n)
	}
}

func TestChangedLimitCountsRequestsInFlight(t *testing.T) {
	counters := NewCounters(nil)
	before, after := counters.Lease(), counters.Lease()
	wide := before.InFlight("churn", 10)
	for range 5 {
		if !wide.Enter() {
			t.Fatal("refused below the limit")
		}
	}
	narrow := after.InFlight("churn", 3)
	before.Release()
	if narrow.Enter() || narrow.Len() != 5 {
		t.Errorf("%d in flight, and one more was admitted above the limit of 3", narrow.Len())
	}
	for range 3 {
		wide.Leave() // requests of the previous configuration
	}
	if !narrow.Enter() || narrow.Enter() {
		t.Error("two are in flight under a limit of 3; want exactly one more")
	}
	if after.InFlight("tf", 1).Len() != 0 {
		t.Error("another route counts them")
	}
}

func TestCountersOfRemovedRoutesAreDropped(t *testing.T) {
	counters := NewCounters(nil)
	var leases []*Lease // the current one and those still draining
	for i := range 1000 {
		lease := counters.Lease()
		for _, route := range []string{"stays", fmt.Sprint("of reload ", i)} {
			lease.Rates(route, []RateConfig{{Scope: per("route"), Limit: rate(i+1, time.Second)}})
			lease.InFlight(route, i)
			lease.Places(route, []InFlightConfig{{Scope: per("principal"), Limit: i + 1}})
		}
		if leases = append(leases, lease); len(leases) > 3 {
			leases[0].Release()
			leases[0].Release() // the second does nothing
			leases = leases[1:]
		}
		if n := len(counters.rates) + len(counters.inFlight) + len(counters.places); n > 3*2+2*(3+1) {
			t.Fatalf("%d counters after %d reloads, want those of 3 configurations", n, i)
		}
	}
	for _, lease := range leases {
		lease.Release()
	}
	if n := len(counters.rates) + len(counters.inFlight) + len(counters.places); n != 0 {
		t.Errorf("%d counters are left without a lease", n)
	}
}

func TestBytesCanBeResized(t *testing.T) {
	b := NewBytes(100)
	if !b.Take(80) {
		t.Fatal("refused below the budget")
	}
	b.Resize(50)
	if b.Take(1) || b.Left() != -30 || b.Total() != 50 {
		t.Errorf("after the budget was halved: left %d of %d, want -30 of 50, and nothing more", b.Left(), b.Total())
	}
	b.Give(80)
	if !b.Take(50) || b.Take(1) {
		t.Error("after all was returned, want exactly the new budget")
	}
}
