package h2

import (
	"errors"
	"io"
	"os"
	"time"

	"sallyport/proxy/message"
	"sallyport/proxy/wire"
)

// inbox holds received, unread content in pooled buffers.
type inbox struct {
	parts []*wire.Buffer
	one   [1]*wire.Buffer // backing array for small content
	at    int             // read position in the first buffer
	size  int
}

func (x *inbox) put(bufs *wire.Buffers, p []byte) {
	x.size += len(p)
	for len(p) > 0 {
		n := len(x.parts)
		if n == 0 || len(x.parts[n-1].B) == cap(x.parts[n-1].B) {
			x.parts = append(x.parts, bufs.Get(0))
			n++
		}
		b := x.parts[n-1]
		room := min(len(p), cap(b.B)-len(b.B))
		b.B = append(b.B, p[:room]...)
		p = p[room:]
	}
}

func (x *inbox) take(bufs *wire.Buffers, p []byte) (total int) {
	for total < len(p) && x.size > 0 {
		b := x.parts[0]
		n := copy(p[total:], b.B[x.at:])
		total += n
		x.at += n
		x.size -= n
		if x.at == len(b.B) {
			bufs.Put(b)
			last := copy(x.parts, x.parts[1:])
			x.parts[last] = nil
			x.parts, x.at = x.parts[:last], 0
		}
	}
	return total
}

// drop discards all content and returns its size.
func (x *inbox) drop(bufs *wire.Buffers) int {
	for _, b := range x.parts {
		bufs.Put(b)
	}
	n := x.size
	*x = inbox{}
	return n
}

// takeData reads DATA; mu is held.
func (c *serverConn) takeData(f *frame) error {
	if !c.receive.arrive(f.size) {
		return broken(flowControlError, "more content than the window holds")
	}
	s := c.streams[f.stream]
	if s == nil {
		c.giveBack(f.size)
		switch {
		case f.stream > c.last:
			return broken(protocolError, "DATA on an idle stream")
		case c.wasReset(f.stream):
			return c.spendOn(f) // the client had not yet seen the reset
		}
		return spoilt(f.stream, streamClosed, "DATA on a closed stream")
	}
	n := len(f.payload)
	switch {
	case s.inEnded:
		c.giveBack(f.size)
		return spoilt(s.id, streamClosed, "DATA after END_STREAM")
	case !s.receive.arrive(f.size):
		c.giveBack(f.size)
		return spoilt(s.id, flowControlError, "more content than the window holds")
	case s.lacking >= 0 && int64(n) > s.lacking:
		c.giveBack(f.size)
		return malformed(s.id, "more content than announced")
	}
	if s.lacking > 0 {
		s.lacking -= int64(n)
	}
	if s.discards {
		s.discard(f.size)
	} else {
		c.giveBack(f.size - n)
		s.receive.owed += f.size - n
		s.inbox.put(&c.srv.bufs, f.payload)
	}
	if f.has(flagEndStream) {
		return s.endInput()
	}
	if n > 0 && s.reading {
		s.readable.Signal()
	}
	return c.spendOn(f)
}

// spendOn charges a useless DATA frame to the budget.
func (c *serverConn) spendOn(f *frame) error {
	if len(f.payload) > 0 && c.streams[f.stream] != nil {
		return nil
	}
	return c.spend()
}

// giveBack counts bytes that were read or discarded; mu is held. It reports whether it queued a
// WINDOW_UPDATE.
func (c *serverConn) giveBack(n int) bool {
	if n == 0 || c.stage == over {
		return false
	}
	more := c.receive.read(n, true)
	if more > 0 {
		b := c.control()
		b.B = appendWindow(b.B, 0, more)
	}
	return more > 0
}

// endInput records END_STREAM from the client; mu is held.
func (s *stream) endInput() error {
	if s.lacking > 0 {
		return malformed(s.id, "less content than announced")
	}
	s.inEnded = true
	s.readable.Signal()
	switch {
	case s.held:
		s.c.start(s)
	case !s.running && s.tunnel == nil:
		s.c.retireEnded(s)
	}
	return nil
}

// read reads content, or waits for it; it releases mu while it waits. It returns io.EOF at the
// client's end of the stream, or why its trailers are bad.
func (s *stream) read(p []byte) (int, error) {
	c := s.c
	for {
		switch {
		case s.inbox.size > 0:
			n := s.inbox.take(&c.srv.bufs, p)
			starving := s.inbox.size == 0
			granted := c.giveBack(n)
			if !s.inEnded && s.err == nil {
				if more := s.receive.read(n, starving); more > 0 {
					b := c.control()
					b.B = appendWindow(b.B, s.id, more)
					granted = true
				}
			}
			if granted {
				c.kick()
			}
			if s.inEnded && starving {
				return n, s.end()
			}
			return n, nil
		case s.inEnded:
			return 0, s.end()
		case s.err != nil:
			return 0, cut(s.err)
		case passed(s.readBy, time.Now()):
			return 0, os.ErrDeadlineExceeded
		}
		s.reading = true
		s.readable.Wait()
		s.reading = false
	}
}

// end returns the error at the client's end of the stream; mu is held.
func (s *stream) end() error {
	if s.inFault != nil {
		return s.inFault
	}
	return io.EOF
}

// cut returns the error of incomplete content: it is malformed, or its client left.
func cut(err error) error {
	var bad *fault
	if errors.As(err, &bad) && bad.why != resetByClient {
		return err
	}
	return gone(err)
}

const resetByClient = "reset by the client"

// serverBody is the content of a request.
type serverBody struct {
	s     *stream
	ended bool // read to its end
}

func (b *serverBody) Trailers() message.Fields {
	if !b.ended {
		return nil
	}
	return b.s.trailers
}

// Arrived implements [message.Arrived].
func (b *serverBody) Arrived() (n int, whole bool) {
	s := b.s
	s.c.mu.Lock()
	defer s.c.mu.Unlock()
	return s.inbox.size, s.inEnded && len(s.trailers) == 0 && s.inFault == nil
}

// Trailed implements [message.Trailed].
func (b *serverBody) Trailed() int {
	b.s.c.mu.Lock()
	defer b.s.c.mu.Unlock()
	return b.s.trailed
}

func (b *serverBody) Read(p []byte) (int, error) {
	s := b.s
	if b.ended || s.head.ContentLength == 0 { // also for a faulty request or one that became a tunnel
		b.ended = true
		return 0, io.EOF
	}
	if len(p) == 0 {
		return 0, nil
	}
	s.c.mu.Lock()
	defer s.c.mu.Unlock()
	if s.expects && !s.invited && s.inbox.size == 0 && !s.inEnded && s.err == nil {
		s.invite()
	}
	n, err := s.read(p)
	if err == io.EOF {
		b.ended = true
		s.trailers = message.KeptTrailers(s.trailers, s.head.Fields)
	}
	return n, err
}
