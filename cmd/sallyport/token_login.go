package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"net/url"
	"slices"
	"strings"
	"time"

	"github.com/coreos/go-oidc/v3/oidc"
	"github.com/spf13/cobra"
	"golang.org/x/oauth2"

	"sallyport/cmd/sallyport/login"
)

// checkLogin returns what is wrong with the flags of a login, "" if nothing is.
func (t *tokenCommand) checkLogin() string {
	if !t.login {
		for _, flag := range []string{"device", "browser", "redirect", "max-age"} {
			if t.given(flag) {
				return "--" + flag + " says how a person signs in: give --login"
			}
		}
	}
	_, err := login.ParseRedirect(t.redirect)
	switch {
	case t.login && t.logout:
		return "--login signs in and --logout out: give one of them"
	case t.logout && (t.json || t.exec):
		return "--logout gives no token for --json or --exec"
	case !t.login && !t.logout:
		if t.given("wait") {
			return "--wait says how long a person may take: give --login"
		}
		for _, flag := range []string{"acr-values", "claims"} {
			if t.given(flag) {
				return "--" + flag + " says how a person signs in: give --login"
			}
		}
	case t.given("claims") && !isObject(t.claims):
		return `--claims: want a JSON object such as {"access_token":{"acrs":{"essential":true,"value":"c1"}}}`
	case len(t.audiences) > 1 || len(t.resources) > 1:
		return "--login asks for one --audience and one --resource at most"
	case t.given("max-age") && t.maxAge < time.Second:
		return fmt.Sprintf("--max-age %s: want a time such as 10m", t.maxAge)
	case t.wait <= 0:
		return fmt.Sprintf("--wait %s: want a time such as 5m", t.wait)
	case err != nil:
		return "--redirect " + err.Error()
	case t.device && (t.given("browser") || t.given("redirect")):
		return "--device signs in on another machine: leave --browser and --redirect out"
	}
	return ""
}

// loginScopes are the scopes to ask for. Some issuers refuse a login without any.
func (t *tokenCommand) loginScopes() []string {
	if len(t.scopes) == 0 {
		return []string{oidc.ScopeOpenID}
	}
	return t.scopes
}

// cached returns the cache, and the key of the token that the flags name.
func (t *tokenCommand) cached(at *tokenIssuer) (*login.Cache, login.Key, error) {
	cache, err := login.OpenCache()
	return cache, login.Key{Issuer: at.url, ClientID: t.clientID, Scopes: slices.Clone(t.loginScopes()), Audiences: t.audiences, Resources: t.resources, ACRValues: t.acrValues, Claims: t.claims}, err
}

// signIn returns the cached token of a person, refreshes it, or lets the person sign in.
func (t *tokenCommand) signIn(ctx context.Context, c *cobra.Command) (*issuedToken, error) {
	at, err := t.whom()
	if err != nil {
		return nil, err
	}
	cache, key, err := t.cached(at)
	if err != nil {
		return nil, err
	}
	e, err := cache.Load(key)
	if now := time.Now(); err == nil && (!e.Fresh(now) || t.tooOld(e, now)) {
		e, err = t.renew(ctx, c, at, cache, key)
	}
	if err != nil {
		return nil, err
	}
	issued := &issuedToken{AccessToken: e.AccessToken, TokenType: e.TokenType, ExpiresAt: e.ExpiresAt, Scope: e.Scope}
	if !e.ExpiresAt.IsZero() {
		issued.ExpiresIn = int64(time.Until(e.ExpiresAt).Round(time.Second) / time.Second)
	}
	return issued, nil
}

