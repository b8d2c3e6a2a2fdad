package login

import (
	"bytes"
	"context"
	"errors"
	"fmt"

	"github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"

	"sallyport/proxy/setting"
)

// openUserinfo returns the claims of an answer about a person. Clients may be registered for answers that
// are signed (OpenID Connect Core, section 5.3.2): those are JWTs, of the issuer and for this client.
func (l *Login) openUserinfo(ctx context.Context, text []byte) ([]byte, error) {
	text = bytes.TrimSpace(text)
	if !bytes.HasPrefix(text, []byte("ey")) || bytes.Count(text, []byte(".")) != 2 {
		return text, nil // an object, or nothing of the issuer's: a page of a proxy, say
	}
	claims, _, err := l.issuer.Verify(ctx, string(text), "JWT")
	switch {
	case errors.Is(err, ErrUnavailable):
		return nil, refuse(Unavailable, fmt.Errorf("userinfo: %w", err))
	case err != nil:
		return nil, refuse(BadTokens, fmt.Errorf("signed userinfo: %w", err))
	}
	var about struct {
		Issuer   string         `json:"iss"`
		Audience jsontext.Value `json:"aud"`
	}
	if json.Unmarshal(claims, &about) != nil || !l.issuer.Issues(about.Issuer) {
		return nil, refuse(BadTokens, errors.New("iss of the signed userinfo is "+setting.Quoted(about.Issuer, 128)))
	}
	var one string
	var several []string
	if json.Unmarshal(about.Audience, &one) != nil && json.Unmarshal(about.Audience, &several) != nil || one != l.config.ClientID && !contains(several, l.config.ClientID) {
		return nil, refuse(BadTokens, errors.New("aud of the signed userinfo is not this client"))
	}
	return claims, nil
}
