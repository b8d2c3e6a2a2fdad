package policy

import (
	"sallyport/auth/identity"
	"sallyport/policy/model"
)

// Grant is permission to make one call. Only [Policy.Decide] and [Provisional.Complete]
// return valid grants; the zero Grant permits nothing.
type Grant struct{ call model.Call }

// Valid reports whether the grant permits anything.
func (g Grant) Valid() bool { return g.call != model.Call{} }

// Call returns the call that the grant permits, or the zero Call if it permits none.
func (g Grant) Call() model.Call { return g.call }

// Permits reports whether the grant is for exactly this call. The gateway checks it with
// the request that it is about to send, so that a grant cannot be used for another.
func (g Grant) Permits(call model.Call) bool { return g.Valid() && g.call == call }

// Provisional is permission to send a call to the upstream except for the end of its
// body, which the gateway withholds until it has verified the body. Only
// [Policy.Provide] returns a valid one, and only for servers that do nothing before that
// end. The zero Provisional permits nothing.
type Provisional struct {
	policy *Policy
	caller *identity.Principal
	call   model.Call
	facts  *Facts
}

// Valid reports whether it permits anything.
func (p Provisional) Valid() bool { return p.policy != nil }

// Permits reports whether it is for exactly this call; see [Grant.Permits].
func (p Provisional) Permits(call model.Call) bool { return p.Valid() && p.call == call }

// Complete decides on the whole call once the body has been read. It returns a grant to
// send the end of the body, or a [*Refusal]. The body may name a model or version that
// the head does not name, but must not contradict the head, which the upstream already
// has.
func (p Provisional) Complete(call model.Call) (Grant, error) {
	if !p.Valid() || !extends(call, p.call) {
		return Grant{}, &Refusal{Reason: ReasonForbidden, Cause: "the call in the body differs from the call in the head"}
	}
	return p.policy.Decide(p.caller, call, p.facts)
}

// extends reports whether whole equals head, except that it may name a model, with version and
// signature, where head names none.
func extends(whole, head model.Call) bool {
	if head.Model == "" {
		head.Model, head.Version, head.Signature = whole.Model, whole.Version, whole.Signature
	}
	return whole == head
}
