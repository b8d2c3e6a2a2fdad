package proxy

import (
	"cmp"
	"fmt"
	"net/netip"
	"slices"
	"strconv"
	"strings"

	"sallyport/policy"
	"sallyport/proxy/message"
	"sallyport/proxy/setting"
)

// anonymousCaller is what routes without authentication list.
const anonymousCaller = "anonymous"

// checkRoutes records the faults of the routes, of each and between them.
func (c *Config) checkRoutes(f *setting.Faults) {
	if len(c.Routes) == 0 {
		f.Add("routes", "", "there is no route, so every request would be refused", "list at least one")
	}
	names := map[string]int{}
	paths := newConfigPaths()
	for i := range c.Routes {
		r, at := &c.Routes[i], setting.Index("routes", i)
		if r.Name != "" {
			c.checkRouteName(i, names, f)
		}
		r.checkHosts(at, f)
		c.checkHandling(r, at, f)
		r.checkPath(at, f)
		r.checkMethods(at, f)
		c.checkUpstream(r, at, f)
		c.checkTunnels(r, at, f)
		c.checkCallers(r, at, f)
		c.checkRouteIntegrity(r, at, f)
		c.checkRouteRules(r, at, f)
		r.checkLimits(at, f)
		r.Identity.check(at+".identity", f)
		r.checkSecurityHeaders(at+".security_headers", f)
		paths.add(c, i, f)
	}
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

func (r *RouteConfig) checkHosts(at string, f *setting.Faults) {
	if len(r.Host) == 0 {
		f.Add(at+".host", "", "a route without a host", "write the name that clients call, such as models.example.com")
	}
	seen := map[string]bool{}
	for i, h := range r.Host {
		at := setting.Index(at+".host", i)
		if problem, cure := badRouteHost(h); problem != "" {
			f.Add(at, cmp.Or(h, `""`), problem, cure)
			continue
		}
		key, err := message.CanonicalHost(strings.TrimPrefix(h, "*."))
		if strings.HasPrefix(h, "*.") {
			key = "*." + key
		}
		if err == nil && seen[key] {
			f.Add(at, h, "is listed twice", "remove one of the two")
		}
		seen[key] = true
	}
}

func badRouteHost(h string) (problem, cure string) {
	rest := strings.TrimPrefix(h, "*.")
	canonical, err := message.CanonicalHost(rest)
	address, _ := netip.ParseAddr(strings.TrimSuffix(strings.TrimPrefix(rest, "["), "]"))
	switch {
	case h == "" || h == "*" || h == "*.":
		return "not a host name", `write the name that clients call, or "*.example.com" for any one label`
	case strings.Contains(h, "://"):
		return "a URL where a host is meant", "write the name alone"
	case strings.Contains(h, "/"):
		return "a host with a path", "write the path in the field path"
	case strings.Contains(rest, "*"):
		return "a star that is not the whole first label", `write "*.example.com", or list the names`
	case address.IsValid():
		return badAddressHost(h, address)
	case strings.Contains(h, ":"):
		return "a host with a port", "write the name alone; ports are those of listen.https"
	case err != nil && !ascii(h):
		return "a host name that is not ASCII", "write it as xn--, as DNS does"
	case err != nil:
		return "not a host name", "write one such as models.example.com"
	}
	if last := canonical[strings.LastIndexByte(canonical, '.')+1:]; strings.Trim(last, "0123456789") == "" {
		// Some clients read 127.1, and a star would stand for part of an address.
		return "neither a name nor an address", "write an address in full, such as 127.0.0.1"
	}
	return "", ""
}

// badAddressHost says what is wrong with an address as host. It must be the one
// that clients dial: they send no name then, and mean the address that they reach.
func badAddressHost(h string, a netip.Addr) (problem, cure string) {
	bracketed := strings.HasPrefix(h, "[") && strings.HasSuffix(h, "]")
	switch {
	case strings.HasPrefix(h, "*."):
		return "a star before an address", "write the address alone"
	case a.Zone() != "":
		return "an address with a zone, which means something on this machine only", "write the address that clients dial"
	case a.IsUnspecified():
		return "stands for every address, and no client dials it", "list the addresses that clients dial, such as 127.0.0.1"
	case a.Is4In6():
		return "an IPv4 address written as IPv6", "write " + a.Unmap().String()
	case a.Is6() && !bracketed:
		return "an IPv6 address without brackets", fmt.Sprintf(`write "[%s]"`, a)
	case a.Is4() && strings.ContainsAny(h, "[]"):
		return "brackets are for IPv6", "write " + a.String()
	}
	return "", ""
}

func ascii(s string) bool {
	return !strings.ContainsFunc(s, func(r rune) bool { return r > '~' })
}

func (r *RouteConfig) checkPath(at string, f *setting.Faults) {
	at += ".path"
	path := strings.TrimPrefix(r.Path, "=")
	canonical, err := message.CanonicalPath(path)
	switch {
	case r.Path == "":
	case strings.HasPrefix(r.Path, "~") || strings.HasPrefix(r.Path, "^"):
		f.Add(at, r.Path, "regular expressions are not read", "write the path that all have in common, or several routes")
	case path == "" || path[0] != '/':
		f.Add(at, r.Path, "not a path", "write one that begins with a slash, such as /v1; =/v1 for that path alone")
	case strings.Contains(path, "*"):
		f.Add(at, r.Path, "a path with a star", "write the path before it: /v1 holds all of /v1/...")
	case err != nil:
		f.Add(at, r.Path, "a path that no request can have: it would be refused as ambiguous", "write one without //, dots alone, escapes, ; ? or #")
	case canonical != path:
		f.Add(at, r.Path, "not in its canonical form, in which paths are compared", "write "+canonical)
	}
}

func (r *RouteConfig) checkMethods(at string, f *setting.Faults) {
	for i, m := range r.Methods {
		at := setting.Index(at+".methods", i)
		switch {
		case m == "*":
			f.Add(at, m, "stands for all methods", "remove the line")
		case m != strings.ToUpper(m) && message.ServedMethod(strings.ToUpper(m)):
			f.Add(at, m, "methods are compared letter by letter", "write "+strings.ToUpper(m))
		case !message.ServedMethod(m):
			f.Add(at, m, "not a method that can be forwarded", "write some such as [GET, POST]")
		case slices.Index(r.Methods, m) < i:
			f.Add(at, m, "is listed twice", "remove one of the two")
		}
	}
	if r.Websocket && len(r.Methods) > 0 && !slices.Contains(r.Methods, "GET") {
		f.Add(at+".websocket", "true", "the route does not take GET, by which WebSocket begins", "add GET to methods, or remove the line")
	}
}

// checkTunnels records that a route for WebSocket has an upstream that cannot.
func (c *Config) checkTunnels(r *RouteConfig, at string, f *setting.Faults) {
	_, u, err := c.UpstreamOf(r)
	if r.Websocket && err == nil && !u.Upgrades() {
		f.Add(at+".websocket", "true", "the upstream serves HTTP/2, over which no WebSocket is opened to it", "write http:// or https:// for all of its rest endpoints")
	}
}

func (c *Config) checkUpstream(r *RouteConfig, at string, f *setting.Faults) {
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
		checkServes(at+".serves", r.Serves, f)
		return
	}
	if r.Serves != "" {
		f.Add(at+".serves", r.Serves, "belongs to a URL in upstream", "write it under upstreams, at "+strconv.Quote(name))
	}
	if _, known := c.Upstreams[name]; !known {
		cure := cureName("upstreams", name, sortedKeys(c.Upstreams))
		if strings.ContainsAny(name, ":.") {
			cure = "write http:// before it, if a server is meant"
		}
		f.Add(at+".upstream", name, "there is no such upstream", cure)
	}
}

