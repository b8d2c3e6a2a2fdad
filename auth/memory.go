package auth

import (
	"context"
	"log/slog"
	"sync"
	"time"
)

// MemoryOptions are what a [Memory] takes from the process. The zero value is usable.
type MemoryOptions struct {
	Now    func() time.Time // nil: time.Now
	Log    *slog.Logger     // nil: nothing is logged
	Budget Budget           // of failed checks per client address
	Cache  CacheLimits      // of verified tokens
}

// Memory is what a process keeps about credentials across configurations: verified
// tokens, the keys of issuers, and failed checks per client address. A process has
// one, and every [Auth] is a view of it. It is safe for concurrent use.
//
// Tokens and keys are kept under the digest of their issuer's configuration, name
// included. A configuration that changes anything about an issuer starts with
// neither; one that changes nothing finds both. Failed checks are counted for the
// whole process, so that a reload gives a forger no new budget.
type Memory struct {
	now    func() time.Time
	log    *slog.Logger
	tokens *tokenCache
	budget *budget

	mu      sync.Mutex               // guards what follows, and the state of each Auth
	issuers map[string]*issuerMemory // those that an active Auth uses, by digest
	last    uint64                   // the number that was given last
	running bool                     // Run is running
	ended   bool                     // Run has ended: nothing is fetched any more
}

// issuerMemory is what is kept for one configuration of an issuer.
type issuerMemory struct {
	// number stands for the configuration in keys of the token cache. Numbers are
	// never used again, so a token that outlives its configuration is found by nobody.
	number uint64
	keys   *keySet
	users  int // active Auths; guarded by Memory.mu
}

// NewMemory makes an empty memory. It starts nothing.
func NewMemory(o MemoryOptions) *Memory {
	m := &Memory{now: o.Now, log: o.Log, tokens: newTokenCache(o.Cache), budget: newBudget(o.Budget), issuers: map[string]*issuerMemory{}}
	if m.now == nil {
		m.now = time.Now
	}
	if m.log == nil {
		m.log = slog.New(slog.DiscardHandler)
	}
	return m
}

// Run keeps the keys of all active Auths fresh, and removes expired tokens, until
// ctx ends. It returns once every fetch is over, and from then on nothing is
// fetched: known keys serve until they are stale. It may be called once; its error
// is nil. Without Run, keys are fetched only when a token needs them.
func (m *Memory) Run(ctx context.Context) error {
	m.mu.Lock()
	m.running = true
	for _, im := range m.issuers {
		im.keys.keepFresh()
	}
	m.mu.Unlock()

	tick := time.NewTicker(time.Minute)
	defer tick.Stop()
	for running := true; running; {
		select {
		case <-tick.C:
			m.tokens.sweep(m.now().Unix())
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
		im.keys.end()
	}
	return nil
}

// CacheStatus is the state of the cache of verified tokens.
func (m *Memory) CacheStatus() CacheStatus { return m.tokens.status() }

// acquire returns the memory of an issuer's configuration for an Auth that becomes
// active. m.mu is locked.
func (m *Memory) acquire(iss *issuer) *issuerMemory {
	im := m.issuers[iss.digest]
	if im == nil {
		m.last++
		im = &issuerMemory{number: m.last, keys: newKeySet(iss.keys, m)}
		m.issuers[iss.digest] = im
		switch {
		case m.ended:
			im.keys.end()
		case m.running:
			im.keys.keepFresh()
		}
	}
	im.users++
	return im
}

// release gives up what acquire returned, and reports whether that was its last
// user: then the caller must retire it, with m.mu unlocked. m.mu is locked.
func (m *Memory) release(iss *issuer, im *issuerMemory) (last bool) {
	im.users--
	if im.users > 0 {
		return false
	}
	delete(m.issuers, iss.digest)
	return true
}

// retire ends the fetches of a configuration that nobody uses any more, waits for
// them, and drops its tokens. A request that is still being checked adds none
// later: its key is withdrawn.
func (m *Memory) retire(im *issuerMemory) {
	im.keys.end()
	im.keys.withdrawAll()
	m.tokens.dropWithdrawn()
}
