package auth

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"sync/atomic"
	"time"

	"sallyport/auth/apikey"
	"sallyport/auth/clientcert"
	"sallyport/auth/identity"
	"sallyport/auth/login"
	"sallyport/proxy/message"
)

// bearer verifies bearer tokens (RFC 6750) of the issuers that a route lists.
//
// Cheap checks come first: form, algorithm, typ, issuer, key. Then it verifies the
// signature, and then the claims. The client learns the fault of a claim only if the
// signature is valid, so that a forger learns nothing.
//
// It asks the issuer about a token that is not a JWT, or whose issuer wants to be asked,
// see [introspector].
type bearer struct {
	memory      *Memory
	candidates  []candidate
	introspects bool           // some candidate is asked about tokens
	field       string         // with the token; "" for authorization
	from        []netip.Prefix // the peers whose field counts

	certificates *clientcert.Hosts            // for tokens that are bound to one
	revoked      *atomic.Pointer[Revocations] // of those certificates
	stepUp       *stepUp                      // nil: none is demanded
	passed       login.Passed
}

// candidate is an issuer of the route, with the audiences that the route accepts.
type candidate struct {
	iss      *issuer
	audience []string
}

// newBearer makes the authenticator for callers that are all "issuer/NAME", and whose tokens
// are all in the same field.
func (a *Auth) newBearer(callers []string, d *Demand) (Authenticator, error) {
	b := &bearer{memory: a.memory, certificates: a.clientCerts, revoked: &a.revoked, stepUp: newStepUp(d), passed: d.Passed}
	for _, caller := range callers {
		iss := a.issuer(caller)
		if iss == nil {
			return nil, fmt.Errorf("unknown caller %q", caller)
		}
		b.field, b.from = iss.field, iss.from
		audience, err := narrow(iss, d.Audience)
		if err != nil {
			return nil, err
		}
		for i := range b.candidates {
			if s := iss.introspect; s != nil && s.sameTokens(b.candidates[i].iss.introspect) {
				return nil, fmt.Errorf("issuers %s and %s are asked about the same tokens: their introspection needs different prefixes", b.candidates[i].iss.name, iss.name)
			}
		}
		b.candidates = append(b.candidates, candidate{iss, audience})
		b.introspects = b.introspects || iss.introspect != nil
	}
	return b, nil
}

// issuer returns the issuer of a caller written as "issuer/NAME", nil if there is none.
func (a *Auth) issuer(caller string) *issuer {
	name, ok := strings.CutPrefix(caller, "issuer/")
	if !ok {
		return nil
	}
	return a.issuers[name]
}

// hasAudience reports whether one of the issuers has the audience.
func (a *Auth) hasAudience(callers []string, audience string) bool {
	return slices.ContainsFunc(callers, func(caller string) bool { return slices.Contains(a.issuer(caller).audience, audience) })
}

// narrow returns the issuer's audiences that the route accepts: all if it names none.
func narrow(iss *issuer, to []string) ([]string, error) {
	if len(to) == 0 {
		return iss.audience, nil
	}
	var accepted []string
	for _, aud := range iss.audience {
		if slices.Contains(to, aud) {
			accepted = append(accepted, aud)
		}
	}
	if len(accepted) == 0 {
		return nil, fmt.Errorf("issuer %s has none of the route's audiences: its tokens would never be accepted", iss.name)
	}
	return accepted, nil
}

// Traits implements [Authenticator].
func (b *bearer) Traits() Traits { return Traits{Missing: NoCredential} }

// Challenge implements [Authenticator].
func (b *bearer) Challenge(realm string, e *Error) string {
	if e.Reason == StepUpNeeded {
		return b.stepUp.challenge(realm, b.contexts(e), e)
	}
	return bearerChallenge(realm, e)
}

// bearerChallenge returns a challenge of RFC 6750, section 3. It has no error code if no
// token was sent, and invalid_token if one was refused.
func bearerChallenge(realm string, e *Error) string {
	if e.Reason == NoCredential || e.Reason == UnlistedCredential || e.Reason == StepUpNeeded || e.aboutSignature() || e.aboutPassword() || e.aboutCertificate() || e.aboutSession() {
		return "Bearer realm=" + quoted(realm)
	}
	return "Bearer realm=" + quoted(realm) + `, error="invalid_token", error_description=` + quoted(e.Text())
}

