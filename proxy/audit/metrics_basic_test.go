package audit

import (
	"fmt"
	"testing"
	"time"

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

// TestCallersWhoMovedMakeRoom: a name that was silent for a day gives its counter to another. Those who
// still call keep theirs.
func TestCallersWhoMovedMakeRoom(t *testing.T) {
	m := newTestMetrics()
	began := time.Date(2026, 11, 29, 12, 0, 0, 0, time.UTC)
	call := func(user string, after time.Duration) {
		m.Observe(&Record{Credential: "basic", Principal: "basic/legacy:" + user, Time: began.Add(after)})
	}
	for i := range maxBasicCallers {
		call(fmt.Sprint("user-", i), 0)
	}
	call("user-0", basicCallerIdle-1)
	call("early", basicCallerIdle-1)
	for i := range maxBasicCallers {
		call(fmt.Sprint("late-", i), basicCallerIdle)
	}
	for name, want := range map[string]float64{"basic/legacy:user-0": 2, "basic/legacy:late-0": 1, "basic/legacy:late-198": 1, other: 2} {
		if got := testutil.ToFloat64(m.basic.requests.WithLabelValues(name)); got != want {
			t.Errorf("%s: %v requests, want %v", name, got, want)
		}
	}
	if n := testutil.CollectAndCount(m.basic.requests); n != maxBasicCallers+1 {
		t.Errorf("%d callers have a counter, want %d and one for the others", n, maxBasicCallers)
	}
}
