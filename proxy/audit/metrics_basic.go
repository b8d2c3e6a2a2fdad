package audit

import (
	"sync"

	"github.com/prometheus/client_golang/prometheus"
)

// basicMetrics count the requests of callers with passwords, so that operators see who has not moved
// yet. The names come from files of the configuration: a request has one only once its password was
// verified.
type basicMetrics struct {
	requests *prometheus.CounterVec

	mu    sync.Mutex // guards known
	known map[string]prometheus.Counter
}

// maxBasicCallers limits the callers with a counter of their own.
const maxBasicCallers = 200

func (m *basicMetrics) observe(principal string) {
	m.mu.Lock()
	defer m.mu.Unlock()
	c := m.known[principal]
	if c == nil {
		if len(m.known) >= maxBasicCallers {
			principal = other
		}
		c = m.requests.WithLabelValues(principal)
		if m.known == nil {
			m.known = map[string]prometheus.Counter{}
		}
		if principal != other {
			m.known[principal] = c
		}
	}
	c.Inc()
}
