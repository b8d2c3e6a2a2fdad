package h2

import (
	"context"
	"errors"
	"net"
	"sync"
	"sync/atomic"
	"time"

	"sallyport/proxy/message"
	"sallyport/proxy/wire"
	"sallyport/proxy/wire/h1"
)

// ServerOptions bound what a client may take. Zero values stand for the defaults.
type ServerOptions struct {
	HeadBytes int           // largest request head, decoded, with 32 bytes for each field; 32 KiB
	Fields    int           // field lines of a request head; [message.MaxFields]
	HeadTime  time.Duration // for a TLS handshake that is still to be done, the preface, and each header block; 10 s
	IdleTime  time.Duration // between requests of a connection; 2 min
	WriteTime time.Duration // for a write that the client does not take; 30 s
	Streams   int           // requests in flight on a connection; 100

	// Resets is how many streams may end in RST_STREAM, sent by either side before
	// the answer was, more than are answered: 200. A tenth comes back each second.
	Resets int
	// Frames is how many frames may come that bring a request no further, such as PING,
	// SETTINGS, PRIORITY, empty DATA and WINDOW_UPDATE, more than requests and answers
	// give cause for: 1000. A tenth comes back each second.
	Frames int

	// StreamWindow and ConnWindow are up to how many bytes of content that nobody has
	// read yet may wait for a stream, 1 MiB, and on a connection, 4 MiB. Clients are
	// granted a quarter of it at first, and more while content is read as it comes.
	StreamWindow, ConnWindow int

	// Otherwise takes over connections without TLS that do not begin as HTTP/2 does,
	// with what they began with; they are closed if it is nil.
	Otherwise func(net.Conn)

	// Scheme is how clients reached whoever is in front, where a connection without
	// TLS does not tell; "http" if empty.
	Scheme string
}

func (o ServerOptions) withDefaults() ServerOptions {
	o.HeadBytes = or(o.HeadBytes, 32<<10)
	o.Fields = or(o.Fields, message.MaxFields)
	o.HeadTime = or(o.HeadTime, 10*time.Second)
	o.IdleTime = or(o.IdleTime, 2*time.Minute)
	o.WriteTime = or(o.WriteTime, 30*time.Second)
	o.Streams = or(o.Streams, 100)
	o.Resets = or(o.Resets, 200)
	o.Frames = or(o.Frames, 1000)
	o.StreamWindow = min(max(or(o.StreamWindow, 1<<20), startWindow), maxWindow)
	o.ConnWindow = min(max(or(o.ConnWindow, 4<<20), startWindow), maxWindow)
	if o.Scheme == "" {
		o.Scheme = "http"
	}
	return o
}

func or[T int | time.Duration](v, d T) T {
	if v <= 0 {
		return d
	}
	return v
}

// Server serves HTTP/2 on connections: one goroutine reads each, and each request has
// one while it is served. It is safe for concurrent use.
//
// No timer is set for a connection or a request: one sweep over all connections, a
// few times a second, ends what takes too long. Times are so a sweep late.
type Server struct {
	handle  wire.Handler
	options ServerOptions
	period  time.Duration // from sweep to sweep
	bufs    h1.Buffers
	dates   dates
	crew    crew
	widened atomic.Int64 // by how much windows of connections are wider than at first

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
	o = o.withDefaults()
	return &Server{
		handle:    h,
		options:   o,
		period:    min(max(min(o.HeadTime, o.IdleTime, o.WriteTime)/8, 5*time.Millisecond), 250*time.Millisecond),
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
// *tls.Conn, ALPN must have chosen "h2"; without TLS the client must know that
// HTTP/2 is spoken.
func (s *Server) ServeConn(conn net.Conn) {
	c := newServerConn(s, conn)
	if !s.enter(c) {
		c.cut()
		return
	}
	go c.serve()
}

// Shutdown closes the listeners, tells every client that no more requests are taken,
// and waits until all requests are answered or ctx ends, tunnels too.
func (s *Server) Shutdown(ctx context.Context) error {
	err := s.stop((*serverConn).drain)
	select {
	case <-s.empty:
		return err
	case <-ctx.Done():
		return ctx.Err()
	}
}

// Close closes the listeners and cuts every connection.
func (s *Server) Close() error { return s.stop((*serverConn).abandon) }

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

// maxWidened bounds by how much the windows of all connections may be wider than at
// first: many clients that upload at once share it.
const maxWidened = 256 << 20

// widen says whether a connection's window may grow by so many bytes.
func (s *Server) widen(n int) bool {
	if s.widened.Add(int64(n)) > maxWidened {
		s.widened.Add(int64(-n))
		return false
	}
	return true
}

// leave takes a connection out that has ended, with all of its requests.
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
	resting := s.crew.thin(len(s.conns) == 0)
	if s.sweeping = len(s.conns) > 0 || resting; s.sweeping {
		s.sweeps.Reset(s.period)
	}
}
