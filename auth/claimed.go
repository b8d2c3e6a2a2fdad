package auth

import (
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"

	"sallyport/auth/identity"
)

// Claimed returns the caller whom a token of one of these issuers names. It verifies nothing, neither
// signature nor times nor audience: it is for tools that say what rules decide about the caller. The
// error says why the gateway could not tell the caller.
func Claimed(issuers map[string]IssuerConfig, raw string) (identity.Principal, error) {
	t := new(token)
	if err := t.parse(raw); err != nil {
		return identity.Principal{}, fmt.Errorf("not a token that tells its caller: %w", err)
	}
	for _, name := range slices.Sorted(maps.Keys(issuers)) {
		c := issuers[name]
		iss := &issuer{name: name, source: "issuer/" + name, url: c.URL, tenants: c.Tenants, urls: c.urls(), rules: rulesOf(&c)}
		if !iss.issues(t.registered.iss) {
			continue
		}
		p, _, err := iss.principal(t)
		return p, err
	}
	if t.registered.iss == "" {
		return identity.Principal{}, errors.New("the token names no issuer")
	}
	return identity.Principal{}, fmt.Errorf("the token is of issuer %q; the configuration has: %s", t.registered.iss, strings.Join(slices.Sorted(maps.Keys(issuers)), ", "))
}
