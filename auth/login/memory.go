package login

import (
	"context"
	"log/slog"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"sallyport/auth/login/endfile"
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

	leaving time.Duration // from a sign-out here to the revocation, when that of the issuer is over

	onEnd     func(Ended)
	unrevoked atomic.Uint64 // refresh tokens that could not be revoked

	life context.Context // of refreshes and revocations
	stop context.CancelFunc
	work sync.WaitGroup

	mu     sync.Mutex // guards the fields below
	ended  bool       // nothing may start in the background
	states map[string]*state
	files  map[string]*endfile.File // with the ends of sessions, by their names
	used   used
}

// Ended is a session that the issuer ended, by refusing to refresh it.
type Ended struct {
	Login, Principal, Session, SID string
	Cause                          error
}

// NewMemory returns an empty Memory. It starts no goroutine. onEnd is called from the background; nil for
// nobody who wants to know.
func NewMemory(now func() time.Time, log *slog.Logger, onEnd func(Ended)) *Memory {
	if onEnd == nil {
		onEnd = func(Ended) {}
	}
	keys, _ := ParseKeys([]byte(NewKey())) // a new key can be read
	m := &Memory{now: now, log: log, onEnd: onEnd, keys: keys, leaving: leaveTime, states: map[string]*state{}, files: map[string]*endfile.File{}, used: used{until: map[[stateSize]byte]int64{}}}
	m.life, m.stop = context.WithCancel(context.Background())
	return m
}

// End cancels the refreshes and revocations, waits for them, and closes the files with ends of sessions.
// Later none starts.
func (m *Memory) End() {
	m.mu.Lock()
	m.ended = true
	m.mu.Unlock()
	m.stop()
	m.work.Wait()
	for _, f := range m.allFiles() {
		f.Close()
	}
}

// Go runs f in the background, unless the process ends. It reports whether f runs.
func (m *Memory) Go(f func(life context.Context)) bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.ended {
		return false
	}
	m.work.Go(func() { f(m.life) })
	return true
}

// start is Go, unless slots is full.
func (m *Memory) start(slots chan struct{}, f func(life context.Context)) bool {
	select {
	case slots <- struct{}{}:
	default:
		return false
	}
	if m.Go(func(life context.Context) {
		defer func() { <-slots }()
		f(life)
	}) {
		return true
	}
	<-slots
	return false
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
func (m *Memory) state(name, client string) *state {
	key := stateKey(name, client)
	m.mu.Lock()
	defer m.mu.Unlock()
	s := m.states[key]
	if s == nil {
		s = &state{
			login: endfile.LoginOf(name, client),
			slots: make(chan struct{}, maxRefresh), revokes: make(chan struct{}, maxRevoke), revoking: make(chan struct{}, maxRevoking),
			live: map[endfile.ID]*live{}, groups: map[endfile.End]*live{}, waiting: map[endfile.ID]int{},
		}
		m.states[key] = s
	}
	return s
}

// statesOf returns what the logins of one client share, of all names that they have had.
func (m *Memory) statesOf(client string) (all []*state) {
	m.mu.Lock()
	defer m.mu.Unlock()
	for key, s := range m.states {
		if _, of, _ := strings.Cut(key, "\x00"); of == client {
			all = append(all, s)
		}
	}
	return all
}

// earlier returns what a login shared with its clients before a reload, as far as it served.
func (m *Memory) earlier(l *Login) (all []*state) {
	m.mu.Lock()
	defer m.mu.Unlock()
	for key, s := range m.states {
		if name, _, _ := strings.Cut(key, "\x00"); name == l.name && s != l.state && s.current.Load() != nil {
			all = append(all, s)
		}
	}
	return all
}

// state is what logins of one name and client share over reloads. The seals of sessions say no more, so
// that a session that ended here opens nowhere else.
type state struct {
	login   endfile.Login         // of its lines in the file
	current atomic.Pointer[Login] // of the configuration in use; nil before the first

	// Turns are of one login, so that an issuer that hangs holds nobody at another issuer.
	slots    chan struct{} // one for each running refresh
	turns    line          // of codes that are being redeemed
	revokes  chan struct{} // one for each refresh token that waits to be revoked
	revoking chan struct{} // one for each request for that

	// changes counts the ends. A session that was looked up at the same count has not ended since, so
	// that requests need no lock.
	changes atomic.Uint64

	mu      sync.Mutex    // guards the fields below
	file    *endfile.File // where the ends are kept too; nil for nowhere
	ends    endfile.Set
	live    map[endfile.ID]*live  // by the ends of single sessions
	groups  map[endfile.End]*live // the first of those with a sid, and of those of a subject
	waiting map[endfile.ID]int    // refresh tokens that wait to be revoked, by subject
}

// sessionID identifies a session. It is no secret: the cookie is sealed.
type sessionID [16]byte

// live is what this process knows of a session besides its cookie.
type live struct {
	newest     atomic.Pointer[Session]
	seen       atomic.Int64               // last request, in seconds since 1970
	gone       atomic.Bool                // it was ended or evicted here
	left       atomic.Bool                // its person ended it, so that its refresh token is revoked
	refreshing atomic.Pointer[refreshing] // the one that runs; nil for none
	retry      atomic.Int64               // when a failed refresh may be tried again
	failed     atomic.Pointer[Error]      // why the last refresh failed; nil if it did not

	ends       [3]endfile.End // those that would end it
	prev, next [3]*live       // of its groups, by the kinds of ends; guarded by state.mu
}

const (
	maxLive      = 10_000 // sessions in cookies that are known besides their cookies
	maxOfSubject = 32     // sessions in memory of one subject

	// maxInCookiesOf is how many sessions in cookies of one subject are known. One that is not has only what
	// its cookie says: a refresh token that was used up, until the browser gets the next one.
	maxInCookiesOf = 64

	// How many sessions are looked at when one is evicted, from a random one on.
	sampledInCookies = 16
	sampledInMemory  = 10_000
)

// join gives a session that was opened from its cookie its live part, which others may have already.
func (s *state) join(opened *Session) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if opened.live = s.live[opened.ends[endfile.Session].ID]; opened.live == nil {
		s.bound(opened, maxInCookiesOf)
		s.add(opened, maxLive, sampledInCookies)
	}
}

