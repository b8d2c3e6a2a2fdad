package h2

import (
	"net"
	"sync/atomic"
	"time"

	"sallyport/proxy/wire"
)

// ServerOptions bound what a client may take. Zero values stand for the defaults. A head
// is measured decoded, with 32 bytes for each field; HeadTime is also for the preface and
// for each header block.
type ServerOptions struct {
	wire.ServerOptions

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
}

func (o ServerOptions) withDefaults() ServerOptions {
	o.ServerOptions = o.ServerOptions.WithDefaults()
	o.WriteTime = or(o.WriteTime, 30*time.Second)
	o.Streams = or(o.Streams, 100)
	o.Resets = or(o.Resets, 200)
	o.Frames = or(o.Frames, 1000)
	o.StreamWindow = min(max(or(o.StreamWindow, 1<<20), startWindow), maxWindow)
	o.ConnWindow = min(max(or(o.ConnWindow, 4<<20), startWindow), maxWindow)
	return o
}

func or[T int | time.Duration](v, d T) T {
	if v <= 0 {
		return d
	}
	return v
}

// Server serves HTTP/2 on connections: one goroutine reads each, and each request has
// one while it is served. On a *tls.Conn, ALPN must have chosen "h2"; without TLS the
// client must know that HTTP/2 is spoken. Shutdown waits for tunnels too, and Close cuts
// them. It is safe for concurrent use.
//
// No timer is set for a connection or a request: a sweep over the connections that are
// busy, a few times a second, ends what takes too long. Times are so a sweep late.
type Server struct {
	*wire.Server[*serverConn]
	handle  wire.Handler
	options atomic.Pointer[ServerOptions] // of connections that are still to come
	bufs    wire.Buffers
	dates   *wire.Dates
	crew    crew
	widened atomic.Int64 // by how much windows of connections are wider than at first
}

// NewServer returns a server that hands every request to h, also those that it refuses to
// read further: their head has a [message.Head] Fault.
func NewServer(h wire.Handler, o ServerOptions) *Server {
	o = o.withDefaults()
	s := &Server{handle: h, dates: wire.NewDates(appendDate)}
	s.options.Store(&o)
	conns := wire.NewRegister[*serverConn](period(&o), o.Clock, s.crew.thin)
	s.Server = wire.NewServer(conns, func(conn net.Conn) *serverConn { return newServerConn(s, conn) })
	return s
}

// SetOptions bounds what clients may take on connections that are still to come; those
// that are open keep their bounds. Scheme, Clock and Otherwise stay as they are.
func (s *Server) SetOptions(o ServerOptions) {
	before := s.options.Load()
	o.Scheme, o.Clock, o.Otherwise = before.Scheme, before.Clock, before.Otherwise
	o = o.withDefaults()
	s.options.Store(&o)
	s.Conns.SetPeriod(period(&o))
}

func period(o *ServerOptions) time.Duration {
	return wire.Period(min(o.HeadTime, o.IdleTime, o.WriteTime))
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
