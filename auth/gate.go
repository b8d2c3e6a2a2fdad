package auth

import (
	"context"
	"errors"
	"runtime"
	"slices"
	"sync"
)

// gate bounds how many costly checks run at once. Each client address has a queue of its own, and
// the queues take turns: whoever fills one makes no other address wait for more than one check.
type gate struct {
	mu     sync.Mutex // guards the fields below
	free   int        // places; above zero only if nobody waits
	queues map[uint64]*gateQueue
	turns  []*gateQueue // those in queues, the next one first
}

// gateQueue are the checks of one address that wait, the first one first.
type gateQueue struct {
	owner   uint64
	waiting []chan struct{} // closed when it is the check's turn
}

const (
	maxQueue  = 32  // checks of one address that may wait
	maxQueues = 256 // addresses whose checks may wait
)

var errGateFull = errors.New("too many passwords are being checked")

// newGate returns a gate that leaves half of the processors to others.
func newGate() *gate {
	return &gate{free: max(1, runtime.GOMAXPROCS(0)/2), queues: map[uint64]*gateQueue{}}
}

// enter waits for the turn of an owner, until ctx ends. It returns errGateFull at once if too many
// wait. Each success needs one exit.
func (g *gate) enter(ctx context.Context, owner uint64) error {
	g.mu.Lock()
	if g.free > 0 {
		g.free--
		g.mu.Unlock()
		return nil
	}
	q := g.queues[owner]
	switch {
	case q == nil && len(g.queues) >= maxQueues, q != nil && len(q.waiting) >= maxQueue:
		g.mu.Unlock()
		return errGateFull
	case q == nil:
		q = &gateQueue{owner: owner}
		g.queues[owner] = q
		g.turns = append(g.turns, q)
	}
	turn := make(chan struct{})
	q.waiting = append(q.waiting, turn)
	g.mu.Unlock()
	select {
	case <-turn:
		return nil
	case <-ctx.Done():
	}
	g.mu.Lock()
	i := slices.Index(q.waiting, turn)
	if i >= 0 {
		q.waiting = slices.Delete(q.waiting, i, i+1)
		if len(q.waiting) == 0 {
			delete(g.queues, owner)
			g.turns = slices.DeleteFunc(g.turns, func(other *gateQueue) bool { return other == q })
		}
	}
	g.mu.Unlock()
	if i < 0 {
		g.exit() // the turn came at the same moment
	}
	return ctx.Err()
}

// exit gives the place to the next owner's first check.
func (g *gate) exit() {
	g.mu.Lock()
	defer g.mu.Unlock()
	if len(g.turns) == 0 {
		g.free++
		return
	}
	q := g.turns[0]
	g.turns = slices.Delete(g.turns, 0, 1)
	close(q.waiting[0])
	if q.waiting = q.waiting[1:]; len(q.waiting) > 0 {
		g.turns = append(g.turns, q)
	} else {
		delete(g.queues, q.owner)
	}
}
