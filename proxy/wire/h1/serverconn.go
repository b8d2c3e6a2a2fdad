package h1

import (
	"crypto/tls"
	"errors"
	"io"
	"net"
	"os"
	"sync"
	"time"

	"sallyport/proxy/wire"
	"sallyport/proxy/wire/socket"
)

const (
	// skippedBytes limits how much unread content is skipped to keep the connection open.
	skippedBytes = 256 << 10
	// late bounds how late a deadline may take effect. Setting one costs as much as encrypting a
	// small request, so one deadline covers several requests.
	late = time.Second
)

// phase is the state of a connection.
type phase uint8

const (
	waiting phase = iota // waits for the first byte of a request
	heading              // reads a head
	serving              // the handler runs
	leaving              // accepts no more requests
)

// moving is an idle connection's progress towards a new goroutine. The old one's stack grew with a
// request or a handshake, and would not shrink while it waits.
type moving uint8

const (
	fresh  moving = iota // has just begun to wait
	idle                 // a sweep has seen it waiting
	called               // a sweep has woken it to start a new goroutine
	moved                // waits in the new goroutine
)

// serverConn is one connection of a server. Its goroutine reads a request, serves it, and reads the
// next. While the handler runs, another goroutine may read the body. After the end of the body, if
// the request takes long, a third watches for the client to leave. Only one of them reads at any
// time.
type serverConn struct {
	srv     *Server
	options *wire.ServerOptions
	conn    net.Conn
	about   wire.Conn
	in      reader
	first   [1]byte // buffer for long waits, which hold no pooled buffer

	served int  // requests, including the current one
	shaken bool // the TLS handshake, if any, is complete

	mu       sync.Mutex // guards the fields below
	phase    phase
	due      time.Time     // the deadline of waiting or heading
	expired  bool          // due has passed, or the server drains: read no more requests
	moving   moving        // progress towards a goroutine with a small stack
	readBy   time.Time     // the read deadline set on conn
	bodyBy   time.Time     // the handler's deadline for reads of the body
	reading  bool          // a read of the body is in progress
	stream   *stream       // not nil while serving
	quiet    bool          // the body was read to its end and nothing after it
	seen     bool          // a sweep has seen this request being served
	watching chan struct{} // closed when the watch ends; nil: no watch
	early    bool          // the watch read a byte of the next request
	resting  bool          // sweeps do not look until Wake

	wmu     sync.Mutex // guards writes of the connection and the field below
	writeBy time.Time  // the write deadline set on conn
}

func newServerConn(s *Server, conn net.Conn) *serverConn {
	o := s.options.Load()
	c := &serverConn{srv: s, conn: conn, options: o, phase: heading, due: o.Clock.After(o.HeadTime)}
	c.about = wire.NewConn(wire.PeerOf(conn.RemoteAddr()), wire.PeerOf(conn.LocalAddr()))
	c.in = reader{conn: (*connReader)(c), bufs: &s.bufs, before: func() error { return nil }}
	return c
}

// Serve implements [wire.Served]. It runs in the connection's goroutine and again in the new one
// that an idle connection moves to.
func (c *serverConn) Serve() {
	if c.requests() {
		go c.Serve()
		return
	}
	c.srv.Conns.Leave(c)
}

// requests serves requests until the connection ends, or until it must move.
func (c *serverConn) requests() (move bool) {
	defer c.contain()
	if !c.shaken && !c.shakeHands() {
		c.Cut()
		return false
	}
	c.shaken = true
	for c.await() {
		s := c.readHead()
		if s == nil {
			break // the client has left
		}
		if c.served++; c.served == c.options.Requests {
			s.CloseAfter()
		}
		if !c.exchange(s) {
			return false
		}
	}
	if c.moves() {
		return true
	}
	c.in.release()
	_ = c.conn.Close() // the error has no receiver
	return false
}

// moves reports whether the connection continues in a new goroutine.
func (c *serverConn) moves() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.moving != called || c.expired || c.phase != waiting {
		return false
	}
	c.moving = moved
	return true
}

// contain closes the connection if the handler panicked, so that its answer does not look complete.
// The handler itself has reported the panic.
func (c *serverConn) contain() {
	if recover() != nil {
		c.Abandon()
	}
}

// shakeHands completes the TLS handshake if the listener has not.
func (c *serverConn) shakeHands() bool {
	t, ok := c.conn.(*tls.Conn)
	if !ok {
		return true
	}
	if t.Handshake() != nil {
		return false
	}
	state := t.ConnectionState()
	c.about.TLS, c.about.ClientPolicy = &state, wire.ClientPolicyOf(t)
	return state.NegotiatedProtocol != "h2"
}

