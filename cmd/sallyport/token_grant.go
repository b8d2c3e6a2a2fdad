package main

import (
	"fmt"
	"slices"
)

// grant is a way to get a token, by its grant_type.
type grant string

const (
	clientCredentials grant = "client_credentials"
	authorizationCode grant = "authorization_code"
	refreshToken      grant = "refresh_token"
	deviceCode        grant = "urn:ietf:params:oauth:grant-type:device_code" // RFC 8628, section 3.4
)

// words names a grant, and says how to allow it to a client.
func (g grant) words() (name, allow string) {
	switch g {
	case authorizationCode:
		return "the authorization code flow", "allow it at the issuer; in Keycloak that is Standard flow"
	case deviceCode:
		return "the device flow", "allow it at the issuer; in Keycloak that is OAuth 2.0 Device Authorization Grant; or open a page on this machine, with --device=false"
	case refreshToken:
		return "refresh tokens", "allow them at the issuer, or remove the cached token with --logout"
	}
	return "client credentials", "allow them at the issuer; in Keycloak that is Service account roles, with Client authentication on"
}

// offers refuses a grant that the issuer does not list. Without a list, it may offer all.
func (at *tokenIssuer) offers(m *issuerMetadata, g grant) error {
	if len(m.Grants) == 0 || slices.Contains(m.Grants, string(g)) {
		return nil
	}
	name, _ := g.words()
	return fmt.Errorf("issuer %s does not offer %s (grant_types_supported): enable that there", shownText(at.url), name)
}
