package h2

import (
	"errors"
	"fmt"
	"net"
	"time"

	"sallyport/proxy/message"
	"sallyport/proxy/wire"
)

// Servers end a connection, with every request on it, when a client does certain things too often.
// Requests of many callers share a connection here. The limits in this file keep one caller from
// causing that for all.

const (
	// maxResets limits the cost of resets before the connection accepts no more requests; one is
	// restored each second. Netty ends a connection at 200 resets in 30 s, Envoy at 500 early ones,
	// nghttp2 and Node at 1000.
	maxResets = 100
	// earlyReset is the cost of a reset soon after the request and before any answer. Rust's h2
	// ends a connection at 21 of those at once.
	earlyReset = 5
	// early is how long after the request a reset counts as early.
	early = time.Second
	// resetsPerStream limits resets for servers that allow few concurrent requests. Go's server
	// ends a connection when four times as many wait for handlers as may run.
	resetsPerStream = 4

	// maxPings is how many PINGs may be sent without HEADERS or DATA between them. Beyond it, one may
	// be sent in each [ClientOptions.PingRest].
	maxPings = 2
)

// spendReset reports whether a stream may be reset now, and counts the reset. Once callers have
// cancelled too much, the connection accepts no more requests: they go to a fresh one. mu is held.
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

// dryTime is how long the connection's send window may be used up before other exchanges go elsewhere.
const dryTime = 250 * time.Millisecond

// spendWindow takes n bytes from the connection's send window; mu is held.
func (c *Client) spendWindow(n sending) {
	if c.send -= n; c.send <= 0 {
		c.dryAt = time.Now()
	}
}

// Dry reports whether the server has left the connection's send window used up for a while. Some servers
// widen it only when a handler reads, so uploads that nobody reads hold those of all callers.
func (c *Client) Dry() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return !c.dryAt.IsZero() && time.Since(c.dryAt) > dryTime
}

// linger keeps a stream whose reset must wait. Data that the server still sends is discarded, and the
// windows do not grow. The stream ends with the answer, with a later reset, or with the connection
// once it has no other exchange. mu is held.
func (c *Client) linger(k *call, why code, now time.Time) {
	k.fail(&wire.Error{Fault: wire.FaultBroken, Err: net.ErrClosed}) // if it has no other error
	k.lingers, k.resetBy = true, why
	c.lingers++
	c.lingering = append(c.lingering, k)
	c.remind(now.Add(time.Second))
}

// resetLingering resets the lingering streams that the budget allows; mu is held.
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

// reset resets a stream and forgets it; mu is held. Data up to the stream's window may still arrive,
// in frames of any size. That is no fault of the server.
func (c *Client) reset(k *call, why code) {
	k.reset = true
	c.stale = min(c.stale+k.receive.left, connWindow)
	b := c.control()
	b.B = appendReset(b.B, k.id, why)
	c.forget(k)
}

// settle forgets a lingering stream that has ended on both sides; mu is held.
func (c *Client) settle(k *call) {
	if k.lingers && k.inEnded && k.outEnded {
		c.forget(k)
		c.rest()
	}
}

// spendPing reports whether a PING may be sent now, and counts it. A connection whose liveness
// cannot be tested accepts no more requests. mu is held.
func (c *Client) spendPing(now time.Time) bool {
	if c.pings >= maxPings && now.Sub(c.pingAt) < c.options.PingRest {
		c.draining = true
		return false
	}
	c.pings++
	c.pingAt = now
	return true
}

// askSilent sends a PING if requests are in flight and the server has been silent for PingRest. A
// request may wait long for an event, but must not wait for a dead server. mu is held.
func (c *Client) askSilent(now time.Time) {
	if len(c.calls) == c.lingers || c.pinged {
		return
	}
	at := c.heard
	if c.pingAt.After(at) {
		at = c.pingAt
	}
	if at = at.Add(c.options.PingRest); now.Before(at) {
		c.remind(at)
		return
	}
	c.ping()
	c.kick()
}

// calmed returns the error of calls that fail with the connection; mu is held.
func (c *Client) calmed(why *wire.Error) *wire.Error {
	if !c.calm || errors.Is(why, wire.ErrCalm) {
		return why
	}
	return &wire.Error{Fault: why.Fault, Err: fmt.Errorf("%w: %w", wire.ErrCalm, why.Err)}
}

// fieldsSize returns the size of fields as SETTINGS_MAX_HEADER_LIST_SIZE counts it (RFC 9113, section
// 6.5.2).
func fieldsSize(fields message.Fields) (n int64) {
	for i := range fields {
		n += int64(fieldSize(&fields[i]))
	}
	return n
}

// ownFields is the largest size of the client's own fields, without the values of the pseudo fields.
const ownFields = int64(len(":method:scheme:authority:path"+"content-length"+"te"+"trailers") + 18 + 6*perField)

// checkSize refuses a head that is larger than the server accepts, because some servers then end the
// connection. mu is held.
func (c *Client) checkSize(r *wire.Request) *wire.Error {
	if c.takes < 0 {
		return nil
	}
	n := ownFields + int64(len(r.Method)+len(c.options.Scheme)+len(r.Host)+len(r.Target)) + fieldsSize(r.Fields)
	if n <= c.takes {
		return nil
	}
	return &wire.Error{Fault: wire.FaultRequest, Err: fmt.Errorf("writing request: %w: it has %d bytes, and the server accepts %d", message.ErrHeadTooLarge, n, c.takes)}
}
