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

// stream is a request and its answer. It is made anew for each request: its head
// stays valid after the handler has returned.
type stream struct {
	c    *serverConn
	head message.Head
	room [12]message.Field // for the fields of most requests
	body serverBody

	life wire.Life

	expects bool // the client waits for 100 (Continue)
	invited bool // it was sent, or the answer has begun; guarded by c.wmu
	closing bool // the connection ends with this answer

	began, finished, upgraded bool // of the answer

	mode    bodyMode
	left    int64        // of the answer's content, with bodyLength
	out     *wire.Buffer // what is held back; nil: nothing
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

var (
	errBegun     = errors.New("the answer has begun")
	errNotBegun  = errors.New("the answer has not begun")
	errNoContent = errors.New("content behind an answer that has none")
	errTooMuch   = errors.New("more content than announced")
	errTooLittle = errors.New("less content than announced")
	errStatus    = errors.New("not a status of this kind of answer")
	errUpgrade   = errors.New("a request with content, an early request behind it or of HTTP/1.0 cannot upgrade")
)

func (s *stream) Inform(m *message.Response) error {
	switch {
	case s.began:
		return errBegun
	case m.Status < 100 || m.Status > 199 || m.Status == 101:
		return errStatus
	case s.head.Version == message.HTTP10:
		return nil
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
	return c.writeLocked([]byte("HTTP/1.1 100 Continue\r\n\r\n"), time.Now().Add(s.c.srv.options.Linger))
}

// settleInvitation is called when the final head is about to be sent. A client
// that was not invited by then may send its content or not: nothing can follow.
func (s *stream) settleInvitation() {
	s.c.wmu.Lock()
	defer s.c.wmu.Unlock()
	if !s.invited {
		s.closing = true
	}
	s.invited = true
}

func (s *stream) Respond(m *message.Response, trailers bool) error {
	switch {
	case s.began:
		return errBegun
	case m.Status < 200 || m.Status > 599:
		return errStatus
	}
	s.began = true
	if s.expects {
		s.settleInvitation()
	}
	if s.c.srv.conns.Draining() {
		s.closing = true
	}
	s.out = s.c.srv.bufs.Get(wire.SmallBuffer)
	b, err := appendHead(s.out.B, m.Status, m.Fields)
	if err != nil {
		s.err = err
		return err
	}
	if !m.Fields.Has("date") {
		b = s.c.srv.dates.append(b, s.c.srv.options.Clock.Now())
	}
	b = s.appendFraming(b, m)
	if s.closing {
		b = append(b, "Connection: close\r\n"...)
	}
	s.out.B = append(b, "\r\n"...)
	return nil
}

// appendFraming decides where the answer ends and says so.
func (s *stream) appendFraming(b []byte, m *message.Response) []byte {
	hasBody := message.MayHaveBody(s.head.Method, m.Status)
	switch {
	case m.ContentLength >= 0:
		if hasBody {
			s.mode, s.left = bodyLength, m.ContentLength
		}
		if m.Status == 204 {
			return b
		}
		return append(strconv.AppendInt(append(b, "Content-Length: "...), m.ContentLength, 10), "\r\n"...)
	case !hasBody:
		return b
	case s.head.Version == message.HTTP10:
		s.mode, s.closing = bodyToEnd, true
		return b
	}
	s.mode = bodyChunked
	return append(b, "Transfer-Encoding: chunked\r\n"...)
}

func (s *stream) Write(p []byte) (int, error) {
	switch {
	case s.err != nil:
		return 0, s.err
	case !s.began:
		return 0, errNotBegun
	case len(p) == 0:
		return 0, nil
	case s.mode == bodyNone && s.head.Method == "HEAD":
		return len(p), nil
	case s.mode == bodyNone:
		return 0, errNoContent
	case s.mode == bodyLength && int64(len(p)) > s.left:
		return 0, errTooMuch
	}
	if s.mode == bodyLength {
		s.left -= int64(len(p))
	}
	if err := s.put(p); err != nil {
		return 0, err
	}
	return len(p), nil
}

// chunkRoom is what the frame of a chunk takes.
const chunkRoom = 20

// put holds content back, or sends it where it is too much.
func (s *stream) put(p []byte) error {
	need := len(p)
	if s.mode == bodyChunked {
		need += chunkRoom
	}
	held := 0
	if s.out != nil {
		held = len(s.out.B)
	}
	switch {
	case held+need > wire.LargeBuffer, held == 0 && s.mode != bodyChunked && need >= direct:
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
	if s.mode == bodyChunked {
		b = append(strconv.AppendInt(b, int64(len(p)), 16), "\r\n"...)
		b = append(append(b, p...), "\r\n"...)
	} else {
		b = append(b, p...)
	}
	s.out.B = b
	return nil
}

// send sends content behind what is held back, without a copy of it.
func (s *stream) send(p []byte) error {
	if s.mode == bodyChunked {
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
	if s.mode == bodyChunked {
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

// Finish leaves the end to be sent when the handler has returned: whoever sees an
// answer whole finds what the handler has recorded of it.
func (s *stream) Finish(trailers message.Fields) error {
	switch {
	case s.err != nil:
		return s.err
	case !s.began:
		return errNotBegun
	case s.mode == bodyLength && s.left > 0:
		return errTooLittle
	case s.finished:
		return nil
	}
	if s.mode == bodyChunked {
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
	s.finished = true
	return nil
}

func (s *stream) Upgrade(m *message.Response) (net.Conn, error) {
	c := s.c
	if s.began || s.head.Version != message.HTTP11 || s.head.Upgrade == "" || s.body.err != io.EOF {
		return nil, errUpgrade
	}
	s.began = true
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
	c.srv.conns.Leave(c)
	return &tunnel{Conn: c.conn, in: &c.in}, nil
}
