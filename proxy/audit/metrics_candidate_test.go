package audit

import (
	"testing"

	"github.com/prometheus/client_golang/prometheus/testutil"
)

func TestCandidateDecisionsAreCountedByRoute(t *testing.T) {
	m := newTestMetrics()
	m.SetRoutes([]string{"a"})
	for _, r := range []Record{
		{Route: "a"},
		{Route: "a", Candidate: CandidateAllow},
		{Route: "a", Candidate: CandidateDeny},
		{Route: "a", Candidate: CandidateDeny},
		{Route: "a", Candidate: CandidateAllow, RefusedByRules: true},
		{Route: "of a client", Candidate: CandidateDeny},
	} {
		m.Observe(&r)
	}
	for labels, want := range map[[3]string]float64{
		{"a", "allow", "allow"}: 1, {"a", "allow", "deny"}: 2, {"a", "deny", "allow"}: 1, {noRoute, "allow", "deny"}: 1,
	} {
		if got := testutil.ToFloat64(m.candidates.WithLabelValues(labels[0], labels[1], labels[2])); got != want {
			t.Errorf("%v: %v, want %v", labels, got, want)
		}
	}
	if n := testutil.CollectAndCount(m.candidates); n != 4 {
		t.Errorf("%d series, want 4", n)
	}
}
