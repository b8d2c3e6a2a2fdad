package audit

import (
	"net/http"
	"slices"
	"strconv"
	"sync"
	"sync/atomic"

	"github.com/prometheus/client_golang/prometheus"
)

// MetricsOptions name all label values that [Metrics] will ever use: what a
// client sends never becomes a label.
type MetricsOptions struct {
	Routes  []string // the configured routes' names
	Reasons []string // the closed set of reasons for a refusal
}

// Metrics counts records. It is a [prometheus.Collector] and safe for
// concurrent use.
type Metrics struct {
	reasons  []string // known ones, sorted
	requests *prometheus.CounterVec
	duration *prometheus.HistogramVec
	upstream *prometheus.HistogramVec
	own      *prometheus.HistogramVec
	bytesIn  *prometheus.CounterVec
	bytesOut *prometheus.CounterVec

	routes map[string]*routeMetrics // never changes
	none   *routeMetrics            // of requests that matched no route
}

// routeMetrics are a route's children, found once: finding them by their labels
// costs allocations.
type routeMetrics struct {
	duration, upstream, own prometheus.Observer
	bytesIn, bytesOut       prometheus.Counter

	requests atomic.Pointer[map[outcome]prometheus.Counter] // never changed, only replaced
	mu       sync.Mutex                                     // held while replacing it
}

// outcome is a way in which a request ended. There are few of them on a route:
// each part comes from a closed set.
type outcome struct {
	method string
	status int // a code that has a name, a class (1 to 5), or 0 for any other
	reason string
}

// code is the label for the status.
func (o outcome) code() string {
	switch {
	case o.status == 0:
		return other
	case o.status <= 5:
		return strconv.Itoa(o.status) + "xx"
	}
	return strconv.Itoa(o.status)
}

const (
	// noRoute stands for a route that was not found.
	noRoute = "-"
	// other stands for what is not in the closed set.
	other = "other"
)

// NewMetrics makes metrics for the routes and reasons named.
func NewMetrics(o MetricsOptions) *Metrics {
	// Model servers answer in a millisecond or in minutes.
	answer := []float64{.001, .0025, .005, .01, .025, .05, .1, .25, .5, 1, 2.5, 5, 10, 30, 60, 300}
	work := []float64{.00001, .000025, .00005, .0001, .00025, .0005, .001, .0025, .005, .01, .05, .25}
	m := &Metrics{
		reasons:  slices.Sorted(slices.Values(o.Reasons)),
		requests: counter("sallyport_requests_total", "Requests that ended, by route, method, status code and reason of refusal.", "route", "method", "code", "reason"),
		duration: histogram("sallyport_request_duration_seconds", "Time from a request's head to the end of its answer.", answer),
		upstream: histogram("sallyport_upstream_duration_seconds", "Time spent waiting for the upstream, for requests that reached one.", answer),
		own:      histogram("sallyport_own_duration_seconds", "Time that the gateway itself spent on a request.", work),
		bytesIn:  counter("sallyport_request_body_bytes_total", "Content received from clients.", "route"),
		bytesOut: counter("sallyport_response_body_bytes_total", "Content sent to clients.", "route"),
		routes:   make(map[string]*routeMetrics, len(o.Routes)),
	}
	for _, name := range o.Routes {
		m.routes[name] = m.route(name)
	}
	m.none = m.route(noRoute)
	return m
}

func counter(name, help string, labels ...string) *prometheus.CounterVec {
	return prometheus.NewCounterVec(prometheus.CounterOpts{Name: name, Help: help}, labels)
}

func histogram(name, help string, buckets []float64) *prometheus.HistogramVec {
	return prometheus.NewHistogramVec(prometheus.HistogramOpts{Name: name, Help: help, Buckets: buckets}, []string{"route"})
}

func (m *Metrics) route(name string) *routeMetrics {
	r := &routeMetrics{
		duration: m.duration.WithLabelValues(name),
		upstream: m.upstream.WithLabelValues(name),
		own:      m.own.WithLabelValues(name),
		bytesIn:  m.bytesIn.WithLabelValues(name),
		bytesOut: m.bytesOut.WithLabelValues(name),
	}
	r.requests.Store(&map[outcome]prometheus.Counter{})
	return r
}

// Observe counts a record and keeps no reference to it.
func (m *Metrics) Observe(rec *Record) {
	name, r := rec.Route, m.routes[rec.Route]
	if r == nil {
		name, r = noRoute, m.none
	}
	// The set of outcomes is made of our own strings, never of the record's.
	key := outcome{method: knownMethod(rec.Method), status: knownStatus(rec.Status), reason: m.knownReason(rec.Reason)}
	c := (*r.requests.Load())[key]
	if c == nil {
		c = r.add(key, m.requests.WithLabelValues(name, key.method, key.code(), key.reason))
	}
	c.Inc()
	r.duration.Observe(rec.Duration.Seconds())
	if rec.UpstreamDuration > 0 {
		r.upstream.Observe(rec.UpstreamDuration.Seconds())
	}
	if rec.Own > 0 {
		r.own.Observe(rec.Own.Seconds())
	}
	r.bytesIn.Add(float64(max(rec.BytesIn, 0)))
	r.bytesOut.Add(float64(max(rec.BytesOut, 0)))
}

// add makes c known under key and returns it.
func (r *routeMetrics) add(key outcome, c prometheus.Counter) prometheus.Counter {
	r.mu.Lock()
	defer r.mu.Unlock()
	old := *r.requests.Load()
	next := make(map[outcome]prometheus.Counter, len(old)+1)
	for k, v := range old {
		next[k] = v
	}
	next[key] = c
	r.requests.Store(&next)
	return c
}

// knownMethod returns the method as a constant of ours, or "other".
func knownMethod(method string) string {
	switch method {
	case http.MethodGet:
		return http.MethodGet
	case http.MethodPost:
		return http.MethodPost
	case http.MethodHead:
		return http.MethodHead
	case http.MethodPut:
		return http.MethodPut
	case http.MethodPatch:
		return http.MethodPatch
	case http.MethodDelete:
		return http.MethodDelete
	case http.MethodOptions:
		return http.MethodOptions
	}
	return other
}

// knownStatus returns the status code if it has a name, otherwise its class: an
// upstream could make up hundreds.
func knownStatus(status int) int {
	switch {
	case http.StatusText(status) != "":
		return status
	case status < 100 || status > 599:
		return 0
	}
	return status / 100
}

// knownReason returns the reason if it is one of the closed set, "" for none.
func (m *Metrics) knownReason(reason string) string {
	if reason == "" {
		return ""
	}
	if i, found := slices.BinarySearch(m.reasons, reason); found {
		return m.reasons[i]
	}
	return other
}

// Describe sends the descriptions of all metrics.
func (m *Metrics) Describe(c chan<- *prometheus.Desc) {
	for _, v := range m.all() {
		v.Describe(c)
	}
}

// Collect sends all metrics.
func (m *Metrics) Collect(c chan<- prometheus.Metric) {
	for _, v := range m.all() {
		v.Collect(c)
	}
}

func (m *Metrics) all() []prometheus.Collector {
	return []prometheus.Collector{m.requests, m.duration, m.upstream, m.own, m.bytesIn, m.bytesOut}
}
