package exchange

import (
	"fmt"
	"sync"
	"time"

	"sallyport/policy/model"
	"sallyport/proxy/limit"
	"sallyport/proxy/message"
)

// limited is what the entries of the route's limits have counted of an exchange.
type limited struct {
	mu      sync.Mutex  // guards the fields below: an upload runs beside the exchange
	open    limit.Stage // the stages that have not counted the request
	taken   limit.Taken
	entered limit.Entered // by the head
	named   limit.Entered // by the model in the body
	model   string        // the model that has been counted
	own     *limit.Own    // the caller's own rate, which has counted the request; nil: none
	ownAt   time.Duration // when it did, as of elapsed
}

// release gives the places in flight back. What was taken from rates stays taken.
func (l *limited) release() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.taken.Forget(0)
	l.entered.Leave()
	l.named.Leave()
	l.open, l.model, l.own, l.ownAt = 0, "", nil, 0
}

// giveBack undoes all that rates have counted until now.
func (l *limited) giveBack(now time.Duration) {
	l.taken.Give(0)
	if l.own != nil {
		l.own.Give(now - l.ownAt)
		l.own = nil
	}
}

// nearest describes the rate of which least is left.
func (l *limited) nearest() limit.Quota {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.taken.Nearest()
}

// admitByLimits counts the request in the limits of the caller and of the route, as far as the head
// tells which. A request over a limit takes nothing. One that the rules refuse takes only from what
// the caller has for itself: otherwise a caller without the right would use up what others share. So
// those entries are only asked while the body may still decide.
func (x *exchange) admitByLimits() error {
	stages, head := limit.Whole, limit.Whole
	var denied error
	if x.reading.NeedsBody() {
		stages, head = limit.Early, limit.Head
	} else if x.route.Limits.Count() {
		if _, denied = x.route.Policy.Decide(&x.caller, x.call, x.about); denied != nil {
			stages, head = limit.Early, limit.Early
		}
	}
	asked := x.factsFor(x.call)
	own := x.snapshot.Own[x.proof.Limited]
	if own != nil {
		if retry, ok := own.Take(); !ok {
			return rateLimited(own.Over(retry, "API key"), "rate of API key "+x.proof.Limited)
		}
	}
	c := &x.limited
	c.mu.Lock()
	defer c.mu.Unlock()
	if own != nil {
		c.own, c.ownAt = own, x.elapsed()
	}
	if err := x.admitByRoute(own, &asked, stages, head); err != nil {
		c.giveBack(x.elapsed())
		return err
	}
	c.open, c.model = limit.Whole&^stages, x.call.Model
	return denied
}

// admitByRoute takes places in flight, and then from the rates, which come last because a place that
// is given back leaves no trace. The first question keeps requests over the rate from holding places
// that others need. The caller holds the mutex of limited.
func (x *exchange) admitByRoute(own *limit.Own, asked *limit.Asked, stages, head limit.Stage) error {
	l := &x.route.Limits
	if over := l.Rates.Wait(asked, head); over != nil {
		return rateLimited(over, "limits.rate")
	}
	if own != nil {
		place := own.InFlight()
		if !place.Enter() {
			return busy(place.Over("API key"), "in_flight of API key "+x.proof.Limited)
		}
		x.own = place
	}
	if !l.InFlight.Enter() {
		return busy(l.InFlight.Over("route"), "limits.in_flight")
	}
	x.inFlight = l.InFlight
	c := &x.limited
	if over := l.Places.Enter(asked, head, &c.entered); over != nil {
		return busy(over, "limits.in_flight")
	}
	if over := l.Rates.Take(asked, stages, &c.taken); over != nil {
		return rateLimited(over, "limits.rate")
	}
	return nil
}

