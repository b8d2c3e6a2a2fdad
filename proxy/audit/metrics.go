package audit

import (
	"cmp"
	"maps"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"

	"github.com/prometheus/client_golang/prometheus"
)

// MetricsOptions list the label values of [Metrics]. Values sent by clients never become labels.
type MetricsOptions struct {
	Routes  []string // names of the configured routes, until [Metrics.SetRoutes]
	Reasons []string // all reasons for a refusal
	// Dialects and Verbs are what requests can ask for; verbs of dialects without a table are HTTP methods
	// in lower case.
	Dialects, Verbs []string
}

// Metrics counts records. It is a [prometheus.Collector] and safe for concurrent use. Observe
// takes no lock for a known route and outcome.
//
// The counts of a route survive its removal. If the route returns with a later configuration,
// they continue, as Prometheus expects of counters. Requests still in flight on a removed route
// count under its name. Only the last maxRetired removed routes are kept, so that reloads with
// new names cannot grow the metrics without limit.
type Metrics struct {
	reasons  []string          // known reasons, sorted
	words    map[string]string // known dialects and verbs, to themselves
	requests *prometheus.CounterVec
	duration *prometheus.HistogramVec
	upstream *prometheus.HistogramVec
	own      *prometheus.HistogramVec
	bytesIn  *prometheus.CounterVec
	bytesOut *prometheus.CounterVec
	basic    basicMetrics
	models   modelMetrics

	candidates *prometheus.CounterVec
	logins     *prometheus.CounterVec

	none   *routeMetrics                            // for requests without a route
	routes atomic.Pointer[map[string]*routeMetrics] // immutable; replaced as a whole

	mu      sync.Mutex // serializes changes of routes; guards retired
	retired []string   // removed routes with metrics, in the order of removal
}

// maxRetired is how many removed routes keep their metrics. A route has about sixty time series, and a
// counter more for each outcome of each verb.
const maxRetired = 256

// routeMetrics are the metrics of one route, looked up once: a lookup by labels allocates.
type routeMetrics struct {
	name              string
	duration, own     prometheus.Observer
	bytesIn, bytesOut prometheus.Counter

	requests atomic.Pointer[map[outcome]prometheus.Counter] // immutable; replaced as a whole
	upstream atomic.Pointer[map[string]prometheus.Observer] // by the name of the upstream; likewise
	mu       sync.Mutex                                     // serializes changes of these; guards dropped
	dropped  bool                                           // removed from all metrics; nothing may be added
}

// outcome describes how a request ended. A route has few outcomes, because each part comes from
// a closed set.
type outcome struct {
	method string
	status int // a known code, a class (1 to 5), or 0 for any other
	reason string

	dialect, verb string // "" if the request was refused before it was read
}

// code returns the label for the status.
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
	// noRoute is the label of requests without a route.
	noRoute = "-"
	// other is the label of values outside the closed set.
	other = "other"
)

// NewMetrics returns metrics for these routes and reasons.
func NewMetrics(o MetricsOptions) *Metrics {
	// Model servers answer in a millisecond or in minutes.
	answer := []float64{.001, .0025, .005, .01, .025, .05, .1, .25, .5, 1, 2.5, 5, 10, 30, 60, 300}
	work := []float64{.00001, .000025, .00005, .0001, .00025, .0005, .001, .0025, .005, .01, .05, .25}
	m := &Metrics{
		reasons:  slices.Sorted(slices.Values(o.Reasons)),
		requests: counter("sallyport_requests_total", "Requests that ended, by route, method, status code, reason of refusal, and what they ask of which kind of server.", "route", "method", "code", "reason", "dialect", "verb"),
		duration: histogram("sallyport_request_duration_seconds", "Time from a request's head to the end of its answer.", answer),
		upstream: histogram("sallyport_upstream_duration_seconds", "Time spent waiting for the upstream, for requests that reached one.", answer, "upstream"),
		own:      histogram("sallyport_own_duration_seconds", "Time that the gateway itself spent on a request.", work),
		bytesIn:  counter("sallyport_request_body_bytes_total", "Content received from clients.", "route"),
		bytesOut: counter("sallyport_response_body_bytes_total", "Content sent to clients.", "route"),
	}
	m.basic.requests = counter("sallyport_basic_requests_total", "Requests whose caller proved itself by a password, by the caller's name. Beyond 200 callers within a day the name is other.", "principal")
	m.candidates = counter("sallyport_candidate_decisions_total", "Requests on routes with candidate_rules, by what the rules of the route decided and what the candidates would decide.", "route", "rules", "candidate")
	m.logins = counter("sallyport_logins_total", "Logins by what became of them: begun, signed_in, signed_out, no_session for a sign-out without one, ended by the issuer, or refused for a reason.", "login", "event", "reason")
	m.words = make(map[string]string)
	for _, w := range slices.Concat(o.Dialects, o.Verbs) {
		m.words[w] = w
	}
	for _, method := range methods {
		verb := strings.ToLower(method)
		m.words[verb] = verb
	}
	m.models.init()
	m.none = m.route(noRoute)
	m.routes.Store(&map[string]*routeMetrics{})
	m.SetRoutes(o.Routes)
	return m
}

