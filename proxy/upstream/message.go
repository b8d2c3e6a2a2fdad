package upstream

import (
	"time"

	"sallyport/proxy/message"
)

// Timeouts bound one request. Zero is no bound.
type Timeouts struct {
	// Connect bounds finding a connection: name lookup, connect and TLS
	// handshake of each endpoint that is tried.
	Connect time.Duration
	// Head bounds the time from the last byte of the request to the last byte of
	// the head of the final response. While a body is being uploaded it does not
	// run: slow clients are not the server's fault, and have bounds of their own.
	Head time.Duration
	// Idle bounds each write of the request and each wait for more of the
	// response's content.
	Idle time.Duration
	// Total bounds the whole request from Send to the end of the content.
	Total time.Duration
}

// Request is one request for an upstream. It must not be changed until the
// response is closed or Send has returned an error.
type Request struct {
	Method string
	Target string // canonical path and query, in origin form
	Host   string // what the client called us; sent where the upstream's host is "client"

	// Fields are final: sanitised, identity set. A field that belongs to the
	// connection or to framing is a fault of the caller, and nothing is sent.
	Fields message.Fields

	// Body is the content. It is not read where Length is 0.
	Body message.Body
	// Length is the length of the content in bytes: 0 for none, -1 where only
	// its end will tell; that is sent chunked, or as what it has turned out to be
	// where Body is [message.Arrived].
	Length int64
	// Interrupt makes a Read of Body that waits for the client return soon with
	// an error. It is called when the upload must end before its body has: the
	// upstream failed, or answered without wanting the rest; and again every 100 ms
	// until Read has returned. Where it is nil, Send and Close wait for Read.
	Interrupt func()
	// Trailers chooses which of the trailers of Body go upstream; nil means none.
	// It is called once Body has ended, in the goroutine that reads it. It is not called
	// for a server that may not get any: grpc-go and others end a connection, and with it
	// the requests of everybody else, when a second HEADERS comes. Such trailers are
	// dropped and not refused: RFC 9110, section 6.5.1, lets intermediaries discard them,
	// and no client of gRPC sends any.
	Trailers func(message.Fields) message.Fields

	Upgrade string // "websocket", or "" for none
	Expect  bool   // the client waits for 100 (Continue): reading Body sends it, the upstream is never asked

	Timeouts Timeouts

	// Into is the response to be filled, of which nothing is left; a new one if nil.
	Into *Response

	// Sign returns the fields of one attempt, asked for anew for each: Fields and
	// what signs them for the scheme and the Host of the endpoint. Its error ends the
	// exchange and is returned as it is. Nil: Fields are sent as they are.
	Sign func(scheme, host string) (message.Fields, error)

	// Inform gets interim responses other than 100 and 101. Its error ends the
	// exchange and is returned as it is. It may be nil.
	Inform func(*message.Response) error
}

// grpc says whether the request goes to the endpoints for gRPC.
func (r *Request) grpc() bool { return message.IsGRPC(r.Fields.Get("content-type")) }

// Kind is what went wrong at the upstream.
type Kind uint8

const (
	Refused     Kind = iota + 1 // no connection could be made
	Reset                       // the connection broke before the response was whole
	Garbage                     // the response is not HTTP as it must be
	Timeout                     // one of Timeouts passed
	NoneHealthy                 // no endpoint is fit, or has room
	Unserved                    // there is no endpoint for requests of this kind
)

// String names the kind in one word.
func (k Kind) String() string {
	switch k {
	case Refused:
		return "refused"
	case Reset:
		return "reset"
	case Garbage:
		return "garbage"
	case Timeout:
		return "timeout"
	case NoneHealthy:
		return "none healthy"
	case Unserved:
		return "unserved"
	}
	return "unknown"
}

// Error is a failure of the upstream. Other errors of Send and of the body of a
// response are not: errors in reading the request's body and of Inform, the end
// of the context (its cause), and requests that may not be sent.
type Error struct {
	Kind     Kind
	Endpoint string // where it happened; "" where no endpoint was tried
	Err      error  // the cause, for audit only; never shown to clients
}

// Error describes the failure for the audit log.
func (e *Error) Error() string {
	if e.Endpoint == "" {
		return "upstream " + e.Kind.String() + ": " + e.Err.Error()
	}
	return "upstream " + e.Kind.String() + ": " + e.Endpoint + ": " + e.Err.Error()
}

// Unwrap gives the cause.
func (e *Error) Unwrap() error { return e.Err }
