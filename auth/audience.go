package auth

// audience is for whom a token was issued.
type audience struct {
	aud     []string // the claim aud; nil if the token has none
	claim   string   // the path of the claim that stands for aud; "" for aud itself
	claimed []string // the values of that claim
}

// audienceOf returns the audience of a token whose issuer names it in a claim; "" means aud.
func audienceOf(t *token, claim string) audience {
	a := audience{aud: t.registered.aud, claim: claim}
	if c, ok := t.claims.find(claim); ok && claim != "" && c.kind == text {
		a.claimed = c.values
	}
	return a
}

// audience returns the audience of a verified token.
func (e *verified) audience(claim string) audience {
	a := audience{aud: e.aud, claim: claim}
	if claim != "" {
		a.claimed = e.principal.Claim(claim)
	}
	return a
}

// within reports whether one of the accepted audiences is among those of the token. A token that
// has aud is refused if it is not meant, whichever claim stands for aud (RFC 7519, section 4.1.3).
func (a *audience) within(accepted []string) bool {
	if a.claim == "" {
		return overlap(a.aud, accepted)
	}
	return overlap(a.claimed, accepted) && (a.aud == nil || overlap(a.aud, accepted))
}

// missing returns the claim that has none of the accepted audiences, and its values.
func (a *audience) missing(accepted []string) (name string, found []string) {
	if a.claim != "" && !overlap(a.claimed, accepted) {
		return a.claim, a.claimed
	}
	return "aud", a.aud
}

// wrong returns the cause for a token whose audience is not accepted.
func (a *audience) wrong(accepted []string) string {
	name, found := a.missing(accepted)
	return name + " is " + values(found) + ", the route takes " + values(accepted)
}
