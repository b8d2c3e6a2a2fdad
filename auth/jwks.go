package auth

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"net/url"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"sallyport/auth/fetch"
)

const (
	missInterval  = 30 * time.Second // between fetches that unknown kids cause
	missMemory    = time.Minute      // for which an unknown kid causes no other fetch
	maxMisses     = 1024             // unknown kids that are remembered
	maxWaiting    = 1024             // requests that wait for one fetch
	fetchTime     = 5 * time.Second  // for discovery and keys together
	firstRetry    = time.Second
	lastRetry     = time.Minute
	rediscoveryIn = time.Hour
)

// keySource says where the keys of an issuer are, and how long they serve.
type keySource struct {
	issuer    string // its URL, for the log
	discovery string // what stands before /.well-known/openid-configuration; "": no discovery is needed
	jwks      string // where the keys are; "": where the discovery document says
	insecure  bool

	refresh  time.Duration
	maxStale time.Duration

	// get fetches JSON, see [fetch.Client.JSON].
	get func(ctx context.Context, address string, into any) error
	// discover fetches the discovery document, see [discover].
	discover func(ctx context.Context) (discoveryDocument, error)
}

// keySet is the keys of one issuer, as they were last fetched.
//
// Known keys serve at once, whatever the issuer does meanwhile. Keys are fetched in
// the background every refresh, and for an unknown kid at most once in missInterval;
// never twice at a time. A bad signature causes no fetch.
type keySet struct {
	keySource
	now func() time.Time
	log *slog.Logger
	// onWithdrawal is called after keys were withdrawn.
	onWithdrawal func()

	current atomic.Pointer[keys] // nil before the first fetch

	// Fetches belong to the key set and not to the request that caused them, since
	// others wait for them too.
	life context.Context // of fetches
	stop context.CancelFunc
	work sync.WaitGroup // fetches, and the loop that keeps the keys fresh

	mu         sync.Mutex    // guards what follows, and the start of work
	ended      bool          // no work starts any more
	fetching   chan struct{} // closed when the fetch that is running is over; nil if none is
	waiting    int
	missed     time.Time            // when an unknown kid last caused a fetch
	misses     map[string]time.Time // unknown kids, and until when
	failures   int                  // fetches that failed since one succeeded
	failed     *keysError           // of the last fetch; nil if it succeeded
	retry      time.Time            // after failures: not before
	found      string               // jwks_uri of the discovery document
	discovered time.Time
}

// newKeySet makes a key set without keys. It starts nothing.
func newKeySet(source keySource, m *Memory) *keySet {
	s := &keySet{keySource: source, now: m.now, log: m.log, onWithdrawal: m.tokens.dropWithdrawn, misses: map[string]time.Time{}}
	s.life, s.stop = context.WithCancel(context.Background())
	return s
}

// end cancels the fetches of the key set and waits for them. None starts any more.
func (s *keySet) end() {
	s.mu.Lock()
	s.ended = true
	s.mu.Unlock()
	s.stop()
	s.work.Wait()
}

// withdrawAll withdraws all keys, for good. The key set must have ended.
func (s *keySet) withdrawAll() {
	if set := s.current.Load(); set != nil {
		for _, k := range set.list {
			k.withdrawn.Store(true)
		}
	}
}

// keysError says in fixed words why keys could not be fetched.
type keysError struct {
	step string // "discovery" or "keys"
	what string
	err  error
}

func (e *keysError) Error() string {
	if e.err == nil {
		return e.words()
	}
	return e.words() + ": " + e.err.Error()
}

func (e *keysError) Unwrap() error { return e.err }

func (e *keysError) words() string { return e.step + ": " + e.what }

// errNotChecked says that the issuer may have the key, but could not be asked. That is
// "could not be checked", which is not "checked and bad".
var errNotChecked = errors.New("the issuer's keys could not be fetched")

