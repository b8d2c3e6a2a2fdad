package audit

import "github.com/prometheus/client_golang/prometheus"

// observeCandidate counts the candidate decision of a record, unless the route was dropped. Only routes
// with candidate rules have such counters, so the lookup by labels costs other routes nothing.
func (r *routeMetrics) observeCandidate(all *prometheus.CounterVec, rec *Record) {
	decided, candidate := CandidateAllow, CandidateAllow
	if rec.RefusedByRules {
		decided = CandidateDeny
	}
	if rec.Candidate == CandidateDeny {
		candidate = CandidateDeny
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	if !r.dropped {
		all.WithLabelValues(r.name, decided, candidate).Inc()
	}
}
