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
	attemptTime     = 10 * time.Minute // from Begin to Finish
	minAttempts     = 4                // of one browser at once, in its tabs, however long their pages
	maxAttempts     = 24               // of one browser at once, if their cookies have no more bytes than the next:
	maxAttemptBytes = 7 << 10          // nginx in front takes 8 KiB of cookies by default
	maxDropped      = 128              // that one answer looks at: tabs that a browser opens all at once do not know of each other
	stateSize       = 16
	tagSizeText     = 8   // characters of a state that name the cookie of its attempt
	maxStatePage    = 256 // bytes of a page that the state repeats: not every issuer takes a long state
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

const (
	purposeAttempt = "attempt"
	purposePage    = "page"
)

// stateOf returns the state of the authorization request. Behind the random part it has the page to return to,
// sealed: an answer whose attempt the browser has forgotten still leads there.
func (l *Login) stateOf(a *attempt, host string) string {
	state := l.name + "." + base64.RawURLEncoding.EncodeToString(a.state[:])
	if a.to == "/" || len(a.to) > maxStatePage {
		return state
	}
	return state + "." + base64.RawURLEncoding.EncodeToString(l.keys.seal(nil, []byte(a.to), l.additional(purposePage, host)))
}

// pageIn returns the page to return to that a state repeats, see [Login.ReturnURL]; "/" if there is none.
// Anybody may bring a state that this gateway gave out, so it counts no more than a link to that page.
func (l *Login) pageIn(state, host string) string {
	parts := strings.Split(strings.TrimPrefix(state, l.name+"."), ".")
	if len(parts) != 2 || strings.ContainsAny(parts[1], "\r\n") { // which the decoder skips
		return "/"
	}
	sealed, err := base64.RawURLEncoding.Strict().DecodeString(parts[1])
	if err != nil {
		return "/"
	}
	to, err := l.keys.open(sealed, l.additional(purposePage, host))
	if err != nil {
		return "/"
	}
	page, _ := l.ReturnURL(string(to))
	return page
}

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
	tag := base64.RawURLEncoding.EncodeToString(a.state[:])[:tagSizeText]
	_, client := l.client(ctx, e, from.Origin)
	value := base64.RawURLEncoding.EncodeToString(l.keys.seal(nil, a.encode(), l.additional(purposeAttempt, from.Host)))
	cookies := l.dropAttempts(from.Host, from.Cookie, len(attemptName)+len(tag)+len(value))
	return Redirect{
		Location: client.AuthCodeURL(l.stateOf(&a, from.Host), l.options(&a, demanded.Prompt)...),
		Cookies:  append(cookies, setCookie(attemptName+tag, value, "", attemptTime)),
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

// dropAttempts returns the Set-Cookie values that leave room for another attempt, whose cookie has so many
// bytes: it removes the oldest, and before them those that do not open, as the attempts of other logins.
func (l *Login) dropAttempts(host, field string, size int) (cookies []string) {
	type open struct {
		name  string
		size  int
		begun int64
	}
	var all []open
	pairs(field, func(name, value string, _, _ int) bool {
		if strings.HasPrefix(name, attemptName) {
			o := open{name: name, size: len(name) + len(value)}
			if a, err := l.openAttempt(host, value); err == nil {
				o.begun = a.begun
			}
			all = append(all, o)
		}
		return len(all) < maxDropped
	})
	slices.SortFunc(all, func(a, b open) int { return cmp.Compare(b.begun, a.begun) }) // the newest first
	kept := 1
	for i := range all {
		if size += all[i].size; kept < minAttempts || kept < maxAttempts && size <= maxAttemptBytes {
			kept++
			continue
		}
		cookies = append(cookies, setCookie(all[i].name, "", "", 0))
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
