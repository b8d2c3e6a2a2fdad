package proxy

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"sallyport/auth"
	"sallyport/proxy/admin"
	"sallyport/proxy/audit"
	"sallyport/proxy/edge"
	"sallyport/proxy/limit"
	"sallyport/proxy/shared"
	"sallyport/proxy/upstream"
	"sallyport/proxy/wire"
	"sallyport/proxy/wire/h1"
	"sallyport/proxy/wire/socket"
)

// Options are what a [Gateway] takes from its surroundings. The zero Options are
// those of `sallyport serve`.
type Options struct {
	Log    *slog.Logger     // nil: discarded
	Now    func() time.Time // nil: time.Now
	Stdout io.Writer        // for audit records that go to stdout; nil: os.Stdout
	// Listen opens a listener; nil: net.Listen.
	Listen func(network, addr string) (net.Listener, error)
	// Dial connects to upstreams; nil: a plain dialer.
	Dial func(ctx context.Context, network, addr string) (net.Conn, error)
	// MemoryUsed tells how many bytes the process uses; nil asks the Go runtime.
	MemoryUsed func() int64
	// Version is told in the metrics.
	Version string

	clock *wire.Clock     // for deadlines of requests
	pools *upstream.Pools // the upstreams that are open
}

func (o *Options) withDefaults() Options {
	d := *o
	d.clock = new(wire.Clock)
	if d.Log == nil {
		d.Log = slog.New(slog.DiscardHandler)
	}
	if d.Now == nil {
		d.Now = time.Now
	}
	if d.Listen == nil {
		d.Listen = net.Listen
	}
	d.pools = upstream.NewPools(upstream.Options{Now: d.Now, Clock: d.clock, Dial: d.Dial})
	return d
}

// Gateway is the running house. [New] makes one and [Gateway.Run] runs it, once.
type Gateway struct {
	config      *Config
	log         *slog.Logger
	now         func() time.Time
	ownClock    bool        // now is not the system's
	clock       *wire.Clock // of deadlines
	options     Options
	snapshot    *snapshot
	auth        *auth.Auth
	edge        *edge.Edge
	audit       *audit.Log
	metrics     *audit.Metrics
	conns       *limit.Conns
	room        *limit.Memory // of the process
	health      *admin.Server
	tunnels     tunnels
	compressors *compressors
	signers     *answerSigners
	replay      *shared.Replay // nil where no route takes signatures
	memory      *limit.Bytes   // of content that is held
	bodyRate    int64          // limits.body_rate
	inFlight    atomic.Int64

	exchanges sync.WaitGroup // those that have not finished
	ended     sync.Pool      // memory of those that have

	draining atomic.Bool
	ready    chan struct{} // closed when the listeners are open
	addrs    Addrs
}

// Addrs are the addresses on which a gateway listens.
type Addrs struct {
	HTTPS, HTTP []net.Addr
	Plain       net.Addr // insecure_plain; nil: off
	ForwardAuth net.Addr // nil: off
	Health      net.Addr // nil: off
}

