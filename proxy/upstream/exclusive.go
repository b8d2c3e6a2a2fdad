package upstream

import (
	"context"
	"net"
	"sync"
	"time"

	"sallyport/proxy/wire"
	"sallyport/proxy/wire/h1"
)

// exclusive is a pool of HTTP/1.1 connections, each for one request at a time. It hands out
// the idle connection that was used last: the server is least likely to have closed it, and the
// surplus ones expire. The oldest one is left open for longer, to learn when the server closes it.
type exclusive struct {
	e        *endpoint
	maxIdle  int
	idleTime time.Duration
	now      func() time.Time
	lag      time.Duration // how far now may be behind the real time

	mu      sync.Mutex       // guards the fields below
	unused  []*exclusiveConn // idle; the most recently used at the end
	kept    keptOpen
	sweptAt time.Time // when all idle connections were last looked at
	reaper  *time.Timer
	closed  bool
}

// exclusiveConn is an HTTP/1.1 connection of the pool.
type exclusiveConn struct {
	*h1.Client
	pool      *exclusive
	idleSince time.Time     // set while idle
	seenOpen  time.Duration // idle time at which the watch last found it open; 0: never
	rested    time.Duration // idle time before the current request
	announced time.Duration // the server's last Keep-Alive timeout; 0 if it never sent one
}

// Exchange implements [wire.Client]. A server that ends a reused connection before it answers had
// most likely closed it already.
func (c *exclusiveConn) Exchange(ctx context.Context, r *wire.Request, x *wire.Response) error {
	err := c.Client.Exchange(ctx, r, x)
	if err != nil && !x.Answered && c.rested >= leastUse && faultOf(err) == wire.FaultBroken {
		c.pool.learnEnd(c.rested)
	}
	return err
}

// take returns an idle connection without unexpected input, or else a new one. A retried
// request always gets a new one.
//
// The check makes it unlikely, but not impossible, that the server closes the connection while
// the request is on its way.
func (p *exclusive) take(ctx context.Context, connect time.Duration, limit time.Time, again bool) (connection, bool, error) {
	if !again {
		if c := p.usable(); c != nil {
			return c, true, nil
		}
	}
	c, err := p.dial(ctx, connect, limit)
	if err != nil {
		return nil, false, err
	}
	return c, false, nil
}

// usable returns an idle connection that is still usable; nil if there is none.
func (p *exclusive) usable() *exclusiveConn {
	for {
		c := p.pop()
		if c == nil || c.Alive() {
			return c
		}
		p.learnEnd(c.rested)
		_ = c.Close() // idle, so the close error does not matter
	}
}

func (p *exclusive) dial(ctx context.Context, connect time.Duration, limit time.Time) (c *exclusiveConn, err error) {
	err = p.e.dial(ctx, connect, limit, func(_ context.Context, conn net.Conn, sock *h1.Socket) error {
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

// pop takes out the idle connection that was used last; nil if even that was idle for too long.
func (p *exclusive) pop() *exclusiveConn {
	p.mu.Lock()
	defer p.mu.Unlock()
	n := len(p.unused)
	if n == 0 {
		return nil
	}
	c := p.unused[n-1]
	if c.rested = p.now().Sub(c.idleSince); !p.mayUse(c, c.rested) {
		return nil
	}
	p.unused[n-1] = nil
	p.unused = p.unused[:n-1]
	return c
}

// mayUse reports whether a connection may be used after an idle time; mu is held.
func (p *exclusive) mayUse(c *exclusiveConn, idle time.Duration) bool {
	return idle+p.lag < p.kept.usable(p.idleTime, c.announced)
}

// learnEnd records that the server closed a connection which was idle for at most this time.
func (p *exclusive) learnEnd(idle time.Duration) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if !p.kept.known || idle < p.kept.limit {
		p.kept.ended(idle)
	}
}

// put adds a reusable connection to the pool. announced is the server's Keep-Alive timeout, 0 if
// this answer had none: then the last one still applies.
func (p *exclusive) put(c *exclusiveConn, announced time.Duration) {
	if announced > 0 {
		c.announced = announced
	}
	c.idleSince, c.seenOpen = p.now(), 0
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
		i := min(1, len(p.unused)-1) // the oldest is watched
		surplus = p.unused[i]
		copy(p.unused[i:], p.unused[i+1:])
		p.unused[len(p.unused)-1] = c
		return surplus
	}
	p.unused = append(p.unused, c)
	p.arm(c.idleSince)
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
	all := now.Sub(p.sweptAt) >= reapEvery(p.idleTime)
	if all {
		p.sweptAt = now
	}
	for _, c := range p.unused {
		idle := now.Sub(c.idleSince)
		good := p.mayUse(c, idle) && (!all || c.Alive())
		if len(kept) == 0 {
			good = p.watch(c, idle)
		}
		if good {
			kept = append(kept, c)
		} else {
			old = append(old, c)
		}
	}
	clear(p.unused[len(kept):])
	p.unused = kept
	p.reaper = nil
	p.arm(now)
	return old
}

// watch checks whether the oldest connection is still open, and reports whether to keep it. mu is
// held.
func (p *exclusive) watch(c *exclusiveConn, idle time.Duration) bool {
	switch {
	case !c.Alive():
		if c.seenOpen > 0 {
			idle = c.seenOpen
		}
		p.kept.ended(idle)
		return false
	case idle >= watched(p.idleTime):
		p.kept.ended(idle)
		return false
	}
	c.seenOpen = idle
	p.kept.seen(idle)
	return true
}

// arm sets the timer of reap if there are idle connections; mu is held.
func (p *exclusive) arm(now time.Time) {
	if len(p.unused) > 0 && p.reaper == nil && !p.closed {
		p.reaper = time.AfterFunc(nextLook(now.Sub(p.unused[0].idleSince), p.idleTime), p.reap)
	}
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
