package auth

import (
	"errors"
	"net/netip"
	"slices"
	"strings"

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
	macs       *httpsig.Verifier // by secrets; nil: there are none
	publicKeys *httpsig.Verifier // by work that forgers must not order; nil: there are none
	principals []string          // whose keys count; nil: of all
	accept     string            // Accept-Signature
}

// newSigned makes the authenticator for the keys of these principals, or of all.
func (a *Auth) newSigned(principals []string, d SignatureDemand) (*signed, error) {
	s := &signed{auth: a, principals: principals}
	policy := httpsig.RequestPolicy()
	policy.MaxAge, policy.Skew = a.maxAge, a.skew
	policy.RequireNonce = false // a key's to say, so asked once the key is known
	policy.IfPresent = append(policy.IfPresent, d.Cover...)
	if d.HeadersOnly {
		policy.Require = nil
	}
	var err error
	for _, v := range []struct {
		to        **httpsig.Verifier
		algorithm httpsig.Algorithm
	}{{&s.macs, httpsig.HMACSHA256}, {&s.publicKeys, httpsig.Ed25519}} {
		if !s.has(v.algorithm) {
			continue
		}
		policy.Algorithms = []httpsig.Algorithm{v.algorithm}
		if *v.to, err = httpsig.NewVerifier(policy, httpsig.VerifierOptions{Key: s.key, Authority: d.Authority, Now: a.now}); err != nil {
			return nil, err
		}
	}
	if s.macs == nil && s.publicKeys == nil {
		return nil, errors.New("no signing key could prove such a caller")
	}
	wanted := httpsig.Wanted{Label: "sp", Created: true, Tag: httpsig.TagRequest, Components: []string{"@method", "@authority", "@path", "@query"}}
	if !d.HeadersOnly {
		wanted.Components = append(wanted.Components, "content-digest")
	}
	s.accept, err = httpsig.FormatAcceptSignature(wanted)
	return s, err
}

// has says whether a key of this algorithm verifies requests of the route.
func (s *signed) has(a httpsig.Algorithm) bool {
	for _, k := range s.auth.keys {
		if slices.Contains(k.uses, VerifyRequest) && s.takes(k) && k.key.Algorithm() == a {
			return true
		}
	}
	return false
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
	m := Message(head)
	signature, err := s.check(&m, peer)
	if err != nil {
		var fault *httpsig.Error
		if !errors.As(err, &fault) {
			return identity.Principal{}, nil, err
		}
		if fault.Code == httpsig.Missing {
			return identity.Principal{}, nil, ErrNoCredential
		}
		return identity.Principal{}, nil, &Error{Reason: string(fault.Code.Public()), Err: fault}
	}
	k := s.auth.keys[signature.Key.ID()]
	if k.requireNonce && signature.Nonce == "" {
		return identity.Principal{}, nil, &Error{Reason: string(httpsig.Malformed), KeyID: k.key.ID(), Err: errNoNonce}
	}
	return k.principal, signature, nil
}

// check verifies the signature by a secret or, where its length is not that of a MAC,
// by a public key. Only that is counted against the peer: MACs cost next to nothing,
// and who makes them shares an address with others.
func (s *signed) check(m *httpsig.Message, peer netip.Addr) (*httpsig.Signature, error) {
	if s.macs != nil {
		signature, err := s.macs.Verify(m)
		if s.publicKeys == nil || codeOf(err) != httpsig.Malformed {
			return signature, err
		}
	}
	now := s.auth.now()
	if _, there := m.Fields.Line("signature", 0); there && !s.auth.budget.left(peer, now) {
		return nil, &Error{Reason: TooManyFailures}
	}
	signature, err := s.publicKeys.Verify(m)
	if codeOf(err).Public() == httpsig.BadSignature {
		s.auth.budget.charge(peer, now)
	}
	return signature, err
}

// codeOf is the code of an error of package httpsig, "" of others.
func codeOf(err error) httpsig.Code {
	var fault *httpsig.Error
	if errors.As(err, &fault) {
		return fault.Code
	}
	return ""
}

var errNoNonce = errors.New("the signature has no nonce, which this key demands")

// Message is a request as its client signed it: byte for byte as sent.
func Message(head *message.Head) httpsig.Message {
	m := httpsig.Message{Method: head.Method, Scheme: head.Scheme, Authority: head.Authority, Fields: &head.Fields}
	m.Path, m.Query, m.HasQuery = strings.Cut(head.Target, "?")
	return m
}
