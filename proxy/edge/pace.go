package edge

import (
	"context"
	"sync"
	"time"
)

// pace bounds what others can make happen often: lines in the log, and orders.
// It is safe for concurrent use.
type pace struct {
	now func() time.Time

	mu     sync.Mutex // guards all below
	since  time.Time  // when the present minute began
	lines  int        // in the present minute
	silent int        // lines held back in it
	begun  int        // orders
	next   time.Time  // no order before
}

// linesPerMinute bounds the lines of one kind.
const linesPerMinute = 20

// line counts a line. quiet says that it is one too many, silent how many were so
// in the minute before.
func (p *pace) line() (quiet bool, silent int) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if now := p.now(); now.Sub(p.since) >= time.Minute {
		p.since, p.lines, silent, p.silent = now, 0, p.silent, 0
	}
	p.lines++
	quiet = p.lines > linesPerMinute
	if quiet {
		p.silent++
	}
	return quiet, silent
}

// wait waits until an order may begin.
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
