package upstream

import (
	"log/slog"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"sallyport/proxy/ratelog"
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
	answered                atomic.Bool // the endpoint has once answered
}

// health tracks failed connects. A failed connect ejects the endpoint for a while. It logs when
// connects begin to fail and when they succeed again. It is safe for concurrent use.
type health struct {
	lines *ratelog.Log
	names []any // of the upstream and the endpoint, for the log

	ejectedTo atomic.Int64 // Unix nanoseconds; 0 if the last connect succeeded

	mu       sync.Mutex // guards the fields below, and writes of ejectedTo except in fit
	failures int        // consecutive failed connects
	cause    error      // of the last one; nil if there are none
}

func newHealth(log *slog.Logger, upstream, endpoint string) *health {
	return &health{lines: ratelog.New(log, nil), names: []any{"upstream", upstream, "endpoint", endpoint}}
}

// recovered ends an ejection after a successful connect.
func (h *health) recovered() {
	if h.ejectedTo.Load() == 0 {
		return
	}
	h.mu.Lock()
	failures := h.failures
	h.failures, h.cause = 0, nil
	h.ejectedTo.Store(0)
	h.mu.Unlock()
	if failures > 0 {
		h.lines.Log(slog.LevelInfo, "recovered", "an endpoint accepts connections again", append(slices.Clip(h.names), "failures", failures)...)
	}
}

// failed ejects the endpoint, for longer after each consecutive failure.
func (h *health) failed(now time.Time, cause error) {
	h.mu.Lock()
	away := min(ejectFirst<<min(h.failures, 10), ejectMost)
	h.failures++
	first := h.failures == 1
	h.cause = cause
	h.ejectedTo.Store(now.Add(away).UnixNano())
	h.mu.Unlock()
	if first {
		h.lines.Warn("failed", "connecting to an endpoint failed", append(slices.Clip(h.names), "error", cause)...)
	}
}

// fault returns why the last connect failed; nil if it succeeded or there was none.
func (h *health) fault() error {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.cause
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