// find returns the live part of a session in memory; nil if there is none.
func (s *state) find(id sessionID) *live {
	key := digest(endfile.Session, string(id[:]))
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.live[key]
}

// keep adds a session in memory.
func (s *state) keep(n *Session, most int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.bound(n, maxOfSubject)
	s.add(n, most, sampledInMemory)
}

// bound makes room for a session. A subject who has too many loses the least recently used one, so that
// nobody pushes out the sessions of others by signing in over and over. The caller holds s.mu.
func (s *state) bound(n *Session, most int) {
	own, oldest := 0, (*live)(nil)
	for l := s.groups[n.ends[endfile.Subject]]; l != nil; l = l.next[endfile.Subject] {
		if l.newest.Load().memory != n.memory {
			continue // of a time when the login kept them otherwise
		}
		if own++; oldest == nil || l.seen.Load() < oldest.seen.Load() {
			oldest = l
		}
	}
	if own >= most {
		s.remove(oldest)
	}
}

// leastUsed returns the least recently used of some sessions.
func (s *state) leastUsed(some int) (oldest *live) {
	for _, l := range s.live {
		if oldest == nil || l.seen.Load() < oldest.seen.Load() {
			oldest = l
		}
		if some--; some <= 0 {
			break
		}
	}
	return oldest
}

// add adds a session. If there are too many, it evicts the least recently used of some. The caller
// holds s.mu.
func (s *state) add(n *Session, most, some int) {
	for len(s.live) >= most {
		s.remove(s.leastUsed(some))
	}
	l := &live{ends: n.ends}
	l.seen.Store(n.seen)
	n.live = l
	l.newest.Store(n)
	s.live[l.ends[endfile.Session].ID] = l
	for _, e := range l.ends {
		if e.Kind == endfile.Session || e.ID == (endfile.ID{}) {
			continue
		}
		if l.next[e.Kind] = s.groups[e]; l.next[e.Kind] != nil {
			l.next[e.Kind].prev[e.Kind] = l
		}
		s.groups[e] = l
	}
}

// remove removes a session. One in memory has ended by that. The caller holds s.mu.
func (s *state) remove(l *live) {
	if l.newest.Load().memory {
		l.gone.Store(true)
	}
	delete(s.live, l.ends[endfile.Session].ID)
	for _, e := range l.ends {
		prev, next := l.prev[e.Kind], l.next[e.Kind]
		if next != nil {
			next.prev[e.Kind] = prev
		}
		switch {
		case prev != nil:
			prev.next[e.Kind] = next
		case next != nil:
			s.groups[e] = next
		default:
			delete(s.groups, e)
		}
	}
	l.prev, l.next = [3]*live{}, [3]*live{}
}

// sweep removes the sessions that have expired, and those that have ended without an end of their own. The
// idle lifetime is that of the current configuration: sessions that nobody used since are of an older one.
func (s *state) sweep(now int64) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, l := range s.live {
		switch n := l.newest.Load(); {
		case n.begun <= s.ends.Floor():
			l.gone.Store(true)
			s.remove(l)
		case now >= n.expires || now >= l.seen.Load()+n.loginNow().idle():
			s.remove(l)
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
	for _, f := range m.usedFiles() {
		f.Tidy()
	}
}

// Live returns the number of sessions in memory, and of those in cookies that were used lately.
func (l *Login) Live() int {
	l.state.mu.Lock()
	defer l.state.mu.Unlock()
	return len(l.state.live)
}
