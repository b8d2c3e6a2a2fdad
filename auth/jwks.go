package auth

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"net/url"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"sallyport/auth/fetch"
)

const (
	missInterval  = 30 * time.Second // minimum time between fetches for tokens that no known key verifies
	missMemory    = time.Minute      // how long the same unknown kid causes no further fetch
	maxMisses     = 1024             // unknown kids that are remembered
	maxWaiting    = 1024             // requests that may wait for one fetch
	maxDoubts     = 32               // of them, those whose tokens the known keys refuse
	fetchTime     = 5 * time.Second  // for discovery and keys together
	firstRetry    = time.Second
	lastRetry     = time.Minute
	rediscoveryIn = time.Hour
)

// keySource configures how the keys of an issuer are fetched and how long they are used.
type keySource struct {
	issuer    string // its URL, for the log
	discovery string // the URL before /.well-known/openid-configuration; "": no discovery
	jwks      string // the URL of the keys; "": jwks_uri of the discovery document
	insecure  bool
	onDemand  bool // keys are fetched only when a token needs them

	fixed *keys // keys from a file, which are in use for ever; nil: keys are fetched

	refresh  time.Duration
	maxStale time.Duration

	// get fetches JSON, see [fetch.Client.JSON].
	get func(ctx context.Context, address string, into any) error
	// discover fetches the discovery document, see [discover].
	discover func(ctx context.Context) (discoveryDocument, error)
	// cure says what to do about a failed fetch; "" if the error says it itself.
	cure func(*keysError) string
}

// keySet holds the keys of one issuer, as last fetched.
//
// Known keys are used without waiting for the issuer. Keys are fetched in the background
// once per refresh, and at most once per missInterval for tokens that no known key
// verifies: those with an unknown kid, and those that the known keys refuse, since an issuer
// may replace a key under the same kid. Only one fetch runs at a time.
type keySet struct {
	keySource
	now func() time.Time
	log *slog.Logger
	// onWithdrawal is called after keys were marked as withdrawn.
	onWithdrawal func()

	current atomic.Pointer[keys] // nil before the first fetch

	// A fetch has the context of the key set and not of the request that caused it,
	// since other requests wait for it too.
	life context.Context // of fetches
	stop context.CancelFunc
	work sync.WaitGroup // fetches and refreshLoop

	mu         sync.Mutex           // guards the fields below, and starting work
	ended      bool                 // no work may start
	fetching   chan struct{}        // closed when the running fetch ends; nil if none runs
	waiting    int                  // requests that wait for fetching
	missed     time.Time            // when a token that no known key verifies last caused a fetch
	misses     map[string]time.Time // unknown kids, and until when they cause no fetch
	failures   int                  // failed fetches since the last success
	failed     *keysError           // of the last fetch; nil if it succeeded
	retry      time.Time            // earliest time of the next fetch after a failure
	found      string               // jwks_uri of the discovery document
	discovered time.Time            // when found was fetched
}

// newKeySet returns a key set without keys. It starts no goroutine.
func newKeySet(source keySource, m *Memory) *keySet {
	s := &keySet{keySource: source, now: m.now, log: m.log, onWithdrawal: m.tokens.dropWithdrawn, misses: map[string]time.Time{}}
	s.life, s.stop = context.WithCancel(context.Background())
	if source.fixed != nil {
		source.fixed.fetched = s.now()
		s.current.Store(source.fixed)
		s.noteSkipped(source.fixed, nil)
	}
	return s
}

// end cancels the fetches of the key set and waits for them. Later none starts.
func (s *keySet) end() {
	s.mu.Lock()
	s.ended = true
	s.mu.Unlock()
	s.stop()
	s.work.Wait()
}

// withdrawAll marks all keys as withdrawn. The key set must have ended.
func (s *keySet) withdrawAll() {
	if set := s.current.Load(); set != nil {
		for _, k := range set.list {
			k.withdrawn.Store(true)
		}
	}
}

// errNotChecked means that the keys are unavailable, so that a token could not be
// checked. The gateway answers 503 and not 401.
var errNotChecked = errors.New("keys not fetched")

// errNotFetched comes with the error of a token that no known key verifies, and for which the keys were not fetched: some
// token, which may have been made up, has caused a fetch shortly before, too many wait for one, or it failed. The next
// fetch may bring its key.
var errNotFetched = errors.New("the keys were not fetched for it")

