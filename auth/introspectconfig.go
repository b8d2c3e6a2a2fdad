package auth

import (
	"fmt"
	"net/url"
	"strconv"
	"strings"
	"time"

	"sallyport/auth/apikey"
	"sallyport/auth/fetch"
	"sallyport/proxy/setting"
)

const (
	defaultMaxAge         = time.Minute
	defaultNegativeMaxAge = 10 * time.Second
	defaultLookTime       = 3 * time.Second
	defaultConcurrency    = 32

	maxAnswer = 64 << 10 // bytes of an answer to a look-up
	maxPrefix = 64       // bytes of the prefix of an issuer's opaque tokens
)

// The ways of sending a client's secret (RFC 7591, section 2), without "client_secret_".
const (
	clientAuthBasic = "basic"
	clientAuthPost  = "post"
)

// IntrospectionConfig is how the gateway asks an issuer about tokens that are not JWTs
// (RFC 7662).
type IntrospectionConfig struct {
	// URL is the introspection endpoint. Default: introspection_endpoint of the discovery
	// document; with certificate, that of its mtls_endpoint_aliases if it has one.
	URL setting.URL `yaml:"url"`
	// ClientID is the gateway's name as a client of the issuer.
	ClientID string `yaml:"client_id"`
	// ClientSecret is the client's secret.
	ClientSecret setting.Secret `yaml:"client_secret"`
	// ClientAuth is how the secret is sent: basic, in Authorization, or post, in the form.
	// Default: basic.
	ClientAuth string `yaml:"client_auth"`
	// Certificate is the client's certificate (RFC 8705), instead of a secret or besides it.
	Certificate *setting.Certificate `yaml:"certificate"`

	// Prefix is how the issuer's opaque tokens begin. It tells the issuers of a route
	// apart: one of them at most may have none. Default: none.
	Prefix string `yaml:"prefix"`
	// JWT sends JWTs of the issuer to the endpoint too, instead of verifying them here.
	JWT bool `yaml:"jwt"`
	// Signed accepts signed answers only (RFC 9701).
	Signed bool `yaml:"signed"`

	// MaxAge is how long the answer that a token is active is used, at most until the
	// token expires. A revoked token is accepted for that long. Default: 1m.
	MaxAge setting.Duration `yaml:"max_age"`
	// NegativeMaxAge is how long a refusal is used. Default: 10s.
	NegativeMaxAge setting.Duration `yaml:"negative_max_age"`
	// Timeout is how long the issuer may take to answer. Default: 3s.
	Timeout setting.Duration `yaml:"timeout"`
	// Concurrency is how many tokens are looked up at once. No client address gets more
	// than a quarter of it. Default: 32.
	Concurrency int `yaml:"concurrency"`
}

// CheckFiles records why the files of the secret and the certificate cannot be used.
func (c *IntrospectionConfig) CheckFiles(path string, f *setting.Faults) {
	if !c.ClientSecret.IsZero() {
		if _, err := c.ClientSecret.Read(); err != nil {
			f.Add(setting.Join(path, "client_secret"), "", err.Error(), setting.CureUnreadable(err, cureSecret(c.ClientID, missingFile(err))))
		}
	}
	if c.Certificate != nil && c.Certificate.Cert != "" && c.Certificate.Key != "" {
		c.Certificate.CheckFiles(setting.Join(path, "certificate"), f)
	}
}

