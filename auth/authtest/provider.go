package authtest

import (
	"crypto/rand"
	"crypto/sha256"
	"encoding/json"
	"fmt"
	"maps"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
)

// Provider is the part of an [Issuer] at which people sign in (OpenID Connect Core, the code flow with
// PKCE). A browser that comes to /authorize is sent back at once, as the person of [Provider.Person].
type Provider struct {
	issuer            *Issuer
	id, secret        string // of the one client
	exchanges         atomic.Int64
	refreshes         atomic.Int64
	insteadOfToken    atomic.Pointer[http.Handler]
	insteadOfInfo     atomic.Pointer[http.Handler]
	insteadOfRevoking atomic.Pointer[http.Handler]
	revocations       atomic.Int64

	mu      sync.Mutex // guards the fields below
	person  map[string]any
	unnamed bool     // answers have no iss
	pages   []string // redirect URIs of the client; nil: any
	refusal string
	judge   func(asked url.Values, claims map[string]any)
	change  func(claims map[string]any)
	extra   func(answer map[string]any)
	codes   map[string]grant
	tokens  map[string]grant // by refresh token
}

// grant is what a code or a refresh token stands for.
type grant struct {
	redirect, challenge string
	claims              map[string]any // of the ID token
}

// Provide makes the issuer a provider with one client. It publishes the issuer's own key. An empty secret makes that a public client. The
// person is alice.
func (i *Issuer) Provide(clientID, secret string) *Provider {
	p := &Provider{issuer: i, id: clientID, secret: secret, codes: map[string]grant{}, tokens: map[string]grant{}}
	p.Person("alice", nil)
	i.provider.Store(p)
	i.Publish(i.key.JWK(`"use":"sig"`, `"alg":"ES256"`))
	p.describe(nil)
	return p
}

// OmitIssuer makes answers to browsers name no issuer, as most did before RFC 9207.
func (p *Provider) OmitIssuer() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.unnamed = true
	p.describe(nil, "authorization_response_iss_parameter_supported")
}

// Register sets the redirect URIs of the client. Others are refused from now on.
func (p *Provider) Register(redirects ...string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.pages = redirects
}

// describe publishes the discovery document with more members, and without some.
func (p *Provider) describe(more map[string]any, without ...string) {
	i := p.issuer
	doc := map[string]any{
		"issuer": i.URL, "jwks_uri": i.URL + "/jwks", "introspection_endpoint": i.URL + "/introspect",
		"authorization_endpoint": i.URL + "/authorize", "token_endpoint": i.URL + "/token", "userinfo_endpoint": i.URL + "/userinfo",
		"end_session_endpoint": i.URL + "/logout", "revocation_endpoint": i.URL + "/revoke", "authorization_response_iss_parameter_supported": true,
	}
	maps.Copy(doc, more)
	for _, name := range without {
		delete(doc, name)
	}
	text := string(must(json.Marshal(doc)))
	i.document.Store(&text)
}

// Lack removes a member of the discovery document, such as revocation_endpoint.
func (p *Provider) Lack(name string) { p.describe(nil, name) }

// Describe adds members to the discovery document, or replaces them.
func (p *Provider) Describe(members map[string]any) { p.describe(members) }

// Person sets who signs in from now on, with more claims of the ID token.
func (p *Provider) Person(sub string, claims map[string]any) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.person = maps.Clone(claims)
	if p.person == nil {
		p.person = map[string]any{}
	}
	p.person["sub"] = sub
}

// Refuse makes the provider send browsers back with this error; "" undoes that.
func (p *Provider) Refuse(code string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.refusal = code
}

// Replace replaces the secret of the client.
func (p *Provider) Replace(secret string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.secret = secret
}

// Authenticate lets f change the claims of people who sign in, by the authorization request. Nil leaves
// them as they are: the provider ignores acr_values, max_age and prompt.
func (p *Provider) Authenticate(f func(asked url.Values, claims map[string]any)) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.judge = f
}

