// Package policy decides whether a caller may make a call.
//
// It is pure: it does no I/O, reads no clock and keeps no state. If a deny rule covers
// the call, it is refused; otherwise, if an allow rule covers it, it is granted; otherwise it
// is refused.
package policy

import (
	"errors"
	"fmt"
	"slices"

	"sallyport/auth/identity"
	"sallyport/policy/model"
	"sallyport/proxy/setting"
)

// Reasons of a refusal. The audit record and the response to the caller contain them.
const (
	ReasonForbidden         = "forbidden"          // no rule allows the call, or one denies it
	ReasonInsufficientScope = "insufficient_scope" // a rule would allow the call to a token with another scope (RFC 6750, section 3.1)
)

// Refusal is the error for a refused call.
type Refusal struct {
	Reason string // one of the constants of this package
	// Scopes are set with [ReasonInsufficientScope]: any one of them suffices, and the
	// caller has none. They belong to the policy and must not be modified.
	Scopes []string
	// Cause names the rule that denies the call, or the rules nearest to allowing it and what the
	// caller lacks. It is for the audit record only.
	Cause string
	// Rule is the place of the rule that denies the call; "" if none does.
	Rule string
}

// Error returns the reason and its cause, for logs only.
func (r *Refusal) Error() string { return r.Reason + ": " + r.Cause }

// Policy holds the compiled rules of one route. It is immutable and safe for concurrent
// use. The zero Policy refuses everything.
type Policy struct {
	rules  []rule // in the order of the file
	verbs  map[string]*verbRules
	other  *verbRules // for verbs that no rule names and that have no class
	whole  *verbRules // all rules, for calls whose verb is not known
	models bool       // a rule is about some models or versions
	asks   bool       // a rule has when
}

// AboutModels reports whether a decision depends on the model, version or signature, so that they
// must be read from the body where the head does not name them.
// A nil Policy has no rules.
func (p *Policy) AboutModels() bool { return p != nil && p.models }

// NeedsFacts reports whether a rule has a condition, so that decisions need [Facts]. A nil Policy has no
// rules.
func (p *Policy) NeedsFacts() bool { return p != nil && p.asks }

// New compiles rules for servers of a dialect. It returns an error for rules in which [Check] or
// [Rule.CheckServed] finds a fault that concerns verbs, models, versions or conditions. It copies
// the rules. at is the place of the rules in the configuration: causes of refusals call them at[0],
// at[1] and so on.
func New(d *model.Dialect, at string, rules []Rule) (*Policy, error) {
	if len(rules) == 0 {
		return nil, errors.New("a policy needs rules")
	}
	var language expressions
	p := &Policy{rules: make([]rule, 0, len(rules))}
	for i := range rules {
		r := &rules[i]
		if err := r.sound(d); err != nil {
			return nil, fmt.Errorf("rule %d: %w", i+1, err)
		}
		c := rule{
			at: setting.Index(at, i), deny: len(r.Deny) > 0, verbs: slices.Concat(r.Allow, r.Deny),
			versions: newVersions(r.Versions), written: slices.Clone(r.Versions), who: r.Who.clone(),
		}
		if !slices.Contains(r.Models, every) {
			c.named = slices.Clone(r.Models)
			for _, m := range r.Models {
				c.models = append(c.models, newGlob(m))
			}
		}
		if r.When != "" {
			var err error
			if c.when, err = language.compile(r.When); err != nil {
				return nil, fmt.Errorf("rule %d: when: %w", i+1, err)
			}
		}
		p.models = p.models || len(c.models) > 0 || !c.versions.any() || c.when != nil && c.when.models
		p.asks = p.asks || c.when != nil
		p.rules = append(p.rules, c)
	}
	p.index(d)
	return p, nil
}

// Screen decides from the caller and the head of a request whether any call could be allowed. What
// the call does not name is taken for something that the body may name; the zero Call stands for
// any. It returns nil or a [*Refusal]. The gateway calls it before it reads the body, to save that
// work for callers without any rights.
func (p *Policy) Screen(caller *identity.Principal, call model.Call) error {
	of := p.rulesOf(call.Verb)
	for w := of.deny.walk(call.Model); ; {
		r := w.next()
		if r == nil {
			break
		}
		if r.surely(&call) && r.who.match(caller, r.deny) {
			return &Refusal{Reason: ReasonForbidden, Cause: r.denial(&call, nil), Rule: r.at}
		}
	}
	for w := of.allow.walk(call.Model); ; {
		r := w.next()
		if r == nil {
			break
		}
		if r.perhaps(&call) && r.who.match(caller, r.deny) {
			return nil
		}
	}
	return p.refusal(question{caller: caller, call: call}, true)
}

