package config

import (
	"slices"
	"strings"

	"sallyport/auth/login"
	"sallyport/proxy/message"
	"sallyport/proxy/route"
	"sallyport/proxy/setting"
)

// identityFields are the folded names of the identity fields of all routes.
func (c *Config) identityFields() map[string]bool {
	all := map[string]bool{}
	for i := range c.Routes {
		names := c.Routes[i].Identity.Names()
		for _, name := range names.Own() {
			all[message.Fold(name)] = true
		}
	}
	return all
}

// checkIdentity records fields under identity that could name the wrong caller: a name without its
// source, an address, groups and other claims mean something only among the callers of one source.
func (c *Config) checkIdentity(r *route.Config, at string, f *setting.Faults) {
	names := r.Identity.Names()
	type named struct{ field, name string }
	all := []named{{"name", names.Name}, {"email", names.Email}, {"groups", names.Groups}}
	for _, claim := range names.Claims {
		all = append(all, named{setting.Join("claims", claim.Path), claim.Name})
	}
	first, other := c.sourcesOf(r)
	tenants := len(c.Issuers[strings.TrimPrefix(first, "issuer/")].Tenants)
	for _, n := range all {
		switch path := at + ".identity." + n.field; {
		case n.name == "":
		case first == route.Anonymous:
			f.Add(path, n.name, "anonymous callers have none", "remove the line")
		case n.field == "email" && !strings.HasPrefix(first, "issuer/"):
			f.Add(path, n.name, "only tokens and sessions of an issuer have an address, and callers begin with "+first, "remove the line")
		case strings.HasPrefix(n.field, "claims.") && !strings.HasPrefix(first, "issuer/"):
			f.Add(path, n.name, "only tokens and sessions of an issuer have claims, and callers begin with "+first, "remove the line")
		case n.field != "name" && tenants > 1:
			f.Add(path, n.name, "the tenants of "+first+" choose these as they like, and the server could not tell them apart", "remove the line, or write an issuer and a route for each tenant")
		case other != "":
			f.Add(path, n.name, "callers of "+first+" and of "+other+" may have the same, and the server could not tell them apart", "write a route for each, or let the server read principal")
		}
	}
	c.checkTokens(r, at+".identity", f)
}

// passedBy returns the tokens of the caller that the server of a route gets.
func passedBy(r *route.Config) login.Passed {
	names := r.Identity.Names()
	return login.Passed{Access: names.AccessToken != "", ID: names.IDToken != ""}
}

// checkTokens records tokens of callers that no caller of the route has, that the server could not tell from what
// clients send, or that anyone on the path could read.
func (c *Config) checkTokens(r *route.Config, at string, f *setting.Faults) {
	names := r.Identity.Names()
	if passedBy(r) == (login.Passed{}) {
		if r.Identity.InsecureHTTP {
			f.Add(at+".insecure_http", "true", "the server gets no token", "remove the line")
		}
		return
	}
	if !c.haveTokens(r) {
		for _, n := range [...]struct{ field, name string }{{"access_token", names.AccessToken}, {"id_token", names.IDToken}} {
			if n.name != "" {
				f.Add(at+"."+n.field, n.name, "the callers of the route have no token of an issuer", "list login/NAME or issuer/NAME under callers (as the first, where all are required), or remove the line")
			}
		}
	}
	if field := names.InAuthorization(); field != "" {
		for i := range c.Routes {
			other := &c.Routes[i]
			if other.ForwardAuthorization && c.shareServers(r, other) {
				f.Add(at+"."+field, "Authorization", "the route on "+c.where(i)+" forwards the Authorization of clients to the same servers (insecure_forward_authorization)", "name another field, or remove insecure_forward_authorization there")
			}
		}
	}
	endpoint, proxy := c.exposedTo(r)
	switch clear := endpoint != "" || proxy != ""; {
	case clear && r.Identity.InsecureHTTP:
	case endpoint != "":
		f.Add(at, endpoint, "the callers' tokens would go to another machine without TLS", "write https:// or h2:// for the endpoint; insecure_http: true under identity sends them all the same")
	case proxy != "":
		f.Add(at, proxy, "listen.forward_auth would send the callers' tokens without TLS to a proxy on another machine", "let a proxy on this machine ask; insecure_http: true under identity sends them all the same")
	case r.Identity.InsecureHTTP:
		f.Add(at+".insecure_http", "true", "the tokens go to no other machine without TLS", "remove the line")
	}
}

// exposedTo returns an endpoint of a route that gets what is forwarded without TLS on another machine, and the addresses of
// such a proxy that asks; "" for none.
func (c *Config) exposedTo(r *route.Config) (endpoint, proxy string) {
	for of := range c.EachUpstream(r) {
		_, u, _ := c.UpstreamOf(of) // one that cannot be read is another fault
		if clear, found := u.InTheClear(); found {
			endpoint = clear.String()
		}
	}
	if p := c.Listen.ForwardAuth; p != nil {
		for _, from := range p.From {
			if from.IsValid() && !from.Addr().IsLoopback() {
				proxy = from.String()
			}
		}
	}
	return endpoint, proxy
}

// haveTokens reports whether some callers of a route have a token of an issuer.
func (c *Config) haveTokens(r *route.Config) bool {
	names := r.Callers.Names()
	if len(r.Callers.All) > 0 {
		names = names[:1] // which names the caller
	}
	return slices.ContainsFunc(names, func(caller string) bool { return strings.HasPrefix(c.sourceOf(caller), "issuer/") })
}

// shareServers reports whether requests of two routes may come to the same server.
func (c *Config) shareServers(a, b *route.Config) bool {
	servers := func(r *route.Config) (all []string) {
		for of := range c.EachUpstream(r) {
			_, u, _ := c.UpstreamOf(of)
			all = append(all, u.Servers()...)
		}
		return all
	}
	of := servers(a)
	return slices.ContainsFunc(servers(b), func(s string) bool { return slices.Contains(of, s) })
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
