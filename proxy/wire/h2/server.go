package h2

import (
	"context"
	"net"
	"sync/atomic"
	"time"

	"sallyport/proxy/message"
	"sallyport/proxy/wire"
)

// ServerOptions bound what a client may take. Zero values stand for the defaults.
type ServerOptions struct {
	HeadBytes int           // largest request head, decoded, with 32 bytes for each field; 32 KiB
	Fields    int           // field lines of a request head; [message.MaxFields]
	HeadTime  time.Duration // for a TLS handshake that is still to be done, the preface, and each header block; 10 s
	IdleTime  time.Duration // between requests of a connection; 2 min
	WriteTime time.Duration // for a write that the client does not take; 30 s
	Streams   int           // requests in flight on a connection; 100
	Requests  int           // on one connection, which takes no more after the last; 0: no bound
	Linger    time.Duration // for the rest of a request that was answered early, and to read the last answers; 1 s

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
	// Clock may be shared with others that serve the same requests; one of its own if nil.
	Clock *wire.Clock
}

func (o ServerOptions) withDefaults() ServerOptions {
	o.HeadBytes = or(o.HeadBytes, 32<<10)
	o.Fields = or(o.Fields, message.MaxFields)
	o.HeadTime = or(o.HeadTime, 10*time.Second)
	o.IdleTime = or(o.IdleTime, 2*time.Minute)
	o.WriteTime = or(o.WriteTime, 30*time.Second)
	o.Streams = or(o.Streams, 100)
	o.Linger = or(o.Linger, lingering)
	o.Resets = or(o.Resets, 200)
	o.Frames = or(o.Frames, 1000)
	o.StreamWindow = min(max(or(o.StreamWindow, 1<<20), startWindow), maxWindow)
	o.ConnWindow = min(max(or(o.ConnWindow, 4<<20), startWindow), maxWindow)
	if o.Clock == nil {
		o.Clock = new(wire.Clock)
	}
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
	bufs    wire.Buffers
	dates   dates
	crew    crew
	widened atomic.Int64 // by how much windows of connections are wider than at first
	conns   *wire.Register[*serverConn]
}

// NewServer returns a server that hands every request to h, those too that it
// refuses to read further: their head has a [message.Head] Fault.
func NewServer(h wire.Handler, o ServerOptions) *Server {
	o = o.withDefaults()
	s := &Server{handle: h, options: o}
	s.conns = wire.NewRegister[*serverConn](min(max(min(o.HeadTime, o.IdleTime, o.WriteTime)/8, 5*time.Millisecond), wire.Lag), o.Clock, s.crew.thin)
	return s
}

// Serve accepts connections until Shutdown or Close, after which it returns nil,
// or until the listener fails. It closes the listener.
func (s *Server) Serve(l net.Listener) error { return s.conns.Serve(l, s.ServeConn) }

// ServeConn takes a connection over and serves it in a goroutine of its own,
// which Shutdown waits for. After Shutdown or Close it is closed at once. On a
// *tls.Conn, ALPN must have chosen "h2"; without TLS the client must know that
// HTTP/2 is spoken.
func (s *Server) ServeConn(conn net.Conn) {
	c := newServerConn(s, conn)
	if !s.conns.Enter(c) {
		c.cut()
		return
	}
	go c.serve()
}

// Shutdown closes the listeners, tells every client that no more requests are taken,
// and waits until all requests are answered or ctx ends, tunnels too.
func (s *Server) Shutdown(ctx context.Context) error {
	err := s.conns.Stop((*serverConn).drain)
	if late := s.conns.Wait(ctx); late != nil {
		return late
	}
	return err
}

// Close closes the listeners and cuts every connection.
func (s *Server) Close() error { return s.conns.Stop((*serverConn).abandon) }

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
