package proxy

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"sallyport/proxy/admin"
	"sallyport/proxy/config"
	"sallyport/proxy/exchange"
	"sallyport/proxy/expiry"
	"sallyport/proxy/setting"
	"sallyport/proxy/watch"
	"sallyport/proxy/wire"
)

// Options are the dependencies of a [Gateway]. The zero Options are those of `sallyport serve`.
type Options struct {
	Log    *slog.Logger     // nil: discarded
	Now    func() time.Time // nil: time.Now
	Stdout io.Writer        // receives audit records for stdout; nil: os.Stdout
	// Listen opens a listener; nil: net.Listen.
	Listen func(network, addr string) (net.Listener, error)
	// Sockets are listening sockets that the gateway need not open itself.
	Sockets []Socket
	// Manager learns of the start, of reloads and of the end; nil if there is none.
	Manager Manager
	// Dial connects to upstreams; nil: a plain dialer.
	Dial func(ctx context.Context, network, addr string) (net.Conn, error)
	// MemoryUsed returns how many bytes the process uses; nil asks the Go runtime.
	MemoryUsed func() int64
	// MemoryBudget is told the memory budget of each configuration, in bytes and 0 for none, before the
	// configuration counts; nil: nobody is told.
	MemoryBudget func(int64)
	// Version is shown in metrics and status.
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
	if d.MemoryBudget == nil {
		d.MemoryBudget = func(int64) {}
	}
	if d.Manager == nil {
		d.Manager = noManager{}
	}
	return d
}

// Gateway is a gateway in one process. [New] makes one and [Gateway.Run] runs it, once. It is safe
// for concurrent use.
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
	// listening is a copy of open for readers that do not hold reloading.
	listening atomic.Pointer[[]*openListener]

	// There are two groups: the servers end before the parts that they use.
	serving, foundation group
	failed              chan error      // the first error of either
	base                context.Context // context of the foundation; nil before Run

	// replaced waits for the exchanges of replaced snapshots.
	replaced sync.WaitGroup

	watch   *watch.Watch
	endings *expiry.Watch

	probing chan struct{} // a semaphore of one, for Alive

	reloading sync.Mutex // guards the fields below; held while a configuration is replaced
	open      []*openListener
	loading   config.Loading // of the current configuration
}

// Addrs are the addresses of a gateway's listeners.
type Addrs struct {
	HTTPS, HTTP []net.Addr
	Plain       net.Addr // insecure_plain; nil: off
	ForwardAuth net.Addr // nil: off
	Health      net.Addr // nil: off
}

// New builds a gateway from a configuration that [LoadConfig] has checked. It opens files, but does
// not listen or use the network.
func New(cfg *Config, o Options) (*Gateway, error) {
	g := &Gateway{ready: make(chan struct{}), killed: make(chan struct{}), failed: make(chan error, 1), probing: make(chan struct{}, 1)}
	g.listening.Store(new([]*openListener))
	g.addrs.Store(&Addrs{})
	var err error
	if g.memory, err = newMemory(cfg, o.withDefaults()); err != nil {
		return nil, err
	}
	first, err := build(cfg, g.memory)
	if err == nil {
		err = g.memory.beginReplay(cfg)
	}
	if err != nil {
		// Leave the nonces that it may have taken over to the next start.
		return nil, errors.Join(err, g.memory.replay.Save())
	}
	g.loading = config.FirstLoading(first.outline, g.memory.options.Now())
	first.activate(g.memory)
	g.watch = newWatch(cfg, &g.memory.options)
	g.endings = expiry.NewWatch(expiry.Options{List: g.ends, Log: g.memory.Log, Now: g.memory.options.Now})
	g.current.Store(first)
	g.server = exchange.New(&g.memory.Memory, &first.Snapshot)
	one, two := engineOptions(cfg, g.memory.Clock)
	g.engines = newEngines(g.server, one, two, func() bool { return g.now().h2c })
	if g.health, err = g.newHealth(); err != nil {
		return nil, err
	}
	return g, nil
}

// now returns the snapshot for new requests.
func (g *Gateway) now() *snapshot { return g.current.Load() }

// Ready is closed when all listeners are open.
func (g *Gateway) Ready() <-chan struct{} { return g.ready }

// Addrs returns the bound addresses. They are valid once Ready is closed, and may change with a
// reload.
func (g *Gateway) Addrs() Addrs { return *g.addrs.Load() }

// RootPath returns the file with the local authority's root certificate; "" if no host uses it.
func (g *Gateway) RootPath() string { return g.memory.edge.RootPath() }

