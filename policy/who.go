package policy

import (
	"maps"
	"slices"
	"strconv"

	"sallyport/auth/identity"
	"sallyport/proxy/setting"
)

// Who selects callers. A caller must satisfy every key that is present, and satisfies a
// key by one value of its list. The zero Who selects every caller that the route admits.
// Values are compared literally.
type Who struct {
	Scope     setting.List[string]            `yaml:"scope" jsonschema:"description=Has one of these OAuth scopes"`
	Group     setting.List[string]            `yaml:"group" jsonschema:"description=Is in one of these groups"`
	Claim     map[string]setting.List[string] `yaml:"claim" jsonschema:"description=Claim by path (such as realm_access.roles) to the values of which it must hold one"`
	Principal setting.List[string]            `yaml:"principal" jsonschema:"description=Is one of these: qualified names such as issuer/corp:alice or names under principals"`
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

// match reports whether Who selects the caller. It never selects the zero Principal. The Who of a deny
// rule selects callers too whose credential left out the groups or the claim: they may have the value.
func (w *Who) match(p *identity.Principal, deny bool) bool {
	return (len(w.Scope) == 0 || overlap(w.Scope, p.Scopes)) && w.matchButScope(p, deny)
}

// matchButScope is match without the key scope.
func (w *Who) matchButScope(p *identity.Principal, deny bool) bool {
	if p.IsZero() ||
		len(w.Group) > 0 && !overlap(w.Group, p.Groups) && !(deny && p.GroupsElsewhere) ||
		len(w.Principal) > 0 && !w.names(p) {
		return false
	}
	for name, values := range w.Claim {
		if (p.Claim == nil || !overlap(values, p.Claim(name))) && !(deny && p.LeftOut(name)) {
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