// Change lets f change the claims of each ID token, and extra the answer with the tokens. Nil leaves
// them as they are.
func (p *Provider) Change(f, extra func(map[string]any)) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.change, p.extra = f, extra
}

// AnswerTokens makes h answer requests for tokens instead of the provider. Nil undoes that.
func (p *Provider) AnswerTokens(h http.Handler) {
	if h == nil {
		p.insteadOfToken.Store(nil)
		return
	}
	p.insteadOfToken.Store(&h)
}

// AnswerUserinfo makes h answer requests for userinfo instead of the provider. Nil undoes that.
func (p *Provider) AnswerUserinfo(h http.Handler) {
	if h == nil {
		p.insteadOfInfo.Store(nil)
		return
	}
	p.insteadOfInfo.Store(&h)
}

// AnswerRevocations makes h answer revocations of tokens instead of the provider. Nil undoes that.
func (p *Provider) AnswerRevocations(h http.Handler) {
	if h == nil {
		p.insteadOfRevoking.Store(nil)
		return
	}
	p.insteadOfRevoking.Store(&h)
}

// Exchanges returns how many codes were presented, and Refreshes how many refresh tokens.
func (p *Provider) Exchanges() int64 { return p.exchanges.Load() }

// Refreshes returns how many refresh tokens were presented.
func (p *Provider) Refreshes() int64 { return p.refreshes.Load() }

// Revocations returns how many requests there were to revoke a token.
func (p *Provider) Revocations() int64 { return p.revocations.Load() }

// RefreshTokens returns how many refresh tokens count.
func (p *Provider) RefreshTokens() int {
	p.mu.Lock()
	defer p.mu.Unlock()
	return len(p.tokens)
}

// Forget withdraws all refresh tokens.
func (p *Provider) Forget() {
	p.mu.Lock()
	defer p.mu.Unlock()
	clear(p.tokens)
}

// LogoutToken returns a logout token for a session and a subject, either of which may be "".
func (p *Provider) LogoutToken(sid, sub string, change func(claims map[string]any)) string {
	now := p.issuer.config.Now()
	claims := map[string]any{
		"iss": p.issuer.URL, "aud": p.id, "iat": now.Unix(), "exp": now.Add(p.issuer.config.Lifetime).Unix(), "jti": rand.Text(),
		"events": map[string]any{"http://schemas.openid.net/event/backchannel-logout": map[string]any{}},
	}
	for name, value := range map[string]string{"sid": sid, "sub": sub} {
		if value != "" {
			claims[name] = value
		}
	}
	if change != nil {
		change(claims)
	}
	return p.sign("logout+jwt", claims)
}

func (p *Provider) sign(typ string, claims map[string]any) string {
	key := p.issuer.key
	return key.Sign(fmt.Sprintf(`{"typ":"%s","alg":"ES256","kid":"%s"}`, typ, key.ID), string(must(json.Marshal(claims))))
}

// serve answers a request to one of the provider's endpoints. It reports false for all others.
func (p *Provider) serve(w http.ResponseWriter, r *http.Request) bool {
	switch r.URL.Path[strings.LastIndexByte(r.URL.Path, '/')+1:] {
	case "authorize":
		p.authorize(w, r)
	case "token":
		if instead := p.insteadOfToken.Load(); instead != nil {
			(*instead).ServeHTTP(w, r)
			return true
		}
		p.token(w, r)
	case "userinfo":
		if instead := p.insteadOfInfo.Load(); instead != nil {
			(*instead).ServeHTTP(w, r)
			return true
		}
		p.mu.Lock()
		defer p.mu.Unlock()
		writeJSON(w, http.StatusOK, p.person)
	case "revoke":
		p.revocations.Add(1)
		if instead := p.insteadOfRevoking.Load(); instead != nil {
			(*instead).ServeHTTP(w, r)
			return true
		}
		p.revoke(w, r)
	case "logout":
		http.Redirect(w, r, r.FormValue("post_logout_redirect_uri"), http.StatusSeeOther)
	default:
		return false
	}
	return true
}

