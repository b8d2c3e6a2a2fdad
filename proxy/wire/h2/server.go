package h2

import (
	"net"
	"sync/atomic"
	"time"

	"sallyport/proxy/wire"
)

// ServerOptions limit what a client may take. Zero values mean the defaults. The size of a head is
// that of its decoded fields, plus 32 bytes each. HeadTime also limits the preface and each header
// block.
type ServerOptions struct {
	wire.ServerOptions

	WriteTime time.Duration // for a blocked write; 30 s
	// PingTime is how long a client with open streams may be silent before the server sends PING. The
	// client has twice as long to answer, because a slow line may have to carry content before the
	// PING. 30 s.
	PingTime time.Duration
	Streams  int // requests in flight on a connection; 100

	// Resets limits streams that end in RST_STREAM, from either side, before their answer: 200 more
	// than are answered. A tenth is restored each second.
	Resets int
	// Frames limits unproductive frames, such as PING, SETTINGS, PRIORITY, empty DATA and
	// WINDOW_UPDATE: 1000 beyond what requests and answers account for. A tenth is restored each
	// second.
	Frames int

	// StreamWindow and ConnWindow limit the unread content of a stream, 1 MiB, and of a connection,
	// 4 MiB. Clients are first granted a quarter, and more while content is read as fast as it
	// arrives.
	StreamWindow, ConnWindow int

	// Otherwise takes over connections without TLS that do not begin with the HTTP/2 preface. The
	// connection still returns the bytes read. If nil, such connections are closed.
	Otherwise func(net.Conn)
}

func (o ServerOptions) withDefaults() ServerOptions {
	o.ServerOptions = o.ServerOptions.WithDefaults()
	o.WriteTime = or(o.WriteTime, 30*time.Second)
	o.PingTime = or(o.PingTime, 30*time.Second)
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

// Server serves HTTP/2 connections. One goroutine reads each connection, and each request being
// served has one. On a *tls.Conn, ALPN must have chosen "h2"; without TLS the client must know in
// advance that the server speaks HTTP/2. Shutdown waits for tunnels too, and Close cuts them. It is
// safe for concurrent use.
//
// Connections and requests have no timers. A few times a second a sweep over the busy connections
// ends whatever takes too long, so limits may be exceeded by one sweep.
type Server struct {
	*wire.Server[*serverConn]
	handle  wire.Handler
	options atomic.Pointer[ServerOptions] // for new connections
	bufs    wire.Buffers
	dates   *wire.Dates
	crew    crew
	widened atomic.Int64 // how far all connection windows exceed their initial size
}

// NewServer returns a server that hands every request to h. A request that it refuses to read
// further has a [message.Head] Fault.
func NewServer(h wire.Handler, o ServerOptions) *Server {
	o = o.withDefaults()
	s := &Server{handle: h, dates: wire.NewDates(appendDate)}
	s.options.Store(&o)
	conns := wire.NewRegister[*serverConn](period(&o), o.Clock, s.crew.thin)
	s.Server = wire.NewServer(conns, func(conn net.Conn) *serverConn { return newServerConn(s, conn) })
	return s
}

// SetOptions changes the limits for new connections; open ones keep theirs. It does not change
// Scheme, Clock and Otherwise.
func (s *Server) SetOptions(o ServerOptions) {
	before := s.options.Load()
	o.Scheme, o.Clock, o.Otherwise = before.Scheme, before.Clock, before.Otherwise
	o = o.withDefaults()
	s.options.Store(&o)
	s.Conns.SetPeriod(period(&o))
}

func period(o *ServerOptions) time.Duration {
	return wire.Period(min(o.HeadTime, o.IdleTime, o.WriteTime, o.PingTime))
}

// maxWidened limits how far the windows of all connections together may exceed their initial size.
// Many concurrent uploads share it.
const maxWidened = 256 << 20

// widen reports whether a connection's window may grow by n bytes, and counts them.
func (s *Server) widen(n int) bool {
	if s.widened.Add(int64(n)) > maxWidened {
		s.widened.Add(int64(-n))
		return false
	}
	return true
}
