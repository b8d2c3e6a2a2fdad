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
	Scope `yaml:",inline"`
	// Name is the name of the entry in the RateLimit and RateLimit-Policy fields of answers. Default:
	// the limit and per, such as "200/s per principal".
	Name string `yaml:"name"`
	// Limit is the request rate, such as 200/s.
	Limit setting.Rate `yaml:"limit"`
	// Burst is how many requests may arrive at once after a quiet time. Default: the number in
	// Limit.
	Burst int `yaml:"burst"`
}

// Check records the faults of the entry at path.
func (c *RateConfig) Check(path string, f *setting.Faults) {
	c.Scope.check(path, f)
	checkName(path+".name", c.Name, f)
	if c.Limit.IsZero() {
		f.Add(path+".limit", "", "missing", "write a rate such as 200/s, 10/m or 1000/h")
	}
	c.Limit.CheckBurst(path+".burst", c.Burst, f)
}

// Words describes the rate and who shares it, such as "200/s per principal".
func (c *RateConfig) Words() string { return c.Limit.String() + " per " + c.Scope.words() }

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
	interval int64 // nanoseconds for one request
	slack    int64 // how far a key's time may run ahead of now
	now      func() time.Time
	start    time.Time
	seed     maphash.Seed
	shards   [shards]shard
	// begun limits how many keys a caller may begin to use, if keys hold names that callers choose;
	// else nil. Otherwise one caller could fill the table.
	begun *Rate
}

// maxBegun is how many models with an entry in the table one caller may have begun to use. The
// caller's further models share one allowance.
const maxBegun = 256

// NewRate returns a Rate for a config that passed [RateConfig.Check]. now is the clock; nil
// means [time.Now].
func NewRate(c RateConfig, now func() time.Time) *Rate {
	interval, slack := c.cell()
	r := newRate(interval, slack, now)
	if c.by("model") {
		// An entry lives until its allowance is full again.
		refill := min(interval+slack, int64(setting.MaxRefill)/maxBegun)
		r.begun = newRate(refill, (maxBegun-1)*refill, now)
	}
	return r
}

func newRate(interval, slack int64, now func() time.Time) *Rate {
	if now == nil {
		now = time.Now
	}
	r := &Rate{interval: interval, slack: slack, now: now, start: now(), seed: maphash.MakeSeed()}
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
	return r.allow(hashAddr(r.seed, a))
}

func (r *Rate) allow(hash uint64) (time.Duration, bool) {
	wait, _ := r.take(hash)
	return wait, wait == 0
}

// time returns the time since the start of the table, in nanoseconds.
func (r *Rate) time() int64 { return max(int64(r.now().Sub(r.start)), 0) }

// wait returns how long a key must wait for a request; zero if it need not wait.
func (r *Rate) wait(hash uint64) time.Duration {
	return time.Duration(max(r.ahead(hash)-r.slack, 0))
}

// ahead returns how far the time of a key runs ahead of now.
func (r *Rate) ahead(hash uint64) int64 { return r.shards[hash%shards].ahead(hash, r.time()) }

// take takes a request from the allowance of a key, or returns how long to wait. overflow
// reports that the key has no entry and used the common allowance of its set.
func (r *Rate) take(hash uint64) (wait time.Duration, overflow bool) {
	n, overflow := r.shards[hash%shards].take(hash, r.time(), r.interval, r.slack)
	return time.Duration(n), overflow
}

// give undoes a take of this many nanoseconds ago, see [Taken.Give].
func (r *Rate) give(hash uint64, overflow bool, ago int64) {
	if left := r.interval - ago; left > 0 {
		r.shards[hash%shards].give(hash, left, overflow)
	}
}
