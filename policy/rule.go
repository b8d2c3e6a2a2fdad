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

// Rule is one entry of `rules:`. It names the verbs that it allows or denies, the models
// and the callers to which it applies.
//
// A rule without models covers every call. A call that names no model, or names it in a way
// that is not clear, is covered by no allow rule with models and by every deny rule with
// models.
type Rule struct {
	Allow  setting.List[string] `yaml:"allow" jsonschema:"description=Verbs to allow: HTTP methods in lower case (get or post and so on) or \"*\" for all; get covers head too"`
	Deny   setting.List[string] `yaml:"deny" jsonschema:"description=Verbs to deny; a deny rule wins over every allow rule; get covers head too since servers run the same for both"`
	Models setting.List[string] `yaml:"models" jsonschema:"description=Patterns of the models that the rule is about: * stands for any characters but / and ** for any characters; omitted: all"`
	Who    Who                  `yaml:"who" jsonschema:"description=Whom the rule speaks of; omitted: everyone whom callers admits"`
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

const maxPattern = 512 // bytes of a pattern of models

var (
	errNoVerbs   = errors.New("a rule needs allow or deny")
	errBothVerbs = errors.New("a rule has either allow or deny, not both")
)

// shape checks that the rule has either allow or deny.
func (r *Rule) shape() error {
	switch {
	case len(r.Allow) == 0 && len(r.Deny) == 0:
		return errNoVerbs
	case len(r.Allow) > 0 && len(r.Deny) > 0:
		return errBothVerbs
	}
	return nil
}

// sound checks all that concerns verbs and models, as [New] needs it.
func (r *Rule) sound(d *model.Dialect) error {
	for _, v := range slices.Concat(r.Allow, r.Deny) {
		if problem, _ := checkVerb(d, v); problem != "" {
			return fmt.Errorf("%q: %s", v, problem)
		}
	}
	for _, m := range r.Models {
		if problem, _ := checkModel(d, m); problem != "" {
			return fmt.Errorf("%q: %s", m, problem)
		}
	}
	return r.shape()
}

// Check records every fault of a rule for servers of a dialect, but for those that
// [Rule.CheckModels] finds. The rule stands at path in the file.
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

// CheckModels records every pattern of models that cannot stand in a rule for servers of a
// dialect. The rule stands at path in the file.
func (r *Rule) CheckModels(path string, d *model.Dialect, f *setting.Faults) {
	for i, m := range r.Models {
		if problem, cure := checkModel(d, m); problem != "" {
			f.Add(path+".models["+strconv.Itoa(i)+"]", m, problem, cure)
		}
	}
}

// checkModel checks one pattern of models.
func checkModel(d *model.Dialect, pattern string) (problem, cure string) {
	switch {
	case !d.NamesModels():
		return "requests to this server do not say which model they ask for",
			"remove models, or name the server's kind by serves: openai, ollama or tensorflow"
	case pattern == "":
		return "an empty pattern matches no model", "remove it or write a name"
	case len(pattern) > maxPattern:
		return "the pattern is longer than 512 bytes", "write a shorter one, with stars"
	}
	if name, err := d.CanonicalModel(pattern); err != nil {
		return "no model of this server has such a name", "write the name as the server lists it, with stars for parts of it"
	} else if name != pattern {
		return "the gateway knows this model by another name", "write " + name
	}
	return "", ""
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

// match reports whether Who selects the caller. It never selects the zero Principal.
func (w *Who) match(p *identity.Principal) bool {
	return (len(w.Scope) == 0 || overlap(w.Scope, p.Scopes)) && w.matchButScope(p)
}

// matchButScope is match without the key scope.
func (w *Who) matchButScope(p *identity.Principal) bool {
	if p.IsZero() ||
		len(w.Group) > 0 && !overlap(w.Group, p.Groups) ||
		len(w.Principal) > 0 && !w.names(p) {
		return false
	}
	for name, values := range w.Claim {
		if p.Claim == nil || !overlap(values, p.Claim(name)) {
			return false
		}
	}
	return true
}

// names reports whether the key principal lists the caller.
func (w *Who) names(p *identity.Principal) bool {
	return slices.Contains(w.Principal, p.String()) || p.Alias != "" && slices.Contains(w.Principal, p.Alias)
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

// overlap reports whether the lists share a value.
func overlap(want, have []string) bool {
	for _, h := range have {
		if slices.Contains(want, h) {
			return true
		}
	}
	return false
}
