package wire

import (
	"container/heap"
	"context"
	"sync"
	"sync/atomic"
	"time"
)

// Looked is a connection that a [Register] looks after.
type Looked interface {
	comparable
	// Look is called by a sweep, to end what takes too long. It returns until when the
	// connection need not be looked at again, unless [Register.Wake] says otherwise; any
	// time that has passed, such as the zero one, has the next sweep look again. It must
	// not call the register.
	Look(now time.Time) (until time.Time)
}

// Register knows the connections of a server. No timer is set for a connection: a sweep,
// once a period, looks at all that are busy. Those that rest, with nothing to watch but
// the end of their idle time, cost nothing until then. It is safe for concurrent use;
// [NewRegister] makes one.
type Register[C Looked] struct {
	clock *Clock
	swept func(quiet bool) (again bool)

	draining atomic.Bool

	mu       sync.Mutex // guards what follows
	period   time.Duration
	seats    map[C]*seat[C]
	busy     []*seat[C]
	left     int // how many of busy, from the first, this period's sweeps have not looked at
	resting  resting[C]
	timer    *time.Timer // nil before the first connection
	sweeping bool        // the timer is set for a period, and the clock stands in between
	empty    chan struct{}
	ended    bool // empty is closed: the register drains, and no connection is left
}

// seat is the place of a connection in busy, or in resting.
type seat[C Looked] struct {
	conn  C
	at    int
	until time.Time // zero: busy
}

// NewRegister makes an empty register that sweeps once a period, at most [Lag], while a
// connection is busy, and sets the clock, which may be nil. swept, if not nil, is called
// after each sweep with whether no connection is busy; it says whether another sweep must
// follow all the same.
func NewRegister[C Looked](period time.Duration, clock *Clock, swept func(quiet bool) (again bool)) *Register[C] {
	return &Register[C]{
		period: min(period, Lag),
		clock:  clock,
		swept:  swept,
		seats:  map[C]*seat[C]{},
		empty:  make(chan struct{}),
	}
}

// SetPeriod has later sweeps follow one another by another period, at most [Lag].
func (r *Register[C]) SetPeriod(period time.Duration) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.period = min(period, Lag)
}

// Draining says whether Stop was called.
func (r *Register[C]) Draining() bool { return r.draining.Load() }

// Enter takes a connection in, busy, unless Stop was called.
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

// Leave takes a connection out. It may be called more than once.
func (r *Register[C]) Leave(c C) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if s := r.seats[c]; s != nil {
		delete(r.seats, c)
		r.vacate(s)
	}
	r.noteEnd()
}

// Wake has sweeps look at a connection that rested. For one that is busy, or has left, it
// does nothing.
func (r *Register[C]) Wake(c C) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if s := r.seats[c]; s != nil && !s.until.IsZero() {
		r.vacate(s)
		r.occupy(s)
	}
}

// Stop lets no connection in any more and calls f for every connection; f must not call
// the register.
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
	if r.Draining() && len(r.seats) == 0 && !r.ended {
		r.ended = true
		close(r.empty)
	}
}

// occupy makes a connection busy, and sees that a sweep follows; mu is held.
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

// vacate takes a connection out of busy, or out of resting; mu is held.
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

// share is how many connections a sweep looks at in one go. A look takes up to half a
// microsecond, so that requests do not have to wait for it to look at thousands.
const share = 256

// sweep looks at a share of the connections that are busy, which takes its turns in the
// course of a period, and wakes those whose rest is over.
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
		r.left-- // downwards: the last one, which was looked at, takes the place of one that leaves
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

// resting is a heap of connections, the one whose rest ends first on top.
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
