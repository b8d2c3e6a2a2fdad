package auth

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/netip"
	"net/url"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"sallyport/auth/fetch"
	"sallyport/proxy/setting"
)

// introspector asks an issuer about tokens (RFC 7662) and remembers the answers: those about
// active tokens in the cache of verified tokens, the others in refused.
//
// Each token is looked up once at a time, however many requests have it. A look-up has the
// context of the introspector and not of the request that began it.
type introspector struct {
	*introspectSource
	number uint64  // of the configuration, in keys of the token cache
	key    *key    // stands for the issuer's word in the token cache; withdrawn with the configuration
	keys   *keySet // for signed answers and for the discovery document
	memory *Memory
	hits   atomic.Uint64 // requests whose token was in the cache of verified tokens

	life context.Context // of look-ups
	stop context.CancelFunc
	work sync.WaitGroup // look-ups

	discovering  sync.Mutex // guards the fields below; held during discovery
	found        string     // the endpoint in the discovery document
	discovered   time.Time  // when discovery was last tried
	undiscovered *keysError // why it failed; nil if it succeeded

	mu      sync.Mutex // guards the fields below, and starting work
	ended   bool       // no work may start
	looks   map[digest]*look
	queue   lookQueue
	outage  outage
	refused refusedTokens
	counts  LookUps
	failed  *keysError // of the last look-up; nil if the issuer answered
	warned  time.Time  // when a failure was last logged
	told    bool       // it was, and the end of the failures was not yet
}

// LookUps counts look-ups of tokens at an issuer by outcome, and requests that needed none.
type LookUps struct {
	Active   uint64 // the token was accepted
	Inactive uint64 // the issuer says that it is not active
	Refused  uint64 // it is active, but its claims were refused
	Failed   uint64 // the issuer did not answer, or not in a way that counts
	Skipped  uint64 // not begun: too many waited, or the issuer had just failed

	CachedActive  uint64 // requests that needed no look-up, since the token was known to be active
	CachedRefused uint64 // or known to be refused
}

// look is a look-up.
type look struct {
	digest  digest
	raw     string
	peer    netip.Addr // that asked first
	owner   uint64     // peer or, of a known token, its caller, hashed
	budget  *budget    // for a refusal
	arrival uint64     // in the queue
	before  uint64     // how many look-ups had succeeded when it began

	turn chan struct{} // closed when the look-up gets a place, or loses it in the queue
	lost bool          // it lost; written before turn is closed
	odd  bool          // there is no usable answer, probably because of the token
	done chan struct{} // closed at the end; the fields below are constant then

	verified *verified
	why      *Error // if verified is nil
}

func newIntrospector(s *introspectSource, number uint64, keys *keySet, m *Memory) *introspector {
	in := &introspector{introspectSource: s, number: number, key: &key{id: "introspection"}, keys: keys, memory: m,
		looks: map[digest]*look{}, queue: newLookQueue(s.concurrency)}
	in.life, in.stop = context.WithCancel(context.Background())
	return in
}

// end cancels the look-ups and waits for them. Later none starts; known tokens remain
// usable until their answer is too old.
func (in *introspector) end() {
	in.mu.Lock()
	in.ended = true
	in.mu.Unlock()
	in.stop()
	in.work.Wait()
	in.client.CloseIdle()
}

// cached returns the verdict about a token that is known to be active; nil if there is none
// that may still be used. It does not allocate.
func (in *introspector) cached(d *digest, now int64) *verified {
	e := in.known(d)
	if e == nil || e.lookAgain <= now && now < e.notAfter {
		return nil
	}
	in.hits.Add(1)
	return e
}

// known returns the last verdict about a token that was active then, however old; nil if there is
// none.
func (in *introspector) known(d *digest) *verified {
	return in.memory.tokens.get(in.number, d.hash(), string(d[:]))
}

var errNotLookedUp = errors.New("token not looked up")

// lookUp returns the verdict about a token that is not in the cache of verified tokens. A
// refusal may come from memory. A nil budget counts nothing.
func (in *introspector) lookUp(ctx context.Context, d digest, raw string, peer netip.Addr, budget *budget) (*verified, *Error) {
	now := in.memory.now()
	in.mu.Lock()
	if why := in.refused.find(d, now); why != nil {
		in.counts.CachedRefused++
		in.mu.Unlock()
		return nil, why
	}
	k := in.looks[d]
	if k == nil {
		// The look-up of another request may have ended just now.
		if v := in.cached(&d, now.Unix()); v != nil {
			in.mu.Unlock()
			return v, nil
		}
		var why *Error
		if k, why = in.begin(d, raw, peer, budget, now); why != nil {
			in.mu.Unlock()
			return nil, why
		}
	}
	in.mu.Unlock()
	select {
	case <-k.done:
	case <-ctx.Done():
		return nil, in.unavailable(fmt.Errorf("%w: %w", errNotLookedUp, ctx.Err()))
	}
	return k.verified, k.why
}

