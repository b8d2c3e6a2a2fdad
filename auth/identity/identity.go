// Package identity says who a caller is, once that has been proved.
package identity

import (
	"strings"
	"time"
)

// Principal is a caller as one proof names it. The zero Principal is nobody.
//
// Scopes, groups and claims come from that proof alone and are shared between
// requests: they must not be modified.
type Principal struct {
	// Source is the kind of proof and, where there are several of a kind, its
	// name in the configuration: "issuer/corp", "cert", "key", "anonymous".
	Source string
	// Name is the caller's name at that source, such as a subject.
	Name string
	// Alias is the one name that the configuration gives to several proofs of the
	// same caller, "" if it gives none.
	Alias string

	Scopes []string
	Groups []string
	// Claim returns the values of a claim by its path ("realm_access.roles"): one
	// for a string, number or boolean, several for an array of those, none if it
	// is absent or an object. Nil means that the proof carries no claims.
	Claim func(path string) []string

	full string // what String returns, if Qualify computed it

	// KeyID names the key that the proof was checked with, for the audit record.
	KeyID string
	// Expires is when the proof ends; zero means never.
	Expires time.Time
}

// Anonymous is the principal of routes that say `callers: anonymous`.
func Anonymous() Principal { return Principal{Source: "anonymous", Name: "anonymous"} }

// IsZero reports whether the principal is nobody.
func (p *Principal) IsZero() bool { return p.Source == "" }

// String is the qualified name, such as "issuer/corp:alice": names of different
// sources never collide. Nobody is "".
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

// Qualify computes the qualified name once, for a principal of many requests. Source
// and Name must not change afterwards.
func (p *Principal) Qualify() { p.full = p.String() }

// Kind is the kind of proof: "bearer" for the token of an issuer, otherwise the
// source without its name, such as "cert".
func (p *Principal) Kind() string {
	kind, _, _ := strings.Cut(p.Source, "/")
	if kind == "issuer" {
		return "bearer"
	}
	return kind
}
