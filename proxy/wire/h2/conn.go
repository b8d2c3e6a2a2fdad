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

// stage is how far a connection has come to its end.
type stage uint8

const (
	open    stage = iota
	warned        // GOAWAY was sent with the highest number: requests that are on their way are still taken
	closing       // GOAWAY was sent with the number of the last stream that is served
	ending        // the reader is to stop
	over          // nothing is read or written any more
)

// serverConn is one connection of a server. Its goroutine reads frames and starts
// handlers; whoever has something to send writes it, with all that is to be sent by
// then, or leaves it to whoever is writing.
type serverConn struct {
	srv     *Server
	options *ServerOptions
	conn    net.Conn
	about   wire.Conn
	in      reader
	blocks  *blockReader
	first   [1]byte // for reads that may wait for long; they hold no buffer

	// The reader's own.
	now     frame  // that is being taken
	greeted bool   // SETTINGS have come
	block   uint32 // the stream whose header block is incomplete; 0: none is
	ends    bool   // the stream ends with that block
	blockAt uint64 // the frame with which it began
	frame   uint64 // how many have been read, and the one that is being read

	mu       sync.Mutex // guards what follows
	streams  map[uint32]*stream
	requests int    // that were taken
	counted  int    // streams that are open or whose handler runs
	serving  int    // handlers that run
	last     uint32 // the highest stream that was opened
	taken    uint32 // the highest that was not too late
	lately   []uint32
	oldest   int // in lately, once it is full
	stage    stage
	why      error // why it is over

	send    sending
	grant   int64 // of SETTINGS: the window of new streams
	receive receiving

	said    bool         // our SETTINGS are queued
	out     *wire.Buffer // what is to be written; nil: nothing
	told    atomic.Bool  // the client knows that we have no table
	writing bool
	writes  uint64     // how many were begun
	author  *stream    // whose goroutine writes; nil: nobody's
	changed *sync.Cond // something was written, a handler has returned or the connection is over

	watch
}

func newServerConn(s *Server, conn net.Conn) *serverConn {
	o := s.options.Load()
	c := &serverConn{srv: s, conn: conn, options: o, blocks: newBlockReader(), streams: map[uint32]*stream{}}
	c.about = wire.NewConn(wire.PeerOf(conn.RemoteAddr()))
	c.in = reader{conn: conn, bufs: &s.bufs, before: c.beforeRead}
	c.changed = sync.NewCond(&c.mu)
	c.send, c.grant = startWindow, startWindow
	c.receive = receiving{left: startWindow, size: c.firstWindow(), most: o.ConnWindow, widen: s.widen}
	c.watch = watch{due: time.Now().Add(o.HeadTime), frames: o.Frames, resets: o.Resets}
	return c
}

// Serve implements [wire.Served]. It is the connection's goroutine.
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

// firstWindow is the window that the client is granted on the connection at first.
func (c *serverConn) firstWindow() int { return max(c.options.ConnWindow/4, startWindow) }

// streamWindow is the window that the client is granted on a new stream.
func (c *serverConn) streamWindow() int { return max(c.options.StreamWindow/4, startWindow) }

// read reads frames until the connection has to end; its error says why.
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

// forgive ends the stream that an error is about, if it is one's.
func (c *serverConn) forgive(err error) error {
	var bad *fault
	if errors.As(err, &bad) && bad.stream != 0 {
		return c.spoil(bad)
	}
	return err
}

// rest flushes what is to be written before the reader waits. If no byte of the next frame
// has come, it waits for the first without holding a buffer.
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

// beforeRead is the reader's hook. A connection that rested has begun to bring a frame.
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

// notePart notes for the sweeps which frame is incomplete; mu is held. DATA does not count:
// content may take as long as whoever reads it allows.
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
