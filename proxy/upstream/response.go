package upstream

import (
	"io"
	"net"

	"sallyport/proxy/message"
	"sallyport/proxy/wire/h1"
	"sallyport/proxy/wire/h2"
)

// Response is the answer of an upstream. It must be closed. It is not safe for
// concurrent use.
type Response struct {
	// Head is the head of the final response.
	Head message.Response
	// Body is the content, never nil. Its errors are of the kinds of [Error]; one
	// that was cut wraps io.ErrUnexpectedEOF.
	Body message.Body
	// Endpoint is the URL of the server that answered.
	Endpoint string
	// Host is the Host field by which it was asked.
	Host string

	ask h1.Request
	e   *endpoint

	x h1.Response
	c *conn // nil once closed, and over HTTP/2

	shared     *h2.Client // nil once closed, and over HTTP/1.1
	fromShared *h2.Response
}

// Forget makes r as new but for memory that serves it again. Nothing of Head.Fields may
// be used any more.
func (r *Response) Forget() {
	x := r.x
	x.Forget()
	*r = Response{x: x}
}

// begin hands the exchange that runs on c to the caller.
func (r *Response) begin(e *endpoint, c *conn) {
	r.e, r.c = e, c
	r.Head, r.Body, r.Endpoint, r.Host = r.x.Head, (*content)(r), e.label, r.ask.Host
}

// beginShared does so for one over HTTP/2.
func (r *Response) beginShared(e *endpoint, c *h2.Client, x *h2.Response) {
	r.e, r.shared, r.fromShared = e, c, x
	r.Head, r.Body, r.Endpoint, r.Host = x.Head, (*sharedContent)(r), e.label, r.ask.Host
}

// content is the response as a [message.Body].
type content Response

func (b *content) Read(p []byte) (int, error) {
	n, err := b.x.Read(p)
	if err != nil && err != io.EOF {
		err = b.e.blame(err)
	}
	return n, err
}

func (b *content) Trailers() message.Fields { return b.x.Trailers() }

// sharedContent is that of a response over HTTP/2.
type sharedContent Response

func (b *sharedContent) Read(p []byte) (int, error) {
	n, err := b.fromShared.Read(p)
	if err != nil && err != io.EOF {
		err = b.e.blame(err)
	}
	return n, err
}

// Arrived implements [message.Arrived].
func (b *sharedContent) Arrived() (n int, whole bool) { return b.fromShared.Arrived() }

func (b *sharedContent) Trailers() message.Fields { return b.fromShared.Trailers() }

// Close ends the exchange. An upload that still goes on is stopped and joined.
// A connection over HTTP/1.1 is kept for the next request if the exchange ended
// cleanly: the content was read to its end, the request was sent whole, and nothing
// followed. One over HTTP/2 lives on in any case.
// Later calls do nothing.
func (r *Response) Close() {
	switch {
	case r.c != nil:
		c := r.c
		r.c = nil
		if r.x.Close() {
			r.e.pool.put(c, r.x.KeepAlive)
		}
	case r.shared != nil:
		c := r.shared
		r.shared = nil
		r.fromShared.Close()
		r.e.shared.leave(c)
	default:
		return
	}
	r.e.leave()
}

// Upgraded hands over the connection after status 101, nil after any other. What
// the server has sent already comes first. It has no deadlines; closing the
// response or the end of Send's context closes it. Nobody may read it any more
// when the response is closed.
func (r *Response) Upgraded() net.Conn { return r.x.Upgraded() }
