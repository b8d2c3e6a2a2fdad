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

// dialing is a connect that several requests wait for. It belongs to none of them: it goes on when the
// one that began it leaves, and ends with the last. The pool's mu guards all fields but done and cancel.
type dialing struct {
	done    chan struct{}
	cancel  context.CancelFunc
	waiting int         // requests
	err     error       // valid once done
	left    bool        // it was canceled because nobody waited: those who came later must retry
	place   *sharedConn // a stream of the new connection, for the first request that takes it
}

// take reserves a stream for one request. If none is free, it waits for one or opens a
// connection. It opens one connection at a time, and concurrent requests share it.
func (p *shared) take(ctx context.Context, connect time.Duration, limit time.Time, _ bool) (c connection, used bool, err error) {
	bound, cancel := ctx, context.CancelFunc(nil)
	for {
		p.mu.Lock()
		c := p.reserve(false)
		if c == nil && !p.room() {
			c = p.reserve(true)
		}
		if c != nil {
			p.mu.Unlock()
			return c, true, nil
		}
		if cancel == nil {
			bound, cancel = bounded(ctx, connect, limit)
			defer cancel()
		}
		if p.dialing == nil && p.room() && bound.Err() == nil {
			p.begin(connect)
		}
		d, freed := p.dialing, p.await()
		if d != nil {
			d.waiting++
		}
		p.mu.Unlock()
		place, err := p.wait(ctx, bound, limit, d, freed)
		switch {
		case place != nil:
			return place, false, nil
		case ctx.Err() != nil:
			return nil, false, fmt.Errorf("waiting for upstream: %w", wire.Cause(ctx))
		case err != nil:
			return nil, false, err
		case bound.Err() != nil && d != nil:
			return nil, false, &Error{Timeout, p.e.label, &noConnection{"connecting", bound.Err()}}
		case expired(limit):
			return nil, false, &Error{Timeout, p.e.label, &noConnection{"waiting for one that is free", bound.Err()}}
		case bound.Err() != nil:
			return nil, false, &Error{NoneHealthy, p.e.label, full(p.most, connect)}
		}
	}
}

// room reports whether one more connection may be opened; the caller holds mu. [shared.reserve] makes room
// when it drops connections, so ask afterwards.
func (p *shared) room() bool { return p.most == 0 || len(p.conns) < p.most }

// reserve reserves a stream on an open connection; with dry also on one whose uploads nobody reads. The
// caller holds mu. It drops connections that accept no more requests, which close by themselves.
func (p *shared) reserve(dry bool) *sharedConn {
	dead := false
	for _, c := range p.conns {
		if (dry || !c.Dry()) && c.Reserve() {
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

// begin starts a connect; the caller holds mu.
func (p *shared) begin(timeout time.Duration) {
	ctx, cancel := context.WithCancel(context.Background())
	d := &dialing{done: make(chan struct{}), cancel: cancel}
	p.dialing = d
	go func() {
		defer cancel()
		c, err := p.dial(ctx, timeout)
		p.mu.Lock()
		defer p.mu.Unlock()
		p.dialing = nil
		if err == nil {
			err = p.add(c, d)
		}
		d.err, d.left = err, ctx.Err() != nil
		close(d.done)
	}()
}

// add adds a new connection to the pool, with a place for one of the requests that wait for it; the
// caller holds mu. In a closed pool the connection serves only that request.
func (p *shared) add(c *sharedConn, d *dialing) error {
	if !c.Reserve() {
		c.Drain()
		return &Error{NoneHealthy, p.e.label, errNoStream}
	}
	c.usedAt = p.now()
	if !p.closed {
		p.conns = append(p.conns, c)
		if p.reaper == nil {
			p.reaper = time.AfterFunc(reapEvery(p.idleTime), p.reap)
		}
	}
	if d.place = c; d.waiting == 0 {
		p.dropPlace(d)
	}
	return nil
}

// dropPlace gives back the place that no request has taken; the caller holds mu.
func (p *shared) dropPlace(d *dialing) {
	if c := d.place; c != nil {
		d.place = nil
		c.Release()
		p.left(c)
	}
}

// errNoHTTP2 means that an h2:// server did not negotiate HTTP/2.
var errNoHTTP2 = errors.New("the server did not negotiate h2 by ALPN")

func (p *shared) dial(ctx context.Context, wait time.Duration) (c *sharedConn, err error) {
	err = p.e.dial(ctx, wait, time.Time{}, func(ctx context.Context, conn net.Conn, _ *h1.Socket) error {
		if t, ok := conn.(*tls.Conn); ok && t.ConnectionState().NegotiatedProtocol != "h2" {
			_ = conn.Close() // unused, so the close error does not matter
			return errNoHTTP2
		}
		client := h2.NewClient(conn, h2.ClientOptions{Scheme: p.e.scheme(), Buffers: p.e.bufs, Clock: p.e.clock})
		if err := client.Greet(ctx); err != nil {
			_ = client.Close() // it has no requests
			if ctx.Err() != nil {
				return err
			}
			return p.e.mayWantTLS(p.e.mayWantCertificate(plainer(err)))
		}
		c = &sharedConn{Client: client, pool: p}
		return nil
	})
	return c, err
}

// await returns a channel that closes when a stream becomes free; the caller holds mu.
func (p *shared) await() <-chan struct{} {
	if p.freed == nil {
		p.freed = make(chan struct{})
	}
	return p.freed
}

// wait waits for a free stream, or for the connect in progress, which may have a place for this request.
// A request that leaves by itself, because of ctx or its limit, ends a connect that no other waits for.
func (p *shared) wait(ctx, bound context.Context, limit time.Time, d *dialing, freed <-chan struct{}) (place *sharedConn, err error) {
	var opened chan struct{}
	if d != nil {
		opened = d.done
	}
	select {
	case <-freed:
	case <-opened:
	case <-bound.Done():
	}
	if d == nil {
		return nil, nil
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	d.waiting--
	leaves := ctx.Err() != nil || expired(limit)
	if !leaves && d.place != nil {
		place, d.place = d.place, nil
		return place, nil
	}
	if d.waiting == 0 && leaves {
		d.cancel()
	}
	if d.waiting == 0 {
		p.dropPlace(d)
	}
	if d.left {
		return nil, nil
	}
	return nil, d.err
}

// leave records the end of a request. A connection that is no longer pooled closes.
func (c *sharedConn) leave(bool, time.Duration) {
	p := c.pool
	p.mu.Lock()
	defer p.mu.Unlock()
	p.left(c)
}

// left implements leave; the caller holds mu.
func (p *shared) left(c *sharedConn) {
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
