package wire

import (
	"cmp"
	"context"
	"net"
	"time"

	"sallyport/proxy/message"
)

// ServerOptions bound what a client may take, whichever version of HTTP it speaks. Zero
// values stand for the defaults.
type ServerOptions struct {
	HeadBytes int           // largest request head; 32 KiB
	Fields    int           // field lines of a request head; [message.MaxFields]
	HeadTime  time.Duration // for a whole request head, and for a TLS handshake that is still to be done; 10 s
	IdleTime  time.Duration // between requests of a connection; 2 min
	Requests  int           // on one connection, which takes no more after the last; 0: no bound
	Linger    time.Duration // for the rest of a request that was answered early, and to read the last answer; 1 s

	// Scheme is how clients reached whoever is in front, where a connection without
	// TLS does not tell; "http" if empty.
	Scheme string
	// Clock may be shared with others that serve the same requests; one of its own if nil.
	Clock *Clock
}

// WithDefaults is a copy in which no value stands for a default any more.
func (o ServerOptions) WithDefaults() ServerOptions {
	o.HeadBytes = cmp.Or(max(o.HeadBytes, 0), 32<<10)
	o.Fields = cmp.Or(max(o.Fields, 0), message.MaxFields)
	o.HeadTime = cmp.Or(max(o.HeadTime, 0), 10*time.Second)
	o.IdleTime = cmp.Or(max(o.IdleTime, 0), 2*time.Minute)
	o.Linger = cmp.Or(max(o.Linger, 0), time.Second)
	if o.Scheme == "" {
		o.Scheme = "http"
	}
	if o.Clock == nil {
		o.Clock = new(Clock)
	}
	return o
}

// Period is how often to sweep where bounds as short as d must not be missed by much.
func Period(d time.Duration) time.Duration { return min(max(d/8, 5*time.Millisecond), Lag) }

// Served is a connection that a [Server] serves.
type Served interface {
	Looked
	Serve()   // serves it to its end, calls [Register.Leave], and returns
	Drain()   // lets no further request begin
	Abandon() // closes it, whatever it is doing
	Cut()     // closes it before anything has begun
}

// Server is the part of a server of HTTP that does not depend on the version: it accepts
// connections, keeps them in a register, and ends them. It is safe for concurrent use;
// [NewServer] makes one.
type Server[C Served] struct {
	Conns *Register[C] // for the engine whose connections these are

	listeners Listeners
	begin     func(net.Conn) C
}

// NewServer makes a server. begin, which is called once for each connection and must not
// wait for anything, makes what serves it.
func NewServer[C Served](conns *Register[C], begin func(net.Conn) C) *Server[C] {
	return &Server[C]{Conns: conns, begin: begin}
}

// Serve accepts connections from l until its owner closes l, or until Shutdown or Close:
// then it returns nil, and connections that l has accepted are served on. If l fails for
// any other reason, Serve closes it and returns the error. Any number of listeners may be
// served at the same time.
func (s *Server[C]) Serve(l net.Listener) error { return s.listeners.Serve(l, s.ServeConn) }

// ServeConn takes a connection over and serves it in a goroutine of its own, which
// Shutdown waits for. After Shutdown or Close it closes the connection at once. The
// engine must speak the protocol that ALPN chose on a *tls.Conn.
func (s *Server[C]) ServeConn(conn net.Conn) {
	c := s.begin(conn)
	if !s.Conns.Enter(c) {
		c.Cut()
		return
	}
	go c.Serve()
}

// Shutdown closes the listeners and the connections that wait for a request, tells
// clients, where the protocol can, that no more requests are taken, and waits until all
// requests are answered or ctx ends. Connections that [Stream.Upgrade] has handed over
// whole are not waited for: they belong to the handler.
func (s *Server[C]) Shutdown(ctx context.Context) error {
	err := s.listeners.Close()
	s.Conns.Stop(C.Drain)
	if late := s.Conns.Wait(ctx); late != nil {
		return late
	}
	return err
}

// Close closes the listeners and every connection, but those that were handed over.
func (s *Server[C]) Close() error {
	err := s.listeners.Close()
	s.Conns.Stop(C.Abandon)
	return err
}
