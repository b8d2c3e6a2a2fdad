package exchange

import (
	"strconv"
	"time"

	"sallyport/proxy/limit"
	"sallyport/proxy/seal"
)

// admitted holds the exchange's places in flight: of the route, and of a caller with limits of its
// own. The zero value holds none. Those of entries are in [limited].
type admitted struct{ inFlight, own *limit.InFlight }

func (a *admitted) release() {
	for _, place := range [...]*limit.InFlight{a.inFlight, a.own} {
		if place != nil {
			place.Leave()
		}
	}
	*a = admitted{}
}

// busyRetry is the Retry-After when all places in flight are taken.
const busyRetry = time.Second

// admit checks free memory, the announced body size, the limits of rate and in flight, and the
// audit queue. It takes a place in flight and one in the audit queue.
func (x *exchange) admit() error {
	if x.server.Pressure.Spent() {
		r := because(reasonOverloaded, x.server.Pressure.String())
		r.retryAfter = busyRetry
		return r
	}
	if most, name := x.longestBody(); most > 0 && x.head.ContentLength > most {
		return because(reasonBodyTooLarge, "Content-Length is "+strconv.FormatInt(x.head.ContentLength, 10)+", "+over(most, name))
	}
	if err := x.admitByLimits(); err != nil {
		return err
	}
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
