package policy

import (
	"errors"
	"maps"
	"slices"
	"strconv"

	"sallyport/auth/identity"
	"sallyport/policy/model"
	"sallyport/proxy/setting"
)

// Rule is one entry of `rules:`. It names verbs either to allow or to deny, and
// whom it speaks of.
type Rule struct {
	Allow setting.List[string] `yaml:"allow" jsonschema:"description=Verbs to allow: HTTP methods in lower case (get or post and so on) or \"*\" for all"`
	Deny  setting.List[string] `yaml:"deny" jsonschema:"description=Verbs to deny; a deny rule wins over every allow rule"`
	Who   Who                  `yaml:"who" jsonschema:"description=Whom the rule speaks of; omitted: everyone whom callers admits"`
}

// Who picks callers. Each key that is present must hold; within a key one value
// of the list is enough. The zero Who is every caller that the route admits.
// Values are compared literally.
type Who struct {
	Scope     setting.List[string]            `yaml:"scope" jsonschema:"description=Has one of these OAuth scopes"`
	Group     setting.List[string]            `yaml:"group" jsonschema:"description=Is in one of these groups"`
	Claim     map[string]setting.List[string] `yaml:"claim" jsonschema:"description=Claim by path (such as realm_access.roles) to the values of which it must hold one"`
	Principal setting.List[string]            `yaml:"principal" jsonschema:"description=Is one of these: qualified names such as issuer/corp:alice or names under principals"`
}

var (
	errNoVerbs   = errors.New("a rule needs allow or deny")
	errBothVerbs = errors.New("a rule has either allow or deny")
	errEmptyVerb = errors.New("not a verb")
)

func (r *Rule) sound() error {
	switch {
	case len(r.Allow) == 0 && len(r.Deny) == 0:
		return errNoVerbs
	case len(r.Allow) > 0 && len(r.Deny) > 0:
		return errBothVerbs
	}
	for _, v := range slices.Concat(r.Allow, r.Deny) {
		if v != "*" && !model.ValidRawVerb(v) {
			return errEmptyVerb
		}
	}
	return nil
}

// Check records every fault of the rule that stands at path in the file.
func (r *Rule) Check(path string, f *setting.Faults) {
	switch r.sound() {
	case errNoVerbs:
		f.Add(path, "", "a rule needs allow or deny", `write {allow: "*"} or name HTTP methods such as [get, post]`)
	case errBothVerbs:
		f.Add(path, "", "a rule has either allow or deny, not both", "write two rules")
	}
	checkVerbs(path+".allow", r.Allow, f)
	checkVerbs(path+".deny", r.Deny, f)
	r.Who.check(path+".who", f)
}

func checkVerbs(path string, verbs []string, f *setting.Faults) {
	for i, v := range verbs {
		if v != "*" && !model.ValidRawVerb(v) {
			f.Add(path+"["+strconv.Itoa(i)+"]", v, "not a verb", `want "*" or an HTTP method in lower case such as post`)
		}
	}
}

func (w *Who) check(path string, f *setting.Faults) {
	for _, l := range []struct {
		key    string
		values []string
	}{{"scope", w.Scope}, {"group", w.Group}, {"principal", w.Principal}} {
		checkValues(path+"."+l.key, l.values, f)
	}
	for _, name := range slices.Sorted(maps.Keys(w.Claim)) {
		p := path + ".claim." + name
		if len(w.Claim[name]) == 0 {
			f.Add(p, "", "no value is listed, so no caller could match", "list the values that will do")
		}
		checkValues(p, w.Claim[name], f)
	}
}

func checkValues(path string, values []string, f *setting.Faults) {
	for i, v := range values {
		if v == "" {
			f.Add(path+"["+strconv.Itoa(i)+"]", v, "an empty value matches nobody", "remove it or write the value")
		}
	}
}

func (w *Who) match(p *identity.Principal) bool {
	return (len(w.Scope) == 0 || overlap(w.Scope, p.Scopes)) && w.matchButScope(p)
}

func (w *Who) matchButScope(p *identity.Principal) bool {
	if p.IsZero() ||
		len(w.Group) > 0 && !overlap(w.Group, p.Groups) ||
		len(w.Principal) > 0 && !slices.Contains(w.Principal, p.String()) && (p.Alias == "" || !slices.Contains(w.Principal, p.Alias)) {
		return false
	}
	for name, values := range w.Claim {
		if p.Claim == nil || !overlap(values, p.Claim(name)) {
			return false
		}
	}
	return true
}

func (w *Who) clone() Who {
	c := Who{Scope: slices.Clone(w.Scope), Group: slices.Clone(w.Group), Principal: slices.Clone(w.Principal)}
	if w.Claim != nil {
		c.Claim = make(map[string]setting.List[string], len(w.Claim))
		for k, v := range w.Claim {
			c.Claim[k] = slices.Clone(v)
		}
	}
	return c
}

// overlap says whether the lists share a value.
func overlap(want, have []string) bool {
	for _, h := range have {
		if slices.Contains(want, h) {
			return true
		}
	}
	return false
}