// Run serves until ctx ends, and then drains. It first reports that it is not ready and waits
// drain_delay for balancers to notice. It then accepts no new connections, waits up to drain for
// requests in flight, aborts the rest and returns nil. [Gateway.Kill] cuts the waiting short. Any
// error means that a listener could not be opened or a part failed. When Run returns, it has left
// no goroutine behind.
func (g *Gateway) Run(ctx context.Context) error {
	opened, err := g.listen(g.now().config, placesOf(g.now().config))
	if err != nil {
		return err
	}
	base, stopBase := context.WithCancel(context.WithoutCancel(ctx))
	defer stopBase()
	g.reloading.Lock()
	g.base = base
	for _, run := range []func(context.Context) error{
		g.memory.auth.Run, g.memory.certs.Run, g.memory.credentials.Run, g.memory.edge.Run, g.memory.Audit.Run, g.memory.Pressure.Run,
		g.watch.Run, g.followFiles, g.endings.Run, g.revisit, g.revisitSessions,
	} {
		g.foundation.start(g.failed, func() error { return run(base) })
	}
	g.serve(opened)
	for _, l := range opened {
		g.announceListener(l)
	}
	g.announce()
	g.memory.options.Manager.Ready(g.describe())
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
	err = errors.Join(err, g.memory.replay.Save()) // no exchange is left that could claim a nonce
	select {
	case late := <-g.failed:
		err = errors.Join(err, late)
	default:
	}
	return err
}

// Kill ends the waiting of a draining [Gateway.Run]: requests in flight are aborted.
func (g *Gateway) Kill() { g.kill.Do(func() { close(g.killed) }) }

// group runs functions and waits for them. It sends the first error of any to failed.
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

// defaultDrain is the default grace period.
const defaultDrain = 30 * time.Second

// drain stops the servers: gracefully within the grace period, then by force.
func (g *Gateway) drain(ctx context.Context) {
	g.reloading.Lock() // no further reload
	g.draining.Store(true)
	cfg := g.now().config
	grace := cfg.Drain.Or(defaultDrain)
	g.memory.options.Manager.Stopping(fmt.Sprintf("draining %d requests", g.server.InFlight()), cfg.DrainDelay.D()+grace)
	g.reloading.Unlock()

	g.memory.Log.Info("draining", "in_flight", g.server.InFlight(), "delay", cfg.DrainDelay.D().String(), "grace", grace.String())
	if delay := cfg.DrainDelay.D(); delay > 0 {
		g.wait(delay)
	}
	fresh, cancel := context.WithTimeout(context.WithoutCancel(ctx), grace)
	defer cancel()
	// What is cut may still tell its clients why, if they take that at once.
	cut := sync.OnceValue(func() (until time.Time) {
		g.server.Cut(nil, g.waited(grace))
		return time.Now().Add(wire.Brief)
	})
	// Their audit records have the reason shutdown.
	defer func() {
		if n := g.server.Stopped(); n > 0 {
			g.memory.Log.Warn("requests were aborted at the end of the grace period", "requests", n, "drain", grace.String())
		}
	}()
	done := make(chan struct{})
	go func() {
		defer close(done)
		g.engines.each(func(e engine) {
			if e.Shutdown(fresh) != nil {
				brief, stop := context.WithDeadline(context.WithoutCancel(ctx), cut())
				_ = e.Shutdown(brief)
				stop()
				_ = e.Close()
			}
		})
		last := g.server.Retire()
		<-last.Drained() // includes tunnels, which no engine waits for
		g.replaced.Wait()
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

// waited returns a grace period that is over, or zero if Kill has cut it short.
func (g *Gateway) waited(grace time.Duration) time.Duration {
	select {
	case <-g.killed:
		return 0
	default:
		return grace
	}
}

// wait waits for d, or until Kill.
func (g *Gateway) wait(d time.Duration) {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
	case <-g.killed:
	}
}

// announce logs a summary for operators at the start.
func (g *Gateway) announce() {
	g.announceUnused(g.now().config)
	g.announceCertificates()
	g.announceIntegrity()
	if root := g.RootPath(); root != "" {
		g.memory.Log.Info("certificates come from the local development authority", "root", root)
	}
	g.now().config.LogWarnings(g.memory.Log)
	g.memory.Log.Info("ready", "routes", len(g.now().config.Routes), "version", g.memory.options.Version)
}

func peersOf(from []setting.CIDR) string {
	var all []string
	for _, p := range from {
		all = append(all, p.String())
	}
	return strings.Join(all, ", ")
}

// announceIntegrity logs the signature settings at the start.
func (g *Gateway) announceIntegrity() {
	if s := g.memory.replay.Status(); !s.WindowUntil.IsZero() {
		g.memory.Log.Warn("signed requests are refused for a while: replays of earlier requests cannot be recognized yet",
			"until", s.WindowUntil.UTC(), "why", s.Note, "cure", "keep integrity.state over restarts; an empty file says that no nonce was used before")
	}
}
