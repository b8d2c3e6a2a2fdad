package wire

import (
	"context"
	"errors"
	"net"
	"sync"
	"sync/atomic"
	"time"
)

// Register knows the listeners and the connections of a server. No timer is set for a
// connection: one sweep over all of them, once a period, looks at each. It is safe for
// concurrent use; [NewRegister] makes one.
type Register[C interface {
	comparable
	// Look is called by a sweep. It must not call the register.
	Look(now time.Time)
}] struct {
	period time.Duration
	clock  *Clock
	swept  func(empty bool) (again bool)

	draining atomic.Bool

	mu        sync.Mutex // guards what follows
	listeners map[net.Listener]struct{}
	conns     map[C]struct{}
	sweeps    *time.Timer // nil or at rest while there is nothing to sweep
	sweeping  bool
	empty     chan struct{} // closed when it drains and no connection is left
	ended     bool          // empty is closed
}

// NewRegister makes an empty register that sweeps once a period, at most [Lag], and sets
// the clock, which may be nil. swept, if not nil, is called behind each sweep with
// whether there are no connections, and says whether another must follow all the same.
func NewRegister[C interface {
	comparable
	Look(now time.Time)
}](period time.Duration, clock *Clock, swept func(empty bool) (again bool)) *Register[C] {
	return &Register[C]{
		period:    min(period, Lag),
		clock:     clock,
		swept:     swept,
		listeners: map[net.Listener]struct{}{},
		conns:     map[C]struct{}{},
		empty:     make(chan struct{}),
	}
}

// Draining says whether Stop was called.
func (r *Register[C]) Draining() bool { return r.draining.Load() }

// Serve hands every connection of a listener to take until Stop, after which it
// returns nil, or until the listener fails. It closes the listener.
func (r *Register[C]) Serve(l net.Listener, take func(net.Conn)) error {
	defer l.Close()
	if !r.enterListener(l) {
		return nil
	}
	defer r.leaveListener(l)
	for {
		conn, err := l.Accept()
		if err != nil {
			if r.Draining() {
				return nil
			}
			return err
		}
		take(conn)
	}
}

func (r *Register[C]) enterListener(l net.Listener) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.Draining() {
		return false
	}
	r.listeners[l] = struct{}{}
	return true
}

func (r *Register[C]) leaveListener(l net.Listener) {
	r.mu.Lock()
	defer r.mu.Unlock()
	delete(r.listeners, l)
}

// Enter takes a connection in, unless Stop was called.
func (r *Register[C]) Enter(c C) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.Draining() {
		return false
	}
	r.conns[c] = struct{}{}
	if !r.sweeping {
		r.sweeping = true
		r.clock.set(time.Now())
		if r.sweeps == nil {
			r.sweeps = time.AfterFunc(r.period, r.sweep)
		} else {
			r.sweeps.Reset(r.period)
		}
	}
	return true
}

// Leave takes a connection out. It may be called more than once.
func (r *Register[C]) Leave(c C) {
	r.mu.Lock()
	defer r.mu.Unlock()
	delete(r.conns, c)
	r.noteEnd()
}

// Stop closes the listeners and does something with each connection, with which none
// of them may leave at once.
func (r *Register[C]) Stop(each func(C)) error {
	r.draining.Store(true)
	r.mu.Lock()
	defer r.mu.Unlock()
	var errs []error
	for l := range r.listeners {
		if err := l.Close(); !errors.Is(err, net.ErrClosed) {
			errs = append(errs, err)
		}
	}
	clear(r.listeners)
	for c := range r.conns {
		each(c)
	}
	r.noteEnd()
	return errors.Join(errs...)
}

// Wait waits, after Stop, until all connections have left or ctx ends.
func (r *Register[C]) Wait(ctx context.Context) error {
	select {
	case <-r.empty:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// noteEnd is called with mu held.
func (r *Register[C]) noteEnd() {
	if r.Draining() && len(r.conns) == 0 && !r.ended {
		r.ended = true
		close(r.empty)
	}
}

// sweep looks at every connection, as long as there are any.
func (r *Register[C]) sweep() {
	now := time.Now()
	r.mu.Lock()
	defer r.mu.Unlock()
	r.clock.set(now)
	for c := range r.conns {
		c.Look(now)
	}
	r.sweeping = len(r.conns) > 0
	if r.swept != nil && r.swept(!r.sweeping) {
		r.sweeping = true
	}
	if r.sweeping {
		r.sweeps.Reset(r.period)
	} else {
		r.clock.set(time.Time{})
	}
}