func (c *Config) checkCallers(r *RouteConfig, at string, f *setting.Faults) {
	names, list := r.Callers.Names(), at+".callers"
	if len(names) == 0 {
		f.Add(list, "", "a route without callers", "write issuer/NAME or key/NAME, or anonymous for a route that is open to all")
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
		if issuer, isIssuer := strings.CutPrefix(caller, "issuer/"); isIssuer {
			audiences = append(audiences, c.Issuers[issuer].Audience...)
		}
	}
	if all && (!r.Callers.takesKeys() || !slices.ContainsFunc(names, func(n string) bool { return strings.HasPrefix(n, "issuer/") })) {
		f.Add(list, strings.Join(names, ", "), "all of one kind of proof, of which a request has one", "list an issuer and a key, or write callers as a list")
	}
	for i, a := range r.Audience {
		at := setting.Index(at+".audience", i)
		switch {
		case names[0] == anonymousCaller:
			f.Add(at, a, "an anonymous route sees no token", "remove the line")
		case len(audiences) > 0 && !slices.Contains(audiences, a):
			f.Add(at, a, "none of the route's issuers has this audience, so no token could have it", "choose from: "+strings.Join(audiences, ", "))
		}
	}
}

// badCaller says what is wrong with one of count callers, of which some come before.
func (c *Config) badCaller(caller string, before []string, count int) (problem, cure string) {
	issuer, isIssuer := strings.CutPrefix(caller, "issuer/")
	principal, isKey := strings.CutPrefix(caller, "key/")
	_, known := c.Issuers[issuer]
	switch {
	case slices.Contains(before, caller):
		return "is listed twice", "remove one of the two"
	case caller == anonymousCaller && count > 1:
		return "stands beside others, which would then prove nothing", "remove it, or make a route of its own for what is open to all"
	case caller == anonymousCaller, isIssuer && known:
		return "", ""
	case isIssuer:
		return "there is no such issuer", c.cureIssuer(issuer)
	case isKey && !slices.Contains(c.keyPrincipals(), principal):
		return "no signing key has this principal", cureName("signing_keys", principal, c.keyPrincipals())
	case caller == "key" && len(c.keyPrincipals()) == 0:
		return "there is no signing key", "add one under signing_keys; sallyport keygen makes one"
	case isKey, caller == "key":
		return "", ""
	case known:
		return "not a kind of proof", "did you mean issuer/" + caller + "?"
	case slices.Contains(c.keyPrincipals(), caller):
		return "not a kind of proof", "did you mean key/" + caller + "?"
	case caller == "*":
		return "not a kind of proof", "list the proofs, or write anonymous for a route that is open to all"
	case caller == "cert" || strings.HasPrefix(caller, "api_key") || strings.HasPrefix(caller, "basic"):
		return "this kind of proof is not in this version", "use issuer/NAME, for bearer tokens, or key/NAME, for signatures"
	}
	return "not a kind of proof", "write issuer/NAME, key/NAME or anonymous"
}

