package limit

import (
	"strconv"
	"sync/atomic"
)

// InFlight limits concurrent requests; [Lease.InFlight] returns one. Several may share one count with
// different limits. It is safe for concurrent use.
type InFlight struct {
	max   int64
	count *atomic.Int64
}

// Enter admits a request if there are fewer than max. Each success needs one [InFlight.Leave].
func (l *InFlight) Enter() bool {
	if n := l.count.Add(1); l.max > 0 && n > l.max {
		l.count.Add(-1)
		return false
	}
	return true
}

// Over describes the limit, whose places are all taken. who shares them.
func (l *InFlight) Over(who string) *Over {
	words := strconv.FormatInt(l.max, 10) + " in flight"
	return &Over{Words: words, Retry: retryPlace, Quota: placesQuota(words+" per "+who, int(l.max))}
}

// Leave ends a request.
func (l *InFlight) Leave() { l.count.Add(-1) }

// Max returns the limit; zero or less means none.
func (l *InFlight) Max() int { return int(l.max) }

// Len returns the number of requests in flight under the shared count.
func (l *InFlight) Len() int { return int(l.count.Load()) }
