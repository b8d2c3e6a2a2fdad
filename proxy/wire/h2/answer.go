package h2

import (
	"errors"
	"fmt"
	"os"
	"time"

	"sallyport/proxy/message"
	"sallyport/proxy/wire"
)

var (
	errUpgrade     = errors.New("the request does not ask for an upgrade")
	errFieldBanned = errors.New("field belongs to the connection or to framing")
	errFieldBytes  = errors.New("field has bytes outside the grammar")
)

// outbox buffers a stream's output as whole frames, the last of which may still grow.
type outbox struct {
	buf  *wire.Buffer // nil if empty
	last int          // start of the last frame that can carry END_STREAM; -1: none
	open bool         // that frame is DATA and may grow
	data int          // bytes of content in all frames
	ends bool         // the last frame has END_STREAM
}

// begin reserves space for the frame head of a header block.
func (x *outbox) begin(bufs *wire.Buffers) {
	if x.buf == nil {
		x.buf = bufs.Get(0)
	}
	x.last, x.open = len(x.buf.B), false
	x.buf.B = append(x.buf.B, make([]byte, frameHead)...)
}

// put adds content, at most maxHeld in all, to the last frame or to new ones.
func (x *outbox) put(bufs *wire.Buffers, stream uint32, p []byte) {
	held := 0
	if x.buf != nil {
		held = len(x.buf.B)
	}
	if need := held + len(p) + frameHead*(len(p)/maxFrame+2); x.buf == nil || need > cap(x.buf.B) {
		wider := bufs.Get(need)
		if x.buf != nil {
			wider.B = append(wider.B, x.buf.B...)
			bufs.Put(x.buf)
		}
		x.buf = wider
	}
	x.data += len(p)
	b := x.buf.B
	for len(p) > 0 {
		size := 0
		if x.open {
			size = len(b) - x.last - frameHead
		}
		if !x.open || size == maxFrame {
			x.last, x.open, size = len(b), true, 0
			b = appendFrameHead(b, 0, frameData, 0, stream)
		}
		n := min(len(p), maxFrame-size)
		b = append(b, p[:n]...)
		putFrameSize(b[x.last:], size+n)
		p = p[n:]
	}
	x.buf.B = b
}

// end marks the last frame as the last of the stream.
func (x *outbox) end(bufs *wire.Buffers, stream uint32) {
	if x.buf == nil {
		x.buf = bufs.Get(0)
	}
	if x.last < 0 {
		x.last = len(x.buf.B)
		x.buf.B = appendFrameHead(x.buf.B, 0, frameData, 0, stream)
	}
	x.buf.B[x.last+4] |= flagEndStream
	x.ends = true
}

// appendFields writes fields. It refuses ambiguous ones even if the caller has checked them: this
// is the last check before the wire.
func appendFields(b []byte, fields message.Fields) ([]byte, error) {
	for i := range fields {
		f := &fields[i]
		if message.OfConnection(f.Name) {
			return b, fmt.Errorf("%w: %s", errFieldBanned, f.Name)
		}
		if !validName(f.Name) || !message.ValidValue(f.Value) {
			return b, fmt.Errorf("%w: %q", errFieldBytes, f.Name)
		}
		b = appendField(b, f.Name, f.Value)
	}
	return b, nil
}

// writeHead writes the head of an answer to x, with content-length unless length is negative.
func (s *stream) writeHead(x *outbox, status int, fields message.Fields, length int64) error {
	x.begin(&s.c.srv.bufs)
	b := x.buf.B
	if !s.c.told.Load() {
		b = append(b, noTable)
	}
	b, err := appendFields(appendStatus(b, status), fields)
	if err != nil {
		x.buf.B = b[:x.last]
		x.last = -1
		return err
	}
	if status >= 200 && !fields.Has("date") {
		b = s.c.srv.dates.Append(b, s.c.options.Clock.Now())
	}
	if length >= 0 {
		b = appendLength(b, length)
	}
	x.buf.B = sealBlock(b, x.last, s.id, false)
	return nil
}

func (s *stream) Inform(m *message.Response) error {
	if err := s.Interim(m.Status); err != nil {
		return err
	}
	x := outbox{last: -1}
	if err := s.writeHead(&x, m.Status, m.Fields, -1); err != nil {
		s.c.srv.bufs.Put(x.buf)
		return err
	}
	s.c.mu.Lock()
	defer s.c.mu.Unlock()
	if err := s.pushBox(&x); err != nil {
		return err
	}
	s.c.flush(s)
	return s.err
}

// invite sends 100 (Continue); mu is held.
func (s *stream) invite() {
	s.invited = true
	x := outbox{last: -1}
	if s.writeHead(&x, 100, nil, -1) == nil {
		s.c.queue(x.buf)
		s.c.kick()
	}
}

func (s *stream) Respond(m *message.Response, trailers bool) error {
	if s.head.Upgrade != "" && m.Status < 300 {
		return wire.ErrStatus // a 2xx would mean that a tunnel is open
	}
	if err := s.Begin(s.head.Method, m); err != nil {
		return err
	}
	if s.expects {
		s.c.mu.Lock()
		s.invited = true
		s.c.mu.Unlock()
	}
	length := m.ContentLength
	if m.Status == 204 || length == 0 && message.IsGRPC(m.Fields.Get("content-type")) {
		length = -1 // gRPC callers would take content-length for metadata
	}
	return s.writeHead(&s.out, m.Status, m.Fields, length)
}

