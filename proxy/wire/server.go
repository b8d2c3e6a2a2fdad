package wire

import (
	"cmp"
	"context"
	"net"
	"sync/atomic"
	"time"

	"sallyport/proxy/message"
)

// ServerOptions limit what a client may take, over any version of HTTP. Zero values mean the
// defaults.
type ServerOptions struct {
	HeadBytes int           // largest request head; 32 KiB
	Fields    int           // field lines of a request head; [message.MaxFields]
	HeadTime  time.Duration // for a whole request head, and for a TLS handshake that is still to be done; 10 s
	IdleTime  time.Duration // between requests of a connection; 2 min
	Requests  int           // on one connection, which takes no more after the last; 0: no bound
	Linger    time.Duration // for the rest of a request that was answered early; 30 s, 5 s of silence end it

	// Scheme is the scheme clients used to reach the proxy in front; it applies to connections
	// without TLS. "http" if empty.
	Scheme string
	// Clock may be shared with other servers of the same requests; if nil, the server makes its
	// own.
	Clock *Clock
}

// WithDefaults returns a copy in which defaults replace the zero values.
func (o ServerOptions) WithDefaults() ServerOptions {
	o.HeadBytes = cmp.Or(max(o.HeadBytes, 0), 32<<10)
	o.Fields = cmp.Or(max(o.Fields, 0), message.MaxFields)
	o.HeadTime = cmp.Or(max(o.HeadTime, 0), 10*time.Second)
	o.IdleTime = cmp.Or(max(o.IdleTime, 0), 2*time.Minute)
	o.Linger = cmp.Or(max(o.Linger, 0), 30*time.Second)
	if o.Scheme == "" {
		o.Scheme = "http"
	}
	if o.Clock == nil {
		o.Clock = new(Clock)
	}
	return o
}

// Period returns how often to sweep so that a limit of d is not overrun by much.
func Period(d time.Duration) time.Duration { return min(max(d/8, 5*time.Millisecond), Lag) }

// Served is a connection that a [Server] serves.
type Served interface {
	Looked
	Serve()   // serves it to its end, calls [Register.Leave], and returns
	Drain()   // lets no further request begin
	Abandon() // closes it, whatever it is doing
	Cut()     // closes it before Serve was called
}

// Server is the part of an HTTP server that is independent of the version: it accepts connections,
// registers and ends them. It is safe for concurrent use; [NewServer] makes one.
type Server[C Served] struct {
	Conns *Register[C] // for the engine that owns the connections

	listeners Listeners
	begin     func(net.Conn) C
	lingering atomic.Int32 // connections and streams between BeginLinger and EndLinger
}

// NewServer returns a server. It calls begin once for each connection to make the object that
// serves it. begin must not block.
func NewServer[C Served](conns *Register[C], begin func(net.Conn) C) *Server[C] {
	return &Server[C]{Conns: conns, begin: begin}
}

// Serve accepts connections from l until its owner closes l, or until Shutdown or Close. It then
// returns nil, and accepted connections are still served. If l fails for any other reason, Serve
// closes l and returns the error. Any number of listeners may be served at the same time.
func (s *Server[C]) Serve(l net.Listener) error { return s.listeners.Serve(l, s.ServeConn) }

// ServeConn takes over a connection and serves it in a new goroutine, which Shutdown waits for.
// After Shutdown or Close it closes the connection at once. On a *tls.Conn, ALPN must have chosen
// the engine's protocol.
func (s *Server[C]) ServeConn(conn net.Conn) {
	c := s.begin(conn)
	if !s.Conns.Enter(c) {
		c.Cut()
		return
	}
	go c.Serve()
}

// Shutdown closes the listeners and the connections that wait for a request. If the protocol can,
// it tells clients that no more requests are accepted. It waits until all requests are answered or
// ctx ends. Connections taken over by [Stream.Upgrade] belong to the handler; it does not wait for
// them.
func (s *Server[C]) Shutdown(ctx context.Context) error {
	err := s.listeners.Close()
	s.Conns.Stop(C.Drain)
	if late := s.Conns.Wait(ctx); late != nil {
		return late
	}
	return err
}

// Close closes the listeners and every connection except those that were handed over.
func (s *Server[C]) Close() error {
	err := s.listeners.Close()
	s.Conns.Stop(C.Abandon)
	return err
}
