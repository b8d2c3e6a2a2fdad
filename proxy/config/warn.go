package config

import (
	"cmp"
	"log/slog"
	"maps"
	"slices"
	"strings"

	"sallyport/auth/clientcert"
	"sallyport/policy"
	"sallyport/proxy/route"
	"sallyport/proxy/setting"
)

// Warnings returns what is no fault but probably a mistake: sections that no route uses, callers
// whom no rule can allow, ranges of allow_from that include a balancer, pages that may not do what cors seems to let
// them, and files of secrets that every user can read.
func (c *Config) Warnings() Faults {
	var f setting.Faults
	c.warnUnused(&f)
	c.warnAPIKeys(&f)
	c.warnClientCertificates(&f)
	c.warnVersions(&f)
	c.warnLogins(&f)
	c.warnSecrets(&f)
	for _, name := range slices.Sorted(maps.Keys(c.Issuers)) {
		iss := c.Issuers[name]
		iss.Warn("issuers."+name, &f)
	}
	for i := range c.Routes {
		r, at := &c.Routes[i], setting.Index("routes", i)
		c.warnCallers(r, at, &f)
		c.warnAllowFrom(r, at, &f)
		warnCORS(r, at, &f)
	}
	f = c.Place(f)
	f.Sort()
	return f
}

// maxLoggedWarnings limits how many warnings are logged at once.
const maxLoggedWarnings = 10

// LogWarnings logs the warnings of the configuration and of its file of revocations, as check prints
// them.
func (c *Config) LogWarnings(log *slog.Logger) {
	for i, f := range append(c.Warnings(), c.RevokedWarnings()...) {
		if i == maxLoggedWarnings {
			log.Warn("there are more warnings about the configuration", "cure", "sallyport check shows all")
			return
		}
		log.Warn("configuration warning", "warning", f.Error())
	}
}

// warnUnused records upstreams, policies and issuers that no route names.
func (c *Config) warnUnused(f *setting.Faults) {
	used := map[string]bool{}
	for i := range c.Routes {
		r := &c.Routes[i]
		used["upstreams."+r.Upstream] = true
		for _, name := range r.Rewrite.Upstreams() {
			used["upstreams."+name] = true
		}
		used["policies."+r.Rules.Policy], used["policies."+r.CandidateRules.Policy] = true, true
		for _, caller := range r.Callers.Names() {
			if issuer, ok := strings.CutPrefix(caller, "issuer/"); ok {
				used["issuers."+issuer] = true
			}
			if basic, ok := strings.CutPrefix(caller, "basic/"); ok {
				used["basic."+basic] = true
			}
			if login, ok := strings.CutPrefix(caller, "login/"); ok {
				used["logins."+login], used["issuers."+c.Logins[login].Issuer] = true, true
			}
		}
	}
	for _, section := range []struct {
		name  string
		names []string
		cure  string
	}{
		{"issuers", slices.Sorted(maps.Keys(c.Issuers)), "list it under callers of a route as issuer/NAME, or remove it"},
		{"basic", slices.Sorted(maps.Keys(c.Basic)), "list it under callers of a route as basic/NAME, or remove it"},
		{"logins", slices.Sorted(maps.Keys(c.Logins)), "list it under callers of a route as login/NAME, or remove it"},
		{"upstreams", slices.Sorted(maps.Keys(c.Upstreams)), "name it under upstream of a route, or in a split, or remove it"},
		{"policies", slices.Sorted(maps.Keys(c.Policies)), "name it under rules of a route, or remove it"},
	} {
		for _, name := range section.names {
			if at := section.name + "." + name; !used[at] {
				f.Add(at, "", "no route uses it", strings.Replace(section.cure, "NAME", name, 1))
			}
		}
	}
}

// warnAPIKeys records API keys that no route lists.
func (c *Config) warnAPIKeys(f *setting.Faults) {
	listed := map[string]bool{}
	for i := range c.Routes {
		for _, caller := range c.Routes[i].Callers.Names() {
			listed[caller] = true
		}
	}
	for _, name := range slices.Sorted(maps.Keys(c.APIKeys)) {
		k, at := c.APIKeys[name], "api_keys."+name
		if caller := "apikey/" + k.PrincipalOr(name); !listed["apikey"] && !listed[caller] {
			f.Add(at, "", "no route uses it", "list it under callers of a route as "+caller+", or remove it")
		}
	}
	if c.APIKeyFile != "" && !slices.ContainsFunc(slices.Collect(maps.Keys(listed)), func(caller string) bool { return kindOfCaller(caller) == "apikey" }) {
		f.Add("api_key_file", "", "no route uses its keys", "list apikey, or apikey/NAME, under callers of a route, or remove it")
	}
}

