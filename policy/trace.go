package policy

import (
	"strings"

	"sallyport/auth/identity"
	"sallyport/policy/model"
	"sallyport/proxy/setting"
)

// Step is what one rule says about a call.
type Step struct {
	Rule   string // its place in the configuration
	Deny   bool
	Covers bool
	Why    string // why the rule covers the call, or the first key that does not
}

// Trace returns what each rule says about a call, in the order of the file. It evaluates rules that
// [Policy.Decide] passes over, such as those after the deciding one.
func (p *Policy) Trace(caller *identity.Principal, call model.Call, facts *Facts) []Step {
	steps := make([]Step, 0, len(p.rules))
	for i := range p.rules {
		r := &p.rules[i]
		why, covers := r.trace(&question{caller, call, facts})
		steps = append(steps, Step{Rule: r.at, Deny: r.deny, Covers: covers, Why: why})
	}
	return steps
}

// trace says why the rule covers a call or not.
func (r *rule) trace(q *question) (why string, covers bool) {
	c := &q.call
	tabled := c.Dialect != nil && len(c.Dialect.Verbs()) > 0
	switch {
	case !r.coversVerb(c.Verb, c.Class(), tabled):
		why = "is about " + setting.Shortened(strings.Join(r.verbs, ", "), shownModel)
		if !r.deny && c.Class() == model.Management {
			why += "; " + c.Verb + " is a verb of management, which a rule must name"
		}
		return why, false
	case serverMetadata(c) && r.deny && !r.coversDenied(c):
		return "is about models, and the call is about the server", false
	case r.deny && !r.coversDenied(c) || !r.deny && !r.coversAllowed(c):
		return r.otherwise(c), false
	}
	if lacks := r.who.lacks(q.caller, r.deny); len(lacks) > 0 {
		var wants []string
		for i := range lacks {
			wants = append(wants, lacks[i].key()+" "+setting.Shortened(strings.Join(lacks[i].values, " or "), shownModel))
		}
		return "is about callers with " + strings.Join(wants, " and ") + holdings(q.caller, lacks), false
	}
	holds, err := r.holds(q.caller, q.call, q.facts)
	switch {
	case err != nil && r.deny:
		return "covers the call, because its condition failed: " + setting.Quoted(err.Error(), shownFailure), true
	case err != nil:
		return "its condition failed: " + setting.Quoted(err.Error(), shownFailure), false
	case !holds:
		return "its condition does not hold" + holdings(q.caller, r.when.reads), false
	case r.deny && len(r.models) > 0 && c.Model == "":
		return "covers the call, because the request does not name the model", true
	case serverMetadata(c):
	case r.deny && !r.versions.any() && !r.versions.lists(c.Version):
		return "covers the call, because " + setting.Quoted(c.Version, shownRule) + " may be " + r.entries(), true
	}
	return "covers the call", true
}

// otherwise says which model or version the rule is about instead of that of the call.
func (r *rule) otherwise(c *model.Call) string {
	switch {
	case len(r.models) > 0 && (c.Model == "" || !r.lists(c.Model)):
		return "is about other models: " + r.patterns()
	}
	return "is about " + r.entries()
}
