package login

import (
	"maps"
	"slices"
	"time"

	"sallyport/auth/login/endfile"
)

// Settle waits for the refreshes and revocations that run.
func (l *Login) Settle() { l.memory.work.Wait() }

// SetLeaving sets how long revocations wait for the issuer's own sign-out.
func (m *Memory) SetLeaving(d time.Duration) { m.leaving = d }

// Revoke revokes the refresh token as the end of the session does.
func (s *Session) Revoke() { s.live.newest.Load().revoke() }

// OpenFiles returns the names of the open files with ends of sessions.
func (m *Memory) OpenFiles() []string {
	m.mu.Lock()
	defer m.mu.Unlock()
	return slices.Sorted(maps.Keys(m.files))
}

// copied returns one of many sessions of the same person.
func (s *Session) copied(i int) *Session {
	r := s.record
	r.id = sessionID{1, byte(i), byte(i >> 8), byte(i >> 16)}
	r.ends = endsOf(&r)
	return &Session{record: r, login: s.login, place: s.place, principal: s.principal, live: &live{}}
}

// OpenCopies opens n sessions of the same person.
func (s *Session) OpenCopies(n int) {
	for i := range n {
		s.login.state.join(s.copied(i))
	}
}

// EndCopies ends n sessions as those of a person who signs in and out n times.
func (s *Session) EndCopies(n int) error {
	for i := range n {
		c := s.copied(i)
		if err := s.login.endSession(c); err != nil {
			return err
		}
	}
	return nil
}

// EndOthers ends n sessions of as many other people.
func (l *Login) EndOthers(n int) {
	at := l.memory.now().Unix()
	for i := range n {
		one := endfile.ID{1, byte(i), byte(i >> 8), byte(i >> 16)}
		l.state.Apply(0, []endfile.Line{{Kind: endfile.Session, ID: one, Of: one, At: at, Until: at}})
	}
}

// Turns returns how many turns to redeem codes are taken, and how many requests wait for one.
func (l *Login) Turns() (taken, waiting int) {
	t := &l.state.turns
	t.mu.Lock()
	defer t.mu.Unlock()
	for _, own := range t.waiting {
		waiting += len(own)
	}
	return t.taken, waiting
}