// renew replaces a cached token that ends or is not there.
func (t *tokenCommand) renew(ctx context.Context, c *cobra.Command, at *tokenIssuer, cache *login.Cache, key login.Key) (*login.Entry, error) {
	unlock, err := t.lock(ctx, c, cache, key)
	if err != nil {
		return nil, err
	}
	defer unlock()
	old, err := cache.Load(key) // another process may have renewed it
	asked := time.Now()
	stale := t.tooOld(old, asked)
	if err != nil || old.Fresh(asked) && !stale {
		return old, err
	}
	p, err := t.connect(ctx, at)
	if err != nil {
		return nil, err
	}
	defer p.http.CloseIdleConnections()
	var got *oauth2.Token
	if !stale {
		got, err = p.refresh(ctx, c, old)
	}
	refreshed := got != nil
	switch {
	case err == nil && got == nil && t.byDevice(p.metadata):
		got, err = p.deviceFlow(ctx, c)
	case err == nil && got == nil:
		got, err = p.browserFlow(ctx, c)
	}
	if err != nil {
		return nil, err
	}
	issued, err := p.issued(got, asked)
	if err != nil {
		return nil, err
	}
	e := &login.Entry{Key: key, AccessToken: issued.AccessToken, TokenType: issued.TokenType, RefreshToken: got.RefreshToken,
		Scope: issued.Scope, ObtainedAt: time.Now().UTC().Truncate(time.Second), ExpiresAt: issued.ExpiresAt}
	if e.AuthenticatedAt = authenticatedAt(got, e.ObtainedAt); refreshed {
		e.AuthenticatedAt = old.AuthenticatedAt
	}
	if e.Scope == "" && old != nil {
		e.Scope = old.Scope // RFC 6749, section 6: it stays the same
	}
	return e, cache.Save(e)
}

// lock waits for other processes that sign in with the same key.
func (t *tokenCommand) lock(ctx context.Context, c *cobra.Command, cache *login.Cache, key login.Key) (unlock func(), err error) {
	ctx, cancel := context.WithTimeout(ctx, t.wait)
	defer cancel()
	unlock, err = cache.Lock(ctx, key, func() {
		fmt.Fprintln(c.ErrOrStderr(), "Another sallyport token signs in with these flags; waiting for it.")
	})
	if errors.Is(err, context.DeadlineExceeded) {
		return nil, fmt.Errorf("another sallyport token has been signing in for %s: end it, or its login", t.wait)
	}
	return unlock, interrupted(err)
}

// refresh gets a token by the refresh token of an old one. It returns nil where the person must sign
// in again.
func (p *issuerClient) refresh(ctx context.Context, c *cobra.Command, old *login.Entry) (*oauth2.Token, error) {
	if old == nil || old.RefreshToken == "" {
		return nil, nil
	}
	p.grant = refreshToken
	p.hide(old.RefreshToken)
	params := url.Values{"grant_type": {string(refreshToken)}, "refresh_token": {old.RefreshToken}}
	if len(p.resources) > 0 {
		params["resource"] = p.resources
	}
	got, err := p.request(ctx, params, nil)
	var refused *oauth2.RetrieveError
	switch {
	case err == nil:
		return got, nil
	case errors.As(err, &refused) && refused.ErrorCode == "invalid_grant":
		fmt.Fprintln(c.ErrOrStderr(), "The session at the issuer has ended; sign in again.")
		return nil, nil
	}
	return nil, p.explain(err, p.endpoint)
}

// byDevice reports whether the person is to sign in on another machine.
func (t *tokenCommand) byDevice(m *issuerMetadata) bool {
	if t.given("device") || t.browser || t.given("redirect") {
		return t.device
	}
	return m.DeviceEndpoint != "" && login.Browser() == ""
}

// oauth returns what both ways to sign in have in common.
func (p *issuerClient) oauth() *oauth2.Config {
	return &oauth2.Config{ClientID: p.clientID, ClientSecret: p.secret, Scopes: p.loginScopes(),
		Endpoint: oauth2.Endpoint{AuthURL: p.metadata.LoginPage, TokenURL: p.endpoint, AuthStyle: p.style}}
}

// takesBrowser refuses issuers where nobody can sign in safely with a browser.
func (p *issuerClient) takesBrowser() error {
	if err := p.use(authorizationCode); err != nil {
		return err
	}
	switch m := p.metadata; {
	case m.LoginPage == "":
		return fmt.Errorf("issuer %s has no authorization_endpoint in its discovery document: nobody can sign in there with a browser", shownText(p.at.url))
	case len(m.Challenges) > 0 && !slices.Contains(m.Challenges, "S256"):
		return fmt.Errorf("issuer %s does not take PKCE with S256 (code_challenge_methods_supported): enable it there; without it others could use the code", shownText(p.at.url))
	}
	return p.at.checkURL(p.metadata.LoginPage)
}

