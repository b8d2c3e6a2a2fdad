package auth

import (
	"context"
	"errors"

	"github.com/coreos/go-oidc/v3/oidc"
	"github.com/go-json-experiment/json"

	"sallyport/auth/fetch"
)

// discoveryDocument is what is used of a discovery document (OpenID Connect Discovery
// 1.0, section 3).
type discoveryDocument struct {
	issuer, jwks string
}

// UnmarshalJSON reads the document strictly: names are compared exactly, and
// duplicates are refused. go-oidc's own reading does neither.
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

// discover fetches the discovery document under base, and sees that it is the
// issuer's. The error is [errAnotherIssuer] or a [*fetch.Error].
func discover(ctx context.Context, client *fetch.Client, base, issuer string) (discoveryDocument, error) {
	ctx = oidc.ClientContext(ctx, client.HTTP())
	if base != issuer {
		ctx = oidc.InsecureIssuerURLContext(ctx, issuer) // our own comparison follows
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
