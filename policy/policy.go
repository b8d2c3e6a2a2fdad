// Package policy decides whether a caller may make a call.
//
// It is pure: it does no I/O, reads no clock and keeps no state. If a deny rule matches,
// the call is refused; otherwise, if an allow rule matches, it is granted; otherwise it
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
}

// Error returns the reason and its cause, for logs only.
func (r *Refusal) Error() string { return r.Reason + ": " + r.Cause }

// Policy holds the compiled rules of one route. It is immutable and safe for concurrent
// use. The zero Policy refuses everything.
type Policy struct {
	deny, allow []rule
	models      bool // a rule is about models
}

// AboutModels reports whether a rule is about models, so that the model must be read from
// the body where the head does not name it.
func (p *Policy) AboutModels() bool { return p.models }

// New compiles rules for servers of a dialect. It returns an error for rules in which
// [Rule.Check] finds a fault that concerns verbs or models. It copies the rules. at is the place of
// the rules in the configuration: causes of refusals call them at[0], at[1] and so on.
func New(d *model.Dialect, at string, rules []Rule) (*Policy, error) {
	if len(rules) == 0 {
		return nil, errors.New("a policy needs rules")
	}
	p := &Policy{}
	for i := range rules {
		r := &rules[i]
		if err := r.sound(d); err != nil {
			return nil, fmt.Errorf("rule %d: %w", i+1, err)
		}
		c := rule{at: setting.Index(at, i), verbs: slices.Concat(r.Allow, r.Deny), named: slices.Clone(r.Models), who: r.Who.clone()}
		for _, m := range r.Models {
			c.models = append(c.models, newGlob(m))
			p.models = true
		}
		if len(r.Deny) > 0 {
			p.deny = append(p.deny, c)
		} else {
			p.allow = append(p.allow, c)
		}
	}
	return p, nil
}

// Screen decides whether the call could be allowed, whatever model the body of the request names. The
// zero Call stands for any call. It returns nil or a [*Refusal]. The gateway calls it before it reads
// the body, to save that work for callers without any rights.
func (p *Policy) Screen(caller *identity.Principal, call model.Call) error {
	any := call == model.Call{}
	for i := range p.deny {
		if d := &p.deny[i]; (d.every() || !any && len(d.models) == 0 && d.coversVerb(call, false)) && d.who.match(caller) {
			return &Refusal{Reason: ReasonForbidden, Cause: d.denial(nil)}
		}
	}
	for i := range p.allow {
		if a := &p.allow[i]; (any || a.coversVerb(call, true)) && a.who.match(caller) {
			return nil
		}
	}
	if any {
		return p.refusal(caller, nil)
	}
	return p.refusal(caller, &call)
}

// Decide returns a valid [Grant] if the caller may make the call, and a [*Refusal] if not.
// The zero Principal and a call without a dialect or a verb are refused.
func (p *Policy) Decide(caller *identity.Principal, call model.Call) (Grant, error) {
	if caller.IsZero() || call.Dialect == nil || call.Verb == "" {
		return Grant{}, &Refusal{Reason: ReasonForbidden, Cause: "the caller or the call is not known"}
	}
	for i := range p.deny {
		if d := &p.deny[i]; d.covers(call, false) && d.who.match(caller) {
			return Grant{}, &Refusal{Reason: ReasonForbidden, Cause: d.denial(&call)}
		}
	}
	for i := range p.allow {
		if a := &p.allow[i]; a.covers(call, true) && a.who.match(caller) {
			return Grant{call: call}, nil
		}
	}
	return Grant{}, p.refusal(caller, &call)
}

// Provide decides like [Policy.Decide] on a call whose body is not verified yet. It
// refuses every call to servers that may act on a part of the body
// ([model.Dialect.ActsOnWhole]). The result keeps the pointer to the caller, which must
// not change until [Provisional.Complete] has returned.
func (p *Policy) Provide(caller *identity.Principal, call model.Call) (Provisional, error) {
	if _, err := p.Decide(caller, call); err != nil {
		return Provisional{}, err
	}
	if !call.Dialect.ActsOnWhole() {
		return Provisional{}, &Refusal{Reason: ReasonForbidden, Cause: "the server may act on a part of the body, which is not verified yet"}
	}
	return Provisional{policy: p, caller: caller, call: call}, nil
}

// ProvideUnnamed is [Policy.Provide] for a call whose body will name the model. The call must be
// completed by [Provisional.Complete] before the end of the body, or of the message that names the
// model, is sent.
func (p *Policy) ProvideUnnamed(caller *identity.Principal, call model.Call) (Provisional, error) {
	if err := p.Screen(caller, call); err != nil {
		return Provisional{}, err
	}
	if caller.IsZero() || call.Dialect == nil || !call.Dialect.ActsOnWhole() {
		return Provisional{}, &Refusal{Reason: ReasonForbidden, Cause: "the server may act on a part of the body, which does not name the model yet"}
	}
	return Provisional{policy: p, caller: caller, call: call}, nil
}

// refusal returns the refusal of a call that no rule allows; a nil call means any. If only
// the scopes of the caller's token prevent a rule from allowing it, the refusal names the
// scopes of the first such rule. A caller without a token, such as one that signs with a key,
// cannot get a scope, so it is forbidden.
func (p *Policy) refusal(caller *identity.Principal, call *model.Call) *Refusal {
	if caller.Claim != nil {
		for i := range p.allow {
			a := &p.allow[i]
			if (call == nil || a.covers(*call, true)) && len(a.who.Scope) > 0 && a.who.matchButScope(caller) {
				return &Refusal{Reason: ReasonInsufficientScope, Scopes: a.who.Scope, Cause: p.cause(caller, call)}
			}
		}
	}
	return &Refusal{Reason: ReasonForbidden, Cause: p.cause(caller, call)}
}

// rule is a compiled [Rule]; whether it allows or denies follows from the list it is in.
type rule struct {
	at     string // its place in the configuration
	verbs  []string
	models []glob   // empty: all
	named  []string // the patterns of models as written, for causes
	who    Who
}

// every reports whether the rule covers all calls.
func (r *rule) every() bool { return len(r.models) == 0 && slices.Contains(r.verbs, "*") }

// covers reports whether the rule is about the call. allow tells an allow rule from a deny rule: a
// call that names no model is covered by no allow rule about models and by every deny rule about
// models, and management only by an allow rule that names it.
func (r *rule) covers(call model.Call, allow bool) bool {
	return r.coversVerb(call, allow) && r.coversModel(call, !allow)
}

func (r *rule) coversVerb(call model.Call, allow bool) bool {
	class := call.Class()
	return slices.ContainsFunc(r.verbs, func(v string) bool {
		if v == "*" {
			return !allow || class != model.Management
		}
		return call.Runs(v) || class != "" && v == string(class)
	})
}

// coversModel reports whether the rule is about the call's model. unknown is the answer for a call
// that names no model, if the rule names some. Metadata of the server is about no model: rules about
// some models allow it and do not deny it. Other calls about the server may touch every model.
func (r *rule) coversModel(call model.Call, unknown bool) bool {
	switch {
	case len(r.models) == 0 || slices.Contains(r.named, "*"):
		return true
	case call.Server && call.Class() == model.Metadata:
		return !unknown
	case call.Model == "":
		return unknown
	}
	return slices.ContainsFunc(r.models, func(g glob) bool { return g.match(call.Model) })
}
