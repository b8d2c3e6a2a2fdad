package policy

import (
	"slices"

	"sallyport/auth/identity"
	"sallyport/policy/model"
)

// Guess is what rules decide about a call that is known from its record alone.
type Guess struct {
	Outcome Outcome
	Rule    string // the place of the deciding rule; "" if no rule allows the call, or nothing is told
	// Missing lists what the record does not tell and the decision depends on, such as "claim
	// department" or "the condition of rules[1]"; empty unless the outcome is [Untold].
	Missing []string
}

// Outcome is a decision, or that there is none.
type Outcome uint8

const (
	Untold Outcome = iota
	Allowed
	Refused
)

// Guess decides like [Policy.Decide] on a call from a record. facts must have Recorded set. The caller's
// claims are not known; its scopes and groups are those of the record.
func (p *Policy) Guess(caller *identity.Principal, call model.Call, facts *Facts) Guess {
	if caller.IsZero() || call.Dialect == nil || call.Verb == "" {
		return Guess{Outcome: Refused}
	}
	var missing []string
	of := p.rulesOf(call.Verb)
	for w := of.deny.walk(call.Model); ; {
		r := w.next()
		if r == nil {
			break
		}
		if !r.coversDenied(&call) {
			continue
		}
		switch sure, lacks := r.guess(caller, call, facts); {
		case sure && len(lacks) == 0:
			return Guess{Outcome: Refused, Rule: r.at}
		case sure:
			missing = append(missing, lacks...)
		}
	}
	denied := len(missing) > 0
	allowed, perhaps := "", false
	for w := of.allow.walk(call.Model); allowed == ""; {
		r := w.next()
		if r == nil {
			break
		}
		if !r.coversAllowed(&call) {
			continue
		}
		switch may, lacks := r.guess(caller, call, facts); {
		case may && len(lacks) == 0:
			allowed = r.at
		case may:
			perhaps = true
			missing = append(missing, lacks...)
		}
	}
	switch {
	case allowed == "" && !perhaps:
		return Guess{Outcome: Refused}
	case allowed != "" && !denied:
		return Guess{Outcome: Allowed, Rule: allowed}
	}
	slices.Sort(missing)
	return Guess{Missing: slices.Compact(missing)}
}

// guess reports whether the rule may cover a call whose verb, model and version it is about, and what
// would have to be known to be sure.
func (r *rule) guess(caller *identity.Principal, call model.Call, facts *Facts) (may bool, missing []string) {
	for _, l := range r.who.lacks(caller, r.deny) {
		if l.kind != "claim" {
			return false, nil
		}
		missing = append(missing, l.key())
	}
	holds, err := r.holds(caller, call, facts)
	switch {
	case err != nil:
		missing = append(missing, "the condition of "+r.at)
	case !holds:
		return false, nil
	}
	return true, missing
}
