package explain

import (
	"sallyport/policy/model"
	"sallyport/proxy/exchange"
	"sallyport/proxy/message"
	"sallyport/proxy/route"
)

// chosenVersion says which version the route chooses, and for whom.
func chosenVersion(q *Question, version, by string) string {
	return "version " + version + " by " + by + ", as the request names none" + withoutAddress(q, by)
}

// withoutAddress says that a choice would need the client's address; "" if it does not.
func withoutAddress(q *Question, by string) string {
	if q.Caller.Source != route.Anonymous || q.From.IsValid() || by == "rewrite.latest" {
		return ""
	}
	return "; anonymous callers go by address, which is not given (--from)"
}

// chosenUpstream returns the upstream of a request about a model, why it is that one, and the place below
// the route of the setting that says so.
func chosenUpstream(q *Question, r *route.Route, c *route.Config, caller, name string) (upstream, why, path string) {
	upstream, by := r.Release.Upstream(caller, name)
	if by == "" {
		return c.Upstream, c.Upstream + ", as no split is about the request", "upstream"
	}
	return upstream, upstream + " by " + by + withoutAddress(q, by), by
}

// hasPlace returns the error for a request that makes a call without a version, if none can be written
// into it.
func hasPlace(r *route.Route, h *message.Head, call model.Call, caller string) error {
	if reading, err := exchange.Interpret(r, h, true); err == nil && reading.GRPC() && reading.Call.Verb == call.Verb {
		return exchange.NoPlace(&reading)
	}
	_, at, err := exchange.InterpretFor(r, h, false, caller)
	if at == "" {
		return nil
	}
	return err
}
