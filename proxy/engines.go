package proxy

import (
	"context"
	"crypto/tls"
	"errors"
	"net"
	"sync"

	"sallyport/proxy/wire"
	"sallyport/proxy/wire/h1"
	"sallyport/proxy/wire/stdhttp"
)

// server is what an engine is to the gateway.
type server interface {
	Serve(net.Listener) error
	Shutdown(context.Context) error
	Close() error
}

// engineOptions are the bounds of all engines.
func (g *Gateway) engineOptions() (h1.ServerOptions, stdhttp.Options) {
	l := g.config.Limits.WithDefaults()
	one := h1.ServerOptions{HeadBytes: int(l.HeadBytes), HeadTime: l.HeadTime.D(), IdleTime: l.KeepAlive.D(), Fields: l.Fields, Requests: l.Requests}
	return one, stdhttp.Options{HeadBytes: one.HeadBytes, HeadTime: one.HeadTime, IdleTime: one.IdleTime, Streams: l.Streams}
}

// engines serves the connections of TLS listeners: each goes, by what ALPN chose,
// to the engine for HTTP/2 or to that for HTTP/1.1.
type engines struct {
	one *h1.Server
	two *stdhttp.Server
	h2  handover

	mu        sync.Mutex // guards what follows
	listeners []net.Listener
	stopped   bool
}

func newEngines(h wire.Handler, one h1.ServerOptions, two stdhttp.Options) *engines {
	return &engines{
		one: h1.NewServer(h, one),
		two: stdhttp.New(h, two),
		h2:  handover{conns: make(chan net.Conn), done: make(chan struct{})},
	}
}

// Serve accepts connections, which must be *tls.Conn after the handshake, until
// Shutdown or Close, after which it returns nil, or until the listener fails.
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
		if t, ok := conn.(*tls.Conn); ok && t.ConnectionState().NegotiatedProtocol == "h2" {
			e.h2.give(conn)
		} else {
			e.one.ServeConn(conn)
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

// serveTwo runs the engine for HTTP/2, which accepts what it is given.
func (e *engines) serveTwo() error { return e.two.Serve(&e.h2) }

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

// handover is a listener whose connections somebody else has accepted.
type handover struct {
	conns chan net.Conn
	once  sync.Once
	done  chan struct{} // closed by Close
}

// give hands a connection over, or closes it after Close.
func (h *handover) give(c net.Conn) {
	select {
	case h.conns <- c:
	case <-h.done:
		_ = c.Close()
	}
}

// Accept returns the next connection, or [net.ErrClosed].
func (h *handover) Accept() (net.Conn, error) {
	select {
	case c := <-h.conns:
		return c, nil
	case <-h.done:
		return nil, net.ErrClosed
	}
}

// Close ends Accept.
func (h *handover) Close() error {
	h.once.Do(func() { close(h.done) })
	return nil
}

// Addr is no address: it listens nowhere itself.
func (h *handover) Addr() net.Addr { return &net.UnixAddr{Name: "handover"} }
