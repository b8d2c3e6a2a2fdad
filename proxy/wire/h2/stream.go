package h2

import (
	"errors"
	"fmt"
	"io"
	"sync"
	"time"

	"sallyport/proxy/message"
	"sallyport/proxy/wire"
)

// stream is a request and its answer. Each request gets a new one, because its head stays valid
// after the handler has returned.
type stream struct {
	c    *serverConn
	id   uint32
	head message.Head
	body serverBody
	life wire.Life

	// Facts from the head; read only once the handler runs.
	said    bool // there is a Content-Length
	expects bool // the client waits for 100 (Continue)

	// The connection's mu guards the fields below.

	err      error     // why the stream failed: a reset from either side, or the connection's end
	running  bool      // the handler has not returned
	counted  bool      // counted among the connection's streams
	held     bool      // the handler must not run before the content is known to be empty
	due      time.Time // deadline of a held stream, or of a lingering client's next content
	lingerBy time.Time // when a lingering stream is reset at the latest; zero if it does not linger

	inEnded  bool  // END_STREAM was received
	inFault  error // why the content is bad, although it has ended
	ruin     code  // for a malformed request: the code of the reset after the answer
	discards bool  // arriving content is discarded
	lacking  int64 // announced content still to come; -1: no Content-Length
	inbox    inbox
	receive  receiving
	trailers message.Fields
	trailed  int // number of trailer lines received, before any is dropped
	readable sync.Cond
	reading  bool
	readBy   time.Time

	outEnded bool // END_STREAM is queued
	send     sending
	writable sync.Cond
	stuck    bool // waits for a window or for the output of other streams
	writeBy  time.Time
	invited  bool // 100 (Continue) was sent, or the answer has begun
	tunnel   *tunnel

	// The answering goroutine owns the fields below.
	wire.Answer
	drains bool  // DrainAfter was called
	cutAs  code  // error code of the reset if the answer is incomplete
	lost   error // why part of the answer was not sent; nothing more is sent
	out    outbox
}

var (
	_ wire.Stream  = (*stream)(nil)
	_ wire.Cutter  = (*stream)(nil)
	_ wire.Drainer = (*stream)(nil)
)

func newStream(c *serverConn, id uint32) *stream {
	s := &stream{c: c, id: id}
	s.head.Version = message.HTTP2
	s.body.s = s
	s.readable.L, s.writable.L = &c.mu, &c.mu
	s.out.last = -1
	s.cutAs = internalError
	s.inbox.parts = s.inbox.one[:0]
	return s
}

func (s *stream) Head() *message.Head { return &s.head }
func (s *stream) Conn() *wire.Conn    { return &s.c.about }
func (s *stream) Body() message.Body  { return &s.body }

func (s *stream) Life() *wire.Life { return &s.life }

func (s *stream) SetReadDeadline(t time.Time) error {
	s.c.mu.Lock()
	defer s.c.mu.Unlock()
	if s.readBy = t; passed(t, time.Now()) {
		s.readable.Signal()
	}
	return nil
}

func (s *stream) SetWriteDeadline(t time.Time) error {
	s.c.mu.Lock()
	defer s.c.mu.Unlock()
	s.writeBy = t
	return nil
}

// CloseAfter does nothing: content after the answer is always discarded for a while before the
// stream is reset.
func (s *stream) CloseAfter() {}

// DrainAfter implements [wire.Drainer].
func (s *stream) DrainAfter() { s.drains = true }

// KeepEnd does nothing: the end of a stream is always sent after the handler has returned.
func (s *stream) KeepEnd() {}

// Abort implements [wire.Stream].
func (s *stream) Abort() {
	s.Finished = false
	s.c.srv.bufs.Put(s.out.buf)
	s.out = outbox{last: -1}
	if s.tunnel != nil {
		s.tunnel.abort()
	}
}

// CutAs implements [wire.Cutter]. NO_ERROR is replaced, because it could pass for a regular end.
func (s *stream) CutAs(why uint32) {
	if code(why) != noError {
		s.cutAs = code(why)
	}
}

// serve runs the handler and ends the answer.
func (s *stream) serve() {
	c := s.c
	whole := s.handle()
	c.mu.Lock()
	defer c.mu.Unlock()
	s.life.End(nil)
	if whole {
		whole = s.push() == nil
	}
	s.running = false
	c.serving--
	s.endAnswer(whole)
	c.retireEnded(s)
	if s.drains {
		c.warn()
	}
	c.flush(s)
	c.changed.Broadcast()
}