// browserFlow lets the person sign in with a browser on this machine.
func (p *issuerClient) browserFlow(ctx context.Context, c *cobra.Command) (*oauth2.Token, error) {
	if err := p.takesBrowser(); err != nil {
		return nil, err
	}
	redirect, err := login.ParseRedirect(p.redirect)
	if err != nil {
		return nil, err
	}
	l, err := login.Listen(redirect)
	if err != nil {
		return nil, err
	}
	defer l.Close()
	l.Issuer, l.IssuerRequired = p.metadata.Issuer, p.metadata.NamesItself
	config, verifier := p.oauth(), oauth2.GenerateVerifier()
	config.RedirectURL = l.RedirectURI()
	p.hide(verifier)
	options := []oauth2.AuthCodeOption{oauth2.S256ChallengeOption(verifier)}
	exchange := []oauth2.AuthCodeOption{oauth2.VerifierOption(verifier)}
	for _, a := range p.audiences {
		options = append(options, oauth2.SetAuthURLParam("audience", a))
	}
	for _, r := range p.resources {
		option := oauth2.SetAuthURLParam("resource", r)
		options, exchange = append(options, option), append(exchange, option)
	}
	for name, values := range p.demanded() {
		options = append(options, oauth2.SetAuthURLParam(name, values[0]))
	}
	page := config.AuthCodeURL(l.State(), options...)
	begin := l.Serve(page)
	fmt.Fprintf(c.ErrOrStderr(), "Sign in on this page, on this machine, within %s:\n\n    %s\n\n", p.wait, page)
	if p.mayOpen(c.OutOrStdout()) {
		p.open(c.ErrOrStderr(), begin)
	}
	person, cancel := context.WithTimeout(ctx, p.wait)
	defer cancel()
	answer, err := l.Wait(person)
	switch {
	case errors.Is(err, context.DeadlineExceeded):
		return nil, fmt.Errorf("no answer came within %s; if the issuer's page does not like the redirect URI, register %s for client %s with any port, or give --redirect", p.wait, shownText(p.redirect), shownText(p.clientID))
	case err != nil:
		return nil, interrupted(err)
	case answer.Error != "":
		return nil, p.explain(&oauth2.RetrieveError{ErrorCode: answer.Error, ErrorDescription: answer.Description}, p.metadata.LoginPage)
	}
	p.hide(answer.Code)
	got, err := config.Exchange(oidc.ClientContext(ctx, p.http), answer.Code, exchange...)
	if err != nil {
		return nil, p.explain(err, p.endpoint)
	}
	return got, nil
}

// mayOpen reports whether a browser may be opened: a person who sends the output elsewhere, or a
// program, asks for it.
func (t *tokenCommand) mayOpen(stdout io.Writer) bool {
	if t.given("browser") {
		return t.browser
	}
	return terminal(stdout)
}

// open opens a browser if one is there. The page is printed anyway.
func (p *issuerClient) open(stderr io.Writer, page string) {
	command := login.Browser()
	if command == "" {
		if p.browser {
			fmt.Fprintln(stderr, "No browser was found here; open the page yourself.")
		}
		return
	}
	if err := login.Open(command, page); err != nil {
		fmt.Fprintf(stderr, "The browser could not be opened (%v); open the page yourself.\n", err)
	}
}

