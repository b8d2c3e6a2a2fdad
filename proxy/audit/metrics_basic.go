package audit

import (
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"
)

// basicMetrics count the requests of callers with passwords, so that operators see who has not moved
// yet. The names come from files of the configuration: a request has one only once its password was
// verified.
type basicMetrics struct {
	requests *prometheus.CounterVec

	mu    sync.Mutex // guards known
	known map[string]*basicCaller
}

// basicCaller is a caller with a counter of its own.
type basicCaller struct {
	requests prometheus.Counter
	last     time.Time // when its last request began
}

const (
	// maxBasicCallers limits the callers with a counter of their own.
	maxBasicCallers = 200
	// basicCallerIdle is how long a caller must have been silent until another may take its counter.
	// Who has moved would otherwise hide who has not.
	basicCallerIdle = 24 * time.Hour
)

// observe counts a request that began at a time.
func (m *basicMetrics) observe(principal string, at time.Time) {
	m.mu.Lock()
	defer m.mu.Unlock()
	c := m.known[principal]
	if c == nil {
		if len(m.known) >= maxBasicCallers && !m.forget(at) {
			m.requests.WithLabelValues(other).Inc()
			return
		}
		if m.known == nil {
			m.known = map[string]*basicCaller{}
		}
		c = &basicCaller{requests: m.requests.WithLabelValues(principal)}
		m.known[principal] = c
	}
	if at.After(c.last) {
		c.last = at
	}
	c.requests.Inc()
}

// forget removes the counter of the caller that has been silent the longest, and reports whether one was
// silent for long enough. The caller holds mu.
func (m *basicMetrics) forget(now time.Time) bool {
	oldest := ""
	for name, c := range m.known {
		if oldest == "" || c.last.Before(m.known[oldest].last) {
			oldest = name
		}
	}
	if now.Sub(m.known[oldest].last) < basicCallerIdle {
		return false
	}
	delete(m.known, oldest)
	m.requests.DeleteLabelValues(oldest)
	return true
}
