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
	burst := c.Burst
	if burst <= 0 {
		burst = min(max(c.Limit.N, 1), maxBurst)
	}
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
	b := Key(a).As16()
	return r.allow(maphash.Bytes(r.seed, b[:]))
}

func (r *Rate) allow(hash uint64) (time.Duration, bool) {
	now := max(int64(r.now().Sub(r.start)), 0)
	wait := r.shards[hash%shards].take(hash, now, r.interval, r.slack)
	return time.Duration(wait), wait == 0
}

// Rates are all rates of a route. The zero Rates limit nothing.
type Rates []*Rate

// NewRates makes a [Rate] of each config.
func NewRates(c []RateConfig, now func() time.Time) Rates {
	var rates Rates
	for i := range c {
		rates = append(rates, NewRate(c[i], now))
	}
	return rates
}

// Allow asks each rate by its kind, in order, and stops at the first that
// refuses; what the ones before it have taken stays taken.
func (s Rates) Allow(principal string, client netip.Addr) (retry time.Duration, ok bool) {
	for _, r := range s {
		switch r.per {
		case "principal":
			retry, ok = r.Allow(principal)
		case "address":
			retry, ok = r.AllowAddr(client)
		default:
			retry, ok = r.Allow("")
		}
		if !ok {
			return retry, false
		}
	}
	return 0, true
}
