package auth

import (
	"context"
	"fmt"
	"net/http"
	"net/url"
	"slices"
	"strings"

	"github.com/go-json-experiment/json"

	"sallyport/auth/fetch"
	"sallyport/auth/login"
	"sallyport/proxy/setting"
)

// Grade says what a [LoginFinding] means.
type Grade int

// The grades of findings.
const (
	Proven   Grade = iota // it works
	Unproven              // the answer proves nothing
	Doubtful              // it may be meant so
	Failing               // nobody can sign in
)

// LoginFinding is what was tried of a login, and how it ended.
type LoginFinding struct {
	Grade      Grade
	Text, Cure string
}

// offers are the members of a discovery document that say what an issuer can do. It may omit all of them
// (OpenID Connect Discovery, section 3).
type offers struct {
	ResponseTypes []string `json:"response_types_supported"`
	ResponseModes []string `json:"response_modes_supported"`
	Challenges    []string `json:"code_challenge_methods_supported"`
	ClientAuth    []string `json:"token_endpoint_auth_methods_supported"`
	Scopes        []string `json:"scopes_supported"`
	Prompts       []string `json:"prompt_values_supported"`
	BackChannel   bool     `json:"backchannel_logout_supported"`
}

// loginIssuerOf returns the issuer of a login.
func (a *Auth) loginIssuerOf(l *login.Login) *loginIssuer {
	return newLoginIssuer(a.issuers[l.Issuer()], a.memory)
}

// isUnreadable reports whether the discovery document of a login's issuer cannot be had. [Auth.LoginOffers]
// says so, and what needs the document is not tried.
func (a *Auth) isUnreadable(ctx context.Context, l *login.Login) bool {
	_, err := a.loginIssuerOf(l).Endpoints(ctx)
	return err != nil
}

// LoginOffers fetches the discovery document of a login's issuer, and compares what the issuer offers with
// what the login needs.
func (a *Auth) LoginOffers(ctx context.Context, name string) []LoginFinding {
	l := a.Login(name)
	li := a.loginIssuerOf(l)
	e, err := li.Endpoints(ctx)
	if err != nil {
		return []LoginFinding{{Failing, "nobody can sign in: the gateway cannot read the discovery document of issuers." + l.Issuer(), "see the finding of issuers." + l.Issuer()}}
	}
	if e.Authorization == "" || e.Token == "" {
		return []LoginFinding{{Failing, "the discovery document has no authorization_endpoint or no token_endpoint", "issuers." + l.Issuer() + ".url must name an OpenID provider at which people sign in"}}
	}
	var o offers
	doc, err := li.source(ctx)
	if err == nil {
		err = json.Unmarshal(doc.text, &o)
	}
	if err != nil {
		return []LoginFinding{{Unproven, "what the issuer offers is not known: " + setting.Shortened(err.Error(), 160), ""}}
	}
	found := o.lacking(l)
	also := []string{"the code flow", "PKCE by S256", "sign-out at the issuer", "revocation of refresh tokens", "back-channel logout"}
	there := []bool{true, slices.Contains(o.Challenges, "S256"), e.EndSession != "", e.Revocation != "", o.BackChannel}
	var yes, no []string
	for i, what := range also {
		if there[i] {
			yes = append(yes, what)
		} else {
			no = append(no, what)
		}
	}
	words := "the issuer offers " + strings.Join(yes, ", ")
	if no != nil {
		words += "; its document does not name " + strings.Join(no, ", ")
	}
	return append([]LoginFinding{{Proven, words, ""}}, found...)
}

// lacking returns what a login needs, and the issuer does not list where it lists such things.
func (o *offers) lacking(l *login.Login) (found []LoginFinding) {
	lacks := func(grade Grade, list []string, member, value, cure string) {
		if list != nil && !slices.Contains(list, value) {
			found = append(found, LoginFinding{grade, member + " of the discovery document lacks " + setting.Quoted(value, 64), cure})
		}
	}
	// An entry such as "code id_token" is another response type than "code", which the gateway asks for.
	lacks(Failing, o.ResponseTypes, "response_types_supported", "code", "turn on the authorization code flow at the issuer")
	lacks(Doubtful, o.ResponseModes, "response_modes_supported", "query", "answers come as parameters of the redirect URI: turn that on at the issuer")
	lacks(Doubtful, o.Challenges, "code_challenge_methods_supported", "S256", "the issuer may ignore that a code belongs to one browser; turn on PKCE there")
	method, scopes, prompt := l.Asked()
	at := "logins." + l.Name()
	switch method {
	case login.ClientAuthBasic:
		lacks(Doubtful, o.ClientAuth, "token_endpoint_auth_methods_supported", "client_secret_basic", "write client_auth: post at "+at)
	case login.ClientAuthPost:
		lacks(Doubtful, o.ClientAuth, "token_endpoint_auth_methods_supported", "client_secret_post", "remove client_auth: post of "+at)
	}
	for _, scope := range append([]string{"openid"}, scopes...) {
		lacks(Doubtful, o.Scopes, "scopes_supported", scope, "the issuer may refuse it: leave it out of "+at+".scopes, or make it there")
	}
	if prompt != "" {
		lacks(Doubtful, o.Prompts, "prompt_values_supported", prompt, "choose another "+at+".prompt")
	}
	return found
}

