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

// SignatureDemand is a route's requirements on the signatures of requests.
type SignatureDemand struct {
	// Always requires a signature besides any other credential.
	Always bool
	// Cover are further fields, in lower case, that a signature must cover if the
	// request has them.
	Cover []string
	// HeadersOnly accepts signatures that do not cover the digest of the content.
	HeadersOnly bool
	// Authority reports whether requests for this signed authority are accepted. Nil
	// accepts none.
	Authority func(authority string) bool
}

// signed verifies signatures of requests (RFC 9421) by the keys that a route accepts.
// It reads only heads: the user of the [Proof] claims the nonce and compares the content.
type signed struct {
	auth       *Auth
	macs       *httpsig.Verifier // for secrets; nil if the route accepts none
	publicKeys *httpsig.Verifier // for public keys, limited by the budget; nil if the route accepts none
	principals []string          // whose keys are accepted; nil: any
	accept     string            // the value of Accept-Signature
}

// newSigned makes the authenticator for callers that are all "key/PRINCIPAL" or "key".
// No callers means "key".
func (a *Auth) newSigned(callers []string, d *Demand) (Authenticator, error) {
	s := &signed{auth: a}
	if !slices.Contains(callers, "key") {
		for _, caller := range callers {
			s.principals = append(s.principals, strings.TrimPrefix(caller, "key/"))
		}
	}
	policy := httpsig.RequestPolicy()
	policy.MaxAge, policy.Skew = a.maxAge, a.skew
	policy.RequireNonce = false // depends on the key: Authenticate checks it
	policy.IfPresent = append(policy.IfPresent, d.Signatures.Cover...)
	if d.Signatures.HeadersOnly {
		policy.Require = nil
	}
	var err error
	for _, v := range []struct {
		to        **httpsig.Verifier
		algorithm httpsig.Algorithm
	}{{&s.macs, httpsig.HMACSHA256}, {&s.publicKeys, httpsig.Ed25519}} {
		if !s.acceptsAlgorithm(v.algorithm) {
			continue
		}
		policy.Algorithms = []httpsig.Algorithm{v.algorithm}
		if *v.to, err = httpsig.NewVerifier(policy, httpsig.VerifierOptions{Key: s.key, Usable: a.usable, Authority: d.Signatures.Authority, Now: a.memory.now}); err != nil {
			return nil, err
		}
	}
	if s.macs == nil && s.publicKeys == nil {
		return nil, errors.New("no signing key verifies requests of these callers")
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

// acceptsAlgorithm reports whether a key of this algorithm verifies requests of the route.
func (s *signed) acceptsAlgorithm(a httpsig.Algorithm) bool {
	for _, k := range s.auth.keys {
		if slices.Contains(k.uses, VerifyRequest) && s.accepts(k) && k.key.Algorithm() == a {
			return true
		}
	}
	return false
}

// accepts reports whether the route accepts the key's principal.
func (s *signed) accepts(k *SigningKey) bool {
	return s.principals == nil || slices.Contains(s.principals, k.principal.Name)
}

// key returns the key with this id if it verifies requests of the route, or nil.
func (s *signed) key(id string) *httpsig.Key {
	k := s.auth.keys[id]
	if k == nil || !s.accepts(k) {
		return nil
	}
	return k.Whenever(VerifyRequest)
}

// usable returns why the key with this id is not valid now, or nil.
func (a *Auth) usable(id string) *httpsig.Error { return a.keys[id].Usable(a.memory.now()) }

// Traits implements [Authenticator].
func (s *signed) Traits() Traits {
	return Traits{Missing: SignatureMissing, AcceptSignature: s.accept}
}

// Challenge implements [Authenticator]. The scheme "Signature" is not registered; the
// client reads Accept-Signature to learn what to sign.
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
	return Proof{Caller: k.principal, Signature: signature, Field: "signature"}, nil
}

// Recheck implements [Authenticator]. It accepts only the signature that the earlier
// chain verified.
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
	return Proof{Caller: s.auth.keys[earlier.Signature.Key.ID()].principal, Signature: earlier.Signature, Field: "signature"}, nil
}

// refusalOf converts an error of package httpsig to an [*Error] and returns any other
// error unchanged.
func refusalOf(err error) error {
	var fault *httpsig.Error
	if !errors.As(err, &fault) {
		return err
	}
	return &Error{Reason: string(fault.Code.Public()), KeyID: fault.KeyID, Err: fault}
}

// check verifies the signature with a secret or, if it does not have the length of a
// MAC, with a public key. Only failures with public keys count against the peer: a MAC
// is cheap, and honest signers may share an address with a forger.
func (s *signed) check(m *httpsig.Message, peer netip.Addr) (*httpsig.Signature, error) {
	if s.macs != nil {
		signature, err := s.macs.Verify(m)
		if s.publicKeys == nil || codeOf(err) != httpsig.Malformed {
			return signature, err
		}
	}
	now := s.auth.memory.now()
	if _, present := m.Fields.Line("signature", 0); present && !s.auth.memory.budget.left(peer, now) {
		return nil, tooManyFailures(s.auth.memory.budget, peer)
	}
	signature, err := s.publicKeys.Verify(m)
	if codeOf(err).Public() == httpsig.BadSignature {
		s.auth.memory.budget.charge(peer, now)
	}
	return signature, err
}

// codeOf returns the code of an error of package httpsig, "" for any other error.
func codeOf(err error) httpsig.Code {
	var fault *httpsig.Error
	if errors.As(err, &fault) {
		return fault.Code
	}
	return ""
}

var errNoNonce = errors.New("the signature has no nonce, and the key has require_nonce")

// Message returns a request as its client signed it: byte for byte as sent.
func Message(head *message.Head) httpsig.Message {
	m := httpsig.Message{Method: head.Method, Scheme: head.Scheme, Authority: head.Authority, Fields: &head.Fields}
	m.Path, m.Query, m.HasQuery = strings.Cut(head.Target, "?")
	return m
}