// countCall counts the call in the entries that have not counted it: those that callers share and,
// once the body has named the model, those that need it. The rules allow the call, or would allow
// it for some model. A refused request takes nothing: what its head took is given back. A stream
// counts once, and again when its messages turn to another model.
func (x *exchange) countCall(call model.Call) error {
	l, c := &x.route.Limits, &x.limited
	if !l.Count() {
		return nil
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	stages := c.open
	switch {
	case call.Model == "" && x.awaitsName():
		stages &^= limit.Late
	case stages&limit.Late == 0 && x.reading.Streams() && call.Model != c.model:
		stages |= limit.Late
		c.named.Leave()
		c.taken.Forget(0) // what it took for the other model stays taken
	}
	if stages == 0 {
		return nil
	}
	asked := x.factsFor(call)
	over := l.Rates.Wait(&asked, stages)
	if over == nil {
		if full := l.Places.Enter(&asked, stages&limit.Late, &c.named); full != nil {
			c.giveBack(x.elapsed())
			return busy(full, "limits.in_flight")
		}
		over = l.Rates.Take(&asked, stages, &c.taken)
	}
	if over != nil {
		c.giveBack(x.elapsed())
		return rateLimited(over, "limits.rate")
	}
	c.open &^= stages
	if stages&limit.Late != 0 {
		c.model = call.Model
		c.own = nil // from now on the request has had what it took
	}
	return nil
}

// countDecided is countCall for a request whose rules have allowed it. It refuses a body that does
// not name the model clearly, if an entry needs the model, and one that cannot be read, if the route
// limits what it asks for.
func (x *exchange) countDecided() error {
	if fault := x.scanned.fault; fault != nil && (x.limitsNeedModel() || x.asker != "" && x.counts()) {
		return fault
	}
	return x.countCall(x.call)
}

// awaitsName reports whether the body will still name the model.
func (x *exchange) awaitsName() bool { return x.scanned.scanner != nil && !x.scanned.known() }

// limitsNeedModel reports whether an entry counts the request by the model in its body.
func (x *exchange) limitsNeedModel() bool {
	l := &x.route.Limits
	if !l.Count() {
		return false
	}
	asked := x.factsFor(x.reading.Call)
	return l.Rates.NeedModel(&asked) || l.Places.NeedModel(&asked)
}

// factsFor returns what limits know of the request when it makes this call.
func (x *exchange) factsFor(call model.Call) limit.Asked {
	verb := call.Verb
	if verb == "head" {
		verb = "get" // servers run the same for both
	}
	return limit.Asked{Principal: x.limitedAs(), Client: x.client, Groups: x.caller.Groups, Verb: verb, Class: string(call.Class()), Model: call.Model}
}

// limitedAs returns the name under which limits per principal count the caller. A caller with an
// alias counts once, whichever of its credentials it uses.
func (x *exchange) limitedAs() string {
	switch {
	case x.caller.Source == "anonymous":
		return x.record.Principal + "@" + limit.Key(x.client).String() // they share one name, so add the address
	case x.caller.Alias != "":
		return x.caller.Alias
	}
	return x.record.Principal
}

func rateLimited(over *limit.Over, setting string) *refusal {
	return &refusal{reason: reasonRate, retryAfter: over.Retry, quota: over.Quota, cause: fmt.Errorf("over %s (%s)", over.Words, setting)}
}

func busy(over *limit.Over, setting string) *refusal {
	return &refusal{reason: reasonBusy, retryAfter: over.Retry, quota: over.Quota, cause: fmt.Errorf("%s already (%s)", over.Words, setting)}
}

// tellQuota adds the fields about a limit: for a refusal of the limit that refuses, and otherwise,
// where the route says so, of the rate of which least is left.
func (x *exchange) tellQuota(q limit.Quota, f *message.Fields) {
	if q == (limit.Quota{}) && x.route != nil && x.route.Limits.Headers {
		q = x.limited.nearest()
	}
	if q != (limit.Quota{}) {
		f.Add("ratelimit-policy", q.Policy)
		f.Add("ratelimit", q.State)
	}
}