// Authenticate implements [Authenticator].
func (b *bearer) Authenticate(ctx context.Context, r *Request) (Proof, error) {
	return b.prove(ctx, r, b.memory.budgetOf(r))
}

// Recheck implements [Authenticator]: the token is checked as if it were new. If its issuer does
// not answer, the last answer counts until the token expires.
func (b *bearer) Recheck(ctx context.Context, r *Request, _ Proof) (Proof, error) {
	return b.prove(ctx, r, nil)
}

// prove returns the proof that the token of a request is. A nil budget counts nothing.
func (b *bearer) prove(ctx context.Context, r *Request, budget *budget) (Proof, error) {
	raw, err := b.token(r)
	if err != nil {
		return Proof{}, err
	}
	e, err := b.verify(ctx, r, raw, budget)
	if err != nil {
		return Proof{}, err
	}
	if err := b.holds(r, e); err != nil {
		return Proof{}, err
	}
	p := Proof{Caller: e.principal, Field: cmp.Or(b.field, r.tokenField()), Revocable: e.lookAgain != 0, AsksIssuer: e.lookAgain != 0, Tokens: b.passed.Bearer(raw)}
	if b.stepUp != nil {
		if err := b.checkStepUp(e, budget == nil); err != nil {
			return Proof{}, err
		}
		p.Authentication = e.by
	}
	return p, nil
}

// verify returns the token of a request, verified.
func (b *bearer) verify(ctx context.Context, r *Request, raw string, budget *budget) (*verified, error) {
	v := verification{bearer: b, raw: raw, request: r, budget: budget}
	if !b.introspects || isJWT(raw) {
		v.hash = b.memory.tokens.hash(raw)
		if e, err := v.cached(); e != nil || err != nil {
			return e, err
		}
	}
	if b.introspects {
		v.digest = b.memory.digest(raw)
		if e, err := v.cachedAnswer(); e != nil || err != nil {
			return e, err
		}
	}
	return v.run(ctx)
}

// cached returns a token that was verified before, nil if it was not. The error is a
// refusal that is final.
func (v *verification) cached() (*verified, error) {
	b := v.bearer
	now := b.memory.now()
	for i := range b.candidates {
		c := &b.candidates[i]
		im := c.iss.memory.Load()
		if im == nil {
			continue
		}
		e := b.memory.tokens.get(im.number, v.hash, v.raw)
		if e == nil {
			continue
		}
		if e.key.withdrawn.Load() || !im.keys.usable(im.keys.current.Load(), now) {
			b.memory.tokens.drop(e)
			continue
		}
		if err := c.accept(e, now.Unix()); err == nil {
			return e, nil
		} else if b.alone(c) {
			return nil, err
		}
	}
	return nil, nil
}

// alone reports whether no other issuer of the route has the candidate's URL.
func (b *bearer) alone(c *candidate) bool {
	for i := range b.candidates {
		if o := &b.candidates[i]; o != c && overlap(o.iss.urls, c.iss.urls) {
			return false
		}
	}
	return true
}

// tokenField returns the field with the token of a request that has one where most issuers' tokens are.
func (r *Request) tokenField() string {
	if r.subprotocol != nil {
		return SubprotocolField
	}
	return "authorization"
}

// bearerToken returns the token of the only Authorization line, or of the subprotocols. It does
// not accept a token in the query, a cookie or the body (RFC 9700, section 4.3.2). It does not
// allocate.
func bearerToken(r *Request) (string, error) {
	switch t := r.subprotocol; {
	case t == nil:
		return tokenInAuthorization(r.Head)
	case t.err != nil:
		return "", t.err
	case t.isAPIKey():
		return "", ErrNoCredential
	default:
		return t.raw, nil
	}
}

// tokenInAuthorization returns the token of the only Authorization line.
func tokenInAuthorization(head *message.Head) (string, error) {
	value, lines := "", 0
	for i := range head.Fields {
		if head.Fields[i].Name == "authorization" {
			value = head.Fields[i].Value
			lines++
		}
	}
	if lines == 0 {
		return "", ErrNoCredential
	}
	if lines > 1 {
		return "", bad(errors.New("more than one Authorization field"))
	}
	scheme, raw, _ := strings.Cut(value, " ")
	if !strings.EqualFold(scheme, "Bearer") {
		return "", ErrNoCredential
	}
	raw = strings.TrimLeft(raw, " ")
	switch {
	case strings.HasPrefix(raw, apikey.Prefix):
		return "", ErrNoCredential // an API key, which must reach neither parser nor issuer
	case tokenInQuery(head.Query):
		return "", bad(errors.New("a second token in the query"))
	case isNoToken(raw):
		return "", bad(errNoBearer)
	case len(raw) > maxToken:
		return "", bad(errors.New("token is too long"))
	}
	return raw, nil
}

