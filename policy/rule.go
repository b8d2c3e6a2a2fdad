package policy

import (
	"errors"
	"fmt"
	"maps"
	"slices"
	"strconv"

	"sallyport/auth/identity"
	"sallyport/policy/model"
	"sallyport/proxy/setting"
)

// Rule is one entry of `rules:`. It names the verbs that it allows or denies, and the
// callers to which it applies.
type Rule struct {
	Allow setting.List[string] `yaml:"allow" jsonschema:"description=Verbs to allow: HTTP methods in lower case (get or post and so on) or \"*\" for all; get covers head too"`
	Deny  setting.List[string] `yaml:"deny" jsonschema:"description=Verbs to deny; a deny rule wins over every allow rule; get covers head too since servers run the same for both"`
	Who   Who                  `yaml:"who" jsonschema:"description=Whom the rule speaks of; omitted: everyone whom callers admits"`
}

// Who selects callers. A caller must satisfy every key that is present, and satisfies a
// key by one value of its list. The zero Who selects every caller that the route admits.
// Values are compared literally.
type Who struct {
	Scope     setting.List[string]            `yaml:"scope" jsonschema:"description=Has one of these OAuth scopes"`
	Group     setting.List[string]            `yaml:"group" jsonschema:"description=Is in one of these groups"`
	Claim     map[string]setting.List[string] `yaml:"claim" jsonschema:"description=Claim by path (such as realm_access.roles) to the values of which it must hold one"`
	Principal setting.List[string]            `yaml:"principal" jsonschema:"description=Is one of these: qualified names such as issuer/corp:alice or names under principals"`
}

var (
	errNoVerbs   = errors.New("a rule needs allow or deny")
	errBothVerbs = errors.New("a rule has either allow or deny, not both")
)

// shape checks that the rule either allows or denies.
func (r *Rule) shape() error {
	switch {
	case len(r.Allow) == 0 && len(r.Deny) == 0:
		return errNoVerbs
	case len(r.Allow) > 0 && len(r.Deny) > 0:
		return errBothVerbs
	}
	return nil
}

// sound checks all that concerns verbs, as [New] needs it.
func (r *Rule) sound(d *model.Dialect) error {
	for _, v := range slices.Concat(r.Allow, r.Deny) {
		if problem, _ := checkVerb(d, v); problem != "" {
			return fmt.Errorf("%q: %s", v, problem)
		}
	}
	return r.shape()
}

// Check records every fault of a rule for servers of a dialect. The rule stands at path
// in the file.
func (r *Rule) Check(path string, d *model.Dialect, f *setting.Faults) {
	switch err := r.shape(); err {
	case errNoVerbs:
		f.Add(path, "", err.Error(), `write {allow: "*"} or name HTTP methods such as [get, post]`)
	case errBothVerbs:
		f.Add(path, "", err.Error(), "write two rules")
	}
	checkVerbs(path+".allow", d, r.Allow, f)
	checkVerbs(path+".deny", d, r.Deny, f)
	r.Who.check(path+".who", f)
}

func checkVerbs(path string, d *model.Dialect, verbs []string, f *setting.Faults) {
	for i, v := range verbs {
		if problem, cure := checkVerb(d, v); problem != "" {
			f.Add(path+"["+strconv.Itoa(i)+"]", v, problem, cure)
		}
	}
}

// checkVerb checks one entry of allow or deny: "*", or a verb of the dialect.
func checkVerb(d *model.Dialect, v string) (problem, cure string) {
	if v == "*" {
		return "", ""
	}
	return d.CheckVerb(v)
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

// match says whether the caller is selected. Nobody, the zero Principal, never is.
func (w *Who) match(p *identity.Principal) bool {
	return (len(w.Scope) == 0 || overlap(w.Scope, p.Scopes)) && w.matchButScope(p)
}

// matchButScope is match without the key scope.
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

// clone copies all lists, so that a compiled rule shares no memory with the configuration.
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
