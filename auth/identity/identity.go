// Package identity defines the authenticated caller of a request.
package identity

import (
	"strings"
	"time"
)

// Principal is a caller that one credential proves. The zero Principal is nobody.
//
// Scopes, groups and claims come from that credential only. Requests share them, so they
// must not be modified.
type Principal struct {
	// Source is the kind of credential, with its name in the configuration if there may
	// be several of the kind: "issuer/corp", "cert", "key", "apikey", "anonymous".
	Source string
	// Name is the caller's name at that source, such as a subject.
	Name string
	// Alias is the common name that the configuration gives to several principals of
	// the same caller, "" if it gives none.
	Alias string

	Scopes []string
	Groups []string
	// Claim returns the values of a claim by its path ("realm_access.roles"): one
	// for a string, number or boolean, several for an array of those, none if it
	// is absent or an object. Nil means that the credential has no claims.
	Claim func(path string) []string
	// IsList reports whether the claim at a path is an array, which one value alone does not tell.
	IsList func(path string) bool
	// Elsewhere are the paths of claims that the caller has and the credential left out, because they are
	// too large for it (OpenID Connect Core, section 5.6.2). Entra does so with more than 200 groups.
	Elsewhere []string
	// GroupsElsewhere means that Groups is empty because of that.
	GroupsElsewhere bool

	full string // result of String, once Qualify has computed it

	// KeyID names the key that verified the credential, for the audit record. For a certificate it
	// is the fingerprint, as sha256:HEX.
	KeyID string
	// ID identifies the credential among those of its source, so that it can be revoked: the jti
	// of a token; the serial number of a certificate in lower-case hexadecimal without leading
	// zeros, a space, and its issuer in the form of RFC 2253. "" means that it has none.
	ID string
	// IssuedAt is when the credential was issued; zero means that this is unknown.
	IssuedAt time.Time
	// Expires is when the credential expires; zero means never.
	Expires time.Time
	// Login means that the caller signed in with a browser, and a session proves it.
	Login bool
}

// Anonymous returns the principal of requests to routes with `callers: anonymous`.
func Anonymous() Principal { return Principal{Source: "anonymous", Name: "anonymous"} }

// LeftOut reports whether the credential left out the claim at a path, or the object that it is in.
func (p *Principal) LeftOut(path string) bool {
	for _, e := range p.Elsewhere {
		if rest, ok := strings.CutPrefix(path, e); ok && (rest == "" || rest[0] == '.') {
			return true
		}
	}
	return false
}

// IsZero reports whether the principal is nobody.
func (p *Principal) IsZero() bool { return p.Source == "" }

// String returns the qualified name, such as "issuer/corp:alice". Names of different
// sources never collide. The zero Principal is "".
func (p *Principal) String() string {
	if p.IsZero() {
		return ""
	}
	if p.full != "" {
		return p.full
	}
	if p.Source == "anonymous" {
		return "anonymous"
	}
	return p.Source + ":" + p.Name
}

// Qualify caches the result of String, for a principal that many requests share. Source
// and Name must not change afterwards.
func (p *Principal) Qualify() { p.full = p.String() }

// Kind returns the kind of credential: "bearer" for the token of an issuer and "login" for a session,
// otherwise the source, such as "cert".
func (p *Principal) Kind() string {
	kind, _, _ := strings.Cut(p.Source, "/")
	switch {
	case p.Login:
		return "login"
	case kind == "issuer":
		return "bearer"
	}
	return kind
}
