package login

import (
	"cmp"
	"context"
	"crypto/rand"
	"encoding/base64"
	"errors"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/coreos/go-oidc/v3/oidc"
	"golang.org/x/oauth2"
)

const (
	attemptTime = 10 * time.Minute // from Begin to Finish
	maxAttempts = 4                // of one browser at once, in its tabs
	maxDropped  = 128              // that one answer looks at: tabs that a browser opens all at once do not know of each other
	stateSize   = 16
	tagSizeText = 8 // characters of a state that name the cookie of its attempt
)

// Attempt is the request with which a login begins.
type Attempt struct {
	// Host is the canonical host of the request, without a port.
	Host string
	// Origin is the scheme and authority of the request, such as https://models.example.
	Origin string
	// To is the page to return to. See [Login.ReturnURL].
	To string
	// Cookie is the Cookie field of the request.
	Cookie string
	// StepUp is what that page demands besides the login. See [StepUp.And].
	StepUp StepUp
}

// Redirect is an answer for the browser.
type Redirect struct {
	Location string
	Cookies  []string // values of Set-Cookie
}

// attempt is a login that was begun. It is sealed in a cookie of the browser.
type attempt struct {
	state    [stateSize]byte
	nonce    string
	verifier string // of PKCE
	begun    int64  // in seconds since 1970
	origin   string
	to       string
	acr      []string
	maxAge   int64 // in seconds; 0: any
}

func (a *attempt) encode() []byte {
	w := writer{}
	w.raw(a.state[:])
	w.text(a.nonce)
	w.text(a.verifier)
	w.number(a.begun)
	w.text(a.origin)
	w.text(a.to)
	w.text(strings.Join(a.acr, " "))
	w.number(a.maxAge)
	return w.b
}

func decodeAttempt(b []byte) (*attempt, error) {
	r, a := reader{s: string(b)}, &attempt{}
	r.raw(a.state[:])
	a.nonce, a.verifier, a.begun = r.text(), r.text(), r.number()
	a.origin, a.to, a.acr, a.maxAge = r.text(), r.text(), strings.Fields(r.text()), r.number()
	return a, r.end()
}

const purposeAttempt = "attempt"

// Begin returns the issuer's page at which the browser signs in.
func (l *Login) Begin(ctx context.Context, from Attempt) (Redirect, error) {
	e, err := l.issuer.Endpoints(ctx)
	if err != nil {
		return Redirect{}, refuse(Unavailable, err)
	}
	if e.Authorization == "" || e.Token == "" {
		return Redirect{}, refuse(Unavailable, errors.New("the discovery document has no authorization_endpoint or no token_endpoint"))
	}
	now := l.memory.now()
	to, _ := l.ReturnURL(from.To)
	demanded := StepUp{ACR: l.config.ACR, MaxAge: l.config.MaxAge, Prompt: l.config.Prompt}.And(from.StepUp)
	a := attempt{
		nonce: rand.Text(), verifier: oauth2.GenerateVerifier(), begun: now.Unix(), origin: from.Origin, to: to,
		acr: demanded.ACR, maxAge: int64(demanded.MaxAge / time.Second),
	}
	_, _ = rand.Read(a.state[:]) // never fails
	state := base64.RawURLEncoding.EncodeToString(a.state[:])
	_, client := l.client(ctx, e, from.Origin)
	value := base64.RawURLEncoding.EncodeToString(l.keys.seal(nil, a.encode(), l.additional(purposeAttempt, from.Host)))
	cookies := l.dropAttempts(from.Host, from.Cookie)
	return Redirect{
		Location: client.AuthCodeURL(l.name+"."+state, l.options(&a, demanded.Prompt)...),
		Cookies:  append(cookies, setCookie(attemptName+state[:tagSizeText], value, "", attemptTime)),
	}, nil
}

// options returns the parameters of the authorization request besides those of OAuth.
func (l *Login) options(a *attempt, prompt string) []oauth2.AuthCodeOption {
	all := []oauth2.AuthCodeOption{oidc.Nonce(a.nonce), oauth2.S256ChallengeOption(a.verifier)}
	for name, value := range l.config.Params {
		all = append(all, oauth2.SetAuthURLParam(name, value))
	}
	if prompt != "" {
		all = append(all, oauth2.SetAuthURLParam("prompt", prompt))
	}
	if a.maxAge > 0 {
		all = append(all, oauth2.SetAuthURLParam("max_age", strconv.FormatInt(a.maxAge, 10)))
	}
	if len(a.acr) > 0 {
		all = append(all, oauth2.SetAuthURLParam(l.issuer.Contexts().Parameter(a.acr)))
	}
	return all
}

// dropAttempts returns the Set-Cookie values that leave room for another attempt: it removes the
// oldest, and those that do not open.
func (l *Login) dropAttempts(host, field string) (cookies []string) {
	type open struct {
		name  string
		begun int64
	}
	var all []open
	pairs(field, func(name, value string, _, _ int) bool {
		if strings.HasPrefix(name, attemptName) {
			o := open{name: name}
			if a, err := l.openAttempt(host, value); err == nil {
				o.begun = a.begun
			}
			all = append(all, o)
		}
		return len(all) < maxDropped
	})
	slices.SortFunc(all, func(a, b open) int { return cmp.Compare(a.begun, b.begun) })
	for i := range all {
		if len(all)-i >= maxAttempts {
			cookies = append(cookies, setCookie(all[i].name, "", "", 0))
		}
	}
	return cookies
}

func (l *Login) openAttempt(host, value string) (*attempt, error) {
	sealed, err := base64.RawURLEncoding.Strict().DecodeString(value)
	if err != nil {
		return nil, errForm
	}
	b, err := l.keys.open(sealed, l.additional(purposeAttempt, host))
	if err != nil {
		return nil, err
	}
	return decodeAttempt(b)
}
