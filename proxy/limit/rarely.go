package limit

import (
	"sync/atomic"
	"time"
)

// Rarely permits something at most once in a time, such as a warning about what clients can repeat
// at will. The zero Rarely permits the first. It is safe for concurrent use.
type Rarely struct{ next atomic.Int64 } // Unix nanoseconds

// Allow reports whether it is permitted now. If so, the next is permitted after pause.
func (r *Rarely) Allow(now time.Time, pause time.Duration) bool {
	next, at := r.next.Load(), now.UnixNano()
	return (next == 0 || at >= next) && r.next.CompareAndSwap(next, at+int64(pause))
}
