package edge

import (
	"context"
	"sync"
	"time"
)

// pace limits the rate of ACME orders. It is safe for concurrent use.
type pace struct {
	now func() time.Time

	mu    sync.Mutex // guards the fields below
	begun int        // orders started so far
	next  time.Time  // earliest start of the next order
}

// wait blocks until an order may begin.
func (p *pace) wait(ctx context.Context, r rhythm) error {
	p.mu.Lock()
	var d time.Duration
	if p.begun++; p.begun > r.burst {
		now := p.now()
		p.next = latest(p.next.Add(r.apart), now)
		d = p.next.Sub(now)
	}
	p.mu.Unlock()
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}
