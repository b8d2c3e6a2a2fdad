package config

import (
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"

	"sallyport/proxy/message"
	"sallyport/proxy/route"
	"sallyport/proxy/setting"
)

// checkRoutes records the faults of the routes, of each and between them.
func (c *Config) checkRoutes(f *setting.Faults) {
	if len(c.Routes) == 0 {
		f.Add("routes", "", "there is no route, so every request would be refused", "list at least one")
	}
	names := c.defaultNames()
	identity := c.identityFields()
	paths := newPaths()
	for i := range c.Routes {
		r, at := &c.Routes[i], setting.Index("routes", i)
		if r.Name != "" {
			c.checkRouteName(i, names, f)
		}
		r.Check(at, identity, f)
		c.checkUpstream(r, at, f)
		c.checkCredential(r, at, identity, f)
		c.checkCallersName(r, at, f)
		c.checkPassed(r, at, f)
		r.Audit.Durable.Check(at+".audit.durable", c.Audit.OnStdout(), f)
		c.checkTunnels(r, at, f)
		c.checkTokenCallers(r, at, f)
		c.checkLoginPaths(r, at, f)
		c.checkCookieDomains(i, f)
		c.checkStepUp(r, at, f)
		c.checkCallers(r, at, f)
		c.checkIdentity(r, at, f)
		c.checkRouteIntegrity(r, at, f)
		c.checkRouteRules(r, at, f)
		c.checkRelease(r, at, identity, f)
		paths.add(c, i, f)
		c.checkSiblings(i, f)
	}
}

// checkSiblings records what route i keeps in paths that is another's on the same host.
func (c *Config) checkSiblings(i int, f *setting.Faults) {
	r := &c.Routes[i]
	if r.Paths == (route.PathsConfig{}) {
		return
	}
	for j := range c.Routes {
		other := &c.Routes[j]
		if j != i && shareHost(r, other) {
			r.CheckSibling(setting.Index("routes", i), other, c.where(j), f)
		}
	}
}

// sameHost reports whether two hosts of routes are one.
func sameHost(a, b string) bool {
	return strings.EqualFold(strings.TrimSuffix(a, "."), strings.TrimSuffix(b, "."))
}

// defaultNames are the routes without a name by what they are called, which no other may
// be called: records, metrics and counts go by it.
func (c *Config) defaultNames() map[string]int {
	all := map[string]int{}
	for i := range c.Routes {
		if r := &c.Routes[i]; r.Name == "" {
			if name := defaultName(r); name != "" {
				all[name] = i
			}
		}
	}
	return all
}

func (c *Config) checkRouteName(i int, names map[string]int, f *setting.Faults) {
	r, at := &c.Routes[i], setting.Index("routes", i)+".name"
	if len(r.Name) > 128 || !message.ValidValue(r.Name) {
		f.Add(at, r.Name, "not a name for records", "write up to 128 printable characters")
	}
	if first, taken := names[r.Name]; taken {
		f.Add(at, r.Name, "is the name of another route, on "+c.where(first), "give one of the two another name")
		return
	}
	names[r.Name] = i
}

// where names the place of a route for another's fault.
func (c *Config) where(i int) string {
	o := c.source.routes[i]
	return fmt.Sprintf("line %d of %s", o.doc.Line(o.path), o.doc.File)
}

// checkTunnels records that a route for WebSocket has an upstream that cannot.
func (c *Config) checkTunnels(r *route.Config, at string, f *setting.Faults) {
	_, u, err := c.UpstreamOf(r)
	if r.Websocket && err == nil && !u.Upgrades() {
		f.Add(at+".websocket", "true", "the upstream serves HTTP/2, over which no WebSocket is opened to it", "write http:// or https:// for all of its rest endpoints")
	}
}

// IssuersOf returns the URLs of the issuers whose tokens a route takes in Authorization.
func (c *Config) IssuersOf(r *route.Config) (urls []string) {
	for _, name := range r.Callers.Names() {
		if issuer, ok := strings.CutPrefix(name, "issuer/"); ok && c.Issuers[issuer].TokenFrom == nil {
			urls = append(urls, c.Issuers[issuer].URL)
		}
	}
	return urls
}

// checkTokenCallers records that a route for tokens in subprotocols takes neither tokens nor API keys
// where Authorization has them.
func (c *Config) checkTokenCallers(r *route.Config, at string, f *setting.Faults) {
	if len(r.WebsocketToken) == 0 || r.Callers.TakesAPIKeys() || len(c.IssuersOf(r)) > 0 {
		return
	}
	f.Add(at+".websocket_token", "", "the callers of the route have no token or API key for Authorization", "list issuer/NAME or apikey under callers, or remove the line")
}

