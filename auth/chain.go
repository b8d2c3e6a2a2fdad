package auth

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"

	"sallyport/auth/httpsig"
	"sallyport/auth/identity"
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

// Proof is what a request proves. The zero Proof proves nothing.
type Proof struct {
	Caller identity.Principal
	// Signature is the verified signature of the request, nil if there is none. Its
	// nonce is not claimed and its digest is not compared yet.
	Signature *httpsig.Signature
}

// Chain is the kinds of credentials that a route takes. The nil and the zero Chain
// admit nobody. It is safe for concurrent use.
type Chain struct {
	anonymous bool
	kinds     []kind // in the order in which they are checked
	demanding bool   // there are kinds that must be proved
	bind      bool   // several proofs must be of one alias
	aliases   map[string]string
}

// kind is a kind of credential as the route takes it.
type kind struct {
	Authenticator
	traits   Traits
	place    int  // in the order in which the route lists the kinds
	caller   bool // the route lists it: it proves a caller by itself
	demanded bool // it must be proved, whatever else is
}

// signs reports whether the kind is signatures of messages.
func (k *kind) signs() bool { return k.traits.AcceptSignature != "" }

// newKind returns what makes the authenticator for callers that are written as word
// or word/NAME; nil if there is no such kind. A new kind of credential is added here.
func (a *Auth) newKind(word string) func(callers []string, d *Demand) (Authenticator, error) {
	switch word {
	case "issuer":
		return a.newBearer
	case "key":
		return a.newSigned
	}
	return nil
}

// Route makes the chain of a route. Its error says what is wrong with the demand.
func (a *Auth) Route(d Demand) (*Chain, error) {
	if len(d.Callers) == 0 {
		return nil, errors.New("a route without callers admits nobody")
	}
	if slices.Contains(d.Callers, "anonymous") {
		return anonymousChain(d)
	}
	c := &Chain{demanding: d.All || d.Signatures.Always, aliases: a.aliases}
	c.bind = c.demanding && !d.Independent
	words, callers, err := byKind(d.Callers)
	if err != nil {
		return nil, err
	}
	for i, word := range words {
		if err := a.addKind(c, word, callers[word], kind{place: i, caller: true, demanded: d.All}, &d); err != nil {
			return nil, err
		}
	}
	for _, aud := range d.Audience {
		if !a.hasAudience(callers["issuer"], aud) {
			return nil, fmt.Errorf("audience %q is of none of the route's issuers: a route can only narrow theirs", aud)
		}
	}
	if d.All && len(words) < 2 {
		return nil, errors.New("all of one kind of proof is that kind: list two kinds, or no all")
	}
	if d.Signatures.Always {
		if err := a.demandSignature(c, &d); err != nil {
			return nil, err
		}
	}
	// Signatures first: who signed wants to be refused if the message was changed,
	// whatever else it proves.
	slices.SortStableFunc(c.kinds, func(x, y kind) int {
		switch {
		case x.signs() == y.signs():
			return 0
		case x.signs():
			return -1
		}
		return 1
	})
	return c, nil
}

// byKind groups callers by the word before the slash. words keeps their order.
func byKind(all []string) (words []string, callers map[string][]string, err error) {
	callers = map[string][]string{}
	for i, caller := range all {
		if slices.Index(all, caller) < i {
			return nil, nil, fmt.Errorf("caller %q is listed twice", caller)
		}
		word, _, _ := strings.Cut(caller, "/")
		if callers[word] == nil {
			words = append(words, word)
		}
		callers[word] = append(callers[word], caller)
	}
	return words, callers, nil
}

func (a *Auth) addKind(c *Chain, word string, callers []string, k kind, d *Demand) error {
	create := a.newKind(word)
	if create == nil {
		return fmt.Errorf("unknown caller %q", callers[0])
	}
	var err error
	if k.Authenticator, err = create(callers, d); err != nil {
		return err
	}
	k.traits = k.Traits()
	c.kinds = append(c.kinds, k)
	return nil
}

