package h1

import (
	"net"
	"sync/atomic"
	"time"

	"sallyport/proxy/wire"
)

// Server serves HTTP/1.1 and HTTP/1.0 on connections, one goroutine each at a time. On a
// *tls.Conn, ALPN must not have chosen "h2". Upgraded connections are their handler's:
// neither Shutdown nor Close cares for them. It is safe for concurrent use.
//
// No timer is set for a request: a sweep over the connections that are busy, a few times
// a second, ends those that wait for too long, begins to watch the clients of requests
// that take long, and moves idle connections to goroutines with small stacks. So HeadTime
// and IdleTime are up to two sweeps late.
type Server struct {
	*wire.Server[*serverConn]
	handle  wire.Handler
	options atomic.Pointer[wire.ServerOptions] // of connections that are still to come
	bufs    wire.Buffers
	dates   *wire.Dates
}

// NewServer returns a server that hands every request to h, also those that it refuses to
// read further: their head has a [message.Head] Fault.
func NewServer(h wire.Handler, o wire.ServerOptions) *Server {
	o = o.WithDefaults()
	s := &Server{handle: h, dates: wire.NewDates(appendDate)}
	s.options.Store(&o)
	conns := wire.NewRegister[*serverConn](period(&o), o.Clock, nil)
	s.Server = wire.NewServer(conns, func(conn net.Conn) *serverConn { return newServerConn(s, conn) })
	return s
}

// SetOptions bounds what clients may take on connections that are still to come; those
// that are open keep their bounds. Scheme and Clock stay as they are.
func (s *Server) SetOptions(o wire.ServerOptions) {
	before := s.options.Load()
	o.Scheme, o.Clock = before.Scheme, before.Clock
	o = o.WithDefaults()
	s.options.Store(&o)
	s.Conns.SetPeriod(period(&o))
}

func period(o *wire.ServerOptions) time.Duration { return wire.Period(min(o.HeadTime, o.IdleTime)) }