func (c *Config) checkUpstream(r *route.Config, at string, f *setting.Faults) {
	if r.Upstream == "" && r.Respond != nil {
		return
	}
	if r.Upstream == "" {
		f.Add(at+".upstream", "", "a route without an upstream", "write a name under upstreams, or a URL such as http://host:8000")
		return
	}
	name, u, err := c.UpstreamOf(r)
	if strings.Contains(r.Upstream, "://") {
		if err != nil {
			problem, cure, _ := strings.Cut(err.Error(), "; ")
			f.Add(at+".upstream", r.Upstream, problem, cure)
			return
		}
		var found setting.Faults
		u.Check("", &found)
		for _, fault := range found {
			f.Add(at+".upstream", fault.Value, fault.Problem, fault.Cure)
		}
		checkDialect(at, &u, f)
		return
	}
	if r.Serves != "" {
		f.Add(at+".serves", r.Serves, "belongs to a URL in upstream", "write it under upstreams, at "+strconv.Quote(name))
	}
	if _, known := c.Upstreams[name]; !known {
		cure := cureName("upstreams", name, slices.Sorted(maps.Keys(c.Upstreams)))
		if strings.ContainsAny(name, ":.") {
			cure = "write http:// before it, if a server is meant"
		} else if setting.Nearest(name, slices.Collect(maps.Keys(c.Upstreams))) == "" {
			cure += "; for a machine of that name write http://" + name + ":PORT"
		}
		f.Add(at+".upstream", name, "there is no such upstream", cure)
	}
}

func (c *Config) checkCallers(r *route.Config, at string, f *setting.Faults) {
	names, list := r.Callers.Names(), at+".callers"
	if len(names) == 0 {
		f.Add(list, "", "a route without callers", "write issuer/NAME, login/NAME, key/NAME, apikey/NAME or cert/NAME, or anonymous for a route that is open to all")
		return
	}
	all := len(r.Callers.All) > 0
	if all {
		list += ".all"
	}
	var audiences []string
	for i, caller := range names {
		if problem, cure := c.badCaller(caller, names[:i], len(names)); problem != "" {
			f.Add(setting.Index(list, i), caller, problem, cure)
			continue
		}
		c.checkCertificateHosts(r, setting.Index(list, i), caller, f)
		if issuer, isIssuer := strings.CutPrefix(caller, "issuer/"); isIssuer {
			audiences = append(audiences, c.Issuers[issuer].Audience...)
			if other := c.samePrefix(issuer, names[:i]); other != "" {
				f.Add(setting.Index(list, i), caller, "its introspection has the same prefix as that of "+other+", so that nobody knows which of the two to ask about a token", "write introspection.prefix at issuers."+issuer+", with which its tokens begin")
			}
		}
	}
	if all && len(callersByKind(names)) < 2 {
		f.Add(list, strings.Join(names, ", "), "all of one kind of proof, of which a request has one", "list two kinds, such as an issuer and a key, or write callers as a list")
	}
	if all && len(r.Callers.Logins()) > 0 {
		for i, caller := range names {
			if kind := kindOfCaller(caller); kind != "login" && kind != "cert" {
				f.Add(setting.Index(list, i), caller, "a browser sends no such credential with the page that it opens", "replace it by a certificate, or write callers as a list, of which one is enough")
			}
		}
	}
	if both := c.inAuthorization(names); all && len(both) > 1 {
		f.Add(list, strings.Join(both, ", "), "all of these come in Authorization, of which a request has one", "replace the password by a key or a certificate, or write callers as a list, of which one is enough")
	}
	for i, a := range r.Audience {
		at := setting.Index(at+".audience", i)
		switch {
		case names[0] == route.Anonymous:
			f.Add(at, a, "an anonymous route sees no token", "remove the line")
		case len(audiences) > 0 && !slices.Contains(audiences, a):
			f.Add(at, a, "none of the route's issuers has this audience, so no token could have it", "choose from: "+strings.Join(audiences, ", "))
		}
	}
}

// inAuthorization returns the first caller of each kind whose credential can be nowhere but in the field
// Authorization: tokens without token_from, and passwords. API keys have fields of their own.
func (c *Config) inAuthorization(names []string) []string {
	var all, kinds []string
	for _, caller := range names {
		kind, name, _ := strings.Cut(caller, "/")
		if slices.Contains(kinds, kind) || kind != "basic" && (kind != "issuer" || c.Issuers[name].TokenFrom != nil) {
			continue
		}
		kinds, all = append(kinds, kind), append(all, caller)
	}
	return all
}

// samePrefix returns which of the callers before is an issuer that is asked about the same
// opaque tokens as this one; "" for none.
func (c *Config) samePrefix(issuer string, before []string) string {
	mine := c.Issuers[issuer].Introspection
	for _, caller := range before {
		name, isIssuer := strings.CutPrefix(caller, "issuer/")
		if other := c.Issuers[name].Introspection; isIssuer && mine != nil && other != nil && mine.Prefix == other.Prefix {
			return caller
		}
	}
	return ""
}

// kindOfCaller returns the kind of proof of a listed caller, such as "issuer".
func kindOfCaller(caller string) string {
	kind, _, _ := strings.Cut(caller, "/")
	return kind
}

// callersByKind groups listed callers by their kind of proof; anonymous is none.
func callersByKind(names []string) map[string][]string {
	kinds := map[string][]string{}
	for _, name := range names {
		if kind := kindOfCaller(name); kind != route.Anonymous {
			kinds[kind] = append(kinds[kind], name)
		}
	}
	return kinds
}

