package auth

import (
	"context"
	"errors"
	"net/netip"
	"slices"
	"strings"

	"sallyport/auth/httpsig"
	"sallyport/proxy/message"
)

// SignatureDemand is what a route demands of the signatures of requests.
type SignatureDemand struct {
	// Always demands a signature beside every other proof.
	Always bool
	// Cover are further fields, in lower case, that must be covered where the
	// request has them.
	Cover []string
	// HeadersOnly lets the content be unsigned: the digest need not be covered.
	HeadersOnly bool
	// Authority reports whether requests may be for this authority, as it is signed;
	// nil: for none.
	Authority func(authority string) bool
}

// signed checks signatures of requests (RFC 9421) by the keys that a route takes. It
// reads heads alone: its user claims the nonce and compares the content.
type signed struct {
	auth       *Auth
	macs       *httpsig.Verifier // by secrets; nil: there are none
	publicKeys *httpsig.Verifier // by public keys, at a cost that is budgeted; nil: there are none
	principals []string          // whose keys count; nil: those of all
	accept     string            // Accept-Signature
}

// newSigned makes the authenticator for callers that are all "key/PRINCIPAL" or
// "key"; none stands for "key".
func (a *Auth) newSigned(callers []string, d *Demand) (Authenticator, error) {
	s := &signed{auth: a}
	if !slices.Contains(callers, "key") {
		for _, caller := range callers {
			s.principals = append(s.principals, strings.TrimPrefix(caller, "key/"))
		}
	}
	policy := httpsig.RequestPolicy()
	policy.MaxAge, policy.Skew = a.maxAge, a.skew
	policy.RequireNonce = false // that depends on the key, so it is checked once that is known
	policy.IfPresent = append(policy.IfPresent, d.Signatures.Cover...)
	if d.Signatures.HeadersOnly {
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
		if *v.to, err = httpsig.NewVerifier(policy, httpsig.VerifierOptions{Key: s.key, Authority: d.Signatures.Authority, Now: a.memory.now}); err != nil {
			return nil, err
		}
	}
	if s.macs == nil && s.publicKeys == nil {
		return nil, errors.New("no signing key could prove such a caller")
	}
	wanted := httpsig.Wanted{Label: "sp", Created: true, Tag: httpsig.TagRequest, Components: []string{"@method", "@authority", "@path", "@query"}}
	if !d.Signatures.HeadersOnly {
		wanted.Components = append(wanted.Components, "content-digest")
	}
	if s.accept, err = httpsig.FormatAcceptSignature(wanted); err != nil {
		return nil, err
	}
	return s, nil
}

// has reports whether a key of this algorithm verifies requests of the route.
func (s *signed) has(a httpsig.Algorithm) bool {
	for _, k := range s.auth.keys {
		if slices.Contains(k.uses, VerifyRequest) && s.takes(k) && k.key.Algorithm() == a {
			return true
		}
	}
	return false
}

// takes reports whether the route takes the key's principal.
func (s *signed) takes(k *SigningKey) bool {
	return s.principals == nil || slices.Contains(s.principals, k.principal.Name)
}

// key finds a key that verifies requests of this route now. The verifier treats any
// other key as unknown.
func (s *signed) key(id string) *httpsig.Key {
	k := s.auth.keys[id]
	if k == nil || !s.takes(k) {
		return nil
	}
	return k.For(VerifyRequest, s.auth.memory.now())
}

// Traits implements [Authenticator].
func (s *signed) Traits() Traits {
	return Traits{Missing: SignatureMissing, Field: "signature", AcceptSignature: s.accept}
}

// Challenge implements [Authenticator]. The scheme has this name only here; what a
// signature must cover is in Accept-Signature.
func (s *signed) Challenge(realm string, _ *Error) string { return "Signature realm=" + quoted(realm) }

// Authenticate implements [Authenticator].
func (s *signed) Authenticate(_ context.Context, r *Request) (Proof, error) {
	m := Message(r.Head)
	signature, err := s.check(&m, r.Peer)
	if codeOf(err) == httpsig.Missing {
		return Proof{}, ErrNoCredential
	}
	if err != nil {
		return Proof{}, refusalOf(err)
	}
	k := s.auth.keys[signature.Key.ID()]
	if k.requireNonce && signature.Nonce == "" {
		return Proof{}, &Error{Reason: string(httpsig.Malformed), KeyID: k.key.ID(), Err: errNoNonce}
	}
	return Proof{Caller: k.principal, Signature: signature}, nil
}

// Recheck implements [Authenticator]. A signature that the earlier chain did not
// verify proves nothing.
func (s *signed) Recheck(_ context.Context, r *Request, earlier Proof) (Proof, error) {
	if earlier.Signature == nil {
		return Proof{}, ErrNoCredential
	}
	m := Message(r.Head)
	v := s.macs
	if v == nil || earlier.Signature.Key.Algorithm() != httpsig.HMACSHA256 && s.publicKeys != nil {
		v = s.publicKeys
	}
	if err := v.Recheck(&m, earlier.Signature); err != nil {
		return Proof{}, refusalOf(err)
	}
	return Proof{Caller: s.auth.keys[earlier.Signature.Key.ID()].principal, Signature: earlier.Signature}, nil
}

// refusalOf is an error of package httpsig as an [*Error]; others are returned as they are.
func refusalOf(err error) error {
	var fault *httpsig.Error
	if !errors.As(err, &fault) {
		return err
	}
	return &Error{Reason: string(fault.Code.Public()), Err: fault}
}

// check verifies the signature by a secret or, if its length is not that of a MAC, by
// a public key. Only failures of public keys are counted against the peer: a MAC
// costs next to nothing, and honest signers may share an address with a forger.
func (s *signed) check(m *httpsig.Message, peer netip.Addr) (*httpsig.Signature, error) {
	if s.macs != nil {
		signature, err := s.macs.Verify(m)
		if s.publicKeys == nil || codeOf(err) != httpsig.Malformed {
			return signature, err
		}
	}
	now := s.auth.memory.now()
	if _, there := m.Fields.Line("signature", 0); there && !s.auth.memory.budget.left(peer, now) {
		return nil, &Error{Reason: TooManyFailures}
	}
	signature, err := s.publicKeys.Verify(m)
	if codeOf(err).Public() == httpsig.BadSignature {
		s.auth.memory.budget.charge(peer, now)
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

// Message is a request in the form in which its client signed it: byte for byte as sent.
func Message(head *message.Head) httpsig.Message {
	m := httpsig.Message{Method: head.Method, Scheme: head.Scheme, Authority: head.Authority, Fields: &head.Fields}
	m.Path, m.Query, m.HasQuery = strings.Cut(head.Target, "?")
	return m
}
