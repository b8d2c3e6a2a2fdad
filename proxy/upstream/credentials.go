package upstream

import (
	"encoding/base64"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"time"

	"github.com/go-json-experiment/json"

	"sallyport/proxy/message"
	"sallyport/proxy/setting"
)

// CredentialsConfig is the section `credentials` of an upstream: what the gateway itself shows to
// the servers, by one of the kinds. Files are read again when they change; connections stay open.
type CredentialsConfig struct {
	// Bearer is a token, sent as Authorization: Bearer.
	Bearer setting.Secret `yaml:"bearer"`
	// Basic is a user name and a password.
	Basic *BasicConfig `yaml:"basic"`
	// Header is a field of another name, for servers that read one such as X-Api-Key.
	Header *HeaderConfig `yaml:"header"`
	// OAuth2 gets bearer tokens from an authorization server.
	OAuth2 *OAuth2Config `yaml:"oauth2"`
	// Assertion tells the servers who calls by a token that the gateway signs.
	Assertion *AssertionConfig `yaml:"assertion"`
	// InsecureHTTP sends the credentials without TLS to other machines. Anyone on the path can
	// then use them.
	InsecureHTTP bool `yaml:"insecure_http"`
}

// BasicConfig is a user with a password.
type BasicConfig struct {
	// User is the name.
	User string `yaml:"user"`
	// Caller sends each caller's name as the user, without its source, such as alice, for servers that take
	// people's names from Basic. A colon, "%" and controls in it are percent-encoded. All callers whose
	// names a server gets so must be of one source. Default: false.
	Caller bool `yaml:"caller"`
	// Password is the password.
	Password setting.Secret `yaml:"password"`
}

// HeaderConfig is a header field with a secret value.
type HeaderConfig struct {
	// Name is the name of the field.
	Name string `yaml:"name"`
	// Value is its value.
	Value setting.Secret `yaml:"value"`
}

// authorization is the field of most credentials.
const authorization = "authorization"

// kinds returns the kinds that the section has.
func (c *CredentialsConfig) kinds() (kinds []string) {
	for _, k := range []struct {
		name  string
		given bool
	}{
		{"bearer", !c.Bearer.IsZero()},
		{"basic", c.Basic != nil},
		{"header", c.Header != nil},
		{"oauth2", c.OAuth2 != nil},
		{"assertion", c.Assertion != nil},
	} {
		if k.given {
			kinds = append(kinds, k.name)
		}
	}
	return kinds
}

// Kind returns the kind of the credentials; "" if there are none.
func (c *CredentialsConfig) Kind() string {
	if kinds := c.kinds(); len(kinds) > 0 {
		return kinds[0]
	}
	return ""
}

// Field returns the lower-case name of the field that carries the credentials; "" if there are none.
func (c *CredentialsConfig) Field() string {
	switch c.Kind() {
	case "":
		return ""
	case "header":
		return strings.ToLower(c.Header.Name)
	case "assertion":
		return c.Assertion.Field()
	}
	return authorization
}

// check records the faults of the section. all are the endpoints.
func (c *CredentialsConfig) check(path string, all []setting.URL, f *setting.Faults) {
	kinds := c.kinds()
	switch {
	case len(kinds) == 0 && c.InsecureHTTP:
		f.Add(setting.Join(path, "insecure_http"), "true", "there are no credentials", "remove the line")
	case len(kinds) > 1:
		f.Add(path, "", strings.Join(kinds, " and ")+" exclude each other", "keep one of them")
	}
	if b := c.Basic; b != nil {
		switch {
		case b.Caller && b.User != "":
			f.Add(setting.Join(path, "basic.caller"), "true", "the user is written beside it", "remove user, or caller")
		case b.Caller && b.Password.IsZero():
			f.Add(setting.Join(path, "basic.password"), "", "a user without a password", "write password: {file: ...}, with one that the server expects from the gateway for everybody")
		case b.Caller:
		case b.User == "":
			f.Add(setting.Join(path, "basic.user"), "", "missing", "write the user, or caller: true, which sends each caller's name")
		case strings.Contains(b.User, ":") || !message.ValidValue(b.User):
			f.Add(setting.Join(path, "basic.user"), b.User, "not a user name", "write one without a colon")
		case b.Password.IsZero():
			f.Add(setting.Join(path, "basic.password"), "", "a user without a password", "write password: {file: ...}")
		}
	}
	if h := c.Header; h != nil {
		switch problem := badCredentialField(h.Name); {
		case problem != "":
			f.Add(setting.Join(path, "header.name"), h.Name, problem, "write one such as X-Api-Key")
		case h.Value.IsZero():
			f.Add(setting.Join(path, "header.value"), "", "a field without a value", "write value: {file: ...}")
		}
	}
	if c.OAuth2 != nil {
		c.OAuth2.check(setting.Join(path, "oauth2"), f)
	}
	if c.Assertion != nil {
		c.Assertion.check(setting.Join(path, "assertion"), f)
	}
	if len(kinds) == 0 {
		return
	}
	u, exposed := firstInTheClear(all)
	if exposed && !c.InsecureHTTP {
		f.Add(path, u.String(), "the credentials would go to another machine without TLS", "write https:// or h2:// for the endpoint; insecure_http: true sends them all the same")
	}
	if c.InsecureHTTP && !exposed {
		f.Add(setting.Join(path, "insecure_http"), "true", "no endpoint is another machine without TLS", "remove the line")
	}
}

