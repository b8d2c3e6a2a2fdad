package limit

import (
	"hash/maphash"
	"math"
	"net/netip"
	"time"

	"sallyport/proxy/setting"
)

// RateConfig is one entry of `limits.rate` of a route.
type RateConfig struct {
	// Per selects who shares an allowance: each "principal" (all proofs of one name under
	// principals together), each client "address" (IPv6: each /64), or the whole "route".
	Per string `yaml:"per"`
	// Limit is the request rate, such as 200/s.
	Limit setting.Rate `yaml:"limit"`
	// Burst is how many requests may arrive at once after a quiet time. Default: the number in
	// Limit.
	Burst int `yaml:"burst"`
}

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
	c.Limit.CheckBurst(path+".burst", c.Burst, f)
}

// burst returns Burst or its default.
func (c *RateConfig) burst() int {
	if c.Burst > 0 {
		return c.Burst
	}
	return min(max(c.Limit.N, 1), setting.MaxBurst)
}

// cell returns the algorithm's parameters in nanoseconds: the time for one request, and how far a
// key's time may run ahead of now. A missing rate allows one request only.
func (c *RateConfig) cell() (interval, slack int64) {
	if c.Limit.N <= 0 || c.Limit.Per <= 0 {
		return math.MaxInt64 / 4, 0
	}
	interval = max(int64(c.Limit.Per)/int64(c.Limit.N), 1)
	return interval, min(int64(c.burst()-1), int64(setting.MaxRefill)/interval) * interval
}

// Rate limits by the generic cell rate algorithm (GCRA): each key has an allowance that
// refills evenly. It is safe for concurrent use.
//
// A key with a full allowance needs no entry, so only such entries are reused. Traffic under many
// keys therefore never resets another key's count. If all entries of a set are in use, the table
// grows. At its full size, the remaining keys of a set share one allowance. A client with very
// many keys thus gets less in the end, and keys with an entry are not affected.
//
// Keys are identified by a 64-bit hash with a secret seed.
type Rate struct {
	per      string
	limit    setting.Rate
	interval int64 // nanoseconds for one request
	slack    int64 // how far a key's time may run ahead of now
	now      func() time.Time
	start    time.Time
	seed     maphash.Seed
	shards   [shards]shard
}

// NewRate returns a Rate for a config that passed [RateConfig.Check]. now is the clock; nil
// means [time.Now].
func NewRate(c RateConfig, now func() time.Time) *Rate {
	if now == nil {
		now = time.Now
	}
	r := &Rate{per: c.Per, limit: c.Limit, now: now, start: now(), seed: maphash.MakeSeed()}
	r.interval, r.slack = c.cell()
	for i := range r.shards {
		r.shards[i].sets = make([]set, 1)
	}
	return r
}

// Allow takes one request from the allowance of key. If there is none left, it takes nothing
// and returns the time until the next one.
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

// hash returns the hash of the key under which r counts a request.
func (r *Rate) hash(principal string, client netip.Addr) uint64 {
	switch r.per {
	case "principal":
		return maphash.String(r.seed, principal)
	case "address":
		return r.hashAddr(client)
	}
	return maphash.String(r.seed, "")
}

// time returns the time since the start of the table, in nanoseconds.
func (r *Rate) time() int64 { return max(int64(r.now().Sub(r.start)), 0) }

// wait returns how long a key must wait for a request; zero if it need not wait.
func (r *Rate) wait(hash uint64) time.Duration {
	return time.Duration(r.shards[hash%shards].wait(hash, r.time(), r.slack))
}

// take takes a request from the allowance of a key, or returns how long to wait. overflow
// reports that the key has no entry and used the common allowance of its set.
func (r *Rate) take(hash uint64) (wait time.Duration, overflow bool) {
	n, overflow := r.shards[hash%shards].take(hash, r.time(), r.interval, r.slack)
	return time.Duration(n), overflow
}

// give undoes take.
func (r *Rate) give(hash uint64, overflow bool) {
	r.shards[hash%shards].give(hash, r.interval, overflow)
}

// Rates are the rates of a route, see [Lease.Rates]. The zero Rates limit nothing.
type Rates []*Rate

// Allow takes one request from each rate: by principal, client address or route. If one of
// them refuses, nothing is taken, and retry is the time until all allow it.
func (s Rates) Allow(principal string, client netip.Addr) (retry time.Duration, ok bool) {
	if len(s) > 1 {
		// Check all rates before taking from any. Otherwise a flood of refused requests
		// would briefly take allowances, and others would be refused meanwhile.
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

// Tightest describes the rate under which a caller must wait longest, such as "200/s per principal";
// "" if there is no rate. It takes nothing.
func (s Rates) Tightest(principal string, client netip.Addr) string {
	var longest time.Duration
	var tightest *Rate
	for _, r := range s {
		if wait := r.wait(r.hash(principal, client)); tightest == nil || wait > longest {
			longest, tightest = wait, r
		}
	}
	if tightest == nil {
		return ""
	}
	return tightest.limit.String() + " per " + tightest.per
}

// take takes from each rate. If a concurrent request was faster and one refuses, it returns
// the wait and undoes the others.
func (s Rates) take(principal string, client netip.Addr) time.Duration {
	if len(s) == 0 {
		return 0
	}
	hash := s[0].hash(principal, client)
	wait, overflow := s[0].take(hash)
	if wait > 0 {
		return wait
	}
	if wait = s[1:].take(principal, client); wait > 0 {
		s[0].give(hash, overflow)
	}
	return wait
}
