package auth

import (
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strings"

	"sallyport/auth/apikey"
	"sallyport/proxy/message"
	"sallyport/proxy/setting"
)

// TokenFromConfig is `token_from` of an issuer, for tokens that a proxy in front of the
// gateway adds to requests.
type TokenFromConfig struct {
	// Header is the field with the token, such as Cf-Access-Jwt-Assertion.
	Header string `yaml:"header"`
	// From are the addresses of the proxies that add it. From anybody else the field does
	// not count. No upstream gets it.
	From setting.List[setting.CIDR] `yaml:"from"`
}

// Field is the lower-case name of the field; "" without one.
func (c *TokenFromConfig) Field() string {
	if c == nil {
		return ""
	}
	return strings.ToLower(c.Header)
}

// prefixes returns the addresses of the proxies.
func (c *TokenFromConfig) prefixes() []netip.Prefix {
	var all []netip.Prefix
	if c != nil {
		for _, p := range c.From {
			all = append(all, p.Prefix)
		}
	}
	return all
}

// Same reports whether two issuers take their tokens from the same proxies.
func (c *TokenFromConfig) Same(o *TokenFromConfig) bool {
	return slices.Equal(c.prefixes(), o.prefixes())
}

func (c *TokenFromConfig) check(path string, f *setting.Faults) {
	name, at := c.Field(), setting.Join(path, "header")
	switch {
	case name == "":
		f.Add(at, "", "which field has the token is not said", "write a name such as Cf-Access-Jwt-Assertion")
	case name == "authorization":
		f.Add(at, c.Header, "is where tokens are without token_from", "remove token_from")
	case !message.ValidName(name):
		f.Add(at, c.Header, "not the name of a field", "write one such as Cf-Access-Jwt-Assertion")
	case message.OfConnection(name), IsAPIKeyField(name), strings.HasPrefix(name, "content-"), strings.HasPrefix(name, "sec-"), strings.HasPrefix(name, "x-sallyport-"),
		slices.Contains([]string{"host", "cookie", "proxy-authorization", "dpop", "signature", "signature-input", "origin"}, name):
		f.Add(at, c.Header, "has another meaning", "name the field that the proxy adds for the token alone")
	}
	if len(c.From) == 0 {
		f.Add(setting.Join(path, "from"), "", "which proxies add the field is not said", "list their addresses")
	}
	for i, p := range c.From {
		if p.IsValid() && p.Bits() == 0 {
			f.Add(setting.Index(setting.Join(path, "from"), i), p.String(), "is everybody, and not a proxy that adds the field", "list the addresses of the proxies")
		}
	}
}

// byField groups issuers by the field with their tokens, in their order. Each group is a kind of
// credential: a request may have a token in Authorization and another that a proxy has added.
func (a *Auth) byField(callers []string) [][]string {
	var fields []string
	groups := map[string][]string{}
	for _, caller := range callers {
		field := ""
		if iss := a.issuer(caller); iss != nil {
			field = iss.field
		}
		if groups[field] == nil {
			fields = append(fields, field)
		}
		groups[field] = append(groups[field], caller)
	}
	var all [][]string
	for _, field := range fields {
		all = append(all, groups[field])
	}
	return all
}

// places returns callers for causes: those whose tokens stand in a field of their own with that field.
func (a *Auth) places(callers []string) []string {
	all := slices.Clone(callers)
	for i, caller := range callers {
		if iss := a.issuer(caller); iss != nil && iss.field != "" {
			all[i] += " in " + iss.field
		}
	}
	return all
}

// fields lists the fields in which credentials of these callers stand, for causes. Signatures and
// certificates have causes of their own.
func (a *Auth) fields(callers []string) string {
	var all []string
	add := func(names ...string) {
		for _, name := range names {
			if !slices.Contains(all, name) {
				all = append(all, name)
			}
		}
	}
	for _, caller := range callers {
		kind, _, _ := strings.Cut(caller, "/")
		iss := a.issuer(caller)
		switch {
		case iss != nil && iss.field != "":
			add(iss.field)
		case kind == "apikey":
			add("Authorization", "X-Api-Key", "Api-Key")
		case kind == "login":
			add("Cookie")
		case kind == "issuer" || kind == "basic":
			add("Authorization")
		}
	}
	if len(all) < 2 {
		return strings.Join(all, "")
	}
	last := len(all) - 1
	return strings.Join(all[:last], ", ") + " or " + all[last]
}

// token returns the token of a request.
func (b *bearer) token(r *Request) (string, error) {
	if b.field == "" {
		return bearerToken(r)
	}
	value, lines := "", 0
	for i := range r.Head.Fields {
		if r.Head.Fields[i].Name == b.field {
			value = r.Head.Fields[i].Value
			lines++
		}
	}
	if lines == 0 {
		return "", ErrNoCredential
	}
	if !slices.ContainsFunc(b.from, func(p netip.Prefix) bool { return p.Contains(r.Via) }) {
		return "", &strayToken{b.field, r.Via}
	}
	if lines > 1 {
		return "", bad(fmt.Errorf("more than one field %s", b.field))
	}
	if scheme, raw, ok := strings.Cut(value, " "); ok && strings.EqualFold(scheme, "Bearer") {
		value = raw
	}
	switch {
	case value == "":
		return "", bad(fmt.Errorf("no token in %s", b.field))
	case strings.HasPrefix(value, apikey.Prefix): // must reach neither parser nor issuer
		return "", bad(fmt.Errorf("an API key in %s", b.field))
	case len(value) > maxToken:
		return "", bad(errors.New("token is too long"))
	case tokenInQuery(r.Head.Query):
		return "", bad(errors.New("a second token in the query"))
	}
	return value, nil
}

// strayToken is the [ErrNoCredential] for a token in a field that only proxies may add.
type strayToken struct {
	field string
	via   netip.Addr
}

func (e *strayToken) Error() string {
	return e.field + " came from " + e.via.String() + ", which token_from does not list"
}

// Is reports whether target is [ErrNoCredential].
func (e *strayToken) Is(target error) bool { return target == ErrNoCredential }
