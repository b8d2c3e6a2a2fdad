package wire

import (
	"crypto/tls"
	"net"
	"time"

	"sallyport/proxy/wire/socket"
)

// lingeringBytes limits how much [Linger] reads from a fast client.
const lingeringBytes = 8 << 20

// Cut closes a connection, over TLS without close_notify, so that the client sees a truncated
// message.
func Cut(conn net.Conn) {
	if t, ok := conn.(*tls.Conn); ok {
		_ = t.NetConn().Close()
		return
	}
	_ = conn.Close()
}

// Linger closes a connection so that the client can still read the answer. It closes the sending
// side, then reads into buf and discards until the client closes, the time by is reached or
// [lingeringBytes] have come. Closing at once would send a reset, and a client that gets the reset
// may lose the answer.
func Linger(conn net.Conn, by time.Time, buf []byte) {
	_ = conn.SetDeadline(by) // fails only on a closed connection, where reads and writes fail too
	below := socket.Beneath(conn)
	if t, ok := conn.(*tls.Conn); ok {
		_ = t.CloseWrite()
	}
	if t, ok := below.(interface{ CloseWrite() error }); ok {
		_ = t.CloseWrite()
	}
	// Read below TLS: the bytes are discarded, so they need no decryption.
	for left := lingeringBytes; left > 0; {
		n, err := below.Read(buf)
		if err != nil {
			break
		}
		left -= n
	}
	Cut(conn)
}
