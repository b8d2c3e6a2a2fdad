package upstream

import (
	"sync"
	"time"

	"sallyport/proxy/wire/h1"
)

// conn is a connection to an endpoint.
type conn struct {
	*h1.Client
	goodUntil time.Time // while it is idle
}

// pool keeps the idle connections of an endpoint, last in, first out: the one used
// last is the least likely to have been closed, and those not needed grow old.
type pool struct {
	maxIdle  int
	idleTime time.Duration
	now      func() time.Time

	mu     sync.Mutex // guards what follows
	idle   []*conn    // the last used at the end
	reaper *time.Timer
	closed bool
}

// take returns an idle connection on which nothing has arrived, nil if there is
// none. The check makes it rare that a server closes a connection just as a
// request goes out on it; it cannot rule it out.
func (p *pool) take() *conn {
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

func (p *pool) pop() *conn {
	p.mu.Lock()
	defer p.mu.Unlock()
	n := len(p.idle)
	if n == 0 {
		return nil
	}
	c := p.idle[n-1]
	p.idle[n-1] = nil
	p.idle = p.idle[:n-1]
	return c
}

// put keeps a connection that is fit for another request. announced is how long
// the server said that it waits for one, 0 if it did not say.
func (p *pool) put(c *conn, announced time.Duration) {
	keep := p.idleTime
	if announced > 0 {
		keep = min(keep, announced-min(announced/2, time.Second))
	}
	c.goodUntil = p.now().Add(keep)
	if old := p.push(c); old != nil {
		_ = old.Close()
	}
}

// push returns the connection that there is no room for.
func (p *pool) push(c *conn) (surplus *conn) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.closed {
		return c
	}
	if len(p.idle) >= p.maxIdle {
		surplus = p.idle[0]
		copy(p.idle, p.idle[1:])
		p.idle[len(p.idle)-1] = c
		return surplus
	}
	p.idle = append(p.idle, c)
	if p.reaper == nil {
		p.reaper = time.AfterFunc(p.reapEvery(), p.reap)
	}
	return nil
}

func (p *pool) reapEvery() time.Duration {
	return min(max(p.idleTime/4, 100*time.Millisecond), 15*time.Second)
}

// reap closes what has grown too old or was closed by the server. It runs in the
// goroutine of its timer, and only while there are idle connections.
func (p *pool) reap() {
	for _, c := range p.expired() {
		_ = c.Close()
	}
}

func (p *pool) expired() (old []*conn) {
	p.mu.Lock()
	defer p.mu.Unlock()
	now, kept := p.now(), p.idle[:0]
	for _, c := range p.idle {
		if now.Before(c.goodUntil) && c.Alive() {
			kept = append(kept, c)
		} else {
			old = append(old, c)
		}
	}
	clear(p.idle[len(kept):])
	p.idle = kept
	p.reaper = nil
	if len(kept) > 0 && !p.closed {
		p.reaper = time.AfterFunc(p.reapEvery(), p.reap)
	}
	return old
}

func (p *pool) len() int {
	p.mu.Lock()
	defer p.mu.Unlock()
	return len(p.idle)
}

// close closes the idle connections; those put back later are closed too.
func (p *pool) close() {
	p.mu.Lock()
	idle := p.idle
	p.idle, p.closed = nil, true
	if p.reaper != nil {
		p.reaper.Stop()
	}
	p.mu.Unlock()
	for _, c := range idle {
		_ = c.Close()
	}
}