// resolve returns the key of a token: errUnknownKey or errAmbiguousKey where the
// issuer is known to have none, an error wrapping errNotChecked if that is not known.
func (s *keySet) resolve(ctx context.Context, kid, alg string) (*key, error) {
	set := s.current.Load()
	if s.usable(set, s.now()) {
		k, named, err := set.find(kid, alg)
		// A known kid with another algorithm is an attack on the key, and for a token
		// without kid the set has no key or several: another fetch would not help.
		if err == nil || named || kid == "" {
			return k, err
		}
	}
	started, err := s.await(ctx, kid, s.usable(set, s.now()))
	if err != nil {
		return nil, err
	}
	if set = s.current.Load(); !s.usable(set, s.now()) {
		return nil, s.notChecked()
	}
	k, _, err := set.find(kid, alg)
	if errors.Is(err, errUnknownKey) {
		if s.failing() {
			return nil, s.notChecked()
		}
		if started {
			s.remember(kid)
		}
	}
	return k, err
}

// usable reports whether keys may still serve.
func (s *keySet) usable(set *keys, now time.Time) bool {
	return set != nil && now.Sub(set.fetched) < s.maxStale
}

// await waits for a fetch: for the one that is running, or for one that it starts if
// one is due. started reports that this call started it. haveKeys says that there
// are keys, of which none has the kid.
func (s *keySet) await(ctx context.Context, kid string, haveKeys bool) (started bool, err error) {
	s.mu.Lock()
	over := s.fetching
	if over == nil {
		if err := s.mayFetch(kid, haveKeys); err != nil {
			s.mu.Unlock()
			return false, err
		}
		if haveKeys {
			s.missed = s.now()
		}
		over, started = s.start(), true
	}
	if over == nil || s.waiting >= maxWaiting {
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
	patience := time.NewTimer(fetchTime)
	defer patience.Stop()
	select {
	case <-over:
		return started, nil
	case <-patience.C:
		return false, errNotChecked
	case <-ctx.Done():
		return false, fmt.Errorf("%w: %w", errNotChecked, ctx.Err())
	}
}

// mayFetch returns why no fetch is due, nil if one is. s.mu is locked.
func (s *keySet) mayFetch(kid string, haveKeys bool) error {
	now := s.now()
	if !haveKeys {
		if now.Before(s.retry) {
			return s.notCheckedLocked()
		}
		return nil
	}
	if now.Sub(s.missed) >= missInterval && !now.Before(s.misses[kid]) {
		return nil
	}
	if s.failed != nil {
		return s.notCheckedLocked()
	}
	return errUnknownKey
}

// start starts a fetch, and returns what is closed when it is over; nil if the key
// set has ended. s.mu is locked.
func (s *keySet) start() chan struct{} {
	if s.ended {
		return nil
	}
	over := make(chan struct{})
	s.fetching = over
	s.work.Go(func() {
		ctx, cancel := context.WithTimeout(s.life, fetchTime)
		defer cancel()
		set, err := s.download(ctx)
		s.finish(set, err)
		close(over)
	})
	return over
}

// remember notes that a fetch has just shown a kid to be unknown.
func (s *keySet) remember(kid string) {
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

// download fetches the keys, and the discovery document before them where that
// is due.
func (s *keySet) download(ctx context.Context) (*keys, *keysError) {
	began := s.now()
	address, e := s.address(ctx, began)
	if e != nil {
		return nil, e
	}
	var set jwkSet
	if err := s.get(ctx, address, &set); err != nil {
		return nil, fetchError("keys", err)
	}
	out, err := readKeys(&set, began)
	if err != nil {
		return nil, &keysError{step: "keys", what: err.Error()}
	}
	return out, nil
}

// address is where the keys are. A discovery document is used for rediscoveryIn, or
// until a fetch fails.
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
	if errors.Is(err, errAnotherIssuer) {
		return "", &keysError{step: "discovery", what: err.Error()}
	}
	if err != nil {
		return "", fetchError("discovery", err)
	}
	found = s.jwks
	if found == "" {
		u, err := url.Parse(doc.jwks)
		if err != nil || fetch.CheckURL(u, s.insecure) != nil || s.downgrade(u) {
			return "", &keysError{step: "discovery", what: "the document has no acceptable jwks_uri"}
		}
		found = doc.jwks
	}
	s.mu.Lock()
	s.found, s.discovered = found, now
	s.mu.Unlock()
	return found, nil
}

// downgrade reports whether a document that came over TLS names an address without it.
func (s *keySet) downgrade(u *url.URL) bool {
	return !s.insecure && u.Scheme != "https" && strings.HasPrefix(s.discovery, "https:")
}

func fetchError(step string, err error) *keysError {
	var e *fetch.Error
	if !errors.As(err, &e) {
		return &keysError{step: step, what: "not fetched", err: err}
	}
	what := string(e.Kind)
	if e.Status != 0 {
		what = fmt.Sprintf("%s %d", what, e.Status)
	}
	return &keysError{step: step, what: what, err: e.Err}
}

// finish takes the outcome of a fetch. Keys that are still published stay the same
// values, so that tokens that were verified with them stay valid; the others are
// withdrawn now.
func (s *keySet) finish(set *keys, failure *keysError) {
	s.mu.Lock()
	before := s.failed
	s.fetching, s.failed = nil, failure
	if failure != nil {
		s.failures++
		s.retry = s.now().Add(backoff(s.failures))
		s.mu.Unlock()
		if before == nil || before.words() != failure.words() {
			s.log.Warn("keys of issuer not fetched", "issuer", s.issuer, "why", failure.words(), "cause", failure.err)
		}
		return
	}
	s.failures, s.retry = 0, time.Time{}
	added, withdrawn := s.replace(set)
	if added > 0 {
		clear(s.misses)
	}
	s.mu.Unlock()
	if before != nil || added+withdrawn > 0 {
		s.log.Info("keys of issuer fetched", "issuer", s.issuer, "keys", len(set.list), "added", added, "withdrawn", withdrawn)
	}
	if withdrawn > 0 {
		s.onWithdrawal()
	}
}

func (s *keySet) replace(set *keys) (added, withdrawn int) {
	old := s.current.Load()
	if old == nil {
		old = &keys{}
	}
	added = len(set.list)
	for _, k := range old.list {
		kept := false
		for i := range set.list {
			if set.list[i].same(k) {
				set.list[i] = k
				kept = true
			}
		}
		if kept {
			added--
		} else {
			withdrawn++
			k.withdrawn.Store(true)
		}
	}
	s.current.Store(set)
	return added, withdrawn
}

// backoff is the time after the nth failure in a row: doubling, and spread so
// that gateways do not return all at once.
func backoff(n int) time.Duration {
	d := lastRetry
	if n < 7 {
		d = min(firstRetry<<(n-1), lastRetry)
	}
	return d/2 + rand.N(d/2)
}

// keepFresh fetches the keys now and whenever they are due, in the background, until
// the key set ends.
func (s *keySet) keepFresh() {
	s.mu.Lock()
	defer s.mu.Unlock()
	if !s.ended {
		s.work.Go(s.refreshLoop)
	}
}

func (s *keySet) refreshLoop() {
	for {
		s.mu.Lock()
		over := s.fetching
		if over == nil {
			over = s.start()
		}
		s.mu.Unlock()
		if over == nil {
			return
		}
		<-over
		pause := time.NewTimer(s.pause())
		select {
		case <-pause.C:
		case <-s.life.Done():
			pause.Stop()
			return
		}
	}
}

// pause is the time until keys are to be fetched again.
func (s *keySet) pause() time.Duration {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.failed != nil {
		return max(s.retry.Sub(s.now()), time.Millisecond)
	}
	return s.refresh - s.refresh/10 + rand.N(s.refresh/5)
}

// IssuerStatus is the state of an issuer's keys, for people and metrics.
type IssuerStatus struct {
	Name    string
	URL     string
	Keys    int       // that serve now: 0 if none were fetched, or all are stale
	Fetched time.Time // when the fetch of those keys began; zero if never
	// LastError is why the last fetch failed, in fixed words such as "discovery:
	// unreachable"; "" if it did not.
	LastError string
	Failures  int // fetches that failed since one succeeded
}

func (s *keySet) status() IssuerStatus {
	st := IssuerStatus{}
	if set := s.current.Load(); set != nil {
		st.Fetched = set.fetched
		if s.usable(set, s.now()) {
			st.Keys = len(set.list)
		}
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	st.Failures = s.failures
	if s.failed != nil {
		st.LastError = s.failed.words()
	}
	return st
}