// tokenInQuery reports whether a query has the parameter access_token (RFC 6750, section
// 2.3). A request with a second token is ambiguous: the upstream might use that one.
func tokenInQuery(query string) bool {
	for query != "" {
		var p string
		p, query, _ = strings.Cut(query, "&")
		if name, _, _ := strings.Cut(p, "="); name == "access_token" {
			return true
		}
	}
	return false
}

func bad(cause error) *Error { return &Error{Reason: BadCredential, Err: cause} }

// verification verifies one token that is not in the cache.
type verification struct {
	*bearer
	raw     string
	hash    uint64 // of raw; 0 if the route takes it for an opaque token
	digest  digest // of raw, if the route introspects
	request *Request
	budget  *budget // for failed checks; nil: unlimited, as the request is in flight
}

// accept checks that the route and this request may use a token of the candidate now. Each use of
// a token must pass it, whether the token is new or cached, verified here or by its issuer.
func (v *verification) accept(c *candidate, e *verified) *Error {
	return c.accept(e, v.memory.now().Unix())
}

// run checks the token against each issuer of the route whose URL is the claim iss. About a
// token that is not a JWT it asks the issuer whose prefix the token has.
func (v *verification) run(ctx context.Context) (*verified, error) {
	if v.introspects && !isJWT(v.raw) {
		e, err := v.ask(ctx)
		if err != nil {
			return nil, err
		}
		return e, nil
	}
	t := tokenPool.Get().(*token)
	defer t.release()
	if err := t.parse(v.raw); err != nil {
		return nil, bad(err)
	}
	var refused *Error
	for i := range v.candidates {
		c := &v.candidates[i]
		if !t.registered.hasIss || !c.iss.issues(t.registered.iss) {
			continue
		}
		e, err := v.decide(ctx, c, t)
		if err == nil {
			return e, nil
		}
		refused = moreSpecific(refused, err)
	}
	if refused == nil {
		refused = bad(v.unknownIssuer(t.registered.iss))
	}
	return nil, refused
}

// decide verifies a JWT as the candidate's issuer wants it: here, or by asking the issuer.
func (v *verification) decide(ctx context.Context, c *candidate, t *token) (*verified, *Error) {
	if c.asked() {
		return v.lookUp(ctx, c)
	}
	return v.check(ctx, c, t)
}

// asked reports whether the issuer is asked about its JWTs too.
func (c *candidate) asked() bool { return c.iss.introspect != nil && c.iss.introspect.jwt }

// moreSpecific returns the more specific of two refusals. IssuerUnavailable ranks first,
// then refusals of a token whose signature was verified, then BadCredential.
func moreSpecific(a, b *Error) *Error {
	rank := func(e *Error) int {
		switch {
		case e == nil:
			return 0
		case e.Reason == IssuerUnavailable:
			return 3
		case e.Reason == BadCredential:
			return 1
		}
		return 2
	}
	if rank(b) > rank(a) {
		return b
	}
	return a
}

var (
	errNotActive = errors.New("this configuration is not active")
	errSignature = errors.New("the signature does not match")
)

// check verifies the token as a token of the candidate's issuer: header, key, signature,
// claims, in this order.
func (v *verification) check(ctx context.Context, c *candidate, t *token) (*verified, *Error) {
	im := c.iss.memory.Load()
	if im == nil {
		return nil, &Error{Reason: IssuerUnavailable, Err: errNotActive}
	}
	if err := c.iss.rules.header(t); err != nil {
		return nil, bad(fmt.Errorf("issuer %s: %w", c.iss.name, err))
	}
	if !v.budget.left(v.request.Peer, v.memory.now()) {
		return nil, tooManyFailures(v.budget, v.request.Peer)
	}
	k, err := im.keys.signer(ctx, c.iss, t)
	now := v.memory.now()
	switch {
	case errors.Is(err, errNotChecked):
		return nil, &Error{Reason: IssuerUnavailable, Err: err}
	case errors.Is(err, errSignature):
		v.budget.charge(v.request.Peer, now) // once, however many keys were tried
		return nil, bad(err)
	case err != nil:
		return nil, bad(err)
	}
	e, refused := c.checkClaims(t, k, now)
	if refused != nil {
		v.budget.charge(v.request.Peer, now)
		return nil, refused
	}
	e.issuer, e.raw, e.hash = im.number, strings.Clone(v.raw), v.hash
	v.memory.tokens.put(e)
	if refused := v.accept(c, e); refused != nil {
		return nil, refused
	}
	return e, nil
}

