package h1

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"runtime"
	"sync/atomic"
	"time"

	"sallyport/proxy/message"
	"sallyport/proxy/wire"
)

// Request is one request to a server. It must not be changed until the response
// is closed or the exchange has failed.
type Request struct {
	Method string
	Target string // in origin form
	Host   string
	// Fields are written as they are. Names must be in lower case; those that
	// belong to the connection or to framing are refused.
	Fields message.Fields

	// Content is the whole content. It leaves with the head in one write, and is not
	// used any more once Exchange has returned.
	Content []byte
	// Body is content that is read while it is sent; Content is empty then.
	Body message.Body
	// Length is the length of Body in bytes; -1 if only its end will tell.
	Length int64
	// Interrupt makes a Read of Body that waits return soon; nil if none does. It
	// is called again until Read has returned.
	Interrupt func()
	// Trailers chooses from the trailers of Body; nil means none are sent. What
	// may never be a trailer, or stands in Fields already, is dropped in any case.
	Trailers func(message.Fields) message.Fields

	// Upgrade is the protocol asked for, in lower case; "" for none.
	Upgrade string
	// Inform gets interim responses but for 100 and 101; it may be nil.
	Inform func(*message.Response) error

	Head  time.Duration // bounds the wait for the final head once the request is sent; 0: none
	Idle  time.Duration // bounds each write, and each wait for content; 0: none
	Limit time.Time     // bounds everything; zero: none
}

// Client is one connection to a server, used by one exchange at a time. It is not
// safe for concurrent use.
//
// Expect is never sent: our own server has answered 100 to the client before
// the first byte of a body can be read, so there is nothing left to ask for. TE is
// never sent either; trailers that come unasked are read and kept.
type Client struct {
	// Clock is asked for deadlines; the system if nil. It is set before the first exchange.
	Clock *wire.Clock

	conn   net.Conn
	sock   *Socket
	secure bool // conn is TLS over sock
	bufs   *Buffers
	in     reader
	busy   bool // an exchange is under way, or has ended badly

	patience        time.Duration // for each read of content; negative: the deadline stands as it is
	readBy, writeBy time.Time     // the deadlines as they are set
	limit           time.Time
	up              *upload // of the current exchange, if it streams

	cause    atomic.Pointer[Error] // why the exchange was aborted from outside of its goroutine
	upgraded atomic.Bool
	onEnd    func() // c.contextEnded, bound once
}

// NewClient makes a client of a connection. sock is the socket below TLS; without
// TLS, conn is the connection that sock wraps. bufs may be shared.
func NewClient(conn net.Conn, sock *Socket, bufs *Buffers) *Client {
	c := &Client{conn: conn, sock: sock, bufs: bufs}
	_, c.secure = conn.(*tls.Conn)
	c.in = reader{conn: conn, bufs: bufs, before: c.beforeRead}
	c.onEnd = c.contextEnded
	return c
}

// Close closes the connection.
func (c *Client) Close() error { return c.conn.Close() }

// Exchange sends a request and fills x with the head of the final response. The
// content is read from x, which must be closed. After an error, which is an
// [*Error], x is closed already and the connection is too.
//
// The end of ctx aborts the exchange at once, up to the closing of x.
func (c *Client) Exchange(ctx context.Context, r *Request, x *Response) error {
	x.Forget()
	buf := c.bufs.Get(r.sizeHint())
	defer c.bufs.Put(buf)
	out, err := c.render(buf.B, r)
	if err != nil {
		_ = c.Close() // nothing was sent; the error says why
		return err
	}
	buf.B = out[:0]

	x.c, x.ctx = c, ctx
	c.busy, c.limit, c.patience = true, r.Limit, -1
	x.watching = wire.Watch(ctx, c.onEnd)
	if err := c.ask(r, out, x); err != nil {
		err = x.blame(err)
		x.err = err
		x.Close()
		return err
	}
	c.patience = r.Idle
	return nil
}

// render writes the request to b, if there may be one now.
func (c *Client) render(b []byte, r *Request) ([]byte, error) {
	if c.busy {
		return nil, &Error{FaultBroken, errAgain}
	}
	out, err := appendRequest(b, r)
	if err != nil {
		return nil, &Error{FaultRequest, fmt.Errorf("writing request: %w", err)}
	}
	return out, nil
}

