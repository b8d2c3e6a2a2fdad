package auth

import (
	"bytes"
	"errors"
	"fmt"
	"maps"
	"net/url"
	"slices"

	"sallyport/auth/fetch"
	"sallyport/proxy/setting"
)

// ProxyConfig is `proxy` of an issuer: the URL of an HTTP proxy, or with credentials the two.
type ProxyConfig struct{ ProxyFields }

// ProxyFields are the fields of `proxy`.
type ProxyFields struct {
	// URL is that of the proxy, such as http://egress.internal:3128.
	URL setting.URL `yaml:"url"`
	// Credentials are the user name and password for the proxy, as in user:password.
	Credentials setting.Secret `yaml:"credentials"`
}

// Form implements [setting.Forms].
func (c *ProxyConfig) Form(s setting.Shape) any {
	switch s {
	case setting.Scalar:
		return &c.URL
	case setting.Mapping:
		return &c.ProxyFields
	}
	return nil
}

// Want implements [setting.Forms].
func (c *ProxyConfig) Want() string {
	return "the URL of a proxy, or {url: ..., credentials: {file: ...}}"
}

// checkAccess records the faults of token_file and proxy.
func (c *IssuerConfig) checkAccess(at func(string) string, f *setting.Faults) {
	c.TokenFile.Check(at("token_file"), "name a file, or remove the line", f)
	p := &c.Proxy
	switch {
	case p.URL.IsZero() && !p.Credentials.IsZero():
		f.Add(at("proxy"), "", "credentials without a proxy", "add url: http://PROXY:PORT")
	case p.URL.IsZero():
	case p.URL.Scheme != "http" || p.URL.Path != "" && p.URL.Path != "/" || p.URL.RawQuery != "":
		f.Add(at("proxy"), p.URL.String(), "not the URL of an HTTP proxy", "write http://PROXY:PORT; what goes through it is encrypted up to the issuer")
	}
	fetched := c.fetched()
	if i := c.Introspection; i != nil && !i.URL.IsZero() && !p.URL.IsZero() && i.URL.Scheme != "https" {
		f.Add(at("proxy"), p.URL.String(), "carries https only, and introspection.url is http", "write https in introspection.url, or remove proxy")
	}
	for _, field := range [...]string{"url", "discovery", "jwks"} {
		u := fetched[field]
		switch {
		case u == nil, u.Scheme == "https":
		case c.TokenFile != "":
			f.Add(at("token_file"), string(c.TokenFile), "would be sent in the clear to "+u.Host, "write https in "+field+", or remove token_file")
		case !p.URL.IsZero():
			f.Add(at("proxy"), p.URL.String(), "carries https only, and "+field+" is http", "write https in "+field+", or remove proxy")
		}
	}
}

// addToken adds token_file to the options of the client for discovery and keys.
func (c *IssuerConfig) addToken(o *fetch.Options) {
	if c.TokenFile != "" {
		o.Token, o.Origins = c.TokenFile.Secret().Read, slices.Collect(maps.Values(c.fetched()))
	}
}

// addProxy adds proxy to the options of each client for the issuer.
func (c *IssuerConfig) addProxy(o *fetch.Options) error {
	if c.Proxy.URL.IsZero() {
		return nil
	}
	o.Proxy = c.Proxy.URL.URL
	var err error
	o.ProxyUser, err = c.Proxy.user()
	return err
}

// user returns the credentials for the proxy, nil if there are none.
func (c *ProxyConfig) user() (*url.Userinfo, error) {
	if c.Credentials.IsZero() {
		return nil, nil
	}
	text, err := c.Credentials.Read()
	if err != nil {
		return nil, fmt.Errorf("credentials of the proxy: %w", err)
	}
	user, password, ok := bytes.Cut(text, []byte(":"))
	if !ok || len(user) == 0 {
		return nil, errors.New("credentials of the proxy: " + c.Credentials.Where() + " does not hold user:password")
	}
	return url.UserPassword(string(user), string(password)), nil
}

// checkAccessFiles records why token_file or the credentials of the proxy cannot be used.
func (c *IssuerConfig) checkAccessFiles(path string, f *setting.Faults) {
	if c.TokenFile != "" {
		if _, err := c.TokenFile.Secret().Read(); err != nil {
			f.Add(setting.Join(path, "token_file"), string(c.TokenFile), err.Error(), setting.CureUnreadable(err, "name the file of a mounted token"))
		}
	}
	if _, err := c.Proxy.user(); err != nil {
		f.Add(setting.Join(path, "proxy.credentials"), "", err.Error(), setting.CureUnreadable(err, "write there user:password"))
	}
}
