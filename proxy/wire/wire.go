// Package wire is the border between the gateway and HTTP on the wire, on both sides: what
// a server engine hands to the pipeline for each request ([Stream]), and what a client
// engine asks an upstream for ([Client], [Exchange]). Engines are its subpackages; the
// pipeline does not know which one it runs on.
package wire

import (
	"crypto/tls"
	"net"
	"net/netip"
	"time"

	"sallyport/proxy/message"
)

// Handler serves one request. The engine calls it in a goroutine of the
// connection or stream and takes the stream back when it returns; a response
// that was begun and not finished then is cut, so that it looks cut.
type Handler func(Stream)

// Stream is one request on the wire and the way back for its answer. It belongs
// to the handler until that returns. Body and the answering methods may be used
// by two different goroutines at the same time; otherwise it is not safe for
// concurrent use.
type Stream interface {
	// Head is the request's head. It stays valid after the handler has returned.
	Head() *message.Head
	// Conn tells about the connection.
	Conn() *Conn
	// Life ends when the client has gone away or the handler has returned.
	Life() *Life

	// Body is the request's content; never nil.
	// The first Read answers `Expect: 100-continue`.
	Body() message.Body
	// SetReadDeadline bounds later reads of the body; the zero time means no bound.
	SetReadDeadline(time.Time) error
	// SetWriteDeadline bounds later writes of the answer; the zero time means no bound.
	SetWriteDeadline(time.Time) error

	// Inform sends an interim response (103). Clients of HTTP/1.0 are not told.
	Inform(*message.Response) error
	// Respond sends the final head; framing is the engine's. It may be called once.
	// trailers says that Finish will bring some.
	Respond(head *message.Response, trailers bool) error
	// Write sends content. It may hold it back until Flush or Finish.
	Write(p []byte) (int, error)
	// Flush sends what Write held back.
	Flush() error
	// Finish ends the answer cleanly. An answer that is not finished is cut
	// (HTTP/1.1: the connection closes before the end; HTTP/2: RST_STREAM).
	Finish(trailers message.Fields) error

	// Upgrade answers 101 and hands over the connection, which the caller must
	// close. Bytes that the client sent early come first. Over HTTP/2 the answer is
	// 200, and what is handed over is the stream (RFC 8441); no other answer with
	// 2xx is possible then.
	Upgrade(head *message.Response) (net.Conn, error)

	// CloseAfter makes the engine close the connection once the answer is sent,
	// without reading the rest of the request (HTTP/2: throws it away for a while, and
	// then resets the stream only).
	CloseAfter()
}

// Cutter is a Stream whose answer can be cut with a reason, as over HTTP/2.
type Cutter interface {
	// CutAs says with which error code (RFC 9113, section 7) the stream is reset
	// where its answer is not finished.
	CutAs(code uint32)
}

// PeerOf is the address of a socket's other end; the zero one for sockets without one.
func PeerOf(a net.Addr) netip.AddrPort {
	switch a := a.(type) {
	case *net.TCPAddr:
		return a.AddrPort()
	case nil:
		return netip.AddrPort{}
	}
	p, _ := netip.ParseAddrPort(a.String())
	return p
}

// NewConn is the Conn of a peer.
func NewConn(peer netip.AddrPort) Conn {
	return Conn{Peer: peer, Address: peer.Addr().Unmap().String()}
}

// Conn tells about the connection that a request came on. It is shared by the
// requests of that connection and must not be modified.
type Conn struct {
	Peer netip.AddrPort // the client, or the balancer in front of it
	// Address is the peer's address as text, IPv4 as such.
	Address string
	TLS     *tls.ConnectionState // nil without TLS
}

// Reset is the error of a message that its sender cut with a reason: over HTTP/2, an
// error code (RFC 9113, section 7).
type Reset struct {
	Code uint32
	Name string // as the standard has it
	// Connection says that it ended the connection (GOAWAY) and not one exchange alone.
	Connection bool
}

// Error names the reason.
func (r *Reset) Error() string { return "reset: " + r.Name }
