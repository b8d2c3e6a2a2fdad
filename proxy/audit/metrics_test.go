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
	return NewMetrics(MetricsOptions{Routes: []string{"models.example.com/", "idle"}, Reasons: []string{"rate", "forbidden"},
		Dialects: []string{"tensorflow", "raw"}, Verbs: []string{"predict"}})
}

func TestMetricsCountRecords(t *testing.T) {
	m := newTestMetrics()
	m.Observe(fullRecord())
	m.Observe(fullRecord())
	m.Observe(&Record{Route: "models.example.com/", Method: "GET", Status: 200, BytesOut: 10})
	m.Observe(&Record{Route: "models.example.com/", Method: "DELETE", Dialect: "raw", Verb: "delete", Status: 200})
	m.Observe(&Record{Route: "models.example.com/", Method: "BREW", Dialect: "raw", Verb: "brew", Status: 200})
	m.Observe(&Record{Method: "PROPFIND", Status: 299, Reason: "made_up", Route: "of a client"})
	m.Observe(&Record{Status: 0, BytesIn: -1})
	want := `
# HELP sallyport_requests_total Requests that ended, by route, method, status code, reason of refusal, and what they ask of which kind of server.
# TYPE sallyport_requests_total counter
sallyport_requests_total{code="200",dialect="",method="GET",reason="",route="models.example.com/",verb=""} 1
sallyport_requests_total{code="200",dialect="raw",method="DELETE",reason="",route="models.example.com/",verb="delete"} 1
sallyport_requests_total{code="200",dialect="raw",method="other",reason="",route="models.example.com/",verb="other"} 1
sallyport_requests_total{code="2xx",dialect="",method="other",reason="other",route="-",verb=""} 1
sallyport_requests_total{code="403",dialect="tensorflow",method="POST",reason="forbidden",route="models.example.com/",verb="predict"} 2
sallyport_requests_total{code="other",dialect="",method="other",reason="",route="-",verb=""} 1
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

// Clients and upstreams choose methods, statuses and paths, but must not be able to add time
// series.
func TestClientsCannotAddTimeSeries(t *testing.T) {
	m := newTestMetrics()
	for i := range 5000 {
		m.Observe(&Record{Route: fmt.Sprint("r", i), Method: fmt.Sprint("M", i), Status: i, Reason: fmt.Sprint("x", i), Dialect: fmt.Sprint("d", i), Verb: fmt.Sprint("v", i), Model: fmt.Sprint("m", i), ServedVersion: fmt.Sprint(i), Principal: fmt.Sprint(i), Host: fmt.Sprint(i)})
		m.Observe(&Record{Route: "idle", Method: "GET", Status: 100 + i%900})
	}
	if n := testutil.CollectAndCount(m); n > 200 {
		t.Errorf("%d series, want at most 200", n)
	}
}

func TestMetricsAreExactUnderConcurrency(t *testing.T) {
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
		sum += testutil.ToFloat64(m.requests.WithLabelValues("idle", "GET", fmt.Sprint(200+status), "", "", ""))
	}
	if sum != 2000 {
		t.Errorf("%v requests counted, want 2000", sum)
	}
}

func routesIn(t *testing.T, m *Metrics) map[string]bool {
	t.Helper()
	reg := prometheus.NewPedanticRegistry()
	reg.MustRegister(m)
	families, err := reg.Gather()
	if err != nil {
		t.Fatal(err)
	}
	routes := map[string]bool{}
	for _, f := range families {
		for _, one := range f.GetMetric() {
			for _, l := range one.GetLabel() {
				if l.GetName() == "route" {
					routes[l.GetValue()] = true
				}
			}
		}
	}
	return routes
}

func requestsOf(m *Metrics, route string) float64 {
	return testutil.ToFloat64(m.requests.WithLabelValues(route, "GET", "200", "", "", ""))
}

func TestRoutesAreCountedOverReloads(t *testing.T) {
	m := newTestMetrics()
	seen := func(route string) { m.Observe(&Record{Route: route, Method: "GET", Status: 200}) }
	seen("new") // not configured yet
	m.SetRoutes([]string{"new", "idle"})
	seen("new")
	seen("idle")
	seen("models.example.com/") // still in flight on a removed route
	m.SetRoutes([]string{"idle"})
	m.SetRoutes([]string{"idle", "new"}) // configured again
	seen("new")
	for route, want := range map[string]float64{"-": 1, "new": 2, "idle": 1, "models.example.com/": 1} {
		if got := requestsOf(m, route); got != want {
			t.Errorf("route %s: %v requests, want %v", route, got, want)
		}
	}
	if len(m.retired) != 1 {
		t.Errorf("removed routes: %q, want one", m.retired)
	}
}

func TestMetricsOfRemovedRoutesAreBounded(t *testing.T) {
	m := NewMetrics(MetricsOptions{})
	last := ""
	for i := range 1000 {
		last = fmt.Sprint("r", i)
		m.SetRoutes([]string{"stays", last})
		m.Observe(&Record{Route: last, Method: "GET", Status: 200})
		m.Observe(&Record{Route: "stays", Method: "GET", Status: 200})
	}
	routes := routesIn(t, m)
	if len(routes) != maxRetired+3 || !routes["stays"] || !routes[last] || !routes["-"] || routes["r0"] {
		t.Errorf("%d routes have metrics, want the last %d removed, two configured and that of none", len(routes), maxRetired)
	}
	if got := requestsOf(m, "stays"); got != 1000 {
		t.Errorf("the route that stays counted %v, want 1000", got)
	}
}

// A request may look a route up just before it is dropped. It must not bring the metrics back,
// because nothing would remove them again.
func TestDroppedRouteStaysDropped(t *testing.T) {
	m := NewMetrics(MetricsOptions{Routes: []string{"victim"}})
	victim := (*m.routes.Load())["victim"]
	for i := range maxRetired + 2 {
		m.SetRoutes([]string{fmt.Sprint("r", i)})
	}
	if victim.add(outcome{method: "GET", status: 200}, m.requests) != nil || routesIn(t, m)["victim"] {
		t.Error("the dropped route has metrics again")
	}
}

func TestRoutesChangeUnderTraffic(t *testing.T) {
	m := NewMetrics(MetricsOptions{Routes: []string{"stays"}})
	var wg sync.WaitGroup
	for g := range 4 {
		wg.Go(func() {
			for i := range 1000 {
				m.Observe(&Record{Route: "stays", Method: "GET", Status: 200})
				m.Observe(&Record{Route: fmt.Sprint("r", i/2), Method: "GET", Status: 200 + (i+g)%4})
			}
		})
	}
	for i := range 500 {
		m.SetRoutes([]string{"stays", fmt.Sprint("r", i)})
	}
	wg.Wait()
	if got := requestsOf(m, "stays"); got != 4000 {
		t.Errorf("counted %v, want 4000", got)
	}
	if n := len(routesIn(t, m)); n > maxRetired+3 {
		t.Errorf("%d routes have metrics", n)
	}
}

func TestObserveDoesNotAllocate(t *testing.T) {
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
