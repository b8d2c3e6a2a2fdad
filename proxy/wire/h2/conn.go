package h2

import (
	"bytes"
	"context"
	"crypto/tls"
	"errors"
	"net"
	"net/netip"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"sallyport/proxy/wire"
	"sallyport/proxy/wire/h1"
)

const (
	// lingering is how long a client may take to read the last answers before the
	// connection closes, and to end a request that was answered before its end.
	lingering = time.Second
	// lingeringBytes bounds it for clients that send fast.
	lingeringBytes = 8 << 20
)

// stage is how far a connection has come to its end.
type stage uint8

const (
	open    stage = iota
	warned        // GOAWAY was sent without a number: requests that are under way still come in
	closing       // GOAWAY was sent with the number of the last stream that is served
	ending        // the reader is to stop
	over          // nothing is read or written any more
)

// serverConn is one connection of a server. Its goroutine reads frames and starts
// handlers; whoever has something to send writes it, with all that is to be sent by
// then, or leaves it to whoever is writing.
type serverConn struct {
	srv    *Server
	conn   net.Conn
	about  wire.Conn
	in     reader
	blocks *blockReader
	first  [1]byte // for reads that may wait for long; they hold no buffer

	// The reader's own.
	greeted bool   // SETTINGS have come
	block   uint32 // the stream whose header block is incomplete; 0: none is
	ends    bool   // the stream ends with that block
	blockAt uint64 // the frame with which it began
	frame   uint64 // how many have been read, and the one that is being read

	mu      sync.Mutex // guards what follows
	streams map[uint32]*stream
	counted int    // streams that are open or whose handler runs
	serving int    // handlers that run
	last    uint32 // the highest stream that was opened
	lately  []uint32
	oldest  int // in lately, once it is full
	stage   stage
	why     error // why it is over

	send    sending
	grant   int64 // of SETTINGS: the window of new streams
	receive receiving

	said    bool        // our SETTINGS are queued
	out     *h1.Buffer  // what is to be written; nil: nothing
	told    atomic.Bool // the client knows that we have no table
	writing bool
	writes  uint64     // how many were begun
	author  *stream    // whose goroutine writes; nil: nobody's
	changed *sync.Cond // something was written, a handler has returned or the connection is over

	watch
}

func newServerConn(s *Server, conn net.Conn) *serverConn {
	c := &serverConn{srv: s, conn: conn, blocks: newBlockReader(), streams: map[uint32]*stream{}}
	c.about = wire.NewConn(peerOf(conn.RemoteAddr()))
	c.in = reader{conn: conn, bufs: &s.bufs, before: c.beforeRead}
	c.changed = sync.NewCond(&c.mu)
	c.send, c.grant = startWindow, startWindow
	o := &s.options
	c.receive = receiving{left: startWindow, size: max(o.ConnWindow/4, startWindow), most: o.ConnWindow}
	c.watch = watch{due: time.Now().Add(o.HeadTime), frames: o.Frames, resets: o.Resets}
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

// serve is the connection's goroutine.
func (c *serverConn) serve() {
	defer c.srv.leave(c)
	defer c.await()
	if !c.greet() {
		if !c.passOn() {
			c.abandon()
		}
		return
	}
	c.finish(c.read())
}

// greet does what comes before the first frame of the client.
func (c *serverConn) greet() bool {
	if t, ok := c.conn.(*tls.Conn); ok {
		if t.Handshake() != nil {
			return false
		}
		state := t.ConnectionState()
		c.about.TLS = &state
		if state.NegotiatedProtocol != "h2" {
			return false
		}
	}
	for n := 1; n <= len(preface); n++ {
		if c.in.need(n) != nil || c.in.bytes()[n-1] != preface[n-1] {
			return false
		}
	}
	c.in.r += len(preface)

	c.mu.Lock()
	defer c.mu.Unlock()
	c.hello()
	return c.stage < over
}

// passOn hands a connection that does not begin as HTTP/2 does to whoever takes it.
func (c *serverConn) passOn() bool {
	other := c.srv.options.Otherwise
	began := c.in.bytes()
	if other == nil || c.about.TLS != nil || len(began) == 0 || strings.HasPrefix(preface, string(began)) {
		return false
	}
	c.mu.Lock()
	gone := c.stage != open
	c.stage = over
	c.mu.Unlock()
	if gone {
		c.cut()
		return true
	}
	rest := bytes.Clone(began)
	c.in.drop()
	c.srv.leave(c)
	other(&begun{Conn: c.conn, rest: rest})
	return true
}

// begun is a connection of which some was read already.
type begun struct {
	net.Conn
	rest []byte
}

func (b *begun) Read(p []byte) (int, error) {
	if len(b.rest) > 0 {
		n := copy(p, b.rest)
		b.rest = b.rest[n:]
		return n, nil
	}
	return b.Conn.Read(p)
}

// NetConn is the connection itself.
func (b *begun) NetConn() net.Conn { return b.Conn }

// hello says what the client may do, before anything else is said; mu is held. It
// leaves with what follows.
func (c *serverConn) hello() {
	if c.said || c.stage == over {
		return
	}
	c.said = true
	o := &c.srv.options
	b := c.control()
	b.B = appendSettings(b.B,
		setting{settingStreams, uint32(o.Streams)},
		setting{settingWindow, uint32(c.streamWindow())},
		setting{settingHeadSize, uint32(o.HeadBytes)},
		setting{settingConnect, 1},
		setting{settingNoPriority, 1})
	if more := c.receive.size - c.receive.left; more > 0 {
		b.B = appendWindow(b.B, 0, uint32(more))
		c.receive.left = c.receive.size
	}
}

// streamWindow is the window that the client is granted on a new stream.
func (c *serverConn) streamWindow() int { return max(c.srv.options.StreamWindow/4, startWindow) }

// read reads frames until the connection has to end; its error says why.
func (c *serverConn) read() error {
	for {
		c.frame++
		if !c.in.whole() {
			if err := c.rest(); err != nil {
				return err
			}
		}
		f, err := c.in.next()
		if err == nil {
			err = c.take(&f)
		}
		var bad *fault
		if errors.As(err, &bad) && bad.stream != 0 {
			err = c.spoil(bad)
		}
		if err != nil {
			return err
		}
	}
}

// rest sends what is to be sent before the reader waits, and waits without a buffer
// where nothing of a frame has come.
func (c *serverConn) rest() error {
	c.mu.Lock()
	c.notePart()
	ends := c.stage >= ending
	c.kick()
	c.mu.Unlock()
	switch {
	case ends:
		return errEnding
	case c.in.buffered() > 0:
		return nil
	}
	c.in.release()
	if n, err := c.conn.Read(c.first[:]); n == 0 {
		return err
	}
	c.in.unread(c.first[0])
	return nil
}

// beforeRead is the reader's hook.
func (c *serverConn) beforeRead() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.notePart()
}

