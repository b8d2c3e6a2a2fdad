package policy

import (
	"sallyport/auth/identity"
	"sallyport/policy/model"
)

// Grant is permission to make one call, which it carries. Only [Policy.Decide] and
// [Provisional.Complete] make a valid one; the zero Grant permits nothing.
type Grant struct{ call model.Call }

// Valid says whether the grant permits anything.
func (g Grant) Valid() bool { return g.call != model.Call{} }

// Call returns the call that the grant permits, or the zero Call if it permits none.
func (g Grant) Call() model.Call { return g.call }

// Permits says whether the grant was given for exactly this call. The holder checks it
// against the request that it is about to send, so that no grant serves another.
func (g Grant) Permits(call model.Call) bool { return g.Valid() && g.call == call }

// Provisional is permission to send a call to the upstream except for the end of its
// body, which is held back until the body has been verified. Only [Policy.Provide] makes
// a valid one, and only for servers that do nothing before that end. The zero
// Provisional permits nothing.
type Provisional struct {
	policy *Policy
	caller *identity.Principal
	call   model.Call
}

// Valid says whether it permits anything.
func (p Provisional) Valid() bool { return p.policy != nil }

// Permits says whether it was given for exactly this call; see [Grant.Permits].
func (p Provisional) Permits(call model.Call) bool { return p.Valid() && p.call == call }

// Complete decides on the whole call, once the body has been read, and returns the grant
// that releases its end, or a [*Refusal]. The body may name the model or version that
// the head left out. It must not change anything that the head named: the upstream has
// that already.
func (p Provisional) Complete(call model.Call) (Grant, error) {
	if !p.Valid() || !completes(p.call, call) {
		return Grant{}, &Refusal{Reason: ReasonForbidden}
	}
	return p.policy.Decide(p.caller, call)
}

// completes says whether whole is the call begun, with nothing changed and perhaps more
// known.
func completes(begun, whole model.Call) bool {
	return begun.Dialect == whole.Dialect && begun.Verb == whole.Verb &&
		(begun.Model == "" || begun.Model == whole.Model) &&
		(begun.Version == "" || begun.Version == whole.Version)
}
