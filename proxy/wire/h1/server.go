package h1

import (
	"context"
	"net"
	"time"

	"sallyport/proxy/message"
	"sallyport/proxy/wire"
)

// ServerOptions bound what a client may take. Zero values stand for the defaults.
type ServerOptions struct {
	HeadBytes int           // largest request head; 32 KiB
	HeadTime  time.Duration // for a whole request head, and for a TLS handshake that is still to be done; 10 s
	IdleTime  time.Duration // between requests of a connection; 2 min
	Fields    int           // field lines of a request; [message.MaxFields]
	Requests  int           // on one connection, which closes after the answer to the last; 0: no bound
	Linger    time.Duration // for the rest of a request that was answered early; 1 s
	// Scheme is how clients reached whoever is in front, where a connection without
	// TLS does not tell; "http" if empty.
	Scheme string
	// Clock may be shared with others that serve the same requests; one of its own if nil.
	Clock *wire.Clock
}

// Server serves HTTP/1.1 and HTTP/1.0 on connections, one goroutine each at a time. It is
// safe for concurrent use.
//
// No timer is set for a request: one sweep over all connections, a few times a
// second, ends those that wait for too long, begins to watch the clients of requests
// that take long, and moves idle connections to goroutines with small stacks. HeadTime
// and IdleTime are so up to two sweeps late.
type Server struct {
	handle  wire.Handler
	options ServerOptions
	bufs    wire.Buffers
	dates   dates
	conns   *wire.Register[*serverConn]
}

// NewServer returns a server that hands every request to h, those too that it
// refuses to read further: their head has a [message.Head] Fault.
func NewServer(h wire.Handler, o ServerOptions) *Server {
	if o.HeadBytes <= 0 {
		o.HeadBytes = 32 << 10
	}
	if o.HeadTime <= 0 {
		o.HeadTime = 10 * time.Second
	}
	if o.IdleTime <= 0 {
		o.IdleTime = 2 * time.Minute
	}
	if o.Linger <= 0 {
		o.Linger = lingering
	}
	if o.Fields <= 0 {
		o.Fields = message.MaxFields
	}
	if o.Scheme == "" {
		o.Scheme = "http"
	}
	if o.Clock == nil {
		o.Clock = new(wire.Clock)
	}
	return &Server{
		handle:  h,
		options: o,
		conns:   wire.NewRegister[*serverConn](min(max(min(o.HeadTime, o.IdleTime)/8, 5*time.Millisecond), wire.Lag), o.Clock, nil),
	}
}

// Serve accepts connections until Shutdown or Close, after which it returns nil,
// or until the listener fails. It closes the listener.
func (s *Server) Serve(l net.Listener) error { return s.conns.Serve(l, s.ServeConn) }

// ServeConn takes a connection over and serves it in a goroutine of its own,
// which Shutdown waits for. After Shutdown or Close it is closed at once. On a
// *tls.Conn, ALPN must not have chosen "h2".
func (s *Server) ServeConn(conn net.Conn) {
	c := newServerConn(s, conn)
	if !s.conns.Enter(c) {
		c.cut()
		return
	}
	go c.serve()
}

// Shutdown closes the listeners and the connections that wait for a request, and
// waits until all requests are answered or ctx ends. Upgraded connections are not
// waited for: they are their handler's.
func (s *Server) Shutdown(ctx context.Context) error {
	err := s.conns.Stop((*serverConn).drain)
	if late := s.conns.Wait(ctx); late != nil {
		return late
	}
	return err
}

// Close closes the listeners and cuts every connection that is not upgraded.
func (s *Server) Close() error { return s.conns.Stop((*serverConn).abandon) }