// SetRoutes replaces the names of the configured routes. Call it before a configuration with a
// new route becomes active.
func (m *Metrics) SetRoutes(names []string) {
	m.mu.Lock()
	defer m.mu.Unlock()
	before := *m.routes.Load()
	routes := maps.Clone(before)
	configured := make(map[string]bool, len(names))
	for _, name := range names {
		configured[name] = true
		if routes[name] == nil {
			routes[name] = m.route(name)
		}
	}
	m.retired = slices.DeleteFunc(m.retired, func(name string) bool { return configured[name] })
	gone := slices.DeleteFunc(slices.Sorted(maps.Keys(before)), func(name string) bool {
		return configured[name] || slices.Contains(m.retired, name)
	})
	m.retired = append(m.retired, gone...)
	over := max(len(m.retired)-maxRetired, 0)
	dropped := slices.Clone(m.retired[:over])
	m.retired = slices.Delete(m.retired, 0, over)
	for _, name := range dropped {
		delete(routes, name)
	}
	m.routes.Store(&routes)
	for _, name := range dropped {
		before[name].drop()
		m.forget(name)
	}
}

// SetModels replaces the names of the models whose requests are counted one by one, see [MetricsConfig].
func (m *Metrics) SetModels(names []string) { m.models.set(names) }

// drop prevents further additions to the route's metrics.
func (r *routeMetrics) drop() {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.dropped = true
}

// forget removes the time series of a route.
func (m *Metrics) forget(name string) {
	of := prometheus.Labels{"route": name}
	m.requests.DeletePartialMatch(of)
	m.upstream.DeletePartialMatch(of)
	for _, v := range []*prometheus.HistogramVec{m.duration, m.own} {
		v.Delete(of)
	}
	m.bytesIn.Delete(of)
	m.bytesOut.Delete(of)
	m.candidates.DeletePartialMatch(of)
}

func counter(name, help string, labels ...string) *prometheus.CounterVec {
	return prometheus.NewCounterVec(prometheus.CounterOpts{Name: name, Help: help}, labels)
}

func histogram(name, help string, buckets []float64, labels ...string) *prometheus.HistogramVec {
	return prometheus.NewHistogramVec(prometheus.HistogramOpts{Name: name, Help: help, Buckets: buckets}, append([]string{"route"}, labels...))
}

func (m *Metrics) route(name string) *routeMetrics {
	r := &routeMetrics{
		name:     name,
		duration: m.duration.WithLabelValues(name),
		own:      m.own.WithLabelValues(name),
		bytesIn:  m.bytesIn.WithLabelValues(name),
		bytesOut: m.bytesOut.WithLabelValues(name),
	}
	r.requests.Store(&map[outcome]prometheus.Counter{})
	r.upstream.Store(&map[string]prometheus.Observer{})
	return r
}

// Observe counts a record and keeps no reference to it.
func (m *Metrics) Observe(rec *Record) {
	r := (*m.routes.Load())[rec.Route]
	if r == nil {
		r = m.none
	}
	// Build the key from our own strings, which do not retain the record's.
	key := outcome{
		method: knownMethod(rec.Method), status: knownStatus(rec.Status), reason: m.knownReason(rec.Reason),
		dialect: m.knownWord(rec.Dialect), verb: m.knownWord(rec.Verb),
	}
	c := (*r.requests.Load())[key]
	if c == nil {
		if c = r.add(key, m.requests); c == nil {
			return // the route was dropped concurrently, with its counts
		}
	}
	c.Inc()
	r.duration.Observe(rec.Duration.Seconds())
	if rec.UpstreamDuration > 0 {
		r.observeUpstream(m.upstream, rec)
	}
	if rec.Own > 0 {
		r.own.Observe(rec.Own.Seconds())
	}
	r.bytesIn.Add(float64(max(rec.BytesIn, 0)))
	r.bytesOut.Add(float64(max(rec.BytesOut, 0)))
	if rec.Candidate != "" {
		r.observeCandidate(m.candidates, rec)
	}
	m.models.observe(rec, key.dialect, key.verb)
	if rec.LoginEvent != "" {
		m.ObserveLogin(rec)
	}
	if rec.Credential == "basic" {
		m.basic.observe(rec.Principal, rec.Time)
	}
}

// ObserveLogin counts the event of a login, and no request.
func (m *Metrics) ObserveLogin(rec *Record) {
	m.logins.WithLabelValues(strings.Clone(cmp.Or(rec.Login, noRoute)), rec.LoginEvent, m.knownReason(rec.Reason)).Inc()
}

// add makes the counter of an outcome; nil if the route was dropped.
func (r *routeMetrics) add(key outcome, requests *prometheus.CounterVec) prometheus.Counter {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.dropped {
		return nil
	}
	c := requests.WithLabelValues(r.name, key.method, key.code(), key.reason, key.dialect, key.verb)
	next := maps.Clone(*r.requests.Load())
	next[key] = c
	r.requests.Store(&next)
	return c
}

// methods are the methods with a label of their own.
var methods = [...]string{
	http.MethodGet, http.MethodPost, http.MethodHead, http.MethodPut, http.MethodPatch, http.MethodDelete, http.MethodOptions,
}

// knownMethod returns the method as one of our constants, or "other".
func knownMethod(method string) string {
	for _, m := range methods {
		if m == method {
			return m
		}
	}
	return other
}

// knownWord returns a dialect or verb if it is in the closed set, else "other"; "" stays "".
func (m *Metrics) knownWord(word string) string {
	if word == "" {
		return ""
	}
	if known, found := m.words[word]; found {
		return known
	}
	return other
}

// knownStatus returns a known status code, otherwise its class: upstreams could send hundreds
// of codes.
func knownStatus(status int) int {
	switch {
	case http.StatusText(status) != "":
		return status
	case status < 100 || status > 599:
		return 0
	}
	return status / 100
}

// knownReason returns the reason if it is in the closed set; "" stays "".
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
	return []prometheus.Collector{m.requests, m.duration, m.upstream, m.own, m.bytesIn, m.bytesOut, m.basic.requests, m.models.requests, m.candidates, m.logins}
}