// demandSignature makes the chain demand a signature beside every other proof, by
// the keys that the route lists, or by any key if it lists none.
func (a *Auth) demandSignature(c *Chain, d *Demand) error {
	for i := range c.kinds {
		if c.kinds[i].signs() {
			c.kinds[i].demanded = true
			return nil
		}
	}
	return a.addKind(c, "key", nil, kind{place: len(c.kinds), demanded: true}, d)
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

// Authenticate returns what the request proves. The error is always an [*Error].
// With it, the Proof may hold a signature, so that the refusal can be signed, and
// never a caller.
//
// A signature that the route takes must hold if it is there, whatever else proves
// the caller.
func (c *Chain) Authenticate(ctx context.Context, r *Request) (Proof, error) {
	return c.prove(ctx, r, nil)
}

// Recheck is [Chain.Authenticate] for a request in flight that an older chain
// accepted with the proof earlier: it returns what the request proves under this
// one. Tokens are checked again, and no failure is counted against the client's
// address. Of a signature, its key, coverage and authority are checked, and neither
// its age nor its nonce. A caller other than before is refused as [BadCredential],
// but a chain that admits everyone admits the request as anonymous.
func (c *Chain) Recheck(ctx context.Context, r *Request, earlier Proof) (Proof, error) {
	proof, err := c.prove(ctx, r, &earlier)
	if err == nil && !c.anonymous && proof.Caller.String() != earlier.Caller.String() {
		return Proof{Signature: proof.Signature}, bad(fmt.Errorf("the request of %s would now be one of %s", earlier.Caller.String(), proof.Caller.String()))
	}
	return proof, err
}

// given is a kind of credential that the request has, and whom it proves.
type given struct {
	kind   *kind
	caller identity.Principal
}

// prove checks each kind of credential, against an earlier proof unless that is nil.
func (c *Chain) prove(ctx context.Context, r *Request, earlier *Proof) (Proof, error) {
	switch {
	case c == nil || !c.anonymous && len(c.kinds) == 0:
		return Proof{}, &Error{Reason: NoCredential}
	case c.anonymous:
		// It reads nothing: a credential here proves nothing and must not look as if it did.
		return Proof{Caller: identity.Anonymous()}, nil
	}
	var room [2]given
	all := room[:0]
	var signature *httpsig.Signature
	missing := ""
	for i := range c.kinds {
		k := &c.kinds[i]
		var proof Proof
		var err error
		if earlier == nil {
			proof, err = k.Authenticate(ctx, r)
		} else {
			proof, err = k.Recheck(ctx, r, *earlier)
		}
		switch {
		case err == nil:
		case !errors.Is(err, ErrNoCredential):
			return Proof{Signature: signature}, asError(err)
		default:
			if k.demanded {
				// The last one counts: a signature is asked for once all else is there.
				missing = k.traits.Missing
			}
			continue
		}
		if proof.Signature != nil {
			signature = proof.Signature
		}
		proof.Caller.Alias = c.alias(&proof.Caller)
		all = append(all, given{k, proof.Caller})
	}
	if missing == "" && !slices.ContainsFunc(all, func(g given) bool { return g.kind.caller }) {
		missing = c.kinds[len(c.kinds)-1].traits.Missing
	}
	if missing != "" {
		if missing == NoCredential && r.Head.Fields.Has("authorization") {
			missing = UnlistedCredential
		}
		return Proof{Signature: signature}, &Error{Reason: missing}
	}
	caller, err := c.choose(all, signature)
	if err != nil {
		return Proof{Signature: signature}, err
	}
	return Proof{Caller: *caller, Signature: signature}, nil
}

// alias is the one name of a caller who has several; "" for others.
func (c *Chain) alias(p *identity.Principal) string {
	if len(c.aliases) == 0 || p.IsZero() {
		return ""
	}
	return c.aliases[p.String()]
}

// choose finds the caller among those who were proved, of whom at least one is of a
// listed kind. It is the first in the order of the route. But if any kind would do
// and the request is signed, the caller is who signed it, unless the signature
// covers the other credential: otherwise whoever can add a credential on the way
// could change whose request it is.
func (c *Chain) choose(all []given, signature *httpsig.Signature) (*identity.Principal, *Error) {
	var first, signer *given
	for i := range all {
		g := &all[i]
		if g.kind.caller && (first == nil || g.kind.place < first.kind.place) {
			first = g
		}
		if g.kind.signs() {
			signer = g
		}
	}
	if c.bind {
		for i := range all {
			g := &all[i]
			if g == first || g.caller.Alias != "" && g.caller.Alias == first.caller.Alias {
				continue
			}
			e := &Error{Reason: ProofsDiffer, KeyID: first.caller.KeyID,
				Err: fmt.Errorf("%s and %s were both proved, and no entry of principals has both", first.caller.String(), g.caller.String())}
			if signer != nil {
				e.KeyID = signer.caller.KeyID
			}
			return nil, e
		}
	}
	if !c.demanding && signer != nil && first.kind.traits.Field != "" && !first.kind.signs() && !signature.Covers(first.kind.traits.Field) {
		return &signer.caller, nil
	}
	return &first.caller, nil
}

// Anonymous reports whether the chain admits callers without asking who they are.
func (c *Chain) Anonymous() bool { return c != nil && c.anonymous }

// Signs reports whether the chain takes signatures.
func (c *Chain) Signs() bool { return c.AcceptSignature() != "" }

// AcceptSignature is the value of Accept-Signature that goes with a 401 (RFC 9421,
// section 5): what a signature must cover; "" if the chain takes none.
func (c *Chain) AcceptSignature() string {
	if c != nil {
		for i := range c.kinds {
			if c.kinds[i].signs() {
				return c.kinds[i].traits.AcceptSignature
			}
		}
	}
	return ""
}

// Challenge is the value of WWW-Authenticate that goes with an error of the chain
// (RFC 9110, section 11.6.1), "" if none is due. A chain that takes signatures and
// other credentials names only the others: [Chain.AcceptSignature] says the rest.
func (c *Chain) Challenge(realm string, err error) string {
	e := asError(err)
	if c == nil || e.Status() != 401 {
		return ""
	}
	var all []string
	for i := range c.kinds {
		k := &c.kinds[i]
		if k.signs() && len(c.kinds) > 1 {
			continue
		}
		if one := k.Challenge(realm, e); one != "" {
			all = append(all, one)
		}
	}
	return strings.Join(all, ", ")
}