// New builds a gateway from a configuration that [LoadConfig] found right. It
// opens files, and neither listens nor asks anything of the network.
func New(cfg *Config, o Options) (*Gateway, error) {
	g := &Gateway{config: cfg, options: o.withDefaults(), ready: make(chan struct{}), compressors: newCompressors()}
	g.ownClock = o.Now != nil
	g.log, g.now, g.clock = g.options.Log, g.options.Now, g.options.clock
	var err error
	if g.edge, err = edge.New(cfg.TLS, edge.Options{Hosts: tlsHosts(cfg), PlainHTTP: len(cfg.Listen.HTTPAddrs()) > 0, Log: g.log, Now: g.now}); err != nil {
		return nil, fmt.Errorf("tls: %w", err)
	}
	keys, err := auth.ReadSigningKeys(cfg.SigningKeys)
	if err != nil {
		return nil, err
	}
	if g.auth, err = auth.New(auth.Config{
		Issuers: cfg.Issuers, Keys: keys, Aliases: cfg.aliases(), Now: g.now, Log: g.log,
		MaxAge: cfg.Integrity.MaxAge.Or(defaultMaxAge), Skew: cfg.Integrity.Skew.Or(defaultSkew),
	}); err != nil {
		return nil, err
	}
	if err := g.newIntegrity(); err != nil {
		return nil, err
	}
	if g.snapshot, err = newSnapshot(cfg, g.auth, &g.options, g.edge.Local); err != nil {
		return nil, err
	}
	if g.audit, err = audit.New(cfg.Audit, audit.Options{Stdout: g.options.Stdout, Log: g.log, Now: g.now}); err != nil {
		return nil, err
	}
	g.metrics = audit.NewMetrics(audit.MetricsOptions{Routes: g.snapshot.names, Reasons: reasons()})
	g.newRoom()
	if g.health, err = g.newHealth(); err != nil {
		return nil, err
	}
	return g, nil
}

// hostsOf are the hosts of all routes, each once.
func hostsOf(cfg *Config) []string {
	var hosts []string
	for i := range cfg.Routes {
		hosts = append(hosts, cfg.Routes[i].Host...)
	}
	slices.Sort(hosts)
	return slices.Compact(hosts)
}

// Ready is closed when all listeners are open.
func (g *Gateway) Ready() <-chan struct{} { return g.ready }

// Addrs are the addresses that were bound. They are valid once Ready is closed.
func (g *Gateway) Addrs() Addrs { return g.addrs }

// RootPath is the file with the root certificate of the development authority;
// "" if no host uses it.
func (g *Gateway) RootPath() string { return g.edge.RootPath() }

// Run listens and serves until ctx ends, then drains: it takes no new
// connections, lets what is in flight finish within the grace of the
// configuration, cuts what is left, and returns nil. Any other error means that
// a listener could not be opened or a part failed. When it returns, nothing that it started goes on.
func (g *Gateway) Run(ctx context.Context) error {
	l, err := g.listen()
	if err != nil {
		return errors.Join(err, l.close())
	}
	one, two := g.engineOptions()
	secure, plain := newEngines(g.serve, one, two), h1.NewServer(g.redirect, one)

	// Two groups: the servers end first, then what they stand on.
	failed := make(chan error, 1)
	base, stopBase := context.WithCancel(context.WithoutCancel(ctx))
	defer stopBase()
	var servers, foundation group
	foundation.start(failed, func() error { return g.auth.Run(base) })
	foundation.start(failed, func() error { return g.edge.Run(base) })
	foundation.start(failed, func() error { return g.audit.Run(base) })
	foundation.start(failed, func() error { return g.room.Run(base) })
	if l.health != nil {
		foundation.start(failed, func() error { return g.health.Run(base, l.health) })
	}
	for _, x := range l.https {
		servers.start(failed, func() error { return secure.Serve(x) })
	}
	for _, x := range l.http {
		servers.start(failed, func() error { return plain.Serve(x) })
	}
	behind := g.serversBehind(one, two)
	if l.plain != nil {
		servers.start(failed, func() error { return behind[0].Serve(l.plain) })
	}
	if l.auth != nil {
		servers.start(failed, func() error { return behind[1].Serve(l.auth) })
	}
	g.announce()
	close(g.ready)

	select {
	case <-ctx.Done():
	case err = <-failed:
	}
	g.drain(ctx, secure, plain, behind[0], behind[1])
	servers.Wait()
	stopBase()
	foundation.Wait()
	for _, u := range g.snapshot.upstreams {
		u.Close()
	}
	if g.replay != nil {
		err = errors.Join(err, g.replay.Save()) // no exchange is left that could claim
	}
	select {
	case late := <-failed:
		err = errors.Join(err, late)
	default:
	}
	return err
}

