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
)

// denial returns the cause for a call that a deny rule refuses. A nil call stands for any call.
func (r *rule) denial(call *model.Call) string {
	switch {
	case call == nil || len(r.models) == 0:
		return r.at + " denies it"
	case call.Model == "":
		return r.at + " denies " + r.patterns() + ", and the request names no model"
	}
	return r.at + " denies model " + setting.Quoted(call.Model, shownModel)
}

// Ranks of allow rules that do not cover a call. A rule that covers the call has a lower rank: the
// number of keys under who that the caller does not satisfy.
const (
	anotherModel = 100
	anotherVerb  = 200
)

// rank returns how far a rule is from allowing the call; less is nearer. A nil call stands for any.
func (r *rule) rank(caller *identity.Principal, call *model.Call) int {
	switch {
	case call == nil:
	case !r.coversVerb(*call, true):
		return anotherVerb
	case !r.coversModel(*call, false):
		return anotherModel
	}
	return len(r.who.lacks(caller))
}

// cause returns the cause for a call that no rule allows. It names the one or two rules nearest to
// allowing it, what they require, and what the caller has. A nil call stands for any.
func (p *Policy) cause(caller *identity.Principal, call *model.Call) string {
	if caller.IsZero() {
		return "the caller is not known"
	}
	best := -1
	var nearest []*rule
	for i := range p.allow {
		r := &p.allow[i]
		n := r.rank(caller, call)
		if best < 0 || n < best {
			best, nearest = n, nearest[:0]
		}
		if n == best && len(nearest) < 2 {
			nearest = append(nearest, r)
		}
	}
	if len(nearest) == 0 {
		return "no rule allows anything"
	}
	var b strings.Builder
	switch best {
	case anotherVerb:
		b.WriteString("no rule allows " + setting.Shortened(call.Verb, shownRule) + ": ")
	case anotherModel:
		if call.Model == "" {
			b.WriteString("the request names no model: ")
		} else {
			b.WriteString("no rule allows model " + setting.Quoted(call.Model, shownModel) + ": ")
		}
	}
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
		default:
			lacks := r.who.lacks(caller)
			wanted = append(wanted, lacks...)
			b.WriteString(r.conditions(lacks, call == nil))
		}
	}
	b.WriteString(holdings(caller, wanted))
	return b.String()
}

// conditions returns what a caller must have for a rule to allow the call. any means that no call is
// known yet, so the text names the verbs of the rule.
func (r *rule) conditions(lacks []lack, any bool) string {
	s := " would allow it with "
	if any && !slices.Contains(r.verbs, "*") {
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

// lacks returns the keys that the caller does not satisfy.
func (w *Who) lacks(p *identity.Principal) (all []lack) {
	if len(w.Scope) > 0 && !overlap(w.Scope, p.Scopes) {
		all = append(all, lack{kind: "scope", values: w.Scope})
	}
	if len(w.Group) > 0 && !overlap(w.Group, p.Groups) {
		all = append(all, lack{kind: "group", values: w.Group})
	}
	for _, name := range slices.Sorted(maps.Keys(w.Claim)) {
		if values := w.Claim[name]; p.Claim == nil || !overlap(values, p.Claim(name)) {
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
			if len(p.Groups) > 0 {
				part = "the groups " + setting.QuotedList(p.Groups, shownHeld)
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
