package h2

import (
	"net"
	"time"

	"sallyport/proxy/message"
)

// Upgrade answers an extended CONNECT (RFC 8441) with 200, which stands for HTTP/1.1's 101, and
// hands over the stream as a connection. It omits handshake fields that HTTP/2 does not use.
func (s *stream) Upgrade(m *message.Response) (net.Conn, error) {
	if s.Began || s.head.Upgrade == "" {
		return nil, errUpgrade
	}
	s.Began = true
	fields := append(message.Fields(nil), m.Fields...)
	fields.Del("sec-websocket-accept")
	if err := s.writeHead(&s.out, 200, fields, -1); err != nil {
		return nil, err
	}
	s.c.mu.Lock()
	defer s.c.mu.Unlock()
	s.tunnel = &tunnel{s: s}
	if err := s.push(); err != nil {
		s.tunnel = nil
		return nil, err
	}
	s.c.flush(s)
	s.readBy, s.writeBy = time.Time{}, time.Time{}
	return s.tunnel, s.err
}

// tunnel is a stream used as a connection. One goroutine may read while another writes.
type tunnel struct {
	s *stream

	writing, closed bool // guarded by the connection's mu
}

func (t *tunnel) Read(p []byte) (int, error) {
	s := t.s
	s.c.mu.Lock()
	defer s.c.mu.Unlock()
	if t.closed {
		return 0, net.ErrClosed
	}
	if len(p) == 0 {
		return 0, nil
	}
	n, err := s.read(p)
	if n > 0 {
		err = nil // the next read returns it again
	}
	return n, err
}

func (t *tunnel) Write(p []byte) (total int, err error) {
	s := t.s
	s.c.mu.Lock()
	defer s.c.mu.Unlock()
	t.writing = true
	defer func() { t.writing = false }()
	for len(p) > 0 {
		switch {
		case t.closed || s.outEnded:
			return total, net.ErrClosed
		case s.lost != nil:
			return total, s.lost
		}
		n := min(len(p), maxHeld)
		s.out.put(&s.c.srv.bufs, s.id, p[:n])
		if err := s.push(); err != nil {
			return total, err
		}
		total += n
		p = p[n:]
	}
	s.c.flush(s)
	return total, s.err
}

// Close ends the stream. It resets the stream if a write is pending.
func (t *tunnel) Close() error {
	s, c := t.s, t.s.c
	c.mu.Lock()
	defer c.mu.Unlock()
	if t.closed {
		return nil
	}
	t.closed = true
	switch {
	case s.err != nil:
	case t.writing || s.lost != nil:
		c.reset(s, cancel)
	default:
		c.append(appendFrameHead(nil, 0, frameData, flagEndStream, s.id))
		s.outEnded = true
		if !s.inEnded {
			c.reset(s, noError)
		}
	}
	c.retireEnded(s)
	s.readable.Broadcast()
	c.kick()
	return nil
}

// abort resets the stream unless it was closed.
func (t *tunnel) abort() {
	s, c := t.s, t.s.c
	c.mu.Lock()
	defer c.mu.Unlock()
	if t.closed || s.err != nil {
		return
	}
	t.closed = true
	c.reset(s, cancel)
	s.readable.Broadcast()
	c.kick()
}

func (t *tunnel) LocalAddr() net.Addr  { return t.s.c.conn.LocalAddr() }
func (t *tunnel) RemoteAddr() net.Addr { return t.s.c.conn.RemoteAddr() }

func (t *tunnel) SetDeadline(by time.Time) error {
	_ = t.SetReadDeadline(by)
	return t.SetWriteDeadline(by)
}

func (t *tunnel) SetReadDeadline(by time.Time) error { return t.s.SetReadDeadline(by) }

func (t *tunnel) SetWriteDeadline(by time.Time) error {
	_ = t.s.SetWriteDeadline(by)
	if passed(by, time.Now()) {
		t.s.c.mu.Lock()
		defer t.s.c.mu.Unlock()
		t.s.writable.Broadcast()
		t.s.c.changed.Broadcast()
	}
	return nil
}