// warnCallers records callers of a route whom none of its rules can allow.
func (c *Config) warnCallers(r *route.Config, at string, f *setting.Faults) {
	rules := c.RulesOf(r)
	if len(rules) == 0 {
		return // a fixed answer, for everyone
	}
	names, list := r.Callers.Names(), at+".callers"
	if len(r.Callers.All) > 0 {
		names, list = names[:1], list+".all" // the first is the caller
	}
	for i, caller := range names {
		if c.mayBeAllowed(r, caller, rules) {
			continue
		}
		problem, who := "no rule can ever allow this caller", "principal: ["+caller+":SUBJECT]"
		if kindOfCaller(caller) == "login" {
			who = "principal: [issuer/" + c.issuerOf(caller) + ":SUBJECT]"
		}
		cure := ""
		if issuer := c.issuerOf(caller); issuer != "" && c.Issuers[issuer].Groups == "" && slices.ContainsFunc(rules, func(rule policy.Rule) bool { return len(rule.Allow) > 0 && len(rule.Who.Group) > 0 }) {
			problem += ": issuers." + issuer + " has no groups, so its callers are in none"
			cure = "write groups: and the claim that lists them under issuers." + issuer + ", or "
		}
		if caller == "key" || strings.HasPrefix(caller, "key/") {
			problem += ": signatures bring no scopes, groups or claims"
			_, principal, _ := strings.Cut(caller, "/")
			if principal == "" {
				principal = "NAME"
			}
			who = `principal: "key:` + principal + `"`
		}
		if kindOfCaller(caller) == "cert" {
			problem += ": certificates bring groups where groups says so, and no scopes or claims"
			_, principal, _ := strings.Cut(caller, "/")
			who = `principal: "cert:` + cmp.Or(principal, "NAME") + `"`
		}
		if kindOfCaller(caller) == "apikey" {
			problem += ": " + c.keysBring(caller)
			_, principal, _ := strings.Cut(caller, "/")
			who = `principal: "apikey:` + cmp.Or(principal, "NAME") + `"`
		}
		if kindOfCaller(caller) == "basic" {
			problem += ": passwords bring no scopes, groups or claims"
			who = `principal: "` + caller + `:USER"`
		}
		if caller == route.Anonymous {
			who = "principal: anonymous"
		}
		f.Add(setting.Index(list, i), caller, problem, cure+`add a rule for it, such as {allow: "*", who: {`+who+`}}, or remove it`)
	}
}

// mayBeAllowed reports whether a rule could allow something to a caller.
func (c *Config) mayBeAllowed(r *route.Config, caller string, rules []policy.Rule) bool {
	var denied []string // model patterns that are denied to everyone whom the caller stands for
	for i := range rules {
		rule := &rules[i]
		if slices.Contains(rule.Deny, "*") && len(rule.Versions) == 0 && rule.When == "" && c.mayBe(caller, &rule.Who, true) {
			if rule.AllModels() {
				return false
			}
			denied = append(denied, rule.Models...)
		}
	}
	return slices.ContainsFunc(rules, func(rule policy.Rule) bool {
		return len(rule.Allow) > 0 && c.reaches(r, rule.Allow) && c.mayBe(caller, &rule.Who, false) && leaves(denied, rule.Models)
	})
}

// leaves reports whether a rule that allows these models still allows some if those in denied are
// denied. It compares patterns as text, so it does not see that one pattern contains another.
func leaves(denied, models []string) bool {
	if slices.Contains(denied, "**") {
		return false
	}
	return len(models) == 0 || slices.Contains(models, "*") || slices.ContainsFunc(models, func(m string) bool { return !slices.Contains(denied, m) })
}

