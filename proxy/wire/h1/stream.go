package h1

import (
	"errors"
	"io"
	"net"
	"strconv"
	"strings"
	"time"

	"sallyport/proxy/message"
	"sallyport/proxy/wire"
)

// stream is a request and its answer. Each request gets a new one, because its head stays valid
// after the handler has returned.
type stream struct {
	c    *serverConn
	head message.Head
	room [12]message.Field // for the fields of most requests
	body serverBody

	life wire.Life

	expects bool // the client waits for 100 (Continue)
	invited bool // 100 was sent, or the answer has begun; guarded by c.wmu
	closing bool // the connection closes after this answer

	wire.Answer
	chunked  bool // the answer is chunked; other open content ends with the connection
	upgraded bool
	keepsEnd bool // the last byte is not sent before the handler has returned

	out     *wire.Buffer // buffered output; nil if none
	writeBy time.Time
	err     error // of a write; sticky
}

var _ wire.Stream = (*stream)(nil)

func (s *stream) Head() *message.Head { return &s.head }
func (s *stream) Conn() *wire.Conn    { return &s.c.about }
func (s *stream) Body() message.Body  { return &s.body }

func (s *stream) Life() *wire.Life { return &s.life }

func (s *stream) SetReadDeadline(t time.Time) error {
	s.c.boundBody(t)
	return nil
}

func (s *stream) SetWriteDeadline(t time.Time) error {
	s.writeBy = t // set before the next write
	return nil
}

func (s *stream) CloseAfter() { s.closing = true }

func (s *stream) KeepEnd() { s.keepsEnd = true }

func (s *stream) Abort() {
	s.Finished = false
	if s.upgraded {
		s.c.resetNext()
		s.c.Cut()
	}
}

var errUpgrade = errors.New("cannot upgrade: the request has content, is HTTP/1.0, or is followed by early bytes")

func (s *stream) Inform(m *message.Response) error {
	if err := s.Interim(m.Status); err != nil || s.head.Version == message.HTTP10 {
		return err
	}
	lent := s.c.srv.bufs.Get(wire.SmallBuffer)
	defer s.c.srv.bufs.Put(lent)
	b, err := appendHead(lent.B, m.Status, m.Fields)
	if err != nil {
		return err
	}
	return s.write(append(b, "\r\n"...))
}

// invite sends 100 (Continue) if the client waits for it.
func (s *stream) invite() error {
	c := s.c
	c.wmu.Lock()
	defer c.wmu.Unlock()
	if s.invited {
		return nil
	}
	s.invited = true
	return c.writeLocked([]byte("HTTP/1.1 100 Continue\r\n\r\n"), time.Now().Add(wire.Brief))
}

// settleInvitation is called just before the final head is sent. A client that has not received 100
// (Continue) by then may send its content or omit it, so the connection cannot serve another
// request.
func (s *stream) settleInvitation() {
	s.c.wmu.Lock()
	defer s.c.wmu.Unlock()
	if !s.invited {
		s.closing = true
	}
	s.invited = true
}

func (s *stream) Respond(m *message.Response, trailers bool) error {
	if err := s.Begin(s.head.Method, m); err != nil {
		return err
	}
	if s.expects {
		s.settleInvitation()
	}
	if s.c.srv.Conns.Draining() {
		s.closing = true
	}
	s.out = s.c.srv.bufs.Get(wire.SmallBuffer)
	b, err := appendHead(s.out.B, m.Status, m.Fields)
	if err != nil {
		s.err = err
		return err
	}
	if !m.Fields.Has("date") {
		b = s.c.srv.dates.Append(b, s.c.options.Clock.Now())
	}
	b = s.appendFraming(b, m)
	if s.closing {
		b = append(b, "Connection: close\r\n"...)
	}
	s.out.B = append(b, "\r\n"...)
	return nil
}

// appendFraming chooses how the end of the answer is marked, and writes the field for it.
func (s *stream) appendFraming(b []byte, m *message.Response) []byte {
	switch {
	case m.ContentLength >= 0 && m.Status == 204:
		return b
	case m.ContentLength >= 0:
		return append(strconv.AppendInt(append(b, "Content-Length: "...), m.ContentLength, 10), "\r\n"...)
	case s.Content == wire.NoContent:
		return b
	case s.head.Version == message.HTTP10:
		s.closing = true
		return b
	}
	s.chunked = true
	return append(b, "Transfer-Encoding: chunked\r\n"...)
}

func (s *stream) Write(p []byte) (int, error) {
	if s.err != nil {
		return 0, s.err
	}
	if send, err := s.Take(len(p)); err != nil {
		return 0, err
	} else if !send {
		return len(p), nil
	}
	put := s.put
	if s.keepsEnd && s.Whole() {
		put = s.putLast
	}
	if err := put(p); err != nil {
		return 0, err
	}
	return len(p), nil
}

