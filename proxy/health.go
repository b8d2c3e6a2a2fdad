package proxy

import (
	"maps"
	"os"
	"slices"

	"github.com/prometheus/client_golang/prometheus"

	"sallyport/proxy/admin"
)

// newHealth makes the server for listen.health.
func (g *Gateway) newHealth() (*admin.Server, error) {
	o := admin.Options{
		State:      g.state,
		Counts:     g.counts,
		Collectors: []prometheus.Collector{g.memory.Metrics},
		Log:        g.memory.Log,
		Now:        g.memory.options.Now,
		Replay:     g.claims,
	}
	return admin.New(o)
}

// state returns the content of /readyz. Issuers, upstreams and certificates appear as details and
// do not affect readiness.
func (g *Gateway) state() admin.State {
	s := admin.State{Draining: g.draining.Load(), Version: g.memory.options.Version, Configuration: g.memory.reloads.Configuration()}
	s.Configuration.Snapshots = int(g.memory.snapshots.Load())
	select {
	case <-g.ready:
		s.Ready = !s.Draining
	default:
	}
	s.Ends = endsOf(g.ends(), g.memory.options.Now())
	for _, c := range g.memory.edge.Certificates() {
		s.Certificates = append(s.Certificates, admin.Certificate(c))
	}
	now := g.now()
	for _, i := range now.auth.Status() {
		issuer := admin.Issuer{Name: i.Name, Keys: i.Keys, Fetched: i.Fetched, LastError: i.LastError, Skipped: i.Skipped}
		if in := i.Introspection; in != nil {
			n := &in.LookUps
			issuer.Introspection = &admin.Introspection{
				LastError: in.LastError, Active: n.Active, Inactive: n.Inactive, Refused: n.Refused, Failed: n.Failed, Skipped: n.Skipped,
				CachedActive: n.CachedActive, CachedRefused: n.CachedRefused,
			}
		}
		s.Issuers = append(s.Issuers, issuer)
	}
	for _, name := range slices.Sorted(maps.Keys(now.config.Logins)) {
		s.Logins = append(s.Logins, admin.Login{Name: name, Sessions: now.auth.Login(name).Live()})
	}
	for _, f := range g.memory.auth.Logins().Files() {
		file := admin.SessionFile{Path: f.Path, Lines: f.Lines, Unsaved: f.Unsaved, Failures: f.Failures}
		if f.Fault != nil {
			file.LastError = f.Fault.Error()
		}
		s.SessionFiles = append(s.SessionFiles, file)
	}
	if g.memory.replay.Begun() {
		r := g.memory.replay.Status()
		s.Signatures = &admin.Signatures{
			Remembered: r.Live, Capacity: r.Capacity, FullestKey: r.FullestKey, FullestLive: r.FullestLive, PerKey: r.PerKey,
			RefusedUntil: r.WindowUntil, Note: r.Note, MemoryUsed: g.memory.Held.Used(), MemoryTotal: g.memory.Held.Total(),
		}
	}
	for _, u := range g.memory.pools.Status() {
		up := admin.Upstream{Name: u.Name}
		for _, e := range u.Endpoints {
			at := admin.Endpoint{URL: e.URL, Healthy: e.Fault == nil, Idle: e.Idle, Active: e.InFlight}
			if e.Fault != nil {
				at.LastError = e.Fault.Error()
			}
			up.Endpoints = append(up.Endpoints, at)
		}
		s.Upstreams = append(s.Upstreams, up)
	}
	return s
}

// status returns the report for `sallyport status`.
func (g *Gateway) status() admin.StatusReport {
	cfg := g.now().config
	r := admin.StatusReport{
		State: g.state(), PID: os.Getpid(), Since: g.memory.since, File: cfg.Path(), Routes: len(cfg.Routes),
		InFlight: g.server.InFlight(), Connections: g.memory.conns.Len(),
	}
	for _, l := range *g.listening.Load() {
		r.Listeners = append(r.Listeners, admin.Listener{For: string(l.use), Addr: l.address()})
	}
	return r
}

// counts returns the numbers that are not derived from records.
func (g *Gateway) counts() admin.Counts {
	a := g.memory.Audit.Stats()
	return admin.Counts{
		InFlight:     g.server.InFlight(),
		Connections:  g.memory.conns.Len(),
		AuditWritten: a.Written,
		AuditDropped: a.Dropped,
		AuditFailed:  a.Failures,
		AuditPending: a.Pending,
		Unrevoked:    g.memory.auth.Logins().Unrevoked(),

		HandshakesFailed: g.memory.edge.FailedHandshakes(),
	}
}

// claims returns the state of the nonce store.
func (g *Gateway) claims() admin.Replay {
	s := g.memory.replay.Status()
	return admin.Replay{
		Live: s.Live, Capacity: s.Capacity,
		Replayed: s.Refused.Replayed, Full: s.Refused.Full, KeyFull: s.Refused.KeyFull, Window: s.Refused.Window,
	}
}
