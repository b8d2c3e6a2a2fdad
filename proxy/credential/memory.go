package credential

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"sync/atomic"
	"time"

	"sallyport/proxy/ratelog"
	"sallyport/proxy/setting"
	"sallyport/proxy/upstream"
)

// MemoryOptions configure a [Memory]. The zero value is usable.
type MemoryOptions struct {
	Now func() time.Time // time.Now if nil
	Log *slog.Logger     // gets a line when fetches begin to fail, and when they succeed again; discarded if nil
}

// Memory holds the tokens that the gateway fetches for itself. It outlives configurations. It is
// safe for concurrent use.
type Memory struct {
	now func() time.Time
	log *slog.Logger

	mu      sync.Mutex         // guards the fields below
	sources map[string]*source // by the digest of their configuration
	base    context.Context    // of Run; nil before
	ended   bool               // Run has returned: no fetch may start
	running sync.WaitGroup
}

// NewMemory returns an empty Memory. It starts no goroutine.
func NewMemory(o MemoryOptions) *Memory {
	m := &Memory{now: o.Now, log: o.Log, sources: map[string]*source{}}
	if m.now == nil {
		m.now = time.Now
	}
	if m.log == nil {
		m.log = slog.New(slog.DiscardHandler)
	}
	return m
}

// Run fetches and renews the tokens of active configurations until ctx ends. It returns once every
// fetch has ended. Call it once; its error is nil.
func (m *Memory) Run(ctx context.Context) error {
	m.mu.Lock()
	m.base = ctx
	for _, s := range m.sources {
		m.start(s)
	}
	m.mu.Unlock()
	<-ctx.Done()
	m.mu.Lock()
	m.ended = true
	m.mu.Unlock()
	m.running.Wait()
	return nil
}

// start runs an active source, unless it runs; the caller holds mu.
func (m *Memory) start(s *source) {
	if !s.active || s.stop != nil || m.base == nil || m.ended {
		return
	}
	ctx, stop := context.WithCancel(m.base)
	s.stop = stop
	m.running.Go(func() { s.run(ctx) })
}

// acquire returns the source of a configuration for one more user. It uses no network. Until its
// first fetch, a new source has the token of a source that differs in the secret alone.
func (m *Memory) acquire(name string, c *upstream.OAuth2Config) (*source, error) {
	digest := setting.Digest(*c)
	fetch, err := newFetcher(c)
	if err != nil {
		return nil, err
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	s := m.sources[digest]
	if s == nil {
		kin := *c
		kin.ClientSecret = setting.Secret{}
		s = &source{digest: digest, kin: setting.Digest(kin), fetch: fetch, now: m.now, name: name, lines: ratelog.New(m.log, nil), pending: make(chan struct{}), refused: make(chan struct{}, 1)}
		for _, other := range m.sources {
			if other.kin == s.kin {
				s.token.Store(other.token.Load())
			}
		}
		m.sources[digest] = s
	}
	s.users++
	return s, nil
}

// activate lets a source use the network.
func (m *Memory) activate(s *source) {
	m.mu.Lock()
	defer m.mu.Unlock()
	s.active = true
	m.start(s)
}

// release undoes acquire.
func (m *Memory) release(s *source) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if s.users--; s.users > 0 {
		return
	}
	delete(m.sources, s.digest)
	if s.stop != nil {
		s.stop()
	}
}

const (
	retryFirst = time.Second      // after one failed fetch; doubles with each further one
	retryMost  = time.Minute      // the maximum
	renewPause = 30 * time.Second // the shortest time between fetches because of refusals
	// unusedEnd is the part of a token's life that is not used, so that it does not end on its way.
	unusedEnd = 5 * time.Second
)

// source holds the token of one configuration. One goroutine fetches it, so that there is one fetch
// at a time, and no request waits for a fetch while the token is valid.
type source struct {
	digest, kin, name string
	fetch             func(context.Context) (value string, life time.Duration, err error)
	now               func() time.Time
	lines             *ratelog.Log

	users  int  // guarded by the mutex of Memory, like active and stop
	active bool // a configuration in use has it
	stop   context.CancelFunc

	token   atomic.Pointer[token]
	refused chan struct{} // holds one signal: a server refused the token

	mu      sync.Mutex    // guards the fields below
	fault   error         // of the last fetch; nil if it succeeded, or none has ended
	pending chan struct{} // closed at the end of the fetch in progress; nil if there is none
}

// token is a token with its end. It is immutable.
type token struct {
	value string
	ends  time.Time
}

// value returns the token; "" if there is none that is valid now.
func (s *source) value() string {
	if t := s.token.Load(); t != nil && s.now().Before(t.ends) {
		return t.value
	}
	return ""
}

// ready returns nil once there is a valid token. It waits only for a fetch in progress, and only
// if the one before it has not failed.
func (s *source) ready(ctx context.Context) error {
	if s.value() != "" {
		return nil
	}
	s.mu.Lock()
	fault, pending := s.fault, s.pending
	s.mu.Unlock()
	if fault == nil && pending != nil {
		select {
		case <-pending:
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
	if s.value() != "" {
		return nil
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.fault != nil {
		return s.fault
	}
	return errors.New("the token has ended, and the next one is not here yet")
}

// refuse says that a server refused the token: it may have been withdrawn before its end.
func (s *source) refuse() {
	select {
	case s.refused <- struct{}{}:
	default:
	}
}

// run fetches tokens until ctx ends: in the last fifth of their lives, after failures with growing
// pauses, and soon after a refusal.
func (s *source) run(ctx context.Context) {
	for failures := 0; ctx.Err() == nil; {
		began := s.now()
		life, err := s.renew(ctx, began)
		refused, wait := s.refused, max(life/5*4, retryFirst)
		switch {
		case ctx.Err() != nil:
			return
		case err != nil:
			wait = min(retryFirst<<min(failures, 10), retryMost)
			if failures++; failures == 1 {
				s.lines.Warn("failed", "fetching a token for an upstream failed", "upstream", s.name, "error", err, "cure", Cure(err))
			}
			refused = nil
		case failures > 0:
			s.lines.Log(slog.LevelInfo, "recovered", "tokens for an upstream can be fetched again", "upstream", s.name, "failures", failures)
			failures = 0
		}
		timer := time.NewTimer(wait)
		select {
		case <-ctx.Done():
		case <-timer.C:
		case <-refused:
			timer.Reset(max(renewPause-s.now().Sub(began), 0))
			select {
			case <-ctx.Done():
			case <-timer.C:
			}
		}
		timer.Stop()
	}
}

// renew makes one fetch, and returns how long the new token lives.
func (s *source) renew(ctx context.Context, began time.Time) (life time.Duration, err error) {
	s.mu.Lock()
	if s.pending == nil {
		s.pending = make(chan struct{})
	}
	s.mu.Unlock()
	value, life, err := s.fetch(ctx)
	if err == nil && life <= 0 {
		err = errors.New("the token had ended when it came")
	}
	if err != nil {
		err = fmt.Errorf("fetching a token: %w", err)
	} else {
		s.token.Store(&token{value: value, ends: began.Add(life - min(life/10, unusedEnd))})
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.fault = err
	close(s.pending)
	s.pending = nil
	return life, err
}
