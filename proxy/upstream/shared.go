package upstream

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"slices"
	"sync"
	"time"

	"sallyport/proxy/wire"
	"sallyport/proxy/wire/h1"
	"sallyport/proxy/wire/h2"
)

// shared is a pool of HTTP/2 connections, each for many requests. A request takes the first
// connection with a free stream, so there are few connections. A new one is opened if all are
// full.
type shared struct {
	e        *endpoint
	most     int // maximum number of connections; 0: no limit
	idleTime time.Duration
	now      func() time.Time

	mu      sync.Mutex // guards the fields below
	conns   []*sharedConn
	dialing *dialing      // nil: no connect in progress
	freed   chan struct{} // closed when a stream becomes free; nil: nobody waits
	reaper  *time.Timer
	closed  bool
}

// sharedConn is an HTTP/2 connection of the pool.
type sharedConn struct {
	*h2.Client
	pool   *shared
	usedAt time.Time // when a request last started or ended; guarded by the pool's mu
}

// dialing is a connect that several requests wait for.
type dialing struct {
	done chan struct{}
	err  error // valid once done
	left bool  // the request that started it was canceled: the others must retry
}

// take reserves a stream for one request. If none is free, it waits for one or opens a
// connection. It opens one connection at a time, and concurrent requests share it.
func (p *shared) take(ctx context.Context, wait time.Duration, _ bool) (c connection, used bool, err error) {
	bound, cancel := ctx, context.CancelFunc(nil)
	for {
		p.mu.Lock()
		if c := p.reserve(); c != nil {
			p.mu.Unlock()
			return c, true, nil
		}
		if cancel == nil {
			bound, cancel = bounded(ctx, wait)
			defer cancel()
		}
		if p.dialing == nil && (p.most == 0 || len(p.conns) < p.most) {
			d := &dialing{done: make(chan struct{})}
			p.dialing = d
			p.mu.Unlock()
			c, err := p.open(ctx, untilDeadline(bound), d)
			if err != nil {
				return nil, false, err
			}
			return c, false, nil
		}
		d, freed := p.dialing, p.await()
		p.mu.Unlock()
		err := p.wait(bound, d, freed)
		switch {
		case ctx.Err() != nil:
			return nil, false, fmt.Errorf("waiting for upstream: %w", wire.Cause(ctx))
		case bound.Err() != nil && d != nil:
			return nil, false, &Error{Timeout, p.e.label, &noConnection{"connecting", bound.Err()}}
		case bound.Err() != nil:
			return nil, false, &Error{NoneHealthy, p.e.label, full(p.most, wait)}
		case err != nil:
			return nil, false, err
		}
	}
}

// reserve reserves a stream on an open connection; the caller holds mu. It drops connections
// that accept no more requests, which close by themselves.
func (p *shared) reserve() *sharedConn {
	dead := false
	for _, c := range p.conns {
		if c.Reserve() {
			c.usedAt = p.now()
			return c
		}
		_, good := c.Load()
		dead = dead || !good
	}
	if dead {
		p.conns = slices.DeleteFunc(p.conns, func(c *sharedConn) bool {
			_, good := c.Load()
			return !good
		})
	}
	return nil
}

// open opens a connection for the requests that wait for d, and reserves a stream on it.
func (p *shared) open(ctx context.Context, wait time.Duration, d *dialing) (*sharedConn, error) {
	c, err := p.dial(ctx, wait)
	p.mu.Lock()
	defer p.mu.Unlock()
	p.dialing = nil
	d.err, d.left = err, ctx.Err() != nil
	close(d.done)
	if err != nil {
		return nil, err
	}
	if !c.Reserve() {
		c.Drain()
		return nil, &Error{NoneHealthy, p.e.label, errNoStream}
	}
	c.usedAt = p.now()
	if p.closed {
		return c, nil // not pooled: it closes after this request
	}
	p.conns = append(p.conns, c)
	if p.reaper == nil {
		p.reaper = time.AfterFunc(reapEvery(p.idleTime), p.reap)
	}
	return c, nil
}

// errNoHTTP2 means that an h2:// server did not negotiate HTTP/2.
var errNoHTTP2 = errors.New("the server did not negotiate h2 by ALPN")

func (p *shared) dial(ctx context.Context, wait time.Duration) (c *sharedConn, err error) {
	err = p.e.dial(ctx, wait, func(ctx context.Context, conn net.Conn, _ *h1.Socket) error {
		if t, ok := conn.(*tls.Conn); ok && t.ConnectionState().NegotiatedProtocol != "h2" {
			_ = conn.Close() // unused, so the close error does not matter
			return errNoHTTP2
		}
		client := h2.NewClient(conn, h2.ClientOptions{Scheme: p.e.scheme(), Buffers: p.e.bufs, Clock: p.e.clock})
		if err := client.Greet(ctx); err != nil {
			_ = client.Close() // it has no requests
			return err
		}
		c = &sharedConn{Client: client, pool: p}
		return nil
	})
	return c, err
}

// untilDeadline returns the time until the deadline of ctx; 0 if it has none.
func untilDeadline(ctx context.Context) time.Duration {
	by, ok := ctx.Deadline()
	if !ok {
		return 0
	}
	return max(time.Until(by), time.Nanosecond)
}

// await returns a channel that closes when a stream becomes free; the caller holds mu.
func (p *shared) await() <-chan struct{} {
	if p.freed == nil {
		p.freed = make(chan struct{})
	}
	return p.freed
}

// wait waits for a free stream, or for the connect in progress.
func (p *shared) wait(bound context.Context, d *dialing, freed <-chan struct{}) error {
	var opened chan struct{}
	if d != nil {
		opened = d.done
	}
	select {
	case <-freed:
	case <-opened:
		if d.err != nil && !d.left {
			return d.err
		}
	case <-bound.Done():
	}
	return nil
}

// leave records the end of a request. A connection that is no longer pooled closes.
func (c *sharedConn) leave(bool, time.Duration) {
	p := c.pool
	p.mu.Lock()
	defer p.mu.Unlock()
	c.usedAt = p.now()
	if !slices.Contains(p.conns, c) {
		c.Drain()
	}
	if p.freed != nil {
		close(p.freed)
		p.freed = nil
	}
}

// giveUp releases the reserved stream.
func (c *sharedConn) giveUp() {
	c.Release()
	c.leave(false, 0)
}

// reap closes connections that were idle for too long. It runs on a timer, only while there
// are connections.
func (p *shared) reap() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.reaper = nil
	now := p.now()
	p.conns = slices.DeleteFunc(p.conns, func(c *sharedConn) bool {
		taken, good := c.Load()
		old := taken == 0 && now.Sub(c.usedAt) >= p.idleTime
		if old {
			c.Drain()
		}
		return old || !good
	})
	if len(p.conns) > 0 && !p.closed {
		p.reaper = time.AfterFunc(reapEvery(p.idleTime), p.reap)
	}
}

// idle returns the number of connections without requests.
func (p *shared) idle() (n int) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, c := range p.conns {
		if taken, good := c.Load(); taken == 0 && good {
			n++
		}
	}
	return n
}

// close closes idle connections, and the others after their last request.
func (p *shared) close() {
	p.mu.Lock()
	conns := p.conns
	p.conns, p.closed = nil, true
	if p.reaper != nil {
		p.reaper.Stop()
	}
	p.mu.Unlock()
	for _, c := range conns {
		c.Drain()
	}
}
