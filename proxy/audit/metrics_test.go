package audit

import (
	"fmt"
	"strings"
	"sync"
	"testing"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil"
)

func newTestMetrics() *Metrics {
	return NewMetrics(MetricsOptions{Routes: []string{"models.example.com/", "idle"}, Reasons: []string{"rate", "forbidden"}})
}

func TestMetrics(t *testing.T) {
	m := newTestMetrics()
	m.Observe(fullRecord())
	m.Observe(fullRecord())
	m.Observe(&Record{Route: "models.example.com/", Method: "GET", Status: 200, BytesOut: 10})
	m.Observe(&Record{Method: "PROPFIND", Status: 299, Reason: "made_up", Route: "of a client"})
	m.Observe(&Record{Status: 0, BytesIn: -1})
	want := `
# HELP sallyport_requests_total Requests that ended, by route, method, status code and reason of refusal.
# TYPE sallyport_requests_total counter
sallyport_requests_total{code="200",method="GET",reason="",route="models.example.com/"} 1
sallyport_requests_total{code="403",method="POST",reason="forbidden",route="models.example.com/"} 2
sallyport_requests_total{code="2xx",method="other",reason="other",route="-"} 1
sallyport_requests_total{code="other",method="other",reason="",route="-"} 1
# HELP sallyport_request_body_bytes_total Content received from clients.
# TYPE sallyport_request_body_bytes_total counter
sallyport_request_body_bytes_total{route="-"} 0
sallyport_request_body_bytes_total{route="idle"} 0
sallyport_request_body_bytes_total{route="models.example.com/"} 54
`
	if err := testutil.CollectAndCompare(m, strings.NewReader(want), "sallyport_requests_total", "sallyport_request_body_bytes_total"); err != nil {
		t.Error(err)
	}
	problems, err := testutil.CollectAndLint(m)
	if err != nil || len(problems) > 0 {
		t.Errorf("lint: %v, %v", problems, err)
	}
}

// Clients and upstreams choose methods, statuses and paths; the number of time
// series must not be theirs to choose.
func TestMetricsCardinality(t *testing.T) {
	m := newTestMetrics()
	for i := range 5000 {
		m.Observe(&Record{Route: fmt.Sprint("r", i), Method: fmt.Sprint("M", i), Status: i, Reason: fmt.Sprint("x", i), Principal: fmt.Sprint(i), Host: fmt.Sprint(i)})
		m.Observe(&Record{Route: "idle", Method: "GET", Status: 100 + i%900})
	}
	if n := testutil.CollectAndCount(m); n > 200 {
		t.Errorf("%d series, want at most 200", n)
	}
}

func TestMetricsConcurrent(t *testing.T) {
	m := newTestMetrics()
	reg := prometheus.NewPedanticRegistry()
	reg.MustRegister(m)
	var wg sync.WaitGroup
	for g := range 4 {
		wg.Go(func() {
			for i := range 500 {
				m.Observe(&Record{Route: "idle", Method: "GET", Status: 200 + (i+g)%4})
			}
		})
	}
	if _, err := reg.Gather(); err != nil {
		t.Error(err)
	}
	wg.Wait()
	sum := 0.0
	for status := range 4 {
		sum += testutil.ToFloat64(m.requests.WithLabelValues("idle", "GET", fmt.Sprint(200+status), ""))
	}
	if sum != 2000 {
		t.Errorf("%v requests counted, want 2000", sum)
	}
}

func TestObserveAllocations(t *testing.T) {
	m, r := newTestMetrics(), fullRecord()
	m.Observe(r)
	if n := testing.AllocsPerRun(1000, func() { m.Observe(r) }); n != 0 {
		t.Errorf("%v allocations, want 0", n)
	}
}

func BenchmarkObserve(b *testing.B) {
	m, r := newTestMetrics(), fullRecord()
	b.ReportAllocs()
	for b.Loop() {
		m.Observe(r)
	}
}
