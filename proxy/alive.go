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

// Alive returns nil if the gateway can do its work: every loop that accepts connections has run once
// more, and each part has given its state for the report of `sallyport status`. Both show that no
// lock which requests need is held for ever. When ctx ends first, the error names what did not answer.
//
// Clients cannot make a live gateway look dead: not by reaching limits, by using up file descriptors,
// or by upstreams and issuers that do not answer. Neither can a reload that waits for a slow disk,
// because requests are served meanwhile. Alive is safe for concurrent use.
func (g *Gateway) Alive(ctx context.Context) error {
	select {
	case g.probing <- struct{}{}: // one at a time, so that a dead gateway collects one goroutine and not many
	case <-ctx.Done():
		return errors.New("an earlier check has not ended")
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

// pulse is a listener that can test whether somebody still calls Accept in a loop. It is the innermost
// listener, so that the test covers all wrappers around it.
type pulse struct {
	net.Listener
	deadline interface{ SetDeadline(time.Time) error }

	mu    sync.Mutex    // guards asked
	asked chan struct{} // closed by the call of Accept that beat interrupts; nil if no beat waits
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

// answer ends the waits of beat and lets Accept wait for connections again.
func (p *pulse) answer() {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.asked != nil {
		close(p.asked)
		p.asked = nil
	}
	_ = p.deadline.SetDeadline(time.Time{}) // fails only after Close, which Accept reports
}

// beat interrupts Accept and waits until a call of Accept has noticed. It returns the cause of ctx if
// that ends first, and nil for a closed listener.
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

// Close closes the listener and ends the waits of beat, since Accept may not be called again.
func (p *pulse) Close() error {
	err := p.Listener.Close()
	p.answer()
	return err
}