// begin starts the look-up of a token. The caller must hold in.mu.
//
// A token that was active before waits among those of its caller, and needs no budget. Otherwise
// whoever sends random tokens from the same address could refuse it once its verdict is too old.
func (in *introspector) begin(d digest, raw string, peer netip.Addr, budget *budget, now time.Time) (*look, *Error) {
	owner, whose := cmp.Or(budget, in.memory.budget).owner(peer), "from "+peer.WithZone("").String()
	if v := in.known(&d); v != nil {
		budget = nil
		whose = "of " + setting.Quoted(v.principal.String(), shownName)
		owner = in.memory.budget.ownerOf(v.principal.String())
	}
	switch {
	case in.ended:
		return nil, in.unavailable(errNotActive)
	case !budget.left(peer, now):
		return nil, tooManyFailures(budget, peer)
	case in.outage.pauses(owner, now):
		in.counts.Skipped++
		return nil, in.unavailable(in.pausing())
	case in.queue.full(owner):
		in.counts.Skipped++
		return nil, in.unavailable(fmt.Errorf("%w: %d others %s wait or are looked up", errNotLookedUp, maxLooksOf, whose))
	}
	k := &look{digest: d, raw: strings.Clone(raw), peer: peer, owner: owner, budget: budget, turn: make(chan struct{}), done: make(chan struct{})}
	in.looks[d] = k
	if lost := in.queue.enter(k); lost != nil {
		lost.lost = true
		close(lost.turn)
	}
	in.admit()
	in.work.Go(func() { in.run(k) })
	return k, nil
}

// admit gives free places to look-ups. The caller must hold in.mu.
func (in *introspector) admit() {
	for k := in.queue.next(); k != nil; k = in.queue.next() {
		k.before = in.answered()
		close(k.turn)
	}
}

// answered returns how many look-ups the issuer has answered. The caller must hold in.mu.
func (in *introspector) answered() uint64 {
	return in.counts.Active + in.counts.Inactive + in.counts.Refused
}

// pausing returns the cause for a token that is not looked up after a failure. The caller must
// hold in.mu.
func (in *introspector) pausing() error {
	const why = "the issuer failed just before"
	if in.failed == nil {
		return fmt.Errorf("%w: %s", errNotLookedUp, why)
	}
	return fmt.Errorf("%w: %s: %w", errNotLookedUp, why, in.failed)
}

func (in *introspector) unavailable(why error) *Error {
	return &Error{Reason: IssuerUnavailable, Err: fmt.Errorf("issuer %s: %w", in.issuer.name, why)}
}

// run waits for a place, looks the token up, and ends the look-up.
func (in *introspector) run(k *look) {
	wait := time.NewTimer(in.timeout)
	defer wait.Stop()
	select {
	case <-k.turn:
	case <-wait.C:
	case <-in.life.Done():
	}
	in.mu.Lock()
	switch {
	case in.queue.remove(k) || k.lost: // no place
		in.counts.Skipped++
		in.finish(k, nil, in.unavailable(fmt.Errorf("%w: too many others wait", errNotLookedUp)))
		in.mu.Unlock()
		return
	case !in.outage.try(k.owner, in.memory.now()):
		in.counts.Skipped++
		in.finish(k, nil, in.unavailable(in.pausing()))
		in.leave(k)
		in.mu.Unlock()
		return
	}
	in.mu.Unlock()
	v, why, failure := in.ask(k)
	in.mu.Lock()
	defer in.mu.Unlock()
	in.note(k, v, why, failure)
	in.leave(k)
}

// leave gives the place of a look-up to others. The caller must hold in.mu.
func (in *introspector) leave(k *look) {
	in.queue.leave(k)
	in.admit()
}

// finish tells the requests that wait for a look-up its outcome. The caller must hold in.mu.
func (in *introspector) finish(k *look, v *verified, why *Error) {
	delete(in.looks, k.digest)
	k.verified, k.why, k.raw = v, why, ""
	close(k.done)
}

// note remembers the outcome of a look-up: a verdict, a refusal or a failure. The caller must
// hold in.mu.
func (in *introspector) note(k *look, v *verified, why *Error, failure *keysError) {
	now := in.memory.now()
	switch {
	case failure != nil:
		in.counts.Failed++
		in.warn(failure, now)
		why := in.unavailable(fmt.Errorf("%w: %w", errNotLookedUp, failure))
		switch {
		case k.odd:
			k.budget.charge(k.peer, now)
			in.refused.add(k.digest, why, now.Add(in.negativeMaxAge))
		case k.before == in.answered(): // else the token may be to blame
			in.outage.fail(k.owner, now)
		}
		in.finish(k, nil, why)
		return
	case v != nil:
		in.counts.Active++
		in.memory.tokens.put(v)
	default:
		if why.Reason == TokenInactive {
			in.counts.Inactive++
		} else {
			in.counts.Refused++
		}
		k.budget.charge(k.peer, now)
		in.refused.add(k.digest, why, now.Add(in.negativeMaxAge))
		in.memory.tokens.dropToken(in.number, k.digest.hash())
	}
	in.outage.end()
	in.failed = nil
	if in.told {
		in.told = false
		in.memory.log.Info("issuer answers about tokens again", "issuer", in.issuer.url)
	}
	in.finish(k, v, why)
}

