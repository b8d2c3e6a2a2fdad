package h1

import (
	"net"
	"sync/atomic"
	"time"

	"sallyport/proxy/wire"
)

// Server serves HTTP/1.1 and HTTP/1.0, with one goroutine per connection. On a *tls.Conn, ALPN must
// not have chosen "h2". Upgraded connections belong to their handler; Shutdown and Close ignore
// them. It is safe for concurrent use.
//
// Requests have no timers. A few times a second a sweep over the busy connections ends those that
// wait too long. It starts to watch for the departure of clients whose requests take long, and
// moves idle connections to goroutines with small stacks. So HeadTime and IdleTime may be exceeded
// by two sweeps.
type Server struct {
	*wire.Server[*serverConn]
	handle  wire.Handler
	options atomic.Pointer[wire.ServerOptions] // for new connections
	bufs    wire.Buffers
	dates   *wire.Dates
}

// NewServer returns a server that hands every request to h. A request that it refuses to read
// further has a [message.Head] Fault.
func NewServer(h wire.Handler, o wire.ServerOptions) *Server {
	o = o.WithDefaults()
	s := &Server{handle: h, dates: wire.NewDates(appendDate)}
	s.options.Store(&o)
	conns := wire.NewRegister[*serverConn](period(&o), o.Clock, nil)
	s.Server = wire.NewServer(conns, func(conn net.Conn) *serverConn { return newServerConn(s, conn) })
	return s
}

// SetOptions changes the limits for new connections; open ones keep theirs. It does not change
// Scheme and Clock.
func (s *Server) SetOptions(o wire.ServerOptions) {
	before := s.options.Load()
	o.Scheme, o.Clock = before.Scheme, before.Clock
	o = o.WithDefaults()
	s.options.Store(&o)
	s.Conns.SetPeriod(period(&o))
}

func period(o *wire.ServerOptions) time.Duration { return wire.Period(min(o.HeadTime, o.IdleTime)) }
