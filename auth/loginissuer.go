package auth

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"net/url"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"sallyport/auth/fetch"
	"sallyport/auth/identity"
	"sallyport/auth/login"
)

const (
	endpointsFor   = time.Hour
	endpointsRetry = 5 * time.Second // after a failed fetch
)

// loginIssuer implements [login.Issuer] over the issuer of bearer tokens, so that its keys and its
// rules for principals count for people who sign in too.
type loginIssuer struct {
	*issuer
	memory *Memory
	client *fetch.Client
	source func(ctx context.Context) (discoveryDocument, error)

	known atomic.Pointer[knownEndpoints]

	mu      sync.Mutex    // guards running
	running chan struct{} // closed when the running fetch ends; nil if none runs
}

// knownEndpoints are the outcome of a fetch of the discovery document.
type knownEndpoints struct {
	endpoints *login.Endpoints // of the last fetch that succeeded; nil if none did
	err       error
	until     time.Time // when they are fetched again
}

func newLoginIssuer(iss *issuer, m *Memory) *loginIssuer {
	li := &loginIssuer{issuer: iss, memory: m, client: fetch.New(iss.fetching), source: iss.keys.discover}
	if li.source == nil || iss.keys.discovery == "" {
		li.source = func(ctx context.Context) (discoveryDocument, error) {
			return discover(ctx, li.client, iss.url, iss.url)
		}
	}
	return li
}

// Issues implements [login.Issuer].
func (li *loginIssuer) Issues(iss string) bool { return li.issues(iss) }

// Client implements [login.Issuer].
func (li *loginIssuer) Client() *fetch.Client { return li.client }

// Algorithms implements [login.Issuer].
func (li *loginIssuer) Algorithms() []string { return li.rules.algorithms }

// Skew implements [login.Issuer].
func (li *loginIssuer) Skew() time.Duration { return li.rules.skew }

// Endpoints implements [login.Issuer]. One fetch runs at a time. It goes on when the client that
// caused it leaves, so that the others need not wait for a second one. Once a document is known, nobody waits:
// the endpoints of the last one serve until a fetch succeeds.
func (li *loginIssuer) Endpoints(ctx context.Context) (*login.Endpoints, error) {
	k := li.known.Load()
	if k != nil && li.memory.now().Before(k.until) {
		return k.endpoints, k.err
	}
	done := li.fetch()
	if k != nil && k.endpoints != nil {
		return k.endpoints, nil
	}
	select {
	case <-done:
	case <-ctx.Done():
		return nil, fmt.Errorf("%w: %w", login.ErrUnavailable, ctx.Err())
	}
	if k = li.known.Load(); k == nil {
		return nil, fmt.Errorf("%w: the gateway stops", login.ErrUnavailable)
	}
	return k.endpoints, k.err
}

// fetch fetches the document in the background, unless that is under way. The channel is closed at its end.
func (li *loginIssuer) fetch() <-chan struct{} {
	li.mu.Lock()
	defer li.mu.Unlock()
	if li.running != nil {
		return li.running
	}
	done := make(chan struct{})
	if k := li.known.Load(); k != nil && li.memory.now().Before(k.until) { // fetched meanwhile
		close(done)
		return done
	}
	if li.memory.logins.Go(func(life context.Context) {
		li.refetch(life)
		li.mu.Lock()
		li.running = nil
		li.mu.Unlock()
		close(done)
	}) {
		li.running = done
	} else {
		close(done)
	}
	return done
}

// refetch fetches the document, and notes the outcome.
func (li *loginIssuer) refetch(ctx context.Context) {
	k, before := &knownEndpoints{}, li.known.Load()
	k.endpoints, k.err = li.fetchEndpoints(ctx)
	k.until = li.memory.now().Add(endpointsFor)
	if k.err != nil {
		k.until = li.memory.now().Add(endpointsRetry)
		if before != nil && before.endpoints != nil {
			k.endpoints, k.err = before.endpoints, nil
		}
	}
	li.known.Store(k)
}

func (li *loginIssuer) fetchEndpoints(ctx context.Context) (*login.Endpoints, error) {
	doc, err := li.source(ctx)
	if err != nil {
		return nil, li.undiscovered(err)
	}
	if im := li.issuer.memory.Load(); im != nil {
		im.keys.resume() // else a login would begin that cannot end
	}
	e := doc.login
	for name, address := range map[string]*string{"authorization_endpoint": &e.Authorization, "token_endpoint": &e.Token, "userinfo_endpoint": &e.Userinfo, "end_session_endpoint": &e.EndSession, "revocation_endpoint": &e.Revocation} {
		if *address == "" {
			continue
		}
		if u, err := url.Parse(*address); err != nil || fetch.CheckURL(u, li.fetching.InsecureHTTP) != nil || li.downgrades(u) {
			return nil, fmt.Errorf("%w: the discovery document of issuer %s has no acceptable %s", login.ErrUnavailable, li.name, name)
		}
	}
	return &e, nil
}

// undiscovered returns the error for a discovery document that was not fetched. The cure comes before the
// details, because records cut long causes.
func (li *loginIssuer) undiscovered(err error) error {
	e := fetchError("discovery", cmp.Or(li.keys.discovery, li.url), err)
	what := "discovery of issuer " + li.name
	if e.err != err { // else the error says it all
		what += ": " + e.what
	}
	if cure := li.cureFetch(e); cure != "" {
		what += " (" + cure + ")"
	}
	if e.err != nil {
		what += ": " + e.err.Error()
	}
	return fmt.Errorf("%w: %s", login.ErrUnavailable, what)
}

