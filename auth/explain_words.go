package auth

import (
	"errors"
	"maps"
	"net/url"
	"slices"
	"strings"
	"time"

	"sallyport/proxy/setting"
)

// shownClaim is the longest text of a claim that an explanation repeats, in bytes.
const shownClaim = 128

// formOf returns what a text that is no JWT looks like.
func formOf(raw string) string {
	switch strings.Count(raw, ".") {
	case 4:
		return "encrypted JWT"
	case 2:
		return "malformed JWT"
	}
	return "opaque token"
}

// explainForm explains a token that cannot be read.
func explainForm(raw string, err error) Finding {
	switch formOf(raw) {
	case "encrypted JWT":
		return Finding{"it is an encrypted token (JWE, five segments), which only its audience can read", "turn encryption of access tokens off at the issuer; the connection is encrypted"}
	case "opaque token":
		return Finding{"it is an opaque token, no JWT: only its issuer can tell what it means", "have the issuer issue JWTs as access tokens: many do where an audience or a resource is asked for (sallyport token --audience or --resource), Okta at a custom authorization server; or let the gateway ask the issuer: introspection"}
	}
	return Finding{"it cannot be read: " + err.Error(), "copy it whole, and unchanged, from the answer of the issuer"}
}

// explainOpaque explains the refusal of a token that is no JWT by a route that asks an issuer about such
// tokens.
func (b *bearer) explainOpaque(raw string, e *Error) Finding {
	f := Finding{Problem: causeOf(e)}
	c := b.opaqueOf(raw)
	switch {
	case errors.Is(e.Err, errNoPrefix):
		f.Cure = "is it a token of another issuer? introspection.prefix of an issuer is how its tokens begin"
	case c == nil || e.Reason == BadCredential && e.Issuer == "":
		f.Cure = "copy it whole, and unchanged, from the answer of the issuer"
	default:
		f.Problem = strings.TrimPrefix(f.Problem, "issuer "+c.iss.name+": ")
		f.Cure = c.iss.cureReason(e.Reason)
	}
	return f
}

// cureReason says what to do about a reason that the issuer's answer about a token gives.
func (iss *issuer) cureReason(reason string) string {
	at := "issuers." + iss.name
	switch reason {
	case TokenInactive:
		return "get a new token from issuer " + iss.name + "; if it is new, is it the access token, and was it issued there?"
	case TokenExpired:
		return "get a new one"
	case WrongAudience:
		return "ask the issuer for a token with that audience (sallyport token --audience or --resource), or add its own to " + at + ".audience"
	case MissingClaim:
		return "have the issuer put the claim into its answers about tokens, or change " + at + ".principal or require"
	case TokenTooLong:
		return "shorten the life of access tokens at the issuer, or raise " + at + ".max_lifetime"
	case TokenBound:
		return "call with the certificate to which the token is bound, and write " + at + ".bound_tokens: accept; else ask for one that is not bound (no DPoP)"
	case IssuerUnavailable:
		return "see what is said about the issuer"
	}
	return ""
}

// purposeOf returns the kind of a token that is no access token; "" for others.
func purposeOf(t *token) string {
	one := func(path string) string {
		if values := t.claims.Claim(path); len(values) == 1 {
			return values[0]
		}
		return ""
	}
	events := slices.ContainsFunc(t.claims, func(c claim) bool { return strings.HasPrefix(c.path, "events.") })
	switch typ := mediaType(t.typ); {
	case typ == "logout+jwt" || events:
		return "logout token"
	case typ == "refresh+jwt" || one("typ") == "Refresh" || one("typ") == "Offline":
		return "refresh token"
	case one("typ") == "ID" || one("token_use") == "id" || one("at_hash") != "" || one("c_hash") != "" || one("nonce") != "" && one("scope") == "" && one("scp") == "":
		return "ID token"
	case typ == "dpop+jwt":
		return "DPoP proof"
	}
	return ""
}

// withArticle returns a kind of token with its article.
func withArticle(kind string) string {
	if kind == "ID token" {
		return "an " + kind
	}
	return "a " + kind
}

// cureKind says which token to send instead of another kind.
func cureKind(kind string) string {
	if kind == "ID token" {
		return "send the access token: an ID token tells the client who logged in, and is for nobody else"
	}
	return "send the access token of the same answer of the issuer"
}

// explainAccepted returns what is odd about an accepted token.
func explainAccepted(raw string) []Finding {
	t := new(token)
	if t.parse(raw) != nil {
		return nil
	}
	if kind := purposeOf(t); kind != "" {
		return []Finding{{"it is accepted, but looks like " + withArticle(kind), cureKind(kind)}}
	}
	return nil
}