func (p *Provider) authorize(w http.ResponseWriter, r *http.Request) {
	q := r.URL.Query()
	if q.Get("client_id") != p.id || q.Get("response_type") != "code" || q.Get("code_challenge_method") != "S256" || !strings.Contains(" "+q.Get("scope")+" ", " openid ") {
		w.WriteHeader(http.StatusBadRequest)
		return
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.pages != nil && !slices.Contains(p.pages, q.Get("redirect_uri")) {
		w.WriteHeader(http.StatusBadRequest)
		return
	}
	answer := url.Values{"state": {q.Get("state")}}
	if !p.unnamed {
		answer.Set("iss", p.issuer.URL)
	}
	if p.refusal != "" {
		answer.Set("error", p.refusal)
	} else {
		now, code := p.issuer.config.Now(), rand.Text()
		claims := map[string]any{
			"iss": p.issuer.URL, "aud": p.id, "nonce": q.Get("nonce"), "sid": "sid-" + code[:8], "auth_time": now.Unix(),
		}
		maps.Copy(claims, p.person)
		if p.judge != nil {
			p.judge(q, claims)
		}
		p.codes[code] = grant{q.Get("redirect_uri"), q.Get("code_challenge"), claims}
		answer.Set("code", code)
	}
	http.Redirect(w, r, q.Get("redirect_uri")+"?"+answer.Encode(), http.StatusFound)
}

// isClient reports whether a request proves the provider's client. The caller holds p.mu.
func (p *Provider) isClient(r *http.Request) bool {
	id, secret, basic := r.BasicAuth()
	if !basic {
		id, secret = r.FormValue("client_id"), r.FormValue("client_secret")
	}
	return id == p.id && secret == p.secret
}

// revoke takes a token to revoke (RFC 7009). It answers the same for unknown ones.
func (p *Provider) revoke(w http.ResponseWriter, r *http.Request) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if !p.isClient(r) {
		writeJSON(w, http.StatusUnauthorized, map[string]any{"error": "invalid_client"})
		return
	}
	delete(p.tokens, r.FormValue("token"))
}

func (p *Provider) token(w http.ResponseWriter, r *http.Request) {
	p.mu.Lock()
	defer p.mu.Unlock()
	var g grant
	var known bool
	switch r.FormValue("grant_type") {
	case "authorization_code":
		p.exchanges.Add(1)
		g, known = p.codes[r.FormValue("code")]
		delete(p.codes, r.FormValue("code"))
		sum := sha256.Sum256([]byte(r.FormValue("code_verifier")))
		known = known && g.redirect == r.FormValue("redirect_uri") && g.challenge == Base64(sum[:])
	case "refresh_token":
		p.refreshes.Add(1)
		g, known = p.tokens[r.FormValue("refresh_token")]
		delete(p.tokens, r.FormValue("refresh_token"))
	}
	switch {
	case !p.isClient(r):
		writeJSON(w, http.StatusUnauthorized, map[string]any{"error": "invalid_client"})
		return
	case !known:
		writeJSON(w, http.StatusBadRequest, map[string]any{"error": "invalid_grant"})
		return
	}
	now := p.issuer.config.Now()
	claims := maps.Clone(g.claims)
	claims["iat"], claims["exp"] = now.Unix(), now.Add(p.issuer.config.Lifetime).Unix()
	if p.change != nil {
		p.change(claims)
	}
	sub, _ := claims["sub"].(string)
	refresh := rand.Text()
	p.tokens[refresh] = g
	answer := map[string]any{
		"token_type": "Bearer", "expires_in": int(p.issuer.config.Lifetime.Seconds()), "refresh_token": refresh,
		"access_token": must(p.issuer.Sign(p.issuer.Claims(sub, "models.predict"))), "id_token": p.sign("JWT", claims),
	}
	if p.extra != nil {
		p.extra(answer)
	}
	writeJSON(w, http.StatusOK, answer)
}

func writeJSON(w http.ResponseWriter, status int, v any) {
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(status)
	_, _ = w.Write(must(json.Marshal(v)))
}
