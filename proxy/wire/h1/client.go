package h1

import (
	"cmp"
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

	"sallyport/proxy/wire"
)

// Client is one connection to a server, used by one exchange at a time. It implements
// [wire.Client]. It is not safe for concurrent use.
//
// It never sends Expect: the gateway's server has sent 100 to the client before the first byte of a
// body can be read. It never sends TE either, but reads and keeps trailers that arrive unasked.
type Client struct {
	// Clock supplies the time for deadlines; the system's if nil. It is set before the first
	// exchange.
	Clock *wire.Clock

	conn   net.Conn
	sock   *Socket
	secure bool // conn is TLS over sock
	bufs   *wire.Buffers
	in     reader
	busy   bool // an exchange is under way, or has ended badly

	x               exchange      // the current one; reset when it ends
	patience        time.Duration // limit for each read of content; negative: leave the deadline unchanged
	readBy, writeBy time.Time     // the deadlines set on conn
	limit           time.Time
	up              *upload // of the current exchange, if it streams

	cause    atomic.Pointer[wire.Error] // why another goroutine aborted the exchange
	upgraded atomic.Bool
	onEnd    func() // c.contextEnded, bound once
}

var _ wire.Client = (*Client)(nil)

// NewClient returns a client of a connection. sock is the socket below TLS; without TLS, conn is
// the connection that sock wraps. bufs may be shared.
func NewClient(conn net.Conn, sock *Socket, bufs *wire.Buffers) *Client {
	c := &Client{conn: conn, sock: sock, bufs: bufs}
	_, c.secure = conn.(*tls.Conn)
	c.in = reader{conn: conn, bufs: bufs, before: c.beforeRead}
	c.onEnd = c.contextEnded
	return c
}

// Close closes the connection.
func (c *Client) Close() error { return c.conn.Close() }

// Exchange implements [wire.Client]. After an error other than [wire.FaultRequest] the
// connection is closed.
func (c *Client) Exchange(ctx context.Context, r *wire.Request, x *wire.Response) error {
	x.Reset()
	buf := c.bufs.Get(sizeHint(r))
	defer c.bufs.Put(buf)
	out, err := c.render(buf.B, r)
	if err != nil {
		return err
	}
	buf.B = out[:0]

	c.busy, c.limit, c.patience = true, r.Limit, -1
	c.x = exchange{Response: x, c: c, ctx: ctx, watching: wire.Watch(ctx, c.onEnd)}
	if err := c.ask(r, out); err != nil {
		err = c.x.blame(err)
		c.x.err = err
		c.x.Close()
		return err
	}
	c.patience = cmp.Or(r.Pause, r.Idle)
	x.Open(&c.x)
	return nil
}

// render writes the request to b, unless an exchange is under way or has failed.
func (c *Client) render(b []byte, r *wire.Request) ([]byte, error) {
	if c.busy {
		_ = c.Close() // what comes on it could be the answer to either
		return nil, &wire.Error{Fault: wire.FaultBroken, Err: errAgain}
	}
	out, err := appendRequest(b, r)
	if err != nil {
		return nil, &wire.Error{Fault: wire.FaultRequest, Err: fmt.Errorf("writing request: %w", err)}
	}
	return out, nil
}

// ask writes the request and reads the head of the response.
func (c *Client) ask(r *wire.Request, out []byte) error {
	if err := c.write(out, r.Idle); err != nil {
		return c.lastWords(r, err)
	}
	if r.Streams() {
		c.up = startUpload(c, r)
	}
	if err := c.armRead(r.Head); err != nil {
		return err
	}
	// Yield to other ready goroutines. On a busy machine the response then arrives before the read,
	// which neither fails nor waits.
	runtime.Gosched()
	if err := c.x.readHead(r); err != nil {
		return err
	}
	if c.up != nil {
		c.up.answered(c.x.Head.Status)
	}
	return nil
}

// lastWords reads the response of a server that closed the connection during the write: the server
// may have given its reason first. No more bytes can arrive, so this does not block.
func (c *Client) lastWords(r *wire.Request, werr error) error {
	if errors.Is(werr, os.ErrDeadlineExceeded) || c.cause.Load() != nil {
		return werr
	}
	if c.armRead(time.Second) != nil || c.x.readHead(r) != nil {
		return werr
	}
	c.x.reusable = false
	return nil
}

// write writes all of p.
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
	if errors.Is(err, os.ErrDeadlineExceeded) {
		return wire.LateWrite
	}
	return err
}

// beforeRead is the reader's hook: it sets the deadline of the next read.
func (c *Client) beforeRead() error {
	if c.patience >= 0 {
		return c.armRead(c.patience)
	}
	return c.interrupted()
}

// armRead limits the next reads to d from now, or from the end of a pending upload.
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

// due computes a deadline d from now, and whether the current one must change. A current deadline
// that is later by at most d/8, and at most a second, is kept: setting one costs a timer, and
// most never expire.
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
func (c *Client) contextEnded() { c.abort(&wire.Error{Fault: wire.FaultContext, Err: errContextEnded}) }

// errContextEnded is replaced by the context's cause in the exchange's goroutine.
var errContextEnded = errors.New("context ended")

// abort makes every later read and write of the connection fail. It stores the cause before it sets
// the deadline, so whoever sets a later deadline must check the cause afterwards.
func (c *Client) abort(why *wire.Error) {
	c.cause.CompareAndSwap(nil, why)
	_ = c.conn.SetDeadline(longAgo) // fails only on a closed connection
	if c.upgraded.Load() {
		_ = c.conn.Close()
	}
}

// interrupted returns why the exchange was aborted; nil if it was not.
func (c *Client) interrupted() error {
	if e := c.cause.Load(); e != nil {
		return e
	}
	return nil
}

// late returns the [wire.Late] of the wait that a passed deadline ended with err.
func (c *Client) late(err error) error {
	what := wire.LateContent
	if c.patience < 0 {
		what = wire.LateHead
	}
	errors.As(err, &what)
	return what.Or(c.limit)
}

// blame converts the error of a read or write to a [*wire.Error].
func (x *exchange) blame(err error) error {
	if why := x.c.cause.Load(); why != nil {
		if why.Fault == wire.FaultContext {
			return &wire.Error{Fault: wire.FaultContext, Err: fmt.Errorf("exchange ended: %w", wire.Cause(x.ctx))}
		}
		return why
	}
	var known *wire.Error
	var bad malformed
	switch {
	case errors.As(err, &known):
		return known
	case errors.As(err, &bad):
		return &wire.Error{Fault: wire.FaultMalformed, Err: bad}
	case errors.Is(err, os.ErrDeadlineExceeded):
		return &wire.Error{Fault: wire.FaultTimeout, Err: x.c.late(err)}
	case errors.Is(err, io.EOF):
		return &wire.Error{Fault: wire.FaultBroken, Err: io.ErrUnexpectedEOF}
	}
	return &wire.Error{Fault: wire.FaultBroken, Err: err}
}
