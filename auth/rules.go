package auth

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"sallyport/proxy/setting"
)

// tokenRules are the requirements on an issuer's tokens.
type tokenRules struct {
	algorithms  []string
	typ         []string // lower case, without "application/"; "absent" for none
	skew        time.Duration
	maxLifetime time.Duration // 0: no bound
	require     []requirement
	principal   string // claim path
	groups      string // claim path, "" for none
	audience    string // claim path, "" for aud
	bound       string // bound_tokens; "" for off
}

// requirement is a claim that must have one of the values.
type requirement struct {
	path   string
	values []string
	any    bool // any value will do
}

// ClockSkew returns how far the issuer's clock may be off.
func (c *IssuerConfig) ClockSkew() time.Duration { return c.Skew.Or(defaultSkew) }

func rulesOf(c *IssuerConfig) tokenRules {
	r := tokenRules{
		algorithms:  slices.Clone(c.Algorithms),
		skew:        c.ClockSkew(),
		maxLifetime: c.MaxLifetime.D(),
		principal:   c.Principal,
		groups:      c.Groups,
		audience:    c.AudienceClaim,
		bound:       c.BoundTokens,
	}
	if len(r.algorithms) == 0 {
		r.algorithms = algorithms[:]
	}
	for _, typ := range c.Typ {
		r.typ = append(r.typ, mediaType(typ))
	}
	if len(r.typ) == 0 {
		r.typ = []string{"jwt", "at+jwt", absent}
	}
	if r.principal == "" {
		r.principal = "sub"
	}
	for path, values := range c.Require {
		q := requirement{path: path}
		for _, v := range values {
			q.any = q.any || v == "*"
			q.values = append(q.values, string(v))
		}
		r.require = append(r.require, q)
	}
	slices.SortFunc(r.require, func(a, b requirement) int { return strings.Compare(a.path, b.path) })
	return r
}

// absent stands for a missing typ.
const absent = "absent"

// mediaType normalizes a typ: letter case does not count, and "application/" may be
// left out (RFC 7515, section 4.1.9).
func mediaType(typ string) string {
	return strings.TrimPrefix(strings.ToLower(typ), "application/")
}

// These begin the errors of header, so that [Auth.Explain] can tell them apart.
var (
	errAlgorithm = errors.New("alg")
	errType      = errors.New("typ")
)

// header checks alg and typ.
func (r *tokenRules) header(t *token) error {
	if !slices.Contains(r.algorithms, t.alg) {
		return fmt.Errorf("%w is %s, accepted are %s", errAlgorithm, headerWord(t.alg), strings.Join(r.algorithms, ", "))
	}
	typ := absent
	if t.hasTyp {
		typ = mediaType(t.typ)
	}
	if t.hasTyp && (typ == absent || typ == "") || !slices.Contains(r.typ, typ) {
		return fmt.Errorf("%w is %s, accepted are %s", errType, headerWord(t.typ), strings.Join(r.typ, ", "))
	}
	return nil
}

// claims checks the claims of a token whose signature was verified, except audience and
// principal. The reason is "" if they satisfy the rules.
func (r *tokenRules) claims(c *registered, all claimSet, at time.Time) (reason, cause string) {
	now, skew := at.Unix(), int64(r.skew/time.Second)
	switch {
	case !c.hasExp:
		return MissingClaim, "exp is absent"
	case now >= c.exp+skew:
		return TokenExpired, expired(c.exp, now, r.skew)
	case c.hasNbf && now < c.nbf-skew:
		return TokenNotYetValid, notYetValid(c.nbf, now, r.skew)
	case c.hasIat && now < c.iat-skew:
		return TokenNotYetValid, "issued " + seconds(c.iat-now) + " in the future (iat), skew is " + short(r.skew)
	case r.maxLifetime > 0 && !c.hasIat:
		return MissingClaim, "iat is absent, and max_lifetime is set"
	case r.maxLifetime > 0 && c.exp-c.iat > int64(r.maxLifetime/time.Second):
		return TokenTooLong, "exp is " + seconds(c.exp-c.iat) + " after iat, max_lifetime is " + short(r.maxLifetime)
	}
	if reason, cause = c.bound.refusal(r.bound); reason != "" {
		return reason, cause
	}
	if cause := r.lacking(all); cause != "" {
		return MissingClaim, cause
	}
	return "", ""
}

// lacking says which required claim is absent or has another value; "" if none.
func (r *tokenRules) lacking(all claimSet) string {
	for _, q := range r.require {
		found, ok := all.find(q.path)
		if !ok || len(found.values) == 0 || !q.any && !overlap(found.values, q.values) {
			return setting.Shortened(q.path, shownID) + " is " + values(found.values) + ", require wants " + values(q.values)
		}
	}
	return ""
}
