package proxy

import (
	"time"

	"sallyport/proxy/limit"
)

// routeLimits are the bounds of one route. The counts outlive the exchanges.
type routeLimits struct {
	body     int64 // largest request body in bytes; zero: none
	rates    limit.Rates
	inFlight *limit.InFlight
}

// admission is what an exchange holds while it is under way. The zero admission
// holds nothing.
type admission struct{ inFlight *limit.InFlight }

func (a *admission) release() {
	if a.inFlight != nil {
		a.inFlight.Leave()
		a.inFlight = nil
	}
}

// busyRetry is what a caller is told to wait when all places are taken: long
// enough that waiting is worth more than asking.
const busyRetry = time.Second

// admit takes room for the request, or refuses it: the body that it announces,
// the caller's rate, a place in flight, a slot in the audit log.
func (x *exchange) admit() error {
	l := &x.route.limits
	if x.g.room.Spent() {
		return &refusal{reason: reasonOverloaded, retryAfter: busyRetry}
	}
	if most := x.longestBody(); most > 0 && x.head.ContentLength > most {
		return &refusal{reason: reasonBodyTooLarge, cause: errTooLarge}
	}
	who := x.record.Principal
	if x.caller.Source == "anonymous" {
		who += "@" + limit.Key(x.client).String() // nobody's name is everybody's
	}
	if retry, ok := l.rates.Allow(who, x.client); !ok {
		return &refusal{reason: reasonRate, retryAfter: retry}
	}
	if !l.inFlight.Enter() {
		return &refusal{reason: reasonBusy, retryAfter: busyRetry}
	}
	x.held.inFlight = l.inFlight
	if err := x.g.audit.Reserve(); err != nil {
		return &refusal{reason: reasonAudit, cause: err, retryAfter: busyRetry}
	}
	x.record.Reserved = true
	// Here, because a refusal after the claim costs the caller a nonce. Nothing is set
	// aside: who announces much and sends little would take it from all others.
	if x.head.ContentLength != 0 && x.holds() && x.g.memory.Left() < blocksOf(x.head.ContentLength) {
		return &refusal{reason: reasonBodyMemory, cause: errMemory, retryAfter: busyRetry}
	}
	return nil
}

// longestBody is how much content the request may have, in bytes; zero: no bound.
func (x *exchange) longestBody() int64 {
	most, i := x.route.limits.body, &x.route.integrity
	if x.holds() && (most == 0 || i.buffer < most) {
		most = i.buffer
	}
	return most
}