// resolve returns the keys that may have signed a token, see [keys.find]. The error is or wraps
// errUnknownKey or errAmbiguousKey if the issuer's keys are known, and wraps errNotChecked
// if they are not.
func (s *keySet) resolve(ctx context.Context, kid, alg string) (tries, error) {
	set := s.current.Load()
	if s.usable(set, s.now()) {
		found, named, err := set.find(kid, alg)
		if err == nil || s.fixed != nil {
			return found, err
		}
		// These are likely attacks on the key, such as a known kid with another algorithm.
		if named || kid == "" {
			switch again, changed, doubt := s.doubt(ctx, kid, alg, tries{}); {
			case changed:
				return again, nil
			case doubt != nil:
				return tries{}, fmt.Errorf("%w: %w", err, errNotFetched)
			}
			return tries{}, err
		}
	}
	need := needKid
	if !s.usable(set, s.now()) {
		need = needKeys
	}
	started, err := s.await(ctx, set, kid, need)
	if err != nil {
		return tries{}, err
	}
	if set = s.current.Load(); !s.usable(set, s.now()) {
		return tries{}, s.notChecked()
	}
	found, _, err := set.find(kid, alg)
	if errors.Is(err, errUnknownKey) {
		if s.failing() {
			return tries{}, s.notChecked()
		}
		if started {
			s.rememberMiss(kid)
		}
	}
	return found, err
}

// usable reports whether keys exist and are not stale.
func (s *keySet) usable(set *keys, now time.Time) bool {
	return set != nil && (s.fixed != nil || now.Sub(set.fetched) < s.maxStale)
}

// await waits for the running fetch. If none runs and one is due, it starts one.
// started reports whether this call started it. It returns at once if other keys are current
// than those that the caller has seen.
func (s *keySet) await(ctx context.Context, seen *keys, kid string, need need) (started bool, err error) {
	s.mu.Lock()
	if s.current.Load() != seen {
		s.mu.Unlock()
		return false, nil
	}
	done := s.fetching
	if done == nil {
		if err := s.mayFetch(kid, need); err != nil {
			s.mu.Unlock()
			return false, err
		}
		if need != needKeys {
			s.missed = s.now()
		}
		done, started = s.start(), true
	}
	if done == nil || s.waiting >= need.mostWaiting() {
		s.mu.Unlock()
		return false, errNotChecked
	}
	s.waiting++
	s.mu.Unlock()
	defer func() {
		s.mu.Lock()
		s.waiting--
		s.mu.Unlock()
	}()
	timeout := time.NewTimer(fetchTime)
	defer timeout.Stop()
	select {
	case <-done:
		return started, nil
	case <-timeout.C:
		return false, errNotChecked
	case <-ctx.Done():
		return false, fmt.Errorf("%w: %w", errNotChecked, ctx.Err())
	}
}

// mayFetch returns nil if a fetch is due, and otherwise the error for the request. The
// caller must hold s.mu.
func (s *keySet) mayFetch(kid string, need need) error {
	now := s.now()
	if need == needKeys {
		if now.Before(s.retry) {
			return s.notCheckedLocked()
		}
		return nil
	}
	if now.Sub(s.missed) >= missInterval && (need == needOther || !now.Before(s.misses[kid])) {
		return nil
	}
	switch {
	case s.failed != nil:
		return s.notCheckedLocked()
	case now.Before(s.misses[kid]):
		return errUnknownKey
	}
	return fmt.Errorf("%w: %w", errUnknownKey, errNotFetched)
}

// start starts a fetch and returns a channel that is closed when it ends; nil if the key
// set has ended. The caller must hold s.mu.
func (s *keySet) start() chan struct{} {
	if s.ended {
		return nil
	}
	done := make(chan struct{})
	s.fetching = done
	s.work.Go(func() {
		ctx, cancel := context.WithTimeout(s.life, fetchTime)
		defer cancel()
		set, err := s.download(ctx)
		s.finish(set, err)
		close(done)
	})
	return done
}

// rememberMiss records that the keys just fetched lack a kid.
func (s *keySet) rememberMiss(kid string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	now := s.now()
	if len(s.misses) >= maxMisses {
		for k, until := range s.misses {
			if !now.Before(until) {
				delete(s.misses, k)
			}
		}
	}
	if len(s.misses) < maxMisses {
		s.misses[strings.Clone(kid)] = now.Add(missMemory)
	}
}

// resume ends the pause after failed fetches, because the issuer has just answered another request.
func (s *keySet) resume() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.retry = time.Time{}
}

func (s *keySet) failing() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.failed != nil
}

func (s *keySet) notChecked() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.notCheckedLocked()
}

func (s *keySet) notCheckedLocked() error {
	if s.failed == nil {
		return errNotChecked
	}
	return fmt.Errorf("%w: %w", errNotChecked, s.failed)
}

// download fetches the keys, and before them the discovery document if that is due.
func (s *keySet) download(ctx context.Context) (*keys, *keysError) {
	began := s.now()
	address, e := s.address(ctx, began)
	if e != nil {
		return nil, e
	}
	var set jwkSet
	if err := s.get(ctx, address, &set); err != nil {
		return nil, fetchError("keys", address, err)
	}
	out, err := readKeys(&set, began)
	if err != nil {
		e := &keysError{step: "keys", url: address, what: err.Error()}
		if unusable := (noKeyError)(nil); errors.As(err, &unusable) {
			e.what = "no usable key"
			if len(unusable) > 0 {
				e.err = unusable
			}
		}
		return nil, e
	}
	return out, nil
}

