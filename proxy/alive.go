package proxy

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"sync"
	"sync/atomic"
	"time"
)

// Alive returns nil if the gateway can do its work: every loop that accepts connections has gone
// round once more, and each part answered for the report of `sallyport status`. So no lock that
// requests need is held for ever. ctx limits the wait for that.
//
// Nothing that clients can bring about makes a live gateway look dead: limits that are reached,
// descriptors that are used up, upstreams or issuers that do not answer. A reload that waits for a
// slow disk does not either, because requests go on meanwhile. Alive is safe for concurrent use.
func (g *Gateway) Alive(ctx context.Context) error {
	select {
	case g.probing <- struct{}{}: // so that a dead gateway collects one goroutine and not many
	case <-ctx.Done():
		return errors.New("an earlier look has not come back")
	}
	var at atomic.Pointer[string]
	note := func(what string) { at.Store(&what) }
	note("nothing yet")
	result := make(chan error, 1)
	go func() {
		defer func() { <-g.probing }()
		for _, l := range *g.listening.Load() {
			if l.pulse == nil {
				continue
			}
			note("accepting connections at " + l.address())
			if err := l.pulse.beat(ctx); err != nil {
				result <- fmt.Errorf("%s: %w", *at.Load(), err)
				return
			}
		}
		note("the report of all parts")
		g.status()
		result <- nil
	}()
	select {
	case err := <-result:
		return err
	case <-ctx.Done():
		return fmt.Errorf("%s: %w", *at.Load(), context.Cause(ctx))
	}
}

// pulse is a listener whose loop of Accept can be asked whether it still goes round. It stands
// beneath every wrapper, so that the answer speaks for all of them.
type pulse struct {
	net.Listener
	deadline interface{ SetDeadline(time.Time) error }

	mu    sync.Mutex    // guards asked
	asked chan struct{} // closed by the next call of Accept that sees the question; nil: none
}

// newPulse wraps a listener; nil if its Accept cannot be interrupted.
func newPulse(l net.Listener) *pulse {
	d, ok := l.(interface{ SetDeadline(time.Time) error })
	if !ok {
		return nil
	}
	return &pulse{Listener: l, deadline: d}
}

// Accept returns the next connection.
func (p *pulse) Accept() (net.Conn, error) {
	for {
		c, err := p.Listener.Accept()
		if !errors.Is(err, os.ErrDeadlineExceeded) {
			return c, err
		}
		p.answer()
	}
}

// answer closes the question and lets Accept wait for connections again.
func (p *pulse) answer() {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.asked != nil {
		close(p.asked)
		p.asked = nil
	}
	_ = p.deadline.SetDeadline(time.Time{}) // fails only after Close, which Accept reports
}

// beat interrupts Accept and waits until its loop has called it again. A closed listener is not
// accepting, and need not.
func (p *pulse) beat(ctx context.Context) error {
	p.mu.Lock()
	if p.asked == nil {
		p.asked = make(chan struct{})
	}
	answered := p.asked
	err := p.deadline.SetDeadline(time.Unix(1, 0))
	p.mu.Unlock()
	if err != nil {
		return nil
	}
	select {
	case <-answered:
		return nil
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}

// Close closes the listener and answers a question that Accept can no longer answer.
func (p *pulse) Close() error {
	err := p.Listener.Close()
	p.answer()
	return err
}
