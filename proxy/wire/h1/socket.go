package h1

import (
	"errors"
	"io"
	"net"
	"os"
	"time"

	"sallyport/proxy/wire/socket"
)

// Socket is a connection below TLS, or one without it, that remembers its end. It is
// not safe for concurrent use beyond what net.Conn allows.
type Socket struct {
	net.Conn
	ended bool // Read has come to the end
}

// NewSocket wraps a connection as it was dialed.
func NewSocket(conn net.Conn) *Socket { return &Socket{Conn: conn} }

// Read reads, and remembers the end.
func (s *Socket) Read(p []byte) (int, error) {
	n, err := s.Conn.Read(p)
	s.ended = s.ended || err == io.EOF
	return n, err
}

// reset closes the connection so that the other side sees an error, and not an
// end that might pass for the end of a message.
func (s *Socket) reset() {
	if l, ok := socket.Beneath(s.Conn).(interface{ SetLinger(int) error }); ok {
		_ = l.SetLinger(0) // closed next; there is nobody to tell
	}
	_ = s.Conn.Close()
}

// longAgo is a deadline that has passed.
var longAgo = time.Unix(1, 0)

// Alive says whether an idle connection may be used again: nothing has arrived
// on it. Whatever has, an end, an alert or the answer to a question that nobody
// asked, it must not be taken for the answer to the next.
func (c *Client) Alive() bool {
	if c.busy || c.in.buffered() > 0 {
		return false
	}
	if c.secure {
		// TLS may have read further than its user. With a deadline that has
		// passed it gives what it holds and does not touch the socket.
		c.readBy = longAgo
		if c.conn.SetReadDeadline(longAgo) != nil {
			return false
		}
		var b [1]byte
		if n, err := c.conn.Read(b[:]); n > 0 || !errors.Is(err, os.ErrDeadlineExceeded) {
			return false
		}
	}
	quiet, known := socket.Quiet(c.sock.Conn)
	return quiet || !known
}