// address returns the URL of the keys. A discovery document is used for rediscoveryIn,
// or until a fetch fails.
func (s *keySet) address(ctx context.Context, now time.Time) (string, *keysError) {
	if s.discovery == "" {
		return s.jwks, nil
	}
	s.mu.Lock()
	found := s.found
	if s.failed != nil || now.Sub(s.discovered) >= rediscoveryIn {
		found = ""
	}
	s.mu.Unlock()
	if found != "" {
		return found, nil
	}
	doc, err := s.discover(ctx)
	asked := discoveryURL(s.discovery)
	var other *anotherIssuer
	if errors.As(err, &other) {
		return "", &keysError{step: "discovery", url: asked, what: "the document names another issuer", err: other}
	}
	if err != nil {
		return "", fetchError("discovery", asked, err)
	}
	found = s.jwks
	if found == "" {
		u, err := url.Parse(doc.jwks)
		if err != nil || fetch.CheckURL(u, s.insecure) != nil || s.downgrade(u) {
			return "", &keysError{step: "discovery", url: asked, what: "the document has no acceptable jwks_uri", err: unacceptable(doc.jwks, u, s.insecure)}
		}
		found = doc.jwks
	}
	s.mu.Lock()
	s.found, s.discovered = found, now
	s.mu.Unlock()
	return found, nil
}

// downgrade reports whether a discovery document fetched over TLS names a URL without TLS.
func (s *keySet) downgrade(u *url.URL) bool {
	return !s.insecure && u.Scheme != "https" && strings.HasPrefix(s.discovery, "https:")
}

// finish stores the result of a fetch. It keeps the *key of each key that is still
// published, so that tokens verified with it stay in the cache, and marks the other old
// keys as withdrawn.
func (s *keySet) finish(set *keys, failure *keysError) {
	s.mu.Lock()
	before := s.failed
	s.fetching, s.failed = nil, failure
	if failure != nil {
		s.failures++
		s.retry = s.now().Add(backoff(s.failures))
		s.mu.Unlock()
		if before == nil || before.words() != failure.words() {
			about := []any{"issuer", s.issuer, "url", failure.url, "why", failure.words(), "cause", failure.err}
			if cure := s.cure(failure); cure != "" {
				about = append(about, "cure", cure)
			}
			s.log.Warn("keys of issuer not fetched", about...)
		}
		return
	}
	s.failures, s.retry = 0, time.Time{}
	old := s.current.Load()
	added, withdrawn := s.replace(set)
	if added > 0 {
		clear(s.misses)
	}
	s.mu.Unlock()
	if before != nil || added+withdrawn > 0 {
		s.log.Info("keys of issuer fetched", "issuer", s.issuer, "keys", len(set.list), "added", added, "withdrawn", withdrawn)
	}
	s.noteSkipped(set, old)
	if withdrawn > 0 {
		s.onWithdrawal()
	}
}

// noteSkipped logs the keys of set that cannot be used, unless the set before had the same.
func (s *keySet) noteSkipped(set, before *keys) {
	if len(set.skipped) > 0 && (before == nil || !slices.Equal(set.skipped, before.skipped)) {
		s.log.Info("keys of issuer skipped", "issuer", s.issuer, "why", strings.Join(set.skipped, "; "))
	}
}

// replace makes set current and counts the differences. The caller must hold s.mu.
func (s *keySet) replace(set *keys) (added, withdrawn int) {
	old := s.current.Load()
	if old == nil {
		old = &keys{}
	}
	added = len(set.list)
	for _, k := range old.list {
		published := false
		for i := range set.list {
			if set.list[i].same(k) {
				set.list[i] = k
				published = true
			}
		}
		if published {
			added--
		} else {
			withdrawn++
			k.withdrawn.Store(true)
		}
	}
	s.current.Store(set)
	return added, withdrawn
}

// backoff returns the pause after the nth failure in a row. It doubles, with jitter so
// that gateways do not retry all at once.
func backoff(n int) time.Duration {
	d := lastRetry
	if n < 7 {
		d = min(firstRetry<<(n-1), lastRetry)
	}
	return d/2 + rand.N(d/2)
}

// keepFresh starts refreshLoop, which fetches the keys now and whenever they are due,
// until the key set ends.
func (s *keySet) keepFresh() {
	s.mu.Lock()
	defer s.mu.Unlock()
	if !s.ended && s.fixed == nil && !s.onDemand {
		s.work.Go(s.refreshLoop)
	}
}

// join returns the end of the running fetch, or of one that it starts; nil if none may start.
func (s *keySet) join() <-chan struct{} {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.fetching != nil {
		return s.fetching
	}
	return s.start()
}

func (s *keySet) refreshLoop() {
	for {
		done := s.join()
		if done == nil {
			return
		}
		<-done
		pause := time.NewTimer(s.pause())
		select {
		case <-pause.C:
		case <-s.life.Done():
			pause.Stop()
			return
		}
	}
}

// pause returns the time until the next fetch.
func (s *keySet) pause() time.Duration {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.failed != nil {
		return max(s.retry.Sub(s.now()), time.Millisecond)
	}
	return s.refresh - s.refresh/10 + rand.N(s.refresh/5)
}
