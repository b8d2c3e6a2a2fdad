package route

import (
	"maps"
	"slices"
	"strings"

	"sallyport/proxy/message"
	"sallyport/proxy/seal"
	"sallyport/proxy/setting"
)

// IdentityConfig names the fields with the caller's identity for the upstream; off leaves one out.
// A client that sends such a field is refused.
type IdentityConfig struct {
	// Principal is the caller's qualified name, such as issuer/corp:alice.
	// Default: X-Sallyport-Principal.
	Principal string `yaml:"principal"`
	// Scopes are the caller's scopes, separated by spaces. Default: X-Sallyport-Scopes.
	Scopes string `yaml:"scopes"`
	// RequestID is the id of the audit record. Default: X-Sallyport-Request-Id.
	RequestID string `yaml:"request_id"`
	// Name is the caller's name without its source, such as alice, for servers that take users from
	// another proxy. The callers of the route must be of one source. Default: off.
	Name string `yaml:"name"`
	// Email is the claim email of the caller's token or session. It is empty if there is none, or if
	// email_verified is there and not true. The callers must be of one issuer. Default: off.
	Email string `yaml:"email"`
	// Groups are the caller's groups, separated by commas. In a group all but letters, digits and
	// -._~/:@+= is percent-encoded. It is empty if there are none, or if the token leaves them out. Many
	// servers refuse heads of more than 8 KiB, so the issuer should send few. The callers of the route
	// must be of one source. Default: off.
	Groups string `yaml:"groups"`
	// Claims are other claims of the caller's token or session: the path of each, and the name of its field,
	// such as preferred_username: X-Forwarded-Preferred-Username. A text, number or boolean is written as
	// it is, but bytes other than printable ASCII and "%" are percent-encoded; a list is written as groups are. The
	// field is empty if there is no such claim, or if it is an object. The callers must be of one issuer.
	// Default: none.
	Claims map[string]string `yaml:"claims"`
	// AccessToken names the field with the access token that the issuer of a login gave the gateway for the
	// person who signed in, or with the caller's own bearer token. The server can act as the caller wherever
	// that token counts. In Authorization it stands behind Bearer. It is not sent once it has ended by the
	// issuer's expires_in: if the issuer does not refresh it, people get 503, and without a refresh token
	// they sign in anew. For other callers the server gets no such field. Sessions grow by the token.
	// Default: off.
	AccessToken string `yaml:"access_token"`
	// IDToken is the same for the ID token of the person, for servers that verify who calls. A caller's own
	// bearer token stands in this field too. Default: off.
	IDToken string `yaml:"id_token"`
	// InsecureHTTP sends the tokens without TLS to other machines: to servers, and to proxies that ask
	// (listen.forward_auth). Anyone on the path can then use them. Default: false.
	InsecureHTTP bool `yaml:"insecure_http"`
}

// Names returns the names of the fields.
func (c *IdentityConfig) Names() IdentityNames {
	name := func(set, def string) string {
		switch set {
		case "":
			return def
		case off:
			return ""
		}
		return strings.ToLower(set)
	}
	n := IdentityNames{
		Principal: name(c.Principal, "x-sallyport-principal"), Scopes: name(c.Scopes, "x-sallyport-scopes"),
		RequestID: name(c.RequestID, "x-sallyport-request-id"),
		Name:      name(c.Name, ""), Email: name(c.Email, ""), Groups: name(c.Groups, ""),
		AccessToken: name(c.AccessToken, ""), IDToken: name(c.IDToken, ""),
	}
	for _, path := range slices.Sorted(maps.Keys(c.Claims)) {
		n.Claims = append(n.Claims, ClaimField{path, strings.ToLower(c.Claims[path])})
	}
	return n
}

// IdentityNames are the lower-case names of the identity fields; "" leaves one out.
type IdentityNames struct {
	Principal, Scopes, RequestID, Name, Email, Groups string
	Claims                                            []ClaimField
	AccessToken, IDToken                              string // which requests of some callers do not have
}

// ClaimField is a field with a claim of the caller.
type ClaimField struct{ Path, Name string }

// Fields returns the names that are not left out.
func (n *IdentityNames) Fields() seal.Identity {
	f := seal.Identity{Always: []string{n.Principal, n.Scopes, n.RequestID, n.Name, n.Email, n.Groups}, IfPresent: []string{n.AccessToken, n.IDToken}}
	for _, c := range n.Claims {
		f.Always = append(f.Always, c.Name)
	}
	none := func(s string) bool { return s == "" }
	f.Always, f.IfPresent = slices.DeleteFunc(f.Always, none), slices.DeleteFunc(f.IfPresent, none)
	return f
}

