package proxy

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"sallyport/proxy/admin"
	"sallyport/proxy/exchange"
	"sallyport/proxy/setting"
	"sallyport/proxy/wire"
	"sallyport/proxy/wire/h1"
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

	clock      *wire.Clock // for deadlines of requests
	systemTime bool        // Now was nil
}

func (o *Options) withDefaults() Options {
	d := *o
	d.clock, d.systemTime = new(wire.Clock), d.Now == nil
	if d.Log == nil {
		d.Log = slog.New(slog.DiscardHandler)
	}
	if d.Now == nil {
		d.Now = time.Now
	}
	if d.Listen == nil {
		d.Listen = net.Listen
	}
	return d
}

// Gateway is the running house. [New] makes one and [Gateway.Run] runs it, once.
type Gateway struct {
	memory  *memory
	server  *exchange.Server
	current *snapshot
	health  *admin.Server

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

// New builds a gateway from a configuration that [LoadConfig] found right. It opens
// files, and neither listens nor asks anything of the network.
func New(cfg *Config, o Options) (*Gateway, error) {
	g := &Gateway{ready: make(chan struct{})}
	var err error
	if g.memory, err = newMemory(cfg, o.withDefaults()); err != nil {
		return nil, err
	}
	if g.current, err = build(cfg, g.memory); err != nil {
		return nil, err
	}
	g.current.auth.Activate()
	g.server = exchange.New(&g.memory.Memory, &g.current.Snapshot)
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
func (g *Gateway) RootPath() string { return g.memory.edge.RootPath() }

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
	secure, plain := newEngines(g.server.Serve, one, two), h1.NewServer(g.server.Redirect, one)

	// Two groups: the servers end first, then what they stand on.
	failed := make(chan error, 1)
	base, stopBase := context.WithCancel(context.WithoutCancel(ctx))
	defer stopBase()
	var servers, foundation group
	foundation.start(failed, func() error { return g.memory.auth.Run(base) })
	foundation.start(failed, func() error { return g.memory.edge.Run(base) })
	foundation.start(failed, func() error { return g.memory.Audit.Run(base) })
	foundation.start(failed, func() error { return g.memory.Pressure.Run(base) })
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
	for _, u := range g.current.upstreams {
		u.Close()
	}
	if r := g.memory.Replay; r != nil {
		err = errors.Join(err, r.Save()) // no exchange is left that could claim
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
	grace := g.current.config.Drain.Or(defaultDrain)
	g.memory.Log.Info("draining", "in_flight", g.server.InFlight(), "grace", grace.String())
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
		<-g.server.Retire().Drained() // tunnels too, which no engine knows any more
	}()
	select {
	case <-done:
	case <-fresh.Done():
		g.server.Cut(nil)
		<-done
	}
}

const defaultDrain = 30 * time.Second

// announce logs what an operator wants to know at the start.
func (g *Gateway) announce() {
	for _, a := range g.addrs.HTTPS {
		g.memory.Log.Info("listening", "for", "https", "addr", a.String())
	}
	for _, a := range g.addrs.HTTP {
		g.memory.Log.Info("listening", "for", "redirects to https", "addr", a.String())
	}
	g.announceBehind()
	if g.addrs.Health != nil {
		g.memory.Log.Info("listening", "for", "health and metrics", "addr", g.addrs.Health.String())
	}
	g.announceCertificates()
	g.announceIntegrity()
	if root := g.RootPath(); root != "" {
		g.memory.Log.Info("certificates come from the local development authority", "root", root)
	}
	g.memory.Log.Info("ready", "routes", len(g.current.config.Routes), "version", g.memory.options.Version)
}

// announceBehind logs the listeners for listed peers.
func (g *Gateway) announceBehind() {
	if a := g.addrs.Plain; a != nil {
		g.memory.Log.Info("listening", "for", "http from "+peersOf(g.current.config.Listen.InsecurePlain.From), "addr", a.String())
	}
	if a := g.addrs.ForwardAuth; a != nil {
		g.memory.Log.Info("listening", "for", fmt.Sprintf("decisions that %s asks for, from %s", g.current.config.Listen.ForwardAuth.Dialect, peersOf(g.current.config.Listen.ForwardAuth.From)), "addr", a.String())
	}
}

func peersOf(from []setting.CIDR) string {
	var all []string
	for _, p := range from {
		all = append(all, p.String())
	}
	return strings.Join(all, ", ")
}

// announceIntegrity logs what an operator should know of signatures at the start.
func (g *Gateway) announceIntegrity() {
	if g.memory.Replay == nil {
		return
	}
	if s := g.memory.Replay.Status(); !s.WindowUntil.IsZero() {
		g.memory.Log.Warn("signed requests are refused for a while: replays from before the start could not be told",
			"until", s.WindowUntil.UTC(), "why", s.Note, "cure", "keep integrity.state over restarts; an empty file says that no nonce was used before")
	}
}