// Decide returns a valid [Grant] if the caller may make the call, and a [*Refusal] if not.
// The zero Principal and a call without a dialect or a verb are refused. facts may be nil if
// [Policy.NeedsFacts] is false; otherwise conditions about them fail.
func (p *Policy) Decide(caller *identity.Principal, call model.Call, facts *Facts) (Grant, error) {
	if _, err := p.decide(caller, call, facts); err != nil {
		return Grant{}, err
	}
	return Grant{call: call}, nil
}

// Judge decides like [Policy.Decide] without giving a grant. It returns the place of the deciding
// rule, "" if no rule allows the call.
func (p *Policy) Judge(caller *identity.Principal, call model.Call, facts *Facts) (rule string, err error) {
	r, err := p.decide(caller, call, facts)
	if r == nil {
		return "", err
	}
	return r.at, err
}

// decide returns the rule that decides; nil if no rule covers the call.
func (p *Policy) decide(caller *identity.Principal, call model.Call, facts *Facts) (*rule, error) {
	if caller.IsZero() || call.Dialect == nil || call.Verb == "" {
		return nil, &Refusal{Reason: ReasonForbidden, Cause: "the caller or the call is not known"}
	}
	of := p.rulesOf(call.Verb)
	for w := of.deny.walk(call.Model); ; {
		r := w.next()
		if r == nil {
			break
		}
		if !r.coversDenied(&call) || !r.who.match(caller, r.deny) {
			continue
		}
		if holds, err := r.holds(caller, call, facts); holds || err != nil {
			return r, &Refusal{Reason: ReasonForbidden, Cause: r.denial(&call, err), Rule: r.at}
		}
	}
	for w := of.allow.walk(call.Model); ; {
		r := w.next()
		if r == nil {
			return nil, p.refusal(question{caller, call, facts}, false)
		}
		if !r.coversAllowed(&call) || !r.who.match(caller, r.deny) {
			continue
		}
		if holds, err := r.holds(caller, call, facts); holds && err == nil {
			return r, nil
		}
	}
}

// Provide decides like [Policy.Decide] on a call whose body is not verified yet. It
// refuses every call to servers that may act on a part of the body
// ([model.Dialect.ActsOnWhole]). The result keeps the pointers to the caller and the facts, which
// must not change until [Provisional.Complete] has returned.
func (p *Policy) Provide(caller *identity.Principal, call model.Call, facts *Facts) (Provisional, error) {
	if _, err := p.Decide(caller, call, facts); err != nil {
		return Provisional{}, err
	}
	return p.provide(caller, call, facts)
}

// ProvideUnnamed is [Policy.Provide] for a call whose body will name the model: it refuses what
// [Policy.Screen] refuses. The call must be completed by [Provisional.Complete] before the end of the
// body, or of the message that names the model, is sent. It is for gRPC, whose servers act on whole
// messages, whatever their dialect says of other requests.
func (p *Policy) ProvideUnnamed(caller *identity.Principal, call model.Call, facts *Facts) (Provisional, error) {
	if caller.IsZero() || call.Dialect == nil || call.Verb == "" {
		return Provisional{}, &Refusal{Reason: ReasonForbidden, Cause: "the caller or the call is not known"}
	}
	if err := p.Screen(caller, call); err != nil {
		return Provisional{}, err
	}
	return Provisional{policy: p, caller: caller, call: call, facts: facts}, nil
}

func (p *Policy) provide(caller *identity.Principal, call model.Call, facts *Facts) (Provisional, error) {
	if !call.Dialect.ActsOnWhole() {
		return Provisional{}, &Refusal{Reason: ReasonForbidden, Cause: "the server may act on a part of the body, which is not verified yet"}
	}
	return Provisional{policy: p, caller: caller, call: call, facts: facts}, nil
}

// refusal returns the refusal of a call that no rule allows. open means that what the call does not
// name may still be named. If only the scopes of the caller's token prevent a rule from allowing it,
// the refusal names the scopes of the first such rule. A caller without a token, such as one that
// signs with a key, cannot get a scope, so it is forbidden.
func (p *Policy) refusal(q question, open bool) *Refusal {
	if q.caller.Claim != nil {
		for i := range p.rules {
			r := &p.rules[i]
			if r.deny || len(r.who.Scope) == 0 || !r.who.matchButScope(q.caller, false) || !r.couldAllow(&q.call, open) {
				continue
			}
			if !open {
				if holds, err := r.holds(q.caller, q.call, q.facts); !holds || err != nil {
					continue
				}
			}
			return &Refusal{Reason: ReasonInsufficientScope, Scopes: r.who.Scope, Cause: p.cause(q, open)}
		}
	}
	return &Refusal{Reason: ReasonForbidden, Cause: p.cause(q, open)}
}
