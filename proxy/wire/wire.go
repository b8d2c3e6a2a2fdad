// Package wire defines the interfaces between the gateway and HTTP on the wire. A server engine
// hands the pipeline one [Stream] for each request. A client engine sends requests to an upstream
// ([Client], [Exchange]). Engines are subpackages; the pipeline does not know which one it runs on.
package wire

import (
	"crypto/tls"
	"net"
	"net/netip"
	"time"

	"sallyport/proxy/message"
)

// Handler serves one request. The engine calls it in a goroutine of the connection or stream. When
// it returns, the stream belongs to the engine again. The engine aborts a response that the handler
// left unfinished, so that the client does not take it for complete.
type Handler func(Stream)

// Stream is one request and the means to answer it. It belongs to the handler until the handler
// returns. Body and the answering methods may be used by two different goroutines at the same time;
// otherwise it is not safe for concurrent use.
type Stream interface {
	// Head is the request's head. It stays valid after the handler has returned.
	Head() *message.Head
	// Conn describes the connection.
	Conn() *Conn
	// Life ends when the client has gone away or the handler has returned.
	Life() *Life

	// Body is the request's content; never nil. The first Read sends 100 (Continue) to a client
	// that sent `Expect: 100-continue`.
	Body() message.Body
	// SetReadDeadline bounds later reads of the body; the zero time means no bound.
	SetReadDeadline(time.Time) error
	// SetWriteDeadline bounds later writes of the answer; the zero time means no bound.
	SetWriteDeadline(time.Time) error

	// Inform sends an interim response (103). It sends nothing to HTTP/1.0 clients.
	Inform(*message.Response) error
	// Respond sends the final head; the engine adds the framing. It may be called once. trailers
	// says that Finish will send trailers.
	Respond(head *message.Response, trailers bool) error
	// Write sends content. The engine may buffer it until Flush or Finish.
	Write(p []byte) (int, error)
	// Flush sends buffered content.
	Flush() error
	// Finish completes the answer. An unfinished answer is aborted (HTTP/1.1: the connection closes
	// before the end; HTTP/2: RST_STREAM).
	Finish(trailers message.Fields) error

	// KeepEnd keeps the last byte of the answer until the handler has returned, so that Abort can
	// cut it. It is called before Respond.
	KeepEnd()
	// Abort cuts an answer after Finish, or a connection after Upgrade. It must be the last call, and
	// needs KeepEnd before an answer of known length.
	Abort()

	// Upgrade answers 101 and hands over the connection, which the caller must close. Reads return
	// bytes that the client sent early first. Over HTTP/2 it answers 200 and hands over the stream
	// (RFC 8441); after an extended CONNECT no other answer may have a 2xx status.
	Upgrade(head *message.Response) (net.Conn, error)

	// CloseAfter makes the engine close the connection after the answer, without reading the rest
	// of the request. Over HTTP/2 the engine discards the rest for a while, then resets only the
	// stream.
	CloseAfter()
}

// Cutter is a Stream that can be aborted with an error code, as over HTTP/2.
type Cutter interface {
	// CutAs sets the error code (RFC 9113, section 7) of the RST_STREAM for an unfinished answer.
	CutAs(code uint32)
}

// Drainer is a Stream whose connection carries other streams too, as over HTTP/2.
type Drainer interface {
	// DrainAfter makes the client use another connection for its next requests, once this one is
	// answered (GOAWAY). Those in flight are answered too.
	DrainAfter()
}

// PeerOf returns the address of one end of a socket, or the zero AddrPort for other addresses.
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

// NewConn returns the Conn between a peer and a local address.
func NewConn(peer, local netip.AddrPort) Conn {
	return Conn{Peer: peer, Local: local.Addr(), Address: peer.Addr().Unmap().String()}
}

// ClientPolicyOf returns [Conn.ClientPolicy] of a connection whose listener tells it.
func ClientPolicyOf(c *tls.Conn) string {
	if p, ok := c.NetConn().(interface{ ClientPolicy() string }); ok {
		return p.ClientPolicy()
	}
	return ""
}

// Conn describes the connection of a request. All requests of that connection share it; it must not
// be modified.
type Conn struct {
	Peer  netip.AddrPort // the client, or the balancer in front of it
	Local netip.Addr     // the gateway's own address; the zero Addr if it has none
	// Address is the peer's address as text; IPv4-mapped addresses are written as IPv4.
	Address string
	TLS     *tls.ConnectionState // nil without TLS
	// ClientPolicy identifies the policy by which the handshake asked for a client certificate; "" if
	// it asked for none.
	ClientPolicy string
}

// Reset is the error of a message that its sender aborted with an error code, as over HTTP/2 (RFC
// 9113, section 7).
type Reset struct {
	Code uint32
	Name string // the code's name in the RFC
	// Connection says that the code ended the connection (GOAWAY), not one exchange alone.
	Connection bool
}

func (r *Reset) Error() string { return "reset: " + r.Name }
