package exchange

import (
	"fmt"
	"strconv"
	"time"

	"sallyport/proxy/limit"
	"sallyport/proxy/seal"
)

// admitted holds the exchange's places in flight: of the route, and of a caller with limits of its
// own. The zero value holds none.
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
	if err := x.admitByRate(); err != nil {
		return err
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

// admitByRate checks the caller's own limits and then the route's rates. A caller over its own limits
// takes nothing from the route's, which others share.
func (x *exchange) admitByRate() error {
	own := x.snapshot.Own[x.proof.Limited]
	if own != nil {
		if retry, ok := own.Take(); !ok {
			return &refusal{reason: reasonRate, retryAfter: retry, cause: fmt.Errorf("over %s (rate of API key %s)", own.Rate(), x.proof.Limited)}
		}
		place := own.InFlight()
		if !place.Enter() {
			return &refusal{reason: reasonBusy, retryAfter: busyRetry, cause: fmt.Errorf("%d in flight already (in_flight of API key %s)", place.Max(), x.proof.Limited)}
		}
		x.own = place
	}
	rates, who := x.route.Limits.Rates, x.limitedAs()
	if retry, ok := rates.Allow(who, x.client); !ok {
		if own != nil {
			own.Give()
		}
		return &refusal{reason: reasonRate, retryAfter: retry, cause: fmt.Errorf("over %s (limits.rate)", rates.Tightest(who, x.client))}
	}
	return nil
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

// longestBody returns the limit of the request's content in bytes and the name of its setting. Zero
// means no limit.
func (x *exchange) longestBody() (most int64, name string) {
	most, i := x.route.Limits.Body, &x.route.Integrity
	if x.holdsBody() && (most == 0 || i.Buffer < most) {
		return i.Buffer, "integrity.buffer"
	}
	return most, "limits.body"
}
