package credential

import (
	"context"
	"errors"
	"fmt"
	"net/url"
	"strings"
	"time"

	"golang.org/x/oauth2"
	"golang.org/x/oauth2/clientcredentials"

	"sallyport/auth/fetch"
	"sallyport/proxy/upstream"
)

const (
	// assumedLife is the life of a token that comes without one.
	assumedLife = 5 * time.Minute
	// longestLife bounds for how long a token is used, whatever the server says.
	longestLife = 24 * time.Hour
)

// newFetcher returns a function that fetches a token by the client's credentials (RFC 6749, section
// 4.4). Its errors hold no secret and no text of the server but a code of the RFC.
func newFetcher(c *upstream.OAuth2Config) (func(context.Context) (string, time.Duration, error), error) {
	secret, err := c.ClientSecret.Read()
	if err != nil {
		return nil, err
	}
	o := fetch.Options{InsecureHTTP: c.InsecureHTTP}
	if c.CA != "" {
		if o.Roots, err = fetch.Roots(string(c.CA)); err != nil {
			return nil, err
		}
	}
	documents := fetch.New(o)
	o.AnyStatus = true
	tokens := fetch.New(o)
	client := clientcredentials.Config{ClientID: c.ClientID, ClientSecret: string(secret), Scopes: c.Scopes, AuthStyle: oauth2.AuthStyleInHeader}
	if c.AuthStyle == upstream.SecretPost {
		client.AuthStyle = oauth2.AuthStyleInParams
	}
	if c.Audience != "" {
		client.EndpointParams = url.Values{"audience": {c.Audience}}
	}
	issuer := ""
	if c.TokenURL.IsZero() {
		issuer = c.Issuer.String()
	} else {
		client.TokenURL = c.TokenURL.String()
	}
	return func(ctx context.Context) (string, time.Duration, error) {
		if client.TokenURL == "" {
			at, err := discover(ctx, documents, issuer)
			if err != nil {
				return "", 0, err
			}
			client.TokenURL = at
		}
		t, err := client.Token(context.WithValue(ctx, oauth2.HTTPClient, tokens.HTTP()))
		if err != nil {
			if issuer != "" {
				client.TokenURL = "" // it may have moved
			}
			return "", 0, plainFault(err)
		}
		if !strings.EqualFold(t.Type(), "Bearer") || !upstream.ValidToken(t.AccessToken) {
			return "", 0, errNoToken
		}
		life := assumedLife
		if !t.Expiry.IsZero() {
			life = min(time.Until(t.Expiry), longestLife)
		}
		return "Bearer " + t.AccessToken, life, nil
	}, nil
}

var errNoToken = errors.New("the token endpoint's answer holds no bearer token")

// discover returns the token endpoint of an issuer (OpenID Connect Discovery 1.0, section 4).
func discover(ctx context.Context, documents *fetch.Client, issuer string) (string, error) {
	var d struct {
		Issuer   string `json:"issuer"`
		Endpoint string `json:"token_endpoint"`
	}
	if err := documents.JSON(ctx, strings.TrimSuffix(issuer, "/")+"/.well-known/openid-configuration", &d); err != nil {
		return "", fmt.Errorf("discovery: %w", err)
	}
	switch {
	case d.Issuer != issuer:
		return "", errors.New("discovery: the document is of another issuer; write issuer as it says, or token_url")
	case d.Endpoint == "":
		return "", errors.New("discovery: the issuer has no token endpoint")
	}
	return d.Endpoint, nil
}

// plainFault returns an error of golang.org/x/oauth2, whose texts hold the answer, without that.
func plainFault(err error) error {
	var failed *fetch.Error
	var refused *oauth2.RetrieveError
	switch {
	case errors.As(err, &failed):
		return failed
	case !errors.As(err, &refused):
		return errNoToken
	}
	what := fmt.Sprintf("the token endpoint answered %d", refused.Response.StatusCode)
	switch refused.ErrorCode {
	case "invalid_request", "invalid_client", "invalid_grant", "unauthorized_client", "unsupported_grant_type", "invalid_scope", "invalid_target", "access_denied":
		what += " " + refused.ErrorCode
	}
	return errors.New(what)
}
