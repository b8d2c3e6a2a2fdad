// Package auth authenticates the sender of a request.
//
// A route lists the callers that it admits. [Auth.Route] turns that list into a [Chain].
// The chain reads the head of a request and returns the caller or an [Error]. The
// reason of the error may be shown to the client; its cause is for the audit record only.
//
// An [Auth] belongs to one configuration. State that must survive a reload, such as
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
	"sync/atomic"
	"time"

	"sallyport/auth/clientcert"
	"sallyport/auth/httpsig"
	"sallyport/auth/login"
	"sallyport/proxy/message"
)

// ErrNoCredential is what an [Authenticator] returns if the request has no
// credential of its kind.
var ErrNoCredential = errors.New("no credential of this kind")

// Request is the input of an [Authenticator], which must not modify it.
type Request struct {
	Head *message.Head
	// Peer is the client's address. Failed checks are counted against it.
	Peer netip.Addr
	// Via is the address of the peer that sent the request: the client's, or that of the balancer
	// next to the gateway.
	Via netip.Addr
	// Conn is the TLS connection of that peer; nil without TLS.
	Conn *tls.ConnectionState

	// subprotocol is the token of a WebSocket handshake where the chain takes one; nil for none. The
	// chain sets it in a copy.
	subprotocol *subprotocolToken
	// Look says that the request only asks about a session: it does not count as use, so the idle lifetime
	// runs on. If the chain refuses a caller who is revoked, the Proof has their session all the same.
	Look bool
}

// Authenticator checks one kind of credential. Implementations are safe for
// concurrent use.
type Authenticator interface {
	// Authenticate returns the caller that a credential of this kind proves. If the
	// request has no such credential, it returns [ErrNoCredential] and the chain tries
	// the next kind. Any other error is final: the credential is bad, or could not be
	// checked.
	Authenticate(ctx context.Context, r *Request) (Proof, error)

	// Recheck authenticates a request in flight again, after a reload. earlier is the
	// proof that the older configuration accepted. Recheck does not check freshness
	// and counts no failure against the client's address.
	Recheck(ctx context.Context, r *Request, earlier Proof) (Proof, error)

	// Challenge returns the challenge of this kind for the WWW-Authenticate field of
	// a 401 response; "" for none.
	Challenge(realm string, e *Error) string

	// Traits returns the properties of the kind. They never change.
	Traits() Traits
}

// Traits are the properties of a kind of credential that a [Chain] uses.
type Traits struct {
	// Missing is the reason for refusing a request that lacks a required credential
	// of this kind.
	Missing string
	// AcceptSignature is the value of Accept-Signature that asks for such a
	// credential; "" for kinds that are not message signatures.
	AcceptSignature string
	// Ambient means that browsers send the credential whoever made the page. It does not count beside
	// one that a script has put into the request.
	Ambient bool
}

// Config is the configuration of an [Auth]. It must not be modified after [New].
type Config struct {
	Issuers   map[string]IssuerConfig // by the name that routes use: issuer/NAME
	Keys      map[string]*SigningKey  // by keyid, as [ReadSigningKeys] returns them
	APIKeys   *APIKeys                // as [ReadAPIKeys] returns them; nil: none
	Passwords map[string]*Passwords   // by the name that routes use: basic/NAME
	Logins    map[string]login.Config // by the name that routes use: login/NAME
	Revoked   *Revocations            // as [ReadRevocations] returns them; nil: none
	// ClientCerts are the entries of client_certificates; nil: none. They are not closed with
	// the Auth.
	ClientCerts *clientcert.Hosts
	Aliases     map[string]string // from qualified names of callers to their common name

	MaxAge time.Duration // maximum age of signatures; httpsig.Lifetime if zero
	Skew   time.Duration // how far a signer's clock may be ahead; zero: not at all
}

