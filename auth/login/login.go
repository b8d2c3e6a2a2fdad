// Package login lets people sign in with a browser, by the authorization code flow of OpenID Connect.
//
// [Login.Begin] sends a browser to the issuer, and [Login.Finish] takes the issuer's answer and makes a
// [Session]. The session is sealed in a cookie, or kept in the [Memory] with only an id in the cookie.
// Logins that were begun are sealed in cookies too, so that those that never end cost nothing here.
//
// Package auth reads the sessions of requests and decides whom they prove.
package login

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/coreos/go-oidc/v3/oidc"
	"golang.org/x/oauth2"

	"sallyport/auth/fetch"
	"sallyport/auth/identity"
	"sallyport/auth/login/endfile"
)

// Lifetimes of sessions where the [Config] has none.
const (
	DefaultAbsolute = 8 * time.Hour
	DefaultIdle     = time.Hour
)

const defaultSessions = 10_000

// Where the claims of a person come from.
const (
	ClaimsIDToken     = "id_token"     // the ID token
	ClaimsAccessToken = "access_token" // the access token, which must be acceptable as a bearer token
	ClaimsUserinfo    = "userinfo"     // the ID token, and userinfo for claims that it lacks
)

// Ways of sending the secret of a client.
const (
	ClientAuthBasic = "basic"
	ClientAuthPost  = "post"
)

// Config is the configuration of a [Login]. It contains values and no places of files.
type Config struct {
	// Issuer is the name of the issuer in the configuration.
	Issuer string
	// ClientID is the gateway's name as a client of the issuer.
	ClientID string
	// ClientSecret is the client's secret; "" for a client that has none.
	ClientSecret string
	// ClientAuth is how the secret is sent: ClientAuthBasic if "", or ClientAuthPost.
	ClientAuth string
	// Scopes are asked for besides openid.
	Scopes []string
	// Claims is where the person's claims come from; ClaimsIDToken if "".
	Claims string
	// Keys seal the cookies; nil for a key of the [Memory], so that sessions end with the process.
	Keys *Keys
	// State is the file where ends of sessions are kept over restarts; "" for none. Logins and processes
	// may share it.
	State string
	// KeepTokens leaves the refresh token at the issuer when its person signs out.
	KeepTokens bool
	// Memory keeps sessions in the Memory, with only an id in the cookie.
	Memory bool
	// Sessions is how many sessions the Memory keeps; 10,000 if zero. Beyond it, the least recently
	// used one of 10,000 ends.
	Sessions int
	// Absolute is how long a session lasts; DefaultAbsolute if zero.
	Absolute time.Duration
	// Idle is how long a session lasts without a request; DefaultIdle if zero.
	Idle time.Duration
	// ACR are the authentication contexts of which a session must have one; nil for any.
	ACR []string
	// MaxAge is how long ago the person may have proved who they are; 0 for any time.
	MaxAge time.Duration
	// CookieDomain makes sessions valid at all hosts of a domain, which is a DNS name in lower case; ""
	// for the host alone.
	CookieDomain string
	// SignInHost is the host of CookieDomain where people sign in for all of its hosts, in canonical form;
	// "" for each its own.
	SignInHost string
	// Prompt is the parameter prompt, such as select_account; "" for none.
	Prompt string
	// Params are further parameters of the authorization request.
	Params map[string]string
	// Passed are the tokens that servers behind the gateway get. Sessions keep them for that.
	Passed Passed
}

// Issuer is what a login needs of its issuer. Package auth implements it, so that a person is the same
// principal by login as by bearer token.
type Issuer interface {
	// Issues reports whether tokens of the issuer may have this iss.
	Issues(iss string) bool
	// Endpoints returns those of the discovery document, which may have to be fetched.
	// Errors of Verify, Access and Endpoints that wrap ErrUnavailable say nothing about a token. Those of tokens
	// that may be good at another time are by Untimely.
	Endpoints(ctx context.Context) (*Endpoints, error)
	// Verify checks form, algorithm and signature of a JWT whose header typ is one of types, or
	// absent, and returns its claims in JSON and the name of the key. It does not judge the claims.
	Verify(ctx context.Context, jwt string, types ...string) (claims []byte, key string, err error)
	// Access judges an access token as one of a request, and returns the same.
	Access(ctx context.Context, token string) (claims []byte, key string, err error)
	// Principal returns whom verified claims name, if they satisfy the issuer's requirements other
	// than times and audience.
	Principal(claims []byte) (identity.Principal, error)
	// Authentication returns what verified claims of an ID token say of how and when the person proved who
	// they are, by the claim of Contexts.
	Authentication(claims []byte) (Authentication, error)
	// Contexts says how the issuer is asked for authentication contexts.
	Contexts() *Contexts
	// Client fetches from the issuer.
	Client() *fetch.Client
	// Algorithms are those that signatures may have.
	Algorithms() []string
	// Skew is how far the issuer's clock may be off.
	Skew() time.Duration
}

// ErrUnavailable means that the issuer could not be asked.
var ErrUnavailable = errors.New("the issuer is unavailable")