// explainIssuer explains a token whose issuer is none of the route.
func (a *Auth) explainIssuer(b *bearer, t *token) Finding {
	iss := t.registered.iss
	if iss == "" {
		return Finding{"iss is absent: nothing says who issued the token", "is it an access token of an OpenID issuer?"}
	}
	said := "iss is " + setting.Quoted(iss, shownClaim)
	if own := a.issuerWithURL(iss); own != nil {
		return Finding{said + ", which is issuer " + own.name + ", and the route does not list it", "list " + own.source + " in callers of the route, or send a token of an issuer that it lists"}
	}
	var near *issuer
	how := ""
	for _, name := range slices.Sorted(maps.Keys(a.issuers)) {
		if near, how = a.issuers[name], difference(iss, a.issuers[name].url); how != "" {
			return Finding{said + "; issuer " + name + " has " + setting.Quoted(near.url, shownClaim) + ": they differ by " + how,
				"write url: " + iss + " at issuers." + name + ": iss is compared byte for byte"}
		}
	}
	if near = a.nearest(iss); near == nil {
		names := strings.Join(slices.Sorted(maps.Keys(a.issuers)), ", ")
		return Finding{said + ", and no issuer of the configuration has that url or one like it", "send a token of one of its issuers, which are " + names + ", or add this one under issuers"}
	}
	return Finding{said + ", and no issuer of the configuration has that url; the nearest is " + near.name + ", " + setting.Quoted(near.url, shownClaim),
		"get the token from there" + otherRealm(iss, near.url) + ", or add its issuer under issuers"}
}

// nearest returns the configured issuer whose URL is most like one; nil if none is like it beyond its
// scheme and the first letters of its host.
func (a *Auth) nearest(to string) *issuer {
	var best *issuer
	most := len("https://host")
	for _, name := range slices.Sorted(maps.Keys(a.issuers)) {
		url, same := a.issuers[name].url, 0
		for same < len(url) && same < len(to) && url[same] == to[same] {
			same++
		}
		if same > most {
			best, most = a.issuers[name], same
		}
	}
	return best
}

// otherRealm names what two issuers of one server differ in.
func otherRealm(a, b string) string {
	x, err := url.Parse(a)
	y, err2 := url.Parse(b)
	switch {
	case err != nil || err2 != nil || x.Host != y.Host:
		return ""
	case strings.Contains(y.Path, "/realms/"):
		return " (it is of another realm)"
	}
	return " (it is of another tenant or path of the same server)"
}

// product returns the name of the product behind an issuer's URL; "" if that does not show it.
func product(issuer string) string {
	u, err := url.Parse(issuer)
	if err != nil {
		return ""
	}
	host := u.Hostname()
	switch {
	case strings.Contains(u.Path, "/realms/"):
		return "Keycloak"
	case strings.HasSuffix(host, ".auth0.com"):
		return "Auth0"
	case strings.HasSuffix(host, ".okta.com"), strings.HasSuffix(host, ".oktapreview.com"):
		return "Okta"
	case host == "login.microsoftonline.com", host == "sts.windows.net":
		return "Entra"
	case strings.HasPrefix(host, "cognito-idp."):
		return "Cognito"
	}
	return ""
}

// explain explains the refusal of a token by its issuer's configuration.
func (c *candidate) explain(t *token, e *Error) Finding {
	name, at := c.iss.name, "issuers."+c.iss.name
	f := Finding{Problem: strings.TrimPrefix(causeOf(e), "issuer "+name+": ")}
	kind := purposeOf(t)
	switch e.Reason {
	case BadCredential:
		f = c.explainBad(t, e, f)
	case TokenExpired:
		f.Cure = "get a new one; if it is new, compare the clocks of this machine and of the issuer"
		if t.registered.hasExp {
			f.Problem += ", at " + time.Unix(t.registered.exp, 0).UTC().Format(time.RFC3339)
		}
	case TokenNotYetValid:
		f.Cure = "wait, or correct the clock of this machine or of the issuer; " + at + ".skew tolerates up to 5m"
	case WrongAudience:
		f = c.explainAudience(t)
	case MissingClaim:
		f.Cure = c.cureClaim(t, f.Problem)
	default:
		f.Cure = c.iss.cureReason(e.Reason)
	}
	if kind != "" && e.Reason != IssuerUnavailable && e.Reason != TokenExpired {
		f.Problem, f.Cure = f.Problem+"; it looks like "+withArticle(kind), cureKind(kind)
	}
	return f
}

