package h2

import (
	"time"

	"sallyport/proxy/wire"
)

// linger discards the rest of a request whose answer is complete; mu is held. The client may send on,
// and its windows are still enlarged, for as long as connections over HTTP/1.1 linger. Then the stream
// is reset. With an earlier reset or a closed window, some clients lose the answer: java.net.http and
// httpx read it only after they have sent the body.
func (s *stream) linger() {
	c := s.c
	now := time.Now()
	s.discards = true
	s.lingerBy = c.srv.BeginLinger(now, c.options.Linger)
	s.discard(s.inbox.drop(&c.srv.bufs))
}

// discard lets the client send n more bytes in the place of n discarded ones; mu is held.
func (s *stream) discard(n int) {
	s.due = time.Now().Add(wire.MaxSilence)
	s.c.giveBack(n)
	if more := s.receive.read(n, true); more > 0 && s.c.stage != over {
		b := s.c.control()
		b.B = appendWindow(b.B, s.id, more)
	}
}

// lingeredOut reports whether the time to linger is over. Once the connection drains, at most
// [wire.Brief] is left of it. mu is held.
func (s *stream) lingeredOut(now time.Time) bool {
	if s.lingerBy.IsZero() {
		return false
	}
	if s.c.stage != open {
		s.lingerBy = wire.Earlier(s.lingerBy, now.Add(wire.Brief))
	}
	return passed(s.lingerBy, now)
}

// endLinger is called when the stream is forgotten; mu is held.
func (s *stream) endLinger() {
	if !s.lingerBy.IsZero() {
		s.lingerBy = time.Time{}
		s.c.srv.EndLinger()
	}
}