// deviceFlow lets the person sign in on any machine, by a code.
func (p *issuerClient) deviceFlow(ctx context.Context, c *cobra.Command) (*oauth2.Token, error) {
	endpoint := p.metadata.DeviceEndpoint
	if endpoint == "" {
		return nil, fmt.Errorf("issuer %s has no device_authorization_endpoint in its discovery document: sign in with a browser here, without --device", shownText(p.at.url))
	}
	if err := p.use(deviceCode); err != nil {
		return nil, err
	}
	// RFC 8628 has no PKCE, but issuers that insist on it for a client do so here, too.
	verifier := oauth2.GenerateVerifier()
	p.hide(verifier)
	form := url.Values{"scope": {strings.Join(p.loginScopes(), " ")}, "code_challenge": {oauth2.S256ChallengeFromVerifier(verifier)}, "code_challenge_method": {"S256"}}
	options := []oauth2.AuthCodeOption{oauth2.VerifierOption(verifier)}
	for _, a := range p.audiences {
		form.Set("audience", a)
	}
	for _, r := range p.resources {
		form.Set("resource", r)
		options = append(options, oauth2.SetAuthURLParam("resource", r))
	}
	for name, values := range p.demanded() {
		form[name] = values
	}
	text, err := p.post(ctx, endpoint, form)
	if err != nil {
		return nil, err
	}
	d, err := login.ParseDevice(text)
	if err != nil {
		return nil, fmt.Errorf("%s: %w; is it the endpoint of an OAuth 2.0 server?", endpoint, err)
	}
	p.hide(d.DeviceCode)
	for _, page := range []string{d.VerificationURI, cmp.Or(d.VerificationURIComplete, d.VerificationURI)} {
		if err := p.at.checkURL(page); err != nil {
			return nil, err
		}
	}
	fmt.Fprintf(c.ErrOrStderr(), "Sign in on any machine: open\n\n    %s\n\nand enter the code %s\n\n", d.VerificationURI, d.UserCode)
	if d.VerificationURIComplete != "" {
		fmt.Fprintf(c.ErrOrStderr(), "or open\n\n    %s\n\nand compare the code.\n\n", d.VerificationURIComplete)
	}
	person, cancel := context.WithTimeout(ctx, p.wait)
	defer cancel()
	got, err := login.Poll(oidc.ClientContext(person, p.http), p.oauth(), d, options...)
	switch {
	case err == nil:
		return got, nil
	case ctx.Err() != nil:
		return nil, interrupted(ctx.Err())
	case person.Err() != nil:
		return nil, fmt.Errorf("nobody confirmed the code within %s: sign in again, or wait longer with --wait", p.wait)
	case errors.Is(err, context.DeadlineExceeded):
		return nil, errors.New("the code has ended, and nobody confirmed it: sign in again")
	}
	return nil, p.explain(err, p.endpoint)
}

// interrupted says that a signal ended the login.
func interrupted(err error) error {
	if errors.Is(err, context.Canceled) {
		return errors.New("stopped; nobody was signed in")
	}
	return err
}

// forget removes the cached token, and revokes it where the issuer can (RFC 7009).
func (t *tokenCommand) forget(ctx context.Context, c *cobra.Command) error {
	at, err := t.whom()
	if err != nil {
		return err
	}
	cache, key, err := t.cached(at)
	if err != nil {
		return err
	}
	unlock, err := t.lock(ctx, c, cache, key)
	if err != nil {
		return err
	}
	defer unlock()
	e, removed, err := cache.Forget(key)
	switch {
	case err != nil:
		return err
	case !removed:
		return fmt.Errorf("no token of client %s at %s with scope %s is cached: give --logout the same flags as --login", shownText(t.clientID), at.url, shownText(strings.Join(key.Scopes, " ")))
	case e == nil:
		fmt.Fprintln(c.OutOrStdout(), "The cached token was removed. It could not be read, so it was not revoked at the issuer.")
		return nil
	}
	p, err := t.connect(ctx, at)
	if err != nil {
		return fmt.Errorf("the token is removed here, and not revoked: %w", err)
	}
	defer p.http.CloseIdleConnections()
	if p.metadata.RevocationEndpoint == "" {
		fmt.Fprintln(c.OutOrStdout(), "The token is removed here. The issuer cannot revoke it (it has no revocation_endpoint), so it counts until its end.")
		return nil
	}
	form := url.Values{"token": {e.AccessToken}, "token_type_hint": {"access_token"}}
	if e.RefreshToken != "" {
		form = url.Values{"token": {e.RefreshToken}, "token_type_hint": {string(refreshToken)}}
	}
	p.grant = refreshToken
	p.hide(e.AccessToken)
	p.hide(e.RefreshToken)
	if _, err := p.post(ctx, p.metadata.RevocationEndpoint, form); err != nil {
		return fmt.Errorf("the token is removed here, and not revoked: %w", err)
	}
	fmt.Fprintln(c.OutOrStdout(), "The token is removed here and revoked at the issuer.")
	return nil
}