// TryRedirect sends an authorization request of a login without a browser's cookies, and says whether the
// issuer sent it back to the redirect URI. It takes no secret.
func (a *Auth) TryRedirect(ctx context.Context, name, redirect string) LoginFinding {
	l := a.Login(name)
	if a.isUnreadable(ctx, l) {
		return LoginFinding{Unproven, "whether the issuer knows " + redirect + " is not tried", ""}
	}
	origin := strings.TrimSuffix(redirect, login.CallbackPath(name))
	host, _, _ := strings.Cut(strings.TrimPrefix(origin, "https://"), ":")
	to, state, err := l.SilentRequest(ctx, host, origin)
	if err != nil {
		return LoginFinding{Unproven, "not tried: " + err.Error(), ""}
	}
	status, back, err := fetch.Visit(ctx, a.loginIssuerOf(l).fetching, to)
	if err != nil {
		return LoginFinding{Unproven, "the authorization endpoint did not answer this machine: " + setting.Shortened(err.Error(), 160), "people's browsers must reach it, and the gateway need not"}
	}
	return judgeSilent(l, status, back, redirect, state)
}

// judgeSilent says what the answer to an authorization request proves. back is where it sends the browser; nil
// for nowhere.
func judgeSilent(l *login.Login, status int, back *url.URL, redirect, state string) LoginFinding {
	at := "logins." + l.Name()
	register := "register the redirect URI " + redirect + " for the client, byte for byte, and compare " + at + ".client_id"
	switch {
	case back == nil:
		refused := status == http.StatusBadRequest || status == http.StatusUnauthorized || status == http.StatusNotFound
		text := fmt.Sprintf("the issuer answers %d to an authorization request for %s, and does not send the browser back: ", status, redirect)
		if refused {
			return LoginFinding{Failing, text + "which is how issuers refuse a client or a redirect URI that they do not know", register}
		}
		return LoginFinding{Unproven, text + "whether it knows the client and the redirect URI is not proven", "sign in to see"}
	case (&url.URL{Scheme: back.Scheme, Host: back.Host, Path: back.Path}).String() != redirect:
		return LoginFinding{Unproven, "the issuer sends the browser on to a page of its own: whether it knows the client and " + redirect + " is not proven", "sign in to see"}
	}
	q := back.Query()
	said := q.Get("error")
	switch {
	case q.Get("state") != state:
		return LoginFinding{Failing, "the issuer sends the browser back to " + redirect + " without the state of the request", "answers must come as parameters of the redirect URI: is this an OpenID provider?"}
	case q.Get("code") != "", said == "login_required", said == "interaction_required", said == "consent_required", said == "account_selection_required":
		return LoginFinding{Proven, "the issuer knows the client with the redirect URI " + redirect + ", and does not refuse the request", ""}
	case said == "invalid_scope":
		return LoginFinding{Failing, "the issuer knows the client and " + redirect + ", and says invalid_scope", "register the scopes for the client, or leave them out of " + at + ".scopes"}
	case said == "server_error", said == "temporarily_unavailable":
		return LoginFinding{Unproven, "the issuer knows the client and " + redirect + ", and says " + said, "try again"}
	}
	return LoginFinding{Failing, "the issuer knows the client and " + redirect + ", and says " + setting.Quoted(said, 64), "correct the client at the issuer: it must take the authorization code flow; or " + at + ".params"}
}

// TryClient presents a made-up code to the issuer of a login as one is presented at sign-in, with the
// client's secret, and says whether the issuer took the client for what it says. Issuers must look at that
// before the code (RFC 6749, 5.2). Not all do, so that a made-up secret is tried too.
func (a *Auth) TryClient(ctx context.Context, name, origin string) LoginFinding {
	l := a.Login(name)
	at, what := "logins."+name, "the client and its secret"
	if l.IsPublic() {
		what = "the client without a secret"
	}
	if a.isUnreadable(ctx, l) {
		return LoginFinding{Unproven, "whether the issuer takes " + what + " is not tried", ""}
	}
	said, err := l.TryCode(ctx, origin, false)
	switch {
	case err != nil:
		return LoginFinding{Unproven, "whether the issuer takes " + what + " is not proven: " + setting.Shortened(err.Error(), 200), ""}
	case said == "":
		return LoginFinding{Failing, "the issuer gives tokens for a made-up code", "is this an OpenID provider? anybody could be anybody"}
	case said == "invalid_client" || said == "unauthorized_client":
		return LoginFinding{Failing, "the issuer does not take " + what + ": it says " + setting.Quoted(said, 64) + " to a made-up code", "correct client_id, client_secret or client_auth of " + at + ", or the client at the issuer"}
	case said != "invalid_grant":
		return LoginFinding{Unproven, "whether the issuer takes " + what + " is not proven: it says " + setting.Quoted(said, 64) + " to a made-up code", "sign in to see"}
	case l.IsPublic():
		return LoginFinding{Proven, "the issuer takes " + what + ": it says \"invalid_grant\" to a made-up code", ""}
	}
	switch other, err := l.TryCode(ctx, origin, true); {
	case err != nil || other == "":
		return LoginFinding{Unproven, "the issuer says invalid_grant to a made-up code, and gives no such answer with a made-up secret: whether the secret is right is not proven", "sign in to see"}
	case other == "invalid_grant":
		return LoginFinding{Unproven, "the issuer says invalid_grant to a made-up code, with a made-up secret too: whether the secret is right is not proven", "sign in to see"}
	default:
		return LoginFinding{Proven, "the issuer takes " + what + ": it says \"invalid_grant\" to a made-up code, and " + setting.Quoted(other, 64) + " with a made-up secret", ""}
	}
}
