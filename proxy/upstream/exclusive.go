package upstream

import (
	"context"
	"net"
	"sync"
	"time"

	"sallyport/proxy/wire/h1"
)

// exclusive is a pool of HTTP/1.1 connections, each for one request at a time. It hands out
// the idle connection that was used last: the server is least likely to have closed it, and the
// surplus ones expire.
type exclusive struct {
	e        *endpoint
	maxIdle  int
	idleTime time.Duration
	now      func() time.Time

	mu     sync.Mutex       // guards the fields below
	unused []*exclusiveConn // idle; the most recently used at the end
	reaper *time.Timer
	closed bool
}

// exclusiveConn is an HTTP/1.1 connection of the pool.
type exclusiveConn struct {
	*h1.Client
	pool      *exclusive
	goodUntil time.Time     // set while idle
	announced time.Duration // the server's last Keep-Alive timeout; 0 if it never sent one
}

// take returns an idle connection without unexpected input, or else a new one. A retried
// request always gets a new one.
//
// The check makes it unlikely, but not impossible, that the server closes the connection while
// the request is on its way.
func (p *exclusive) take(ctx context.Context, wait time.Duration, again bool) (connection, bool, error) {
	if !again {
		if c := p.usable(); c != nil {
			return c, true, nil
		}
	}
	c, err := p.dial(ctx, wait)
	if err != nil {
		return nil, false, err
	}
	return c, false, nil
}

// usable returns an idle connection that is still usable; nil if there is none.
func (p *exclusive) usable() *exclusiveConn {
	for {
		c := p.pop()
		if c == nil {
			return nil
		}
		if p.now().Before(c.goodUntil) && c.Alive() {
			return c
		}
		_ = c.Close() // idle, so the close error does not matter
	}
}

func (p *exclusive) dial(ctx context.Context, wait time.Duration) (c *exclusiveConn, err error) {
	err = p.e.dial(ctx, wait, func(_ context.Context, conn net.Conn, sock *h1.Socket) error {
		client := h1.NewClient(conn, sock, p.e.bufs)
		client.Clock = p.e.clock
		c = &exclusiveConn{Client: client, pool: p}
		return nil
	})
	return c, err
}

// leave returns a reusable connection to the pool. Others are already closed.
func (c *exclusiveConn) leave(reusable bool, keepAlive time.Duration) {
	if reusable {
		c.pool.put(c, keepAlive)
	}
}

// giveUp closes the connection.
func (c *exclusiveConn) giveUp() { _ = c.Close() }

func (p *exclusive) pop() *exclusiveConn {
	p.mu.Lock()
	defer p.mu.Unlock()
	n := len(p.unused)
	if n == 0 {
		return nil
	}
	c := p.unused[n-1]
	p.unused[n-1] = nil
	p.unused = p.unused[:n-1]
	return c
}

// put adds a reusable connection to the pool. announced is the server's Keep-Alive timeout, 0 if
// this answer had none: then the last one still applies.
func (p *exclusive) put(c *exclusiveConn, announced time.Duration) {
	idleFor := p.idleTime
	if announced > 0 {
		c.announced = announced
	}
	if said := c.announced; said > 0 {
		idleFor = min(idleFor, said-min(said/2, time.Second))
	}
	c.goodUntil = p.now().Add(idleFor)
	if surplus := p.push(c); surplus != nil {
		_ = surplus.Close()
	}
}

// push adds c and returns the connection to close instead; nil if there is space for both.
func (p *exclusive) push(c *exclusiveConn) (surplus *exclusiveConn) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.closed {
		return c
	}
	if len(p.unused) >= p.maxIdle {
		surplus = p.unused[0]
		copy(p.unused, p.unused[1:])
		p.unused[len(p.unused)-1] = c
		return surplus
	}
	p.unused = append(p.unused, c)
	if p.reaper == nil {
		p.reaper = time.AfterFunc(reapEvery(p.idleTime), p.reap)
	}
	return nil
}

// reap closes connections that expired or that the server closed. It runs on a timer, only
// while there are idle connections.
func (p *exclusive) reap() {
	for _, c := range p.expired() {
		_ = c.Close()
	}
}

func (p *exclusive) expired() (old []*exclusiveConn) {
	p.mu.Lock()
	defer p.mu.Unlock()
	now, kept := p.now(), p.unused[:0]
	for _, c := range p.unused {
		if now.Before(c.goodUntil) && c.Alive() {
			kept = append(kept, c)
		} else {
			old = append(old, c)
		}
	}
	clear(p.unused[len(kept):])
	p.unused = kept
	p.reaper = nil
	if len(kept) > 0 && !p.closed {
		p.reaper = time.AfterFunc(reapEvery(p.idleTime), p.reap)
	}
	return old
}

func (p *exclusive) idle() int {
	p.mu.Lock()
	defer p.mu.Unlock()
	return len(p.unused)
}

// close closes idle connections. Connections in use close when their requests end.
func (p *exclusive) close() {
	p.mu.Lock()
	unused := p.unused
	p.unused, p.closed = nil, true
	if p.reaper != nil {
		p.reaper.Stop()
	}
	p.mu.Unlock()
	for _, c := range unused {
		_ = c.Close()
	}
}
