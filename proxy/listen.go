package proxy

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"slices"
	"time"

	"sallyport/proxy/admin"
	"sallyport/proxy/edge"
	"sallyport/proxy/wire/socket"
)

// listenerUse is the purpose of a listener, named by its key under `listen`.
type listenerUse string

const (
	useHTTPS       listenerUse = "https"
	useHTTP        listenerUse = "http"
	usePlain       listenerUse = "insecure_plain"
	useForwardAuth listenerUse = "forward_auth"
	useHealth      listenerUse = "health"
	useControl     listenerUse = "control"
)

// place is one address that a configuration listens on.
type place struct {
	use  listenerUse
	addr string // as written in the configuration
}

// placesOf returns the addresses of a configuration in the order of opening, and its control
// socket.
func placesOf(cfg *Config) []place {
	var all []place
	add := func(use listenerUse, addrs ...string) {
		for _, addr := range addrs {
			all = append(all, place{use, addr})
		}
	}
	c := &cfg.Listen
	add(useHTTPS, c.HTTPSAddrs()...)
	add(useHTTP, c.HTTPAddrs()...)
	add(usePlain, c.PlainAddr()...)
	add(useForwardAuth, c.ForwardAuthAddr()...)
	if addr := c.HealthAddr(); addr != "" {
		add(useHealth, addr)
	}
	if path, _ := cfg.ControlSocket(); path != "" {
		add(useControl, path)
	}
	return all
}

// openListener is an open listener.
type openListener struct {
	place
	net.Listener
	handed  bool               // a service manager opened its socket
	pulse   *pulse             // nil if Alive does not test it
	stop    context.CancelFunc // ends its server, before the listener closes; nil: closing does that
	control *admin.Control     // with useControl
}

// address returns the bound address. For the control socket it returns the path: the listener only
// knows the temporary name under which the socket was created.
func (l *openListener) address() string {
	if l.use == useControl {
		return l.addr
	}
	return l.Addr().String()
}

// close closes the listener: its address is free when close returns. Accepted connections continue.
func (l *openListener) close() error {
	if l.stop != nil {
		l.stop()
	}
	if err := l.Close(); err != nil && !errors.Is(err, net.ErrClosed) {
		return fmt.Errorf("closing listen.%s: %w", l.use, err)
	}
	return nil
}

// missing compares open listeners with the wanted places. It returns the places without a listener
// and the listeners without a place. A place may have several listeners, if a service manager has
// opened several sockets for it.
func missing(open []*openListener, wanted []place) (lacking []place, surplus []*openListener) {
	surplus = slices.Clone(open)
	for _, w := range wanted {
		i := slices.IndexFunc(surplus, func(l *openListener) bool { return l.place == w })
		if i < 0 {
			lacking = append(lacking, w)
			continue
		}
		surplus = slices.Delete(surplus, i, i+1)
	}
	surplus = slices.DeleteFunc(surplus, func(l *openListener) bool { return l.handed && slices.Contains(wanted, l.place) })
	return lacking, surplus
}

// listen opens the listeners for places of a configuration, all or none. Their wrappers read the
// current snapshot, so that a reload changes their settings without a gap.
func (g *Gateway) listen(cfg *Config, places []place) ([]*openListener, error) {
	var opened []*openListener
	for _, p := range places {
		more, err := g.listenOn(cfg, p)
		if err != nil {
			for _, l := range opened {
				_ = l.Close() // no connection was accepted
			}
			return nil, fmt.Errorf("listen.%s: %w", p.use, err)
		}
		opened = append(opened, more...)
	}
	return opened, nil
}

// listenOn opens the listeners of one place; none for an optional one that cannot be opened.
func (g *Gateway) listenOn(cfg *Config, p place) ([]*openListener, error) {
	if p.use == useControl {
		return g.listenControl(cfg, p)
	}
	bound, handed, err := g.bind(p, placesOf(cfg))
	if err != nil {
		return nil, err
	}
	var opened []*openListener
	for _, inner := range bound {
		l := &openListener{place: p, handed: handed}
		// Clients of listen.health can use up its connections, and its Accept then waits.
		if p.use != useHealth {
			if l.pulse = newPulse(inner); l.pulse != nil {
				inner = l.pulse
			}
		}
		l.Listener = g.wrap(p.use, socket.Listen(inner))
		opened = append(opened, l)
	}
	return opened, nil
}

