package auth

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync/atomic"

	"sallyport/auth/httpsig"
	"sallyport/auth/identity"
	"sallyport/auth/login"
	"sallyport/proxy/setting"
)

// Demand lists the callers that a route admits and the credentials that it requires.
type Demand struct {
	// Callers are "issuer/NAME" for bearer tokens of that issuer, "key/NAME" for
	// signatures by keys of that principal, "key" for signatures by any key, "apikey/NAME"
	// and "apikey" likewise for API keys, "cert/NAME" and "cert" likewise for client
	// certificates, "basic/NAME" for passwords of that entry, "login/NAME" for people who signed in
	// there, or "anonymous" alone. Never empty.
	Callers []string
	// All requires a credential of each kind that Callers lists, instead of one. The
	// first proves the caller; the others must belong to the same alias.
	All bool
	// Independent lets several credentials belong to different callers.
	Independent bool
	// StepUp is how the owners of tokens and sessions must have proved themselves to the issuer; nil:
	// in any way. Every token and session of a request is held to it, also one that proves no caller. With All,
	// one kind of the callers must be tokens or sessions; else, all of them.
	StepUp     *StepUp
	Audience   []string // narrows the audiences of the issuers; nil leaves them as they are
	Signatures SignatureDemand
	// Passed are the tokens of the issuer that the server behind gets. A session needs them then, valid ones.
	Passed login.Passed
	// Subprotocols are the forms in which a WebSocket handshake may have the bearer token or API key.
	Subprotocols SubprotocolForms
}

// Proof is the outcome of authenticating a request. The zero Proof proves nothing.
type Proof struct {
	Caller identity.Principal
	// Signature is the verified signature of the request, nil if there is none. The
	// user of the Proof must still claim its nonce and compare its digest.
	Signature *httpsig.Signature
	// Field is the lower-case name of the field that carried the credential; "" means that
	// nobody between client and gateway can add one, as with the certificate of a connection.
	Field string
	// Subprotocol means that the credential in [SubprotocolField] counted, whether or not it is Field's.
	Subprotocol bool
	// Ambient means that browsers send the credential that proves the caller whoever made the page.
	Ambient bool
	// Revocable means that the issuer may withdraw the credential before it expires, so that
	// the user of the Proof should recheck a long exchange now and then.
	Revocable bool
	// AsksIssuer means that a recheck may ask an issuer, and so wait for it.
	AsksIssuer bool
	// Session is the session of a login that the request has, whether or not it proves the caller; nil
	// for none.
	Session *login.Session
	// Authentication is how and when the caller was authenticated, where the route demands a step-up; zero
	// elsewhere.
	Authentication login.Authentication
	// Tokens are those of the caller that the route passes on: of a session the issuer's, and of a bearer token
	// itself in both places. Other callers have none. A recheck looks for none of a session.
	Tokens login.Tokens
	// Limited is the name of the API key whose own limits the request counts against; "" for none.
	Limited string
}

// Chain authenticates the requests of a route by the kinds of credentials that it
// accepts. The nil and the zero Chain admit nobody. It is safe for concurrent use.
type Chain struct {
	anonymous   bool
	kinds       []kind                       // in the order in which they are checked
	anyRequired bool                         // some kind is required
	bind        bool                         // several credentials must belong to one alias
	revoked     *atomic.Pointer[Revocations] // of the Auth; nil: none
	aliases     map[string]string
	takes       string // the list of callers, shortened, for causes in the audit record
	fields      string // those in which credentials of the route stand, for the same
	forms       SubprotocolForms
	unlisted    unlisted
}

// kind is a kind of credential that the route accepts.
type kind struct {
	Authenticator
	traits   Traits
	index    int  // in the order in which the route lists the kinds
	caller   bool // the route lists the kind, so it proves a caller by itself
	required bool // the request must have one, whatever other credentials it has
}

// signs reports whether the kind is message signatures.
func (k *kind) signs() bool { return k.traits.AcceptSignature != "" }

// general reports whether the kind has a registered scheme of WWW-Authenticate.
func (k *kind) general() bool { return k.traits.Missing == NoCredential }

// newKind returns the constructor of the authenticator for callers written as word or
// word/NAME; nil if there is no such kind. A new kind of credential is added here.
func (a *Auth) newKind(word string) func(callers []string, d *Demand) (Authenticator, error) {
	switch word {
	case "issuer":
		return a.newBearer
	case "key":
		return a.newSigned
	case "apikey":
		return a.newAPIKeys
	case "cert":
		return a.newCertificates
	case "basic":
		return a.newBasic
	case "login":
		return a.newSessions
	}
	return nil
}

