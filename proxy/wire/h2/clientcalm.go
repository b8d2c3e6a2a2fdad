package h2

import (
	"errors"
	"fmt"
	"net"
	"time"

	"sallyport/proxy/message"
	"sallyport/proxy/wire"
)

// Servers end a connection, and every request on it, over what a client does too often.
// The requests of many callers share a connection here, so that the bounds of this file
// keep each of them from reaching such a limit for all.

const (
	// maxResets is what resets may cost before the connection takes no more requests; one
	// comes back each second. Netty ends a connection at 200 resets in 30 s, Envoy at 500
	// early ones, nghttp2 and Node at 1000.
	maxResets = 100
	// earlyReset is the cost of a reset that follows the request at once, before any
	// answer. The h2 of Rust ends a connection at 21 that come together.
	earlyReset = 5
	// early is for how long after the request a reset follows it at once.
	early = time.Second
	// resetsPerStream bounds resets for servers that take few requests at a time: that of
	// Go ends a connection when four times as many wait for handlers as it runs.
	resetsPerStream = 4

	// maxPings is how many PINGs may be sent without HEADERS or DATA between them. C-core
	// and grpc-go end a connection at the fourth that comes within pingRest.
	maxPings = 2
	pingRest = 5*time.Minute + 10*time.Second
)

// spendReset says whether a stream may be reset now, and counts it. A connection on
// which callers cancel much takes no more requests: they go to a fresh one. mu is held.
func (c *Client) spendReset(k *call, now time.Time) bool {
	if n := now.Sub(c.resetsAt) / time.Second; n > 0 {
		c.resets = max(0, c.resets-int(n))
		c.resetsAt = now
	}
	most := or(c.options.Resets, min(maxResets, resetsPerStream*c.most))
	if c.resets >= most {
		return false
	}
	if c.resets++; !k.headed && now.Sub(k.begun) < early {
		c.resets += earlyReset - 1
	}
	c.draining = c.draining || c.resets >= most
	return true
}

// linger keeps a stream that may not be reset yet. What the server still sends is thrown
// away, and its windows are not widened. The stream ends with the answer, with a reset
// once one may be sent, or with the connection when no exchange is left on it. mu is held.
func (c *Client) linger(k *call, why code, now time.Time) {
	k.fail(&wire.Error{Fault: wire.FaultBroken, Err: net.ErrClosed}) // if it has no other error
	k.lingers, k.resetBy = true, why
	c.lingers++
	c.lingering = append(c.lingering, k)
	c.remind(now.Add(time.Second))
}

// resetLingering resets the streams that linger, as far as it may; mu is held.
func (c *Client) resetLingering(now time.Time) {
	for len(c.lingering) > 0 {
		k := c.lingering[0]
		if c.calls[k.id] == k {
			if !c.spendReset(k, now) {
				c.remind(now.Add(time.Second))
				break
			}
			c.reset(k, k.resetBy)
		}
		c.lingering[0] = nil
		c.lingering = c.lingering[1:]
	}
	c.kick()
}

// reset resets a stream and forgets it; mu is held. What its window holds may be under
// way, in frames of any size: that is no fault of the server.
func (c *Client) reset(k *call, why code) {
	k.reset = true
	c.stale = min(c.stale+k.receive.left, connWindow)
	b := c.control()
	b.B = appendReset(b.B, k.id, why)
	c.forget(k)
}

// settle forgets a stream that lingered and has ended on both sides; mu is held.
func (c *Client) settle(k *call) {
	if k.lingers && k.inEnded && k.outEnded {
		c.forget(k)
		c.rest()
	}
}

// spendPing says whether a PING may be sent now, and counts it. A connection that may
// not be asked whether it lives takes no more requests. mu is held.
func (c *Client) spendPing(now time.Time) bool {
	if c.pings >= maxPings && now.Sub(c.pingAt) < pingRest {
		c.draining = true
		return false
	}
	c.pings++
	c.pingAt = now
	return true
}

// calmed is why calls fail with the connection; mu is held.
func (c *Client) calmed(why *wire.Error) *wire.Error {
	if !c.calm || errors.Is(why, wire.ErrCalm) {
		return why
	}
	return &wire.Error{Fault: why.Fault, Err: fmt.Errorf("%w: %w", wire.ErrCalm, why.Err)}
}

// fieldsSize is what fields count for SETTINGS_MAX_HEADER_LIST_SIZE (RFC 9113, section
// 6.5.2).
func fieldsSize(fields message.Fields) (n int64) {
	for i := range fields {
		n += int64(fieldSize(&fields[i]))
	}
	return n
}

// ownFields is the most that the fields of the client's own count, but for the values of
// the pseudo fields.
const ownFields = int64(len(":method:scheme:authority:path"+"content-length"+"te"+"trailers") + 18 + 6*perField)

// checkSize refuses a head that is larger than the server takes: some servers end the
// connection at one. mu is held.
func (c *Client) checkSize(r *wire.Request) *wire.Error {
	if c.takes < 0 {
		return nil
	}
	n := ownFields + int64(len(r.Method)+len(c.options.Scheme)+len(r.Host)+len(r.Target)) + fieldsSize(r.Fields)
	if n <= c.takes {
		return nil
	}
	return &wire.Error{Fault: wire.FaultRequest, Err: fmt.Errorf("writing request: %w: it counts %d bytes, and the server takes %d", message.ErrHeadTooLarge, n, c.takes)}
}