// Own returns the names of the fields that no client may send on any route: all but Authorization, in which
// clients prove who they are. No route passes on what they send there to the same servers, see [OwnedFields].
func (n *IdentityNames) Own() []string {
	f := n.Fields()
	return slices.DeleteFunc(append(f.Always, f.IfPresent...), func(s string) bool { return s == authorization })
}

// InAuthorization returns which token the server gets in Authorization, as it stands in the configuration; ""
// for none.
func (n *IdentityNames) InAuthorization() string {
	switch authorization {
	case n.AccessToken:
		return "access_token"
	case n.IDToken:
		return "id_token"
	}
	return ""
}

const authorization = "authorization"

// check records the faults that are visible within the section.
func (c *IdentityConfig) check(at string, f *setting.Faults) {
	type named struct{ field, name, def string }
	all := []named{
		{"principal", c.Principal, "X-Sallyport-Principal"},
		{"scopes", c.Scopes, "X-Sallyport-Scopes"},
		{"request_id", c.RequestID, "X-Sallyport-Request-Id"},
		{"name", c.Name, off},
		{"email", c.Email, off},
		{"groups", c.Groups, off},
		{"access_token", c.AccessToken, off},
		{"id_token", c.IDToken, off},
	}
	for _, path := range slices.Sorted(maps.Keys(c.Claims)) {
		field := setting.Join("claims", path)
		all = append(all, named{field, c.Claims[path], ""})
		switch {
		case path == "":
			f.Add(setting.Join(at, field), "", "a claim without a name", "write one such as preferred_username: X-Forwarded-Preferred-Username")
		case path == "email":
			f.Add(setting.Join(at, field), c.Claims[path], "people may have written an address themselves", "write email: "+c.Claims[path]+" under identity, which leaves out those that nobody verified")
		}
	}
	seen := map[string]string{}
	for _, n := range all {
		path, name := setting.Join(at, n.field), n.name
		claim := strings.HasPrefix(n.field, "claims.")
		if name == "" && !claim {
			name = n.def
		}
		if name == off && !claim {
			continue
		}
		folded := message.Fold(name)
		switch other, taken := seen[folded]; {
		case claim && (name == off || !message.ValidName(name)):
			f.Add(path, name, "not a field name", "write one such as X-Forwarded-Preferred-Username")
		case !message.ValidName(name):
			f.Add(path, name, "not a field name", "write one such as X-Remote-User, or off")
		case reservedField(folded) && !(strings.EqualFold(name, authorization) && strings.HasSuffix(n.field, "_token")):
			f.Add(path, name, "has a meaning of its own in HTTP", "choose another name, such as X-Remote-User")
		case sentByClients(folded):
			f.Add(path, name, "clients send it by themselves, and would be refused", "choose another name, such as X-Remote-User")
		case taken:
			f.Add(path, name, "is the name of "+other+" too", "give one of them another name")
		default:
			seen[folded] = n.field
		}
	}
}

// reservedField reports whether a field, by its folded name, already has a meaning for servers or
// proxies. An identity in such a field would break the message or grant unintended trust.
func reservedField(folded string) bool {
	switch folded {
	case authorization, "cookie", "set-cookie", "www-authenticate", "date", "range", "via", "accept-encoding",
		"signature", "signature-input", "dpop", "x-api-key", "api-key", "script-name", "proxy", "x-real-ip", "forwarded",
		"x-forwarded-for", "x-forwarded-proto", "x-forwarded-host", "x-forwarded-port", "x-forwarded-server",
		"x-forwarded-prefix", "x-forwarded-uri", "x-forwarded-method", "x-forwarded-by", "x-forwarded-scheme", "x-forwarded-ssl":
		return true
	}
	return message.OfConnection(folded) || strings.HasPrefix(folded, "content-") || strings.HasPrefix(folded, "sec-") ||
		strings.HasPrefix(folded, "x-original-") || overridesMethod(folded)
}

// sentByClients reports whether browsers or programs send a field, by its folded name, with requests in which nobody
// asked for it. A request that has an identity field is refused.
func sentByClients(folded string) bool {
	switch folded {
	case "accept", "accept-charset", "accept-language", "user-agent", "origin", "referer", "access-control-request-headers",
		"access-control-request-method", "cache-control", "pragma", "priority", "upgrade-insecure-requests", "dnt", "last-event-id",
		"if-match", "if-none-match", "if-modified-since", "if-unmodified-since", "if-range", "traceparent", "tracestate":
		return true
	}
	return strings.HasPrefix(folded, "grpc-")
}
