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
	"sallyport/proxy/message"
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
		if !strings.EqualFold(t.Type(), "Bearer") || !message.ValidToken(t.AccessToken) {
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
	answer := &refusal{status: refused.Response.StatusCode}
	switch refused.ErrorCode {
	case "invalid_request", "invalid_client", "invalid_grant", "unauthorized_client", "unsupported_grant_type", "invalid_scope", "invalid_target", "access_denied":
		answer.code = refused.ErrorCode
	}
	return answer
}

// refusal is an answer of the token endpoint without a token.
type refusal struct {
	status int
	code   string // of RFC 6749, section 5.2; "" for none or another
}

func (r *refusal) Error() string {
	return strings.TrimSpace(fmt.Sprintf("the token endpoint answered %d %s", r.status, r.code))
}

// Try fetches one token as the gateway would for an upstream, and drops it.
func Try(ctx context.Context, c *upstream.OAuth2Config) error {
	fetch, err := newFetcher(c)
	if err != nil {
		return err
	}
	_, _, err = fetch(ctx)
	return err
}

// Cure says what to do about an error of fetching a token, such as one of [Try]; "" if that is not
// known.
func Cure(err error) string {
	var failed *fetch.Error
	var refused *refusal
	switch {
	case errors.As(err, &refused):
		return cureRefusal(refused)
	case !errors.As(err, &failed):
		return ""
	}
	switch failed.Kind {
	case fetch.Untrusted:
		return "name the file with the root certificate of the issuer's authority as ca of oauth2"
	case fetch.Unreachable, fetch.TimedOut:
		return "is the issuer running, and may this machine reach it?"
	case fetch.BadStatus, fetch.Garbage:
		return "write issuer as its tokens have it, or its token_url"
	}
	return ""
}

func cureRefusal(r *refusal) string {
	switch {
	case r.code == "invalid_client":
		return "compare client_id and client_secret with the issuer's page; if they are right, try another auth_style"
	case r.code == "unauthorized_client", r.code == "unsupported_grant_type":
		return "allow this client the grant by client credentials at the issuer"
	case r.code == "invalid_scope":
		return "correct scopes, or allow them to this client at the issuer"
	case r.code == "invalid_target":
		return "correct audience"
	case r.status >= 500:
		return "the issuer is in trouble: its log says more"
	}
	return "the issuer's log says more; is this its token endpoint?"
}
