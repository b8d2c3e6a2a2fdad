package wire

import (
	"container/heap"
	"context"
	"sync"
	"sync/atomic"
	"time"
)

// Looked is a connection in a [Register].
type Looked interface {
	comparable
	// Look is called by a sweep to end whatever takes too long. No sweep looks at the connection
	// again before until, unless [Register.Wake] is called. If until has passed, the next sweep
	// looks again. Look must not call the register, and must not wait, not even for a mutex of the
	// connection: a connection that held it would stop the register, and with it every other one.
	Look(now time.Time) (until time.Time)
}

// Register holds the connections of a server. Connections have no timers: once a period, a sweep
// looks at all busy ones. Resting connections, which wait only for the end of their idle time, cost
// nothing until then. It is safe for concurrent use; [NewRegister] makes one.
type Register[C Looked] struct {
	clock *Clock
	swept func(quiet bool) (again bool)

	draining atomic.Bool

	mu       sync.Mutex // guards the fields below
	period   time.Duration
	seats    map[C]*seat[C]
	busy     []*seat[C]
	left     int // busy[:left] have not been looked at in this period
	resting  resting[C]
	timer    *time.Timer // nil before the first connection
	sweeping bool        // the timer is set for the next sweep; the clock returns the time of the last one
	empty    chan struct{}
	ended    bool // empty is closed: the register drains, and no connection is left
}

// seat is the position of a connection in busy or in resting.
type seat[C Looked] struct {
	conn  C
	at    int
	until time.Time // zero: busy
}

// NewRegister returns an empty register. While a connection is busy, it sweeps once a period, at
// most [Lag], and sets the clock, which may be nil. After each sweep it calls swept, if not nil;
// quiet means that no connection is busy. If swept returns true, another sweep follows regardless.
func NewRegister[C Looked](period time.Duration, clock *Clock, swept func(quiet bool) (again bool)) *Register[C] {
	return &Register[C]{
		period: min(period, Lag),
		clock:  clock,
		swept:  swept,
		seats:  map[C]*seat[C]{},
		empty:  make(chan struct{}),
	}
}

// SetPeriod changes the period of later sweeps, at most [Lag].
func (r *Register[C]) SetPeriod(period time.Duration) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.period = min(period, Lag)
}

// Draining reports whether Stop was called.
func (r *Register[C]) Draining() bool { return r.draining.Load() }

// Enter adds a busy connection. After Stop it adds nothing and returns false.
func (r *Register[C]) Enter(c C) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.Draining() {
		return false
	}
	s := &seat[C]{conn: c}
	r.seats[c] = s
	r.occupy(s)
	return true
}

// Leave removes a connection. It may be called more than once.
func (r *Register[C]) Leave(c C) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if s := r.seats[c]; s != nil {
		delete(r.seats, c)
		r.vacate(s)
	}
	r.noteEnd()
}

// Wake makes sweeps look at a resting connection again. It does nothing for a connection that is
// busy or has left.
func (r *Register[C]) Wake(c C) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if s := r.seats[c]; s != nil && !s.until.IsZero() {
		r.vacate(s)
		r.occupy(s)
	}
}

// Stop makes Enter refuse further connections and calls f for every connection. f must not call the
// register.
func (r *Register[C]) Stop(f func(C)) {
	r.draining.Store(true)
	r.mu.Lock()
	defer r.mu.Unlock()
	for c, s := range r.seats {
		f(c)
		if !s.until.IsZero() {
			r.vacate(s)
			r.occupy(s)
		}
	}
	r.noteEnd()
}

// Wait, called after Stop, waits until all connections have left or ctx ends.
func (r *Register[C]) Wait(ctx context.Context) error {
	select {
	case <-r.empty:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// noteEnd closes empty once the register drains and the last connection has left; mu is held.
func (r *Register[C]) noteEnd() {
	if r.Draining() && len(r.seats) == 0 && !r.ended {
		r.ended = true
		close(r.empty)
	}
}

// occupy makes a connection busy and ensures that a sweep follows; mu is held.
func (r *Register[C]) occupy(s *seat[C]) {
	s.at, s.until = len(r.busy), time.Time{}
	r.busy = append(r.busy, s)
	if r.sweeping {
		return
	}
	r.sweeping = true
	r.clock.set(time.Now())
	r.setTimer(r.period)
}

// vacate removes a connection from busy or from resting; mu is held.
func (r *Register[C]) vacate(s *seat[C]) {
	if !s.until.IsZero() {
		heap.Remove(&r.resting, s.at)
		return
	}
	last := len(r.busy) - 1
	r.busy[s.at] = r.busy[last]
	r.busy[s.at].at = s.at
	r.busy[last] = nil
	r.busy = r.busy[:last]
}

// setTimer is called with mu held.
func (r *Register[C]) setTimer(d time.Duration) {
	if r.timer == nil {
		r.timer = time.AfterFunc(d, r.sweep)
		return
	}
	r.timer.Reset(d)
}

// share limits how many connections one sweep looks at. A look takes up to half a microsecond; a
// sweep over thousands would delay requests.
const share = 256

// sweep looks at a share of the busy connections, so that all get their turn within a period. It
// also wakes connections whose rest is over.
func (r *Register[C]) sweep() {
	now := time.Now()
	r.mu.Lock()
	defer r.mu.Unlock()
	for len(r.resting) > 0 && !r.resting[0].until.After(now) {
		s := r.resting[0]
		r.vacate(s)
		s.at, s.until = len(r.busy), time.Time{}
		r.busy = append(r.busy, s)
	}
	if r.left = min(r.left, len(r.busy)); r.left == 0 {
		r.left = len(r.busy)
	}
	for n := 0; n < share && r.left > 0; n++ {
		r.left-- // downwards: the last one, already looked at, takes the place of a connection that leaves
		s := r.busy[r.left]
		if until := s.conn.Look(now); until.After(now) {
			r.vacate(s)
			s.until = until
			heap.Push(&r.resting, s)
		}
	}
	quiet := len(r.busy) == 0
	again := r.left > 0 || r.swept != nil && r.swept(quiet)
	switch r.sweeping = again || !quiet; {
	case r.sweeping:
		r.clock.set(now)
		r.setTimer(r.period / time.Duration(len(r.busy)/share+1))
	case len(r.resting) > 0:
		r.clock.set(time.Time{})
		r.setTimer(max(r.resting[0].until.Sub(now), r.period))
	default:
		r.clock.set(time.Time{})
	}
}

// resting is a heap of connections, ordered by the end of their rest.
type resting[C Looked] []*seat[C]

func (h resting[C]) Len() int           { return len(h) }
func (h resting[C]) Less(i, j int) bool { return h[i].until.Before(h[j].until) }
func (h resting[C]) Swap(i, j int) {
	h[i], h[j] = h[j], h[i]
	h[i].at, h[j].at = i, j
}

func (h *resting[C]) Push(x any) {
	s := x.(*seat[C])
	s.at = len(*h)
	*h = append(*h, s)
}

func (h *resting[C]) Pop() any {
	last := len(*h) - 1
	s := (*h)[last]
	(*h)[last] = nil
	*h = (*h)[:last]
	return s
}
