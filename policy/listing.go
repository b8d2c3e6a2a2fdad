package policy

import (
	"sallyport/auth/identity"
	"sallyport/policy/model"
)

// MayUse reports whether some call that is about a model, and is no management, may be allowed to the
// caller, so that a list of models may show it. name is canonical. A condition counts as it is
// for the model's latest version; facts are as for [Policy.Decide].
func (p *Policy) MayUse(caller *identity.Principal, d *model.Dialect, name string, facts *Facts) bool {
	for _, verb := range d.Verbs() {
		call := model.Call{Dialect: d, Verb: verb, Model: name}
		if class := call.Class(); class == model.Management || aboutServer(verb) {
			continue
		}
		if !p.NeedsFacts() {
			if p.Screen(caller, call) == nil { // whatever the version
				return true
			}
			continue
		}
		call.Version = model.Latest
		if _, err := p.decide(caller, call, facts); err == nil {
			return true
		}
	}
	return false
}

// aboutServer reports whether calls of a verb are about no model.
func aboutServer(verb string) bool {
	switch verb {
	case "list", "health", "version", "metrics", "docs":
		return true
	}
	return false
}