// notePart tells the sweeps what is waited for; mu is held. Content may take as long as
// whoever reads it allows.
func (c *serverConn) notePart() {
	n := c.in.buffered()
	switch {
	case c.block != 0:
		c.partial = c.blockAt
	case n > 0 && (n < frameHead || parseFrameHead(c.in.bytes()).kind != frameData):
		c.partial = c.frame
	default:
		c.partial = 0
	}
}

// errEnding ends the reader because the connection ends as it should.
var errEnding = errors.New("the connection ends")

// finish ends the connection for a reason, and tells the client.
func (c *serverConn) finish(why error) {
	c.mu.Lock()
	var bad *fault
	switch {
	case errors.As(why, &bad):
		c.goAway(bad.code)
	case c.stage >= closing && c.stage < over && len(c.streams) == 0:
	default: // the client has left, or the connection broke
		c.die(why)
	}
	if c.stage == over {
		c.mu.Unlock()
		c.in.drop()
		c.cut()
		return
	}
	_ = c.conn.SetDeadline(time.Now().Add(lingering)) // else the writes and reads below fail
	for c.writing {
		c.changed.Wait()
	}
	c.flush(nil)
	c.die(why)
	c.mu.Unlock()
	c.linger()
}

// linger closes the connection such that the client can read the last words: it
// reads for a while what still comes, and throws it away.
func (c *serverConn) linger() {
	c.in.drop()
	below := beneath(c.conn)
	if t, ok := c.conn.(*tls.Conn); ok {
		_ = t.CloseWrite()
	}
	if t, ok := below.(interface{ CloseWrite() error }); ok {
		_ = t.CloseWrite()
	}
	buf := c.srv.bufs.Get(maxFrame + 1)
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

// await waits until no handler runs any more.
func (c *serverConn) await() {
	c.mu.Lock()
	defer c.mu.Unlock()
	for c.serving > 0 {
		c.changed.Wait()
	}
}

// die fails every stream; mu is held. Reads and writes that are under way end when
// the connection is cut.
func (c *serverConn) die(why error) {
	if c.stage == over {
		return
	}
	if why == nil {
		why = context.Canceled
	}
	c.stage, c.why = over, why
	for _, s := range c.streams {
		s.fail(why)
		c.forget(s)
	}
	c.srv.bufs.Put(c.out)
	c.out = nil
	c.changed.Broadcast()
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
	defer c.mu.Unlock()
	c.die(context.Canceled)
	c.cut()
}

// goAway says that no stream behind the last is served; mu is held.
func (c *serverConn) goAway(why code) {
	if c.stage >= over {
		return
	}
	c.hello()
	b := c.control()
	b.B = appendGoAway(b.B, c.last, why)
	c.stage = max(c.stage, closing)
}

// drain tells the client that the connection is about to end. What it has sent by
// the time that it knows is served still: the answer to a PING tells when that is.
func (c *serverConn) drain() {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.stage != open {
		return
	}
	c.stage, c.due = warned, time.Now().Add(lingering)
	c.hello()
	b := c.control()
	b.B = appendPing(appendGoAway(b.B, maxStream, noError), 0, []byte(drainPing))
	c.kick()
}

const drainPing = "draining"

// close ends the taking of requests, and the connection once all are answered; mu is held.
func (c *serverConn) close() {
	if c.stage >= closing {
		return
	}
	c.goAway(noError)
	if len(c.streams) == 0 {
		c.stop()
	}
	c.kick()
}

// stop makes the reader end; mu is held.
func (c *serverConn) stop() {
	c.stage = max(c.stage, ending)
	_ = c.conn.SetReadDeadline(longAgo) // fails only on a closed connection, where reads fail too
}

// longAgo is a deadline that has passed.
var longAgo = time.Unix(1, 0)

// beneath is the innermost connection that can be reached.
func beneath(conn net.Conn) net.Conn {
	for {
		outer, ok := conn.(interface{ NetConn() net.Conn })
		if !ok {
			return conn
		}
		conn = outer.NetConn()
	}
}

// take does what a frame asks for.
func (c *serverConn) take(f *frame) error {
	switch {
	case c.block != 0 && (f.kind != frameContinuation || f.stream != c.block):
		return broken(protocolError, "frame within a header block")
	case c.block == 0 && f.kind == frameContinuation:
		return broken(protocolError, "CONTINUATION of nothing")
	case !c.greeted && (f.kind != frameSettings || f.has(flagAck)):
		return broken(protocolError, "the first frame is not SETTINGS")
	}
	if err := f.settle(); err != nil {
		return err
	}
	switch f.kind {
	case frameHeaders, frameContinuation:
		return c.takeBlock(f)
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	switch f.kind {
	case frameData:
		return c.takeData(f)
	case frameReset:
		return c.takeReset(f)
	case frameWindow:
		return c.takeWindow(f)
	case frameSettings:
		return c.takeSettings(f)
	case framePing:
		return c.takePing(f)
	case frameGoAway:
		// The client opens no more streams. It closes when it has its answers, or
		// comes to the end of the idle time.
	}
	return c.spend()
}

func (c *serverConn) takeSettings(f *frame) error {
	if f.has(flagAck) {
		return c.spend()
	}
	if c.greeted = true; c.stage == open {
		c.due = time.Time{}
	}
	before := c.grant
	err := f.settings(func(s setting) error {
		if s.id == settingWindow {
			c.grant = int64(s.value)
		}
		return nil
	})
	if err != nil {
		return err
	}
	if c.grant != before {
		for _, s := range c.streams {
			s.send += sending(c.grant - before)
			if s.send > maxWindow {
				return broken(flowControlError, "window is too large")
			}
			s.writable.Signal()
		}
	}
	b := c.control()
	b.B = appendSettingsAck(b.B)
	return c.spend()
}

func (c *serverConn) takePing(f *frame) error {
	if f.has(flagAck) {
		if c.stage == warned && bytes.Equal(f.payload, []byte(drainPing)) {
			c.close()
		}
		return c.spend()
	}
	b := c.control()
	b.B = appendPing(b.B, flagAck, f.payload)
	return c.spend()
}

func (c *serverConn) takeWindow(f *frame) error {
	if f.stream == 0 {
		if !c.send.grant(f.increment()) {
			return broken(flowControlError, "window is too large")
		}
		for _, s := range c.streams {
			if s.stuck {
				s.writable.Signal()
			}
		}
		return c.spend()
	}
	s := c.streams[f.stream]
	if s == nil {
		if f.stream > c.last {
			return broken(protocolError, "window update for an idle stream")
		}
		return c.spend()
	}
	if !s.send.grant(f.increment()) {
		return spoilt(s.id, flowControlError, "window is too large")
	}
	s.writable.Signal()
	return c.spend()
}

func (c *serverConn) takeReset(f *frame) error {
	if f.stream > c.last {
		return broken(protocolError, "reset of an idle stream")
	}
	s := c.streams[f.stream]
	if s == nil {
		return c.spend()
	}
	s.fail(spoilt(s.id, f.code(), resetByClient))
	c.forget(s)
	return c.spendReset()
}
