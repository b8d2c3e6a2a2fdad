package edge

import (
	"context"
	"sync"
	"time"
)

// pace limits the rate of log lines and of ACME orders. It is safe for concurrent use.
type pace struct {
	now func() time.Time

	mu         sync.Mutex // guards the fields below
	since      time.Time  // start of the current minute
	lines      int        // in the current minute
	suppressed int        // lines suppressed in the current minute
	begun      int        // orders started so far
	next       time.Time  // earliest start of the next order
}

// linesPerMinute is the maximum number of log lines of one kind.
const linesPerMinute = 20

// line counts a log line. suppress says that it must not be logged; missed is the number of
// lines suppressed in the previous minute.
func (p *pace) line() (suppress bool, missed int) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if now := p.now(); now.Sub(p.since) >= time.Minute {
		p.since, p.lines, missed, p.suppressed = now, 0, p.suppressed, 0
	}
	p.lines++
	suppress = p.lines > linesPerMinute
	if suppress {
		p.suppressed++
	}
	return suppress, missed
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
