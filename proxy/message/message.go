// Package message defines the HTTP message inside the gateway: a strict, canonical reading. The
// wire computes it once, and matching, authentication, policy, signatures and forwarding all use
// it.
//
// It does not depend on transport, configuration or policy.
package message

import "io"

// Version is an HTTP version.
type Version uint8

const (
	HTTP10 Version = 10
	HTTP11 Version = 11
	HTTP2  Version = 20
)

// String returns the version as in access logs, such as "HTTP/1.1".
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

// Head is the head of a request. The wire fills it once. Only the search for the route may merge
// slashes of Path; no later step changes a field, so all steps see the same request.
type Head struct {
	Version   Version
	Method    string // case-sensitive, as sent
	Scheme    string // "https" or "http", as used by the client
	Authority string // canonical, see [CanonicalAuthority]
	Host      string // Authority without its port
	Target    string // the request target in origin form, byte for byte as sent
	Path      string // canonical, see [CanonicalPath]
	Forms     Forms  // parts of Path that only the route's options can permit
	Query     string // without "?", canonical, see [CanonicalQuery]
	HasQuery  bool   // distinguishes "/p?" from "/p"
	Fields    Fields // without Host, framing and hop-by-hop fields; "cookie" lines joined
	Upgrade   string // the requested protocol of Upgrade or :protocol, lower case; "" for none
	// VainUpgrade means that a field Upgrade has no effect: it came without the option upgrade in
	// Connection, which a proxy on the way may have removed, or over HTTP/1.0.
	VainUpgrade bool
	Trailers    bool // the client accepts trailers (TE: trailers)
	Expect      bool // the client waits for 100 (Continue) before it sends the body

	// ContentLength is the length of the body in bytes: 0 for none, -1 if unknown.
	ContentLength int64

	// Fault is the reason why the engine stopped reading; nil or one of this package's
	// errors. The fields read before are for the audit record, and Fields has those of
	// [Fields.Audience]; Settle returns the fault.
	Fault error
}

// PathAndQuery returns the canonical path and query. This is forwarded.
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

	// ContentLength is the length of the body in bytes; -1 if unknown. In responses to HEAD and
	// with 304 it is the value of the field, -1 if there was none.
	ContentLength int64
}

// Body is the content of a message as it arrives, without transfer coding.
//
// Read returns io.EOF only at the proper end of the content. A truncated message ends with
// another error. It is not safe for concurrent use.
type Body interface {
	io.Reader
	// Trailers returns the fields after the content, once Read has returned io.EOF; nil before.
	Trailers() Fields
}

// Arrived is a Body that knows how much of it has arrived.
type Arrived interface {
	// Arrived returns how many bytes can be read without blocking, and whether the body ends
	// after them. For a request, whole is true only without trailers.
	Arrived() (n int, whole bool)
}

// ArrivedOf returns what Arrived returns for a body that is [Arrived]; for others, 0 and false.
func ArrivedOf(body io.Reader) (n int, whole bool) {
	if came, ok := body.(Arrived); ok {
		return came.Arrived()
	}
	return 0, false
}

// Coming is a Body that can ask the system whether more content is arriving.
type Coming interface {
	// Coming reports whether content bytes have arrived. It is true even if only part of a TLS
	// record has arrived: Read may then block for the rest.
	Coming() bool
}

// Trailed is the Body of a request that counts its trailers.
type Trailed interface {
	// Trailed returns how many trailer lines have arrived, including those that Trailers omits. It
	// is safe for concurrent use.
	Trailed() int
}

// MayHaveBody reports whether a response with this status to a request with this method has
// content (RFC 9110, section 6.4.1).
func MayHaveBody(method string, status int) bool {
	return method != "HEAD" && status >= 200 && status != 204 && status != 304
}

// Idempotent reports whether a request with this method may be repeated (RFC 9110, section
// 9.2.2).
func Idempotent(method string) bool {
	switch method {
	case "GET", "HEAD", "OPTIONS", "TRACE", "PUT", "DELETE":
		return true
	}
	return false
}
