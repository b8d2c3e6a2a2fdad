package exchange

import (
	"sync"
	"time"

	"sallyport/proxy/wire"
)

// idleDeadline is a deadline shared by many reads or writes. Moving it costs a timer, so it moves
// at most once a second.
//
// It is safe for concurrent use.
type idleDeadline struct {
	idle   time.Duration // zero: no bound
	name   string        // of the setting, for causes
	until  time.Time     // the deadline is never behind it; zero: no bound
	stream wire.Stream
	clock  *wire.Clock
	writes bool // a write deadline, else a read deadline

	mu     sync.Mutex // guards the fields below
	last   time.Time
	lifted bool
}

func (u *idleDeadline) set(t time.Time) error {
	if u.writes {
		return u.stream.SetWriteDeadline(t)
	}
	return u.stream.SetReadDeadline(t)
}

// extend moves the deadline to at least idle from now, but not beyond until. It returns an
// [*ending] if until has passed.
func (u *idleDeadline) extend() error {
	if u.idle <= 0 && u.until.IsZero() {
		return nil
	}
	now := u.clock.Now()
	if u.passed(now) {
		return expired()
	}
	u.mu.Lock()
	defer u.mu.Unlock()
	if u.lifted || now.Sub(u.last) < time.Second {
		return nil
	}
	u.last = now
	by := u.until
	if u.idle > 0 {
		by = now.Add(u.idle + time.Second + wire.Lag)
	}
	if !u.until.IsZero() && u.until.Before(by) {
		by = u.until
	}
	return u.set(by)
}

// passed reports whether until has passed.
func (u *idleDeadline) passed(now time.Time) bool { return !u.until.IsZero() && !now.Before(u.until) }

// lift removes the deadline for good. On some engines a read deadline that passes after the body's
// end would look as if the client had left.
func (u *idleDeadline) lift() {
	u.mu.Lock()
	defer u.mu.Unlock()
	u.lifted = true
	if !u.last.IsZero() {
		_ = u.set(time.Time{})
	}
}