// await waits for the first byte of a request, without holding a buffer, and reports whether it
// came. The limit is HeadTime for the first request of a connection and IdleTime for later ones.
func (c *serverConn) await() bool {
	if c.in.buffered() == 0 {
		c.in.release()
		d := c.options.IdleTime
		if c.served == 0 {
			d = c.options.HeadTime
		}
		if !c.hasMoved() && !c.enter(waiting, d) {
			return false
		}
		if n, _ := c.in.conn.Read(c.first[:]); n == 0 {
			return false
		}
		c.in.unread(c.first[0])
	}
	return c.enter(heading, c.options.HeadTime)
}

// hasMoved reports whether await resumes a wait that began in the previous goroutine.
func (c *serverConn) hasMoved() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.moving == moved
}

// enter begins a phase of at most d. It returns false if the connection must end.
func (c *serverConn) enter(p phase, d time.Duration) bool {
	c.mu.Lock()
	if c.phase == waiting {
		c.expired = false // the byte arrived in time
	}
	c.moving = fresh
	c.phase, c.due = p, c.options.Clock.After(d)
	goesOn := !c.expired && (p != waiting || !c.srv.Conns.Draining())
	rested := c.resting
	c.resting = false
	c.mu.Unlock()
	if rested {
		c.srv.Conns.Wake(c)
	}
	return goesOn
}

// longest is how long sweeps skip a request whose client is already watched: only its handler can
// end it.
const longest = time.Hour

// Look implements [wire.Looked]. It skips a connection whose mutex is held.
func (c *serverConn) Look(now time.Time) (until time.Time) {
	if !c.mu.TryLock() {
		return time.Time{}
	}
	defer c.mu.Unlock()
	switch c.phase {
	case waiting, heading:
		switch {
		case !now.Before(c.due):
			c.expire()
		case c.phase == heading:
		case c.moving == fresh:
			c.moving = idle
		case c.moving == idle:
			c.moving = called
			c.setRead(longAgo)
		case c.moving == moved:
			until = c.due
		}
	case serving:
		switch {
		case c.watching != nil:
			until = now.Add(longest)
		case c.seen && c.quiet && c.stream != nil:
			c.watch()
		}
		c.seen = true
	}
	c.resting = !until.IsZero()
	return until
}

// Drain implements [wire.Served]: it ends the connection if it is waiting for a request.
func (c *serverConn) Drain() {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.phase == waiting {
		c.expire()
	}
}

// expire makes reads fail in the phases waiting and heading; mu is held.
func (c *serverConn) expire() {
	c.expired = true
	c.setRead(longAgo)
}

// setRead is called with mu held.
func (c *serverConn) setRead(t time.Time) {
	c.readBy = t
	_ = c.conn.SetReadDeadline(t) // fails only on a closed connection, where reads fail too
}

// connReader reads the connection under the deadline of its phase.
type connReader serverConn

func (r *connReader) Read(p []byte) (int, error) {
	c := (*serverConn)(r)
	if err := c.beforeRead(); err != nil {
		return 0, err
	}
	n, err := c.conn.Read(p)
	c.mu.Lock()
	c.reading = false
	c.mu.Unlock()
	return n, err
}

func (c *serverConn) beforeRead() error {
	c.mu.Lock()
	defer c.mu.Unlock()
	var by time.Time
	if c.phase != serving {
		if c.expired {
			return os.ErrDeadlineExceeded
		}
	} else if by = c.bodyBy; !by.IsZero() {
		by = by.Add(c.slack(by))
	}
	if c.reading = c.phase == serving; !c.covers(c.readBy, by) {
		c.setRead(by)
	}
	return nil
}

// slack is how much later than requested a deadline is set, so that it also covers the next
// requests.
func (c *serverConn) slack(by time.Time) time.Duration {
	return max(0, min(by.Sub(c.options.Clock.Now())/8, late))
}

// covers reports whether the current deadline can replace the wanted one, to which slack was
// already added. It may be earlier by at most the slack, but not later.
func (c *serverConn) covers(set, wanted time.Time) bool {
	if set.IsZero() || wanted.IsZero() {
		return set.IsZero() && wanted.IsZero()
	}
	early := wanted.Sub(set)
	return early >= 0 && early <= c.slack(wanted)
}

// boundBody sets the deadline for reads of the body, including one that is under way.
func (c *serverConn) boundBody(t time.Time) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.phase != serving || c.quiet {
		return // there is no body to read
	}
	if c.bodyBy = t; c.reading {
		c.setRead(t)
	}
}

