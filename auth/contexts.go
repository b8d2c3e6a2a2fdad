package auth

import (
	"cmp"
	"fmt"
	"maps"
	"math"
	"slices"
	"strings"

	"sallyport/auth/identity"
	"sallyport/auth/login"
	"sallyport/proxy/setting"
)

// ACRConfig is `acr` of an issuer: how the issuer says by what means people proved who they are, and how it
// is asked for one. Routes and logins list such means under acr_values, whatever claim they come in.
type ACRConfig struct {
	// Claim is the path of the claim that tells the means, in ID tokens and in bearer tokens: a string, or a list
	// of strings, such as amr for Auth0 or acrs for Entra ID. No other claim counts then. Default: acr.
	Claim string `yaml:"claim"`
	// AskBy is the parameter of the authorization request that asks for a means: acr_values, or claims, which
	// asks for the claim with the value, as Entra ID wants it. Default: acr_values.
	AskBy string `yaml:"ask_by"`
	// AskAs says what to write into acr_values instead of a value, if the issuer is asked by another word than
	// it answers, such as mfa: http://schemas.openid.net/pape/policies/2007/06/multi-factor for Auth0.
	// Default: the value itself.
	AskAs map[string]string `yaml:"ask_as"`
}

// These are the parameters that ask for authentication contexts.
const (
	AskByValues = "acr_values"
	AskByClaims = "claims"
)

const (
	maxAskAs     = 32
	maxAskAsName = 512 // bytes
)

// check records the faults of the section; at returns the place of a field of the issuer.
func (c *ACRConfig) check(at func(string) string, f *setting.Faults) {
	if c.Claim == "" && c.AskBy == "" && len(c.AskAs) == 0 {
		f.Add(at("acr"), "", "says nothing", "write claim, ask_by or ask_as, or remove the line")
	}
	switch root, _, _ := strings.Cut(c.Claim, "."); {
	case len(c.Claim) > maxPath || strings.IndexFunc(c.Claim, func(r rune) bool { return r <= ' ' || invisible(r) }) >= 0:
		f.Add(at("acr.claim"), c.Claim, "not the name of a claim", "write one such as amr")
	case isOfProtocol(root):
		f.Add(at("acr.claim"), c.Claim, "does not say by what means somebody signed in", "write acr, amr, acrs, or the claim in which the issuer says it")
	case isOfPerson(root):
		f.Add(at("acr.claim"), c.Claim, "is about the person, who may be able to choose it", "write acr, amr, acrs, or the claim in which the issuer says it")
	}
	switch {
	case c.AskBy != "" && c.AskBy != AskByValues && c.AskBy != AskByClaims:
		f.Add(at("acr.ask_by"), c.AskBy, "unknown value", "write "+AskByValues+" or "+AskByClaims)
	case c.AskBy == AskByClaims && len(c.AskAs) > 0:
		f.Add(at("acr.ask_as"), "", "the parameter claims asks for the value itself", "remove it, or ask_by: "+AskByClaims)
	}
	if len(c.AskAs) > maxAskAs {
		f.Add(at("acr.ask_as"), "", fmt.Sprintf("has %d values", len(c.AskAs)), fmt.Sprintf("write up to %d", maxAskAs))
	}
	for _, value := range slices.Sorted(maps.Keys(c.AskAs)) {
		as := c.AskAs[value]
		for _, word := range []string{value, as} {
			if !IsWord(word) || len(word) > maxAskAsName {
				f.Add(setting.Join(at("acr.ask_as"), value), as, "not one word for one word", "write VALUE: WORD, each without spaces and quotes")
				break
			}
		}
	}
}

// isOfProtocol reports whether a claim is about the token itself, or is what a client asked for.
func isOfProtocol(claim string) bool {
	switch claim {
	case "iss", "sub", "aud", "exp", "nbf", "iat", "jti", "azp", "nonce", "auth_time", "sid", "at_hash", "c_hash", "cnf", "client_id", "scope", "scp", "typ":
		return true
	}
	return false
}

// isOfPerson reports whether a claim is one of the profile (OpenID Connect Core, section 5.1).
func isOfPerson(claim string) bool {
	switch claim {
	case "name", "given_name", "family_name", "middle_name", "nickname", "preferred_username", "profile", "picture", "website", "email",
		"email_verified", "gender", "birthdate", "zoneinfo", "locale", "phone_number", "phone_number_verified", "address", "updated_at":
		return true
	}
	return false
}

// ACRClaim returns the path of the claim that tells how somebody was authenticated.
func (c *IssuerConfig) ACRClaim() string {
	if c.ACR == nil {
		return login.ClaimACR
	}
	return cmp.Or(c.ACR.Claim, login.ClaimACR)
}

// asksByClaims reports whether the parameter claims asks the issuer for authentication contexts.
func (c *IssuerConfig) asksByClaims() bool { return c.ACR != nil && c.ACR.AskBy == AskByClaims }

func (c *IssuerConfig) contexts() login.Contexts {
	all := login.Contexts{Claim: c.ACRClaim(), ByClaims: c.asksByClaims()}
	if c.ACR != nil {
		all.Names = maps.Clone(c.ACR.AskAs)
	}
	return all
}

// authentication returns how the owner of a token was authenticated, by the claim at path. A claim of another
// type says nothing. at is the claim auth_time, in seconds since 1970; 0 if it is absent.
func (s claimSet) authentication(path string, at int64) login.Authentication {
	a := login.Authentication{Claim: path, Time: at}
	c, _ := s.find(path)
	if one, err := c.string(); err == nil && path == login.ClaimACR {
		a.Values = one
	} else if c.kind == text && path != login.ClaimACR {
		a.Values = joined(c.values)
	}
	return a
}

// joined returns those values that are words, with a space between two. No demand names others.
func joined(values []string) string {
	if len(values) == 1 && IsWord(values[0]) {
		return values[0]
	}
	return strings.Join(slices.DeleteFunc(slices.Clone(values), func(v string) bool { return !IsWord(v) }), " ")
}

// AuthenticationOf returns how a principal was authenticated, by its claim at path, and when, by its claim
// auth_time.
func AuthenticationOf(p *identity.Principal, path string) login.Authentication {
	a := login.Authentication{Claim: path}
	if p.Claim == nil {
		return a
	}
	if values := p.Claim(path); path != login.ClaimACR {
		a.Values = joined(values)
	} else if len(values) == 1 {
		a.Values = values[0]
	}
	if values := p.Claim("auth_time"); len(values) == 1 {
		a.Time, _ = (&claim{values: values, kind: number}).date(math.Floor)
	}
	return a
}