// InTheClear returns an endpoint to which requests leave this machine without TLS, if there is one.
func (c *Config) InTheClear() (u setting.URL, found bool) {
	return firstInTheClear(slices.Concat(c.Rest, c.GRPC))
}

func firstInTheClear(all []setting.URL) (u setting.URL, found bool) {
	i := slices.IndexFunc(all, func(u setting.URL) bool { return u.URL != nil && inTheClear(u) })
	if i < 0 {
		return u, false
	}
	return all[i], true
}

// inTheClear reports whether requests to an endpoint leave this machine without TLS.
func inTheClear(u setting.URL) bool {
	if u.Scheme == "unix" || overTLS(u.Scheme) {
		return false
	}
	if a, err := netip.ParseAddr(u.Hostname()); err == nil {
		return !a.Unmap().IsLoopback()
	}
	return !ofThisMachine(u.Hostname())
}

// badCredentialField says why a field cannot carry credentials; "" if it can.
func badCredentialField(name string) string {
	folded := message.Fold(name)
	switch {
	case !message.ValidName(name):
		return "not a field name"
	case strings.HasPrefix(folded, "x-sallyport-"):
		return "is the gateway's own, by which upstreams learn who calls"
	case message.OfConnection(folded), folded == "cookie", folded == "forwarded", strings.HasPrefix(folded, "content-"), strings.HasPrefix(folded, "sec-"),
		strings.HasPrefix(folded, "x-forwarded-"), strings.HasPrefix(folded, "signature"), strings.HasPrefix(folded, "accept"):
		return "has a meaning of its own in HTTP"
	}
	return ""
}

// CheckFiles records why the secrets cannot be used.
func (c *CredentialsConfig) CheckFiles(path string, f *setting.Faults) {
	if _, err := c.Value(); err != nil {
		f.Add(setting.Join(path, c.Kind()), "", err.Error(), setting.CureUnreadable(err, ""))
	}
	if c.OAuth2 != nil {
		if _, err := c.OAuth2.ClientSecret.Read(); err != nil {
			f.Add(setting.Join(path, "oauth2.client_secret"), "", err.Error(), setting.CureUnreadable(err, ""))
		}
	}
}

// OfCaller reports whether the user is each request's caller.
func (c *CredentialsConfig) OfCaller() bool { return c.Basic != nil && c.Basic.Caller }

// Value returns the value of the field for credentials that stand in files; the password alone if the user is
// the caller. It is "" for other kinds. Errors never contain a secret.
func (c *CredentialsConfig) Value() (string, error) {
	switch c.Kind() {
	case "bearer":
		token, err := readCredential(c.Bearer)
		if err == nil && !message.ValidToken(token) {
			err = fmt.Errorf("%s holds no bearer token", c.Bearer.Where())
		}
		return "Bearer " + token, err
	case "basic":
		password, err := c.Basic.Password.Read()
		if c.Basic.Caller {
			return string(password), err
		}
		return "Basic " + base64.StdEncoding.EncodeToString([]byte(c.Basic.User+":"+string(password))), err
	case "header":
		return readCredential(c.Header.Value)
	}
	return "", nil
}

func readCredential(s setting.Secret) (string, error) {
	text, err := s.Read()
	if err != nil {
		return "", err
	}
	value := strings.TrimSpace(string(text))
	switch {
	case value == "" || !message.ValidValue(value):
		return "", fmt.Errorf("%s holds no value of a header field", s.Where())
	case len(value) > maxCredential:
		return "", fmt.Errorf("%s holds more than %d bytes, which servers do not take in a field", s.Where(), maxCredential)
	}
	return value, nil
}

// maxCredential is the maximum length of a credential in bytes.
const maxCredential = 16 << 10

// Validity returns when a bearer token from a file begins and ends, if it is a JWT that says so. It
// does not verify the token, which is for the servers.
func (c *CredentialsConfig) Validity() (notBefore, notAfter time.Time, ok bool) {
	if c.Kind() != "bearer" {
		return time.Time{}, time.Time{}, false
	}
	token, err := readCredential(c.Bearer)
	parts := strings.Split(token, ".")
	if err != nil || len(parts) != 3 {
		return time.Time{}, time.Time{}, false
	}
	text, err := base64.RawURLEncoding.DecodeString(parts[1])
	if err != nil {
		return time.Time{}, time.Time{}, false
	}
	var claims struct {
		Issued  float64 `json:"iat"`
		Expires float64 `json:"exp"`
	}
	if json.Unmarshal(text, &claims) != nil || claims.Expires <= 0 || claims.Expires > 1<<40 {
		return time.Time{}, time.Time{}, false
	}
	if claims.Issued > 0 && claims.Issued < claims.Expires {
		notBefore = time.Unix(int64(claims.Issued), 0)
	}
	return notBefore, time.Unix(int64(claims.Expires), 0), true
}
