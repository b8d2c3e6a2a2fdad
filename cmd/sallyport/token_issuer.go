package main

import (
	"cmp"
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"net/http"
	"net/netip"
	"net/url"
	"os"
	"slices"
	"strings"

	"sallyport/proxy"
)

// maxMetadata bounds the discovery document of an issuer, in bytes.
const maxMetadata = 1 << 20

// tokenIssuer is the issuer that a token is requested from.
type tokenIssuer struct {
	url      string // its name
	base     string // the URL before /.well-known/openid-configuration
	ca       string // file with the trusted roots; "" for the system's
	insecure bool   // http to other machines is allowed
	setting  string // its place in the configuration; "" for one that --url names
	flags    bool   // --url names it
}

// issuerMetadata holds the used members of a discovery document (OpenID Connect Discovery 1.0,
// section 3; RFC 8414, section 2; RFC 8705, section 5).
type issuerMetadata struct {
	Issuer             string   `json:"issuer"`
	TokenEndpoint      string   `json:"token_endpoint"`
	AuthMethods        []string `json:"token_endpoint_auth_methods_supported"`
	Grants             []string `json:"grant_types_supported"`
	LoginPage          string   `json:"authorization_endpoint"`
	Challenges         []string `json:"code_challenge_methods_supported"`
	NamesItself        bool     `json:"authorization_response_iss_parameter_supported"` // RFC 9207
	DeviceEndpoint     string   `json:"device_authorization_endpoint"`                  // RFC 8628
	RevocationEndpoint string   `json:"revocation_endpoint"`                            // RFC 7009
	MTLS               struct {
		TokenEndpoint      string `json:"token_endpoint"`
		DeviceEndpoint     string `json:"device_authorization_endpoint"`
		RevocationEndpoint string `json:"revocation_endpoint"`
	} `json:"mtls_endpoint_aliases"`
}

// takes reports whether the issuer lists a method of client authentication. Without a list it
// takes client_secret_basic alone (RFC 8414, section 2).
func (m *issuerMetadata) takes(method string) bool {
	if len(m.AuthMethods) == 0 {
		return method == "client_secret_basic"
	}
	return slices.Contains(m.AuthMethods, method)
}

func issuerNames(c *proxy.Config) []string { return slices.Sorted(maps.Keys(c.Issuers)) }

// issuersOf names the issuers of a configuration.
func issuersOf(c *proxy.Config) string {
	if len(c.Issuers) == 0 {
		return "none"
	}
	return strings.Join(issuerNames(c), ", ")
}

// client returns an HTTP client for the issuer. It follows no redirect: the secret is for the
// issuer alone.
func (t *tokenCommand) client(at *tokenIssuer) (*http.Client, error) {
	config := &tls.Config{MinVersion: tls.VersionTLS12}
	if at.ca != "" {
		text, err := os.ReadFile(at.ca)
		if err != nil {
			return nil, fmt.Errorf("reading the authorities: %w", err)
		}
		config.RootCAs = x509.NewCertPool()
		if !config.RootCAs.AppendCertsFromPEM(text) {
			return nil, fmt.Errorf("reading the authorities: %s holds no certificate", at.ca)
		}
	}
	var err error
	if config.Certificates, err = t.certificates(); err != nil {
		return nil, err
	}
	return &http.Client{
		Transport:     &http.Transport{Proxy: http.ProxyFromEnvironment, TLSClientConfig: config, DisableCompression: true, MaxResponseHeaderBytes: 64 << 10},
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
		Timeout:       tokenTime,
	}, nil
}

// discover fetches the issuer's discovery document.
func (at *tokenIssuer) discover(ctx context.Context, client *http.Client) (*issuerMetadata, error) {
	asked := strings.TrimSuffix(at.base, "/") + "/.well-known/openid-configuration"
	if err := at.checkURL(asked); err != nil {
		return nil, err
	}
	r, err := http.NewRequestWithContext(ctx, http.MethodGet, asked, nil)
	if err != nil {
		return nil, fmt.Errorf("%s is not a URL", shownText(at.base))
	}
	answer, err := client.Do(r)
	if err != nil {
		return nil, at.unreached(asked, err)
	}
	defer answer.Body.Close()
	text, err := io.ReadAll(io.LimitReader(answer.Body, maxMetadata+1))
	if err != nil {
		return nil, at.unreached(asked, err)
	}
	m := &issuerMetadata{}
	switch {
	case answer.StatusCode == http.StatusNotFound:
		return nil, fmt.Errorf("%s: there is no discovery document (status 404): the issuer's URL is what its tokens have as iss, such as https://login.example.com/realms/ml", asked)
	case answer.StatusCode != http.StatusOK:
		return nil, fmt.Errorf("%s: answered %d and no discovery document; is it the issuer's URL?", asked, answer.StatusCode)
	case len(text) > maxMetadata || json.Unmarshal(text, m) != nil:
		return nil, fmt.Errorf("%s: answered with something else than a discovery document; is it the issuer's URL?", asked)
	case m.Issuer != at.url:
		return nil, fmt.Errorf("%s names %s as the issuer, and not %s: %s", asked, shownText(m.Issuer), shownText(at.url), at.cureName(m.Issuer))
	}
	return m, nil
}

// cureName says how to correct the issuer's URL, which its document has as found.
func (at *tokenIssuer) cureName(found string) string {
	if at.flags {
		return "write --url " + shownText(found) + ", if that is the one you mean"
	}
	return "correct " + at.setting + ".url or discovery"
}

// endpoint returns the URL for requests for tokens. Clients with a certificate may have endpoints of
// their own, which m has from then on.
func (at *tokenIssuer) endpoint(m *issuerMetadata, certificate bool) (string, error) {
	if certificate {
		m.TokenEndpoint = cmp.Or(m.MTLS.TokenEndpoint, m.TokenEndpoint)
		m.DeviceEndpoint = cmp.Or(m.MTLS.DeviceEndpoint, m.DeviceEndpoint)
		m.RevocationEndpoint = cmp.Or(m.MTLS.RevocationEndpoint, m.RevocationEndpoint)
	}
	if m.TokenEndpoint == "" {
		return "", fmt.Errorf("issuer %s has no token_endpoint in its discovery document: it issues no tokens to programs", shownText(at.url))
	}
	return m.TokenEndpoint, at.checkURL(m.TokenEndpoint)
}

// checkURL refuses URLs to which the secret must not go.
func (at *tokenIssuer) checkURL(address string) error {
	u, err := url.Parse(address)
	switch {
	case err != nil || u.Host == "" || u.User != nil || u.Scheme != "https" && u.Scheme != "http":
		return fmt.Errorf("%s is not a URL with https and a host", shownText(address))
	case u.Scheme == "https" || at.insecure || loopbackName(u.Hostname()):
		return nil
	}
	return fmt.Errorf("%s: http to another machine would show the secret to everyone on the way; write https, or --insecure-http for a trusted network", shownText(address))
}

// loopbackName reports whether a host is this machine (RFC 6761, section 6.3).
func loopbackName(host string) bool {
	a, err := netip.ParseAddr(host)
	host = strings.ToLower(strings.TrimSuffix(host, "."))
	return err == nil && a.Unmap().IsLoopback() || host == "localhost" || strings.HasSuffix(host, ".localhost")
}

// shownText returns text of an issuer in quotes, cut and without control characters.
func shownText(s string) string {
	const most = 200
	if len(s) > most {
		s = strings.ToValidUTF8(s[:most], "") + "…"
	}
	return fmt.Sprintf("%q", s)
}
