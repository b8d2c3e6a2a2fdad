// Package message says what an HTTP message is inside the gateway: one strict,
// canonical reading, made once on the wire and used unchanged for matching,
// authentication, policy, signatures and forwarding.
//
// It is a leaf: it knows no transport, no configuration and no policy.
package message

import "io"

// Version is a version of HTTP.
type Version uint8

const (
	HTTP10 Version = 10
	HTTP11 Version = 11
	HTTP2  Version = 20
)

// String gives the version as access logs write it, such as "HTTP/1.1".
func (v Version) String() string {
	switch v {
	case HTTP10:
		return "HTTP/1.0"
	case HTTP11:
		return "HTTP/1.1"
	case HTTP2:
		return "HTTP/2"
	}
	return "HTTP/?"
}

// Head is the head of a request. The wire fills it once, and whoever finds the route
// may merge slashes of Path; no later step changes a field of it, so all steps see the
// same request.
type Head struct {
	Version   Version
	Method    string // case-sensitive, as sent
	Scheme    string // "https" or "http": how the client reached the listener
	Authority string // canonical, see [CanonicalAuthority]
	Host      string // Authority without its port
	Target    string // the request target in origin form, byte for byte as sent
	Path      string // canonical, see [CanonicalPath]
	Forms     Forms  // what of Path only the route's options can admit
	Query     string // without "?", canonical, see [CanonicalQuery]
	HasQuery  bool   // tells "/p?" from "/p"
	Fields    Fields // without Host, framing and hop-by-hop fields; "cookie" lines joined
	Upgrade   string // the protocol asked for by Upgrade or :protocol, lower case; "" for none
	Trailers  bool   // the client reads fields after the content (TE: trailers)
	Expect    bool   // the client waits for 100 (Continue) before it sends the body

	// ContentLength is the length of the body in bytes: 0 for none, -1 where only
	// its end will tell.
	ContentLength int64

	// Fault is why the engine read no further: nil, or one of this package's
	// errors. What it did read is there for the record; Settle returns the fault.
	Fault error
}

// PathAndQuery is the canonical path and query: what is forwarded.
func (h *Head) PathAndQuery() string {
	if !h.HasQuery {
		return h.Path
	}
	return h.Path + "?" + h.Query
}

// Response is the head of a response.
type Response struct {
	Status int    // 100 to 599
	Fields Fields // without framing and hop-by-hop fields

	// ContentLength is the length of the body in bytes, -1 where only its end
	// will tell. In answers to HEAD and with 304 it is what the field said, -1
	// where there was none.
	ContentLength int64
}

// Body is the content of a message as it arrives, transfer coding removed.
//
// Read returns io.EOF only at the clean end of the content; a message that was
// cut off ends in another error. It is not safe for concurrent use.
type Body interface {
	io.Reader
	// Trailers are the fields after the content. They are valid once Read has
	// returned io.EOF, and nil before.
	Trailers() Fields
}

// Arrived is a Body that knows what of it has come.
type Arrived interface {
	// Arrived says how many bytes can be read without waiting, and whether the body
	// ends behind them; that of a request only if it has no trailers.
	Arrived() (n int, whole bool)
}

// Coming is a Body that can ask the system whether more of it is coming in.
type Coming interface {
	// Coming says whether bytes of the content have arrived. It is true even if only part
	// of a TLS record has arrived: Read may then block for the rest.
	Coming() bool
}

// MayHaveBody says whether a response with this status to a request with this
// method has content (RFC 9110, section 6.4.1).
func MayHaveBody(method string, status int) bool {
	return method != "HEAD" && status >= 200 && status != 204 && status != 304
}

// Idempotent says whether a request with this method may be sent twice
// (RFC 9110, section 9.2.2).
func Idempotent(method string) bool {
	switch method {
	case "GET", "HEAD", "OPTIONS", "TRACE", "PUT", "DELETE":
		return true
	}
	return false
}
