package h2

import (
	"context"
	"errors"
	"time"

	"sallyport/proxy/wire"
)

// finish ends the connection and sends the client the reason.
func (c *serverConn) finish(why error) {
	c.mu.Lock()
	var bad *fault
	switch {
	case errors.As(why, &bad):
		c.goAway(bad.code)
	case c.stage >= closing && c.stage < over && len(c.streams) == 0:
	default: // the client has left, or the connection broke
		c.die(why)
	}
	if c.stage == over {
		c.mu.Unlock()
		c.in.drop()
		c.Cut()
		return
	}
	_ = c.conn.SetDeadline(time.Now().Add(wire.Brief)) // fails only on a closed connection, where the write fails too
	for c.writing {
		c.changed.Wait()
	}
	c.flush(nil)
	c.die(why)
	c.mu.Unlock()
	c.linger()
}

// linger closes the connection so that the client can still read the last frames.
func (c *serverConn) linger() {
	c.in.drop()
	buf := c.srv.bufs.Get(maxFrame + 1)
	defer c.srv.bufs.Put(buf)
	c.srv.Linger(c.conn, wire.Brief, buf.B[:cap(buf.B)])
}

// await waits until no handler is running.
func (c *serverConn) await() {
	c.mu.Lock()
	defer c.mu.Unlock()
	for c.serving > 0 {
		c.changed.Wait()
	}
}

// die fails every stream; mu is held. Pending reads and writes end when the connection is closed.
func (c *serverConn) die(why error) {
	if c.stage == over {
		return
	}
	if why == nil {
		why = context.Canceled
	}
	c.stage, c.why = over, why
	c.srv.widened.Add(int64(c.firstWindow() - c.receive.size))
	for _, s := range c.streams {
		s.fail(why)
		c.forget(s)
	}
	c.srv.bufs.Put(c.out)
	c.out = nil
	c.changed.Broadcast()
}

// Cut implements [wire.Served].
func (c *serverConn) Cut() { wire.Cut(c.conn) }

// Abandon implements [wire.Served].
func (c *serverConn) Abandon() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.die(context.Canceled)
	c.Cut()
}

// goAway sends GOAWAY: no stream above the last is served; mu is held.
func (c *serverConn) goAway(why code) {
	if c.stage >= over {
		return
	}
	c.hello()
	b := c.control()
	b.B = appendGoAway(b.B, c.taken, why)
	c.stage = max(c.stage, closing)
}

// Drain implements [wire.Served]. It announces the end of the connection. Requests that the client
// sent before it received the GOAWAY are still served; the answer to a PING marks that point.
func (c *serverConn) Drain() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.warn()
}

// warn implements Drain; mu is held.
func (c *serverConn) warn() {
	if c.stage != open {
		return
	}
	c.stage, c.due = warned, time.Now().Add(wire.Brief)
	c.hello()
	b := c.control()
	b.B = appendPing(appendGoAway(b.B, maxStream, noError), 0, []byte(drainPing))
	c.kick()
}

// The contents of PINGs.
const (
	drainPing = "draining"
	alivePing = "are you?"
)

// close refuses new requests, and ends the connection once all are answered; mu is held.
func (c *serverConn) close() {
	if c.stage >= closing {
		return
	}
	c.goAway(noError)
	if len(c.streams) == 0 {
		c.stop()
	}
	c.kick()
}

// stop makes the reader end; mu is held.
func (c *serverConn) stop() {
	c.stage = max(c.stage, ending)
	_ = c.conn.SetReadDeadline(longAgo) // fails only on a closed connection, where reads fail too
}

// longAgo is a deadline in the past.
var longAgo = time.Unix(1, 0)
