package limit

import "sync/atomic"

// InFlight bounds how many requests are in flight at once. Several may share one count
// and each have its own bound, see [Lease.InFlight]. It is safe for concurrent use.
type InFlight struct {
	max   int64
	count *atomic.Int64
}

// NewInFlight allows max at once, with a count of its own; zero or less means that there
// is no bound and requests are only counted.
func NewInFlight(max int) *InFlight { return &InFlight{max: int64(max), count: new(atomic.Int64)} }

// Enter takes a place and says whether there was one. Who got one must [InFlight.Leave].
func (l *InFlight) Enter() bool {
	if n := l.count.Add(1); l.max > 0 && n > l.max {
		l.count.Add(-1)
		return false
	}
	return true
}

// Leave gives a place back.
func (l *InFlight) Leave() { l.count.Add(-1) }

// Len is how many are in flight, by all who share the count.
func (l *InFlight) Len() int { return int(l.count.Load()) }