// Auth checks credentials for all routes of one configuration. It is safe for
// concurrent use.
//
// It is active between [Auth.Activate] and [Auth.Close]. An inactive Auth refuses bearer
// tokens with [IssuerUnavailable], fetches nothing and stores nothing in its [Memory].
// It still checks signatures, API keys and passwords, which need no issuer.
type Auth struct {
	memory      *Memory
	issuers     map[string]*issuer
	keys        map[string]*SigningKey
	apiKeys     *APIKeys
	passwords   map[string]*Passwords
	logins      map[string]*login.Login
	sessions    atomic.Pointer[sessionCache] // nil while the Auth is inactive
	revoked     atomic.Pointer[Revocations]
	clientCerts *clientcert.Hosts
	aliases     map[string]string
	maxAge      time.Duration
	skew        time.Duration

	activated, closed bool // guarded by memory.mu
}

// New returns an inactive Auth. It reads the CA files of issuers, uses no network and
// starts no goroutine. The configuration must have passed [IssuerConfig.Check]; m must
// not be nil. An Auth that was never activated need not be closed.
func New(c Config, m *Memory) (*Auth, error) {
	a := &Auth{memory: m, issuers: make(map[string]*issuer, len(c.Issuers)),
		logins: make(map[string]*login.Login, len(c.Logins)), keys: maps.Clone(c.Keys), apiKeys: c.APIKeys, passwords: maps.Clone(c.Passwords), clientCerts: c.ClientCerts, aliases: maps.Clone(c.Aliases), maxAge: c.MaxAge, skew: c.Skew}
	a.revoked.Store(c.Revoked)
	if a.apiKeys == nil {
		a.apiKeys = &APIKeys{}
	}
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
	for name, lc := range c.Logins {
		l, err := a.newLogin(name, lc)
		if err != nil {
			return nil, fmt.Errorf("login %s: %w", name, err)
		}
		a.logins[name] = l
	}
	return a, nil
}

// Activate makes the Auth active: from now on the keys of its issuers are refreshed.
// Active Auths share the keys and tokens of an issuer that they configure identically.
// Only the first call has an effect, and none has after Close.
func (a *Auth) Activate() {
	for _, l := range a.logins {
		l.Activate()
	}
	a.memory.logins.CloseUnused()
	a.memory.mu.Lock()
	defer a.memory.mu.Unlock()
	if a.activated || a.closed {
		return
	}
	a.activated = true
	a.memory.passwords.activate(a.passwords)
	for _, iss := range a.issuers {
		iss.memory.Store(a.memory.acquire(iss))
	}
	a.memory.last++
	a.sessions.Store(&sessionCache{number: a.memory.last, key: &key{}})
}

// Close makes the Auth inactive. No request may use it any more. Close drops the keys
// and tokens of issuers that no other active Auth configures identically; it cancels
// their fetches and waits for them. Closing twice, or without Activate, is safe.
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
	a.dropSessions()
	for _, im := range unused {
		a.memory.retire(im)
	}
}

// Status returns the state of each issuer's keys, ordered by name. An inactive Auth
// reports no keys.
func (a *Auth) Status() []IssuerStatus {
	var all []IssuerStatus
	for _, name := range slices.Sorted(maps.Keys(a.issuers)) {
		iss := a.issuers[name]
		st := IssuerStatus{}
		if im := iss.memory.Load(); im != nil {
			st = im.keys.status()
			if im.introspector != nil {
				st.Introspection = im.introspector.status()
			}
		}
		st.Name, st.URL = name, iss.url
		all = append(all, st)
	}
	return all
}

// Revoke replaces the revocations, for all routes at once: they must not wait for the rest of a
// configuration to be sound. Requests in flight are the caller's concern, see [Chain.Revokes].
func (a *Auth) Revoke(all *Revocations) { a.revoked.Store(all) }

// Keys returns the signing keys by their ids. They must not be modified.
func (a *Auth) Keys() map[string]*SigningKey { return a.keys }

// Key returns the signing key with this id, nil if there is none.
func (a *Auth) Key(id string) *SigningKey { return a.keys[id] }
