package auth

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/go-json-experiment/json/jsontext"

	"sallyport/auth/fetch"
	"sallyport/proxy/setting"
)

const (
	plainAnswer  = "application/json"
	signedAnswer = "application/token-introspection+jwt" // RFC 9701
)

// isOpaque reports whether s has the syntax of a bearer token (RFC 6750, section 2.1). A
// stranger cannot send an issuer any other text.
func isOpaque(s string) bool {
	s = strings.TrimRight(s, "=")
	return s != "" && strings.IndexFunc(s, func(r rune) bool {
		return (r < 'a' || r > 'z') && (r < 'A' || r > 'Z') && (r < '0' || r > '9') && !strings.ContainsRune("-._~+/", r)
	}) < 0
}

// isJWT reports whether a token has the form of a JWT: three segments, of which the first
// encodes text that begins with a brace. Such a token is never sent to an issuer that its
// claim iss does not name, even if it is broken.
func isJWT(s string) bool {
	if len(s) < 2 || s[0] != 'e' || strings.Count(s, ".") != 2 {
		return false
	}
	// The two characters have the 8 bits of '{' and 4 more.
	c := s[1]
	return c >= 'w' && c <= 'z' || c >= '0' && c <= '9' || c == '-' || c == '_'
}

// sameTokens reports whether a token without a claim iss could be of either of two sources
// of a route.
func (s *introspectSource) sameTokens(o *introspectSource) bool {
	return o != nil && s.prefix == o.prefix
}

// opaqueOf returns the issuer of the route that is asked about an opaque token: the one with
// the longest prefix that the token has. Nil means none.
func (b *bearer) opaqueOf(raw string) *candidate {
	var best *candidate
	for i := range b.candidates {
		c := &b.candidates[i]
		if s := c.iss.introspect; s != nil && strings.HasPrefix(raw, s.prefix) && (best == nil || len(s.prefix) > len(best.iss.introspect.prefix)) {
			best = c
		}
	}
	return best
}

// cachedAnswer returns the token if an issuer of the route said that it is active, nil if none did.
// The error is a refusal that is final.
func (v *verification) cachedAnswer() (*verified, error) {
	now := v.memory.now().Unix()
	only := v.opaqueOf(v.raw)
	for i := range v.candidates {
		c := &v.candidates[i]
		if s := c.iss.introspect; s == nil || c != only && !s.jwt {
			continue
		}
		im := c.iss.memory.Load()
		if im == nil {
			continue
		}
		e := im.introspector.cached(&v.digest, now)
		if e == nil {
			continue
		}
		if err := v.accept(c, e); err == nil {
			return e, nil
		} else if c == only || v.alone(c) {
			return nil, err
		}
	}
	return nil, nil
}

var (
	errNoPrefix = errors.New("the token is not a JWT, and has none of the prefixes of the route's issuers")
	errNoToken  = errors.New("the token has characters that no bearer token has")
)

// ask asks the issuer about an opaque token.
func (v *verification) ask(ctx context.Context) (*verified, *Error) {
	c := v.opaqueOf(v.raw)
	switch {
	case !isOpaque(v.raw):
		return nil, bad(errNoToken)
	case c == nil:
		return nil, bad(errNoPrefix)
	}
	return v.lookUp(ctx, c)
}

// lookUp asks the candidate about the token.
func (v *verification) lookUp(ctx context.Context, c *candidate) (*verified, *Error) {
	im := c.iss.memory.Load()
	if im == nil {
		return nil, &Error{Reason: IssuerUnavailable, Err: errNotActive}
	}
	e, refused := im.introspector.lookUp(ctx, v.digest, v.raw, v.request.Peer, v.budget)
	if refused != nil && refused.Reason == IssuerUnavailable && v.budget == nil {
		// A slow issuer must not end what it has admitted, unless nothing else would.
		if e = im.introspector.known(&v.digest); e != nil && !e.principal.Expires.IsZero() {
			refused = nil
		}
	}
	if refused != nil {
		return nil, refused
	}
	if refused := v.accept(c, e); refused != nil {
		return nil, refused
	}
	return e, nil
}

// judge returns the verdict of an answer about a token, or the reason to refuse the token.
// The error says why the answer does not count. It repeats nothing of a token.
func (in *introspector) judge(ctx context.Context, k *look, a *fetch.Answer) (*verified, *Error, error) {
	t := tokenPool.Get().(*token)
	defer t.release()
	switch {
	case a.Type == plainAnswer && !in.signed:
		t.payload = append(t.payload[:0], a.Text...)
	case a.Type == signedAnswer:
		if err := in.open(ctx, string(a.Text), t); err != nil {
			return nil, nil, fmt.Errorf("signed answer: %w", err)
		}
	default:
		wanted := plainAnswer
		if in.signed {
			wanted = signedAnswer
		}
		return nil, nil, fmt.Errorf("its type is %s, not %s", setting.Quoted(a.Type, shownID), wanted)
	}
	active, err := t.readActive()
	switch {
	case err != nil:
		return nil, nil, err
	case !active:
		return nil, in.refuse(TokenInactive, "the issuer says that the token is not active: it has ended, was revoked, is unknown there, or client "+setting.Quoted(in.clientID, shownID)+" may not see it"), nil
	}
	if err := t.readClaims(); err != nil {
		k.odd = true // callers have a say in their claims, so that the fault may be this token's alone
		return nil, nil, err
	}
	v, why := in.verdict(k, t)
	return v, why, nil
}

