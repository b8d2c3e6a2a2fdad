package auth

import (
	"bytes"
	"context"
	"errors"
	"strings"

	"github.com/coreos/go-oidc/v3/oidc"
	"github.com/go-json-experiment/json"

	"sallyport/auth/fetch"
	"sallyport/auth/login"
	"sallyport/proxy/setting"
)

// discoveryDocument holds the used members of a discovery document (OpenID Connect
// Discovery 1.0, section 3).
type discoveryDocument struct {
	issuer, jwks        string
	introspection       string
	mutualIntrospection string // for clients with a certificate (RFC 8705, section 5)

	login login.Endpoints
	text  []byte
}

// UnmarshalJSON decodes the document strictly: it compares names exactly and refuses
// duplicates. go-oidc's own decoder does neither.
func (d *discoveryDocument) UnmarshalJSON(text []byte) error {
	var doc struct {
		Issuer string `json:"issuer"`
		JWKS   string `json:"jwks_uri"`

		Introspection string `json:"introspection_endpoint"`
		Authorization string `json:"authorization_endpoint"`
		Token         string `json:"token_endpoint"`
		Userinfo      string `json:"userinfo_endpoint"`
		EndSession    string `json:"end_session_endpoint"`
		Revocation    string `json:"revocation_endpoint"`
		NamesIssuer   bool   `json:"authorization_response_iss_parameter_supported"`
		Mutual        struct {
			Introspection string `json:"introspection_endpoint"`
		} `json:"mtls_endpoint_aliases"`
	}
	err := json.Unmarshal(text, &doc)
	d.issuer, d.jwks = doc.Issuer, doc.JWKS
	d.login = login.Endpoints{Authorization: doc.Authorization, Token: doc.Token, Userinfo: doc.Userinfo, EndSession: doc.EndSession, Revocation: doc.Revocation, NamesIssuer: doc.NamesIssuer}
	d.text = bytes.Clone(text)
	d.introspection, d.mutualIntrospection = doc.Introspection, doc.Mutual.Introspection
	return err
}

// anotherIssuer means that a discovery document names another issuer than the configuration.
type anotherIssuer struct{ found, wanted string }

// similar reports whether the two issuers differ only in spelling. Otherwise the document may be
// somebody else's.
func (e *anotherIssuer) similar() bool {
	return e.found != "" && difference(e.found, e.wanted) != ""
}

// Error names both issuers and how to correct the configuration.
func (e *anotherIssuer) Error() string {
	s := "it says " + setting.Quoted(e.found, 2*shownName) + ", the configuration says " + setting.Quoted(e.wanted, 2*shownName)
	if e.similar() {
		return s + ": write url: " + e.found
	}
	return s + ": if the document is right, correct url, else discovery"
}

// from returns the text of Error with the URL of the document. The correction comes first, because
// long causes are cut.
func (e *anotherIssuer) from(url string) string {
	if e.similar() {
		return "write url: " + setting.Shortened(e.found, 2*shownName) + ", as " + url + " says; the configuration has " + setting.Quoted(e.wanted, 2*shownName)
	}
	return url + ": the document names another issuer: " + e.Error()
}

// discoveryURL returns the URL of the discovery document under base.
func discoveryURL(base string) string {
	return strings.TrimSuffix(base, "/") + "/.well-known/openid-configuration"
}

// discover fetches the discovery document under base and checks that it names the
// issuer. The error is an [*anotherIssuer] or a [*fetch.Error].
func discover(ctx context.Context, client *fetch.Client, base, issuer string) (discoveryDocument, error) {
	ctx = oidc.ClientContext(ctx, client.HTTP())
	if base != issuer {
		ctx = oidc.InsecureIssuerURLContext(ctx, issuer) // compared below
	}
	var doc discoveryDocument
	provider, err := oidc.NewProvider(ctx, base)
	if err == nil {
		err = provider.Claims(&doc)
	}
	var failed *fetch.Error
	var mismatch *oidc.IssuerMismatchError
	switch {
	case errors.As(err, &failed):
		return doc, failed
	case errors.As(err, &mismatch):
		return doc, &anotherIssuer{mismatch.Discovered, issuer}
	case err != nil:
		return doc, &fetch.Error{Kind: fetch.Garbage, Err: err}
	case doc.issuer != issuer:
		return doc, &anotherIssuer{doc.issuer, issuer}
	}
	return doc, nil
}
