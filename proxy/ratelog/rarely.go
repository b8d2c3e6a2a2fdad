package ratelog

import (
	"sync/atomic"
	"time"
)

// Rarely permits a single log line at most once in a long time. [Log] is for lines of several kinds.
// The zero Rarely permits the first line. It is safe for concurrent use.
type Rarely struct{ next atomic.Int64 } // Unix nanoseconds

// Allow reports whether the line may be logged now. If so, the next may be logged after pause.
func (r *Rarely) Allow(now time.Time, pause time.Duration) bool {
	next, at := r.next.Load(), now.UnixNano()
	return (next == 0 || at >= next) && r.next.CompareAndSwap(next, at+int64(pause))
}
