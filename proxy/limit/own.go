package limit

import (
	"sync/atomic"
	"time"

	"sallyport/proxy/setting"
)

// OwnConfig holds the limits that one caller has besides those of routes.
type OwnConfig struct {
	Rate     setting.Rate // zero: none
	Burst    int          // as in [RateConfig]
	InFlight int          // zero: no limit
}

// Own are the limits of one caller, see [Lease.Own]. Only that caller's requests count. It is safe
// for concurrent use.
//
// Callers number in the thousands, so each has two numbers rather than a table. The rate is
// limited as by [Rate].
type Own struct {
	rate            setting.Rate
	burst           int
	inFlight        InFlight
	interval, slack int64 // zero: no rate
	counters        *Counters
	count           *ownCount
}

// ownCount is what outlives a configuration.
type ownCount struct {
	full     atomic.Int64 // when the allowance is full again, as of [Counters.time]
	inFlight atomic.Int64
}

// Own returns the limits of the caller with this name. All leases share the counts of a name, and
// each has its own limits. If the rate changes, what was used stays used.
func (l *Lease) Own(name string, c OwnConfig) *Own {
	all := l.counters
	all.mu.Lock()
	defer all.mu.Unlock()
	o := &Own{rate: c.Rate, counters: all, count: use(all.own, l.own, name, func() *ownCount { return new(ownCount) })}
	o.inFlight = InFlight{max: int64(c.InFlight), count: &o.count.inFlight}
	if !c.Rate.IsZero() {
		rate := RateConfig{Limit: c.Rate, Burst: c.Burst}
		o.interval, o.slack = rate.cell()
		o.burst = rate.burst()
	}
	return o
}

// Take takes one request from the rate. If there is none left, it takes nothing and returns the
// time until the next one.
func (o *Own) Take() (retry time.Duration, ok bool) {
	if o.interval == 0 {
		return 0, true
	}
	for {
		now, at := o.counters.time(), o.count.full.Load()
		// An earlier configuration may have had a longer time to refill.
		full := min(max(at, now), now+o.slack+o.interval)
		if ahead := full - now; ahead > o.slack {
			return time.Duration(ahead - o.slack), false
		}
		if o.count.full.CompareAndSwap(at, full+o.interval) {
			return 0, true
		}
	}
}

// Give undoes a Take of this long ago that has succeeded, but for the time that has passed: see
// [Taken.Give].
func (o *Own) Give(ago time.Duration) {
	if left := o.interval - int64(ago); left > 0 {
		o.count.full.Add(-left)
	}
}

// Over describes the rate, which refuses a request for some time. who has it.
func (o *Own) Over(retry time.Duration, who string) *Over {
	name := o.rate.String() + " per " + who
	return &Over{Words: o.rate.String(), Retry: retry, Quota: Quota{Policy: ratePolicy(name, o.rate, o.burst), State: rateState(name, 0, retry)}}
}

// InFlight returns the limit of concurrent requests.
func (o *Own) InFlight() *InFlight { return &o.inFlight }
