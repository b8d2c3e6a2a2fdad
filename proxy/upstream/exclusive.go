package upstream

import (
	"context"
	"net"
	"sync"
	"time"

	"sallyport/proxy/wire/h1"
)

// exclusive holds the connections of an endpoint over HTTP/1.1, each of which carries
// one request at a time. It keeps those that are idle, and hands out the one that was
// used last: it is the least likely to have been closed, and the others grow old.
type exclusive struct {
	e        *endpoint
	maxIdle  int
	idleTime time.Duration
	now      func() time.Time

	mu     sync.Mutex       // guards what follows
	unused []*exclusiveConn // idle; the last used at the end
	reaper *time.Timer
	closed bool
}

// exclusiveConn is a connection that one request uses, or none.
type exclusiveConn struct {
	*h1.Client
	pool      *exclusive
	goodUntil time.Time     // while it is idle
	announced time.Duration // how long the server said that it waits; 0: it did not
}

// take returns an idle connection on which nothing has arrived, or else a new one. A
// request that is sent again goes out on a new one in any case.
//
// Looking at a connection makes it rare that a server closes it just as a request goes
// out on it; it cannot rule it out.
func (p *exclusive) take(ctx context.Context, wait time.Duration, again bool) (connection, bool, error) {
	if !again {
		if c := p.sound(); c != nil {
			return c, true, nil
		}
	}
	c, err := p.dial(ctx, wait)
	if err != nil {
		return nil, false, err
	}
	return c, false, nil
}

// sound returns an idle connection that can be used; nil if there is none.
func (p *exclusive) sound() *exclusiveConn {
	for {
		c := p.pop()
		if c == nil {
			return nil
		}
		if p.now().Before(c.goodUntil) && c.Alive() {
			return c
		}
		_ = c.Close() // it is idle: nobody waits for what it says
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

// leave keeps the connection for the next request if it is fit for one. If it is not,
// it is closed already.
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

// put keeps a connection that is fit for another request. announced is how long the
// server said that it waits for one, 0 if it did not say just now: it is believed still.
func (p *exclusive) put(c *exclusiveConn, announced time.Duration) {
	keep := p.idleTime
	if announced > 0 {
		c.announced = announced
	}
	if said := c.announced; said > 0 {
		keep = min(keep, said-min(said/2, time.Second))
	}
	c.goodUntil = p.now().Add(keep)
	if surplus := p.push(c); surplus != nil {
		_ = surplus.Close()
	}
}

// push returns the connection for which there is no room.
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

// reap closes the connections that have grown too old or were closed by the server. It
// runs in the goroutine of its timer, and only while there are idle connections.
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

// close closes the idle connections. Those in use close when they are given back.
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
