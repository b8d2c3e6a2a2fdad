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
	"sync"
	"time"

	"sallyport/auth/httpsig"
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
	Keys    map[string]*SigningKey  // by keyid, of [ReadSigningKeys]
	Aliases map[string]string       // from qualified names of callers to the one that stands for several

	MaxAge time.Duration // of signatures; httpsig.Lifetime if zero
	Skew   time.Duration // of signers' clocks; none if zero

	Now    func() time.Time // time.Now if nil
	Log    *slog.Logger     // nil: nothing is logged
	Budget Budget           // of failures per client address
	Cache  CacheLimits      // of verified tokens
}

// Auth checks credentials for all routes of one configuration. It is safe for
// concurrent use. A new Auth believes nothing that an older one verified.
type Auth struct {
	issuers map[string]*issuer
	keys    map[string]*SigningKey
	aliases map[string]string
	maxAge  time.Duration
	skew    time.Duration
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
	a := &Auth{issuers: make(map[string]*issuer, len(c.Issuers)), now: c.Now,
		keys: maps.Clone(c.Keys), aliases: maps.Clone(c.Aliases), maxAge: c.MaxAge, skew: c.Skew}
	if a.now == nil {
		a.now = time.Now
	}
	if a.maxAge == 0 {
		a.maxAge = httpsig.Lifetime
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

// Key is the signing key with an id, nil if there is none.
func (a *Auth) Key(id string) *SigningKey { return a.keys[id] }

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