func (c *Config) checkRouteRules(r *RouteConfig, at string, f *setting.Faults) {
	at += ".rules"
	if name := r.Rules.Policy; name != "" {
		if _, known := c.Policies[name]; !known {
			f.Add(at, name, "there is no such policy", cureName("policies", name, sortedKeys(c.Policies)))
		}
	} else {
		checkRules(at, c.dialectOf(r), r.Rules.Rules, f)
		c.checkWho(at, r.Rules.Rules, f)
	}
	rules := c.RulesOf(r)
	if r.Rules.Policy == "" && len(rules) == 0 && r.Respond == nil {
		f.Add(at, "", "a route without rules", `write who may do what, such as [{allow: "*", who: {scope: models.predict}}]`)
	}
	if r.Rules.Policy != "" {
		return // other routes may be meant by what cannot hold here
	}
	for i := range rules {
		checkRuleOnRoute(r, setting.Index(at, i), &rules[i], f)
	}
}

// checkRuleOnRoute records why a rule can never speak on its route.
func checkRuleOnRoute(r *RouteConfig, at string, rule *policy.Rule, f *setting.Faults) {
	w := &rule.Who
	if slices.Contains(r.Callers.Names(), anonymousCaller) && len(w.Scope)+len(w.Group)+len(w.Claim) > 0 {
		f.Add(at+".who", "", "anonymous callers have no scopes, groups or claims", "remove it, or name an issuer in callers")
	}
	if len(r.Methods) == 0 {
		return
	}
	verbs := slices.Concat(rule.Allow, rule.Deny)
	reached := slices.ContainsFunc(verbs, func(v string) bool { return v == "*" || slices.Contains(r.Methods, strings.ToUpper(v)) })
	if len(verbs) > 0 && !reached {
		f.Add(at, strings.Join(verbs, ", "), "the route takes none of these methods", "add them to methods, or remove the rule")
	}
}

