// Package admin reports the state of the gateway and lets operators reload it.
//
// [Server] serves listen.health: liveness, readiness and metrics. It changes nothing, and
// monitoring systems may reach it over the network. [Control] serves listen.control, a unix
// socket for the gateway's own user and root only. It reports more, and reloads the
// configuration.
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

// State is the state of the gateway at one moment.
type State struct {
	// Ready means that a configuration is loaded and the listeners are open. It stays true if a
	// certificate or an upstream is missing, or a reload failed: removing the gateway from
	// service would not help.
	Ready bool `json:"ready"`
	// Draining means that the gateway is shutting down and accepts no new connections.
	Draining      bool          `json:"draining"`
	Version       string        `json:"version,omitempty"`
	Configuration Configuration `json:"configuration,omitzero"` // omitted if zero
	// Ends are the ends of all keys and certificates, the earliest first.
	Ends         []End         `json:"ends,omitempty"`
	Certificates []Certificate `json:"certificates,omitempty"`
	Issuers      []Issuer      `json:"issuers,omitempty"`
	Logins       []Login       `json:"logins,omitempty"`
	SessionFiles []SessionFile `json:"session_files,omitempty"`
	Upstreams    []Upstream    `json:"upstreams,omitempty"`
	Signatures   *Signatures   `json:"signatures,omitempty"` // nil if signatures are not used
}

// Signatures describes the resources of signed requests: remembered nonces, and memory for
// content.
type Signatures struct {
	Remembered int `json:"remembered"`
	Capacity   int `json:"capacity"`
	// FullestKey is the key with the most nonces, FullestLive; PerKey is the limit.
	FullestKey  string `json:"fullest_key,omitempty"`
	FullestLive int    `json:"fullest_key_remembered"`
	PerKey      int    `json:"capacity_per_key"`
	// RefusedUntil is when signed requests are no longer refused because of an unclean start;
	// zero if they are accepted.
	RefusedUntil time.Time `json:"refused_until,omitzero"`
	Note         string    `json:"note,omitempty"` // why the start was unclean
	MemoryUsed   int64     `json:"memory_used"`    // bytes of buffered content
	MemoryTotal  int64     `json:"memory_total"`
}

// End describes the end of a key or certificate.
type End struct {
	Kind     string    `json:"kind"` // signing_key, api_key, basic, certificate, token, ca or crl
	Name     string    `json:"name"`
	NotAfter time.Time `json:"not_after,omitzero"` // in UTC; zero if it does not exist yet
	// Left says how much of its lifetime is left: third or tenth, for at most that, ended, or "" for more.
	Left string `json:"left,omitempty"`
}

// Certificate describes a certificate of the gateway.
type Certificate struct {
	Hosts  []string `json:"hosts"`
	Source string   `json:"source"`
	Issuer string   `json:"issuer"`
	// NotBefore and NotAfter are its validity; zero if there is none yet.
	NotBefore time.Time `json:"not_before,omitzero"`
	NotAfter  time.Time `json:"not_after,omitzero"`
	// NextRenewal is the time of the next renewal; zero if the operator renews it.
	NextRenewal time.Time `json:"next_renewal,omitzero"`
	LastError   string    `json:"last_error,omitempty"`
}

// Issuer describes the known keys of a token issuer.
type Issuer struct {
	Name      string    `json:"name"`
	Keys      int       `json:"keys"`
	Fetched   time.Time `json:"fetched,omitzero"` // when the keys were last fetched; zero if never
	LastError string    `json:"last_error,omitempty"`
	Skipped   []string  `json:"skipped,omitempty"` // keys that cannot be used, each with the reason
	// Introspection is nil if the issuer is not asked about tokens.
	Introspection *Introspection `json:"introspection,omitempty"`
}

// Login describes a login of people.
type Login struct {
	Name string `json:"name"`
	// Sessions is how many there are in memory, and of those in cookies how many were used lately.
	Sessions int `json:"sessions"`
}

// SessionFile describes a file with the ends of people's sessions.
type SessionFile struct {
	Path      string `json:"path"`
	Lines     int    `json:"lines"`
	Unsaved   int    `json:"unsaved"` // ends that are not on disk: a restart would bring their sessions back
	Failures  uint64 `json:"failures"`
	LastError string `json:"last_error,omitempty"` // why the file cannot be used; "" if it can
}

