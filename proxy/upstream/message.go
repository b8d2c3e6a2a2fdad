package upstream

import (
	"time"

	"sallyport/proxy/message"
)

// Timeouts bound one request. Zero means no limit.
type Timeouts struct {
	// Connect limits name lookup, connect and TLS handshake, for each endpoint tried.
	Connect time.Duration
	// Head limits the time from the last byte of the request to the end of the head of the final
	// response. It does not run during an upload: slow clients have their own limits and are not
	// the server's fault.
	Head time.Duration
	// Idle limits each write of the request and each read of the response's content.
	Idle time.Duration
	// Pause limits each read of the response's content in place of Idle. If it is 0, Idle applies.
	Pause time.Duration
	// Total limits the whole request, from Send to the end of the content.
	Total time.Duration
}

// Request is a request for an upstream. It must not be changed until the response is closed or
// Send has returned an error.
type Request struct {
	Method string
	Target string // canonical path and query, in origin form
	Host   string // the client's Host; sent if the upstream's host is "client"

	// Fields are final: sanitized and with the identity fields. Send refuses fields that belong
	// to the connection or to framing.
	Fields message.Fields

	// Body is the content. It is not read if Length is 0.
	Body message.Body
	// Length is the content length in bytes: 0 for none, -1 if unknown. Unknown content is sent
	// chunked, or with its length if Body is [message.Arrived] and complete.
	Length int64
	// Interrupt makes a pending Read of Body return soon with an error. It is called when the
	// upload must end early, because the upstream failed or answered without reading the rest. It
	// is repeated every 100 ms until Read returns. If nil, Send and Close wait for Read.
	Interrupt func()
	// Trailers filters the trailers of Body that go upstream; nil sends none. It is called after
	// the end of Body, in the goroutine that reads it. It is not called for a server that may get
	// none: grpc-go and others end a connection, and with it the requests of other callers, when a
	// second HEADERS frame arrives. Such trailers are dropped and not refused: RFC 9110, section
	// 6.5.1, lets intermediaries discard them, and no gRPC client sends any.
	Trailers func(message.Fields) message.Fields

	Upgrade string // "websocket", or "" for none
	Expect  bool   // the client waits for 100 (Continue); reading Body sends it, and Expect is never forwarded

	Timeouts Timeouts

	// Into is a response to reuse; a new one if nil.
	Into *Response

	// Sign returns the fields of one attempt: Fields plus a signature for the scheme and Host of
	// the endpoint. It is called for each attempt. Its error ends the exchange and is returned
	// unchanged. Nil sends Fields as they are.
	Sign func(scheme, host string) (message.Fields, error)

	// Credential returns the fields of one attempt with the gateway's own credential added. It is
	// called for each attempt, after Sign. Its error is treated as that of Sign. It may be nil.
	Credential func(message.Fields) (message.Fields, error)

	// Inform receives interim responses other than 100 and 101. Its error ends the exchange and
	// is returned unchanged. It may be nil.
	Inform func(*message.Response) error
}

// grpc reports whether the request goes to the gRPC endpoints.
func (r *Request) grpc() bool { return message.IsGRPC(r.Fields.Get("content-type")) }

// Kind classifies a failure of the upstream.
type Kind uint8

const (
	Refused     Kind = iota + 1 // the connect failed
	Reset                       // the connection broke before the end of the response
	Garbage                     // the response is not valid HTTP
	Timeout                     // one of Timeouts expired
	NoneHealthy                 // all endpoints are ejected or at their limit
	Unserved                    // there is no endpoint for this kind of request
)

// String returns the kind in one or two words.
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

// Error is a failure of the upstream. Send and the response body return other errors for
// other causes: a failed read of the request's body, an error of Inform, the end of the context
// (its cause), and invalid requests.
type Error struct {
	Kind     Kind
	Endpoint string // the endpoint that failed; "" if none was tried
	Err      error  // for the audit log only; never shown to clients
}

// Error describes the failure for the audit log.
func (e *Error) Error() string {
	if e.Endpoint == "" {
		return "upstream " + e.Kind.String() + ": " + e.Err.Error()
	}
	return "upstream " + e.Kind.String() + ": " + e.Endpoint + ": " + e.Err.Error()
}

// Unwrap returns the cause.
func (e *Error) Unwrap() error { return e.Err }
