package auth

import (
	"slices"
	"strings"
)

// AuthorizationServers returns the issuers whose tokens clients may send themselves to a route
// with these callers: the URLs, in the order of the callers. Issuers whose tokens a proxy adds are
// not among them. bound reports whether the tokens of each must be bound to a client certificate.
func (a *Auth) AuthorizationServers(callers []string) (all []string, bound bool) {
	bound = true
	for _, caller := range callers {
		iss := a.issuer(caller)
		if iss == nil || iss.field != "" {
			continue
		}
		bound = bound && iss.rules.bound == BoundRequire
		for _, u := range iss.urls {
			if !slices.Contains(all, u) {
				all = append(all, u)
			}
		}
	}
	return all, bound && len(all) > 0
}

// WithMetadata adds to the Bearer challenge for a realm where clients find the metadata of the
// resource (RFC 9728, section 5.1). Without a url or such a challenge it changes nothing.
func WithMetadata(challenge, realm, url string) string {
	bearer := "Bearer realm=" + quoted(realm)
	if url == "" {
		return challenge
	}
	return strings.Replace(challenge, bearer, bearer+", resource_metadata="+quoted(url), 1)
}