// downgrades reports whether a document of an issuer with TLS names a URL without TLS.
func (li *loginIssuer) downgrades(u *url.URL) bool {
	return !li.fetching.InsecureHTTP && u.Scheme != "https" && strings.HasPrefix(cmp.Or(li.keys.discovery, li.url), "https:")
}

// Verify implements [login.Issuer].
func (li *loginIssuer) Verify(ctx context.Context, jwt string, types ...string) (claims []byte, by string, err error) {
	t := tokenPool.Get().(*token)
	defer t.release()
	if err := t.parse(jwt); err != nil {
		return nil, "", err
	}
	im := li.issuer.memory.Load()
	switch {
	case im == nil:
		return nil, "", fmt.Errorf("%w: %w", login.ErrUnavailable, errNotActive)
	case !slices.Contains(li.rules.algorithms, t.alg):
		return nil, "", fmt.Errorf("%w is %s, accepted are %s", errAlgorithm, headerWord(t.alg), strings.Join(li.rules.algorithms, ", "))
	case t.hasTyp && !slices.ContainsFunc(types, func(typ string) bool { return mediaType(typ) == mediaType(t.typ) }):
		return nil, "", fmt.Errorf("%w is %s, accepted are %s", errType, headerWord(t.typ), strings.Join(types, ", "))
	}
	k, err := im.keys.signer(ctx, li.issuer, t)
	switch {
	case errors.Is(err, errNotChecked):
		return nil, "", fmt.Errorf("%w: %w", login.ErrUnavailable, err)
	case err != nil:
		return nil, "", ofKeys(err)
	}
	return slices.Clone(t.payload), k.name(), nil
}

// Access implements [login.Issuer].
func (li *loginIssuer) Access(ctx context.Context, raw string) (claims []byte, by string, err error) {
	t := tokenPool.Get().(*token)
	defer t.release()
	if err := t.parse(raw); err != nil {
		return nil, "", fmt.Errorf("%w; claims: userinfo reads claims of those who have opaque tokens", err)
	}
	b := &bearer{memory: li.memory, candidates: []candidate{{li.issuer, li.audience}}}
	if !li.issues(t.registered.iss) {
		return nil, "", (&verification{bearer: b}).unknownIssuer(t.registered.iss)
	}
	v := verification{bearer: b, raw: raw, hash: li.memory.tokens.hash(raw), request: &Request{}}
	e, refused := v.check(ctx, &b.candidates[0], t)
	if refused == nil {
		return slices.Clone(t.payload), e.principal.KeyID, nil
	}
	cause := errors.New(refused.Error()) // the caller refuses a login, and not a token
	switch refused.Reason {
	case IssuerUnavailable:
		return nil, "", fmt.Errorf("%w: %w", login.ErrUnavailable, refused)
	case TokenExpired, TokenNotYetValid:
		return nil, "", login.Untimely(cause)
	}
	if errors.Is(refused, errUnknownKey) || errors.Is(refused, errSignature) {
		return nil, "", ofKeys(&unknownKeyError{refused.Error(), refused.Err})
	}
	return nil, "", cause
}

// ofKeys returns the error for a token that none of the issuer's keys verifies. If they were not fetched for it, it
// could not be checked: a token of a stranger, who has made up its kid, must not decide what comes of the issuer's own.
func ofKeys(unknown error) error {
	switch {
	case errors.Is(unknown, errNotFetched):
		return fmt.Errorf("%w: %w", login.ErrUnavailable, unknown)
	case errors.Is(unknown, errUnknownKey), errors.Is(unknown, errSignature):
		return login.Untimely(unknown)
	}
	return unknown
}

// Principal implements [login.Issuer].
func (li *loginIssuer) Principal(claims []byte) (identity.Principal, error) {
	t := tokenPool.Get().(*token)
	defer t.release()
	t.payload = append(t.payload[:0], claims...)
	if err := t.readClaims(); err != nil {
		return identity.Principal{}, err
	}
	if cause := li.rules.lacking(t.claims); cause != "" {
		return identity.Principal{}, errors.New(cause + li.cureAbsent(t.claims))
	}
	p, _, err := li.principal(t)
	if err != nil {
		return p, fmt.Errorf("%w%s", err, li.cureAbsent(t.claims))
	}
	return p, nil
}

// cureAbsent says what brings claims that the issuer did not send; "" if it sent all that its rules read.
func (li *loginIssuer) cureAbsent(claims claimSet) string {
	paths := []string{li.rules.principal}
	for _, q := range li.rules.require {
		paths = append(paths, q.path)
	}
	for _, path := range paths {
		if _, ok := claims.find(path); !ok {
			return "; list its scope under scopes of the login, or set claims: userinfo"
		}
	}
	return ""
}

// Contexts implements [login.Issuer].
func (li *loginIssuer) Contexts() *login.Contexts { return &li.contexts }

// Authentication implements [login.Issuer].
func (li *loginIssuer) Authentication(claims []byte) (login.Authentication, error) {
	t := tokenPool.Get().(*token)
	defer t.release()
	t.payload = append(t.payload[:0], claims...)
	if err := t.readClaims(); err != nil {
		return login.Authentication{}, err
	}
	return t.claims.authentication(li.contexts.Claim, t.registered.authTime), nil
}
