package wire

import (
	"sync/atomic"
	"time"
)

// Lag is how old the time of a [Clock] may be.
const Lag = 250 * time.Millisecond

// Clock tells the time without asking the system, which costs a request more than the
// decision on it: it is that of the last sweep of a [Register], up to [Lag] ago. While
// nothing sweeps it asks the system, as a nil Clock does. It is meant for deadlines of
// seconds. The zero Clock is ready for use. It is safe for concurrent use.
type Clock struct{ at atomic.Pointer[time.Time] }

// Now is the time, or one that was up to Lag ago.
func (c *Clock) Now() time.Time {
	if c != nil {
		if t := c.at.Load(); t != nil {
			return *t
		}
	}
	return time.Now()
}

// After is a deadline at least d and at most d and [Lag] from now, where d is long
// enough for that; else it is exact.
func (c *Clock) After(d time.Duration) time.Time {
	if c == nil || d < 8*Lag {
		return time.Now().Add(d)
	}
	return c.Now().Add(d + Lag)
}

// set keeps the time of a sweep; the zero time says that no other follows.
func (c *Clock) set(t time.Time) {
	if c == nil {
		return
	}
	if t.IsZero() {
		c.at.Store(nil)
		return
	}
	c.at.Store(&t)
}
