package policy

import (
	"maps"
	"slices"
	"strings"

	"sallyport/auth/identity"
	"sallyport/policy/model"
	"sallyport/proxy/setting"
)

// The longest texts that a cause repeats, in bytes.
const (
	shownRule  = 32 // the values of a rule
	shownHeld  = 56 // the scopes, groups or claims of a caller
	shownModel = 56 // the name of a model

	shownFailure = 80 // the error of a condition
)

// denial returns the cause for a call that a deny rule covers. failed is the error of its condition, if
// it covers the call for that. The verb of the zero Call is any.
func (r *rule) denial(call *model.Call, failed error) string {
	text := r.at + " denies "
	switch {
	case len(r.models) > 0 && call.Model == "":
		text += r.patterns() + ", and the request names no model"
	case len(r.models) > 0:
		text += "model " + setting.Quoted(call.Model, shownModel)
	default:
		text += "it"
	}
	switch {
	case r.versions.any() || call.Version == "":
	case r.versions.lists(call.Version):
		text += ", version " + setting.Quoted(call.Version, shownRule)
	default:
		text += ", version " + setting.Quoted(call.Version, shownRule) + ", which may be one of " + r.entries()
	}
	if failed != nil {
		text += ", because its condition failed: " + setting.Quoted(failed.Error(), shownFailure)
	}
	return text
}

// Ranks of allow rules that do not cover a call. A rule that covers the call has a lower rank: the
// number of keys under who that the caller does not satisfy.
const (
	unmet          = 50 // the condition does not hold
	anotherVersion = 80
	anotherModel   = 100
	anotherVerb    = 200
)

// rank returns how far a rule is from allowing the call; less is nearer. open is as in
// [Policy.refusal].
func (r *rule) rank(q *question, open bool) int {
	c := &q.call
	tabled := c.Dialect != nil && len(c.Dialect.Verbs()) > 0
	switch {
	case open && c.Verb == "":
	case !r.coversVerb(c.Verb, c.Class(), tabled):
		return anotherVerb
	case len(r.models) > 0 && !serverMetadata(c) && (c.Model == "" && (!open || c.Server) || c.Model != "" && !r.lists(c.Model)):
		return anotherModel
	case !r.couldAllow(c, open):
		return anotherVersion
	}
	lacks := len(r.who.lacks(q.caller, r.deny))
	if lacks == 0 && !open {
		if holds, err := r.holds(q.caller, q.call, q.facts); !holds || err != nil {
			return unmet
		}
	}
	return lacks
}

// cause returns the cause for a call that no rule allows. It names the one or two rules nearest to
// allowing it, what they require, and what the caller has. open is as in [Policy.refusal].
func (p *Policy) cause(q question, open bool) string {
	if q.caller.IsZero() {
		return "the caller is not known"
	}
	misspelt := p.misspelt(&q)
	most := 2 // of rules that the cause names
	if misspelt != "" {
		most = 1
	}
	best := -1
	var nearest []*rule
	for i := range p.rules {
		r := &p.rules[i]
		if r.deny {
			continue
		}
		n := r.rank(&q, open)
		if best < 0 || n < best {
			best, nearest = n, nearest[:0]
		}
		if n == best && len(nearest) < most {
			nearest = append(nearest, r)
		}
	}
	if len(nearest) == 0 {
		return "no rule allows anything"
	}
	if misspelt != "" && best == anotherModel {
		return misspelt
	}
	var b strings.Builder
	if misspelt != "" {
		b.WriteString(misspelt + "; ")
	}
	b.WriteString(lacking(best, &q.call))
	var wanted []lack
	for i, r := range nearest {
		if i > 0 {
			b.WriteString("; ")
		}
		b.WriteString(r.at)
		switch best {
		case anotherVerb:
			b.WriteString(" allows " + setting.Shortened(strings.Join(r.verbs, ", "), shownRule))
		case anotherModel:
			b.WriteString(" allows " + r.patterns())
		case anotherVersion:
			b.WriteString(" allows " + r.entries())
		case unmet:
			b.WriteString(r.unmet(&q))
		default:
			lacks := r.who.lacks(q.caller, r.deny)
			wanted = append(wanted, lacks...)
			b.WriteString(r.conditions(lacks, open && q.call.Verb == ""))
		}
	}
	b.WriteString(holdings(q.caller, wanted))
	return b.String()
}

// mostCompared limits the patterns that are compared with the name of a model that is refused.
const mostCompared = 32

// misspelt says which pattern is spelt nearly as the model that a call asks for, in a rule that would allow
// the call otherwise; "" if there is none. Rules for other callers would else be named as the nearest.
func (p *Policy) misspelt(q *question) string {
	name := q.call.Model
	if name == "" {
		return ""
	}
	left := mostCompared
	for i := range p.rules {
		r := &p.rules[i]
		if r.deny || r.rank(q, false) != anotherModel || len(r.who.lacks(q.caller, r.deny)) > 0 {
			continue
		}
		var near []string
		for _, pattern := range r.named {
			if d := len(pattern) - len(name); max(d, -d) <= len(name)/3 && left > 0 {
				near = append(near, pattern)
				left--
			}
		}
		if pattern := setting.Nearest(name, near); pattern != "" {
			return "model " + setting.Quoted(name, shownModel) + " is not " + setting.Quoted(pattern, shownRule) + ", which " + r.at + " allows"
		}
	}
	return ""
}

