package wire

import (
	"os"
	"time"
)

// Late is the error of a wait for the server that took too long. It names what did not happen in
// time. errors.Is reports that it is [os.ErrDeadlineExceeded].
type Late string

const (
	LateConnect Late = "no connection"     // the wait for a connection
	LateHead    Late = "no answer"         // [Request.Head] has passed
	LateContent Late = "no content"        // [Request.Idle], or [Request.Pause], has passed
	LateWrite   Late = "content not taken" // [Request.Idle] has passed while sending
	LateEnd     Late = "not done"          // [Request.Limit] has passed
)

func (l Late) Error() string { return string(l) + " in time" }

// Is reports whether target is [os.ErrDeadlineExceeded].
func (l Late) Is(target error) bool { return target == os.ErrDeadlineExceeded }

// Or returns [LateEnd] if limit has passed, and l otherwise. A zero limit never passes.
func (l Late) Or(limit time.Time) Late {
	if !limit.IsZero() && !time.Now().Before(limit) {
		return LateEnd
	}
	return l
}
