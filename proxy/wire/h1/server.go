package h1

import (
	"context"
	"errors"
	"net"
	"sync"
	"sync/atomic"
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
}

// Server serves HTTP/1.1 and HTTP/1.0 on connections, one goroutine each. It is
// safe for concurrent use.
//
// No timer is set for a request: one sweep over all connections, a few times a
// second, ends those that wait for too long, and begins to watch the clients of
// requests that take long. HeadTime and IdleTime are so a sweep late.
type Server struct {
	handle  wire.Handler
	options ServerOptions
	period  time.Duration // from sweep to sweep
	bufs    Buffers
	dates   dates

	draining atomic.Bool

	mu        sync.Mutex // guards what follows
	listeners map[net.Listener]struct{}
	conns     map[*serverConn]struct{}
	sweeps    *time.Timer // nil or at rest while there are no connections
	sweeping  bool
	empty     chan struct{} // closed when the server drains and no connection is left
	ended     bool          // empty is closed
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
	return &Server{
		handle:    h,
		options:   o,
		period:    min(max(min(o.HeadTime, o.IdleTime)/8, 5*time.Millisecond), 250*time.Millisecond),
		listeners: map[net.Listener]struct{}{},
		conns:     map[*serverConn]struct{}{},
		empty:     make(chan struct{}),
	}
}

// Serve accepts connections until Shutdown or Close, after which it returns nil,
// or until the listener fails. It closes the listener.
func (s *Server) Serve(l net.Listener) error {
	defer l.Close()
	if !s.enterListener(l) {
		return nil
	}
	defer s.leaveListener(l)
	for {
		conn, err := l.Accept()
		if err != nil {
			if s.draining.Load() {
				return nil
			}
			return err
		}
		s.ServeConn(conn)
	}
}

// ServeConn takes a connection over and serves it in a goroutine of its own,
// which Shutdown waits for. After Shutdown or Close it is closed at once. On a
// *tls.Conn, ALPN must not have chosen "h2".
func (s *Server) ServeConn(conn net.Conn) {
	c := newServerConn(s, conn)
	if !s.enter(c) {
		c.cut()
		return
	}
	go c.serve()
}

// Shutdown closes the listeners and the connections that wait for a request, and
// waits until all requests are answered or ctx ends. Upgraded connections are not
// waited for: they are their handler's.
func (s *Server) Shutdown(ctx context.Context) error {
	err := s.stop(func(c *serverConn) { c.drain() })
	select {
	case <-s.empty:
		return err
	case <-ctx.Done():
		return ctx.Err()
	}
}

// Close closes the listeners and cuts every connection that is not upgraded.
func (s *Server) Close() error { return s.stop(func(c *serverConn) { c.abandon() }) }

// stop closes the listeners and does something with each connection.
func (s *Server) stop(each func(*serverConn)) error {
	s.draining.Store(true)
	s.mu.Lock()
	defer s.mu.Unlock()
	var errs []error
	for l := range s.listeners {
		if err := l.Close(); !errors.Is(err, net.ErrClosed) {
			errs = append(errs, err)
		}
	}
	clear(s.listeners)
	for c := range s.conns {
		each(c)
	}
	s.noteEnd()
	return errors.Join(errs...)
}

// noteEnd is called with mu held.
func (s *Server) noteEnd() {
	if s.draining.Load() && len(s.conns) == 0 && !s.ended {
		s.ended = true
		close(s.empty)
	}
}

func (s *Server) enterListener(l net.Listener) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.draining.Load() {
		return false
	}
	s.listeners[l] = struct{}{}
	return true
}

func (s *Server) leaveListener(l net.Listener) {
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.listeners, l)
}

func (s *Server) enter(c *serverConn) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.draining.Load() {
		return false
	}
	s.conns[c] = struct{}{}
	if !s.sweeping {
		s.sweeping = true
		if s.sweeps == nil {
			s.sweeps = time.AfterFunc(s.period, s.sweep)
		} else {
			s.sweeps.Reset(s.period)
		}
	}
	return true
}

// leave may be called more than once.
func (s *Server) leave(c *serverConn) {
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.conns, c)
	s.noteEnd()
}

// sweep looks at every connection, as long as there are any.
func (s *Server) sweep() {
	now := time.Now()
	s.mu.Lock()
	defer s.mu.Unlock()
	for c := range s.conns {
		c.look(now)
	}
	if s.sweeping = len(s.conns) > 0; s.sweeping {
		s.sweeps.Reset(s.period)
	}
}
