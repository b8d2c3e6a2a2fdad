package wire

import (
	"context"
	"errors"
	"io"
	"net"
	"time"

	"sallyport/proxy/message"
)

const (
	// MaxHead bounds the head of a response in bytes.
	MaxHead = 64 << 10
	// MaxFields bounds the field lines of the head of a response.
	MaxFields = 200
)

// Client is one connection to a server. Packages h1 and h2 implement it. A client of
// h1 serves one exchange at a time; one of h2 serves as many as it has places for,
// each of which must have been reserved.
type Client interface {
	// Exchange sends r and fills x with the head of the final response. The caller then
	// reads the content from x and must close x. An error is an [*Error], and x is closed
	// already then; Answered and Unprocessed of x are valid. After [FaultRequest] the
	// connection is as it was.
	//
	// The end of ctx aborts the exchange at once, until x is closed.
	Exchange(ctx context.Context, r *Request, x *Response) error
	// Close closes the connection and fails the exchanges on it.
	Close() error
}

// Fault says whose fault a failed exchange is.
type Fault uint8

const (
	FaultRequest   Fault = iota + 1 // the request cannot be written as one safe message; nothing was sent
	FaultBody                       // reading the request's body failed
	FaultContext                    // the context ended
	FaultInform                     // passing on an interim response failed
	FaultMalformed                  // the server's answer breaks the grammar
	FaultTimeout                    // the server took too long
	FaultBroken                     // the connection broke
)

// ErrCalm is the cause of failures on a connection that the server ended because it was
// asked for too much (ENHANCE_YOUR_CALM). Such requests are not sent again.
var ErrCalm = errors.New("the server was asked for too much (ENHANCE_YOUR_CALM)")

// Error is a failed exchange.
type Error struct {
	Fault Fault
	Err   error // the cause, never nil
}

// Error describes the failure for the audit log.
func (e *Error) Error() string { return e.Err.Error() }

// Unwrap returns the cause.
func (e *Error) Unwrap() error { return e.Err }

// Response is the answer to one request, and its content, which it serves as a
// [message.Body]. Content that was cut ends in an [*Error]. The zero Response is ready
// for [Client] to fill, and a closed one can be filled again. It is not safe for
// concurrent use, and must not be copied while it is open.
type Response struct {
	// Head is the head of the final response, without the fields of the connection.
	Head message.Response
	// Answered says whether any byte of an answer came. Without one, the server may
	// never have seen the request.
	Answered bool
	// Unprocessed says, after a failed exchange, that the server did not act on the
	// request and will not, and that nothing was read of its Body. Such a request may be
	// sent again whatever its method.
	Unprocessed bool
	// KeepAlive is how long the server said it keeps the idle connection; 0 if it did not.
	KeepAlive time.Duration

	exchange Exchange // nil before an exchange and once closed
	err      error    // of the last Read
}

// Exchange is the engine's side of an open [Response].
type Exchange interface {
	// Body's Read returns its error again on each later call.
	message.Body
	// Upgraded implements [Response.Upgraded].
	Upgraded() net.Conn
	// Close implements [Response.Close]. It is called once.
	Close() (reusable bool)
}

// Reset prepares x for an exchange. It keeps the memory of Head.Fields, whose contents
// must not be used any more.
func (x *Response) Reset() {
	fields := x.Head.Fields[:cap(x.Head.Fields)]
	clear(fields)
	*x = Response{Head: message.Response{Fields: fields[:0]}}
}

// Open gives x to its exchange, which an engine has begun.
func (x *Response) Open(e Exchange) { x.exchange = e }

// Read reads content. It fails once x is closed.
func (x *Response) Read(p []byte) (int, error) {
	if x.exchange == nil {
		if x.err == nil {
			return 0, net.ErrClosed
		}
		return 0, x.err
	}
	n, err := x.exchange.Read(p)
	x.err = err
	return n, err
}

// Arrived says how many bytes of content can be read without waiting, and whether the
// content ends behind them; trailers may follow all the same. known is false where the
// connection cannot tell, as over HTTP/1.1.
func (x *Response) Arrived() (n int, whole, known bool) {
	if came, ok := x.exchange.(message.Arrived); ok {
		n, whole = came.Arrived()
		return n, whole, true
	}
	return 0, false, false
}

// Trailers are the trailers that may be passed on, once Read has returned io.EOF and
// until x is closed.
func (x *Response) Trailers() message.Fields {
	if x.exchange == nil {
		return nil
	}
	return x.exchange.Trailers()
}

// Upgraded returns the connection after status 101, nil after any other. What the server
// has sent already is read from it first. Closing it, closing the response or the end
// of the context closes the connection; reading must have ended before the response is
// closed.
func (x *Response) Upgraded() net.Conn {
	if x.exchange == nil {
		return nil
	}
	return x.exchange.Upgraded()
}

// Close ends the exchange: it stops an upload that is still under way and waits for
// its goroutine. It says whether the connection takes another exchange. If it does not,
// a connection of h1 is closed already, and one of h2 closes with its last exchange.
// Later calls return false.
func (x *Response) Close() (reusable bool) {
	if x.exchange == nil {
		return false
	}
	reusable = x.exchange.Close()
	x.exchange = nil
	if x.err == nil || x.err == io.EOF {
		x.err = net.ErrClosed
	}
	return reusable
}
