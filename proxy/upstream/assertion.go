package upstream

import (
	"strings"
	"time"

	"sallyport/proxy/message"
	"sallyport/proxy/setting"
)

// AssertionConfig is a short-lived token (JWT) that tells the servers who calls, signed by the
// gateway. Servers verify it by the keys at /.well-known/sallyport/jwks on every host.
type AssertionConfig struct {
	// Key is the signing key, with the use sign_assertion.
	Key string `yaml:"key"`
	// Audience is the claim aud: a name of these servers that no other upstream has.
	Audience string `yaml:"audience"`
	// Issuer is the claim iss. Default: sallyport.
	Issuer string `yaml:"issuer"`
	// TTL is how long a token is valid. Default: 1m, which is also the maximum.
	TTL setting.Duration `yaml:"ttl"`
	// Claims lists more that servers are told about callers: groups, and scopes as the claim scope.
	// Default: none.
	Claims setting.List[string] `yaml:"claims"`
	// Header is the field for the token. Default: Authorization, as a bearer token.
	Header string `yaml:"header"`
}

// Values of Claims.
const (
	ClaimGroups = "groups"
	ClaimScopes = "scopes"
)

// maxAssertion is the longest life of an assertion.
const maxAssertion = time.Minute

// Life returns how long a token is valid.
func (c *AssertionConfig) Life() time.Duration { return c.TTL.Or(maxAssertion) }

// Field returns the lower-case name of the field for the token.
func (c *AssertionConfig) Field() string {
	if c.Header == "" {
		return authorization
	}
	return strings.ToLower(c.Header)
}

func (c *AssertionConfig) check(path string, f *setting.Faults) {
	if c.Key == "" {
		f.Add(setting.Join(path, "key"), "", "an assertion without a key", "name a signing key with use: sign_assertion")
	}
	if c.Audience == "" {
		f.Add(setting.Join(path, "audience"), "", "an assertion without an audience, which every server would take", "write a name of these servers, such as https://tf.internal")
	}
	if d := c.TTL.D(); d != 0 && (d < time.Second || d > maxAssertion) {
		f.Add(setting.Join(path, "ttl"), c.TTL.String(), "out of bounds", "write a time from 1s to 1m")
	}
	for i, name := range c.Claims {
		if name != ClaimGroups && name != ClaimScopes {
			f.Add(setting.Index(setting.Join(path, "claims"), i), name, "no such claim", "write groups or scopes")
		}
	}
	if c.Header != "" {
		if problem := badCredentialField(c.Header); problem != "" {
			f.Add(setting.Join(path, "header"), c.Header, problem, "write one such as X-Caller-Assertion")
		}
	}
	for name, value := range map[string]string{"audience": c.Audience, "issuer": c.Issuer} {
		if !message.ValidValue(value) {
			f.Add(setting.Join(path, name), value, "not a name", "write printable characters")
		}
	}
}