// Route returns the chain of a route, or an error that names the fault of the demand.
func (a *Auth) Route(d Demand) (*Chain, error) {
	if len(d.Callers) == 0 {
		return nil, errors.New("a route without callers admits nobody")
	}
	if err := d.checkStepUp(); err != nil {
		return nil, err
	}
	if slices.Contains(d.Callers, "anonymous") {
		return anonymousChain(d)
	}
	c := &Chain{anyRequired: d.All || d.Signatures.Always, revoked: &a.revoked, aliases: a.aliases}
	c.bind = c.anyRequired && !d.Independent
	c.takes = setting.Shortened(strings.Join(a.places(d.Callers), ", "), 2*shownName)
	c.fields = a.fields(d.Callers)
	c.forms = d.Subprotocols
	words, callers, err := byKind(d.Callers)
	if err != nil {
		return nil, err
	}
	c.unlisted = a.newUnlisted(callers, d.Signatures.Always, d.Subprotocols)
	for i, word := range words {
		for _, group := range a.byField(callers[word]) {
			if err := a.addKind(c, word, group, kind{index: i, caller: true, required: d.All}, &d); err != nil {
				return nil, err
			}
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
		if err := a.requireSignature(c, &d); err != nil {
			return nil, err
		}
	}
	// Check signatures first: a signed message that was changed must be refused,
	// whatever other credentials it has. Certificates follow, since the last kind names the
	// reason if there is no credential: where there are several, that is not one of them.
	rank := func(k kind) int {
		switch {
		case k.signs():
			return 0
		case !k.general():
			return 1
		}
		return 2
	}
	slices.SortStableFunc(c.kinds, func(x, y kind) int { return rank(x) - rank(y) })
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
	if d.All && k.index > 0 { // it proves no caller, so the server gets no token of it
		other := *d
		other.Passed = login.Passed{}
		d = &other
	}
	var err error
	if k.Authenticator, err = create(callers, d); err != nil {
		return err
	}
	k.traits = k.Traits()
	c.kinds = append(c.kinds, k)
	return nil
}

// requireSignature makes the chain require a signature besides any other credential: by
// the keys that the route lists, or by any key if it lists none.
func (a *Auth) requireSignature(c *Chain, d *Demand) error {
	for i := range c.kinds {
		if c.kinds[i].signs() {
			c.kinds[i].required = true
			return nil
		}
	}
	return a.addKind(c, "key", nil, kind{index: len(c.kinds), required: true}, d)
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

// Authenticate returns the caller and the signature that the request proves. The error
// is always an [*Error]. With an error the Proof has no caller, but it may have the
// signature, so that the gateway can sign the refusal.
//
// A signature that the route accepts must verify if it is present, even if another
// credential proves the caller.
func (c *Chain) Authenticate(ctx context.Context, r *Request) (Proof, error) {
	return c.prove(ctx, r, nil)
}

// Recheck authenticates a request in flight again, under this chain. earlier is the
// proof that an older chain accepted. Recheck verifies tokens again, and counts no
// failure against the client's address. Of a signature it checks the key, coverage and
// authority, but neither age nor nonce. If the caller is another than before, it refuses
// with [BadCredential]; an anonymous chain admits the request as anonymous.
func (c *Chain) Recheck(ctx context.Context, r *Request, earlier Proof) (Proof, error) {
	proof, err := c.prove(ctx, r, &earlier)
	if err == nil && !c.anonymous && proof.Caller.String() != earlier.Caller.String() {
		return Proof{Signature: proof.Signature}, bad(fmt.Errorf("the caller of the request would change from %s to %s", earlier.Caller.String(), proof.Caller.String()))
	}
	return proof, err
}

// Revokes returns the refusal of a caller that was accepted before, if the caller or the credential
// is revoked now; otherwise nil. It asks no issuer.
func (c *Chain) Revokes(caller *identity.Principal) error {
	if c == nil || c.revoked == nil {
		return nil
	}
	if e := c.revoked.Load().refusal(caller); e != nil {
		return e
	}
	return nil
}

var errNobody = errors.New("the route admits nobody")

// proven is a credential that verified, with the caller that it proves.
type proven struct {
	kind   *kind
	caller identity.Principal
	field  string // that carried it
	tokens login.Tokens
}

// prove checks each kind of credential; with an earlier proof it rechecks.
func (c *Chain) prove(ctx context.Context, r *Request, earlier *Proof) (Proof, error) {
	switch {
	case c == nil || !c.anonymous && len(c.kinds) == 0:
		return Proof{}, &Error{Reason: NoCredential, Err: errNobody}
	case c.anonymous:
		// Ignore credentials: nothing here verifies them, so no record may name their caller.
		return Proof{Caller: identity.Anonymous()}, nil
	}
	if t := c.forms.read(r.Head); t != nil {
		own := *r
		own.subprotocol = t
		r = &own
	}
	var array [3]proven // saves an allocation
	all := array[:0]
	var joined Proof // without a caller, until one is chosen
	missing := ""
	revoked := c.revoked.Load()
	var stray, noToken error
	for i := range c.kinds {
		k := &c.kinds[i]
		if r.subprotocol != nil && k.traits.Ambient && !k.required {
			continue
		}
		var proof Proof
		var err error
		if earlier == nil {
			proof, err = k.Authenticate(ctx, r)
		} else {
			proof, err = k.Recheck(ctx, r, *earlier)
		}
		switch {
		case err == nil:
		case errors.Is(err, errNoBearer) && !k.required:
			noToken = err
			continue
		case !errors.Is(err, ErrNoCredential):
			return Proof{Signature: joined.Signature}, asError(err)
		default:
			if err != ErrNoCredential {
				stray = err
			}
			if k.required {
				// Report the last one: signatures are checked first, so a missing signature
				// is reported only if nothing else is missing.
				missing = k.traits.Missing
			}
			continue
		}
		if e := revoked.refusal(&proof.Caller); e != nil {
			refused := Proof{Signature: joined.Signature}
			if r.Look {
				refused.Session = proof.Session // so that its person can sign out
			}
			return refused, e
		}
		joined.join(&proof)
		proof.Caller.Alias = c.alias(&proof.Caller)
		all = append(all, proven{k, proof.Caller, proof.Field, proof.Tokens})
	}
	if noToken != nil && !onlySession(all, &joined) {
		return Proof{Signature: joined.Signature}, asError(noToken)
	}
	if missing == "" && !slices.ContainsFunc(all, func(p proven) bool { return p.kind.caller }) {
		missing = c.kinds[len(c.kinds)-1].traits.Missing
	}
	if missing != "" {
		return Proof{Signature: joined.Signature}, c.lacks(missing, r, all, stray)
	}
	chosen, err := c.choose(all, joined.Signature)
	if err != nil {
		return Proof{Signature: joined.Signature}, err
	}
	joined.Caller, joined.Field, joined.Tokens, joined.Ambient = chosen.caller, chosen.field, chosen.tokens, chosen.kind.traits.Ambient
	joined.Subprotocol = r.subprotocol != nil && (c.anyRequired || chosen.field == SubprotocolField)
	return joined, nil
}

// join adds what the proof of one kind of credential says besides its caller.
func (p *Proof) join(one *Proof) {
	p.Signature, p.Session, p.Limited = cmp.Or(one.Signature, p.Signature), cmp.Or(one.Session, p.Session), cmp.Or(one.Limited, p.Limited)
	p.Revocable, p.AsksIssuer = p.Revocable || one.Revocable, p.AsksIssuer || one.AsksIssuer
	if one.Authentication.Claim != "" {
		p.Authentication = one.Authentication
	}
}

// alias returns the alias that the configuration gives to a principal; "" for none.
func (c *Chain) alias(p *identity.Principal) string {
	if len(c.aliases) == 0 || p.IsZero() {
		return ""
	}
	return c.aliases[p.String()]
}

// choose selects the caller among the proven ones; at least one is of a listed kind. It
// returns the first in the order of the route. There is one exception: if no kind is
// required and the signature does not cover the first credential, it returns the
// signer. Otherwise anyone on the path could add a credential and change the caller.
func (c *Chain) choose(all []proven, signature *httpsig.Signature) (*proven, *Error) {
	var first, signer *proven
	for i := range all {
		p := &all[i]
		if p.kind.caller && (first == nil || p.kind.index < first.kind.index) {
			first = p
		}
		if p.kind.signs() {
			signer = p
		}
	}
	if c.bind {
		for i := range all {
			p := &all[i]
			if p == first || p.caller.Alias != "" && p.caller.Alias == first.caller.Alias {
				continue
			}
			e := &Error{Reason: ProofsDiffer, KeyID: first.caller.KeyID,
				Err: fmt.Errorf("the request proves both %s and %s, and no entry of principals has both", first.caller.String(), p.caller.String())}
			if signer != nil {
				e.KeyID = signer.caller.KeyID
			}
			return nil, e
		}
	}
	if !c.anyRequired && signer != nil && first.field != "" && !first.kind.signs() && !signature.Covers(first.field) {
		return signer, nil
	}
	return first, nil
}

// Anonymous reports whether the chain admits every request without a credential.
func (c *Chain) Anonymous() bool { return c != nil && c.anonymous }

// Signs reports whether the chain accepts signatures.
func (c *Chain) Signs() bool { return c.AcceptSignature() != "" }

// AcceptSignature returns the value of Accept-Signature for a 401 response (RFC 9421,
// section 5), which lists what a signature must cover; "" if the chain accepts none.
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

// Challenges returns the values of WWW-Authenticate for an error of the chain (RFC 9110,
// section 11.6.1); none if the status is not 401. Each belongs on a line of its own: Chromium reads the first
// challenge of a line alone, and would not ask for a password behind a Bearer. Signatures and certificates have no registered
// scheme, so they are named only if the chain accepts nothing else. [Chain.AcceptSignature] asks
// for signatures.
func (c *Chain) Challenges(realm string, err error) (all []string) {
	e := asError(err)
	if c == nil || e.Status() != 401 {
		return nil
	}
	general := slices.ContainsFunc(c.kinds, func(k kind) bool { return k.general() })
	for i := range c.kinds {
		k := &c.kinds[i]
		if general && !k.general() {
			continue
		}
		one := k.Challenge(realm, e)
		switch {
		case one == "" || slices.Contains(all, one):
		case strings.HasPrefix(one, "Bearer "): // clients of MCP read the first challenge only
			all = slices.Insert(all, 0, one)
		default:
			all = append(all, one)
		}
	}
	return all
}
