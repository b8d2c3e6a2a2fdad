package login

import (
	"slices"
	"strings"

	"github.com/go-json-experiment/json"

	"sallyport/proxy/setting"
)

// ClaimACR is the claim that names an authentication context (OpenID Connect Core, section 2).
const ClaimACR = "acr"

// Authentication is what an issuer says of how and when somebody proved who they are. The zero value says
// nothing, and satisfies no demand.
type Authentication struct {
	// Claim is the name of the claim that says how: acr, or what the issuer's configuration names instead.
	Claim string
	// Values is what that claim says; "" if it is absent or of another type. acr is one string, which may have
	// spaces. Of another claim these are all words, with a space between two.
	Values string
	// Time is the claim auth_time, in seconds since 1970; 0 if it is absent.
	Time int64
}

// hasOne reports whether one of the values is among some words.
func (a Authentication) hasOne(words []string) bool {
	for one, rest := "", a.Values; rest != ""; {
		if one, rest, _ = strings.Cut(rest, " "); a.Claim == ClaimACR {
			one, rest = a.Values, ""
		}
		if slices.Contains(words, one) {
			return true
		}
	}
	return false
}

// List returns the values one by one.
func (a Authentication) List() []string {
	switch {
	case a.Values == "":
		return nil
	case a.Claim == ClaimACR:
		return []string{a.Values}
	}
	return strings.Split(a.Values, " ")
}

// String says what the claim says.
func (a Authentication) String() string {
	if a.Values == "" {
		return a.Claim + " is absent"
	}
	return a.Claim + " is " + setting.Quoted(a.Values, 64)
}

// text returns claim and values as one text. That of acr is its value, unless that has the separator.
func (a Authentication) text() string {
	if a.Claim == ClaimACR && strings.IndexByte(a.Values, 0) < 0 {
		return a.Values
	}
	return a.Claim + "\x00" + a.Values
}

// authenticationOf returns the authentication with a text. It does not allocate.
func authenticationOf(text string, at int64) Authentication {
	if claim, values, other := strings.Cut(text, "\x00"); other {
		return Authentication{claim, values, at}
	}
	return Authentication{ClaimACR, text, at}
}

// Contexts says how an issuer is asked for authentication contexts, and which claim tells what it did. It is
// immutable.
type Contexts struct {
	// Claim is the one claim that counts: none takes its place if it is absent.
	Claim string
	// ByClaims asks by the parameter claims (OpenID Connect Core, section 5.5) instead of acr_values.
	ByClaims bool
	// Names are what acr_values has instead of a value, for those that the claim says in another way.
	Names map[string]string
}

// Parameter returns the parameter of an authorization request that asks for one of some values.
func (c *Contexts) Parameter(values []string) (name, value string) {
	if c.ByClaims {
		return "claims", c.Request("id_token", values)
	}
	return "acr_values", strings.Join(c.Asked(values), " ")
}

// Asked returns the values by the names with which the issuer is asked for them, each once.
func (c *Contexts) Asked(values []string) (names []string) {
	for _, v := range values {
		if name, renamed := c.Names[v]; renamed {
			v = name
		}
		if !slices.Contains(names, v) {
			names = append(names, v)
		}
	}
	return names
}

// Request returns a request in JSON for the claim in a kind of token. Of acr it lists even one value, as
// section 5.5.1.1 does: Keycloak reads nothing else. Entra's documents have the member value.
func (c *Contexts) Request(token string, values []string) string {
	claim := struct {
		Essential bool     `json:"essential"`
		Value     string   `json:"value,omitzero"`
		Values    []string `json:"values,omitempty"`
	}{Essential: true, Values: values}
	if len(values) == 1 && c.Claim != ClaimACR {
		claim.Value, claim.Values = values[0], nil
	}
	text, _ := json.Marshal(map[string]any{token: map[string]any{c.Claim: claim}}) // words are always text
	return string(text)
}
