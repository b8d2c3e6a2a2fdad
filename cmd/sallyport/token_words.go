package main

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"net"
	"net/url"
	"strings"

	"golang.org/x/oauth2"
)

// unreached explains why a URL of the issuer gave no answer.
func (at *tokenIssuer) unreached(address string, err error) error {
	var request *url.Error
	if errors.As(err, &request) {
		err = request.Err // without the method and URL, which are given here
	}
	return fmt.Errorf("%s: %w%s", address, err, at.cureUnreached(err))
}

// cureUnreached says what helps where err kept a request from the issuer; "" if that is unknown.
func (at *tokenIssuer) cureUnreached(err error) string {
	var name *net.DNSError
	var wrongName x509.HostnameError
	var invalid x509.CertificateInvalidError
	switch {
	case errors.As(err, new(x509.UnknownAuthorityError)):
		if at.ca != "" {
			return "; " + at.ca + " does not hold the issuer's authority: give the right file with --ca"
		}
		return "; --ca names the file with the root certificate of the issuer's authority"
	case errors.As(err, &wrongName):
		return "; use the name that is in the certificate"
	case errors.As(err, &invalid) && invalid.Reason == x509.Expired:
		return "; renew the issuer's certificate, or correct the clock of this machine"
	case errors.As(err, new(tls.RecordHeaderError)):
		return "; the server speaks no TLS there: is it http, or another port?"
	case errors.As(err, &name) && name.IsNotFound:
		return "; DNS does not know this name here: correct it, or add it to DNS or /etc/hosts"
	case errors.Is(err, context.DeadlineExceeded):
		return fmt.Sprintf("; no answer within %s: is there a firewall or a proxy between here and the issuer?", tokenTime)
	case errors.As(err, new(*net.OpError)):
		return "; is the issuer running, and may this machine reach it?"
	}
	return ""
}

// explain returns an error of the token endpoint in words, with what to do. It repeats of the
// answer only the description, without the secret.
func (t *tokenCommand) explain(err error, at *tokenIssuer, m *issuerMetadata, endpoint, secret string, style oauth2.AuthStyle) error {
	var refused *oauth2.RetrieveError
	var request *url.Error
	switch {
	case errors.As(err, &request):
		return at.unreached(endpoint, err)
	case !errors.As(err, &refused):
		// Errors of the decoder quote the answer, which may hold a token.
		return fmt.Errorf("%s: the answer has no token; is it the token endpoint of an OAuth 2.0 server?", endpoint)
	case refused.ErrorCode == "":
		return fmt.Errorf("%s: answered %d without saying why; the issuer's log may", endpoint, refused.Response.StatusCode)
	}
	code := shownCode(refused.ErrorCode)
	what := fmt.Sprintf("%s: %s", endpoint, code)
	if d := refused.ErrorDescription; d != "" {
		if secret != "" {
			d = strings.NewReplacer(secret, "[secret]", url.QueryEscape(secret), "[secret]").Replace(d)
		}
		what += ": " + shownText(d)
	}
	if cure := t.cure(code, m, style); cure != "" {
		what += "; " + cure
	}
	return errors.New(what)
}

// shownCode returns an error code of RFC 6749, section 5.2, in quotes if it has other characters
// than such codes have.
func shownCode(code string) string {
	if len(code) > 64 || strings.Trim(code, "abcdefghijklmnopqrstuvwxyz_") != "" {
		return shownText(code)
	}
	return code
}

// cure says what to do about an error code of a token endpoint; "" if that is unknown.
func (t *tokenCommand) cure(code string, m *issuerMetadata, style oauth2.AuthStyle) string {
	switch code {
	case "invalid_client":
		return t.cureClient(m, style)
	case "invalid_scope":
		if len(t.scopes) == 0 {
			return "the issuer wants a scope: give one that the client has with --scope"
		}
		return fmt.Sprintf("client %s may not ask for %s: assign it to the client at the issuer, or leave --scope out", shownText(t.clientID), shownText(strings.Join(t.scopes, " ")))
	case "unauthorized_client", "unsupported_grant_type":
		may := fmt.Sprintf("client %s may not use client credentials: allow them at the issuer; in Keycloak that is Service account roles, with Client authentication on", shownText(t.clientID))
		if code == "unauthorized_client" && t.secretFile != "" { // Keycloak's word for a wrong secret
			may += fmt.Sprintf("; or its secret is not what %s holds", t.secretFile)
		}
		return may
	case "invalid_target":
		return "the issuer does not know what --resource or --audience names: register it there, or correct the flag"
	case "invalid_request":
		return "the issuer misses a parameter: some want --audience, --resource or --scope"
	case "access_denied":
		return "the issuer does not let this client have such a token: its policies say why"
	case "temporarily_unavailable", "server_error", "slow_down":
		return "try again later; the issuer's log may say more"
	}
	return ""
}

// cureClient says what to do where the issuer does not take the client's proof.
func (t *tokenCommand) cureClient(m *issuerMetadata, style oauth2.AuthStyle) string {
	id := shownText(t.clientID)
	if t.secretFile == "" {
		return fmt.Sprintf("the issuer does not take this certificate for client %s: register its subject or its fingerprint there, and let the client authenticate by it (tls_client_auth)", id)
	}
	sent, method, other, flag := "in the field Authorization", "client_secret_basic", "client_secret_post", "post"
	if style == oauth2.AuthStyleInParams {
		sent, method, other, flag = "in the form", other, method, "basic"
	}
	if !m.takes(method) && m.takes(other) {
		return fmt.Sprintf("the secret was sent %s, and the issuer takes %s: try --auth %s", sent, other, flag)
	}
	return fmt.Sprintf("the issuer does not know client %s, or its secret is not what %s holds: compare both with the issuer's page; if they are right, try --auth %s", id, t.secretFile, flag)
}