// group runs functions and waits for them; the first error of any goes to failed.
type group struct{ sync.WaitGroup }

func (w *group) start(failed chan<- error, f func() error) {
	w.Go(func() {
		if err := f(); err != nil {
			select {
			case failed <- err:
			default:
			}
		}
	})
}

// drain ends the servers: gently within the grace, then by force.
func (g *Gateway) drain(ctx context.Context, servers ...server) {
	g.draining.Store(true)
	grace := g.config.Drain.Or(defaultDrain)
	g.log.Info("draining", "in_flight", g.inFlight.Load(), "grace", grace.String())
	fresh, cancel := context.WithTimeout(context.WithoutCancel(ctx), grace)
	defer cancel()
	done := make(chan struct{})
	go func() {
		defer close(done)
		var all sync.WaitGroup
		for _, s := range servers {
			all.Go(func() {
				if s.Shutdown(fresh) != nil {
					_ = s.Close()
				}
			})
		}
		all.Wait()
		g.exchanges.Wait() // tunnels too, which no server knows any more
	}()
	select {
	case <-done:
	case <-fresh.Done():
		g.tunnels.close()
		<-done
	}
}

const defaultDrain = 30 * time.Second

// listeners are those of one run.
type listeners struct {
	https, http []net.Listener
	plain, auth net.Listener // nil: off
	health      net.Listener
}

func (l *listeners) close() error {
	var errs []error
	for _, x := range slices.Concat(l.https, l.http, []net.Listener{l.plain, l.auth, l.health}) {
		if x != nil {
			errs = append(errs, x.Close())
		}
	}
	return errors.Join(errs...)
}

// listen opens every listener. After an error those that are open are in l.
func (g *Gateway) listen() (l *listeners, err error) {
	l = &listeners{}
	limits := g.config.Limits.WithDefaults()
	open := func(what, addr string) (net.Listener, error) {
		x, err := g.options.Listen("tcp", addr)
		if err != nil {
			return nil, fmt.Errorf("listen.%s: %w", what, err)
		}
		return socket.Listen(x), nil
	}
	bounds := edge.Limits{Conns: g.conns, HandshakeTime: limits.HeadTime.D(), Log: g.log}
	for _, addr := range g.config.Listen.HTTPSAddrs() {
		x, err := open("https", addr)
		if err != nil {
			return l, err
		}
		g.addrs.HTTPS = append(g.addrs.HTTPS, x.Addr())
		l.https = append(l.https, g.edge.Listen(g.told(x), bounds))
	}
	for _, addr := range g.config.Listen.HTTPAddrs() {
		x, err := open("http", addr)
		if err != nil {
			return l, err
		}
		g.addrs.HTTP = append(g.addrs.HTTP, x.Addr())
		l.http = append(l.http, edge.Plain(g.told(x), bounds))
	}
	if err := g.listenBehind(l, open, bounds); err != nil {
		return l, err
	}
	if addr := g.config.Listen.HealthAddr(); addr != "" {
		if l.health, err = open("health", addr); err != nil {
			return l, err
		}
		g.addrs.Health = l.health.Addr()
	}
	return l, nil
}

// announce logs what an operator wants to know at the start.
func (g *Gateway) announce() {
	for _, a := range g.addrs.HTTPS {
		g.log.Info("listening", "for", "https", "addr", a.String())
	}
	for _, a := range g.addrs.HTTP {
		g.log.Info("listening", "for", "redirects to https", "addr", a.String())
	}
	g.announceBehind()
	if g.addrs.Health != nil {
		g.log.Info("listening", "for", "health and metrics", "addr", g.addrs.Health.String())
	}
	g.announceCertificates()
	g.announceIntegrity()
	if root := g.RootPath(); root != "" {
		g.log.Info("certificates come from the local development authority", "root", root)
	}
	g.log.Info("ready", "routes", len(g.config.Routes), "version", g.options.Version)
}