// endAnswer ends the stream once the handler has returned; mu is held.
func (s *stream) endAnswer(whole bool) {
	c := s.c
	switch {
	case s.err != nil: // already reset
	case s.tunnel != nil && !s.tunnel.closed: // the tunnel has an owner
	case !whole && s.tunnel == nil:
		c.reset(s, s.cutAs)
	case s.ruin != noError:
		c.reset(s, s.ruin)
	case s.inEnded:
	case s.tunnel != nil:
		c.reset(s, noError)
	default:
		s.linger()
	}
}

// handle runs the handler and reports whether the answer is complete. After a panic, which the
// handler has reported, the answer counts as incomplete.
func (s *stream) handle() (whole bool) {
	defer func() {
		if recover() != nil {
			whole = false
		}
	}()
	s.c.srv.handle(s)
	return s.Finished
}

// retireEnded removes a stream that has ended on both sides. The stream counts until its handler
// has returned. mu is held.
func (c *serverConn) retireEnded(s *stream) {
	if s.inEnded && s.outEnded || s.err != nil {
		c.forget(s)
	}
}

// forget removes a stream from the connection; mu is held.
func (c *serverConn) forget(s *stream) {
	if c.streams[s.id] == s {
		delete(c.streams, s.id)
		s.endLinger()
		c.giveBack(s.inbox.drop(&c.srv.bufs))
		if len(c.streams) == 0 && c.stage == closing {
			c.stop()
		}
	}
	if s.counted && !s.running {
		s.counted = false
		if c.counted--; s.err == nil && c.resets < c.options.Resets {
			c.resets++
		}
	}
}

// reset resets a stream; mu is held.
func (c *serverConn) reset(s *stream, why code) {
	b := c.control()
	b.B = appendReset(b.B, s.id, why)
	c.noteReset(s.id)
	s.fail(spoilt(s.id, why, "reset"))
	c.forget(s)
}

// keptResets is how many reset streams are remembered at least. Frames that the client sent before it
// received the reset are no fault. All open streams may be reset at once.
const keptResets = 128

func (c *serverConn) noteReset(id uint32) {
	if len(c.lately) < max(keptResets, c.options.Streams) {
		c.lately = append(c.lately, id)
		return
	}
	c.lately[c.oldest] = id
	c.oldest = (c.oldest + 1) % len(c.lately)
}

func (c *serverConn) wasReset(id uint32) bool {
	for _, l := range c.lately {
		if l == id {
			return true
		}
	}
	return false
}

// spoil resets the stream of a fault.
func (c *serverConn) spoil(bad *fault) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	s := c.streams[bad.stream]
	switch {
	case s != nil:
		s.fail(bad)
		b := c.control()
		b.B = appendReset(b.B, s.id, bad.code)
		c.noteReset(s.id)
		c.forget(s)
	case bad.stream > c.last:
		return broken(bad.code, bad.why)
	case !c.wasReset(bad.stream):
		b := c.control()
		b.B = appendReset(b.B, bad.stream, bad.code)
		c.noteReset(bad.stream)
	}
	return c.spendReset()
}

// fail ends reads, writes and the life of the request; mu is held.
func (s *stream) fail(why error) {
	if s.err != nil {
		return
	}
	s.err = why
	s.life.End(why)
	s.readable.Broadcast()
	s.writable.Broadcast()
}

// look is called for the stream by a sweep; mu is held.
func (s *stream) look(now time.Time) {
	switch {
	case !s.running && (passed(s.due, now) || s.lingeredOut(now)):
		why := noError
		if s.held {
			why = cancel
		}
		s.c.reset(s, why)
		s.c.kick()
	case s.reading && passed(s.readBy, now):
		s.readable.Broadcast()
	}
	if s.stuck && passed(s.writeBy, now) {
		s.writable.Broadcast()
		s.c.changed.Broadcast()
	}
}

// gone turns a lost connection within a request into io.ErrUnexpectedEOF.
func gone(err error) error {
	if errors.Is(err, io.ErrUnexpectedEOF) {
		return err
	}
	return fmt.Errorf("%w: %w", io.ErrUnexpectedEOF, err)
}
