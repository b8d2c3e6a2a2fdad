package exchange

import (
	"fmt"
	"strconv"
	"time"

	"sallyport/proxy/limit"
	"sallyport/proxy/seal"
)

// admitted holds the exchange's place in flight. The zero value holds none.
type admitted struct{ inFlight *limit.InFlight }

func (a *admitted) release() {
	if a.inFlight != nil {
		a.inFlight.Leave()
		a.inFlight = nil
	}
}

// busyRetry is the Retry-After when all places in flight are taken.
const busyRetry = time.Second

// admit checks free memory, the announced body size, the caller's rate, the places in flight and the
// audit queue. It takes a place in flight and one in the audit queue.
func (x *exchange) admit() error {
	l := &x.route.Limits
	if x.server.Pressure.Spent() {
		r := because(reasonOverloaded, x.server.Pressure.String())
		r.retryAfter = busyRetry
		return r
	}
	if most, name := x.longestBody(); most > 0 && x.head.ContentLength > most {
		return because(reasonBodyTooLarge, "Content-Length is "+strconv.FormatInt(x.head.ContentLength, 10)+", "+over(most, name))
	}
	who := x.record.Principal
	if x.caller.Source == "anonymous" {
		who += "@" + limit.Key(x.client).String() // anonymous callers share one name, so add the address
	}
	if retry, ok := l.Rates.Allow(who, x.client); !ok {
		return &refusal{reason: reasonRate, retryAfter: retry, cause: fmt.Errorf("over %s (limits.rate)", l.Rates.Tightest(who, x.client))}
	}
	if !l.InFlight.Enter() {
		return &refusal{reason: reasonBusy, retryAfter: busyRetry, cause: fmt.Errorf("%d in flight already (limits.in_flight)", l.InFlight.Max())}
	}
	x.inFlight = l.InFlight
	if x.durability().Waits() {
		if err := x.server.Audit.Timely(); err != nil {
			return &refusal{reason: reasonAudit, cause: err, retryAfter: busyRetry}
		}
	}
	if err := x.server.Audit.Reserve(); err != nil {
		return &refusal{reason: reasonAudit, cause: err, retryAfter: busyRetry}
	}
	x.record.Reserved = true
	// Check here, because a refusal after the claim costs the caller a nonce. No memory is reserved:
	// otherwise a caller could announce much, send little and block all others.
	if x.head.ContentLength != 0 && x.holdsBody() && x.server.Held.Left() < seal.BlocksOf(x.head.ContentLength) {
		return x.noMemory(x.head.ContentLength)
	}
	return nil
}

// longestBody returns the limit of the request's content in bytes and the name of its setting. Zero
// means no limit.
func (x *exchange) longestBody() (most int64, name string) {
	most, i := x.route.Limits.Body, &x.route.Integrity
	if x.holdsBody() && (most == 0 || i.Buffer < most) {
		return i.Buffer, "integrity.buffer"
	}
	return most, "limits.body"
}