// badCaller says what is wrong with one of count callers, of which some come before.
func (c *Config) badCaller(caller string, before []string, count int) (problem, cure string) {
	issuer, isIssuer := strings.CutPrefix(caller, "issuer/")
	principal, isKey := strings.CutPrefix(caller, "key/")
	apiPrincipal, isAPIKey := strings.CutPrefix(caller, "apikey/")
	certName, isCert := strings.CutPrefix(caller, "cert/")
	basic, isBasic := strings.CutPrefix(caller, "basic/")
	login, isLogin := strings.CutPrefix(caller, "login/")
	_, known := c.Issuers[issuer]
	_, knownLogin := c.Logins[login]
	_, knownBasic := c.Basic[basic]
	switch {
	case slices.Contains(before, caller):
		return "is listed twice", "remove one of the two"
	case caller == route.Anonymous && count > 1:
		return "stands beside others, which would then prove nothing", "remove it, or make a route of its own for what is open to all"
	case caller == route.Anonymous, isIssuer && known:
		return "", ""
	case isIssuer:
		return "there is no such issuer", c.cureIssuer(issuer)
	case isKey && !slices.Contains(c.keyPrincipals(), principal):
		return "no signing key has this principal", cureName("signing_keys", principal, c.keyPrincipals())
	case caller == "key" && len(c.keyPrincipals()) == 0:
		return "there is no signing key", "add one under signing_keys; sallyport keygen makes one"
	case isAPIKey && !c.mayHaveAPIKey(apiPrincipal):
		return "no API key has this principal", cureName("api_keys", apiPrincipal, c.apiKeyPrincipals())
	case caller == "apikey" && len(c.APIKeys) == 0 && c.APIKeyFile == "":
		return "there is no API key", "run sallyport keygen --api-key NAME"
	case isCert:
		return c.badCertificateName(certName)
	case caller == "cert" && len(c.ClientCertificates) == 0:
		return noCertificates()
	case isBasic && !knownBasic:
		return "there is no such entry", cureName("basic", basic, slices.Sorted(maps.Keys(c.Basic)))
	case isBasic && slices.ContainsFunc(before, func(other string) bool { return kindOfCaller(other) == "basic" }):
		return "stands beside another entry of basic, and a password is checked against one", "remove one of the two"
	case isLogin && !knownLogin:
		return "there is no such login", cureName("logins", login, slices.Sorted(maps.Keys(c.Logins)))
	case isKey, caller == "key", isAPIKey, caller == "apikey", isBasic, isLogin, caller == "cert":
		return "", ""
	case known:
		return "not a kind of proof", "did you mean issuer/" + caller + "?"
	case slices.Contains(c.keyPrincipals(), caller):
		return "not a kind of proof", "did you mean key/" + caller + "?"
	case slices.Contains(c.apiKeyPrincipals(), caller):
		return "not a kind of proof", "did you mean apikey/" + caller + "?"
	case strings.HasPrefix(caller, "api_key") || strings.HasPrefix(caller, "api-key"):
		return "not a kind of proof", "write apikey/NAME, or apikey for all API keys"
	case caller == "*":
		return "not a kind of proof", "list the proofs, or write anonymous for a route that is open to all"
	case strings.HasPrefix(caller, "basic"):
		return "not a kind of proof", "write basic/NAME, with a name under basic"
	case strings.HasPrefix(caller, "login"):
		return "not a kind of proof", "write login/NAME, with a name under logins"
	}
	return "not a kind of proof", "write issuer/NAME, login/NAME, key/NAME, apikey/NAME, cert/NAME or anonymous"
}

// paths finds routes between which nothing decides.
type paths struct {
	byPath   map[string][]int  // host and path to routes
	byFolded map[string]string // the same in lower case to the path first seen
}

func newPaths() *paths {
	return &paths{byPath: map[string][]int{}, byFolded: map[string]string{}}
}

// add enters route i under each of its hosts.
func (p *paths) add(c *Config, i int, f *setting.Faults) {
	r, at := &c.Routes[i], setting.Index("routes", i)
	path := r.Path
	if path == "" {
		path = "/"
	}
	for _, h := range r.Host {
		host := strings.ToLower(strings.TrimSuffix(h, "."))
		key := host + " " + path
		for _, j := range p.byPath[key] {
			if j != i && methodsOverlap(r.Methods, c.Routes[j].Methods) {
				f.Add(at, host+path, "the same host, path and methods as the route on "+c.where(j), "change one of the three, or remove one of the routes")
				return
			}
		}
		p.byPath[key] = append(p.byPath[key], i)
		folded := strings.ToLower(key)
		if first, seen := p.byFolded[folded]; seen && first != path {
			f.Add(at+".path", path, "differs from "+first+" of another route in the case of letters alone, and some servers take both for one", "choose one of the two")
			return
		}
		p.byFolded[folded] = path
	}
}

func methodsOverlap(a, b []string) bool {
	return len(a) == 0 || len(b) == 0 || slices.ContainsFunc(a, func(m string) bool { return slices.Contains(b, m) })
}
