package upstream

import (
	"sync/atomic"
	"time"
)

const (
	ejectFirst = time.Second      // after one failed connect; doubles with each
	ejectMost  = 30 * time.Second // ... up to this
	probeTime  = time.Second      // one request tries an ejected endpoint, the others wait this long
)

// counters count what was done with an endpoint. All open upstreams of a name share
// those of a URL, so that metrics go on when a configuration changes, and requests go
// to the least busy server whichever configuration they came under.
type counters struct {
	inFlight                atomic.Int64
	dials, reuses, failures atomic.Uint64
}

// health is whether connects to an endpoint have succeeded. An endpoint is ejected for a
// while after one that failed. The zero health is good. It is safe for concurrent use.
type health struct {
	row       atomic.Int64 // connects in a row that failed
	ejectedTo atomic.Int64 // in nanoseconds of Unix time; 0: it is not ejected
}

// recovered ends an ejection.
func (h *health) recovered() {
	if h.ejectedTo.Load() != 0 {
		h.row.Store(0)
		h.ejectedTo.Store(0)
	}
}

// failed ejects the endpoint, for longer with each connect in a row that fails.
func (h *health) failed(now time.Time) {
	away := min(ejectFirst<<min(h.row.Add(1)-1, 10), ejectMost)
	h.ejectedTo.Store(now.Add(away).UnixNano())
}

// fit says whether the endpoint may be tried: it is not ejected, or its time is over. Of
// the requests that find it over, one a second is let through to probe the endpoint.
func (h *health) fit(now time.Time) bool {
	to := h.ejectedTo.Load()
	if to == 0 {
		return true
	}
	return now.UnixNano() >= to && h.ejectedTo.CompareAndSwap(to, now.Add(probeTime).UnixNano())
}

// ejected returns until when the endpoint is ejected; the zero time if it is not.
func (h *health) ejected(now time.Time) (until time.Time) {
	if to := h.ejectedTo.Load(); to != 0 && now.UnixNano() < to {
		until = time.Unix(0, to)
	}
	return until
}
