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

// keySet is the keys of one issuer, as they were last fetched.
//
// Keys that are known serve at once, whatever the issuer does meanwhile. Fetches
// happen in the background every refresh, and for a kid that is not known at
// most once in missInterval; there is never more than one under way. A signature
// that does not hold causes none.
type keySet struct {
	issuer    string // the name that discovery must confirm
	discovery string // where the document is; "" for none needed
	jwks      string // where the keys are; "" for where the document says
	insecure  bool

	refresh  time.Duration
	maxStale time.Duration
	now      func() time.Time
	log      *slog.Logger

	// get fetches JSON, see [fetch.Client.JSON].
	get func(ctx context.Context, address string, into any) error
	// begin runs f in a goroutine of the Auth; false once that has ended.
	begin func(f func(context.Context)) bool
	// gone is told that keys were withdrawn.
	gone func()

	current atomic.Pointer[keys] // nil before the first fetch

	mu         sync.Mutex    // guards what follows
	flight     chan struct{} // of the fetch under way, closed when it is over; nil if none is
	waiting    int
	missed     time.Time            // when an unknown kid last caused a fetch
	misses     map[string]time.Time // unknown kids, and until when
	failures   int                  // fetches that failed since one succeeded
	failed     *keysError           // of the last fetch; nil if it succeeded
	retry      time.Time            // after failures: not before
	found      string               // jwks_uri of the discovery document
	discovered time.Time
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

// errNotChecked says that a key could be there and was not to be had. It is
// "could not check", which is not "checked and bad".
var errNotChecked = errors.New("the issuer's keys could not be fetched")

// resolve returns the key of a token: errUnknownKey or errAmbiguousKey where the
// issuer is known to have none, an error wrapping errNotChecked where it cannot be told.
func (s *keySet) resolve(ctx context.Context, kid, alg string) (*key, error) {
	set := s.current.Load()
	if s.usable(set, s.now()) {
		k, named, err := set.find(kid, alg)
		// A kid that is there with another algorithm is an attack on the key, and
		// none at all is a matter of the set: neither is a reason to ask again.
		if err == nil || named || kid == "" {
			return k, err
		}
	}
	asked, err := s.await(ctx, kid, s.usable(set, s.now()))
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
		if asked {
			s.remember(kid)
		}
	}
	return k, err
}

// usable says whether keys may still serve.
func (s *keySet) usable(set *keys, now time.Time) bool {
	return set != nil && now.Sub(set.fetched) < s.maxStale
}

// await waits for a fetch: for the one under way, or for one that it starts if
// one is due. asked says that this call started it. haveKeys says that only the
// kid is unknown.
func (s *keySet) await(ctx context.Context, kid string, haveKeys bool) (asked bool, err error) {
	s.mu.Lock()
	flight := s.flight
	if flight == nil {
		if err := s.mayAsk(kid, haveKeys); err != nil {
			s.mu.Unlock()
			return false, err
		}
		if haveKeys {
			s.missed = s.now()
		}
		flight, asked = s.launch(), true
	}
	if flight == nil || s.waiting >= maxWaiting {
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
	case <-flight:
		return asked, nil
	case <-patience.C:
		return false, errNotChecked
	case <-ctx.Done():
		return false, fmt.Errorf("%w: %w", errNotChecked, ctx.Err())
	}
}

// mayAsk says why no fetch is due. s.mu is held.
func (s *keySet) mayAsk(kid string, haveKeys bool) error {
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

// launch starts a fetch, and returns what is closed when it is over; nil if the
// Auth has ended. s.mu is held.
func (s *keySet) launch() chan struct{} {
	flight := make(chan struct{})
	if !s.begin(func(ctx context.Context) {
		ctx, cancel := context.WithTimeout(ctx, fetchTime)
		defer cancel()
		set, err := s.download(ctx)
		s.settle(set, err)
		close(flight)
	}) {
		return nil
	}
	s.flight = flight
	return flight
}

// remember keeps a kid that a fetch has just shown to be unknown.
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

// address is where the keys are. A discovery document is believed for
// rediscoveryIn, or until keys cannot be had where it says.
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
	var doc struct {
		Issuer string `json:"issuer"`
		JWKS   string `json:"jwks_uri"`
	}
	if err := s.get(ctx, s.discovery, &doc); err != nil {
		return "", fetchError("discovery", err)
	}
	if doc.Issuer != s.issuer {
		return "", &keysError{step: "discovery", what: "the document names another issuer"}
	}
	found = s.jwks
	if found == "" {
		u, err := url.Parse(doc.JWKS)
		if err != nil || fetch.CheckURL(u, s.insecure) != nil || s.downgrade(u) {
			return "", &keysError{step: "discovery", what: "the document has no acceptable jwks_uri"}
		}
		found = doc.JWKS
	}
	s.mu.Lock()
	s.found, s.discovered = found, now
	s.mu.Unlock()
	return found, nil
}

// downgrade says whether a document that came over TLS sends us away from it.
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

// settle takes the outcome of a fetch. Keys that are still published stay the
// same values, so that what was verified with them keeps; the others are
// withdrawn here and now.
func (s *keySet) settle(set *keys, failure *keysError) {
	s.mu.Lock()
	before := s.failed
	s.flight, s.failed = nil, failure
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
		s.gone()
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

// run fetches the keys now and whenever they are due, until ctx ends.
func (s *keySet) run(ctx context.Context) {
	for {
		s.mu.Lock()
		flight := s.flight
		if flight == nil {
			flight = s.launch()
		}
		s.mu.Unlock()
		if flight == nil {
			return
		}
		select {
		case <-flight:
		case <-ctx.Done():
			return
		}
		pause := time.NewTimer(s.pause())
		select {
		case <-pause.C:
		case <-ctx.Done():
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

// IssuerStatus is how an issuer's keys stand, for people and metrics.
type IssuerStatus struct {
	Name    string
	URL     string
	Keys    int       // that serve now: 0 where none were fetched, or all are stale
	Fetched time.Time // when those keys were asked for; zero if never
	// LastError says in fixed words why the last fetch failed, "" if it did not,
	// such as "discovery: unreachable".
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
