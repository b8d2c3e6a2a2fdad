package upstream

import (
	"strings"

	"sallyport/proxy/message"
	"sallyport/proxy/setting"
)

// OAuth2Config is a client of an authorization server, which gives the gateway tokens for the
// servers (client credentials). A token is renewed in the last fifth of its life.
type OAuth2Config struct {
	// Issuer is the authorization server, whose token endpoint is discovered.
	Issuer setting.URL `yaml:"issuer"`
	// TokenURL is the token endpoint, for servers without discovery.
	TokenURL setting.URL `yaml:"token_url"`
	// ClientID is the gateway's name there.
	ClientID string `yaml:"client_id"`
	// ClientSecret is its secret.
	ClientSecret setting.Secret `yaml:"client_secret"`
	// Scopes are asked for. Default: the server's own.
	Scopes setting.List[string] `yaml:"scopes"`
	// Audience is asked for, where the authorization server reads it. Default: none.
	Audience string `yaml:"audience"`
	// AuthStyle says how the gateway sends its secret: client_secret_basic or client_secret_post.
	// Default: client_secret_basic.
	AuthStyle string `yaml:"auth_style"`
	// CA is a PEM file with the only trusted roots for the authorization server. Default: the
	// system's roots.
	CA setting.Path `yaml:"ca"`
	// InsecureHTTP sends the secret without TLS to an authorization server on another machine.
	InsecureHTTP bool `yaml:"insecure_http"`
}

// Values of AuthStyle.
const (
	SecretBasic = "client_secret_basic"
	SecretPost  = "client_secret_post"
)

func (c *OAuth2Config) check(path string, f *setting.Faults) {
	for _, u := range []struct {
		name string
		url  setting.URL
	}{{"issuer", c.Issuer}, {"token_url", c.TokenURL}} {
		at := setting.Join(path, u.name)
		switch {
		case u.url.IsZero():
		case u.url.Scheme != "https" && u.url.Scheme != "http" || u.url.Host == "":
			f.Add(at, u.url.String(), "not the URL of a server", "write one such as https://login.example.com/token")
		case u.url.User != nil:
			f.Add(at, setting.Redacted, "a URL with a user name or password", "write client_id and client_secret")
		case inTheClear(u.url) && !c.InsecureHTTP:
			f.Add(at, u.url.String(), "the secret would go to another machine without TLS", "write https://; insecure_http: true sends it all the same")
		}
	}
	if c.Issuer.IsZero() == c.TokenURL.IsZero() {
		f.Add(setting.Join(path, "token_url"), "", "one of issuer and token_url says where tokens come from", "write issuer, or token_url for servers without discovery")
	}
	if c.ClientID == "" {
		f.Add(setting.Join(path, "client_id"), "", "a client without a name", "write the name by which the authorization server knows the gateway")
	}
	if c.ClientSecret.IsZero() {
		f.Add(setting.Join(path, "client_secret"), "", "a client without a secret", "write client_secret: {file: ...}")
	}
	for i, s := range c.Scopes {
		if s == "" || strings.ContainsAny(s, " \"\\") || !message.ValidValue(s) {
			f.Add(setting.Index(setting.Join(path, "scopes"), i), s, "not a scope", "write one word for each")
		}
	}
	if s := c.AuthStyle; s != "" && s != SecretBasic && s != SecretPost {
		f.Add(setting.Join(path, "auth_style"), s, "no such choice", "write "+SecretBasic+" or "+SecretPost)
	}
}
