package exchange

import (
	"net/netip"
	"strings"

	"sallyport/auth"
	"sallyport/policy/model"
	"sallyport/proxy/message"
	"sallyport/proxy/route"
	"sallyport/proxy/setting"
)

// Outcome is how the gateway answers a request that it refuses.
type Outcome struct {
	Reason string // one of [Reasons]
	Status int
	Cause  string // for the operator only
}

// OutcomeOf returns how an error of a step is answered.
func OutcomeOf(err error) Outcome {
	r := asRefusal(err)
	o := Outcome{Reason: r.reason, Status: outcomes[r.reason].status}
	if r.cause != nil {
		o.Cause = r.cause.Error()
	}
	return o
}

// Interpret reads what the head of a request asks of the upstream of a route, as a request on its way
// does. The head must be settled.
func Interpret(r *route.Route, h *message.Head, grpc bool) (model.Reading, error) {
	target, err := r.Rewriting.Target(h)
	if err != nil {
		return model.Reading{}, err
	}
	return readAt(r, h, target, grpc, new(model.Request))
}

// AddressRefusal returns the error for a client whose address the route does not admit.
func AddressRefusal(r *route.Route, client netip.Addr) error {
	return because(reasonAddress, r.Access.Refusal(client))
}

// Unlisted returns the error for a caller whom none of a route's callers admits.
func Unlisted(caller string, listed []string) error {
	return because(auth.UnlistedCredential, "callers does not list "+setting.Quoted(caller, 64)+": "+setting.Shortened(strings.Join(listed, ", "), 120))
}