// warnEvery bounds how often a failing issuer is logged: its failures may depend on tokens
// that a stranger chooses.
const warnEvery = time.Minute

// warn notes and logs a failure. The caller must hold in.mu.
func (in *introspector) warn(failure *keysError, now time.Time) {
	in.failed = failure
	if in.warned.IsZero() || now.Sub(in.warned) >= warnEvery {
		in.warned, in.told = now, true
		in.memory.log.Warn("issuer not asked about a token", "issuer", in.issuer.url, "url", failure.url, "why", failure.words(), "cause", failure.err)
	}
}

// ask asks the issuer about a token. Exactly one of the results is not nil.
func (in *introspector) ask(k *look) (*verified, *Error, *keysError) {
	ctx, cancel := context.WithTimeout(in.life, in.timeout)
	defer cancel()
	address, failure := in.endpoint(ctx)
	if failure != nil {
		return nil, nil, failure
	}
	form := fetch.Form{Values: url.Values{"token": {k.raw}, "token_type_hint": {"access_token"}}, Accept: plainAnswer}
	if in.signed {
		form.Accept = signedAnswer
	}
	in.authorize(&form)
	answer, err := in.client.Post(ctx, address, &form)
	if err != nil {
		failure := fetchError("introspection", address, err)
		var e *fetch.Error
		_ = errors.As(err, &e)
		switch {
		case e.Status == http.StatusUnauthorized, e.Status == http.StatusForbidden, refusesClient(e.Code):
			failure.err = errClientRefused
		case e.Status == http.StatusBadRequest, e.Status == http.StatusRequestEntityTooLarge, e.Status == http.StatusUnprocessableEntity:
			k.odd = true
			return nil, nil, failure
		}
		in.discovering.Lock()
		in.found = "" // the endpoint may have moved
		in.discovering.Unlock()
		return nil, nil, failure
	}
	v, why, err := in.judge(ctx, k, &answer)
	if err != nil {
		return nil, nil, &keysError{step: "introspection", url: address, what: "unusable answer", err: err}
	}
	return v, why, nil
}

// refusesClient reports whether an error code of OAuth is about the gateway as a client. Issuers may
// send these with status 400 too (RFC 6749, section 5.2). No token is to blame then.
func refusesClient(code string) bool {
	return code == "invalid_client" || code == "unauthorized_client"
}

var errClientRefused = errors.New("the issuer refuses the gateway itself: correct client_id, client_secret, client_auth or certificate, or let this client introspect there")

// endpoint returns the URL of the introspection endpoint. A discovery document is used for
// rediscoveryIn, or until a look-up fails.
func (in *introspector) endpoint(ctx context.Context) (string, *keysError) {
	if in.url != "" {
		return in.url, nil
	}
	in.discovering.Lock()
	defer in.discovering.Unlock()
	now := in.memory.now()
	switch age := now.Sub(in.discovered); {
	case in.found != "" && age < rediscoveryIn:
		return in.found, nil
	case in.undiscovered != nil && age < firstPause: // those who waited for the lock
		return "", in.undiscovered
	}
	in.discovered = now
	doc, err := in.keys.discover(ctx)
	asked := discoveryURL(in.keys.discovery)
	if err != nil {
		in.undiscovered = fetchError("discovery", asked, err)
		return "", in.undiscovered
	}
	found := doc.introspection
	if in.mutual && doc.mutualIntrospection != "" {
		found = doc.mutualIntrospection
	}
	u, err := url.Parse(found)
	if err != nil || found == "" || fetch.CheckURL(u, in.insecure) != nil || in.keys.downgrade(u) {
		in.undiscovered = &keysError{step: "discovery", url: asked, what: "the document has no acceptable introspection_endpoint: write introspection.url", err: errors.New(setting.Quoted(found, 2*shownName))}
		return "", in.undiscovered
	}
	in.found, in.undiscovered = found, nil
	return found, nil
}

// IntrospectionStatus is the state of an issuer's introspection.
type IntrospectionStatus struct {
	LookUps LookUps
	// LastError says why the last look-up failed; "" if it succeeded.
	LastError string
}

func (in *introspector) status() *IntrospectionStatus {
	in.mu.Lock()
	defer in.mu.Unlock()
	st := &IntrospectionStatus{LookUps: in.counts}
	st.LookUps.CachedActive = in.hits.Load()
	if in.failed != nil {
		st.LastError = in.failed.words()
	}
	return st
}
