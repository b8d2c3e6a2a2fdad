package audit

import (
	"fmt"
	"testing"

	"github.com/prometheus/client_golang/prometheus/testutil"
)

func TestCallersWithPasswordsAreBounded(t *testing.T) {
	m := newTestMetrics()
	for i := range 2 * maxBasicCallers {
		for range 2 {
			m.Observe(&Record{Credential: "basic", Principal: fmt.Sprint("basic/legacy:user-", i)})
		}
	}
	m.Observe(&Record{Credential: "bearer", Principal: "issuer/corp:alice"})
	if n := testutil.CollectAndCount(m.basic.requests); n != maxBasicCallers+1 {
		t.Errorf("%d callers have a counter, want %d and one for the others", n, maxBasicCallers)
	}
	for name, want := range map[string]float64{"basic/legacy:user-0": 2, other: 2 * maxBasicCallers} {
		if got := testutil.ToFloat64(m.basic.requests.WithLabelValues(name)); got != want {
			t.Errorf("%s: %v requests, want %v", name, got, want)
		}
	}
}
