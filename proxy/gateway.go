package proxy

import (
	"context"
	"errors"
	"io"
	"log/slog"
	"net"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"sallyport/proxy/admin"
	"sallyport/proxy/exchange"
	"sallyport/proxy/setting"
	"sallyport/proxy/watch"
	"sallyport/proxy/wire"
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
	// Version is shown in the metrics and by status.
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

// Gateway is the running house. [New] makes one and [Gateway.Run] runs it, once. It is
// safe for concurrent use.
type Gateway struct {
	memory  *memory
	server  *exchange.Server
	engines *engines
	health  *admin.Server
	current atomic.Pointer[snapshot]

	ready    chan struct{} // closed when the listeners are open
	draining atomic.Bool
	killed   chan struct{} // closed by Kill
	kill     sync.Once
	addrs    atomic.Pointer[Addrs]
	// listening is what reloading guards as open, for those who only look.
	listening atomic.Pointer[[]*openListener]

	// Two groups: the servers end first, then what they stand on.
	serving, foundation group
	failed              chan error      // the first error of either
	base                context.Context // of the foundation; nil before Run

	watch *watch.Watch

	reloading sync.Mutex // guards what follows, and is held while a configuration is swapped
	open      []*openListener
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
	g := &Gateway{ready: make(chan struct{}), killed: make(chan struct{}), failed: make(chan error, 1)}
	g.addrs.Store(&Addrs{})
	var err error
	if g.memory, err = newMemory(cfg, o.withDefaults()); err != nil {
		return nil, err
	}
	first, err := build(cfg, g.memory)
	if err != nil {
		// The nonces that it may have taken over are for the next start.
		return nil, errors.Join(err, g.memory.replay.Save())
	}
	first.activate(g.memory)
	g.watch = newWatch(cfg, &g.memory.options)
	g.current.Store(first)
	g.server = exchange.New(&g.memory.Memory, &first.Snapshot)
	one, two := engineOptions(cfg, g.memory.Clock)
	g.engines = newEngines(g.server, one, two, func() bool { return g.now().h2c })
	if g.health, err = g.newHealth(); err != nil {
		return nil, err
	}
	return g, nil
}

// now is the snapshot that new requests see.
func (g *Gateway) now() *snapshot { return g.current.Load() }

// Ready is closed when all listeners are open.
func (g *Gateway) Ready() <-chan struct{} { return g.ready }

// Addrs are the addresses that are bound. They are valid once Ready is closed, and
// change with a reload that changes them.
func (g *Gateway) Addrs() Addrs { return *g.addrs.Load() }

// RootPath is the file with the root certificate of the development authority;
// "" if no host uses it.
func (g *Gateway) RootPath() string { return g.memory.edge.RootPath() }

// Run listens and serves until ctx ends, then drains: it says that it is not ready,
// waits for the time that balancers take to see it (drain_delay), takes no new
// connections, lets what is in flight finish within the grace period of the
// configuration (drain), cuts what is left, and returns nil. [Gateway.Kill] ends the
// waiting. Any other error means that a listener could not be opened or a part failed.
// When it returns, nothing that it started goes on.
func (g *Gateway) Run(ctx context.Context) error {
	opened, err := g.listen(g.now().config, placesOf(g.now().config))
	if err != nil {
		return err
	}
	base, stopBase := context.WithCancel(context.WithoutCancel(ctx))
	defer stopBase()
	g.reloading.Lock()
	g.base = base
	for _, run := range []func(context.Context) error{g.memory.auth.Run, g.memory.edge.Run, g.memory.Audit.Run, g.memory.Pressure.Run, g.watch.Run, g.followFiles} {
		g.foundation.start(g.failed, func() error { return run(base) })
	}
	g.serve(opened)
	for _, l := range opened {
		g.announceListener(l)
	}
	g.announce()
	g.reloading.Unlock()
	close(g.ready)

	select {
	case <-ctx.Done():
	case err = <-g.failed:
	}
	g.drain(ctx)
	g.serving.Wait()
	stopBase()
	g.foundation.Wait()
	g.now().release()
	err = errors.Join(err, g.memory.replay.Save()) // no exchange is left that could claim
	select {
	case late := <-g.failed:
		err = errors.Join(err, late)
	default:
	}
	return err
}

// Kill ends the waiting of a [Gateway.Run] that drains: what is in flight is cut.
func (g *Gateway) Kill() { g.kill.Do(func() { close(g.killed) }) }

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

// Defaults of the end of a process.
const defaultDrain = 30 * time.Second

// drain ends the servers: gently within the grace period, then by force.
func (g *Gateway) drain(ctx context.Context) {
	g.reloading.Lock() // the last configuration has come
	g.draining.Store(true)
	cfg := g.now().config
	g.reloading.Unlock()

	grace := cfg.Drain.Or(defaultDrain)
	g.memory.Log.Info("draining", "in_flight", g.server.InFlight(), "delay", cfg.DrainDelay.D().String(), "grace", grace.String())
	if delay := cfg.DrainDelay.D(); delay > 0 {
		g.wait(delay)
	}
	fresh, cancel := context.WithTimeout(context.WithoutCancel(ctx), grace)
	defer cancel()
	cut := sync.OnceFunc(func() {
		if n := g.server.Cut(nil); n > 0 {
			g.memory.Log.Warn("requests were cut at the end of the grace period", "requests", n)
		}
	})
	done := make(chan struct{})
	go func() {
		defer close(done)
		g.engines.each(func(e engine) {
			if e.Shutdown(fresh) != nil {
				cut()
				_ = e.Close()
			}
		})
		last := g.server.Retire()
		<-last.Drained() // tunnels too, which no engine knows any more
	}()
	select {
	case <-done:
		return
	case <-fresh.Done():
	case <-g.killed:
		cancel()
	}
	cut()
	<-done
}

// wait waits for a time, or until Kill.
func (g *Gateway) wait(d time.Duration) {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
	case <-g.killed:
	}
}

// announce logs what an operator wants to know at the start.
func (g *Gateway) announce() {
	g.announceCertificates()
	g.announceIntegrity()
	if root := g.RootPath(); root != "" {
		g.memory.Log.Info("certificates come from the local development authority", "root", root)
	}
	g.memory.Log.Info("ready", "routes", len(g.now().config.Routes), "version", g.memory.options.Version)
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
	if s := g.memory.replay.Status(); !s.WindowUntil.IsZero() {
		g.memory.Log.Warn("signed requests are refused for a while: replays of earlier requests cannot be recognized yet",
			"until", s.WindowUntil.UTC(), "why", s.Note, "cure", "keep integrity.state over restarts; an empty file says that no nonce was used before")
	}
}
