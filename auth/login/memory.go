package login

import (
	"context"
	"log/slog"
	"sync"
	"sync/atomic"
	"time"
)

const (
	maxUsed     = 1 << 14 // states of answers that are remembered as used
	maxRefresh  = 32      // refreshes of one login that run at once
	maxExchange = 64      // codes that are redeemed at once, likewise
)

// Memory is what logins share and what outlives a reload: sessions, the ends of sessions, and used
// answers. A process has one. It is safe for concurrent use.
//
// Its size is bounded. Nothing in it grows with logins that were begun.
type Memory struct {
	now  func() time.Time
	log  *slog.Logger
	keys *Keys // for logins without keys of their own

	life context.Context // of refreshes
	stop context.CancelFunc
	work sync.WaitGroup

	mu     sync.Mutex // guards the fields below
	ended  bool       // no refresh may start
	states map[string]*state
	used   used
}

// NewMemory returns an empty Memory. It starts no goroutine.
func NewMemory(now func() time.Time, log *slog.Logger) *Memory {
	keys, _ := ParseKeys([]byte(NewKey())) // a new key can be read
	m := &Memory{now: now, log: log, keys: keys, states: map[string]*state{}, used: used{until: map[[stateSize]byte]int64{}}}
	m.life, m.stop = context.WithCancel(context.Background())
	return m
}

// End cancels the refreshes and waits for them. Later none starts.
func (m *Memory) End() {
	m.mu.Lock()
	m.ended = true
	m.mu.Unlock()
	m.stop()
	m.work.Wait()
}

// start runs f in the background, unless slots is full. It reports whether f runs.
func (m *Memory) start(slots chan struct{}, f func(ctx context.Context)) bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.ended {
		return false
	}
	select {
	case slots <- struct{}{}:
	default:
		return false
	}
	m.work.Go(func() {
		defer func() { <-slots }()
		f(m.life)
	})
	return true
}

// use marks the state of an answer as used. It reports whether it was not used before.
func (m *Memory) use(s [stateSize]byte, now time.Time) bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.used.add(s, now.Unix())
}

// used remembers the states of answers until their attempts expire. If there are too many, it forgets
// the oldest: the issuer refuses a code that was used before as well.
type used struct {
	until map[[stateSize]byte]int64
	order [][stateSize]byte // ring of maxUsed, allocated as it grows
	at    int
}

func (u *used) add(s [stateSize]byte, now int64) bool {
	if until, known := u.until[s]; known && now < until {
		return false
	}
	if len(u.order) < maxUsed {
		u.order = append(u.order, s)
	} else {
		delete(u.until, u.order[u.at])
		u.order[u.at] = s
		u.at = (u.at + 1) % maxUsed
	}
	u.until[s] = now + int64(attemptTime/time.Second)
	return true
}

// state returns what logins of one name and client share.
func (m *Memory) state(key string) *state {
	m.mu.Lock()
	defer m.mu.Unlock()
	s := m.states[key]
	if s == nil {
		s = &state{
			slots: make(chan struct{}, maxRefresh), turns: make(chan struct{}, maxExchange),
			ends: map[end]ended{}, live: map[sessionID]*live{},
		}
		m.states[key] = s
	}
	return s
}

// state is what logins of one name and client share over reloads. The seals of sessions say no more, so
// that a session that ended here opens nowhere else.
type state struct {
	// Turns are of one login, so that an issuer that hangs holds nobody at another issuer.
	slots chan struct{} // one for each running refresh
	turns chan struct{} // one for each code that is being redeemed

	// changes counts the ends. A session that was looked up at the same count has not ended since, so
	// that requests need no lock.
	changes atomic.Uint64

	mu    sync.Mutex // guards the fields below
	ends  map[end]ended
	order []end // in which the ends came
	floor int64 // sessions that began until then have ended
	live  map[sessionID]*live
}

// end says which sessions end: one, all with a sid, or all of a subject.
type end struct {
	kind endKind
	id   string
}

type endKind uint8

const (
	endOfSession endKind = iota
	endOfSID
	endOfSubject
)

// ended says when sessions ended, in seconds since 1970.
type ended struct {
	at    int64 // by our clock
	until int64 // those issued until then have ended, by the issuer's clock
}

// maxEnds is how many ends of sessions a login remembers.
const maxEnds = 1 << 16

// ends returns the ends that would be of a session.
func (r *record) ends() [3]end {
	return [...]end{{endOfSession, string(r.id[:])}, {endOfSID, named(r.issuer, r.sid)}, {endOfSubject, named(r.issuer, r.subject)}}
}

// named qualifies a sid or subject by its issuer; "" stays "".
func named(issuer, id string) string {
	if id == "" {
		return ""
	}
	return issuer + "\x00" + id
}