// check records every fault of the introspection of an issuer. discovers reports whether the
// issuer's discovery document is read.
func (c *IntrospectionConfig) check(path string, discovers, insecure bool, f *setting.Faults) {
	at := func(field string) string { return setting.Join(path, field) }
	switch {
	case !c.URL.IsZero():
		if err := fetch.CheckURL(c.URL.URL, insecure); err != nil {
			f.Add(at("url"), c.URL.String(), err.Error(), "use https, or set insecure_http: true if the network of the issuer is trusted")
		}
	case !discovers:
		f.Add(at("url"), "", "no document says where the endpoint is, because jwks replaces discovery", "write the URL of the introspection endpoint")
	}
	c.checkClient(at, f)
	switch {
	case len(c.Prefix) > maxPrefix || c.Prefix != "" && !isOpaque(c.Prefix):
		f.Add(at("prefix"), c.Prefix, "no token begins so", fmt.Sprintf("use letters, digits and - . _ ~ + /, up to %d of them", maxPrefix))
	case strings.HasPrefix(c.Prefix, apikey.Prefix):
		f.Add(at("prefix"), c.Prefix, "API keys of the gateway begin so, and no issuer gets those", "write the beginning of the issuer's tokens")
	}
	bound := func(field string, d setting.Duration, low, high time.Duration) {
		if d != 0 && (d.D() < low || d.D() > high) {
			f.Add(at(field), d.String(), "out of bounds", "choose between "+low.String()+" and "+high.String())
		}
	}
	bound("max_age", c.MaxAge, time.Second, time.Hour)
	bound("negative_max_age", c.NegativeMaxAge, time.Second, 10*time.Minute)
	bound("timeout", c.Timeout, 100*time.Millisecond, 30*time.Second)
	if c.Concurrency != 0 && (c.Concurrency < 4 || c.Concurrency > 256) {
		f.Add(at("concurrency"), strconv.Itoa(c.Concurrency), "out of bounds", "choose between 4 and 256")
	}
}

func (c *IntrospectionConfig) checkClient(at func(string) string, f *setting.Faults) {
	if c.ClientID == "" {
		f.Add(at("client_id"), "", "the issuer answers only to clients that it knows", "write the name of a client that you registered there for the gateway")
	}
	if c.ClientSecret.IsZero() && c.Certificate == nil {
		f.Add(at("client_secret"), "", "nothing proves the gateway to the issuer", "write client_secret: {file: PATH}, or certificate: {cert: PATH, key: PATH}")
	}
	switch c.ClientAuth {
	case "", clientAuthBasic, clientAuthPost:
	default:
		f.Add(at("client_auth"), c.ClientAuth, "not a way of sending the secret", "write basic or post")
	}
	if c.Certificate != nil {
		c.Certificate.Check(at("certificate"), f)
	}
}

// introspectSource is how an issuer is asked about tokens.
type introspectSource struct {
	issuer    *issuer
	url       string // "": as discovered
	mutual    bool   // the client has a certificate
	insecure  bool
	client    *fetch.Client
	authorize func(*fetch.Form) // adds the proof of the client
	clientID  string
	jwt       bool
	signed    bool
	prefix    string

	maxAge, negativeMaxAge, timeout time.Duration
	concurrency                     int
}

// newIntrospectSource returns the source of an issuer's introspection. It reads the secret
// and the certificate.
func newIntrospectSource(iss *issuer, c *IntrospectionConfig, o fetch.Options) (*introspectSource, error) {
	s := &introspectSource{
		issuer: iss, url: c.URL.String(), mutual: c.Certificate != nil, insecure: o.InsecureHTTP,
		clientID: c.ClientID, jwt: c.JWT, signed: c.Signed, prefix: c.Prefix,
		maxAge: c.MaxAge.Or(defaultMaxAge), negativeMaxAge: c.NegativeMaxAge.Or(defaultNegativeMaxAge), timeout: c.Timeout.Or(defaultLookTime),
		concurrency: c.Concurrency,
	}
	if s.concurrency == 0 {
		s.concurrency = defaultConcurrency
	}
	var err error
	if c.Certificate != nil {
		if o.Certificate, err = c.Certificate.Read(); err != nil {
			return nil, fmt.Errorf("introspection.certificate: %w", err)
		}
	}
	o.Timeout, o.MaxBytes, o.Idle = s.timeout, maxAnswer, s.concurrency
	s.client = fetch.New(o)
	s.authorize = func(f *fetch.Form) { f.Values.Set("client_id", c.ClientID) }
	if c.ClientSecret.IsZero() {
		return s, nil
	}
	secret, err := c.ClientSecret.Read()
	if err != nil {
		return nil, fmt.Errorf("introspection.client_secret: %w", err)
	}
	if c.ClientAuth == clientAuthPost {
		s.authorize = func(f *fetch.Form) {
			f.Values.Set("client_id", c.ClientID)
			f.Values.Set("client_secret", string(secret))
		}
		return s, nil
	}
	// RFC 6749, section 2.3.1, encodes both as in a form before they become user and password.
	s.authorize = func(f *fetch.Form) { f.User, f.Password = url.QueryEscape(c.ClientID), url.QueryEscape(string(secret)) }
	return s, nil
}
