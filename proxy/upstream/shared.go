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

// shared holds the connections of an endpoint over HTTP/2, each of which carries many
// requests. The first that has a free place takes the next request, so that there are
// few connections; another is opened where none has a place.
type shared struct {
	e        *endpoint
	most     int // connections; 0: no bound
	idleTime time.Duration
	now      func() time.Time

	mu      sync.Mutex // guards what follows
	conns   []*sharedConn
	dialing *dialing      // nil: none is being opened
	freed   chan struct{} // closed when a place is free; nil: nobody waits
	reaper  *time.Timer
	closed  bool
}

// sharedConn is a connection that many requests use, or none.
type sharedConn struct {
	*h2.Client
	pool   *shared
	usedAt time.Time // when a request last came or went; the pool's mu guards it
}

// dialing is a connect that many requests wait for.
type dialing struct {
	done chan struct{}
	err  error // valid once done
	left bool  // the request that it was made for has ended: others must try themselves
}

// take reserves a place for one request on a connection. Where no place is free it waits
// for one, or opens a connection. It opens one at a time, and requests that come together
// share it.
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
		case bound.Err() != nil:
			return nil, false, &Error{NoneHealthy, p.e.label, errFull}
		case err != nil:
			return nil, false, err
		}
	}
}

// reserve takes a place on a connection that is open; mu is held. Connections that take
// no more requests are forgotten: they close by themselves.
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

// open opens a connection for the requests that wait for d, and reserves a place on it.
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
		return nil, &Error{NoneHealthy, p.e.label, errFull}
	}
	c.usedAt = p.now()
	if p.closed {
		return c, nil // it closes behind the request that it was opened for
	}
	p.conns = append(p.conns, c)
	if p.reaper == nil {
		p.reaper = time.AfterFunc(reapEvery(p.idleTime), p.reap)
	}
	return c, nil
}

// errNoHTTP2 means that a server of h2:// has not negotiated HTTP/2.
var errNoHTTP2 = errors.New("the server does not choose h2 by ALPN")

func (p *shared) dial(ctx context.Context, wait time.Duration) (c *sharedConn, err error) {
	err = p.e.dial(ctx, wait, func(ctx context.Context, conn net.Conn, _ *h1.Socket) error {
		if t, ok := conn.(*tls.Conn); ok && t.ConnectionState().NegotiatedProtocol != "h2" {
			_ = conn.Close() // nothing was said on it
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

// untilDeadline is how long a context with a deadline goes on; 0 without one.
func untilDeadline(ctx context.Context) time.Duration {
	by, ok := ctx.Deadline()
	if !ok {
		return 0
	}
	return max(time.Until(by), time.Nanosecond)
}

// await returns a channel that is closed when a place is free; mu is held.
func (p *shared) await() <-chan struct{} {
	if p.freed == nil {
		p.freed = make(chan struct{})
	}
	return p.freed
}

// wait waits for a place, or for the connection that is being opened.
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

// leave notes that a request has left the connection, which closes if it is not kept.
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

// giveUp gives back the place.
func (c *sharedConn) giveUp() {
	c.Release()
	c.leave(false, 0)
}

// reap closes the connections that no request has used for long. It runs in the
// goroutine of its timer, and only while there are connections.
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

// idle counts the connections without requests.
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

// close closes the idle connections, and those in use with their last request.
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
