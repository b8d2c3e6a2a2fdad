// Package auth says who sent a request.
//
// A route lists whom it admits; [Auth.Route] turns that list into a [Chain],
// which reads the head of a request and returns the caller, or an [Error] whose
// reason is fit for the client and whose cause is fit for the audit record only.
package auth

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"time"

	"sallyport/auth/identity"
	"sallyport/proxy/message"
)

// ErrNoCredential is what an [Authenticator] returns where the head holds no
// credential of its kind.
var ErrNoCredential = errors.New("no credential of this kind")

// Authenticator recognises one kind of credential in the head of a request.
//
// [ErrNoCredential] means "none of my kind here, ask the next". Any other error
// means that the credential is there and is bad, or could not be checked: it is
// final, and the next is never asked. Implementations are safe for concurrent use.
type Authenticator interface {
	Authenticate(ctx context.Context, head *message.Head, peer netip.Addr) (identity.Principal, error)
}

// Config is what an [Auth] is made of. It must not be modified after [New].
type Config struct {
	Issuers map[string]IssuerConfig // by the name that routes use: issuer/NAME
	Now     func() time.Time        // time.Now if nil
	Log     *slog.Logger            // nil: nothing is logged
	Budget  Budget                  // of failures per client address
	Cache   CacheLimits             // of verified tokens
}

// Auth checks credentials for all routes of one configuration. It is safe for
// concurrent use. A new Auth believes nothing that an older one verified.
type Auth struct {
	issuers map[string]*issuer
	tokens  *tokenCache
	budget  *budget
	now     func() time.Time

	// Fetches under way. They belong to the Auth and not to the request that
	// caused them, since others wait for them too.
	ending  sync.Mutex // guards ended, and the start of flights
	ended   bool
	flights sync.WaitGroup
	life    context.Context // of flights
	stop    context.CancelFunc
}

// New makes an Auth. It reads the CA files of issuers, and uses no network:
// issuers are asked when [Auth.Run] starts or the first token needs a key,
// whichever is first. The configuration must have passed [IssuerConfig.Check].
func New(c Config) (*Auth, error) {
	a := &Auth{issuers: make(map[string]*issuer, len(c.Issuers)), now: c.Now}
	if a.now == nil {
		a.now = time.Now
	}
	log := c.Log
	if log == nil {
		log = slog.New(slog.DiscardHandler)
	}
	a.tokens = newTokenCache(c.Cache)
	a.budget = newBudget(c.Budget)
	a.life, a.stop = context.WithCancel(context.Background())
	for name, ic := range c.Issuers {
		iss, err := a.newIssuer(name, ic, log)
		if err != nil {
			a.stop()
			return nil, fmt.Errorf("issuer %s: %w", name, err)
		}
		a.issuers[name] = iss
	}
	return a, nil
}

// Run keeps the keys of all issuers fresh until ctx ends. It returns once every
// fetch that the Auth ever started is over, and then no more are made: known
// keys serve until they are stale. It may be called once; its error is nil.
func (a *Auth) Run(ctx context.Context) error {
	var loops sync.WaitGroup
	for _, iss := range a.issuers {
		loops.Go(func() { iss.keys.run(ctx) })
	}
	loops.Go(func() { a.sweep(ctx) })
	loops.Wait()
	a.ending.Lock()
	a.ended = true
	a.ending.Unlock()
	a.stop()
	a.flights.Wait()
	return nil
}

// begin runs f in a goroutine that Run waits for; false once Run is over.
func (a *Auth) begin(f func(context.Context)) bool {
	a.ending.Lock()
	defer a.ending.Unlock()
	if a.ended {
		return false
	}
	a.flights.Go(func() { f(a.life) })
	return true
}

// sweep gives back the memory of tokens that have expired.
func (a *Auth) sweep(ctx context.Context) {
	tick := time.NewTicker(time.Minute)
	defer tick.Stop()
	for {
		select {
		case <-tick.C:
			a.tokens.sweep(a.now().Unix())
		case <-ctx.Done():
			return
		}
	}
}