// putLast puts p but keeps its last byte in the buffer. With that byte, the client would have the
// complete answer.
func (s *stream) putLast(p []byte) error {
	last := len(p) - 1
	if last > 0 {
		if err := s.put(p[:last]); err != nil {
			return err
		}
	}
	if s.out != nil && len(s.out.B) == wire.LargeBuffer {
		if err := s.Flush(); err != nil {
			return err
		}
	}
	return s.put(p[last:])
}

// chunkRoom is the maximum size of a chunk's framing.
const chunkRoom = 20

// put buffers content, or sends it if it does not fit.
func (s *stream) put(p []byte) error {
	need := len(p)
	if s.chunked {
		need += chunkRoom
	}
	held := 0
	if s.out != nil {
		held = len(s.out.B)
	}
	switch {
	case held+need > wire.LargeBuffer, held == 0 && !s.chunked && need >= direct:
		return s.send(p)
	case s.out == nil:
		s.out = s.c.srv.bufs.Get(need)
	case held+need > cap(s.out.B):
		wider := s.c.srv.bufs.Get(held + need)
		wider.B = append(wider.B, s.out.B...)
		s.c.srv.bufs.Put(s.out)
		s.out = wider
	}
	b := s.out.B
	if s.chunked {
		b = append(strconv.AppendInt(b, int64(len(p)), 16), "\r\n"...)
		b = append(append(b, p...), "\r\n"...)
	} else {
		b = append(b, p...)
	}
	s.out.B = b
	return nil
}

// send sends the buffered output and p, without copying p.
func (s *stream) send(p []byte) error {
	if s.chunked {
		if s.out == nil {
			s.out = s.c.srv.bufs.Get(wire.SmallBuffer)
		}
		s.out.B = append(strconv.AppendInt(s.out.B, int64(len(p)), 16), "\r\n"...)
	}
	if err := s.Flush(); err != nil {
		return err
	}
	if err := s.write(p); err != nil {
		return err
	}
	if s.chunked {
		s.out = s.c.srv.bufs.Get(wire.SmallBuffer)
		s.out.B = append(s.out.B, "\r\n"...)
	}
	return nil
}

func (s *stream) write(p []byte) error {
	if s.err == nil {
		s.err = s.c.write(p, s.writeBy)
	}
	return s.err
}

func (s *stream) Flush() error {
	if s.out == nil || s.err != nil {
		return s.err
	}
	err := s.write(s.out.B)
	s.giveBack()
	return err
}

func (s *stream) giveBack() {
	s.c.srv.bufs.Put(s.out)
	s.out = nil
}

// Finish completes the answer but leaves its last bytes to be sent after the handler has returned.
// So a client that has the whole answer also finds what the handler recorded about it.
func (s *stream) Finish(trailers message.Fields) error {
	if s.err != nil {
		return s.err
	}
	if first, err := s.End(); err != nil || !first {
		return err
	}
	if s.chunked {
		if s.out == nil {
			s.out = s.c.srv.bufs.Get(wire.SmallBuffer)
		}
		b := append(s.out.B, "0\r\n"...)
		for i := range trailers {
			if t, err := appendServerFields(b, trailers[i:i+1]); err == nil && !message.BannedTrailer(message.Fold(trailers[i].Name)) {
				b = t
			}
		}
		s.out.B = append(b, "\r\n"...)
	}
	return nil
}

func (s *stream) Upgrade(m *message.Response) (net.Conn, error) {
	c := s.c
	if s.Began || s.head.Version != message.HTTP11 || s.head.Upgrade == "" || s.body.err != io.EOF {
		return nil, errUpgrade
	}
	s.Began = true
	c.stopWatch()
	lent := c.srv.bufs.Get(wire.SmallBuffer)
	defer c.srv.bufs.Put(lent)
	b, err := appendHead(lent.B, 101, m.Fields)
	if err != nil {
		return nil, err
	}
	b = append(append(append(b, "Connection: Upgrade\r\nUpgrade: "...), s.head.Upgrade...), "\r\n\r\n"...)
	if strings.ContainsAny(s.head.Upgrade, "\r\n") {
		return nil, errUpgrade
	}
	if err := s.write(b); err != nil {
		return nil, err
	}
	if err := c.conn.SetDeadline(time.Time{}); err != nil {
		return nil, err
	}
	s.upgraded = true
	c.srv.Conns.Leave(c)
	return &tunnel{Conn: c.conn, in: &c.in}, nil
}