// Endpoints are members of an issuer's discovery document; "" for those that it lacks.
type Endpoints struct {
	Authorization, Token, Userinfo, EndSession, Revocation string
	// NamesIssuer means that answers to the browser have the parameter iss (RFC 9207).
	NamesIssuer bool
}

// Login is one configured login. It is safe for concurrent use.
type Login struct {
	name   string
	config Config
	issuer Issuer
	memory *Memory
	state  *state
	file   *endfile.File // of the configuration; nil for none
	keys   *Keys
	cookie string // the name of the session's first cookie
	domain string // Config.CookieDomain behind a dot; "" for none
}

// IsReserved reports whether a parameter of the authorization request, in any case, is the gateway's, so
// that [Config.Params] may not set it.
func IsReserved(parameter string) bool {
	switch strings.ToLower(parameter) {
	case "response_type", "response_mode", "client_id", "client_secret", "redirect_uri", "scope", "state", "nonce", "code_challenge",
		"code_challenge_method", "request", "request_uri", "prompt", "max_age", "acr_values":
		return true
	}
	return false
}

// New returns a login. Logins of the same name and client share their sessions in m. [Login.Activate]
// must be called before it serves.
func New(name string, c Config, issuer Issuer, m *Memory) (*Login, error) {
	for _, p := range slices.Sorted(maps.Keys(c.Params)) {
		if IsReserved(p) || issuer.Contexts().ByClaims && strings.EqualFold(p, "claims") {
			return nil, fmt.Errorf("the parameter %s belongs to the gateway", p)
		}
	}
	switch c.Claims {
	case "", ClaimsIDToken, ClaimsAccessToken, ClaimsUserinfo:
	default:
		return nil, fmt.Errorf("claims come from %s, %s or %s, not from %q", ClaimsIDToken, ClaimsAccessToken, ClaimsUserinfo, c.Claims)
	}
	switch {
	case c.ClientID == "":
		return nil, errors.New("a login needs a client")
	case c.ClientAuth != "" && c.ClientAuth != ClientAuthBasic && c.ClientAuth != ClientAuthPost:
		return nil, fmt.Errorf("a secret is sent by %s or %s, not by %q", ClientAuthBasic, ClientAuthPost, c.ClientAuth)
	}
	if c.Absolute < 0 || c.Absolute > MaxAbsolute || c.Idle < 0 || c.Idle > MaxAbsolute || c.Sessions < 0 {
		return nil, fmt.Errorf("lifetimes are up to %s, and the number of sessions is not negative", MaxAbsolute)
	}
	c.Absolute, c.Idle = cmp.Or(c.Absolute, DefaultAbsolute), cmp.Or(c.Idle, DefaultIdle)
	c.Sessions = cmp.Or(c.Sessions, defaultSessions)
	l := &Login{name: name, config: c, issuer: issuer, memory: m, keys: c.Keys, cookie: hostPrefix + sessionName}
	if l.keys == nil {
		l.keys = m.keys
	}
	if c.CookieDomain != "" {
		l.domain = "." + c.CookieDomain
		l.cookie = securePrefix + sessionName + l.domain
	}
	l.state = m.state(name, c.ClientID)
	if err := l.openState(); err != nil {
		return nil, err
	}
	return l, nil
}

// Name returns the name of the login in the configuration.
func (l *Login) Name() string { return l.name }

// Issuer returns the name of the login's issuer in the configuration.
func (l *Login) Issuer() string { return l.config.Issuer }

// SignInHost returns the host where people sign in; "" for the host of the page that they want.
func (l *Login) SignInHost() string { return l.config.SignInHost }

// CookieName returns the name of the session's cookie.
func (l *Login) CookieName() string { return l.cookie }

// client returns the client of OAuth for one host, and the context with which it fetches.
func (l *Login) client(ctx context.Context, e *Endpoints, origin string) (context.Context, *oauth2.Config) {
	style := oauth2.AuthStyleInHeader
	if l.config.ClientAuth == ClientAuthPost || l.config.ClientSecret == "" {
		style = oauth2.AuthStyleInParams
	}
	return oidc.ClientContext(ctx, l.issuer.Client().HTTP()), &oauth2.Config{
		ClientID: l.config.ClientID, ClientSecret: l.config.ClientSecret,
		Endpoint:    oauth2.Endpoint{AuthURL: e.Authorization, TokenURL: e.Token, AuthStyle: style},
		RedirectURL: origin + CallbackPath(l.name),
		Scopes:      append([]string{oidc.ScopeOpenID}, l.config.Scopes...),
	}
}

// additional returns the additional data of a sealed text: it opens for no other purpose, login or
// place, which is a host or what [Login.place] returns.
func (l *Login) additional(purpose, place string) []byte {
	return []byte("sallyport\x00" + purpose + "\x00" + l.name + "\x00" + l.config.ClientID + "\x00" + place)
}

// place returns where sessions of a host are valid: the host, or the domain behind a dot, with which no
// host begins.
func (l *Login) place(host string) string {
	if l.domain != "" && (host == l.domain[1:] || strings.HasSuffix(host, l.domain)) {
		return l.domain
	}
	return host
}