// Status is how the keys of each issuer stand, in the order of their names.
func (a *Auth) Status() []IssuerStatus {
	var all []IssuerStatus
	for _, name := range slices.Sorted(maps.Keys(a.issuers)) {
		st := a.issuers[name].keys.status()
		st.Name, st.URL = name, a.issuers[name].url
		all = append(all, st)
	}
	return all
}

// CacheStatus is how the cache of verified tokens stands.
func (a *Auth) CacheStatus() CacheStatus { return a.tokens.status() }

// Demand is what a route lists.
type Demand struct {
	Callers  []string // "issuer/NAME", or "anonymous" alone; never empty
	Audience []string // narrows the audiences of the issuers; nil leaves them as they are
}

// Route makes the chain of a route. Its error names what the demand cannot mean.
func (a *Auth) Route(d Demand) (*Chain, error) {
	if len(d.Callers) == 0 {
		return nil, errors.New("a route without callers admits nobody")
	}
	if slices.Contains(d.Callers, "anonymous") {
		if len(d.Callers) > 1 {
			return nil, errors.New("anonymous must be the only caller: a route that admits anyone checks nobody")
		}
		if len(d.Audience) > 0 {
			return nil, errors.New("an anonymous route checks no token, so it has no audience")
		}
		return &Chain{list: []Authenticator{anonymous{}}}, nil
	}
	b := &bearer{auth: a}
	for _, caller := range d.Callers {
		name, ok := strings.CutPrefix(caller, "issuer/")
		iss := a.issuers[name]
		if !ok || iss == nil {
			return nil, fmt.Errorf("unknown caller %q", caller)
		}
		if slices.ContainsFunc(b.candidates, func(c candidate) bool { return c.iss == iss }) {
			return nil, fmt.Errorf("caller %q is listed twice", caller)
		}
		audience, err := narrow(iss, d.Audience)
		if err != nil {
			return nil, err
		}
		b.candidates = append(b.candidates, candidate{iss: iss, audience: audience})
	}
	for _, aud := range d.Audience {
		if !slices.ContainsFunc(b.candidates, func(c candidate) bool { return slices.Contains(c.audience, aud) }) {
			return nil, fmt.Errorf("audience %q is of none of the route's issuers: a route can only narrow theirs", aud)
		}
	}
	return &Chain{list: []Authenticator{b}, bearer: true}, nil
}

// narrow is the audiences of the issuer that the route keeps.
func narrow(iss *issuer, to []string) ([]string, error) {
	if len(to) == 0 {
		return iss.audience, nil
	}
	var kept []string
	for _, aud := range iss.audience {
		if slices.Contains(to, aud) {
			kept = append(kept, aud)
		}
	}
	if len(kept) == 0 {
		return nil, fmt.Errorf("none of the route's audiences is one of issuer %s: its tokens would never be accepted", iss.name)
	}
	return kept, nil
}

// Chain is the authenticators of a route, in the order in which they are asked.
// The nil and the zero Chain admit nobody. It is safe for concurrent use.
type Chain struct {
	list   []Authenticator
	bearer bool
}

// Authenticate returns the caller. peer is the client's address, for its budget
// of failures. The error is always an [*Error].
func (c *Chain) Authenticate(ctx context.Context, head *message.Head, peer netip.Addr) (identity.Principal, error) {
	if c == nil {
		return identity.Principal{}, &Error{Reason: NoCredential}
	}
	for _, a := range c.list {
		p, err := a.Authenticate(ctx, head, peer)
		if err == nil {
			return p, nil
		}
		if !errors.Is(err, ErrNoCredential) {
			return identity.Principal{}, asError(err)
		}
	}
	if head.Fields.Has("authorization") {
		return identity.Principal{}, &Error{Reason: UnlistedCredential}
	}
	return identity.Principal{}, &Error{Reason: NoCredential}
}

// Anonymous says whether the chain admits callers without asking who they are.
func (c *Chain) Anonymous() bool {
	return c != nil && len(c.list) == 1 && c.list[0] == Authenticator(anonymous{})
}

// anonymous admits everybody. It reads nothing: a credential on an anonymous
// route proves nothing and must not look as if it did.
type anonymous struct{}

func (anonymous) Authenticate(context.Context, *message.Head, netip.Addr) (identity.Principal, error) {
	return identity.Anonymous(), nil
}