// checkClaims checks the claims of a token whose signature was verified against the
// issuer's configuration, and returns the cache entry of the token.
func (c *candidate) checkClaims(t *token, k *key, now time.Time) (*verified, *Error) {
	claims, iss := t.claims, c.iss
	refuse := func(reason, cause string) (*verified, *Error) {
		return nil, &Error{Reason: reason, Issuer: iss.name, KeyID: k.name(), Err: ofToken(cause, claims.Claim)}
	}
	if reason, cause := iss.rules.claims(&t.registered, claims, now); reason != "" {
		return refuse(reason, cause)
	}
	audience := audienceOf(t, iss.rules.audience)
	if !audience.within(iss.audience) {
		return refuse(WrongAudience, audience.wrong(c.audience))
	}
	p, reason, err := iss.principal(t)
	if err != nil {
		return refuse(reason, err.Error())
	}
	p.KeyID = k.name()
	skew := int64(iss.rules.skew / time.Second)
	e := &verified{
		key: k, aud: p.Claim("aud"), bound: t.registered.bound.to(), notAfter: t.registered.exp + skew,
		by: claims.authentication(iss.contexts.Claim, t.registered.authTime), skew: int32(skew),
	}
	if t.registered.hasNbf {
		e.notBefore = t.registered.nbf - skew
	}
	p.Expires = time.Unix(e.notAfter, 0)
	p.Qualify()
	e.principal = p
	e.size = int32(entryOverhead + claims.size() + len(e.by.Values))
	return e, nil
}

// principal returns whom the claims of a token name. The error comes with its reason.
func (iss *issuer) principal(t *token) (p identity.Principal, reason string, err error) {
	claims := t.claims
	p = identity.Principal{Source: iss.source, Claim: claims.Claim, IsList: claims.IsList}
	if p.Name, err = claims.principalName(iss.rules.principal); err != nil {
		return p, MissingClaim, err
	}
	if p.Name, err = iss.qualify(p.Name, t.registered.iss, claims); err != nil {
		return p, MissingClaim, err
	}
	p.ID = claims.id()
	if t.registered.hasIat {
		p.IssuedAt = time.Unix(t.registered.iat, 0)
	}
	if p.Scopes, err = claims.scopes(); err != nil {
		return p, BadCredential, err
	}
	if p.Groups, err = claims.groups(iss.rules.groups); err != nil {
		return p, BadCredential, err
	}
	p.Elsewhere = claims.elsewhere()
	p.GroupsElsewhere = len(p.Groups) == 0 && p.LeftOut(iss.rules.groups)
	return p, "", nil
}

// accept checks that the route accepts a verified token now: its times and audience. It
// is called on every use, whether or not the token comes from the cache.
func (c *candidate) accept(e *verified, now int64) *Error {
	skew := c.iss.rules.skew
	rounded := int64(skew / time.Second)
	audience := e.audience(c.iss.rules.audience)
	reason, cause := "", ""
	switch {
	case now >= e.notAfter:
		reason, cause = TokenExpired, expired(e.notAfter-rounded, now, skew)
	case now < e.notBefore:
		reason, cause = TokenNotYetValid, notYetValid(e.notBefore+rounded, now, skew)
	case !audience.within(c.audience):
		reason, cause = WrongAudience, audience.wrong(c.audience)
	default:
		return nil
	}
	return &Error{Reason: reason, Issuer: c.iss.name, KeyID: e.principal.KeyID, Err: ofToken(cause, e.principal.Claim)}
}

func overlap(a, b []string) bool {
	for _, s := range a {
		if slices.Contains(b, s) {
			return true
		}
	}
	return false
}
