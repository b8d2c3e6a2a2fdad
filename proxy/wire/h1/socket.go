package h1

import (
	"errors"
	"io"
	"net"
	"os"
	"time"

	"sallyport/proxy/wire/socket"
)

// Socket is the connection below TLS, or the one without TLS. It remembers whether the peer has
// closed. It is not safe for concurrent use beyond what net.Conn allows.
type Socket struct {
	net.Conn
	ended bool // Read has returned io.EOF
}

// NewSocket wraps a dialed connection.
func NewSocket(conn net.Conn) *Socket { return &Socket{Conn: conn} }

// Read reads from the connection and remembers its end.
func (s *Socket) Read(p []byte) (int, error) {
	n, err := s.Conn.Read(p)
	s.ended = s.ended || err == io.EOF
	return n, err
}

// reset closes the connection with an error, so that the peer cannot take it for the end of a
// message.
func (s *Socket) reset() {
	if l, ok := socket.Beneath(s.Conn).(interface{ SetLinger(int) error }); ok {
		_ = l.SetLinger(0) // the connection is closed next, so a failure has no effect
	}
	_ = s.Conn.Close()
}

// longAgo is a deadline in the past.
var longAgo = time.Unix(1, 0)

// Alive reports whether an idle connection can be reused: nothing has arrived on it. Otherwise a
// stray answer could be taken for the answer to the next request.
func (c *Client) Alive() bool {
	if c.busy || c.in.buffered() > 0 {
		return false
	}
	if c.secure {
		// TLS may have read ahead. With a deadline in the past it returns buffered bytes and does
		// not touch the socket.
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
