package upstream

import (
	"sync/atomic"
	"time"
)

const (
	ejectFirst = time.Second      // after one failed connect; doubles with each further one
	ejectMost  = 30 * time.Second // the maximum
	probeTime  = time.Second      // interval of single requests that probe an ejected endpoint
)

// counters counts the use of an endpoint. All open upstreams of one name share the counters
// of equal URLs. So metrics continue over reloads, and requests go to the least busy server under
// any configuration.
type counters struct {
	inFlight                atomic.Int64
	dials, reuses, failures atomic.Uint64
}

// health tracks failed connects. A failed connect ejects the endpoint for a while. The zero
// health is good. It is safe for concurrent use.
type health struct {
	row       atomic.Int64 // consecutive failed connects
	ejectedTo atomic.Int64 // Unix nanoseconds; 0 if not ejected
}

// recovered ends an ejection.
func (h *health) recovered() {
	if h.ejectedTo.Load() != 0 {
		h.row.Store(0)
		h.ejectedTo.Store(0)
	}
}

// failed ejects the endpoint, for longer after each consecutive failure.
func (h *health) failed(now time.Time) {
	away := min(ejectFirst<<min(h.row.Add(1)-1, 10), ejectMost)
	h.ejectedTo.Store(now.Add(away).UnixNano())
}

// fit reports whether the endpoint may be tried: it is not ejected, or its ejection has
// expired. After the expiry, one request a second may probe it.
func (h *health) fit(now time.Time) bool {
	to := h.ejectedTo.Load()
	if to == 0 {
		return true
	}
	return now.UnixNano() >= to && h.ejectedTo.CompareAndSwap(to, now.Add(probeTime).UnixNano())
}

// ejected returns the end of the ejection; zero if the endpoint is not ejected.
func (h *health) ejected(now time.Time) (until time.Time) {
	if to := h.ejectedTo.Load(); to != 0 && now.UnixNano() < to {
		until = time.Unix(0, to)
	}
	return until
}
