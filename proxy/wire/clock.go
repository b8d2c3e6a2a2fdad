package wire

import (
	"sync/atomic"
	"time"
)

// Lag bounds how old the time of a [Clock] may be.
const Lag = 250 * time.Millisecond

// Clock returns the time of the last sweep of a [Register], up to [Lag] ago, without a system call:
// that call costs a request more than its policy decision. While no register sweeps, and if the
// Clock is nil, it asks the system. It suits deadlines of seconds. The zero Clock is ready for use
// and safe for concurrent use.
type Clock struct{ at atomic.Pointer[time.Time] }

// Now returns the current time or one up to [Lag] earlier.
func (c *Clock) Now() time.Time {
	if c != nil {
		if t := c.at.Load(); t != nil {
			return *t
		}
	}
	return time.Now()
}

// After returns a deadline between d and d plus [Lag] from now. If d is too short for that, the
// deadline is exact.
func (c *Clock) After(d time.Duration) time.Time {
	if c == nil || d < 8*Lag {
		return time.Now().Add(d)
	}
	return c.Now().Add(d + Lag)
}

// set stores the time of a sweep; the zero time means that no sweep follows.
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
