package limit

import (
	"hash/maphash"
	"math"
	"net/netip"
	"strconv"
	"time"

	"sallyport/proxy/setting"
)

// RateConfig is one entry of `limits.rate` of a route.
type RateConfig struct {
	// Per says who has the allowance: each "principal", each client "address"
	// (IPv6: each /64), or the "route" as a whole.
	Per string `yaml:"per"`
	// Limit is how many requests, such as 200/s.
	Limit setting.Rate `yaml:"limit"`
	// Burst is how many may come at once after a quiet time. Zero means the
	// number in Limit.
	Burst int `yaml:"burst"`
}

const (
	maxBurst = 1_000_000
	// maxRefill bounds how long a whole burst takes to come back; it keeps sums
	// of times within an int64.
	maxRefill = 366 * 24 * time.Hour
)

// Check records the faults of the entry at path.
func (c *RateConfig) Check(path string, f *setting.Faults) {
	switch c.Per {
	case "principal", "address", "route":
	case "":
		f.Add(path+".per", "", "missing", "write principal, address or route")
	default:
		f.Add(path+".per", c.Per, "unknown", "write principal, address or route")
	}
	if c.Limit.IsZero() {
		f.Add(path+".limit", "", "missing", "write a rate such as 200/s, 10/m or 1000/h")
	}
	if c.Burst < 0 || c.Burst > maxBurst {
		f.Add(path+".burst", strconv.Itoa(c.Burst), "out of range", "write a number from 1 to 1000000, or leave it out")
	} else if n := int64(c.Limit.N); n > 0 && int64(c.Burst) > int64(maxRefill)/max(int64(c.Limit.Per)/n, 1) {
		f.Add(path+".burst", strconv.Itoa(c.Burst), "would take more than a year to come back", "write a smaller number")
	}
}

// burst is Burst, or what it means to leave it out.
func (c *RateConfig) burst() int {
	if c.Burst > 0 {
		return c.Burst
	}
	return min(max(c.Limit.N, 1), maxBurst)
}

// Rate limits by the generic cell rate algorithm (GCRA): each key has its
// allowance, which refills evenly. It is safe for concurrent use.
//
// A key that has its full allowance needs no memory, so such keys make room for
// others, and only such: traffic under many names never takes another's count
// away. When all places of a key's set are taken by keys with less than full
// allowance, the table grows; when it has grown to its full size, keys without
// a place share one allowance for each set. Who sends under very many names
// therefore gets less in the end, while whoever has a place keeps it.
//
// Keys are told apart by a 64-bit hash with a secret seed.
type Rate struct {
	per      string
	interval int64 // nanoseconds for one request
	slack    int64 // how far ahead of now a key's time may run
	now      func() time.Time
	start    time.Time
	seed     maphash.Seed
	shards   [shards]shard
}

// NewRate makes a Rate of a config that [RateConfig.Check] found right. now is
// the clock; nil means [time.Now].
func NewRate(c RateConfig, now func() time.Time) *Rate {
	if now == nil {
		now = time.Now
	}
	burst := c.burst()
	// A rate that was never given allows nothing more than its first burst of one.
	interval := int64(math.MaxInt64 / 4)
	if c.Limit.N > 0 && c.Limit.Per > 0 {
		interval = max(int64(c.Limit.Per)/int64(c.Limit.N), 1)
	} else {
		burst = 1
	}
	r := &Rate{per: c.Per, interval: interval, now: now, start: now(), seed: maphash.MakeSeed()}
	r.slack = min(int64(burst-1), int64(maxRefill)/interval) * interval
	for i := range r.shards {
		r.shards[i].sets = make([]set, 1)
	}
	return r
}

// Allow takes one request from key's allowance. If there is none left, it takes
// nothing and returns after what time there will be.
func (r *Rate) Allow(key string) (retry time.Duration, ok bool) {
	return r.allow(maphash.String(r.seed, key))
}

// AllowAddr is [Rate.Allow] for the client at a, by its [Key].
func (r *Rate) AllowAddr(a netip.Addr) (retry time.Duration, ok bool) {
	return r.allow(r.hashAddr(a))
}

func (r *Rate) allow(hash uint64) (time.Duration, bool) {
	wait, _ := r.take(hash)
	return wait, wait == 0
}

func (r *Rate) hashAddr(a netip.Addr) uint64 {
	b := Key(a).As16()
	return maphash.Bytes(r.seed, b[:])
}

// hash is that of the key under which r counts a request.
func (r *Rate) hash(principal string, client netip.Addr) uint64 {
	switch r.per {
	case "principal":
		return maphash.String(r.seed, principal)
	case "address":
		return r.hashAddr(client)
	}
	return maphash.String(r.seed, "")
}

// time is the present as the table counts it.
func (r *Rate) time() int64 { return max(int64(r.now().Sub(r.start)), 0) }

// wait is how long a key has to wait for a request; zero if it need not.
func (r *Rate) wait(hash uint64) time.Duration {
	return time.Duration(r.shards[hash%shards].wait(hash, r.time(), r.slack))
}

// take takes a request from the allowance of a key or returns how long to wait for it.
// shared says that it came from the allowance of keys without a place.
func (r *Rate) take(hash uint64) (wait time.Duration, shared bool) {
	n, shared := r.shards[hash%shards].take(hash, r.time(), r.interval, r.slack)
	return time.Duration(n), shared
}

// give gives back what take took.
func (r *Rate) give(hash uint64, shared bool) {
	r.shards[hash%shards].give(hash, r.interval, shared)
}

// Rates are all rates of a route. The zero Rates limit nothing.
type Rates []*Rate

// NewRates makes a [Rate] of each config, with counts of their own.
func NewRates(c []RateConfig, now func() time.Time) Rates {
	return NewCounters(now).Lease().Rates("", c)
}

// Allow takes one request from the allowance of each rate: the principal's, the client
// address's or the route's. If one of them has none left, nothing is taken from any, and
// retry is after what time all will have one.
func (s Rates) Allow(principal string, client netip.Addr) (retry time.Duration, ok bool) {
	if len(s) > 1 {
		// Refused requests are recognized before they take anything: they may be many,
		// and what they hold, if only until they give it back, others are refused for.
		for _, r := range s {
			retry = max(retry, r.wait(r.hash(principal, client)))
		}
		if retry > 0 {
			return retry, false
		}
	}
	retry = s.take(principal, client)
	return retry, retry == 0
}

// take takes from each rate, or returns how long to wait for the first that another
// request came to before, and gives back what those before it gave.
func (s Rates) take(principal string, client netip.Addr) time.Duration {
	if len(s) == 0 {
		return 0
	}
	hash := s[0].hash(principal, client)
	wait, shared := s[0].take(hash)
	if wait > 0 {
		return wait
	}
	if wait = s[1:].take(principal, client); wait > 0 {
		s[0].give(hash, shared)
	}
	return wait
}
