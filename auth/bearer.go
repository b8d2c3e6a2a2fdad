package auth

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"time"

	"sallyport/auth/identity"
	"sallyport/proxy/message"
)

// bearer recognises bearer tokens (RFC 6750) of the issuers that a route lists.
//
// What is cheap is checked first: form, algorithm, typ, issuer, key. Then the
// signature, and only then is the client told what a claim lacks, since whoever
// cannot sign has no right to know.
type bearer struct {
	auth       *Auth
	candidates []candidate
}

// candidate is an issuer of the route, with the audiences that the route keeps.
type candidate struct {
	iss      *issuer
	audience []string
}

// Authenticate implements [Authenticator].
func (b *bearer) Authenticate(ctx context.Context, head *message.Head, peer netip.Addr) (identity.Principal, error) {
	raw, err := bearerToken(head)
	if err != nil {
		return identity.Principal{}, err
	}
	hash := b.auth.tokens.hash(raw)
	now := b.auth.now()
	for i := range b.candidates {
		c := &b.candidates[i]
		e := b.auth.tokens.get(c.iss.id, hash, raw)
		if e == nil {
			continue
		}
		if e.key.withdrawn.Load() || !c.iss.keys.usable(c.iss.keys.current.Load(), now) {
			b.auth.tokens.drop(e)
			continue
		}
		if err := c.accept(e, now.Unix()); err == nil {
			return e.principal, nil
		} else if b.alone(c) {
			return identity.Principal{}, err
		}
	}
	return b.verify(ctx, raw, hash, peer)
}

// alone says whether no other issuer of the route has the candidate's URL.
func (b *bearer) alone(c *candidate) bool {
	for i := range b.candidates {
		if o := &b.candidates[i]; o != c && o.iss.url == c.iss.url {
			return false
		}
	}
	return true
}

// bearerToken returns the token of the one Authorization line. A token in a
// query, a cookie or a body is none (RFC 9700, section 4.3.2). It does not allocate.
func bearerToken(head *message.Head) (string, error) {
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
	case raw == "":
		return "", bad(errors.New("no token after Bearer"))
	case len(raw) > maxToken:
		return "", bad(errors.New("token is too long"))
	case tokenInQuery(head.Query):
		return "", bad(errors.New("a second token in the query"))
	}
	return raw, nil
}

// tokenInQuery says whether a query has the parameter by which RFC 6750,
// section 2.3, would send a token. Two tokens leave open which of them counts.
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

// clipped is an identifier of a token as a cause may repeat it.
func clipped(s string) string { return fmt.Sprintf("%.100q", s) }

func bad(cause error) *Error { return &Error{Reason: BadCredential, Err: cause} }

// verify checks a token that is not in the cache, against each issuer of the
// route that has its iss.
func (b *bearer) verify(ctx context.Context, raw string, hash uint64, peer netip.Addr) (identity.Principal, error) {
	t := tokenPool.Get().(*token)
	defer t.release()
	if err := t.parse(raw); err != nil {
		return identity.Principal{}, bad(err)
	}
	var refused *Error
	for i := range b.candidates {
		c := &b.candidates[i]
		if !t.registered.hasIss || c.iss.url != t.registered.iss {
			continue
		}
		e, err := b.check(ctx, c, t, raw, hash, peer)
		if err == nil {
			return e.principal, nil
		}
		refused = clearer(refused, err)
	}
	if refused == nil {
		refused = bad(fmt.Errorf("the route lists no issuer %s", clipped(t.registered.iss)))
	}
	return identity.Principal{}, refused
}

// clearer is the one of two refusals that tells more: "could not check" must not
// be hidden, nor what is known after a signature held.
func clearer(a, b *Error) *Error {
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

// check verifies a token as one of the candidate's issuer.
func (b *bearer) check(ctx context.Context, c *candidate, t *token, raw string, hash uint64, peer netip.Addr) (*verified, *Error) {
	rules := &c.iss.rules
	if err := rules.header(t); err != nil {
		return nil, bad(err)
	}
	k, err := c.iss.keys.resolve(ctx, t.kid, t.alg)
	switch {
	case errors.Is(err, errNotChecked):
		return nil, &Error{Reason: IssuerUnavailable, Err: err}
	case err != nil:
		return nil, bad(fmt.Errorf("kid %s of issuer %s: %w", clipped(t.kid), c.iss.name, err))
	}
	now := b.auth.now()
	if !b.auth.budget.left(peer, now) {
		return nil, &Error{Reason: TooManyFailures}
	}
	if err := checkSignature(ctx, raw, t, k); err != nil {
		b.auth.budget.charge(peer, now)
		return nil, bad(err)
	}
	e, refused := c.iss.believe(t, k, now)
	if refused != nil {
		b.auth.budget.charge(peer, now)
		return nil, refused
	}
	e.raw, e.hash = strings.Clone(raw), hash
	b.auth.tokens.put(e)
	if refused := c.accept(e, now.Unix()); refused != nil {
		return nil, refused
	}
	return e, nil
}

// believe makes the verified token of one whose signature held, if its claims
// are what the issuer's configuration wants.
func (iss *issuer) believe(t *token, k *key, now time.Time) (*verified, *Error) {
	refuse := func(reason string, cause error) (*verified, *Error) {
		return nil, &Error{Reason: reason, Issuer: iss.name, KeyID: k.name(), Err: cause}
	}
	claims := t.claims
	if reason, err := iss.rules.claims(&t.registered, claims, now); reason != "" {
		return refuse(reason, err)
	}
	if !overlap(t.registered.aud, iss.audience) {
		return refuse(WrongAudience, nil)
	}
	p := identity.Principal{Source: iss.source, KeyID: k.name(), Claim: claims.Claim}
	var err error
	if p.Name, err = claims.principalName(iss.rules.principal); err != nil {
		return refuse(MissingClaim, err)
	}
	if p.Scopes, err = claims.scopes(); err != nil {
		return refuse(BadCredential, err)
	}
	if p.Groups, err = claims.groups(iss.rules.groups); err != nil {
		return refuse(BadCredential, err)
	}
	skew := int64(iss.rules.skew / time.Second)
	e := &verified{issuer: iss.id, key: k, audience: t.registered.aud, notAfter: t.registered.exp + skew}
	if t.registered.hasNbf {
		e.notBefore = t.registered.nbf - skew
	}
	p.Expires = time.Unix(e.notAfter, 0)
	p.Settle()
	e.principal = p
	e.size = entryOverhead + claims.size()
	return e, nil
}

// accept says whether a verified token opens the route now. It is asked on every
// use, whether the token comes from the cache or was verified a moment ago.
func (c *candidate) accept(e *verified, now int64) *Error {
	reason := ""
	switch {
	case now >= e.notAfter:
		reason = TokenExpired
	case now < e.notBefore:
		reason = TokenNotYetValid
	case !overlap(e.audience, c.audience):
		reason = WrongAudience
	default:
		return nil
	}
	return &Error{Reason: reason, Issuer: c.iss.name, KeyID: e.principal.KeyID}
}

func overlap(a, b []string) bool {
	for _, s := range a {
		if slices.Contains(b, s) {
			return true
		}
	}
	return false
}
