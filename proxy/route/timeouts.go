package route

import (
	"math"
	"strconv"
	"time"

	"sallyport/proxy/setting"
	"sallyport/proxy/upstream"
)

// NewTimeouts compiles a section that has a value for every key.
func NewTimeouts(c TimeoutsConfig) upstream.Timeouts {
	bound := func(t setting.Timeout) time.Duration {
		if t == setting.Never {
			return 0
		}
		return t.D()
	}
	return upstream.Timeouts{Connect: c.Connect.D(), Head: bound(c.Head), Idle: bound(c.Idle), Total: bound(c.Total)}
}

// CallTimeouts says which timeouts of gRPC calls the configuration does not set, so that the caller's
// deadline applies. A call that waits for an event may be silent for long.
type CallTimeouts struct{ Head, Idle bool }

// NewCallTimeouts returns which timeouts c does not set. c has no defaults.
func NewCallTimeouts(c TimeoutsConfig) CallTimeouts {
	return CallTimeouts{Head: c.Head == 0, Idle: c.Idle == 0}
}

const (
	callTime = time.Hour // for a call without a deadline
	// maxCallTime limits the deadline of a call.
	maxCallTime = 24 * time.Hour
	// callGrace lets the server end a call at its deadline, with its own status, before the gateway
	// does.
	callGrace = 5 * time.Second
)

// Timeouts returns the timeouts of a gRPC call: t is those of the route, and the caller's deadline
// replaces the ones that c names. deadline is the call's grpc-timeout; if it is missing or malformed,
// an hour applies. Idle stays as it is, to limit each write: a peer that does not read is not waiting
// for an event.
func (c CallTimeouts) Timeouts(t upstream.Timeouts, deadline string) upstream.Timeouts {
	d, ok := callDeadline(deadline)
	if ok {
		d = min(d, maxCallTime) + callGrace
	} else {
		d = callTime
	}
	if c.Head {
		t.Head = d
	}
	if c.Idle {
		t.Pause = d
	}
	return t
}

// callDeadline reads the value of grpc-timeout: at most eight digits and a unit.
func callDeadline(s string) (d time.Duration, ok bool) {
	if len(s) < 2 || len(s) > 9 {
		return 0, false
	}
	unit := callUnit(s[len(s)-1])
	n, err := strconv.ParseUint(s[:len(s)-1], 10, 32)
	if unit == 0 || err != nil {
		return 0, false
	}
	if time.Duration(n) > math.MaxInt64/unit {
		return math.MaxInt64, true
	}
	return time.Duration(n) * unit, true
}

func callUnit(c byte) time.Duration {
	switch c {
	case 'H':
		return time.Hour
	case 'M':
		return time.Minute
	case 'S':
		return time.Second
	case 'm':
		return time.Millisecond
	case 'u':
		return time.Microsecond
	case 'n':
		return time.Nanosecond
	}
	return 0
}
