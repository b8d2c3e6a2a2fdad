package upstream

import (
	"io"
	"net"

	"sallyport/proxy/message"
	"sallyport/proxy/wire"
)

// Response is the answer of an upstream. It must be closed. It is not safe for
// concurrent use.
type Response struct {
	// Head is the head of the final response.
	Head message.Response
	// Body is the content, never nil. Its errors are of the kinds of [Error]; one
	// that was cut wraps io.ErrUnexpectedEOF. Over HTTP/2 it is a [message.Arrived] too.
	Body message.Body
	// Endpoint is the URL of the server that answered.
	Endpoint string
	// Host is the Host field that the server was sent.
	Host string

	ask    wire.Request
	answer wire.Response
	ends   int // how many connections ended under the request
	e      *endpoint
	c      connection // nil once closed
}

// Forget resets r to the zero Response but keeps memory for its next use. Head.Fields
// must not be used any more.
func (r *Response) Forget() {
	r.answer.Reset()
	*r = Response{answer: r.answer}
}

// begin hands the exchange that runs on c to the caller.
func (r *Response) begin(e *endpoint, c connection) {
	r.e, r.c = e, c
	r.Head, r.Endpoint, r.Host = r.answer.Head, e.label, r.ask.Host
	r.Body = (*content)(r)
	if _, _, known := r.answer.Arrived(); known {
		r.Body = (*arriving)(r)
	}
}

// content is the response as a [message.Body].
type content Response

func (b *content) Read(p []byte) (int, error) {
	n, err := b.answer.Read(p)
	if err != nil && err != io.EOF {
		err = b.e.blame(err)
	}
	return n, err
}

func (b *content) Trailers() message.Fields { return b.answer.Trailers() }

// arriving is content of which the connection knows how much has come.
type arriving Response

func (b *arriving) Read(p []byte) (int, error) { return (*content)(b).Read(p) }

func (b *arriving) Trailers() message.Fields { return b.answer.Trailers() }

// Arrived implements [message.Arrived].
func (b *arriving) Arrived() (n int, whole bool) {
	n, whole, _ = b.answer.Arrived()
	return n, whole
}

// Close ends the exchange. An upload that still goes on is stopped and joined.
// A connection over HTTP/1.1 is kept for the next request if the exchange ended
// cleanly: the content was read to its end, the request was sent whole, and nothing
// followed. A connection over HTTP/2 lives on in any case.
// Later calls do nothing.
func (r *Response) Close() {
	if r.c == nil {
		return
	}
	c := r.c
	r.c = nil
	c.leave(r.answer.Close(), r.answer.KeepAlive)
	r.e.leave()
}

// Upgraded hands over the connection after status 101, nil after any other. Bytes that
// the server has sent already come first. It has no deadlines; closing the
// response or the end of Send's context closes it. Nobody may read it any more
// when the response is closed.
func (r *Response) Upgraded() net.Conn { return r.answer.Upgraded() }
