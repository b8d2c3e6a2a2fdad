package limit

import (
	"sync"
	"sync/atomic"
	"time"

	"sallyport/proxy/setting"
)

// Counters keep what limits have counted while configurations come and go, so that a
// reload gives nobody a new allowance. They are safe for concurrent use.
//
// A counter belongs to a route by its name, which no other route of the configuration
// has. That of a rate belongs to what is limited and how, too: a rate that changes
// begins anew. A counter lives as long as some [Lease] uses it.
type Counters struct {
	now func() time.Time

	mu       sync.Mutex // guards all below
	rates    map[rateKey]*counter[*Rate]
	inFlight map[string]*counter[*atomic.Int64]
}

// counter is a count and how many leases use it.
type counter[T any] struct {
	count T
	users int
}

// rateKey tells rates apart. Those with equal keys limit the same in the same way.
type rateKey struct {
	route, per string
	limit      setting.Rate
	burst      int
}

// NewCounters makes Counters that have counted nothing. now is the clock; nil means
// [time.Now].
func NewCounters(now func() time.Time) *Counters {
	return &Counters{now: now, rates: map[rateKey]*counter[*Rate]{}, inFlight: map[string]*counter[*atomic.Int64]{}}
}

// Lease is one configuration's use of counters. Its methods are not safe for concurrent
// use; what they return is.
type Lease struct {
	counters *Counters
	rates    map[rateKey]bool
	inFlight map[string]bool
}

// Lease begins a use of the counters. Who has it must [Lease.Release] it, whether the
// configuration is taken or refused.
func (c *Counters) Lease() *Lease {
	return &Lease{counters: c, rates: map[rateKey]bool{}, inFlight: map[string]bool{}}
}

// Rates are the rates of a route, with what has been counted so far. Entries that say the
// same count once.
func (l *Lease) Rates(route string, configs []RateConfig) Rates {
	c := l.counters
	c.mu.Lock()
	defer c.mu.Unlock()
	var rates Rates
	listed := map[rateKey]bool{}
	for _, config := range configs {
		key := rateKey{route: route, per: config.Per, limit: config.Limit, burst: config.burst()}
		if listed[key] {
			continue
		}
		listed[key] = true
		one := use(c.rates, l.rates, key, func() *Rate { return NewRate(config, c.now) })
		rates = append(rates, one)
	}
	return rates
}

// InFlight bounds a route's requests in flight to max at once; zero or less: no bound.
// The count is shared with all other leases of the route, the bound is not: after a
// reload, what began before it counts under the new bound.
func (l *Lease) InFlight(route string, max int) *InFlight {
	c := l.counters
	c.mu.Lock()
	defer c.mu.Unlock()
	count := use(c.inFlight, l.inFlight, route, func() *atomic.Int64 { return new(atomic.Int64) })
	return &InFlight{max: int64(max), count: count}
}

// Release ends the use. Counters that no other lease uses are forgotten; who still has
// one may go on with it. A second Release does nothing.
func (l *Lease) Release() {
	c := l.counters
	c.mu.Lock()
	defer c.mu.Unlock()
	release(c.rates, l.rates)
	release(c.inFlight, l.inFlight)
}

// use finds the counter of key, or makes it, and enters key into held, the keys of a
// lease, each of which is one user of its counter.
func use[K comparable, T any](counters map[K]*counter[T], held map[K]bool, key K, fresh func() T) T {
	one := counters[key]
	if one == nil {
		one = &counter[T]{count: fresh()}
		counters[key] = one
	}
	if !held[key] {
		held[key] = true
		one.users++
	}
	return one.count
}

func release[K comparable, T any](counters map[K]*counter[T], held map[K]bool) {
	for key := range held {
		if counters[key].users--; counters[key].users == 0 {
			delete(counters, key)
		}
	}
	clear(held)
}
