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
	// skippedBytes is how much unread content is read so that a connection can go on.
	skippedBytes = 256 << 10
	// late is by how much a deadline may be missed at most. Setting one costs as much as
	// encrypting a small request, so it is set late enough to serve for several.
	late = time.Second
)

// phase is what a connection does.
type phase uint8

const (
	waiting phase = iota // for the first byte of a request
	heading              // a head arrives
	serving              // the handler runs
	leaving              // no request will follow
)

// moving is how far an idle connection is on its way to a new goroutine. The stack of the
// old one grew with a request or a handshake, and would not shrink while it waits.
type moving uint8

const (
	fresh  moving = iota // it has just begun to wait
	idle                 // seen to wait by a sweep
	called               // woken by a sweep, to end its goroutine and start a new one
	moved                // waits in the new goroutine
)

// serverConn is one connection of a server. Its goroutine reads a request, serves
// it, and reads the next. While the handler runs, its body may be read by another
// goroutine; once that has ended, and the request takes long, a third waits for the
// client to go away. Only one of them reads at any time.
type serverConn struct {
	srv     *Server
	options *wire.ServerOptions
	conn    net.Conn
	about   wire.Conn
	in      reader
	first   [1]byte // for reads that may wait for long; they hold no buffer

	served int  // requests, the current one included
	shaken bool // hands, where they are to be

	mu       sync.Mutex // guards what follows
	phase    phase
	due      time.Time     // the end of waiting or heading
	expired  bool          // due has passed, or the server drains: no request is read any more
	moving   moving        // to a goroutine whose stack is small
	readBy   time.Time     // the read deadline that is set on conn
	bodyBy   time.Time     // the deadline that the handler wants for reads of the body
	reading  bool          // a read of the body is under way
	stream   *stream       // while serving
	quiet    bool          // the body has been read to its end, and nothing behind it
	seen     bool          // a sweep has seen this request being served
	watching chan struct{} // closed by the watch when it ends; nil: there is none
	early    bool          // the watch read a byte of the next request
	resting  bool          // sweeps do not look until Wake

	wmu     sync.Mutex // guards writes of the connection, and what follows
	writeBy time.Time  // the write deadline that is set on conn
}

func newServerConn(s *Server, conn net.Conn) *serverConn {
	o := s.options.Load()
	c := &serverConn{srv: s, conn: conn, options: o, phase: heading, due: o.Clock.After(o.HeadTime)}
	c.about = wire.NewConn(wire.PeerOf(conn.RemoteAddr()))
	c.in = reader{conn: (*connReader)(c), bufs: &s.bufs, before: func() error { return nil }}
	return c
}

// Serve implements [wire.Served]. It is the connection's goroutine or, once that has been
// idle for a while, the next one.
func (c *serverConn) Serve() {
	if c.requests() {
		go c.Serve()
		return
	}
	c.srv.Conns.Leave(c)
}

// requests serves them until the connection ends, or until it is to move.
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
	_ = c.conn.Close() // nobody waits for it
	return false
}

// moves says whether the connection goes on waiting in a new goroutine.
func (c *serverConn) moves() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.moving != called || c.expired || c.phase != waiting {
		return false
	}
	c.moving = moved
	return true
}

// contain cuts the connection if the handler panicked, so that its answer does not look
// whole. The handler itself has reported the panic.
func (c *serverConn) contain() {
	if recover() != nil {
		c.Abandon()
	}
}

// shakeHands completes the TLS handshake where the listener has not.
func (c *serverConn) shakeHands() bool {
	t, ok := c.conn.(*tls.Conn)
	if !ok {
		return true
	}
	if t.Handshake() != nil {
		return false
	}
	state := t.ConnectionState()
	c.about.TLS = &state
	return state.NegotiatedProtocol != "h2"
}

// await waits for the first byte of a request, without holding a buffer, and says whether
// it came. The first request of a connection must come within HeadTime, later ones within
// IdleTime.
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

// hasMoved says whether the connection waits already, in the goroutine before.
func (c *serverConn) hasMoved() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.moving == moved
}

// enter begins a phase of at most d, unless the connection is to end.
func (c *serverConn) enter(p phase, d time.Duration) bool {
	c.mu.Lock()
	if c.phase == waiting {
		c.expired = false // what has arrived came in time
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

// longest is how long sweeps need not look at a request whose client is watched: only its
// handler can end it.
const longest = time.Hour

// Look implements [wire.Looked].
func (c *serverConn) Look(now time.Time) (until time.Time) {
	c.mu.Lock()
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

// Drain implements [wire.Served]: it ends the connection if it waits for a request.
func (c *serverConn) Drain() {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.phase == waiting {
		c.expire()
	}
}

// expire makes reads of waiting and heading fail; mu is held.
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

// slack is how much later than wanted a deadline is set, so that it still serves for the
// next requests.
func (c *serverConn) slack(by time.Time) time.Duration {
	return max(0, min(by.Sub(c.options.Clock.Now())/8, late))
}

// covers says whether the deadline that is set can stand for the one that is wanted, whose
// slack is added already: it may be earlier by as much as the slack, but not later.
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

// exchange hands a request to the handler and cleans up after it. It says whether another
// request may follow; if not, it has closed the connection, or the handler has taken it.
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

// bodyEnded notes that the body was read to its end.
func (c *serverConn) bodyEnded() {
	quiet := c.in.buffered() == 0
	if quiet {
		c.in.release()
	}
	c.mu.Lock()
	c.quiet = quiet
	c.mu.Unlock()
}

// watch starts a goroutine that waits for the client to go away; mu is held. The first
// byte of an early next request ends the watch: whether the client leaves after that cannot
// be seen.
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

// stopWatch ends the watch, if there is one, and the phase.
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

// skip reads the part of the body that the handler left unread, within bounds, so that
// the next request can follow. It says whether it came to the end.
func (c *serverConn) skip(b *serverBody) bool {
	if b.err != nil {
		return b.err == io.EOF
	}
	c.mu.Lock()
	c.phase, c.bodyBy = serving, time.Now().Add(c.options.Linger)
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

// write writes p whole, by a deadline; zero: none.
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

// linger closes the connection so that the client can read the answer.
func (c *serverConn) linger() {
	c.in.release()
	buf := c.srv.bufs.Get(wire.LargeBuffer)
	defer c.srv.bufs.Put(buf)
	wire.Linger(c.conn, time.Now().Add(c.options.Linger), buf.B[:cap(buf.B)])
}

// cutAnswer closes the connection of an answer that is not whole.
func (c *serverConn) cutAnswer(s *stream) {
	c.in.release()
	if s.Content == wire.Open && !s.chunked && c.about.TLS == nil {
		// Without TLS an end looks like any other: only a reset tells.
		if l, ok := socket.Beneath(c.conn).(interface{ SetLinger(int) error }); ok {
			_ = l.SetLinger(0)
		}
	}
	c.Cut()
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
