package auth

import (
	"context"
	"errors"

	"github.com/coreos/go-oidc/v3/oidc"
	"github.com/go-json-experiment/json"

	"sallyport/auth/fetch"
)

// discoveryDocument holds the used members of a discovery document (OpenID Connect
// Discovery 1.0, section 3).
type discoveryDocument struct {
	issuer, jwks string
}

// UnmarshalJSON decodes the document strictly: it compares names exactly and refuses
// duplicates. go-oidc's own decoder does neither.
func (d *discoveryDocument) UnmarshalJSON(text []byte) error {
	var doc struct {
		Issuer string `json:"issuer"`
		JWKS   string `json:"jwks_uri"`
	}
	err := json.Unmarshal(text, &doc)
	d.issuer, d.jwks = doc.Issuer, doc.JWKS
	return err
}

var errAnotherIssuer = errors.New("the document names another issuer")

// discover fetches the discovery document under base and checks that it names the
// issuer. The error is [errAnotherIssuer] or a [*fetch.Error].
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
		return doc, errAnotherIssuer
	case err != nil:
		return doc, &fetch.Error{Kind: fetch.Garbage, Err: err}
	case doc.issuer != issuer:
		return doc, errAnotherIssuer
	}
	return doc, nil
}
