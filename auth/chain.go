package auth

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strings"

	"sallyport/auth/httpsig"
	"sallyport/auth/identity"
	"sallyport/proxy/message"
)

// Demand is what a route lists.
type Demand struct {
	// Callers are "issuer/NAME" for bearer tokens of that issuer, "key/NAME" for
	// signatures by keys of that principal, "key" for those of all, or "anonymous"
	// alone. Never empty.
	Callers []string
	// All demands a proof of each kind that Callers lists, instead of one. The first
	// is the caller, and the others must be of the same alias.
	All bool
	// Independent lets several proofs be of different callers.
	Independent bool
	Audience    []string // narrows the audiences of the issuers; nil leaves them as they are
	Signatures  SignatureDemand
}

// Proof is what the head of a request proves. The zero Proof proves nothing.
type Proof struct {
	Caller identity.Principal
	// Signature is the one that held, nil if there was none. Its nonce is not
	// claimed and its digest not compared yet.
	Signature *httpsig.Signature
}

// Chain is the authenticators of a route. The nil and the zero Chain admit
// nobody. It is safe for concurrent use.
type Chain struct {
	anonymous bool
	bearer    Authenticator // nil: no tokens are taken
	signed    *signed       // nil: no signatures are taken

	keys        bool // a signature proves a caller by itself
	signedFirst bool // of two proofs the signature names the caller; see choose
	all         bool // tokens and signatures are demanded both
	always      bool // a signature is demanded of whoever calls
	independent bool
	aliases     map[string]string
}

// Route makes the chain of a route. Its error names what the demand cannot mean.
func (a *Auth) Route(d Demand) (*Chain, error) {
	if len(d.Callers) == 0 {
		return nil, errors.New("a route without callers admits nobody")
	}
	if slices.Contains(d.Callers, "anonymous") {
		return anonymousChain(d)
	}
	c := &Chain{all: d.All, always: d.Signatures.Always, independent: d.Independent, aliases: a.aliases}
	b := &bearer{auth: a}
	every, principals := false, []string(nil)
	for i, caller := range d.Callers {
		if slices.Index(d.Callers, caller) < i {
			return nil, fmt.Errorf("caller %q is listed twice", caller)
		}
		if name, ok := strings.CutPrefix(caller, "key/"); ok || caller == "key" {
			c.keys, every = true, every || caller == "key"
			principals = append(principals, name)
			c.signedFirst = c.signedFirst || len(b.candidates) == 0
			continue
		}
		one, err := a.candidate(caller, d.Audience)
		if err != nil {
			return nil, err
		}
		b.candidates = append(b.candidates, one)
	}
	for _, aud := range d.Audience {
		if !slices.ContainsFunc(b.candidates, func(c candidate) bool { return slices.Contains(c.audience, aud) }) {
			return nil, fmt.Errorf("audience %q is of none of the route's issuers: a route can only narrow theirs", aud)
		}
	}
	if len(b.candidates) > 0 {
		c.bearer = b
	}
	if c.keys || c.always {
		if every || !c.keys {
			principals = nil
		}
		var err error
		if c.signed, err = a.newSigned(principals, d.Signatures); err != nil {
			return nil, err
		}
	}
	if c.all && (c.bearer == nil || !c.keys) {
		return nil, errors.New("all of one kind of proof is that kind: list two kinds, or no all")
	}
	return c, nil
}

func anonymousChain(d Demand) (*Chain, error) {
	switch {
	case len(d.Callers) > 1:
		return nil, errors.New("anonymous must be the only caller: a route that admits anyone checks nobody")
	case len(d.Audience) > 0:
		return nil, errors.New("an anonymous route checks no token, so it has no audience")
	case d.All || d.Signatures.Always:
		return nil, errors.New("an anonymous route checks no signature")
	}
	return &Chain{anonymous: true}, nil
}

