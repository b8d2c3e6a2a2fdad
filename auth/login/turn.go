package login

import (
	"context"
	"net/netip"
)

// finisher is a client address that finishes logins.
type finisher struct {
	turns chan struct{} // one for each code that is being redeemed, or waits for a turn of the login
	users int           // requests; guarded by state.mu
}

// takeTurn waits for a turn to redeem a code. Those of one client wait for each other first, so that they do not
// fill the line before those of others. The caller must call leave.
func (s *state) takeTurn(ctx context.Context, from netip.Addr) (leave func(), err error) {
	s.mu.Lock()
	c := s.clients[from]
	if c == nil {
		c = &finisher{turns: make(chan struct{}, maxExchangeOf)}
		s.clients[from] = c
	}
	c.users++
	s.mu.Unlock()
	for i, turns := range [...]chan struct{}{c.turns, s.turns} {
		select {
		case turns <- struct{}{}:
		case <-ctx.Done():
			if i > 0 {
				<-c.turns
			}
			s.forgo(from, c)
			return nil, ctx.Err()
		}
	}
	return func() {
		<-s.turns
		<-c.turns
		s.forgo(from, c)
	}, nil
}

// forgo notes that a request of a client has ended.
func (s *state) forgo(from netip.Addr, c *finisher) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if c.users--; c.users == 0 {
		delete(s.clients, from)
	}
}
