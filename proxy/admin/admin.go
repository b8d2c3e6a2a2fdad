// Package admin answers how the gateway is doing, and lets operators reload it.
//
// [Server] serves listen.health: alive, ready, and in numbers. It changes nothing, and monitoring
// systems may reach it over the network. [Control] serves listen.control, a unix socket that only
// the gateway's own user and root may use: it tells more, and it reloads the configuration.
package admin

import (
	"context"
	"encoding/json"
	"log/slog"
	"net"
	"net/http"
	"net/netip"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	"github.com/prometheus/client_golang/prometheus/promhttp"
)

// State is how the gateway is doing at one moment.
type State struct {
	// Ready means that a configuration is loaded and the listeners are open. A
	// certificate or an upstream that is missing, or a reload that failed, does not
	// change that: taking the gateway out of service would cure none of them.
	Ready bool `json:"ready"`
	// Draining means that it is about to end and takes no new connections.
	Draining      bool          `json:"draining"`
	Version       string        `json:"version,omitempty"`
	Configuration Configuration `json:"configuration,omitzero"` // zero: left out
	Certificates  []Certificate `json:"certificates,omitempty"`
	Issuers       []Issuer      `json:"issuers,omitempty"`
	Upstreams     []Upstream    `json:"upstreams,omitempty"`
	Signatures    *Signatures   `json:"signatures,omitempty"` // nil where none are taken
}

// Signatures tells of what signed requests need: nonces that are remembered, and
// memory for content.
type Signatures struct {
	Remembered int `json:"remembered"`
	Capacity   int `json:"capacity"`
	// FullestKey has the most nonces, FullestLive of PerKey.
	FullestKey  string `json:"fullest_key,omitempty"`
	FullestLive int    `json:"fullest_key_remembered"`
	PerKey      int    `json:"capacity_per_key"`
	// RefusedUntil is when signed requests will no longer be refused because of an
	// unclean start; zero if they are not.
	RefusedUntil time.Time `json:"refused_until,omitzero"`
	Note         string    `json:"note,omitempty"` // what was wrong at the start
	MemoryUsed   int64     `json:"memory_used"`    // bytes of content that is held
	MemoryTotal  int64     `json:"memory_total"`
}

// Certificate tells of one certificate of ours.
type Certificate struct {
	Hosts    []string  `json:"hosts"`
	Source   string    `json:"source"`
	Issuer   string    `json:"issuer"`
	NotAfter time.Time `json:"not_after,omitzero"` // zero: there is none yet
	// NextRenewal is when it will be renewed; zero if others do that.
	NextRenewal time.Time `json:"next_renewal,omitzero"`
	LastError   string    `json:"last_error,omitempty"`
}

// Issuer tells of the keys that we have of an issuer of tokens.
type Issuer struct {
	Name      string    `json:"name"`
	Keys      int       `json:"keys"`
	Fetched   time.Time `json:"fetched,omitzero"` // when the keys were last fetched; zero if never
	LastError string    `json:"last_error,omitempty"`
}

// Upstream tells of the endpoints of an upstream.
type Upstream struct {
	Name      string     `json:"name"`
	Endpoints []Endpoint `json:"endpoints"`
}

// Endpoint tells of one endpoint.
type Endpoint struct {
	URL       string `json:"url"`
	Healthy   bool   `json:"healthy"`
	Idle      int    `json:"idle"`   // connections kept open for reuse
	Active    int    `json:"active"` // requests under way
	LastError string `json:"last_error,omitempty"`
}

// Counts are what is counted elsewhere, for metrics.
type Counts struct {
	InFlight     int    // requests under way
	Connections  int    // connections of clients
	AuditWritten uint64 // audit records taken for the sink
	AuditDropped uint64 // audit records for which there was no room
	AuditFailed  uint64 // writes that the audit log's sink refused
	AuditPending int    // bytes of audit records waiting
}

// Replay tells of the store that knows which signatures were used.
type Replay struct {
	Live     int // claims that are remembered
	Capacity int // how many can be
	// Refused claims, by cause: a signature used again, no room, no room for more
	// of its key, and a signature made before a start that knew nothing.
	Replayed, Full, KeyFull, Window uint64
}

// Options say where a [Server] gets its answers. The functions must be safe for
// concurrent use.
type Options struct {
	State      func() State  // nil: never ready
	Counts     func() Counts // nil: not among the metrics
	Replay     func() Replay // nil: not among the metrics
	Collectors []prometheus.Collector
	Log        *slog.Logger     // discarded if nil
	Now        func() time.Time // time.Now if nil
}

