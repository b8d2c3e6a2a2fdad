package limit

import (
	"testing"
	"time"
)

func TestOwnLimitsCountOneCaller(t *testing.T) {
	c := newClock()
	lease := NewCounters(c.now).Lease()
	limits := OwnConfig{Rate: rate(2, time.Second), Burst: 2, InFlight: 1}
	attacker, victim := lease.Own("attacker", limits), lease.Own("victim", limits)
	for i := range 100 {
		if retry, ok := attacker.Take(); ok != (i < 2) || !ok && retry != 500*time.Millisecond {
			t.Fatalf("request %d: %t, retry in %s", i, ok, retry)
		}
	}
	if _, ok := victim.Take(); !ok {
		t.Error("another caller's requests count")
	}
	if !attacker.InFlight().Enter() || attacker.InFlight().Enter() || !victim.InFlight().Enter() {
		t.Error("want one place in flight for each")
	}
	attacker.Give(0)
	if _, ok := attacker.Take(); !ok {
		t.Error("what was given back is not there")
	}
	c.pass(500 * time.Millisecond)
	if _, ok := attacker.Take(); !ok {
		t.Error("nothing came back after the time of one request")
	}
	free := lease.Own("free", OwnConfig{})
	for range 1000 {
		if _, ok := free.Take(); !ok || !free.InFlight().Enter() {
			t.Fatal("refused without a limit")
		}
	}
}

// TestOwnLimitsKeepCountingOverReloads also changes the rate, which gives no new allowance and does
// not make the caller wait for the old one.
func TestOwnLimitsKeepCountingOverReloads(t *testing.T) {
	c := newClock()
	counters := NewCounters(c.now)
	old := counters.Lease()
	slow := old.Own("acme", OwnConfig{Rate: rate(10, time.Hour), InFlight: 5})
	passed := 0
	for range 100 {
		if _, ok := slow.Take(); ok {
			passed++
		}
	}
	for range 5 {
		slow.InFlight().Enter()
	}
	next := counters.Lease()
	same := next.Own("acme", OwnConfig{Rate: rate(10, time.Hour), InFlight: 3})
	if _, ok := same.Take(); ok || passed != 10 || same.InFlight().Enter() {
		t.Errorf("%d passed, and the next configuration begins anew", passed)
	}
	last := counters.Lease()
	fast := last.Own("acme", OwnConfig{Rate: rate(10, time.Second)})
	if retry, ok := fast.Take(); ok || retry > 100*time.Millisecond {
		t.Errorf("a changed rate: %t, retry in %s; want at most the time of one request", ok, retry)
	}
	for _, l := range []*Lease{old, next, last} {
		l.Release()
	}
	if len(counters.own) != 0 {
		t.Error("counts are left without a lease")
	}
}