// explainBad explains a token that is malformed, forged or of an unknown key.
func (c *candidate) explainBad(t *token, e *Error, f Finding) Finding {
	at := "issuers." + c.iss.name
	switch {
	case e.Issuer != "": // the signature was verified, so a claim is malformed
		f.Cure = "correct the mapper of this claim at the issuer"
	case errors.Is(e.Err, errAlgorithm) && strings.HasPrefix(t.alg, "HS"):
		f.Cure = "the token is signed with a secret of the issuer, which nobody else can verify: choose RS256 or ES256 for access tokens there"
	case errors.Is(e.Err, errAlgorithm) && strings.EqualFold(t.alg, "none"):
		f.Cure = "an unsigned token proves nothing: have the issuer sign access tokens"
	case errors.Is(e.Err, errAlgorithm) && known(t.alg):
		f.Cure = "add " + t.alg + " to " + at + ".algorithms, or choose another algorithm at the issuer"
	case errors.Is(e.Err, errAlgorithm):
		f.Cure = "choose RS256 or ES256 for access tokens at the issuer"
	case errors.Is(e.Err, errType):
		f.Cure = "if the issuer marks access tokens so, add it to " + at + ".typ"
	case errors.Is(e.Err, errSignature):
		f.Cure = "the token was changed or cut on its way, or the issuer signs with a key that it does not publish: get a new one"
	case errors.Is(e.Err, errForeignKey):
		f.Cure = "list the tenant of the token in " + at + ".tenants, or use a token of a tenant that stands there"
	case errors.Is(e.Err, errAmbiguousKey):
		f.Cure = "have the issuer name its key in the token (kid)"
	default:
		f.Problem += c.published()
		f.Cure = "get a new token: this one is from before a change of keys, or of another realm or tenant"
	}
	return f
}

// published names the keys that the issuer publishes.
func (c *candidate) published() string {
	im := c.iss.memory.Load()
	if im == nil {
		return ""
	}
	set := im.keys.current.Load()
	if set == nil {
		return ""
	}
	var ids []string
	for _, k := range set.list {
		ids = append(ids, k.name())
	}
	return ": " + setting.QuotedList(ids, 2*shownClaim)
}

// list formats values as JSON does.
func list(values []string) string { return "[" + setting.QuotedList(values, shownClaim) + "]" }

// explainAudience explains a token whose audience the route does not accept.
func (c *candidate) explainAudience(t *token) Finding {
	name, at := c.iss.name, "issuers."+c.iss.name
	audience := audienceOf(t, c.iss.rules.audience)
	claim, found := audience.missing(c.audience)
	if audience.within(c.iss.audience) {
		return Finding{claim + " is " + list(found) + ", the route wants " + list(c.audience) + " of what " + name + " takes", "ask the issuer for a token with that audience, or change audience of the route"}
	}
	f := Finding{Problem: claim + " is " + list(found) + ", " + name + " wants " + list(c.audience)}
	if len(found) == 0 {
		f.Problem = claim + " is absent, " + name + " wants " + list(c.audience)
	}
	first := setting.Quoted(c.audience[0], shownClaim)
	of := product(c.iss.url)
	switch {
	case claim != "aud":
		f.Cure = "send a token of that client, or add its own to " + at + ".audience"
		return f
	case of == "Cognito" && len(found) == 0:
		f.Cure = "write " + at + ".audience_claim: client_id, and as audience the ids of the clients: access tokens of Cognito have no aud"
		return f
	}
	switch of {
	case "Keycloak":
		f.Cure = "add an audience mapper in Keycloak: Clients > the client > Client scopes > its dedicated scope > Configure a new mapper > Audience, with " + first + " as Included Custom Audience"
	case "Auth0":
		f.Cure = "ask Auth0 with the parameter audience=" + c.audience[0] + ": without it the token is for Auth0 itself"
	case "Okta":
		f.Cure = "ask a custom authorization server of Okta whose audience is " + first + "; tokens of the org server are for Okta itself"
	case "Entra":
		f.Cure = "ask Entra for the scope " + c.audience[0] + "/.default; with v2.0 aud is the id of the application"
	default:
		f.Cure = "ask the issuer for a token with that audience (sallyport token --audience or --resource); if it puts another name there for this gateway, add that to " + at + ".audience"
	}
	return f
}

// cureClaim says what to do about a required claim that is missing.
func (c *candidate) cureClaim(t *token, problem string) string {
	at := "issuers." + c.iss.name
	switch {
	case strings.HasPrefix(problem, "the claim of the principal"):
		var named []string
		for _, name := range [...]string{"sub", "client_id", "azp", "preferred_username", "email", "oid", "appid", "cid"} {
			if _, err := t.claims.principalName(name); err == nil {
				named = append(named, name)
			}
		}
		if len(named) == 0 {
			return "have the issuer add the claim, or name another one in " + at + ".principal"
		}
		return "have the issuer add the claim, or write another one in " + at + ".principal; the token has " + strings.Join(named, ", ")
	case strings.HasPrefix(problem, "tid is"):
		return "tid and iss must name one tenant: get the token from the tenant's own endpoint"
	case strings.HasPrefix(problem, "exp is absent"):
		return "have the issuer issue tokens that end; others are not accepted"
	case strings.HasPrefix(problem, "cnf is absent"):
		return "have the issuer bind the tokens of this client to its certificate (RFC 8705), or write " + at + ".bound_tokens: accept"
	case strings.HasPrefix(problem, "iat is absent"):
		return "have the issuer add iat, or remove " + at + ".max_lifetime"
	}
	return "have the issuer add the claim to access tokens, or change " + at + ".require"
}