// Server serves /healthz, /readyz and /metrics. Callers on this machine get the detail:
// URLs of upstreams, errors of components. Others learn from /readyz whether the gateway is
// ready, and endpoints go by their position in /metrics.
type Server struct {
	http *http.Server
	log  *slog.Logger
}

// Bounds of the server: its callers are probes and scrapers.
const (
	headTime  = 5 * time.Second
	totalTime = 15 * time.Second
	idleTime  = 2 * time.Minute
	headBytes = 8 << 10
	// connections is how many there may be at once; further ones wait.
	connections = 64
	// farewell is how long answers under way may take once Run is to end.
	farewell = 5 * time.Second
)

// New makes a server with a registry of its own. It returns an error if the
// collectors clash.
func New(o Options) (*Server, error) {
	if o.Log == nil {
		o.Log = slog.New(slog.DiscardHandler)
	}
	if o.Now == nil {
		o.Now = time.Now
	}
	if o.State == nil {
		o.State = func() State { return State{} }
	}
	errorLog := slog.NewLogLogger(o.Log.Handler(), slog.LevelDebug)
	here, err := metricsHandler(o, true, errorLog)
	if err != nil {
		return nil, err
	}
	elsewhere, err := metricsHandler(o, false, errorLog)
	if err != nil {
		return nil, err
	}
	return &Server{
		log: o.Log,
		http: &http.Server{
			Handler:           handler(o.State, here, elsewhere),
			ReadHeaderTimeout: headTime,
			ReadTimeout:       headTime,
			WriteTimeout:      totalTime,
			IdleTimeout:       idleTime,
			MaxHeaderBytes:    headBytes,
			ErrorLog:          errorLog,
		},
	}, nil
}

// metricsHandler answers /metrics, with the URLs of endpoints if detail is set.
func metricsHandler(o Options, detail bool, errorLog promhttp.Logger) (http.Handler, error) {
	registry := prometheus.NewRegistry()
	own := []prometheus.Collector{
		collectors.NewGoCollector(),
		collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}),
		newStateCollector(o, detail),
	}
	for _, c := range append(own, o.Collectors...) {
		if err := registry.Register(c); err != nil {
			return nil, err
		}
	}
	return promhttp.HandlerFor(registry, promhttp.HandlerOpts{
		ErrorLog:            errorLog,
		ErrorHandling:       promhttp.ContinueOnError,
		MaxRequestsInFlight: 4,
		Timeout:             totalTime,
		DisableCompression:  true,
	}), nil
}

// onThisMachine says whether a caller's connection comes from the loopback.
func onThisMachine(r *http.Request) bool {
	from, err := netip.ParseAddrPort(r.RemoteAddr)
	return err == nil && from.Addr().Unmap().IsLoopback()
}

// handler answers the three paths, exactly as written: a mux would redirect others to
// them. Metrics come from here for callers on this machine, from elsewhere for others.
func handler(state func() State, here, elsewhere http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		detail := onThisMachine(r)
		h := w.Header()
		h.Set("Cache-Control", "no-store")
		h.Set("X-Content-Type-Options", "nosniff")
		path := r.URL.EscapedPath()
		switch path {
		case "/healthz", "/readyz", "/metrics":
		default:
			http.Error(w, "not found", http.StatusNotFound)
			return
		}
		if r.Method != http.MethodGet && r.Method != http.MethodHead {
			h.Set("Allow", "GET, HEAD")
			http.Error(w, "method not allowed", http.StatusMethodNotAllowed)
			return
		}
		switch path {
		case "/healthz":
			h.Set("Content-Type", "text/plain; charset=utf-8")
			_, _ = w.Write([]byte("ok\n"))
		case "/readyz":
			s := state()
			if !detail {
				s = State{Ready: s.Ready, Draining: s.Draining}
			}
			ready(w, s)
		case "/metrics":
			if detail {
				here.ServeHTTP(w, r)
			} else {
				elsewhere.ServeHTTP(w, r)
			}
		}
	})
}

func ready(w http.ResponseWriter, s State) {
	body, err := json.MarshalIndent(s, "", "  ")
	if err != nil {
		http.Error(w, "internal error", http.StatusInternalServerError)
		return
	}
	w.Header().Set("Content-Type", "application/json")
	if !s.Ready || s.Draining {
		w.WriteHeader(http.StatusServiceUnavailable)
	}
	_, _ = w.Write(append(body, '\n'))
}

// Run serves on l until ctx ends, then lets answers under way finish, for at
// most five seconds. It closes l.
func (s *Server) Run(ctx context.Context, l net.Listener) error {
	return run(ctx, s.http, &boundedListener{Listener: l, places: make(chan struct{}, connections), done: make(chan struct{})})
}