// mayBe reports whether who could match somebody whom a caller of the route stands for. If all is
// set, it reports whether who matches everybody whom the caller stands for.
func (c *Config) mayBe(caller string, who *policy.Who, all bool) bool {
	narrow := len(who.Scope)+len(who.Group)+len(who.Claim) > 0
	if all {
		return !narrow && len(who.Principal) == 0
	}
	switch kind, issuer := kindOfCaller(caller), c.issuerOf(caller); {
	case !narrow:
	case issuer != "" && len(who.Group) > 0 && c.Issuers[issuer].Groups == "":
		return false
	case issuer != "":
	case len(who.Scope)+len(who.Claim) > 0,
		kind != "cert" && (kind != "apikey" || !c.hasGroup(caller, who.Group)),
		kind == "cert" && !slices.ContainsFunc(c.ClientCertificates, func(e clientcert.Config) bool { return e.TakesGroups() }):
		return false
	}
	return len(who.Principal) == 0 || slices.ContainsFunc(who.Principal, func(p string) bool {
		return c.provenBy(caller, p) || slices.ContainsFunc(c.Principals[p], func(p string) bool { return c.provenBy(caller, p) })
	})
}

// keysBring says what rules can see of the API keys of a caller.
func (c *Config) keysBring(caller string) string {
	var groups []string
	for name, k := range c.APIKeys {
		if c.provenBy(caller, "apikey:"+k.PrincipalOr(name)) {
			groups = append(groups, k.Groups...)
		}
	}
	slices.Sort(groups)
	switch {
	case c.APIKeyFile != "":
		return "API keys bring groups, and no scopes or claims"
	case len(groups) == 0:
		return "API keys bring no scopes or claims, and those of this caller have no groups"
	}
	return `API keys bring no scopes or claims, and those of this caller have only the groups "` + strings.Join(slices.Compact(groups), `", "`) + `"`
}

// hasGroup reports whether an API key of a caller could have one of the groups.
func (c *Config) hasGroup(caller string, groups []string) bool {
	for name, k := range c.APIKeys {
		if c.provenBy(caller, "apikey:"+k.PrincipalOr(name)) && slices.ContainsFunc(k.Groups, func(g string) bool { return slices.Contains(groups, g) }) {
			return true
		}
	}
	return c.APIKeyFile != ""
}

// provenBy reports whether a credential that the caller of a route stands for can prove a
// qualified name such as key:acme.
func (c *Config) provenBy(caller, qualified string) bool {
	source, name, _ := strings.Cut(qualified, ":")
	if issuer := c.issuerOf(caller); issuer != "" {
		return source == "issuer/"+issuer
	}
	if kind, principal, ok := strings.Cut(caller, "/"); ok && kind != "basic" {
		return source == kind && name == principal
	}
	return source == caller
}

// warnAllowFrom records ranges of allow_from that include a balancer. Every request through the
// balancer that does not say its client's address is then allowed.
func (c *Config) warnAllowFrom(r *route.Config, at string, f *setting.Faults) {
	for i, allowed := range r.AllowFrom {
		for _, proxy := range c.TrustedProxies {
			if proxy.Overlaps(allowed.Prefix) && !coveredBy(proxy.Prefix, r.DenyFrom) {
				f.Add(setting.Index(at+".allow_from", i), allowed.String(), "overlaps with "+proxy.String()+" of trusted_proxies: what comes through it without X-Forwarded-For counts as allowed",
					"list the clients alone, or add the balancer to deny_from")
				break
			}
		}
		p := c.Listen.ProxyProtocol
		if p == nil || !p.Optional {
			continue
		}
		for _, proxy := range p.From {
			if proxy.Overlaps(allowed.Prefix) && !coveredBy(proxy.Prefix, r.DenyFrom) {
				f.Add(setting.Index(at+".allow_from", i), allowed.String(), "overlaps with "+proxy.String()+" of listen.proxy_protocol.from, for which the header is optional: what comes without it counts as allowed",
					"list the clients alone, or remove optional")
				break
			}
		}
	}
}

// warnCORS records that pages of other origins only read by a person's session. The preflight, which has no cookie,
// permits the other methods, as it must for tokens; and then the request is refused.
func warnCORS(r *route.Config, at string, f *setting.Faults) {
	if r.CORS == nil || !r.CORS.Credentials {
		return
	}
	is := func(kinds ...string) bool {
		return slices.ContainsFunc(r.Callers.Names(), func(caller string) bool { return slices.Contains(kinds, kindOfCaller(caller)) })
	}
	if is("login") && !is("cert", "basic") {
		f.Add(at+".cors.credentials", "true", "lets pages of these origins read with a person's session; their unsafe methods and WebSockets are refused (cross_site)",
			"serve those pages on the route's host, or let them send a token, for which credentials is not needed")
	}
}