func (r *RouteConfig) checkLimits(at string, f *setting.Faults) {
	at += ".limits"
	for i := range r.Limits.Rate {
		rate := &r.Limits.Rate[i]
		path := setting.Index(at+".rate", i)
		rate.Check(path, f)
		if rate.Per == "principal" && slices.Contains(r.Callers.Names(), anonymousCaller) {
			f.Add(path+".per", rate.Per, "anonymous callers are all one principal", "write address, or route")
		}
	}
	if r.Limits.InFlight < 0 {
		f.Add(at+".in_flight", strconv.Itoa(r.Limits.InFlight), "a negative number", "write one above zero, or remove the line for no bound")
	}
}

func (c *IdentityConfig) check(at string, f *setting.Faults) {
	seen := map[string]string{}
	for _, n := range []struct{ field, name, def string }{
		{"principal", c.Principal, "X-Sallyport-Principal"},
		{"scopes", c.Scopes, "X-Sallyport-Scopes"},
		{"request_id", c.RequestID, "X-Sallyport-Request-Id"},
	} {
		path, name := at+"."+n.field, n.name
		if name == configOff {
			continue
		}
		if name == "" {
			name = n.def
		}
		folded := message.Fold(name)
		switch other, taken := seen[folded]; {
		case !message.ValidName(name):
			f.Add(path, name, "not a field name", "write one such as X-Remote-User, or off")
		case reservedField(folded):
			f.Add(path, name, "has a meaning of its own in HTTP", "choose another name, such as X-Remote-User")
		case taken:
			f.Add(path, name, "is the name of "+other+" too", "give one of them another name")
		default:
			seen[folded] = n.field
		}
	}
}

// reservedField says whether a field, by its folded name, says something else
// than who calls to servers or proxies, so that writing an identity into it would
// break the message or be believed for more than it is.
func reservedField(folded string) bool {
	switch folded {
	case "authorization", "cookie", "set-cookie", "www-authenticate", "date", "range", "via", "accept-encoding",
		"signature", "signature-input", "dpop", "x-api-key", "script-name", "proxy", "x-real-ip", "forwarded",
		"x-forwarded-for", "x-forwarded-proto", "x-forwarded-host", "x-forwarded-port", "x-forwarded-server",
		"x-forwarded-prefix", "x-forwarded-uri", "x-forwarded-method", "x-forwarded-by", "x-forwarded-scheme", "x-forwarded-ssl":
		return true
	}
	return message.OfConnection(folded) || strings.HasPrefix(folded, "content-") || strings.HasPrefix(folded, "sec-") ||
		strings.HasPrefix(folded, "x-original-") || overridesMethod(folded)
}

func (r *RouteConfig) checkSecurityHeaders(at string, f *setting.Faults) {
	seen := map[string]bool{}
	for _, name := range sortedKeys(r.SecurityHeaders) {
		value, folded := r.SecurityHeaders[name], message.Fold(name)
		path := at + "." + name
		switch {
		case !message.ValidName(name):
			f.Add(path, "", "not a field name", "write one such as Content-Security-Policy")
		case seen[folded]:
			f.Add(path, "", "is written twice, in different letters", "keep one of the two")
		case reservedField(folded) && folded != "content-security-policy" && folded != "content-security-policy-report-only":
			f.Add(path, "", "is not a security header", "let the upstream set it")
		case value == "":
			f.Add(path, "", "no value", "write the value, or off")
		case !message.ValidValue(value):
			f.Add(path, value, "not a field value", "write printable characters in one line")
		}
		seen[folded] = true
	}
}

// configPaths finds routes between which nothing decides.
type configPaths struct {
	byPath   map[string][]int  // host and path to routes
	byFolded map[string]string // the same in lower case to the path first seen
}

func newConfigPaths() *configPaths {
	return &configPaths{byPath: map[string][]int{}, byFolded: map[string]string{}}
}

// add enters route i under each of its hosts.
func (p *configPaths) add(c *Config, i int, f *setting.Faults) {
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
