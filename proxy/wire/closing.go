package wire

import (
	"crypto/tls"
	"net"
	"time"

	"sallyport/proxy/wire/socket"
)

// lingeringBytes bounds what [Linger] reads from clients that send fast.
const lingeringBytes = 8 << 20

// Cut closes a connection, with TLS without close_notify: the client sees that whatever
// it was reading is not whole.
func Cut(conn net.Conn) {
	if t, ok := conn.(*tls.Conn); ok {
		_ = t.NetConn().Close()
		return
	}
	_ = conn.Close()
}

// Linger closes a connection so that the client can still read the answer: it ends the
// sending side, then reads and throws away what the client still sends, until the client
// closes, by is reached or too much has come. Closing at once would reset the connection,
// and a client that sees the reset may lose the answer. It reads into buf.
func Linger(conn net.Conn, by time.Time, buf []byte) {
	_ = conn.SetDeadline(by) // fails only on a closed connection, where reads and writes fail too
	below := socket.Beneath(conn)
	if t, ok := conn.(*tls.Conn); ok {
		_ = t.CloseWrite()
	}
	if t, ok := below.(interface{ CloseWrite() error }); ok {
		_ = t.CloseWrite()
	}
	// Below TLS: none of it is wanted, so none is decrypted.
	for left := lingeringBytes; left > 0; {
		n, err := below.Read(buf)
		if err != nil {
			break
		}
		left -= n
	}
	Cut(conn)
}
