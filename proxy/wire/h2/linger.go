package h2

import (
	"time"

	"sallyport/proxy/wire"
)

// linger discards the rest of a request whose answer is complete; mu is held. The client may go on
// to send, with windows that open, for the time that connections over HTTP/1.1 linger. Then the
// stream is reset. An earlier reset, or a window that stays closed, costs some clients the answer:
// java.net.http and httpx read it only once they have sent the body.
func (s *stream) linger() {
	c := s.c
	now := time.Now()
	s.discards = true
	s.lingerBy = c.srv.BeginLinger(now, c.options.Linger)
	s.discard(s.inbox.drop(&c.srv.bufs))
}

// discard grants the client n bytes of content that nobody reads; mu is held.
func (s *stream) discard(n int) {
	s.due = time.Now().Add(wire.MaxSilence)
	s.c.giveBack(n)
	if more := s.receive.read(n, true); more > 0 && s.c.stage != over {
		b := s.c.control()
		b.B = appendWindow(b.B, s.id, more)
	}
}

// lingeredOut reports whether the client had all the time that it may linger, which is short once
// the connection drains; mu is held.
func (s *stream) lingeredOut(now time.Time) bool {
	if s.lingerBy.IsZero() {
		return false
	}
	if s.c.stage != open {
		s.lingerBy = earlier(s.lingerBy, now.Add(wire.Brief))
	}
	return passed(s.lingerBy, now)
}

func earlier(a, b time.Time) time.Time {
	if b.Before(a) {
		return b
	}
	return a
}

// endLinger is called when the stream is forgotten; mu is held.
func (s *stream) endLinger() {
	if !s.lingerBy.IsZero() {
		s.lingerBy = time.Time{}
		s.c.srv.EndLinger()
	}
}
