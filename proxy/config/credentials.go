package config

import (
	"maps"
	"slices"
	"strings"

	"sallyport/proxy/message"
	"sallyport/proxy/route"
	"sallyport/proxy/setting"
)

// CredentialField returns the lower-case name of the field that carries the gateway's own credential
// to the upstream of a route; "" if there is none.
func (c *Config) CredentialField(r *route.Config) string {
	_, u, _ := c.UpstreamOf(r)
	return u.Credentials.Field()
}

// checkPassed records fields under pass_identity_fields that no upstream gets all the same.
func (c *Config) checkPassed(r *route.Config, at string, f *setting.Faults) {
	tokens := c.TokenFields()
	for i, name := range r.PassIdentityFields {
		if slices.Contains(tokens, strings.ToLower(name)) {
			f.Add(setting.Index(at+".pass_identity_fields", i), name, "has tokens for the gateway (token_from of an issuer), which no upstream gets", "remove it; an assertion under credentials tells the upstream who calls")
		}
	}
}

// checkCallersName records callers of a route who have no name, or not one of their own, for an upstream that gets
// each caller's name in its credentials.
func (c *Config) checkCallersName(r *route.Config, at string, f *setting.Faults) {
	first, others := c.sourcesOf(r)
	for of := range c.EachUpstream(r) {
		name, u, _ := c.UpstreamOf(of)
		if !u.Credentials.OfCaller() {
			continue
		}
		other := others
		for i := range c.Routes {
			if another := &c.Routes[i]; other == "" && c.namesCallersTo(another, u.Servers()) {
				if one, _ := c.sourcesOf(another); one != first {
					other = one
				}
			}
		}
		problem := "the credentials of " + name + " name the caller (basic.caller), and "
		switch {
		case first == route.Anonymous:
			f.Add(at+".callers", first, problem+"anonymous callers have none", "let anonymous callers use an upstream of their own, without basic.caller")
		case other != "":
			f.Add(at+".callers", first, problem+"callers of "+first+" and of "+other+" may have the same name", "let only callers of one source come to each such server")
		}
	}
}

// namesCallersTo reports whether one of some servers gets the names of a route's callers in credentials: by any of
// the route's upstreams, since a split has several, and two upstreams may be one server.
func (c *Config) namesCallersTo(r *route.Config, servers []string) bool {
	for of := range c.EachUpstream(r) {
		_, u, _ := c.UpstreamOf(of)
		if u.Credentials.OfCaller() && slices.ContainsFunc(u.Servers(), func(s string) bool { return slices.Contains(servers, s) }) {
			return true
		}
	}
	return false
}

// checkCredential records what a route writes into the field of the gateway's own credential.
// identity holds the folded names of the identity fields of all routes.
func (c *Config) checkCredential(r *route.Config, at string, identity map[string]bool, f *setting.Faults) {
	field := c.CredentialField(r)
	if field == "" {
		return
	}
	folded := message.Fold(field)
	const problem = "is the field of the upstream's credentials, which the gateway alone writes"
	if r.ForwardAuthorization && folded == "authorization" {
		f.Add(at+".insecure_forward_authorization", "true", "the upstream gets the gateway's own credentials in this field", "remove the line, or credentials of the upstream")
	}
	request := &r.Headers.Request
	for _, names := range []struct {
		section string
		names   []string
	}{
		{"set", slices.Sorted(maps.Keys(request.Set))},
		{"add", slices.Sorted(maps.Keys(request.Add))},
	} {
		for _, name := range names.names {
			if message.Fold(name) == folded {
				f.Add(at+".headers.request."+names.section+"."+name, name, problem, "remove it")
			}
		}
	}
	names := r.Identity.Names()
	if identity[folded] || folded == "authorization" && names.InAuthorization() != "" {
		f.Add(at+".upstream", r.Upstream, "its credentials go in "+field+", which a route has for the caller's identity", "rename the one or the other")
	}
	if slices.ContainsFunc(r.PassIdentityFields, func(name string) bool { return message.Fold(name) == folded }) {
		f.Add(at+".pass_identity_fields", field, problem, "remove it")
	}
}
