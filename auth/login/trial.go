package login

import (
	"context"
	"crypto/rand"
	"net/url"

	"golang.org/x/oauth2"
)

// SilentRequest returns the authorization request of the login for a browser at an origin, as [Login.Begin]
// does, but one at which the issuer may ask the browser nothing: it must send it back at once (OpenID
// Connect Core, 3.1.2.1). Nothing is begun by that. state is the parameter of the answer.
func (l *Login) SilentRequest(ctx context.Context, host, origin string) (address *url.URL, state string, err error) {
	r, err := l.Begin(ctx, Attempt{Host: host, Origin: origin, To: "/"})
	if err != nil {
		return nil, "", err
	}
	if address, err = url.Parse(r.Location); err != nil {
		return nil, "", err
	}
	q := address.Query()
	q.Set("prompt", "none")
	address.RawQuery = q.Encode()
	return address, q.Get("state"), nil
}

// TryCode presents a made-up code as [Login.Finish] presents one. It returns the error code of OAuth in the
// answer, or an error without one. If stranger is set, it proves itself by a made-up secret too.
func (l *Login) TryCode(ctx context.Context, origin string, stranger bool) (answer string, err error) {
	e, err := l.issuer.Endpoints(ctx)
	if err != nil {
		return "", err
	}
	ctx, client := l.client(ctx, e, origin)
	if stranger {
		client.ClientSecret = rand.Text()
	}
	if _, err = client.Exchange(ctx, rand.Text(), oauth2.VerifierOption(oauth2.GenerateVerifier())); err == nil {
		return "", nil
	}
	if answer = faultOf(err); answer != "" {
		return answer, nil
	}
	return "", l.exchangeError(err)
}

// IsPublic reports whether the login has no secret.
func (l *Login) IsPublic() bool { return l.config.ClientSecret == "" }

// Asked returns what the login asks of the issuer: how it sends its secret ("" for none), its scopes, and
// the parameter prompt.
func (l *Login) Asked() (clientAuth string, scopes []string, prompt string) {
	if !l.IsPublic() {
		if clientAuth = l.config.ClientAuth; clientAuth == "" {
			clientAuth = ClientAuthBasic
		}
	}
	return clientAuth, l.config.Scopes, l.config.Prompt
}
