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
	// MaxHead limits the head of a response, in bytes.
	MaxHead = 64 << 10
	// MaxFields limits the number of field lines in the head of a response.
	MaxFields = 200
)

// Client is one connection to a server. Packages h1 and h2 implement it. A client of h1 serves one
// exchange at a time. A client of h2 serves as many as places were reserved on it.
type Client interface {
	// Exchange sends r and fills x with the head of the final response. The caller then reads the
	// content from x and must close x. Every error is an [*Error]; x is then closed already, and
	// its Answered and Unprocessed are valid. After [FaultRequest] the connection is unchanged.
	//
	// When ctx ends before x is closed, the exchange is aborted at once.
	Exchange(ctx context.Context, r *Request, x *Response) error
	// Close closes the connection and fails the exchanges on it.
	Close() error
}

// Fault classifies a failed exchange by its cause.
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
	// Answered says whether any byte of an answer arrived. If not, the server may never have seen
	// the request.
	Answered bool
	// Unprocessed is set after a failed exchange if the server did not and will not act on the
	// request, and none of its Body was read. Such a request may be retried whatever its method.
	Unprocessed bool
	// KeepAlive is how long the server promised to keep the idle connection; 0 if it did not say.
	KeepAlive time.Duration

	exchange Exchange // nil before an exchange and once closed
	err      error    // of the last Read
}

// Exchange is the engine's side of an open [Response].
type Exchange interface {
	// Read, from Body, repeats its error on every later call.
	message.Body
	// Upgraded implements [Response.Upgraded].
	Upgraded() net.Conn
	// Close implements [Response.Close]. It is called once.
	Close() (reusable bool)
}

// Reset prepares x for an exchange. It reuses the memory of Head.Fields, so the caller must not use
// the old fields after it.
func (x *Response) Reset() {
	fields := x.Head.Fields[:cap(x.Head.Fields)]
	clear(fields)
	*x = Response{Head: message.Response{Fields: fields[:0]}}
}

// Open attaches an exchange that an engine has begun.
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

// Arrived returns how many bytes of content can be read without waiting, and whether the content
// ends after them; trailers may still follow. known is false if the connection cannot tell, as over
// HTTP/1.1.
func (x *Response) Arrived() (n int, whole, known bool) {
	if came, ok := x.exchange.(message.Arrived); ok {
		n, whole = came.Arrived()
		return n, whole, true
	}
	return 0, false, false
}

// Coming reports whether content, or its end, has begun to arrive. known is false if the connection
// cannot tell, as over HTTP/2.
func (x *Response) Coming() (coming, known bool) {
	if c, ok := x.exchange.(message.Coming); ok {
		return c.Coming(), true
	}
	return false, false
}

// Trailers returns the trailers that may be passed on. It is valid after Read has returned io.EOF
// and until x is closed.
func (x *Response) Trailers() message.Fields {
	if x.exchange == nil {
		return nil
	}
	return x.exchange.Trailers()
}

// Upgraded returns the connection after status 101, and nil after any other status. Reads return
// first what the server has sent already. The connection closes when it or the response is closed,
// or the context ends. The caller must stop reading before it closes the response.
func (x *Response) Upgraded() net.Conn {
	if x.exchange == nil {
		return nil
	}
	return x.exchange.Upgraded()
}

// Close ends the exchange: it stops an unfinished upload and waits for its goroutine. It returns
// whether the connection can serve another exchange. If not, Close has closed an h1 connection; an
// h2 connection closes with its last exchange. Later calls return false.
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