var errNotActivity = errors.New("active is absent, or not true or false")

// readActive reads the claim active of an answer, which must be a JSON object without duplicate
// names. What else is in the answer about an inactive token does not matter.
func (t *token) readActive() (active bool, err error) {
	found := false
	err = t.object(t.payload, func(name string, d *jsontext.Decoder) error {
		if err := lookalike(name, "active"); err != nil {
			return err
		}
		if name != "active" {
			if err := d.SkipValue(); err != nil {
				return badJSON(err)
			}
			return nil
		}
		t, err := d.ReadToken()
		switch {
		case err != nil:
			return badJSON(err)
		case t.Kind() != jsontext.KindTrue && t.Kind() != jsontext.KindFalse:
			return errNotActivity
		}
		found, active = true, t.Bool()
		return nil
	})
	if err == nil && !found {
		err = errNotActivity
	}
	return active, err
}

func (in *introspector) refuse(reason, cause string) *Error {
	e := &Error{Reason: reason, Err: fmt.Errorf("issuer %s: %s", in.issuer.name, cause)}
	if reason != TokenInactive {
		e.Issuer, e.KeyID = in.issuer.name, in.key.id
	}
	return e
}

// verdict checks the claims of an active token against the issuer's configuration.
func (in *introspector) verdict(k *look, t *token) (*verified, *Error) {
	c, r := candidate{in.issuer, in.issuer.audience}, &t.registered
	if r.hasIss && !in.issuer.issues(r.iss) {
		return nil, in.refuse(BadCredential, "it says that iss of the token is "+setting.Quoted(r.iss, 2*shownName))
	}
	if kind, ok := t.claims.find("token_type"); ok {
		switch what := strings.ToLower(strings.Join(kind.values, " ")); what {
		case "bearer", "access_token", "urn:ietf:params:oauth:token-type:access_token":
		case "dpop":
			r.bound = binding{present: true}
		default:
			return nil, in.refuse(BadCredential, "token_type is "+setting.Quoted(what, shownID)+", not that of an access token")
		}
	} else if len(r.aud) == 0 && in.issuer.rules.audience != "" {
		// Issuers introspect refresh tokens too. With audience_claim nothing else tells them apart.
		return nil, in.refuse(WrongAudience, "aud and token_type are both absent: the token could be a refresh token")
	}
	claims, kept := t.claims.compacted("active")
	t.claims = claims
	aud, _ := t.claims.find("aud")
	r.aud = aud.values
	endless := !r.hasExp && in.issuer.rules.maxLifetime == 0
	if endless {
		r.hasExp, r.exp = true, lastDate
	}
	now := in.memory.now()
	v, why := c.checkClaims(t, in.key, now)
	if why != nil {
		return nil, why
	}
	v.principal.Claim, v.principal.IsList = kept.Claim, kept.IsList
	if endless {
		v.principal.Expires = time.Time{}
	}
	v.lookAgain = now.Add(in.maxAge).Unix()
	v.issuer, v.raw, v.hash = in.number, string(k.digest[:]), k.digest.hash()
	return v, nil
}

// open verifies a signed answer and stores what it says as the payload of t: the claim
// token_introspection.
func (in *introspector) open(ctx context.Context, text string, t *token) error {
	outer := tokenPool.Get().(*token)
	defer outer.release()
	if err := outer.parse(text); err != nil {
		return err
	}
	rules := in.issuer.rules
	rules.typ = []string{mediaType(signedAnswer)}
	if err := rules.header(outer); err != nil {
		return err
	}
	if _, err := in.keys.signer(ctx, in.issuer, outer); err != nil {
		return err
	}
	c, now := &outer.registered, in.memory.now()
	oldest := now.Add(-rules.skew - in.timeout).Unix()
	switch {
	case !in.issuer.issues(c.iss):
		return errors.New("iss is " + setting.Quoted(c.iss, 2*shownName) + ", not that of the issuer")
	case !slices.Contains(c.aud, in.clientID):
		return errors.New("aud is " + values(c.aud) + ", not the client_id")
	case !c.hasIat || c.iat < oldest || c.iat > now.Add(rules.skew).Unix():
		return errors.New("iat is absent, or not of now")
	case c.hasExp && now.Unix() >= c.exp+int64(rules.skew/time.Second):
		return errors.New("it has expired")
	}
	whole := false
	err := outer.object(outer.payload, func(name string, d *jsontext.Decoder) error {
		value, err := d.ReadValue()
		if err != nil {
			return badJSON(err)
		}
		if name == "token_introspection" {
			whole = true
			t.payload = append(t.payload[:0], value...)
		}
		return nil
	})
	if err == nil && !whole {
		err = errors.New("it has no token_introspection")
	}
	return err
}
