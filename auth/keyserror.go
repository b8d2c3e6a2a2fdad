package auth

import (
	"errors"
	"fmt"
	"net/http"
	"net/url"

	"sallyport/auth/fetch"
	"sallyport/proxy/setting"
)

// keysError reports a failed fetch of keys. Its step and its what are fixed texts.
type keysError struct {
	step string // "discovery" or "keys"
	url  string // the URL that was fetched
	what string // what failed
	err  error  // the cause; may be nil
}

func (e *keysError) Error() string {
	var other *anotherIssuer
	if errors.As(e.err, &other) {
		return other.from(e.url)
	}
	s := e.url + ": " + e.what
	if e.err != nil {
		s += ": " + e.err.Error()
	}
	return s
}

func (e *keysError) Unwrap() error { return e.err }

func (e *keysError) words() string { return e.step + ": " + e.what }

// unacceptable says what is wrong with the jwks_uri of a discovery document. u is nil if it is no
// URL.
func unacceptable(written string, u *url.URL, insecure bool) error {
	quoted := setting.Quoted(written, 2*shownName)
	switch {
	case u == nil || u.Host == "":
		return fmt.Errorf("%s; write jwks", quoted)
	case u.Scheme == "http":
		return fmt.Errorf("%s is http, and anyone on the path could replace the keys; write jwks with https, or set insecure_http: true if that network is trusted", quoted)
	}
	return fmt.Errorf("%s: %w; write jwks", quoted, fetch.CheckURL(u, insecure))
}

func fetchError(step, url string, err error) *keysError {
	var e *fetch.Error
	if !errors.As(err, &e) {
		return &keysError{step: step, url: url, what: "not fetched", err: err}
	}
	what := string(e.Kind)
	if e.Status != 0 {
		what = fmt.Sprintf("%s %d", what, e.Status)
	}
	cause := e.Err
	if cause == nil && step == "discovery" && e.Status == http.StatusNotFound {
		cause = errNoDocument
	}
	return &keysError{step: step, url: url, what: what, err: cause}
}

// errNoDocument is the usual cause of a status 404: the path of the issuer's URL is wrong.
var errNoDocument = errors.New("no discovery document there: write as url what the tokens have as iss, such as https://HOST/realms/REALM of Keycloak")
