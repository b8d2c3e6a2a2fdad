package main

import (
	"context"
	"crypto/tls"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strings"
	"time"

	"github.com/coreos/go-oidc/v3/oidc"
	"golang.org/x/oauth2"
	"golang.org/x/oauth2/clientcredentials"
)

// issuerClient is a client at an issuer whose endpoints are known.
type issuerClient struct {
	*tokenCommand
	at       *tokenIssuer
	http     *http.Client
	metadata *issuerMetadata
	endpoint string // for tokens
	secret   string
	style    oauth2.AuthStyle
	grant    grant    // what errors are about
	hidden   []string // what errors must not show
}

// connect reads what the client proves itself by, and finds the issuer's endpoints.
func (t *tokenCommand) connect(ctx context.Context, at *tokenIssuer) (*issuerClient, error) {
	secret, err := t.secret()
	if err != nil {
		return nil, err
	}
	p := &issuerClient{tokenCommand: t, at: at, secret: secret}
	p.hide(secret)
	if p.http, err = t.client(at); err != nil {
		return nil, err
	}
	if p.metadata, err = at.discover(ctx, p.http); err != nil {
		return nil, err
	}
	p.style = t.style(p.metadata)
	p.endpoint, err = at.endpoint(p.metadata, t.cert != "")
	return p, err
}

// hide keeps a secret out of errors.
func (p *issuerClient) hide(secret string) {
	if secret != "" {
		p.hidden = append(p.hidden, secret, "[secret]", url.QueryEscape(secret), "[secret]")
	}
}

// use makes errors be about a grant, which the issuer must offer.
func (p *issuerClient) use(g grant) error {
	p.grant = g
	return p.at.offers(p.metadata, g)
}

// obtain requests a token for a program. No error contains the secret.
func (t *tokenCommand) obtain(ctx context.Context) (*issuedToken, error) {
	at, err := t.whom()
	if err != nil {
		return nil, err
	}
	ctx, cancel := context.WithTimeout(ctx, tokenTime)
	defer cancel()
	p, err := t.connect(ctx, at)
	if err != nil {
		return nil, err
	}
	defer p.http.CloseIdleConnections()
	if err := p.use(clientCredentials); err != nil {
		return nil, err
	}
	params := url.Values{}
	if len(t.audiences) > 0 {
		params["audience"] = t.audiences
	}
	if len(t.resources) > 0 {
		params["resource"] = t.resources
	}
	asked := time.Now()
	got, err := p.request(ctx, params, t.scopes)
	if err != nil {
		return nil, p.explain(err, p.endpoint)
	}
	return p.issued(got, asked)
}

// request asks for a token by client credentials, or by the grant_type among params.
func (p *issuerClient) request(ctx context.Context, params url.Values, scopes []string) (*oauth2.Token, error) {
	r := clientcredentials.Config{ClientID: p.clientID, ClientSecret: p.secret, TokenURL: p.endpoint, Scopes: scopes, AuthStyle: p.style, EndpointParams: params}
	return r.Token(oidc.ClientContext(ctx, p.http)) // which is oauth2's client too
}

// issued checks a token and returns it as it is printed.
func (p *issuerClient) issued(got *oauth2.Token, asked time.Time) (*issuedToken, error) {
	if !strings.EqualFold(got.Type(), "Bearer") {
		return nil, fmt.Errorf("%s issued a token of type %s, which only its holder's key can use; ask the issuer for a Bearer token", p.endpoint, shownText(got.TokenType))
	}
	if strings.ContainsFunc(got.AccessToken, func(r rune) bool { return r <= ' ' || r >= 0x7f }) {
		return nil, fmt.Errorf("%s issued a token that cannot be sent: it has blanks or other characters than ASCII", p.endpoint)
	}
	issued := &issuedToken{AccessToken: got.AccessToken, TokenType: got.Type()}
	if !got.Expiry.IsZero() {
		issued.ExpiresAt = got.Expiry.UTC().Truncate(time.Second)
		issued.ExpiresIn = int64(got.Expiry.Sub(asked).Round(time.Second) / time.Second)
	}
	issued.Scope, _ = got.Extra("scope").(string)
	return issued, nil
}

// post sends a form with the client's proof to an endpoint of the issuer other than that for tokens.
// oauth2's own request for device codes sends no secret and ignores the context.
func (p *issuerClient) post(ctx context.Context, endpoint string, form url.Values) ([]byte, error) {
	if err := p.at.checkURL(endpoint); err != nil {
		return nil, err
	}
	if p.style == oauth2.AuthStyleInParams {
		form.Set("client_id", p.clientID)
		if p.secret != "" {
			form.Set("client_secret", p.secret)
		}
	}
	r, err := http.NewRequestWithContext(ctx, http.MethodPost, endpoint, strings.NewReader(form.Encode()))
	if err != nil {
		return nil, fmt.Errorf("%s is not a URL", shownText(endpoint))
	}
	r.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	r.Header.Set("Accept", "application/json")
	if p.style == oauth2.AuthStyleInHeader {
		r.SetBasicAuth(url.QueryEscape(p.clientID), url.QueryEscape(p.secret))
	}
	answer, err := p.http.Do(r)
	if err != nil {
		return nil, p.explain(err, endpoint)
	}
	defer answer.Body.Close()
	text, err := io.ReadAll(io.LimitReader(answer.Body, maxMetadata+1))
	switch {
	case err != nil:
		return nil, p.at.unreached(endpoint, err)
	case len(text) > maxMetadata:
		return nil, fmt.Errorf("%s: the answer is larger than %d bytes; is it an endpoint of an OAuth 2.0 server?", endpoint, maxMetadata)
	case answer.StatusCode != http.StatusOK:
		var refusal struct {
			Code        string `json:"error"`
			Description string `json:"error_description"`
		}
		_ = json.Unmarshal(text, &refusal) // without a code, explain says so
		return nil, p.explain(&oauth2.RetrieveError{Response: answer, ErrorCode: refusal.Code, ErrorDescription: refusal.Description}, endpoint)
	}
	return text, nil
}

// style returns how the client sends its id and secret.
func (t *tokenCommand) style(m *issuerMetadata) oauth2.AuthStyle {
	switch {
	case t.secretFile == "", t.auth == "post":
		return oauth2.AuthStyleInParams
	case t.auth == "" && !m.takes("client_secret_basic") && m.takes("client_secret_post"):
		return oauth2.AuthStyleInParams
	}
	return oauth2.AuthStyleInHeader
}

// certificates returns the client's certificate, if it has one.
func (t *tokenCommand) certificates() ([]tls.Certificate, error) {
	if t.cert == "" {
		return nil, nil
	}
	pair, err := tls.LoadX509KeyPair(t.cert, t.key)
	if err != nil {
		return nil, fmt.Errorf("reading the client's certificate: %w", err)
	}
	return []tls.Certificate{pair}, nil
}
