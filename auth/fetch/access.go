package fetch

import (
	"context"
	"encoding/base64"
	"errors"
	"net/http"
	"net/url"
	"strings"
)

// authorize adds the token to a request for one of the origins.
func (t *transport) authorize(r *http.Request) error {
	if t.token == nil || !t.trusts(r.URL) {
		return nil
	}
	token, err := t.token()
	if err != nil {
		return &Error{Kind: NoToken, Err: err}
	}
	for _, b := range token {
		if b <= ' ' || b >= 0x7f {
			return &Error{Kind: NoToken, Err: errors.New("the file of the token holds more than one token in one line")}
		}
	}
	r.Header.Set("Authorization", "Bearer "+string(token))
	return nil
}

// trusts reports whether the token may be sent to a URL.
func (t *transport) trusts(u *url.URL) bool {
	for _, o := range t.origins {
		if u.Scheme == "https" && o.Scheme == "https" && strings.EqualFold(o.Hostname(), u.Hostname()) && port(o) == port(u) {
			return true
		}
	}
	return false
}

func port(u *url.URL) string {
	if p := u.Port(); p != "" {
		return p
	}
	return "443"
}

// explain adds to a refusal that the token was not sent, if that may be the reason.
func (t *transport) explain(r *http.Request, e *Error) *Error {
	if t.token != nil && !t.trusts(r.URL) && (e.Status == http.StatusUnauthorized || e.Status == http.StatusForbidden) {
		e.Err = errors.New("the token of token_file was not sent, because only the discovery document names this place; write its URL as jwks")
	}
	return e
}

// throughProxy makes a transport use a proxy.
func throughProxy(t *http.Transport, proxy *url.URL, user *url.Userinfo) {
	t.Proxy = func(*http.Request) (*url.URL, error) { return proxy, nil }
	if user != nil { // not in the URL, which errors could show
		password, _ := user.Password()
		credentials := base64.StdEncoding.EncodeToString([]byte(user.Username() + ":" + password))
		t.ProxyConnectHeader = http.Header{"Proxy-Authorization": {"Basic " + credentials}}
	}
	t.OnProxyConnectResponse = func(_ context.Context, _ *url.URL, _ *http.Request, answer *http.Response) error {
		if answer.StatusCode != http.StatusOK {
			return &Error{Kind: ProxyRefused, Status: answer.StatusCode}
		}
		return nil
	}
}
