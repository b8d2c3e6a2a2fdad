package auth

import (
	"cmp"
	"context"
	"errors"
	"slices"
	"strings"
	"time"

	"sallyport/auth/apikey"
	"sallyport/auth/identity"
	"sallyport/proxy/message"
)

// Explanation tells the holder of a credential what a route decides about it. It is for tools that
// the holder runs: its texts repeat claims of a token, also unverified ones. They never repeat a
// token, a key or a part of one.
type Explanation struct {
	Caller identity.Principal // zero if the route refuses the credential
	Reason string             // of the [Error]; "" if the route accepts the credential
	// Findings are the faults of the credential, the first one being that of Reason. An accepted one
	// may have findings too.
	Findings []Finding
}

// Finding is a fault with its cure. The cure may be "".
type Finding struct{ Problem, Cure string }

// Explain decides about a request as the chain of a route does, by [Chain.Authenticate], and says
// what its holder can do about a refusal. If the time alone is wrong, it also decides for the time at
// which the token is valid, so that other faults show too. The Auth must be active.
func (a *Auth) Explain(ctx context.Context, c *Chain, r *Request) Explanation {
	proof, err := c.Authenticate(ctx, r)
	if err == nil {
		x := Explanation{Caller: proof.Caller}
		if b := c.bearer(r.Head); b != nil {
			if raw, err := b.token(r); err == nil {
				x.Findings = explainAccepted(raw)
			}
		}
		return x
	}
	e := asError(err)
	x := Explanation{Reason: e.Reason}
	raw, none := bearerToken(r)
	b := c.bearer(r.Head)
	if b != nil {
		raw, none = b.token(r)
	}
	switch {
	case e.Reason == CredentialRevoked:
		x.Findings = []Finding{{Problem: causeOf(e), Cure: "get a new one; if it was revoked by mistake, remove that line of the file"}}
	case e.Reason == StepUpNeeded:
		x.Findings = []Finding{{Problem: causeOf(e), Cure: "sign in as step_up of the route demands: sallyport token --login with --acr-values, --claims or --max-age asks the issuer for that"}}
	case none != nil:
		x.Findings = []Finding{a.explainOther(c, e)}
	case b == nil:
		x.Findings = []Finding{a.explainUnlisted(c, e, raw)}
	case e.Reason == NoCredential || e.aboutSignature() || e.Reason == TooManyFailures:
		x.Findings = []Finding{{Problem: causeOf(e), Cure: "a token alone is not enough there: send what else the route takes too"}}
	default:
		x.Findings = a.explainToken(ctx, b, r, raw, e)
	}
	return x
}

// bearers returns the kinds that check bearer tokens: one for each field that may have them.
func (c *Chain) bearers() (all []*bearer) {
	if c == nil {
		return nil
	}
	for i := range c.kinds {
		if b, ok := c.kinds[i].Authenticator.(*bearer); ok {
			all = append(all, b)
		}
	}
	return all
}

// bearer returns the kind that checks the token of a request: of several, the one whose field the
// request has. It returns nil if the route accepts no bearer tokens.
func (c *Chain) bearer(head *message.Head) *bearer {
	all := c.bearers()
	for _, b := range all {
		if head.Fields.Has(cmp.Or(b.field, "authorization")) {
			return b
		}
	}
	if len(all) == 0 {
		return nil
	}
	return all[0]
}

// Present returns a request with a credential in the place where the route takes it: in
// Authorization or, for tokens of an issuer with token_from, in that field and from such a proxy.
func (c *Chain) Present(head *message.Head, credential string) *Request {
	r := &Request{Head: head}
	t := new(token)
	if t.parse(credential) == nil {
		for _, b := range c.bearers() {
			if b.field == "" || len(b.from) == 0 || !slices.ContainsFunc(b.candidates, func(c candidate) bool { return c.iss.issues(t.registered.iss) }) {
				continue
			}
			head.Fields.Add(b.field, credential)
			r.Via = b.from[0].Addr()
			return r
		}
	}
	head.Fields.Add("authorization", "Bearer "+credential)
	return r
}

// causeOf returns the cause of a refusal without the name of the token's owner, which the owner knows.
func causeOf(e *Error) string {
	var cause *tokenCause
	switch {
	case errors.As(e.Err, &cause):
		return cause.what
	case e.Err == nil:
		return e.Text()
	}
	return e.Err.Error()
}

// explainOther explains the refusal of a credential that is no bearer token.
func (a *Auth) explainOther(c *Chain, e *Error) Finding {
	f := Finding{Problem: causeOf(e)}
	switch {
	case e.Reason == APIKeyExpired:
		f.Cure = "make another secret with sallyport keygen --api-key NAME, or move not_after"
	case e.Reason == APIKeyUnknown && errors.Is(e.Err, errNotAKey):
		f.Cure = "compare it with what sallyport keygen printed: sp_ and 49 letters and digits"
	case e.Reason == APIKeyUnknown && strings.HasPrefix(f.Problem, "the route does not list"):
		f.Cure = "list this caller, or apikey for all of them, in callers of the route"
	case e.Reason == APIKeyUnknown:
		f.Cure = "was it removed, or is it of another gateway? sallyport keygen --api-key NAME makes a new one"
	case e.Reason == BadCredential && strings.HasPrefix(f.Problem, "token is too long"):
		f.Cure = "have the issuer put less into it, such as fewer groups"
	case e.Reason == UnlistedCredential:
		f.Cure = "send what the route takes, or list this kind in its callers"
	}
	return f
}

