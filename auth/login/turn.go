package login

import (
	"context"
	"net/netip"
	"slices"
	"sync"
)

// line gives turns to clients. If there are none left, those who wait get the next ones client by client, so that
// who comes with many requests does not delay others more than with one.
type line struct {
	mu      sync.Mutex // guards the fields below
	taken   int
	waiting map[netip.Addr][]chan struct{} // of each client, in order; a turn closes the channel
	clients []netip.Addr                   // who wait, in the order in which they get turns
}

// take waits for one of some turns. The caller must call leave later, if the error is nil.
func (l *line) take(ctx context.Context, from netip.Addr, most int) error {
	turn := l.enter(from, most)
	if turn == nil {
		return nil
	}
	select {
	case <-turn:
		return nil
	case <-ctx.Done():
	}
	if !l.forgo(from, turn) {
		l.leave() // it came meanwhile
	}
	return ctx.Err()
}

// enter takes a turn, or returns the channel that is closed when there is one.
func (l *line) enter(from netip.Addr, most int) chan struct{} {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.taken < most {
		l.taken++
		return nil
	}
	if l.waiting == nil {
		l.waiting = map[netip.Addr][]chan struct{}{}
	}
	if len(l.waiting[from]) == 0 {
		l.clients = append(l.clients, from)
	}
	turn := make(chan struct{})
	l.waiting[from] = append(l.waiting[from], turn)
	return turn
}

// forgo ends the wait for a turn. It reports false if the turn has come.
func (l *line) forgo(from netip.Addr, turn chan struct{}) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	own := l.waiting[from]
	i := slices.Index(own, turn)
	if i < 0 {
		return false
	}
	if own = slices.Delete(own, i, i+1); len(own) > 0 {
		l.waiting[from] = own
		return true
	}
	delete(l.waiting, from)
	l.clients = slices.DeleteFunc(l.clients, func(a netip.Addr) bool { return a == from })
	return true
}

// leave gives the turn to the next client.
func (l *line) leave() {
	l.mu.Lock()
	defer l.mu.Unlock()
	if len(l.clients) == 0 {
		l.taken--
		return
	}
	next := l.clients[0]
	l.clients = l.clients[1:]
	own := l.waiting[next]
	close(own[0])
	if own = own[1:]; len(own) > 0 {
		l.waiting[next] = own
		l.clients = append(l.clients, next)
	} else {
		delete(l.waiting, next)
	}
}
