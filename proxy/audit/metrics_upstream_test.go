package audit

import (
	"fmt"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
)

// Reloads that name ever new upstreams do not grow the metrics without limit, and a dropped route leaves none.
func TestUpstreamsOfARouteHaveBoundedSeries(t *testing.T) {
	m := NewMetrics(MetricsOptions{Routes: []string{"r"}})
	for i := range 3 * maxUpstreams {
		m.Observe(&Record{Route: "r", UpstreamName: fmt.Sprint("u", i), UpstreamDuration: time.Second})
	}
	series := func() (n int) {
		c := make(chan prometheus.Metric, 10*maxUpstreams)
		m.upstream.Collect(c)
		return len(c)
	}
	if n := series(); n != maxUpstreams+1 {
		t.Errorf("%d series; want %d and other", n, maxUpstreams)
	}
	m.forget("r")
	if n := series(); n != 0 {
		t.Errorf("%d series of a route that is gone", n)
	}
}
