package proxy

import (
	"context"
	"crypto/tls"
	"errors"
	"net"
	"sync"

	"sallyport/proxy/wire"
	"sallyport/proxy/wire/h1"
	"sallyport/proxy/wire/h2"
)

// server is what an engine is to the gateway.
type server interface {
	Serve(net.Listener) error
	Shutdown(context.Context) error
	Close() error
}

// engineOptions are the bounds of all engines.
func (g *Gateway) engineOptions() (wire.ServerOptions, h2.ServerOptions) {
	l := g.current.config.Limits.WithDefaults()
	one := wire.ServerOptions{
		HeadBytes: int(l.HeadBytes), HeadTime: l.HeadTime.D(), IdleTime: l.KeepAlive.D(), Fields: l.Fields, Requests: l.Requests, Linger: l.Linger.D(), Clock: g.memory.Clock,
	}
	return one, h2.ServerOptions{
		ServerOptions: one,
		Streams:       l.Streams, Resets: l.Resets, Frames: l.Frames, StreamWindow: int(l.Window), ConnWindow: 4 * int(l.Window),
	}
}

// serversBehind are the servers of the listeners for listed peers: one for
// requests, one for decisions.
func (g *Gateway) serversBehind(one wire.ServerOptions, two h2.ServerOptions) [2]server {
	auth := h1.NewServer(g.server.Decide, one)
	one.Scheme, two.Scheme = "https", "https" // as the clients of the balancer saw it
	if c := g.current.config.Listen.InsecurePlain; c != nil && c.H2C {
		return [2]server{newEngines(g.server.Serve, one, two), auth}
	}
	return [2]server{h1.NewServer(g.server.Serve, one), auth}
}

// engines serves connections by two engines: those with TLS go, by what ALPN chose,
// to that for HTTP/2 or to that for HTTP/1.1, those without by how they begin.
type engines struct {
	one *h1.Server
	two *h2.Server

	mu        sync.Mutex // guards what follows
	listeners []net.Listener
	stopped   bool
}

func newEngines(h wire.Handler, one wire.ServerOptions, two h2.ServerOptions) *engines {
	e := &engines{one: h1.NewServer(h, one)}
	two.Otherwise = e.one.ServeConn
	e.two = h2.NewServer(h, two)
	return e
}

// Serve accepts connections, those with TLS after the handshake, until Shutdown or
// Close, after which it returns nil, or until the listener fails.
func (e *engines) Serve(l net.Listener) error {
	if !e.enter(l) {
		return l.Close()
	}
	for {
		conn, err := l.Accept()
		if err != nil {
			if e.isStopped() {
				return nil
			}
			return err
		}
		if t, ok := conn.(*tls.Conn); ok && t.ConnectionState().NegotiatedProtocol != "h2" {
			e.one.ServeConn(conn)
		} else {
			e.two.ServeConn(conn)
		}
	}
}

func (e *engines) enter(l net.Listener) bool {
	e.mu.Lock()
	defer e.mu.Unlock()
	if !e.stopped {
		e.listeners = append(e.listeners, l)
	}
	return !e.stopped
}

func (e *engines) isStopped() bool {
	e.mu.Lock()
	defer e.mu.Unlock()
	return e.stopped
}

// stop closes the listeners, once.
func (e *engines) stop() {
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.stopped {
		return
	}
	e.stopped = true
	for _, l := range e.listeners {
		_ = l.Close()
	}
}

// Shutdown closes the listeners and waits until all requests are answered or ctx ends.
func (e *engines) Shutdown(ctx context.Context) error {
	e.stop()
	var one, two error
	var both sync.WaitGroup
	both.Go(func() { one = e.one.Shutdown(ctx) })
	both.Go(func() { two = e.two.Shutdown(ctx) })
	both.Wait()
	return errors.Join(one, two)
}

// Close closes the listeners and cuts every connection.
func (e *engines) Close() error {
	e.stop()
	return errors.Join(e.one.Close(), e.two.Close())
}
