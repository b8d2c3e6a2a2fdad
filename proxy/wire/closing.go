package wire

import (
	"crypto/tls"
	"errors"
	"net"
	"os"
	"time"

	"sallyport/proxy/wire/socket"
)

// Cut closes a connection, over TLS without close_notify, so that the client sees a truncated
// message.
func Cut(conn net.Conn) {
	if t, ok := conn.(*tls.Conn); ok {
		_ = t.NetConn().Close()
		return
	}
	_ = conn.Close()
}

const (
	// Brief is the time for what a client does at once, such as taking a line of text.
	Brief = time.Second
	// MaxSilence is how long a client may send nothing behind an answer that came early.
	MaxSilence = 5 * time.Second
	// maxLingering is how many connections or streams of a server may linger for longer than Brief.
	maxLingering = 1024
)

// BeginLinger counts a connection or a stream that lingers, and returns the time by which it must
// end. That is most after begun, or [Brief] after it while more than 1024 linger. The caller must call
// EndLinger once. It is safe for concurrent use.
func (s *Server[C]) BeginLinger(begun time.Time, most time.Duration) (by time.Time) {
	if s.lingering.Add(1) > maxLingering {
		most = min(most, Brief)
	}
	return begun.Add(most)
}

// EndLinger undoes one BeginLinger.
func (s *Server[C]) EndLinger() { s.lingering.Add(-1) }

// Linger closes the sending side of conn. Then it reads into buf and discards until the client
// closes, is silent for 5 seconds, or the time most is over. Closing at once would send a reset, and
// a client that is still sending may see the reset before it has read the answer. The bytes are not
// limited: a client that sends a long body must be able to end it. While the server drains, or very
// many connections linger, the time is at most [Brief].
func (s *Server[C]) Linger(conn net.Conn, most time.Duration, buf []byte) {
	defer Cut(conn)
	begun := time.Now()
	_ = conn.SetWriteDeadline(begun.Add(Brief)) // fails only on a closed connection, where writes fail too
	below := socket.Beneath(conn)
	if t, ok := conn.(*tls.Conn); ok {
		_ = t.CloseWrite()
	}
	if t, ok := below.(interface{ CloseWrite() error }); ok {
		_ = t.CloseWrite()
	}
	by := s.BeginLinger(begun, most)
	defer s.EndLinger()
	// Read below TLS: nothing needs to be decrypted.
	for silent := begun.Add(MaxSilence); ; {
		now := time.Now()
		if s.Conns.Draining() {
			by = Earlier(by, now.Add(Brief))
		}
		until := Earlier(by, silent)
		if !now.Before(until) || below.SetReadDeadline(Earlier(until, now.Add(Brief))) != nil {
			return
		}
		n, err := below.Read(buf)
		switch {
		case n > 0:
			silent = time.Now().Add(MaxSilence)
		case !errors.Is(err, os.ErrDeadlineExceeded):
			return
		}
	}
}

// Earlier returns the earlier of two times.
func Earlier(a, b time.Time) time.Time {
	if a.Before(b) {
		return a
	}
	return b
}
