package proxy

import (
	"context"
	"fmt"
	"log/slog"
	"sync/atomic"
	"time"

	"sallyport/auth"
	"sallyport/auth/clientcert"
	"sallyport/policy/model"
	"sallyport/proxy/admin"
	"sallyport/proxy/audit"
	"sallyport/proxy/config"
	"sallyport/proxy/credential"
	"sallyport/proxy/edge"
	"sallyport/proxy/exchange"
	"sallyport/proxy/limit"
	"sallyport/proxy/route"
	"sallyport/proxy/seal"
	"sallyport/proxy/setting"
	"sallyport/proxy/shared/local"
	"sallyport/proxy/upstream"
)

// memory is the state of a process that does not depend on the configuration; it outlives every
// snapshot.
type memory struct {
	exchange.Memory
	options Options
	sockets []*handedSocket
	auth    *auth.Memory
	certs   *clientcert.Memory
	edge    *edge.Edge
	replay  *local.Replay
	pools   *upstream.Pools
	// credentials holds the tokens that the gateway fetches for upstreams.
	credentials *credential.Memory
	conns       *limit.Conns
	counts      *limit.Counters
	// Guarded by Gateway.reloading.
	accepts, acceptsPerAddress keptRate
	reloads                    *admin.Reloads
	shortOf                    int // the limits.connections for which too few descriptors were logged

	snapshots atomic.Int64 // number of snapshots in use
	since     time.Time    // when the process began
}

// newMemory makes the memory for a process that starts with cfg.
func newMemory(cfg *Config, o Options) (*memory, error) {
	m := &memory{options: o, since: o.Now()}
	m.Log, m.Clock = o.Log, o.clock
	if !o.systemTime {
		m.Now = o.Now
	}
	m.Compressors = route.NewCompressors()
	m.SignIns = limit.NewRate(limit.RateConfig{Limit: setting.Rate{N: 10, Per: time.Second}, Burst: 100}, o.Now)
	m.pools = upstream.NewPools(upstream.Options{Now: o.Now, Clock: o.clock, Dial: o.Dial, Log: m.Log})
	m.credentials = credential.NewMemory(credential.MemoryOptions{Now: o.Now, Log: m.Log})
	m.auth = auth.NewMemory(auth.MemoryOptions{Now: o.Now, Log: m.Log, SessionEnded: m.RecordEnd})
	m.certs = clientcert.NewMemory(clientcert.MemoryOptions{Now: o.Now, Log: m.Log})
	m.counts = limit.NewCounters(o.Now)
	hash := config.OutlineOf(cfg).Hash()
	short, _ := config.ShortHashes(hash, hash)
	m.reloads = admin.NewReloads(short, o.Now)
	m.reloads.SetWatching(cfg.Reload.Watches())
	m.snapshots.Store(1)
	var err error
	if m.sockets, err = checkSockets(o.Sockets); err != nil {
		return nil, err
	}
	if m.edge, err = edge.New(cfg.TLS, edge.Options{Hosts: cfg.TLSHosts(), PlainHTTP: len(cfg.Listen.HTTPAddrs()) > 0, Log: m.Log, Now: o.Now}); err != nil {
		return nil, fmt.Errorf("tls: %w", err)
	}
	m.Challenge = m.edge.ChallengeAnswer
	c := cfg.Integrity.WithDefaults()
	m.Held = limit.NewBytes(int64(c.Memory))
	if m.replay, err = local.New(local.Config{Bounds: nonceBounds(&c), Now: o.Now}); err != nil {
		return nil, fmt.Errorf("integrity: %w", err)
	}
	m.Replay = m.replay
	if m.Audit, err = audit.New(cfg.Audit, audit.Options{Stdout: o.Stdout, Log: m.Log, Now: o.Now}); err != nil {
		return nil, err
	}
	m.Metrics = audit.NewMetrics(audit.MetricsOptions{
		Routes: cfg.RouteNames(), Reasons: exchange.Reasons(), Dialects: model.Names(), Verbs: model.Verbs(),
	})
	m.Pressure = limit.NewPressure(0, o.MemoryUsed)
	m.conns = limit.NewConns(limit.ConnsConfig{})
	return m, nil
}

// setBounds sets the process limits of a configuration: connections, descriptors and memory. At a
// limit, new work is refused at once and current work continues.
func (m *memory) setBounds(cfg *Config) {
	l := cfg.Limits.WithDefaults()
	m.Pressure.SetBudget(cfg.MemoryBudget())
	m.options.MemoryBudget(cfg.MemoryBudget())
	if most := connectionsFor(descriptors()); most > 0 && most < l.Connections {
		level := slog.LevelInfo
		switch {
		case m.shortOf == l.Connections:
			level = slog.LevelDebug // already logged before the reload
		case cfg.Limits.Connections != 0:
			level = slog.LevelWarn // the configuration asks for more than is possible
		}
		m.shortOf = l.Connections
		m.Log.Log(context.Background(), level, "the limit of open files allows fewer connections than limits.connections", "connections", most, "wanted", l.Connections, "cure", "raise the limit of open files, such as LimitNOFILE= in the unit file")
		l.Connections = most
	}
	m.conns.SetConfig(limit.ConnsConfig{
		Total: l.Connections, PerAddress: l.ConnectionsPerAddress, Exempt: config.Prefixes(cfg.TrustedProxies),
		Accepts: m.accepts.set(l.Accepts, m.options.Now), AcceptsPerAddress: m.acceptsPerAddress.set(l.AcceptsPerAddress, m.options.Now), Spent: m.Pressure.Spent,
	})
}

// keptRate is a rate limiter that keeps its count while its configuration stays the same.
type keptRate struct {
	limit setting.Rate
	rate  *limit.Rate
}

func (k *keptRate) set(r setting.Rate, now func() time.Time) *limit.Rate {
	if k.rate == nil || r != k.limit {
		k.limit, k.rate = r, limit.NewRate(limit.RateConfig{Limit: r}, now)
	}
	return k.rate
}

// nonceBounds returns the limits of the nonce store. c must have a value for everything.
func nonceBounds(c *seal.Config) local.Bounds {
	return local.Bounds{Nonces: c.Nonces, PerKey: c.NoncesPerKey, Window: c.MaxAge.D(), Skew: c.Skew.D()}
}

// beginReplay takes over the nonces of the previous process. It does so with the first
// configuration whose routes accept signatures; until then no file is needed.
func (m *memory) beginReplay(cfg *Config) error {
	if !cfg.TakesSignatures() {
		return nil
	}
	if err := m.replay.Begin(nonceFile(cfg)); err != nil {
		return fmt.Errorf("integrity.state: %w", err)
	}
	return nil
}

// nonceFile returns the file for the nonces of a configuration; "" for none.
func nonceFile(cfg *Config) string {
	if cfg.Integrity.State.Word() != "" {
		return ""
	}
	return string(cfg.Integrity.State)
}

// connectionsFor returns how many client connections the descriptors suffice for. Each may need
// another to an upstream, and some are reserved for listeners, files and issuers. descriptors <= 0
// means no limit.
func connectionsFor(descriptors int) int {
	if descriptors <= 0 {
		return 0
	}
	return max((descriptors-min(256, descriptors/4))/2, 1)
}
