package proxy

import (
	"context"
	"crypto/tls"
	"errors"
	"net"
	"sync"

	"sallyport/proxy/exchange"
	"sallyport/proxy/wire"
	"sallyport/proxy/wire/h1"
	"sallyport/proxy/wire/h2"
)

// engine serves the connections of one kind of listener. [wire.Server] documents its methods.
type engine interface {
	Serve(net.Listener) error
	Shutdown(context.Context) error
	Close() error
}

// engines holds the engines of a process. Like their connections, they outlive configurations.
type engines struct {
	https    *twoVersions // requests over TLS
	plain    *twoVersions // requests without TLS, from trusted balancers
	redirect *h1.Server
	decide   *h1.Server // decisions for other proxies
}

// newEngines makes the engines. h2c reports whether HTTP/2 is accepted without TLS.
func newEngines(s *exchange.Server, one wire.ServerOptions, two h2.ServerOptions, h2c func() bool) *engines {
	e := &engines{
		https:    newTwoVersions(s.Serve, one, two, func() bool { return false }),
		redirect: h1.NewServer(s.Redirect, one),
		decide:   h1.NewServer(s.Decide, one),
	}
	one.Scheme, two.Scheme = "https", "https" // the scheme that the balancer's clients use
	e.plain = newTwoVersions(s.Serve, one, two, h2c)
	return e
}

// of returns the engine for listeners of this use.
func (e *engines) of(use listenerUse) engine {
	switch use {
	case useHTTP:
		return e.redirect
	case usePlain:
		return e.plain
	case useForwardAuth:
		return e.decide
	}
	return e.https
}

// setOptions changes the limits of new connections.
func (e *engines) setOptions(one wire.ServerOptions, two h2.ServerOptions) {
	for _, s := range []*h1.Server{e.https.one, e.plain.one, e.redirect, e.decide} {
		s.SetOptions(one)
	}
	e.https.two.SetOptions(two)
	e.plain.two.SetOptions(two)
}

// each calls f for every engine concurrently, and waits.
func (e *engines) each(f func(engine)) {
	var all sync.WaitGroup
	for _, one := range []engine{e.https, e.plain, e.redirect, e.decide} {
		all.Go(func() { f(one) })
	}
	all.Wait()
}

// engineOptions returns the limits that a configuration sets for all engines.
func engineOptions(cfg *Config, clock *wire.Clock) (wire.ServerOptions, h2.ServerOptions) {
	l := cfg.Limits.WithDefaults()
	one := wire.ServerOptions{
		HeadBytes: int(l.HeadBytes), HeadTime: l.HeadTime.D(), IdleTime: l.KeepAlive.D(), Fields: l.Fields, Requests: l.Requests, Linger: l.Linger.D(), Clock: clock,
	}
	return one, h2.ServerOptions{
		ServerOptions: one,
		Streams:       l.Streams, Resets: l.Resets, Frames: l.Frames, StreamWindow: int(l.Window), ConnWindow: 4 * int(l.Window),
	}
}

// twoVersions serves HTTP/1.1 and HTTP/2 on the same listeners. ALPN selects the version over TLS.
// Without TLS, if HTTP/2 is accepted at all, the client's first bytes do.
type twoVersions struct {
	one       *h1.Server
	two       *h2.Server
	h2c       func() bool
	listeners wire.Listeners
}

func newTwoVersions(h wire.Handler, one wire.ServerOptions, two h2.ServerOptions, h2c func() bool) *twoVersions {
	e := &twoVersions{one: h1.NewServer(h, one), h2c: h2c}
	two.Otherwise = e.one.ServeConn
	e.two = h2.NewServer(h, two)
	return e
}

func (e *twoVersions) Serve(l net.Listener) error {
	return e.listeners.Serve(l, func(conn net.Conn) {
		t, ok := conn.(*tls.Conn)
		if ok && t.ConnectionState().NegotiatedProtocol == "h2" || !ok && e.h2c() {
			e.two.ServeConn(conn)
		} else {
			e.one.ServeConn(conn)
		}
	})
}

func (e *twoVersions) Shutdown(ctx context.Context) error {
	errs := [3]error{e.listeners.Close()}
	var both sync.WaitGroup
	both.Go(func() { errs[1] = e.one.Shutdown(ctx) })
	both.Go(func() { errs[2] = e.two.Shutdown(ctx) })
	both.Wait()
	return errors.Join(errs[:]...)
}

func (e *twoVersions) Close() error {
	return errors.Join(e.listeners.Close(), e.one.Close(), e.two.Close())
}
