package auth

import (
	"context"
	"crypto/rand"
	"log/slog"
	"sync"
	"time"

	"sallyport/auth/login"
)

// MemoryOptions configure a [Memory]. The zero value is usable.
type MemoryOptions struct {
	Now    func() time.Time // time.Now if nil
	Log    *slog.Logger     // nil disables logging
	Budget Budget           // for failed checks per client address
	Cache  CacheLimits      // for verified tokens
	// SessionEnded is called from the background when an issuer refuses to refresh a session; nil for
	// nobody who wants to know.
	SessionEnded func(login.Ended)
}

// Memory is the state of authentication that survives a reload: verified tokens, the keys of issuers,
// what issuers said about tokens, sessions of people who signed in, and failed checks per client
// address. A process has one Memory, which every [Auth] uses. It is safe for concurrent use.
//
// Tokens and keys are stored by the digest of their issuer's configuration, which
// includes its name. If a reload changes anything about an issuer, its tokens and keys
// are dropped; otherwise they stay. Failed checks are counted for the whole process, so
// that a reload does not reset the budget of a forger.
type Memory struct {
	now     func() time.Time
	log     *slog.Logger
	tokens  *tokenCache
	budget  *budget
	pages   *budget  // of tokens that pages put into handshakes
	logouts *budget  // of logout tokens
	secret  [32]byte // of digests

	passwords *passwordMemory
	logins    *login.Memory

	mu      sync.Mutex               // guards the fields below, and activated and closed of each Auth
	issuers map[string]*issuerMemory // used by an active Auth; by digest
	last    uint64                   // the last number assigned
	running bool                     // Run is running
	ended   bool                     // Run has returned: no fetch may start
}

// issuerMemory is the state of one configuration of an issuer.
type issuerMemory struct {
	// number identifies the configuration in keys of the token cache. Numbers are
	// never reused, so no look-up finds a token of a configuration that is gone.
	number       uint64
	keys         *keySet
	introspector *introspector // nil if the issuer is not asked about tokens
	users        int           // active Auths; guarded by Memory.mu
}

// NewMemory returns an empty Memory. It starts no goroutine.
func NewMemory(o MemoryOptions) *Memory {
	m := &Memory{now: o.Now, log: o.Log, tokens: newTokenCache(o.Cache), budget: newBudget(o.Budget), pages: newBudget(o.Budget), logouts: newBudget(o.Budget), passwords: newPasswordMemory(), issuers: map[string]*issuerMemory{}}
	if m.now == nil {
		m.now = time.Now
	}
	_, _ = rand.Read(m.secret[:]) // never fails
	if m.log == nil {
		m.log = slog.New(slog.DiscardHandler)
	}
	m.logins = login.NewMemory(m.now, m.log, o.SessionEnded)
	return m
}

// Run refreshes the keys of all active Auths and removes expired tokens until ctx ends.
// It returns once every fetch has ended; later none starts, and known keys remain
// usable until they are stale. Run may be called once; its error is nil. Without Run,
// keys are fetched only when a token needs them.
func (m *Memory) Run(ctx context.Context) error {
	m.mu.Lock()
	m.running = true
	for _, im := range m.issuers {
		im.keys.keepFresh()
	}
	m.mu.Unlock()

	tick, follow := time.NewTicker(time.Minute), time.NewTicker(time.Second)
	defer tick.Stop()
	defer follow.Stop()
	for running := true; running; {
		select {
		case <-follow.C:
			m.logins.Follow()
		case <-tick.C:
			m.tokens.sweep(m.now().Unix())
			m.logins.Sweep()
		case <-ctx.Done():
			running = false
		}
	}

	m.mu.Lock()
	m.ended = true
	var all []*issuerMemory
	for _, im := range m.issuers {
		all = append(all, im)
	}
	m.mu.Unlock()
	for _, im := range all {
		im.end()
	}
	m.logins.End()
	return nil
}

// Logins returns the memory of people's sessions.
func (m *Memory) Logins() *login.Memory { return m.logins }

// CacheStatus returns the state of the cache of verified tokens.
func (m *Memory) CacheStatus() CacheStatus { return m.tokens.status() }

// acquire returns the state of an issuer's configuration for an Auth that becomes
// active. The caller must hold m.mu.
func (m *Memory) acquire(iss *issuer) *issuerMemory {
	im := m.issuers[iss.digest]
	if im == nil {
		m.last++
		im = &issuerMemory{number: m.last, keys: newKeySet(iss.keys, m)}
		if iss.introspect != nil {
			m.last++
			im.introspector = newIntrospector(iss.introspect, m.last, im.keys, m)
		}
		m.issuers[iss.digest] = im
		switch {
		case m.ended:
			im.end()
		case m.running:
			im.keys.keepFresh()
		}
	}
	im.users++
	return im
}

// release undoes acquire and reports whether no active Auth uses im any more. If so,
// the caller must unlock m.mu and call retire. The caller must hold m.mu.
func (m *Memory) release(iss *issuer, im *issuerMemory) (last bool) {
	im.users--
	if im.users > 0 {
		return false
	}
	delete(m.issuers, iss.digest)
	return true
}

// end cancels the fetches and look-ups of a configuration and waits for them. Later none
// starts.
func (im *issuerMemory) end() {
	if im.introspector != nil {
		im.introspector.end()
	}
	im.keys.end()
}

// retire cancels the fetches of an unused configuration, waits for them and drops its
// tokens. A check that is still running cannot add a token later, since retire marks
// all keys as withdrawn.
func (m *Memory) retire(im *issuerMemory) {
	im.end()
	im.keys.withdrawAll()
	if im.introspector != nil {
		im.introspector.key.withdrawn.Store(true)
	}
	m.tokens.dropWithdrawn()
}

// budgetOf returns the budget for the credential of a request. Pages of any site can let the browsers of their
// visitors open WebSockets with made-up tokens. These must not keep the programs at such an address from theirs.
func (m *Memory) budgetOf(r *Request) *budget {
	if r.subprotocol != nil && r.Head.Fields.Has("origin") {
		return m.pages
	}
	return m.budget
}
