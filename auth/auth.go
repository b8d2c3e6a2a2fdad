// Package auth finds out who sent a request.
//
// A route lists whom it admits; [Auth.Route] turns that list into a [Chain], which
// reads the head of a request and returns the caller, or an [Error] whose reason may
// be shown to the client and whose cause is for the audit record only.
//
// An [Auth] is what one configuration says. What must survive a reload, such as
// verified tokens and the keys of issuers, is in the [Memory] of the process.
package auth

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"time"

	"sallyport/auth/httpsig"
	"sallyport/proxy/message"
)

// ErrNoCredential is what an [Authenticator] returns if the request has no
// credential of its kind.
var ErrNoCredential = errors.New("no credential of this kind")

// Request is what a caller can prove himself with. Nothing in it is modified.
type Request struct {
	Head *message.Head
	// Peer is the client's address, for the budget of failed checks.
	Peer netip.Addr
	// Conn is the client's TLS connection; nil without TLS.
	Conn *tls.ConnectionState
}

// Authenticator checks one kind of credential. Implementations are safe for
// concurrent use.
type Authenticator interface {
	// Authenticate returns the caller that a credential of this kind proves.
	// [ErrNoCredential] means that the request has none, so that the next kind is
	// asked. Any other error is final: the credential is bad, or could not be
	// checked, and no other kind is asked.
	Authenticate(ctx context.Context, r *Request) (Proof, error)

	// Recheck is Authenticate for a request that an older configuration accepted
	// with the proof earlier, and that is still in flight. Freshness is not checked
	// again, and no failure is counted against the client's address.
	Recheck(ctx context.Context, r *Request, earlier Proof) (Proof, error)

	// Challenge is what WWW-Authenticate says about this kind in an answer with
	// status 401; "" for nothing.
	Challenge(realm string, e *Error) string

	// Traits are the properties of the kind. They never change.
	Traits() Traits
}

// Traits are what a [Chain] must know about a kind of credential.
type Traits struct {
	// Missing is the reason for refusing a request that lacks a demanded credential
	// of this kind.
	Missing string
	// Field is the field, in lower case, that carries the credential. "" means that
	// nobody between client and gateway could have added it, as with the
	// certificate of a TLS connection.
	Field string
	// AcceptSignature is the value of Accept-Signature that asks for such a
	// credential; "" for kinds that are not signatures of messages.
	AcceptSignature string
}

// Config is what the configuration file says. It must not be modified after [New].
type Config struct {
	Issuers map[string]IssuerConfig // by the name that routes use: issuer/NAME
	Keys    map[string]*SigningKey  // by keyid, as [ReadSigningKeys] returns them
	Aliases map[string]string       // from qualified names of callers to their common name

	MaxAge time.Duration // of signatures; zero: httpsig.Lifetime
	Skew   time.Duration // how far signers' clocks may be ahead; zero: not at all
}

// Auth checks credentials for all routes of one configuration. It is safe for
// concurrent use.
//
// Between [Auth.Activate] and [Auth.Close] it is active. While it is not, it refuses
// bearer tokens with [IssuerUnavailable], fetches nothing, and leaves nothing in
// its [Memory]; signatures need no memory and are checked all the same.
type Auth struct {
	memory  *Memory
	issuers map[string]*issuer
	keys    map[string]*SigningKey
	aliases map[string]string
	maxAge  time.Duration
	skew    time.Duration

	activated, closed bool // guarded by memory.mu
}

// New makes an Auth. It reads the CA files of issuers, uses no network, and starts
// nothing. The configuration must have passed [IssuerConfig.Check]; m must not be nil.
// An Auth that is thrown away without [Auth.Activate] leaves nothing behind.
func New(c Config, m *Memory) (*Auth, error) {
	a := &Auth{memory: m, issuers: make(map[string]*issuer, len(c.Issuers)),
		keys: maps.Clone(c.Keys), aliases: maps.Clone(c.Aliases), maxAge: c.MaxAge, skew: c.Skew}
	if a.maxAge == 0 {
		a.maxAge = httpsig.Lifetime
	}
	for name, ic := range c.Issuers {
		iss, err := newIssuer(name, ic)
		if err != nil {
			return nil, fmt.Errorf("issuer %s: %w", name, err)
		}
		a.issuers[name] = iss
	}
	return a, nil
}

// Activate begins the use of the Auth: the keys of its issuers are kept fresh from
// now on. Keys and tokens of an issuer that an active Auth has configured in the
// same way are shared with it. Only the first call counts, and none after Close.
func (a *Auth) Activate() {
	a.memory.mu.Lock()
	defer a.memory.mu.Unlock()
	if a.activated || a.closed {
		return
	}
	a.activated = true
	for _, iss := range a.issuers {
		iss.memory.Store(a.memory.acquire(iss))
	}
}

// Close ends the use of the Auth, once no request uses it. Issuers that no other
// active Auth has configured in the same way are forgotten, with their keys and
// tokens; Close waits for their fetches, which it cancels. An Auth that was never
// activated may be closed, and any Auth may be closed again.
func (a *Auth) Close() {
	var unused []*issuerMemory
	a.memory.mu.Lock()
	if a.activated && !a.closed {
		for _, iss := range a.issuers {
			if im := iss.memory.Swap(nil); a.memory.release(iss, im) {
				unused = append(unused, im)
			}
		}
	}
	a.closed = true
	a.memory.mu.Unlock()
	for _, im := range unused {
		a.memory.retire(im)
	}
}

// Status is the state of each issuer's keys, ordered by name. While the Auth is not
// active, none has keys.
func (a *Auth) Status() []IssuerStatus {
	var all []IssuerStatus
	for _, name := range slices.Sorted(maps.Keys(a.issuers)) {
		iss := a.issuers[name]
		st := IssuerStatus{}
		if im := iss.memory.Load(); im != nil {
			st = im.keys.status()
		}
		st.Name, st.URL = name, iss.url
		all = append(all, st)
	}
	return all
}

// Key is the signing key with an id, nil if there is none.
func (a *Auth) Key(id string) *SigningKey { return a.keys[id] }
