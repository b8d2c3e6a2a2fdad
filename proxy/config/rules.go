package config

import (
	"maps"
	"slices"
	"strings"

	"sallyport/policy"
	"sallyport/policy/model"
	"sallyport/proxy/route"
	"sallyport/proxy/setting"
)

// checkPolicy records the faults of a list of rules that routes to servers of any kind may use.
func (c *Config) checkPolicy(path string, rules []policy.Rule, f *setting.Faults) {
	policy.Check(path, rules, f)
	for i := range rules {
		rules[i].CheckVerbs(setting.Index(path, i), f)
	}
	c.checkWho(path, rules, f)
}

func (c *Config) checkRouteRules(r *route.Config, at string, f *setting.Faults) {
	if c.servesKnown(r) {
		r.CheckLimits(at, c.DialectOf(r), f)
	}
	c.checkRulesOf(r, at+".rules", &r.Rules, f)
	if len(c.RulesOf(r)) == 0 && r.Rules.Policy == "" && r.Respond == nil {
		f.Add(at+".rules", "", "a route without rules", `write who may do what, such as [{allow: "*", who: {scope: models.predict}}]`)
	}
	if r.CandidateRules.IsZero() {
		return
	}
	if at += ".candidate_rules"; r.Respond != nil {
		f.Add(at, "", "the route answers by itself, so there is nothing to try out", "remove it")
	}
	c.checkRulesOf(r, at, &r.CandidateRules, f)
}

// checkRulesOf records the faults of rules that a route uses at a key of its own.
func (c *Config) checkRulesOf(r *route.Config, at string, ref *route.RulesRef, f *setting.Faults) {
	d, shared := c.DialectOf(r), ref.Policy != ""
	rules := c.rules(ref)
	if !shared {
		policy.Check(at, rules, f)
		c.checkWho(at, rules, f)
	} else if _, known := c.Policies[ref.Policy]; !known {
		f.Add(at, ref.Policy, "there is no such policy", cureName("policies", ref.Policy, slices.Sorted(maps.Keys(c.Policies))))
	}
	for i := range rules {
		if !c.servesKnown(r) {
			break
		}
		before := len(*f)
		rules[i].CheckServed(setting.Index(at, i), d, shared, f)
		if !shared { // other routes may be meant by what cannot hold here
			c.checkRuleOnRoute(r, setting.Index(at, i), &rules[i], f)
			continue
		}
		for j := before; j < len(*f); j++ { // the fault has the route's line; the rule stands elsewhere
			(*f)[j].Problem = "in " + setting.Index("policies."+ref.Policy, i) + ", " + (*f)[j].Problem
		}
	}
}

// checkRuleOnRoute records why a rule can never speak on its route.
func (c *Config) checkRuleOnRoute(r *route.Config, at string, rule *policy.Rule, f *setting.Faults) {
	w := &rule.Who
	if slices.Contains(r.Callers.Names(), route.Anonymous) && len(w.Scope)+len(w.Group)+len(w.Claim) > 0 {
		f.Add(at+".who", "", "anonymous callers have no scopes, groups or claims", "remove it, or name an issuer in callers")
	}
	if verbs := slices.Concat(rule.Allow, rule.Deny); len(verbs) > 0 && !c.reaches(r, verbs) {
		f.Add(at, strings.Join(verbs, ", "), "the route takes none of these methods", "add them to methods, or remove the rule")
	}
}

// reaches reports whether a route accepts a request of which servers run one of the verbs. Where verbs
// are no HTTP methods, it supposes so.
func (c *Config) reaches(r *route.Config, verbs []string) bool {
	return len(r.Methods) == 0 || len(c.DialectOf(r).Verbs()) > 0 || slices.ContainsFunc(verbs, func(v string) bool {
		return v == "*" ||
			slices.ContainsFunc(r.Methods, func(m string) bool { return model.Call{Verb: strings.ToLower(m)}.Runs(v) })
	})
}

// RulesOf returns the rules of a route.
func (c *Config) RulesOf(r *route.Config) []policy.Rule { return c.rules(&r.Rules) }

// CandidateRulesOf returns the rules of a route that are recorded and not enforced; nil for none.
func (c *Config) CandidateRulesOf(r *route.Config) []policy.Rule { return c.rules(&r.CandidateRules) }

func (c *Config) rules(ref *route.RulesRef) []policy.Rule {
	if ref.Policy != "" {
		return c.Policies[ref.Policy]
	}
	return ref.Rules
}

// warnVersions records deny rules that a caller can avoid by the number of the version.
func (c *Config) warnVersions(f *setting.Faults) {
	warn := func(path string, rules []policy.Rule) {
		for i := range rules {
			if rules[i].ByNameAlone() {
				f.Add(setting.Index(path, i)+".versions", "", "callers can ask for the same version by its number", "deny the numbers too, or list what is allowed by versions of an allow rule")
			}
		}
	}
	for _, name := range slices.Sorted(maps.Keys(c.Policies)) {
		warn("policies."+name, c.Policies[name])
	}
	for i := range c.Routes {
		warn(setting.Index("routes", i)+".rules", c.Routes[i].Rules.Rules)
		warn(setting.Index("routes", i)+".candidate_rules", c.Routes[i].CandidateRules.Rules)
	}
}

// checkWho records callers in rules that no proof can make. A name without a colon
// is one of principals.
func (c *Config) checkWho(path string, rules []policy.Rule, f *setting.Faults) {
	for i := range rules {
		for j, p := range rules[i].Who.Principal {
			at := setting.Index(setting.Index(path, i)+".who.principal", j)
			if _, alias := c.Principals[p]; alias || p == "" || p == route.Anonymous {
				continue
			}
			if problem, cure := c.badQualified(p); problem != "" {
				f.Add(at, p, problem, cure)
			}
		}
	}
}

// PlaceOf returns the file and the line of a path of the configuration, such as routes[0].rules[1].
func (c *Config) PlaceOf(path string) (file string, line int) {
	if c.source == nil {
		return "", 0
	}
	doc, path := c.source.find(path)
	return doc.File, doc.Line(path)
}

// CheckCaller returns what is wrong with the qualified name of a caller, such as issuer/corp:alice, and
// what would do; both are "" if nothing is.
func (c *Config) CheckCaller(name string) (problem, cure string) {
	if name == route.Anonymous {
		return "", ""
	}
	return c.badQualified(name)
}

// Admits returns which of a route's callers admits a caller, by its qualified name; "" for none. Tokens and
// sessions of an issuer have the same names: credential tells which of them it is, in the words of
// [identity.Principal.Kind]; "" for either.
func (c *Config) Admits(r *route.Config, name, credential string) string {
	source, _, _ := strings.Cut(name, ":")
	for _, caller := range r.Callers.Names() {
		switch kind := kindOfCaller(caller); {
		case credential == "bearer" && kind == "login", credential == "login" && kind == "issuer":
		case caller == route.Anonymous && name == route.Anonymous, caller == source:
			return caller
		case (kind == source || kind == "login") && c.provenBy(caller, name):
			return caller
		}
	}
	return ""
}
