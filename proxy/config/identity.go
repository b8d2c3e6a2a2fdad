package config

import (
	"strings"

	"sallyport/proxy/message"
	"sallyport/proxy/route"
	"sallyport/proxy/setting"
)

// identityFields are the folded names of the identity fields of all routes.
func (c *Config) identityFields() map[string]bool {
	all := map[string]bool{}
	for i := range c.Routes {
		names := c.Routes[i].Identity.Names()
		for _, name := range names.All() {
			all[message.Fold(name)] = true
		}
	}
	return all
}

// checkIdentity records fields under identity that could name the wrong caller: a name without its
// source, an address and groups mean something only among the callers of one source.
func (c *Config) checkIdentity(r *route.Config, at string, f *setting.Faults) {
	names := r.Identity.Names()
	first, other := c.sourcesOf(r)
	tenants := len(c.Issuers[strings.TrimPrefix(first, "issuer/")].Tenants)
	for _, n := range [...]struct{ field, name string }{{"name", names.Name}, {"email", names.Email}, {"groups", names.Groups}} {
		switch path := at + ".identity." + n.field; {
		case n.name == "":
		case first == route.Anonymous:
			f.Add(path, n.name, "anonymous callers have none", "remove the line")
		case n.field == "email" && !strings.HasPrefix(first, "issuer/"):
			f.Add(path, n.name, "only tokens and sessions of an issuer have an address, and callers begin with "+first, "remove the line")
		case n.field != "name" && tenants > 1:
			f.Add(path, n.name, "the tenants of "+first+" choose these as they like, and the server could not tell them apart", "remove the line, or write an issuer and a route for each tenant")
		case other != "":
			f.Add(path, n.name, "callers of "+first+" and of "+other+" may have the same, and the server could not tell them apart", "write a route for each, or let the server read principal")
		}
	}
}

// sourcesOf returns the sources of the principals that a route admits: the first, and another one if
// there are several. Where all of several proofs are required, only the first kind names the caller.
func (c *Config) sourcesOf(r *route.Config) (first, other string) {
	names := r.Callers.Names()
	for _, caller := range names {
		if len(r.Callers.All) > 0 && kindOfCaller(caller) != kindOfCaller(names[0]) {
			continue
		}
		source := c.sourceOf(caller)
		switch {
		case first == "":
			first = source
		case source != first:
			return first, source
		}
	}
	return first, ""
}

// sourceOf returns the source of the principals of a listed caller. Sessions and tokens of an issuer
// prove the same principals, and so do all certificates, all signing keys and all API keys.
func (c *Config) sourceOf(caller string) string {
	kind, name, _ := strings.Cut(caller, "/")
	switch kind {
	case "login":
		return "issuer/" + c.Logins[name].Issuer
	case "issuer", "basic":
		return caller
	}
	return kind
}