// end ends sessions. If there are too many ends, the oldest becomes one of all sessions that began
// before it: people sign in again, and no ended session returns.
func (s *state) end(e end, at, until int64) {
	s.mu.Lock()
	defer s.mu.Unlock()
	old, known := s.ends[e]
	if !known {
		s.order = append(s.order, e)
	} else if until <= old.until {
		return
	}
	s.ends[e] = ended{at, until}
	if len(s.order) > maxEnds {
		oldest := s.order[0]
		s.order = s.order[1:]
		s.floor = max(s.floor, s.ends[oldest].at)
		delete(s.ends, oldest)
	}
	for id, l := range s.live {
		if n := l.newest.Load(); n.issued <= until && n.ends()[e.kind] == e {
			l.gone.Store(true)
			delete(s.live, id)
		}
	}
	s.changes.Add(1)
}

// forget removes the ends of sessions that have expired meanwhile.
func (s *state) forget(before int64) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for len(s.order) > 0 && s.ends[s.order[0]].at < before {
		delete(s.ends, s.order[0])
		s.order = s.order[1:]
	}
}

// hasEnded reports whether a session was ended.
func (s *state) hasEnded(r *record) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if r.begun <= s.floor {
		return true
	}
	for _, e := range r.ends() {
		if ended, known := s.ends[e]; known && e.id != "" && r.issued <= ended.until {
			return true
		}
	}
	return false
}

// sessionID identifies a session. It is no secret: the cookie is sealed.
type sessionID [16]byte

// live is what this process knows of a session besides its cookie.
type live struct {
	newest     atomic.Pointer[Session]
	seen       atomic.Int64 // last request, in seconds since 1970
	gone       atomic.Bool  // it was ended or evicted here
	refreshing atomic.Bool
	retry      atomic.Int64 // when a failed refresh may be tried again
}

const (
	maxLive      = 10_000 // sessions in cookies that are known besides their cookies
	maxOfSubject = 32     // sessions in memory of one subject
	sampled      = 16     // of sessions in cookies, when one is evicted
)

// join gives a session that was opened from its cookie its live part, which others may have already.
func (s *state) join(opened *Session) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if opened.live = s.live[opened.id]; opened.live == nil {
		s.add(opened, maxLive, sampled)
	}
}

// find returns the live part of a session in memory; nil if there is none.
func (s *state) find(id sessionID) *live {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.live[id]
}

// keep adds a session in memory. A subject who has too many loses the least recently used one, so that
// nobody ends the sessions of others by signing in over and over.
func (s *state) keep(n *Session, most int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	count, oldest, seen := 0, sessionID{}, int64(0)
	for id, l := range s.live {
		if l.newest.Load().subject != n.subject {
			continue
		}
		if at := l.seen.Load(); count == 0 || at < seen {
			oldest, seen = id, at
		}
		count++
	}
	if count >= maxOfSubject {
		s.remove(oldest)
	}
	s.add(n, most, most)
}

// add adds a session. If there are too many, it evicts the least recently used of some. The caller
// holds s.mu.
func (s *state) add(n *Session, most, some int) {
	for len(s.live) >= most {
		looked, oldest, seen := 0, sessionID{}, int64(0)
		for id, l := range s.live { // from a random one
			if at := l.seen.Load(); looked == 0 || at < seen {
				oldest, seen = id, at
			}
			if looked++; looked >= some {
				break
			}
		}
		s.remove(oldest)
	}
	l := &live{}
	l.seen.Store(n.seen)
	n.live = l
	l.newest.Store(n)
	s.live[n.id] = l
}

// remove removes a session. One in memory has ended by that. The caller holds s.mu.
func (s *state) remove(id sessionID) {
	if l := s.live[id]; l != nil {
		if l.newest.Load().memory {
			l.gone.Store(true)
		}
		delete(s.live, id)
	}
}

// sweep removes the sessions that have expired.
func (s *state) sweep(now int64) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for id, l := range s.live {
		if n := l.newest.Load(); now >= n.expires || now >= l.seen.Load()+n.idle() {
			delete(s.live, id)
		}
	}
}

// Sweep removes what has expired. It is called now and then.
func (m *Memory) Sweep() {
	now := m.now().Unix()
	m.mu.Lock()
	var all []*state
	for _, s := range m.states {
		all = append(all, s)
	}
	m.mu.Unlock()
	for _, s := range all {
		s.sweep(now)
		s.forget(now - int64(MaxAbsolute/time.Second))
	}
}

// Live returns the number of sessions in memory, and of those in cookies that were used lately.
func (l *Login) Live() int {
	l.state.mu.Lock()
	defer l.state.mu.Unlock()
	return len(l.state.live)
}
