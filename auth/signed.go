package auth

import (
	"errors"
	"net/netip"
	"slices"
	"strings"
	"time"

	"sallyport/auth/httpsig"
	"sallyport/auth/identity"
	"sallyport/proxy/message"
)

// SignatureDemand is what a route wants of the signatures of requests.
type SignatureDemand struct {
	// Always demands a signature of every caller, whoever proves who that is.
	Always bool
	// Cover are further fields, in lower case, that must be covered where the
	// request has them.
	Cover []string
	// HeadersOnly lets the content be unsigned: the digest need not be covered.
	HeadersOnly bool
	// Authority says whether requests may be for this authority, as it is signed;
	// nil: for none.
	Authority func(authority string) bool
}

// signed recognises signatures of requests (RFC 9421) by the keys that a route
// takes. It reads heads alone: the caller claims the nonce and compares the content.
type signed struct {
	auth       *Auth
	verifier   *httpsig.Verifier
	principals []string // whose keys count; nil: of all
	publicKeys bool     // some verify by public-key work, which forgers must not order
	accept     string   // Accept-Signature
}

// newSigned makes the authenticator for the keys of these principals, or of all.
func (a *Auth) newSigned(principals []string, d SignatureDemand) (*signed, error) {
	s := &signed{auth: a, principals: principals}
	policy := httpsig.RequestPolicy()
	policy.MaxAge, policy.Skew = a.maxAge, a.skew
	policy.RequireNonce = false // a key's to say, so asked once the key is known
	policy.IfPresent = append(policy.IfPresent, d.Cover...)
	policy.Algorithms = nil
	if d.HeadersOnly {
		policy.Require = nil
	}
	for _, k := range a.keys {
		if slices.Contains(k.uses, VerifyRequest) && s.takes(k) && !slices.Contains(policy.Algorithms, k.key.Algorithm()) {
			policy.Algorithms = append(policy.Algorithms, k.key.Algorithm())
		}
	}
	if len(policy.Algorithms) == 0 {
		return nil, errors.New("no signing key could prove such a caller")
	}
	s.publicKeys = slices.Contains(policy.Algorithms, httpsig.Ed25519)
	var err error
	s.verifier, err = httpsig.NewVerifier(policy, httpsig.VerifierOptions{Key: s.key, Authority: d.Authority, Now: a.now})
	if err != nil {
		return nil, err
	}
	wanted := httpsig.Wanted{Label: "sp", Created: true, Tag: httpsig.TagRequest, Components: []string{"@method", "@authority", "@path", "@query"}}
	if !d.HeadersOnly {
		wanted.Components = append(wanted.Components, "content-digest")
	}
	s.accept, err = httpsig.FormatAcceptSignature(wanted)
	return s, err
}

// takes says whether the route takes the key's principal.
func (s *signed) takes(k *SigningKey) bool {
	return s.principals == nil || slices.Contains(s.principals, k.principal.Name)
}

// key finds a key that verifies requests of this route now. To the verifier one
// that does not is like one that does not exist.
func (s *signed) key(id string) *httpsig.Key {
	k := s.auth.keys[id]
	if k == nil || !s.takes(k) {
		return nil
	}
	return k.For(VerifyRequest, s.auth.now())
}

// verify returns who signed the head, and the signature. Without one of ours there
// the error is [ErrNoCredential], and of type [*Error] where it does not hold.
func (s *signed) verify(head *message.Head, peer netip.Addr) (identity.Principal, *httpsig.Signature, error) {
	var now time.Time
	if s.publicKeys {
		if now = s.auth.now(); !s.auth.budget.left(peer, now) {
			return identity.Principal{}, nil, &Error{Reason: TooManyFailures}
		}
	}
	m := Message(head)
	signature, err := s.verifier.Verify(&m)
	if err != nil {
		var fault *httpsig.Error
		if !errors.As(err, &fault) {
			return identity.Principal{}, nil, bad(err)
		}
		if fault.Code == httpsig.Missing {
			return identity.Principal{}, nil, ErrNoCredential
		}
		if s.publicKeys && fault.Code.Public() == httpsig.BadSignature {
			s.auth.budget.charge(peer, now)
		}
		return identity.Principal{}, nil, &Error{Reason: string(fault.Code.Public()), Err: fault}
	}
	k := s.auth.keys[signature.Key.ID()]
	if k.requireNonce && signature.Nonce == "" {
		return identity.Principal{}, nil, &Error{Reason: string(httpsig.Malformed), KeyID: k.key.ID(), Err: errNoNonce}
	}
	return k.principal, signature, nil
}

var errNoNonce = errors.New("the signature has no nonce, which this key demands")

// Message is a request as its client signed it: byte for byte as sent.
func Message(head *message.Head) httpsig.Message {
	m := httpsig.Message{Method: head.Method, Scheme: head.Scheme, Authority: head.Authority, Fields: &head.Fields}
	m.Path, m.Query, m.HasQuery = strings.Cut(head.Target, "?")
	return m
}