// ask writes the request and reads the head of the answer.
func (c *Client) ask(r *Request, out []byte, x *Response) error {
	if err := c.write(out, r.Idle); err != nil {
		return c.lastWords(r, x, err)
	}
	if r.hasBody() {
		c.up = startUpload(c, r)
		x.up = c.up
	}
	if err := c.armRead(r.Head); err != nil {
		return err
	}
	// Whoever is ready to run does so first: on a busy machine the answer is in by
	// then, and the read neither fails nor waits.
	runtime.Gosched()
	if err := x.readHead(r); err != nil {
		return err
	}
	if x.up != nil {
		x.up.answered(x.Head.Status)
	}
	return nil
}

// lastWords reads the answer of a server that closed while it was written to: it
// may have said why before. Nothing more can come on such a connection, so this
// does not wait.
func (c *Client) lastWords(r *Request, x *Response, werr error) error {
	if errors.Is(werr, os.ErrDeadlineExceeded) || c.cause.Load() != nil {
		return werr
	}
	if c.armRead(time.Second) != nil || x.readHead(r) != nil {
		return werr
	}
	x.reusable = false
	return nil
}

// write writes p whole.
func (c *Client) write(p []byte, idle time.Duration) error {
	if by, change := c.due(c.writeBy, idle); change {
		if err := c.conn.SetWriteDeadline(by); err != nil {
			return err
		}
		c.writeBy = by
	}
	if err := c.interrupted(); err != nil {
		return err
	}
	_, err := c.conn.Write(p)
	return err
}

// beforeRead is the reader's hook.
func (c *Client) beforeRead() error {
	if c.patience >= 0 {
		return c.armRead(c.patience)
	}
	return c.interrupted()
}

// armRead bounds the next reads by d from now, or from the end of the upload if
// there is one under way.
func (c *Client) armRead(d time.Duration) error {
	if c.up != nil {
		return c.up.armRead(d)
	}
	return c.setRead(d)
}

func (c *Client) setRead(d time.Duration) error {
	if by, change := c.due(c.readBy, d); change {
		if err := c.conn.SetReadDeadline(by); err != nil {
			return err
		}
		c.readBy = by
	}
	return c.interrupted()
}

// due computes a deadline d from now, and whether the one that is set must change.
// One that is late by up to an eighth, and a second, stays: deadlines cost a
// timer each, and most are never reached.
func (c *Client) due(set time.Time, d time.Duration) (by time.Time, change bool) {
	var slack time.Duration
	if d > 0 {
		slack = min(d/8, time.Second)
		by = c.Clock.After(d)
	}
	if !c.limit.IsZero() && (by.IsZero() || c.limit.Before(by)) {
		by, slack = c.limit, 0
	}
	if by.IsZero() {
		return by, !set.IsZero()
	}
	if late := set.Sub(by); !set.IsZero() && late >= 0 && late <= slack {
		return set, false
	}
	return by.Add(slack), true
}

// contextEnded runs in a goroutine of its own when the context ends.
func (c *Client) contextEnded() { c.abort(&Error{FaultContext, errContextEnded}) }

// errContextEnded stands for the cause, which the exchange's goroutine looks up.
var errContextEnded = errors.New("context ended")

// abort makes every read and write of the connection fail from now on. The
// cause is stored first: who sets a deadline later looks at it afterwards.
func (c *Client) abort(why *Error) {
	c.cause.CompareAndSwap(nil, why)
	_ = c.conn.SetDeadline(longAgo) // fails only on a closed connection
	if c.upgraded.Load() {
		_ = c.conn.Close()
	}
}

func (c *Client) interrupted() error {
	if e := c.cause.Load(); e != nil {
		return e
	}
	return nil
}

// blame makes an [*Error] of what a read or write returned.
func (x *Response) blame(err error) error {
	if why := x.c.cause.Load(); why != nil {
		if why.Fault == FaultContext {
			return &Error{FaultContext, fmt.Errorf("exchange ended: %w", wire.Cause(x.ctx))}
		}
		return why
	}
	var known *Error
	var bad malformed
	switch {
	case errors.As(err, &known):
		return known
	case errors.As(err, &bad):
		return &Error{FaultMalformed, bad}
	case errors.Is(err, os.ErrDeadlineExceeded):
		return &Error{FaultTimeout, err}
	case errors.Is(err, io.EOF):
		return &Error{FaultBroken, io.ErrUnexpectedEOF}
	}
	return &Error{FaultBroken, err}
}
