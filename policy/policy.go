// Package policy answers whether this caller may make that call.
//
// It is pure: no I/O, no clock, no state that a decision changes. Deny rules win,
// then any allow rule, else the call is refused.
package policy

import (
	"errors"
	"slices"

	"sallyport/auth/identity"
	"sallyport/policy/model"
)

// Reasons of a refusal, as the audit record and the caller see them.
const (
	ReasonForbidden         = "forbidden"          // no rule allows it, or one denies it
	ReasonInsufficientScope = "insufficient_scope" // a rule would, but for a scope (RFC 6750, section 3.1)
)

// Refusal is the error of a decision against a call.
type Refusal struct {
	Reason string
	// Scopes are those of the first rule that a scope alone kept from allowing:
	// any one of them would do. Only with [ReasonInsufficientScope].
	Scopes []string
}

func (r *Refusal) Error() string { return r.Reason }

// Policy is the rules of one route, compiled. It is safe for concurrent use.
// The zero Policy refuses everything.
type Policy struct {
	deny, allow []rule
}

// Grant is leave to make one call. Only [Policy.Decide] makes a valid one; the
// zero Grant opens nothing.
type Grant struct{ valid bool }

// Valid says whether the grant opens anything.
func (g Grant) Valid() bool { return g.valid }

// Provisional is leave to begin a call of which the end is held back until its
// content is known to be right. Only [Policy.Provide] makes a valid one, and only
// for servers that do nothing before that end; the zero Provisional opens nothing.
type Provisional struct{ grant Grant }

// Valid says whether it opens anything.
func (p Provisional) Valid() bool { return p.grant.valid }

// New compiles rules. It refuses what [Rule.Check] would find a fault with.
func New(rules []Rule) (*Policy, error) {
	if len(rules) == 0 {
		return nil, errors.New("a policy needs rules")
	}
	p := &Policy{}
	for i := range rules {
		r := &rules[i]
		if err := r.sound(); err != nil {
			return nil, err
		}
		c := rule{who: r.Who.clone()}
		if c.verbs = slices.Clone(r.Deny); len(c.verbs) > 0 {
			p.deny = append(p.deny, c)
			continue
		}
		c.verbs = slices.Clone(r.Allow)
		p.allow = append(p.allow, c)
	}
	return p, nil
}

// Screen says, from the caller alone, whether any call could be allowed: nil, or
// a [*Refusal]. It stands before the body is read, so that a caller who may do
// nothing here cannot make the gateway work.
func (p *Policy) Screen(caller *identity.Principal) error {
	for i := range p.deny {
		if d := &p.deny[i]; d.every() && d.who.match(caller) {
			return &Refusal{Reason: ReasonForbidden}
		}
	}
	for i := range p.allow {
		if p.allow[i].who.match(caller) {
			return nil
		}
	}
	return p.refusal(caller, nil)
}

// Decide says whether the caller may make the call: a valid [Grant], or a
// [*Refusal].
func (p *Policy) Decide(caller *identity.Principal, call model.Call) (Grant, error) {
	if caller.IsZero() || call.Verb == "" {
		return Grant{}, &Refusal{Reason: ReasonForbidden}
	}
	for i := range p.deny {
		if d := &p.deny[i]; d.covers(call) && d.who.match(caller) {
			return Grant{}, &Refusal{Reason: ReasonForbidden}
		}
	}
	for i := range p.allow {
		if a := &p.allow[i]; a.covers(call) && a.who.match(caller) {
			return Grant{valid: true}, nil
		}
	}
	return Grant{}, p.refusal(caller, &call)
}

// Provide is [Policy.Decide] for a call whose content is still to come. Servers that
// may act on a part of it get none.
func (p *Policy) Provide(caller *identity.Principal, call model.Call) (Provisional, error) {
	if !model.ActsOnWhole(call.Dialect) {
		return Provisional{}, &Refusal{Reason: ReasonForbidden}
	}
	grant, err := p.Decide(caller, call)
	return Provisional{grant}, err
}

// refusal finds the words for a call that no rule allows: if a scope is all that
// lacks, it says which.
func (p *Policy) refusal(caller *identity.Principal, call *model.Call) *Refusal {
	if !caller.IsZero() {
		for i := range p.allow {
			a := &p.allow[i]
			if (call == nil || a.covers(*call)) && len(a.who.Scope) > 0 && a.who.matchButScope(caller) {
				return &Refusal{Reason: ReasonInsufficientScope, Scopes: a.who.Scope}
			}
		}
	}
	return &Refusal{Reason: ReasonForbidden}
}

// rule is a rule with its direction known.
type rule struct {
	verbs []string
	who   Who
}

func (r *rule) every() bool { return slices.Contains(r.verbs, "*") }

func (r *rule) covers(call model.Call) bool {
	for _, v := range r.verbs {
		if v == "*" || v == call.Verb {
			return true
		}
	}
	return false
}