// lacking begins the cause for a call that rules of this rank do not cover.
func lacking(rank int, c *model.Call) string {
	switch {
	case rank == anotherVerb && c.Class() == model.Management:
		return "no rule names " + setting.Shortened(c.Verb, shownRule) + " or management: "
	case rank == anotherVerb:
		return "no rule allows " + setting.Shortened(c.Verb, shownRule) + ": "
	case rank == anotherModel && c.Model == "":
		return "the request names no model: "
	case rank == anotherModel:
		return "no rule allows model " + setting.Quoted(c.Model, shownModel) + ": "
	case rank == anotherVersion && c.Version == "":
		return "the request names no version: "
	case rank == anotherVersion:
		return "no rule allows version " + setting.Quoted(c.Version, shownRule) + ": "
	}
	return ""
}

// unmet says why the condition of a rule does not let it allow the call.
func (r *rule) unmet(q *question) string {
	if _, err := r.holds(q.caller, q.call, q.facts); err != nil {
		return " does not allow it, because its condition failed: " + setting.Quoted(err.Error(), shownFailure)
	}
	return " does not allow it, because its condition does not hold" + holdings(q.caller, r.when.reads)
}

// conditions returns what a caller must have for a rule to allow the call. any means that no call is
// known yet, so the text names the verbs of the rule.
func (r *rule) conditions(lacks []lack, any bool) string {
	s := " would allow it with "
	if any && !slices.Contains(r.verbs, every) {
		s = " would allow " + setting.Shortened(strings.Join(r.verbs, ", "), shownRule) + " with "
	}
	for i, l := range lacks {
		if i > 0 {
			s += " and "
		}
		s += l.key() + " " + setting.Shortened(strings.Join(l.values, " or "), shownRule)
	}
	return s
}

// entries returns the versions of a rule, shortened.
func (r *rule) entries() string {
	all := make([]string, 0, len(r.written))
	for _, v := range r.written {
		all = append(all, string(v))
	}
	return "version " + setting.Shortened(strings.Join(all, ", "), shownRule)
}

// patterns returns the model patterns of a rule, shortened.
func (r *rule) patterns() string {
	return setting.Shortened(strings.Join(r.named, ", "), shownRule)
}

// lack is a key of a [Who] that a caller does not satisfy.
type lack struct {
	kind   string   // scope, group, claim or principal
	claim  string   // the path of a claim
	values []string // the caller must have one of them
}

// key returns the key as a rule writes it.
func (l *lack) key() string {
	if l.kind == "claim" {
		return "claim " + setting.Shortened(l.claim, shownRule)
	}
	return l.kind
}

// lacks returns the keys that the caller does not satisfy; deny is as in match.
func (w *Who) lacks(p *identity.Principal, deny bool) (all []lack) {
	if len(w.Scope) > 0 && !overlap(w.Scope, p.Scopes) {
		all = append(all, lack{kind: "scope", values: w.Scope})
	}
	if len(w.Group) > 0 && !overlap(w.Group, p.Groups) && !(deny && p.GroupsElsewhere) {
		all = append(all, lack{kind: "group", values: w.Group})
	}
	for _, name := range slices.Sorted(maps.Keys(w.Claim)) {
		if values := w.Claim[name]; (p.Claim == nil || !overlap(values, p.Claim(name))) && !(deny && p.LeftOut(name)) {
			all = append(all, lack{kind: "claim", claim: name, values: values})
		}
	}
	if len(w.Principal) > 0 && !w.names(p) {
		all = append(all, lack{kind: "principal", values: w.Principal})
	}
	return all
}

// holdings returns what the caller has of each kind that it lacks a value of. It leaves out the
// principal, because the record has it already.
func holdings(p *identity.Principal, lacks []lack) string {
	var said, parts []string
	for i := range lacks {
		l := &lacks[i]
		key := l.key()
		if l.kind == "principal" || slices.Contains(said, key) {
			continue
		}
		said = append(said, key)
		var part string
		switch l.kind {
		case "scope":
			part = "no scopes"
			if len(p.Scopes) > 0 {
				part = setting.Quoted(strings.Join(p.Scopes, " "), shownHeld)
			}
		case "group":
			part = "no groups"
			switch {
			case len(p.Groups) > 0:
				part = "the groups " + setting.QuotedList(p.Groups, shownHeld)
			case p.GroupsElsewhere:
				part = "more groups than the issuer writes there (_claim_names or hasgroups)"
			}
		default:
			part = "no " + setting.Shortened(l.claim, shownRule)
			if p.Claim != nil && len(p.Claim(l.claim)) > 0 {
				part = setting.Shortened(l.claim, shownRule) + " " + setting.QuotedList(p.Claim(l.claim), shownHeld)
			}
		}
		parts = append(parts, part)
	}
	if len(parts) == 0 {
		return ""
	}
	who := "; the caller has "
	if p.Kind() == "bearer" {
		who = "; the token has "
	}
	return who + strings.Join(parts, " and ")
}
