package upstream

import (
	"context"
	"fmt"
	"slices"
	"sync"
	"time"

	"sallyport/proxy/wire"
	"sallyport/proxy/wire/h2"
)

// shared are the connections of an endpoint over HTTP/2, each of which carries many
// requests: the first that has room takes the next, so that there are few, and one
// more is opened where none has.
type shared struct {
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

type sharedConn struct {
	*h2.Client
	usedAt time.Time // when a request last came or went
}

// dialing is a connect that many requests wait for.
type dialing struct {
	done chan struct{}
	err  error // valid once done
	left bool  // it ended with the request that it was made for: others must try
}

// take returns a connection with a place for one request; fresh says that it had no
// request before. Where no place is free it waits for one, or opens a connection, of
// which no more than one is opened at a time: requests that come together share it.
func (p *shared) take(ctx context.Context, wait time.Duration, e *endpoint) (c *h2.Client, fresh bool, err error) {
	bound, cancel := ctx, context.CancelFunc(nil)
	for {
		p.mu.Lock()
		if c := p.reserve(); c != nil {
			p.mu.Unlock()
			return c, false, nil
		}
		if cancel == nil {
			bound, cancel = bounded(ctx, wait)
			defer cancel()
		}
		if p.dialing == nil && (p.most == 0 || len(p.conns) < p.most) {
			d := &dialing{done: make(chan struct{})}
			p.dialing = d
			p.mu.Unlock()
			c, err := p.open(ctx, untilDeadline(bound), d, e)
			return c, true, err
		}
		d, freed := p.dialing, p.await()
		p.mu.Unlock()
		err := p.wait(bound, d, freed)
		switch {
		case ctx.Err() != nil:
			return nil, false, fmt.Errorf("waiting for upstream: %w", wire.Cause(ctx))
		case bound.Err() != nil:
			return nil, false, &Error{NoneHealthy, e.label, errFull}
		case err != nil:
			return nil, false, err
		}
	}
}

// reserve takes a place on a connection that is there; mu is held. Those that take no
// more requests are forgotten: they close by themselves.
func (p *shared) reserve() *h2.Client {
	dead := false
	for _, c := range p.conns {
		if c.Reserve() {
			c.usedAt = p.now()
			return c.Client
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

// open opens a connection for whoever waits for d, with a place on it taken.
func (p *shared) open(ctx context.Context, timeout time.Duration, d *dialing, e *endpoint) (*h2.Client, error) {
	c, err := dialed(ctx, e, timeout, e.openShared)
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
		return nil, &Error{NoneHealthy, e.label, errFull}
	}
	if p.closed {
		return c, nil // for the request that it was made for
	}
	p.conns = append(p.conns, &sharedConn{c, p.now()})
	if p.reaper == nil {
		p.reaper = time.AfterFunc(p.reapEvery(), p.reap)
	}
	return c, nil
}

// untilDeadline is how long a context with a deadline goes on; 0 without one.
func untilDeadline(ctx context.Context) time.Duration {
	by, ok := ctx.Deadline()
	if !ok {
		return 0
	}
	return max(time.Until(by), time.Nanosecond)
}

// await returns what is closed when a place is free; mu is held.
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

// leave notes that a request has left a connection. One that is not kept closes.
func (p *shared) leave(c *h2.Client) {
	p.mu.Lock()
	defer p.mu.Unlock()
	kept := false
	for _, s := range p.conns {
		if s.Client == c {
			s.usedAt, kept = p.now(), true
		}
	}
	if !kept {
		c.Drain()
	}
	if p.freed != nil {
		close(p.freed)
		p.freed = nil
	}
}

// giveUp gives back a place that was not used.
func (p *shared) giveUp(c *h2.Client) {
	c.Release()
	p.leave(c)
}

func (p *shared) reapEvery() time.Duration {
	return min(max(p.idleTime/4, 100*time.Millisecond), 15*time.Second)
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
		p.reaper = time.AfterFunc(p.reapEvery(), p.reap)
	}
}

// len is the number of connections without requests.
func (p *shared) len() (n int) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, c := range p.conns {
		if taken, good := c.Load(); taken == 0 && good {
			n++
		}
	}
	return n
}

// close closes the connections, those that are in use once they are not.
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