// listenControl opens the control socket. Failure is an error only if the configuration names the
// socket: the default may lie in a folder that the gateway cannot write.
func (g *Gateway) listenControl(cfg *Config, p place) ([]*openListener, error) {
	c := admin.NewControl(admin.ControlOptions{Path: p.addr, Reload: g.Reload, Status: g.status, Log: g.memory.Log})
	l, err := c.Listen()
	if err == nil {
		return []*openListener{{place: p, Listener: l, control: c}}, nil
	}
	if cfg.Listen.Control != "" {
		return nil, err
	}
	g.memory.Log.Warn("no control socket: sallyport reload and status cannot reach this gateway", "error", err, "cure", "name a path under listen.control, or write off; SIGHUP reloads too")
	return nil, nil
}

// wrap adds the wrappers that a listener's use requires.
func (g *Gateway) wrap(use listenerUse, l net.Listener) net.Listener {
	log := g.memory.Log
	switch use {
	case useHealth:
		return l
	case usePlain, useForwardAuth:
		l = edge.AcceptFrom(l, func() []netip.Prefix { return g.now().peers(use) }, log)
	}
	if use != useForwardAuth {
		l = edge.ReadProxyHeaders(l, func() edge.Balancers { return g.now().balancers }, log)
	}
	bounds := edge.Limits{Conns: g.memory.conns, Log: log, CurrentHandshakeTime: func() time.Duration { return g.now().handshakeTime }}
	if use == useHTTPS {
		return g.memory.edge.Listen(l, bounds)
	}
	return edge.Plain(l, bounds)
}

// peers returns the addresses that may connect to a listener with a list of peers.
func (s *snapshot) peers(use listenerUse) []netip.Prefix {
	if use == usePlain {
		return s.plainFrom
	}
	return s.forwardAuthFrom
}

// serve starts to serve listeners.
func (g *Gateway) serve(opened []*openListener) {
	for _, l := range opened {
		if l.use == useHealth || l.use == useControl {
			ctx, stop := context.WithCancel(g.base)
			l.stop = stop
			run := g.health.Run
			if l.use == useControl {
				run = l.control.Run
			}
			g.foundation.start(g.failed, func() error { return run(ctx, l.Listener) })
			continue
		}
		engine := g.engines.of(l.use)
		g.serving.start(g.failed, func() error { return engine.Serve(l.Listener) })
	}
	g.open = append(g.open, opened...)
	g.noteAddrs()
}

// noteAddrs publishes the addresses of the open listeners.
func (g *Gateway) noteAddrs() {
	a := Addrs{}
	for _, l := range g.open {
		switch l.use {
		case useHTTPS:
			a.HTTPS = append(a.HTTPS, l.Addr())
		case useHTTP:
			a.HTTP = append(a.HTTP, l.Addr())
		case usePlain:
			a.Plain = l.Addr()
		case useForwardAuth:
			a.ForwardAuth = l.Addr()
		case useHealth:
			a.Health = l.Addr()
		}
	}
	port := 0
	if len(a.HTTPS) > 0 {
		bound, _ := netip.ParseAddrPort(a.HTTPS[0].String())
		port = int(bound.Port())
	}
	g.server.SetHTTPSPort(port)
	g.addrs.Store(&a)
	open := slices.Clone(g.open)
	g.listening.Store(&open)
}

// announceListener logs the purpose of a listener.
func (g *Gateway) announceListener(l *openListener) {
	what, from := "", ""
	switch l.use {
	case useHTTPS:
		what = "https"
	case useHTTP:
		what = "redirects to https"
	case usePlain:
		what, from = "http", peersOf(g.now().config.Listen.InsecurePlain.From)
	case useForwardAuth:
		c := g.now().config.Listen.ForwardAuth
		what, from = "decisions that "+c.Dialect+" asks for", peersOf(c.From)
	case useHealth:
		what = "health and metrics"
	case useControl:
		what = "sallyport reload and status"
	}
	facts := []any{"for", what, "addr", l.address()}
	if from != "" {
		facts = append(facts, "from", from)
	}
	g.memory.Log.Info("listening", facts...)
}
