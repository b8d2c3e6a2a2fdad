package exchange

import (
	"time"

	"sallyport/proxy/limit"
	"sallyport/proxy/seal"
)

// admitted is the place in flight that an exchange has. The zero value has none.
type admitted struct{ inFlight *limit.InFlight }

func (a *admitted) release() {
	if a.inFlight != nil {
		a.inFlight.Leave()
		a.inFlight = nil
	}
}

// busyRetry is the Retry-After when all places are taken: long
// enough that waiting is worth more than asking.
const busyRetry = time.Second

// admit takes room for the request, or refuses it: the body that it announces,
// the caller's rate, a place in flight, a slot in the audit log.
func (x *exchange) admit() error {
	l := &x.route.Limits
	if x.server.Pressure.Spent() {
		return &refusal{reason: reasonOverloaded, retryAfter: busyRetry}
	}
	if most := x.longestBody(); most > 0 && x.head.ContentLength > most {
		return &refusal{reason: reasonBodyTooLarge, cause: errTooLarge}
	}
	who := x.record.Principal
	if x.caller.Source == "anonymous" {
		who += "@" + limit.Key(x.client).String() // nobody's name is everybody's
	}
	if retry, ok := l.Rates.Allow(who, x.client); !ok {
		return &refusal{reason: reasonRate, retryAfter: retry}
	}
	if !l.InFlight.Enter() {
		return &refusal{reason: reasonBusy, retryAfter: busyRetry}
	}
	x.inFlight = l.InFlight
	if err := x.server.Audit.Reserve(); err != nil {
		return &refusal{reason: reasonAudit, cause: err, retryAfter: busyRetry}
	}
	x.record.Reserved = true
	// Here, because a refusal after the claim costs the caller a nonce. Nothing is set
	// aside: who announces much and sends little would take it from all others.
	if x.head.ContentLength != 0 && x.holdsBody() && x.server.Held.Left() < seal.BlocksOf(x.head.ContentLength) {
		return &refusal{reason: reasonBodyMemory, cause: seal.ErrMemory, retryAfter: busyRetry}
	}
	return nil
}

// longestBody is how much content the request may have, in bytes; zero: no bound.
func (x *exchange) longestBody() int64 {
	most, i := x.route.Limits.Body, &x.route.Integrity
	if x.holdsBody() && (most == 0 || i.Buffer < most) {
		most = i.Buffer
	}
	return most
}