// Introspection describes how an issuer answers about tokens, and counts look-ups.
type Introspection struct {
	LastError string `json:"last_error,omitempty"` // of the last look-up; "" if it was answered
	// Look-ups by outcome: the token was accepted, it is not active, its claims were refused, the
	// issuer did not answer, or the look-up did not begin.
	Active   uint64 `json:"active"`
	Inactive uint64 `json:"inactive"`
	Refused  uint64 `json:"refused"`
	Failed   uint64 `json:"failed"`
	Skipped  uint64 `json:"skipped"`
	// Requests that needed no look-up, because the token was known as active or as refused.
	CachedActive  uint64 `json:"cached_active"`
	CachedRefused uint64 `json:"cached_refused"`
}

// Upstream describes the endpoints of an upstream.
type Upstream struct {
	Name      string     `json:"name"`
	Endpoints []Endpoint `json:"endpoints"`
}

// Endpoint describes an endpoint.
type Endpoint struct {
	URL       string `json:"url"`
	Healthy   bool   `json:"healthy"` // the last attempt to connect succeeded, or there was none
	Idle      int    `json:"idle"`    // connections kept open for reuse
	Active    int    `json:"active"`  // requests in flight
	LastError string `json:"last_error,omitempty"`
}

// Counts are counters of other packages, for metrics.
type Counts struct {
	InFlight     int    // requests in flight
	Connections  int    // connections of clients
	AuditWritten uint64 // audit records accepted
	AuditDropped uint64 // audit records dropped
	AuditFailed  uint64 // failed writes of the audit log
	AuditPending int    // bytes of audit records waiting
	Unrevoked    uint64 // refresh tokens that could not be revoked at a sign-out
	// HandshakesFailed counts failed TLS handshakes of clients by reason.
	HandshakesFailed map[string]uint64
}

// Replay describes the replay store.
type Replay struct {
	Live     int // remembered claims
	Capacity int // maximum number of claims
	// Refused claims by cause: replayed, store full, share of the key full, and created before
	// an unclean start.
	Replayed, Full, KeyFull, Window uint64
}

// Options configure a [Server]. The functions must be safe for concurrent use.
type Options struct {
	State      func() State  // nil: never ready
	Counts     func() Counts // nil: no such metrics
	Replay     func() Replay // nil: no such metrics
	Collectors []prometheus.Collector
	Log        *slog.Logger     // discarded if nil
	Now        func() time.Time // time.Now if nil
}

// Server serves /healthz, /readyz and /metrics. Only callers on this machine get details: URLs of
// upstreams and errors of components. For others, /readyz says only whether the gateway is ready,
// and /metrics names endpoints by their position.
type Server struct {
	handler http.Handler
	log     *slog.Logger
}

// Limits of the server. Its clients are probes and scrapers.
const (
	headTime  = 5 * time.Second
	totalTime = 15 * time.Second
	idleTime  = 2 * time.Minute
	headBytes = 8 << 10
	// connections is the maximum number of connections; further ones wait.
	connections = 64
	// farewell is the time for pending answers once Run ends.
	farewell = 5 * time.Second
)

// New returns a server with its own registry. It returns an error if the collectors conflict.
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
	return &Server{handler: handler(o.State, here, elsewhere), log: o.Log}, nil
}

// metricsHandler returns the handler of /metrics. It names endpoints by URL if detail is set, and
// otherwise by position.
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

// onThisMachine reports whether the request came from a loopback address.
func onThisMachine(r *http.Request) bool {
	from, err := netip.ParseAddrPort(r.RemoteAddr)
	return err == nil && from.Addr().Unmap().IsLoopback()
}

// handler serves exactly these three paths. A ServeMux would redirect other spellings to them.
// here serves metrics to callers on this machine, elsewhere to others.
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

// Run serves on l until ctx ends, then gives pending answers at most five seconds. It closes l.
// Each call has an http.Server of its own: Shutdown of one would end the other listeners too, and a
// reload opens the next listener before it closes the last.
func (s *Server) Run(ctx context.Context, l net.Listener) error {
	server := &http.Server{
		Handler:           s.handler,
		ReadHeaderTimeout: headTime,
		ReadTimeout:       headTime,
		WriteTimeout:      totalTime,
		IdleTimeout:       idleTime,
		MaxHeaderBytes:    headBytes,
		ErrorLog:          slog.NewLogLogger(s.log.Handler(), slog.LevelDebug),
	}
	return run(ctx, server, &boundedListener{Listener: l, slots: make(chan struct{}, connections), done: make(chan struct{})})
}
