package upstream

import (
	"io"
	"net"

	"sallyport/proxy/message"
	"sallyport/proxy/wire"
)

// Response is the answer of an upstream. It must be closed. It is not safe for concurrent
// use.
type Response struct {
	// Head is the head of the final response.
	Head message.Response
	// Body is the content, never nil. Its errors are those of [Error]; truncated content wraps
	// io.ErrUnexpectedEOF. Over HTTP/2 it also implements [message.Arrived].
	Body message.Body
	// Endpoint is the URL of the server that answered.
	Endpoint string
	// Host is the Host field sent to the server.
	Host string

	out    wire.Request
	answer wire.Response
	// timeouts are those of the request.
	timeouts Timeouts
	ends     int // how many connections ended under the request
	e        *endpoint
	c        connection // nil once closed
}

// Forget resets r to the zero Response but keeps its memory for reuse. Head.Fields must not
// be used afterwards.
func (r *Response) Forget() {
	r.answer.Reset()
	*r = Response{answer: r.answer}
}

// begin binds the response to the exchange on c.
func (r *Response) begin(e *endpoint, c connection) {
	r.e, r.c = e, c
	r.Head, r.Endpoint, r.Host = r.answer.Head, e.label, r.out.Host
	r.Body = (*content)(r)
	if _, _, known := r.answer.Arrived(); known {
		r.Body = (*arriving)(r)
	}
}

// content implements [message.Body].
type content Response

func (b *content) Read(p []byte) (int, error) {
	n, err := b.answer.Read(p)
	if err != nil && err != io.EOF {
		err = b.e.blame(err, &b.timeouts, true)
	}
	return n, err
}

func (b *content) Trailers() message.Fields { return b.answer.Trailers() }

// Coming implements [message.Coming]. It is true as well if the connection cannot tell.
func (b *content) Coming() bool {
	coming, known := b.answer.Coming()
	return coming || !known
}

// arriving is content that reports how much has arrived.
type arriving Response

func (b *arriving) Read(p []byte) (int, error) { return (*content)(b).Read(p) }

func (b *arriving) Trailers() message.Fields { return b.answer.Trailers() }

// Arrived implements [message.Arrived].
func (b *arriving) Arrived() (n int, whole bool) {
	n, whole, _ = b.answer.Arrived()
	return n, whole
}

// Close ends the exchange. It stops a pending upload and waits for it. An HTTP/1.1 connection
// is reused if the exchange was complete: the content was read to its end, the request was sent
// whole, and no further bytes followed. HTTP/2 connections always stay open. Later calls do
// nothing.
func (r *Response) Close() {
	if r.c == nil {
		return
	}
	c := r.c
	r.c = nil
	c.leave(r.answer.Close(), r.answer.KeepAlive)
	r.e.leave()
}

// Upgraded returns the connection after status 101, nil otherwise. It first reads bytes
// that the server has already sent. It has no deadlines. It closes with the response or with the
// context of Send. It must not be read once the response is closed.
func (r *Response) Upgraded() net.Conn { return r.answer.Upgraded() }
