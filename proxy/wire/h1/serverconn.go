package h1

import (
	"crypto/tls"
	"errors"
	"io"
	"net"
	"net/netip"
	"os"
	"sync"
	"time"

	"sallyport/proxy/wire"
	"sallyport/proxy/wire/socket"
)

const (
	// lingering is how long the rest of a refused request may take to arrive
	// before the connection closes, where nobody says otherwise: long enough that a
	// client reads the answer before it sees a reset, too short to be worth holding.
	lingering = time.Second
	// lingeringBytes bounds it for clients that send fast.
	lingeringBytes = 8 << 20
	// skippedBytes is how much unread content is read so that a connection can go on.
	skippedBytes = 256 << 10
	// late is by how much a deadline may be missed: moving one costs as much as the
	// encryption of a small request.
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

// moving is how far an idle connection has come on its way to a new goroutine: a
// request, or a handshake, has made the stack of the old one large.
type moving uint8

const (
	fresh  moving = iota // it has just begun to wait
	idle                 // seen to wait by a sweep
	called               // to wake up and go
	moved                // the goroutine is new
)

// serverConn is one connection of a server. Its goroutine reads a request, serves
// it, and reads the next. While the handler runs, its body may be read by another
// goroutine; once that has ended, and the request takes long, a third waits for the
// client to go away. Only one of them reads at any time.
type serverConn struct {
	srv   *Server
	conn  net.Conn
	about wire.Conn
	in    reader
	first [1]byte // for reads that may wait for long; they hold no buffer

	served int  // requests, the current one included
	shaken bool // hands, where they are to be

	mu       sync.Mutex // guards what follows
	phase    phase
	due      time.Time     // the end of waiting or heading
	expired  bool          // due has passed or the server drains: nothing more is read
	moving   moving        // to a goroutine whose stack is small
	readBy   time.Time     // the deadline of the connection as it is set
	bodyBy   time.Time     // that of reads of the body, as it is wanted
	reading  bool          // a read of the body is under way
	stream   *stream       // while serving
	quiet    bool          // the body has been read to its end, and nothing behind it
	seen     bool          // by a sweep, while the same request was served
	watching chan struct{} // closed by the watch when it ends; nil: there is none
	early    bool          // the watch read a byte of the next request

	wmu     sync.Mutex // guards writes of the connection, and what follows
	writeBy time.Time  // the deadline as it is set
}

func newServerConn(s *Server, conn net.Conn) *serverConn {
	c := &serverConn{srv: s, conn: conn, phase: heading, due: s.options.Clock.After(s.options.HeadTime)}
	c.about = wire.NewConn(peerOf(conn.RemoteAddr()))
	c.in = reader{conn: (*connReader)(c), bufs: &s.bufs, before: func() error { return nil }}
	return c
}

func peerOf(a net.Addr) netip.AddrPort {
	switch a := a.(type) {
	case *net.TCPAddr:
		return a.AddrPort()
	case nil:
		return netip.AddrPort{}
	}
	p, _ := netip.ParseAddrPort(a.String()) // the zero one for sockets that have no address
	return p
}

// serve is the connection's goroutine, or, behind a while of idleness, the next one.
func (c *serverConn) serve() {
	if c.requests() {
		go c.serve()
		return
	}
	c.srv.conns.Leave(c)
}

// requests serves them until the connection ends, or until it is to move.
func (c *serverConn) requests() (move bool) {
	defer c.contain()
	if !c.shaken && !c.shakeHands() {
		c.cut()
		return false
	}
	c.shaken = true
	for c.await() {
		s := c.readHead()
		if s == nil {
			break // the client has left
		}
		if c.served++; c.served == c.srv.options.Requests {
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

// moves says whether the connection waits on in another goroutine.
func (c *serverConn) moves() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.moving != called || c.expired || c.phase != waiting {
		return false
	}
	c.moving = moved
	return true
}

// contain cuts the connection whose handler panicked: the handler has told what
// happened, and what was being sent must not look whole.
func (c *serverConn) contain() {
	if recover() != nil {
		c.abandon()
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

// await waits for the first byte of a request, without a buffer, and says whether
// there is one. A fresh connection has to bring its first request at once.
func (c *serverConn) await() bool {
	if c.in.buffered() == 0 {
		c.in.release()
		d := c.srv.options.IdleTime
		if c.served == 0 {
			d = c.srv.options.HeadTime
		}
		if !c.hasMoved() && !c.enter(waiting, d) {
			return false
		}
		if n, _ := c.in.conn.Read(c.first[:]); n == 0 {
			return false
		}
		c.in.unread(c.first[0])
	}
	return c.enter(heading, c.srv.options.HeadTime)
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
	defer c.mu.Unlock()
	if c.phase == waiting {
		c.expired = false // what has arrived came in time
	}
	c.moving = fresh
	c.phase, c.due = p, c.srv.options.Clock.After(d)
	return !c.expired && (p != waiting || !c.srv.conns.Draining())
}

// Look is what a sweep does with the connection.
func (c *serverConn) Look(now time.Time) {
	c.mu.Lock()
	defer c.mu.Unlock()
	switch c.phase {
	case waiting, heading:
		switch {
		case now.After(c.due):
			c.expire()
		case c.phase == waiting && c.moving == fresh:
			c.moving = idle
		case c.phase == waiting && c.moving == idle:
			c.moving = called
			c.setRead(longAgo)
		}
	case serving:
		if c.seen && c.quiet && c.watching == nil && c.stream != nil {
			c.watch()
		}
		c.seen = true
	}
}

// drain ends the connection if it waits for a request.
func (c *serverConn) drain() {
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

// slack is how much later than asked for a deadline is set, so that it can stay
// for the next requests.
func (c *serverConn) slack(by time.Time) time.Duration {
	return max(0, min(by.Sub(c.srv.options.Clock.Now())/8, late))
}

// covers says whether a deadline that is set serves for one that is wanted, with
// its slack.
func (c *serverConn) covers(set, wanted time.Time) bool {
	if set.IsZero() || wanted.IsZero() {
		return set.IsZero() && wanted.IsZero()
	}
	early := wanted.Sub(set)
	return early >= 0 && early <= c.slack(wanted)
}

// boundBody bounds the reads of the body, one that is under way at once.
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

// exchange hands a request to the handler and cleans up behind it. It says whether
// another may follow; if not, the connection is closed or the handler's.
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
	if s.finished && s.Flush() != nil {
		s.finished = false
	}
	switch {
	case !s.finished:
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

// watch starts a goroutine that waits for the client to go away; mu is held. A byte
// of the next request ends it: what comes behind that cannot be seen.
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

// skip reads what the handler left of the body, within bounds, so that the next
// request can follow.
func (c *serverConn) skip(b *serverBody) bool {
	if b.err != nil {
		return b.err == io.EOF
	}
	c.mu.Lock()
	c.phase, c.bodyBy = serving, time.Now().Add(c.srv.options.Linger)
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

// linger closes the connection such that the client can read the answer: it reads
// for a while what still comes, and throws it away.
func (c *serverConn) linger() {
	c.in.release()
	_ = c.conn.SetDeadline(time.Now().Add(c.srv.options.Linger)) // else the writes and reads below fail
	below := socket.Beneath(c.conn)
	if t, ok := c.conn.(*tls.Conn); ok {
		_ = t.CloseWrite()
	}
	if t, ok := below.(interface{ CloseWrite() error }); ok {
		_ = t.CloseWrite()
	}
	buf := c.srv.bufs.Get(wire.LargeBuffer)
	defer c.srv.bufs.Put(buf)
	// Below TLS: nothing of it is wanted, so nothing is decrypted.
	for left := lingeringBytes; left > 0; {
		n, err := below.Read(buf.B[:cap(buf.B)])
		if err != nil {
			break
		}
		left -= n
	}
	c.cut()
}

// cutAnswer closes the connection of an answer that is not whole.
func (c *serverConn) cutAnswer(s *stream) {
	c.in.release()
	if s.mode == bodyToEnd && c.about.TLS == nil {
		// Without TLS an end looks like any other: only a reset tells.
		if l, ok := socket.Beneath(c.conn).(interface{ SetLinger(int) error }); ok {
			_ = l.SetLinger(0)
		}
	}
	c.cut()
}

// cut closes the connection without the words by which TLS tells a clean end.
func (c *serverConn) cut() {
	if t, ok := c.conn.(*tls.Conn); ok {
		_ = t.NetConn().Close()
		return
	}
	_ = c.conn.Close()
}

// abandon cuts the connection under whatever goes on.
func (c *serverConn) abandon() {
	c.mu.Lock()
	s := c.stream
	c.mu.Unlock()
	c.cut()
	if s != nil {
		s.life.End(nil)
	}
}