// explainUnlisted explains the refusal of a bearer token by a route that takes none.
func (a *Auth) explainUnlisted(c *Chain, e *Error, raw string) Finding {
	cure := "send what the route takes"
	t := new(token)
	if t.parse(raw) == nil {
		if iss := a.issuerWithURL(t.registered.iss); iss != nil {
			cure = "list " + iss.source + " in callers of the route, or " + cure
		}
	}
	return Finding{Problem: "the route takes no bearer tokens, but " + c.takes, Cure: cure}
}

// issuerWithURL returns the configured issuer with a URL; nil if there is none.
func (a *Auth) issuerWithURL(url string) *issuer {
	var found *issuer
	for _, iss := range a.issuers {
		if iss.issues(url) && (found == nil || iss.name < found.name) {
			found = iss
		}
	}
	return found
}

// explainToken explains the refusal of a token by a route that takes bearer tokens.
func (a *Auth) explainToken(ctx context.Context, b *bearer, r *Request, raw string, e *Error) []Finding {
	if b.introspects && !isJWT(raw) {
		return []Finding{b.explainOpaque(raw, e)}
	}
	t := new(token)
	if err := t.parse(raw); err != nil {
		return []Finding{explainForm(raw, err)}
	}
	v := verification{bearer: b, raw: raw, hash: b.memory.tokens.hash(raw), request: r}
	if b.introspects {
		v.digest = b.memory.digest(raw)
	}
	var first *Error
	var by *candidate
	for i := range b.candidates {
		c := &b.candidates[i]
		if !t.registered.hasIss || !c.iss.issues(t.registered.iss) {
			continue
		}
		_, refused := v.decide(ctx, c, t)
		if refused == nil { // the token alone is right
			return []Finding{c.explain(t, e)}
		}
		if worse := moreSpecific(first, refused); worse != first {
			first, by = worse, c
		}
	}
	if by == nil {
		return []Finding{a.explainIssuer(b, t)}
	}
	all := []Finding{by.explain(t, first)}
	if at := timeOf(t, first); !at.IsZero() {
		if later := by.at(ctx, t, at); later != nil {
			all = append(all, by.explain(t, later))
		}
	}
	return all
}

// timeOf returns a time at which a token is valid that is refused because of the time alone; zero
// for other refusals.
func timeOf(t *token, e *Error) time.Time {
	r := &t.registered
	switch {
	case e.Reason != TokenExpired && e.Reason != TokenNotYetValid:
		return time.Time{}
	case r.hasNbf && r.nbf > r.exp-1, r.hasIat && r.iat > r.exp-1:
		return time.Time{} // it is never valid
	}
	return time.Unix(r.exp-1, 0)
}

// at decides about the claims of a token at a time. Its signature must have been verified.
func (c *candidate) at(ctx context.Context, t *token, at time.Time) *Error {
	im := c.iss.memory.Load()
	if im == nil || c.asked() {
		return nil
	}
	k, err := im.keys.signer(ctx, c.iss, t)
	if err != nil {
		return nil
	}
	e, refused := c.checkClaims(t, k, at)
	if refused != nil {
		return refused
	}
	return c.accept(e, at.Unix())
}

// TokenFacts are what a token says about itself, not verified.
type TokenFacts struct {
	Kind              string // such as "JWT", "API key" or "opaque token"
	Algorithm, Type   string
	KeyID             string
	Issuer, Subject   string
	Client            string // azp, client_id, cid or appid
	Audience, Scopes  []string
	IssuedAt, Expires time.Time // zero if absent
}

// DescribeToken reads the facts of a token as the gateway reads them. It verifies nothing.
func DescribeToken(raw string) TokenFacts {
	t := new(token)
	switch err := t.parse(raw); {
	case strings.HasPrefix(raw, apikey.Prefix):
		return TokenFacts{Kind: "API key"}
	case err != nil:
		return TokenFacts{Kind: formOf(raw)}
	}
	r := &t.registered
	f := TokenFacts{
		Kind: "JWT", Algorithm: t.alg, Type: t.typ, KeyID: t.kid,
		Issuer: r.iss, Subject: r.sub, Audience: r.aud,
	}
	if kind := purposeOf(t); kind != "" {
		f.Kind = kind
	}
	f.Scopes, _ = t.claims.scopes()
	for _, name := range clientClaims {
		if values := t.claims.Claim(name); len(values) == 1 && f.Client == "" {
			f.Client = values[0]
		}
	}
	if r.hasIat {
		f.IssuedAt = time.Unix(r.iat, 0).UTC()
	}
	if r.hasExp {
		f.Expires = time.Unix(r.exp, 0).UTC()
	}
	return f
}

// clientClaims are the claims in which products name the client of a token.
var clientClaims = [...]string{"client_id", "azp", "cid", "appid"}