// candidate is an issuer as the route takes it.
func (a *Auth) candidate(caller string, audience []string) (candidate, error) {
	name, ok := strings.CutPrefix(caller, "issuer/")
	iss := a.issuers[name]
	if !ok || iss == nil {
		return candidate{}, fmt.Errorf("unknown caller %q", caller)
	}
	kept, err := narrow(iss, audience)
	return candidate{iss: iss, audience: kept}, err
}

// Authenticate returns what the head proves. peer is the client's address, for its
// budget of failures. The error is always an [*Error]; with it, the Proof may hold
// a signature, so that the refusal can be signed, and never a caller.
//
// A signature that the route takes must hold if it is there, whatever else proves
// the caller: who signed wants to be refused if the message was changed.
func (c *Chain) Authenticate(ctx context.Context, head *message.Head, peer netip.Addr) (Proof, error) {
	switch {
	case c == nil || !c.anonymous && c.bearer == nil && c.signed == nil:
		return Proof{}, &Error{Reason: NoCredential}
	case c.anonymous:
		// It reads nothing: a credential here proves nothing and must not look as if it did.
		return Proof{Caller: identity.Anonymous()}, nil
	}
	var proof Proof
	var signer, holder identity.Principal
	if c.signed != nil {
		var err error
		signer, proof.Signature, err = c.signed.verify(head, peer)
		if err != nil && !errors.Is(err, ErrNoCredential) {
			return Proof{}, asError(err)
		}
	}
	if c.bearer != nil {
		var err error
		holder, err = c.bearer.Authenticate(ctx, head, peer)
		if err != nil && !errors.Is(err, ErrNoCredential) {
			return proof, asError(err)
		}
	}
	signer.Alias, holder.Alias = c.alias(&signer), c.alias(&holder)
	caller, err := c.choose(signer, holder, proof.Signature != nil && proof.Signature.Covers("authorization"))
	if err != nil {
		if err.Reason == NoCredential && head.Fields.Has("authorization") {
			err = &Error{Reason: UnlistedCredential}
		}
		return proof, err
	}
	proof.Caller = caller
	return proof, nil
}

// alias is the one name of a caller who has several; "" for others.
func (c *Chain) alias(p *identity.Principal) string {
	if len(c.aliases) == 0 || p.IsZero() {
		return ""
	}
	return c.aliases[p.String()]
}

// choose finds the caller among those that were proved; nobody stands for a proof
// that is not there. Where either would do and both are there, the caller is who
// signed, unless that covers the token: else whoever could add a token on the way
// would change whose request it is.
func (c *Chain) choose(signer, holder identity.Principal, tokenSigned bool) (identity.Principal, *Error) {
	none := identity.Principal{}
	switch {
	case c.bearer == nil && signer.IsZero():
		return none, &Error{Reason: SignatureMissing}
	case c.bearer == nil:
		return signer, nil
	case c.all && holder.IsZero():
		return none, &Error{Reason: NoCredential}
	case (c.all || c.always) && signer.IsZero():
		return none, &Error{Reason: SignatureMissing}
	case holder.IsZero() && (signer.IsZero() || !c.keys):
		return none, &Error{Reason: NoCredential}
	case holder.IsZero():
		return signer, nil
	case signer.IsZero():
		return holder, nil
	case !c.independent && (c.all || c.always) && (signer.Alias == "" || signer.Alias != holder.Alias):
		return none, &Error{Reason: ProofsDiffer, KeyID: signer.KeyID,
			Err: fmt.Errorf("%s signed with the token of %s, and no entry of principals has both", signer.String(), holder.String())}
	case c.signedFirst, !c.all && !c.always && !tokenSigned:
		return signer, nil
	}
	return holder, nil
}

// Anonymous says whether the chain admits callers without asking who they are.
func (c *Chain) Anonymous() bool { return c != nil && c.anonymous }

// Signs says whether the chain takes signatures.
func (c *Chain) Signs() bool { return c != nil && c.signed != nil }
