package limit

import (
	"strconv"
	"sync"
	"sync/atomic"
	"time"

	"sallyport/proxy/setting"
)

// Counters holds the counts of limits over reloads, so that a reload gives nobody a new
// allowance. It is safe for concurrent use.
//
// A counter belongs to the name of a route or of a caller with limits of its own, which is unique in
// a configuration. The counter of a route's rate also belongs to its limit, so a changed rate starts
// anew. A counter lives as long as a [Lease] uses it.
type Counters struct {
	now   func() time.Time
	start time.Time

	mu       sync.Mutex // guards the fields below
	rates    map[rateKey]*counter[*Rate]
	inFlight map[string]*counter[*atomic.Int64]
	places   map[string]*counter[*placeCounts]
	own      map[string]*counter[*ownCount]
}

// counter is a count and the number of leases that use it.
type counter[T any] struct {
	count T
	users int
}

// rateKey identifies a rate. Rates with equal keys share a counter.
type rateKey struct {
	route, scope string
	limit        setting.Rate
	burst        int
}

// NewCounters returns empty Counters. now is the clock; nil means [time.Now].
func NewCounters(now func() time.Time) *Counters {
	if now == nil {
		now = time.Now
	}
	return &Counters{now: now, start: now(), rates: map[rateKey]*counter[*Rate]{}, inFlight: map[string]*counter[*atomic.Int64]{}, places: map[string]*counter[*placeCounts]{}, own: map[string]*counter[*ownCount]{}}
}

// time returns the time since the counters were made, in nanoseconds.
func (c *Counters) time() int64 { return max(int64(c.now().Sub(c.start)), 0) }

// Lease is the use of counters by one configuration. Its methods are not safe for concurrent
// use, but the limits that they return are.
type Lease struct {
	counters *Counters
	rates    map[rateKey]bool
	inFlight map[string]bool
	places   map[string]bool
	own      map[string]bool
}

// Lease starts a use of the counters. The caller must [Lease.Release] it, whether or not the
// configuration becomes active.
func (c *Counters) Lease() *Lease {
	return &Lease{counters: c, rates: map[rateKey]bool{}, inFlight: map[string]bool{}, places: map[string]bool{}, own: map[string]bool{}}
}

// Rates returns the rates of a route with their current counts. Equal entries count once.
func (l *Lease) Rates(route string, configs []RateConfig) Rates {
	c := l.counters
	c.mu.Lock()
	defer c.mu.Unlock()
	var rates Rates
	listed := map[rateKey]bool{}
	var names names
	for i := range configs {
		config := &configs[i]
		key := rateKey{route: route, scope: config.identity(), limit: config.Limit, burst: config.burst()}
		if listed[key] {
			continue
		}
		listed[key] = true
		counts := use(c.rates, l.rates, key, func() *Rate { return NewRate(*config, c.now) })
		rates = append(rates, newEntry(config, names.of(config.Name, config.Words()), counts))
	}
	return rates
}

// names gives each entry of a route a name of its own.
type names map[string]int

// of returns the name of an entry from the file, or its description in words.
func (n *names) of(name, words string) string {
	if name != "" {
		return name
	}
	if *n == nil {
		*n = names{}
	}
	if (*n)[words]++; (*n)[words] > 1 {
		return words + " #" + strconv.Itoa((*n)[words])
	}
	return words
}

// InFlight limits a route's concurrent requests to max; zero or less means no limit. All
// leases of a route share the count, but each has its own limit. After a reload, requests from
// before it count under the new limit.
func (l *Lease) InFlight(route string, max int) *InFlight {
	c := l.counters
	c.mu.Lock()
	defer c.mu.Unlock()
	count := use(c.inFlight, l.inFlight, route, func() *atomic.Int64 { return new(atomic.Int64) })
	return &InFlight{max: int64(max), count: count}
}

// Release ends the use. Counters without other leases are dropped, but limits already handed
// out still work. A second Release does nothing.
func (l *Lease) Release() {
	c := l.counters
	c.mu.Lock()
	defer c.mu.Unlock()
	release(c.rates, l.rates)
	release(c.inFlight, l.inFlight)
	release(c.places, l.places)
	release(c.own, l.own)
}

// use returns the counter of key, or makes it. It records key in leased, the keys of one
// lease, which is one user of each of its counters.
func use[K comparable, T any](counters map[K]*counter[T], leased map[K]bool, key K, fresh func() T) T {
	one := counters[key]
	if one == nil {
		one = &counter[T]{count: fresh()}
		counters[key] = one
	}
	if !leased[key] {
		leased[key] = true
		one.users++
	}
	return one.count
}

func release[K comparable, T any](counters map[K]*counter[T], leased map[K]bool) {
	for key := range leased {
		if counters[key].users--; counters[key].users == 0 {
			delete(counters, key)
		}
	}
	clear(leased)
}