// exchange passes a request to the handler and cleans up after it. It reports whether another
// request may follow. If not, it has closed the connection or the handler has taken it over.
func (c *serverConn) exchange(s *stream) bool {
	c.mu.Lock()
	c.phase, c.stream, c.seen, c.early, c.bodyBy = serving, s, false, false, time.Time{}
	c.quiet = s.body.err != nil && c.in.buffered() == 0
	quiet := c.quiet
	c.mu.Unlock()
	if quiet {
		c.in.release()
	}

	c.srv.handle(s)

	s.life.End(nil)
	if s.upgraded {
		return false
	}
	c.stopWatch()
	if s.Finished && s.Flush() != nil {
		s.Finished = false
	}
	switch {
	case !s.Finished:
		s.giveBack()
		c.cutAnswer(s)
	case s.closing && s.body.err == io.EOF && s.head.Fault == nil && c.in.buffered() == 0:
		c.in.release()
		_ = c.conn.Close()
	case s.closing, !c.skip(&s.body):
		c.linger()
	default:
		return true
	}
	return false
}

// bodyEnded records that the body was read to its end.
func (c *serverConn) bodyEnded() {
	quiet := c.in.buffered() == 0
	if quiet {
		c.in.release()
	}
	c.mu.Lock()
	c.quiet = quiet
	c.mu.Unlock()
}

// watch starts a goroutine that waits for the client to leave; mu is held. The first byte of an
// early next request ends the watch: after that, the client's departure cannot be detected.
func (c *serverConn) watch() {
	done, s := make(chan struct{}), c.stream
	c.watching = done
	if !c.readBy.IsZero() {
		c.setRead(time.Time{})
	}
	go func() {
		defer close(done)
		n, err := c.conn.Read(c.first[:])
		c.early = n == 1
		if err != nil && !errors.Is(err, os.ErrDeadlineExceeded) {
			s.life.End(err)
		}
	}()
}

// stopWatch ends the watch, if any, and the phase.
func (c *serverConn) stopWatch() {
	c.mu.Lock()
	w := c.watching
	c.watching, c.stream, c.phase, c.due = nil, nil, leaving, time.Time{}
	if w != nil {
		c.setRead(longAgo)
	}
	c.mu.Unlock()
	if w == nil {
		return
	}
	<-w
	if c.early {
		c.in.unread(c.first[0])
	}
}

// skip reads the rest of the body that the handler left unread, within limits, so that the next
// request can follow. It reports whether it reached the end.
func (c *serverConn) skip(b *serverBody) bool {
	if b.err != nil {
		return b.err == io.EOF
	}
	c.mu.Lock()
	c.phase, c.bodyBy = serving, time.Now().Add(wire.Brief)
	c.mu.Unlock()
	buf := c.srv.bufs.Get(wire.SmallBuffer)
	defer c.srv.bufs.Put(buf)
	for left := skippedBytes; left > 0; {
		n, err := b.Read(buf.B[:cap(buf.B)])
		if err != nil {
			return err == io.EOF
		}
		left -= n
	}
	return false
}

// write writes all of p before the deadline by; zero means none.
func (c *serverConn) write(p []byte, by time.Time) error {
	c.wmu.Lock()
	defer c.wmu.Unlock()
	return c.writeLocked(p, by)
}

func (c *serverConn) writeLocked(p []byte, by time.Time) error {
	if !by.IsZero() {
		by = by.Add(c.slack(by))
	}
	if !c.covers(c.writeBy, by) {
		if err := c.conn.SetWriteDeadline(by); err != nil {
			return err
		}
		c.writeBy = by
	}
	_, err := c.conn.Write(p)
	return err
}

// linger closes the connection so that the client can still read the answer.
func (c *serverConn) linger() {
	c.in.release()
	buf := c.srv.bufs.Get(wire.LargeBuffer)
	defer c.srv.bufs.Put(buf)
	c.srv.Linger(c.conn, c.options.Linger, buf.B[:cap(buf.B)])
}

// cutAnswer closes the connection of an incomplete answer.
func (c *serverConn) cutAnswer(s *stream) {
	c.in.release()
	if s.Content == wire.Open && !s.chunked && c.about.TLS == nil {
		// Without TLS a close looks like a regular end; only a reset signals truncation.
		c.resetNext()
	}
	c.Cut()
}

// resetNext makes the next close of the connection send a reset.
func (c *serverConn) resetNext() {
	if l, ok := socket.Beneath(c.conn).(interface{ SetLinger(int) error }); ok {
		_ = l.SetLinger(0)
	}
}

// Cut implements [wire.Served].
func (c *serverConn) Cut() { wire.Cut(c.conn) }

// Abandon implements [wire.Served].
func (c *serverConn) Abandon() {
	c.mu.Lock()
	s := c.stream
	c.mu.Unlock()
	c.Cut()
	if s != nil {
		s.life.End(nil)
	}
}
