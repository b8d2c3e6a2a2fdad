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

// explain returns an error of an endpoint in words, with what to do. It repeats of the answer only
// the description, without what is hidden.
func (p *issuerClient) explain(err error, endpoint string) error {
	var refused *oauth2.RetrieveError
	var request *url.Error
	switch {
	case errors.As(err, &request):
		return p.at.unreached(endpoint, err)
	case !errors.As(err, &refused):
		// Errors of the decoder quote the answer, which may hold a token.
		return fmt.Errorf("%s: the answer has no token; is it the token endpoint of an OAuth 2.0 server?", endpoint)
	case refused.ErrorCode == "":
		return fmt.Errorf("%s: answered %d without saying why; the issuer's log may", endpoint, refused.Response.StatusCode)
	}
	code := shownCode(refused.ErrorCode)
	what := fmt.Sprintf("%s: %s", endpoint, code)
	if d := refused.ErrorDescription; d != "" {
		what += ": " + shownText(strings.NewReplacer(p.hidden...).Replace(d))
	}
	if cure := p.cure(code); cure != "" {
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

// cure says what to do about an error code of an issuer; "" if that is unknown.
func (p *issuerClient) cure(code string) string {
	switch code {
	case "invalid_client":
		return p.cureClient()
	case "invalid_scope":
		if len(p.scopes) == 0 {
			return "the issuer wants a scope: give one that the client has with --scope"
		}
		return fmt.Sprintf("client %s may not ask for %s: assign it to the client at the issuer, or leave --scope out", shownText(p.clientID), shownText(strings.Join(p.scopes, " ")))
	case "unauthorized_client", "unsupported_grant_type", "unsupported_response_type":
		name, allow := p.grant.words()
		may := fmt.Sprintf("client %s may not use %s: %s", shownText(p.clientID), name, allow)
		if code == "unauthorized_client" && p.secretFile != "" { // Keycloak's word for a wrong secret
			may += fmt.Sprintf("; or its secret is not what %s holds", p.secretFile)
		}
		return may
	case "invalid_target":
		return "the issuer does not know what --resource or --audience names: register it there, or correct the flag"
	case "invalid_request":
		return "the issuer misses a parameter: some want --audience, --resource or --scope"
	case "invalid_grant":
		return "the code has ended, was used before, or is for another client: sign in again"
	case "access_denied":
		if p.grant != clientCredentials {
			return "the person or the issuer's policies said no: sign in again, or ask who runs the issuer"
		}
		return "the issuer does not let this client have such a token: its policies say why"
	case "expired_token":
		return "nobody confirmed the code in time: sign in again"
	case "temporarily_unavailable", "server_error", "slow_down":
		return "try again later; the issuer's log may say more"
	}
	return ""
}

// cureClient says what to do where the issuer does not take the client's proof.
func (p *issuerClient) cureClient() string {
	id := shownText(p.clientID)
	switch {
	case p.cert != "" && p.secretFile == "":
		return fmt.Sprintf("the issuer does not take this certificate for client %s: register its subject or its fingerprint there, and let the client authenticate by it (tls_client_auth)", id)
	case p.secretFile == "":
		return fmt.Sprintf("the issuer does not know client %s, or wants its secret: make it a public client there (in Keycloak, Client authentication off), or give --secret-file", id)
	}
	sent, method, other, flag := "in the field Authorization", "client_secret_basic", "client_secret_post", "post"
	if p.style == oauth2.AuthStyleInParams {
		sent, method, other, flag = "in the form", other, method, "basic"
	}
	if !p.metadata.takes(method) && p.metadata.takes(other) {
		return fmt.Sprintf("the secret was sent %s, and the issuer takes %s: try --auth %s", sent, other, flag)
	}
	return fmt.Sprintf("the issuer does not know client %s, or its secret is not what %s holds: compare both with the issuer's page; if they are right, try --auth %s", id, p.secretFile, flag)
}
