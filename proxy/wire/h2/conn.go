package h2

import (
	"bytes"
	"crypto/tls"
	"errors"
	"net"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"sallyport/proxy/wire"
)

// stage is the progress of a connection's shutdown.
type stage uint8

const (
	open    stage = iota
	warned        // GOAWAY was sent with the highest number: requests in flight are still accepted
	closing       // GOAWAY was sent with the number of the last stream served
	ending        // the reader must stop
	over          // no more reads or writes
)

// serverConn is one connection of a server. Its goroutine reads frames and starts handlers. A
// goroutine with output writes it along with all other pending output, or leaves it to the current
// writer.
type serverConn struct {
	srv     *Server
	options *ServerOptions
	conn    net.Conn
	about   wire.Conn
	in      reader
	blocks  *blockReader
	first   [1]byte // buffer for long waits, which hold no pooled buffer

	// The reader goroutine owns the fields below.
	now     frame  // that is being taken
	greeted bool   // SETTINGS have arrived
	block   uint32 // the stream whose header block is incomplete; 0: none
	ends    bool   // that block has END_STREAM
	blockAt uint64 // number of the block's first frame
	frame   uint64 // number of the current frame

	mu       sync.Mutex // guards the fields below
	streams  map[uint32]*stream
	requests int    // requests accepted
	counted  int    // streams that are open or have a running handler
	serving  int    // running handlers
	last     uint32 // the highest stream opened
	taken    uint32 // the highest stream accepted before closing
	lately   []uint32
	oldest   int // index in lately, once that is full
	stage    stage
	why      error // why the connection ended

	send    sending
	grant   int64 // from SETTINGS: the send window of new streams
	receive receiving

	said    bool         // the server's SETTINGS are queued
	out     *wire.Buffer // pending output; nil if none
	told    atomic.Bool  // the encoder's table size update (0) was sent
	writing bool
	writes  uint64     // number of writes begun
	author  *stream    // the stream whose goroutine writes; nil: none
	changed *sync.Cond // signals a write, a handler's return or the end of the connection

	watch
}

func newServerConn(s *Server, conn net.Conn) *serverConn {
	o := s.options.Load()
	c := &serverConn{srv: s, conn: conn, options: o, blocks: newBlockReader(), streams: map[uint32]*stream{}}
	c.about = wire.NewConn(wire.PeerOf(conn.RemoteAddr()), wire.PeerOf(conn.LocalAddr()))
	c.in = reader{conn: conn, bufs: &s.bufs, before: c.beforeRead}
	c.changed = sync.NewCond(&c.mu)
	c.send, c.grant = startWindow, startWindow
	c.receive = receiving{left: startWindow, size: c.firstWindow(), most: o.ConnWindow, widen: s.widen}
	c.watch = watch{due: time.Now().Add(o.HeadTime), frames: o.Frames, resets: o.Resets}
	return c
}

// Serve implements [wire.Served]. It runs in the connection's goroutine.
func (c *serverConn) Serve() {
	defer c.srv.Conns.Leave(c)
	defer c.await()
	if !c.greet() {
		if !c.passOn() {
			c.Abandon()
		}
		return
	}
	c.finish(c.read())
}

// greet completes the TLS handshake and reads the client's preface.
func (c *serverConn) greet() bool {
	if t, ok := c.conn.(*tls.Conn); ok {
		if t.Handshake() != nil {
			return false
		}
		state := t.ConnectionState()
		c.about.TLS, c.about.ClientPolicy = &state, wire.ClientPolicyOf(t)
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

// passOn hands a connection that does not begin with the HTTP/2 preface to Otherwise.
func (c *serverConn) passOn() bool {
	other := c.options.Otherwise
	began := c.in.bytes()
	if other == nil || c.about.TLS != nil || len(began) == 0 || strings.HasPrefix(preface, string(began)) {
		return false
	}
	c.mu.Lock()
	gone := c.stage != open
	c.stage = over
	c.mu.Unlock()
	if gone {
		c.Cut()
		return true
	}
	rest := bytes.Clone(began)
	c.in.drop()
	c.srv.Conns.Leave(c)
	other(&begun{Conn: c.conn, rest: rest})
	return true
}

// begun is a connection that first returns the bytes read ahead.
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

// NetConn returns the wrapped connection.
func (b *begun) NetConn() net.Conn { return b.Conn }

// hello queues SETTINGS and the first window, before any other frame; mu is held. They are sent
// with the next write.
func (c *serverConn) hello() {
	if c.said || c.stage == over {
		return
	}
	c.said = true
	o := c.options
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

// firstWindow is the initial receive window of the connection.
func (c *serverConn) firstWindow() int { return max(c.options.ConnWindow/4, startWindow) }

// streamWindow is the initial receive window of a stream.
func (c *serverConn) streamWindow() int { return max(c.options.StreamWindow/4, startWindow) }

// read reads frames until the connection must end, and returns the reason.
func (c *serverConn) read() error {
	for {
		c.frame++
		if !c.in.whole() {
			if err := c.rest(); err != nil {
				return err
			}
		}
		var err error
		if c.now, err = c.in.next(); err == nil {
			err = c.take(&c.now)
		}
		if err != nil {
			err = c.forgive(err)
		}
		if err != nil {
			return err
		}
	}
}

// forgive handles an error of one stream and returns nil; other errors are returned.
func (c *serverConn) forgive(err error) error {
	var bad *fault
	if errors.As(err, &bad) && bad.stream != 0 {
		return c.spoil(bad)
	}
	return err
}

// rest flushes pending output before the reader blocks. If no byte of the next frame has arrived,
// it waits for the first without holding a buffer.
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

// beforeRead is the reader's hook. It wakes a resting connection when a frame begins.
func (c *serverConn) beforeRead() {
	c.mu.Lock()
	c.notePart()
	rested := c.resting
	c.resting = false
	c.mu.Unlock()
	if rested {
		c.srv.Conns.Wake(c)
	}
}

// notePart records for the sweeps that bytes have arrived, and which frame is incomplete. DATA does
// not count as incomplete: the reader of the content sets the limit for it. mu is held.
func (c *serverConn) notePart() {
	c.came = true
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

// errEnding stops the reader in a regular shutdown.
var errEnding = errors.New("the connection ends")