func (s *stream) Write(p []byte) (int, error) {
	if s.lost != nil {
		return 0, s.lost
	}
	if send, err := s.Take(len(p)); err != nil {
		return 0, err
	} else if !send {
		return len(p), nil
	}
	return len(p), s.hold(p)
}

// hold buffers content, and sends it when the buffer is full.
func (s *stream) hold(p []byte) error {
	for len(p) > 0 {
		n := min(len(p), maxHeld-s.out.data)
		if n == 0 {
			if err := s.Flush(); err != nil {
				return err
			}
			continue
		}
		s.out.put(&s.c.srv.bufs, s.id, p[:n])
		p = p[n:]
	}
	return nil
}

func (s *stream) Flush() error {
	s.c.mu.Lock()
	defer s.c.mu.Unlock()
	if err := s.push(); err != nil {
		return err
	}
	s.c.flush(s)
	return s.err
}

// Finish completes the answer but leaves its end to be sent after the handler has returned. So a
// client that has the whole answer also finds what the handler recorded about it.
func (s *stream) Finish(trailers message.Fields) error {
	if s.lost != nil {
		return s.lost
	}
	if first, err := s.End(); err != nil || !first {
		return err
	}
	if s.Content != wire.NoContent && len(trailers) > 0 {
		s.writeTrailers(trailers)
	}
	s.out.end(&s.c.srv.bufs, s.id)
	return nil
}

// writeTrailers writes the permitted trailers and drops the others: the content has been sent and
// is complete without them.
func (s *stream) writeTrailers(trailers message.Fields) {
	x := &s.out
	before, open := x.last, x.open
	x.begin(&s.c.srv.bufs)
	empty := len(x.buf.B)
	for i := range trailers {
		if message.BannedTrailer(message.Fold(trailers[i].Name)) {
			continue
		}
		if b, err := appendFields(x.buf.B, trailers[i:i+1]); err == nil {
			x.buf.B = b
		}
	}
	if len(x.buf.B) == empty {
		x.buf.B = x.buf.B[:x.last]
		x.last, x.open = before, open
		return
	}
	x.buf.B = sealBlock(x.buf.B, x.last, s.id, false)
}

// push queues buffered output as the windows allow; it releases mu while it waits.
func (s *stream) push() error { return s.pushBox(&s.out) }

func (s *stream) pushBox(x *outbox) error {
	c := s.c
	switch {
	case s.lost != nil:
		return s.lost
	case x.buf == nil:
		return s.err
	}
	err := s.waitForOthers()
	switch {
	case err != nil:
		c.srv.bufs.Put(x.buf)
	case x.data > 0 && sending(x.data) > min(s.send, c.send):
		err = s.pushParts(x)
		c.srv.bufs.Put(x.buf)
	default:
		s.send -= sending(x.data)
		c.send -= sending(x.data)
		c.queue(x.buf)
	}
	if err == nil {
		c.told.Store(true)
		c.earn(2)
		c.updates.sent(x.data)
		s.outEnded = s.outEnded || x.ends
	}
	*x = outbox{last: -1}
	s.lost = err
	return err
}

// waitForOthers waits while too much output of all streams is pending.
func (s *stream) waitForOthers() error {
	c := s.c
	for s.err == nil && c.out != nil && len(c.out.B) >= maxHeld {
		if c.stage == over {
			return c.why // nothing is written any more
		}
		if !c.writing {
			c.flush(s)
			continue
		}
		if passed(s.writeBy, time.Now()) {
			return os.ErrDeadlineExceeded
		}
		s.stuck = true
		c.changed.Wait()
		s.stuck = false
	}
	return s.err
}

// pushParts queues frames piece by piece as windows open.
func (s *stream) pushParts(x *outbox) error {
	for b := x.buf.B; len(b) > 0; {
		f := parseFrameHead(b)
		part := b[:frameHead+f.size]
		b = b[len(part):]
		if f.kind != frameData || f.size == 0 {
			s.c.append(part)
			continue
		}
		for part = part[frameHead:]; len(part) > 0; {
			n, err := s.waitForWindow(len(part))
			if err != nil {
				return err
			}
			var flags uint8
			if n == len(part) {
				flags = f.flags
			}
			s.c.append(appendFrameHead(make([]byte, 0, frameHead), n, frameData, flags, s.id))
			s.c.append(part[:n])
			part = part[n:]
		}
	}
	return nil
}

// waitForWindow subtracts up to n bytes from the windows, and waits while they are empty.
func (s *stream) waitForWindow(n int) (int, error) {
	c := s.c
	for {
		if err := s.waitForOthers(); err != nil {
			return 0, err
		}
		if m := min(sending(n), s.send, c.send); m > 0 {
			s.send -= m
			c.send -= m
			return int(m), nil
		}
		if c.stage == over {
			return 0, c.why
		}
		if c.out != nil && !c.writing {
			c.flush(s) // so that the client can open the window
			continue
		}
		if passed(s.writeBy, time.Now()) {
			return 0, os.ErrDeadlineExceeded
		}
		s.stuck = true
		s.writable.Wait()
		s.stuck = false
	}
}
