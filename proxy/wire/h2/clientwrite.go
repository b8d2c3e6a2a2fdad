package h2

import (
	"fmt"
	"os"
	"runtime"
	"time"

	"sallyport/proxy/wire"
	"sallyport/proxy/wire/socket"
)

// control returns the output buffer for control frames; mu is held.
func (c *Client) control() *wire.Buffer {
	if c.out == nil {
		c.out = c.bufs.Get(0)
	}
	return c.out
}

// queue adds whole frames to the output and takes over their buffer; mu is held.
func (c *Client) queue(b *wire.Buffer) {
	if c.out == nil {
		c.out = b
		return
	}
	c.append(nil, b.B)
	c.bufs.Put(b)
}

// append copies a frame; mu is held.
func (c *Client) append(head, payload []byte) {
	b := c.control()
	if n := len(b.B) + len(head) + len(payload); n > cap(b.B) {
		wider := c.bufs.Get(max(n, 2*cap(b.B)))
		wider.B = append(wider.B, b.B...)
		c.bufs.Put(b)
		c.out, b = wider, wider
	}
	b.B = append(append(b.B, head...), payload...)
}

// flush writes pending output unless another goroutine is doing so; it releases mu meanwhile.
func (c *Client) flush() {
	for range 4 {
		if c.out == nil || c.writing || c.gone != nil || c.unwritable != nil {
			return
		}
		c.write()
	}
	c.kick() // other exchanges add output: do not make this one write for them
}

// write writes once; it releases mu meanwhile.
func (c *Client) write() {
	c.writing = true
	if len(c.calls) > 1 {
		// Yield: other ready goroutines may add output to the same write.
		c.mu.Unlock()
		runtime.Gosched()
		c.mu.Lock()
	}
	out := c.out
	c.out = nil
	c.writeBy = time.Now().Add(c.options.WriteTime)
	c.remind(c.writeBy)
	var err error
	if out != nil {
		c.mu.Unlock()
		_, err = c.conn.Write(out.B)
		c.bufs.Put(out)
		c.mu.Lock()
	}
	c.writing = false
	if err != nil {
		c.abandon(err)
	}
	c.changed.Broadcast()
}

// kick starts a goroutine that writes pending output; mu is held. The reader must not write: client
// and server could then block on each other.
func (c *Client) kick() {
	if c.out == nil || c.writing || c.kicked || c.gone != nil || c.unwritable != nil {
		return
	}
	c.kicked = true
	go func() {
		c.mu.Lock()
		defer c.mu.Unlock()
		c.kicked = false
		c.flush()
	}()
}

// abandon ends writing after it has failed; mu is held. The server may have answered before it
// closed, so the reader goes on for a moment.
func (c *Client) abandon(why error) {
	if c.gone != nil || c.unwritable != nil {
		return
	}
	c.unwritable, c.leaving = why, true
	for _, k := range c.calls {
		k.outEnded, k.reset = true, true
		k.writable.Broadcast()
	}
	if c.conn.SetReadDeadline(time.Now().Add(lastWord)) != nil {
		c.die(ofConnection(why))
	}
}

// rest closes the connection when nothing is left to do on it; mu is held.
func (c *Client) rest() {
	if (c.leaving || c.draining) && len(c.calls) == c.lingers && c.taken == 0 {
		c.die(&wire.Error{Fault: wire.FaultBroken, Err: errLeft})
	}
}

// die fails every call and closes the connection; mu is held.
func (c *Client) die(why *wire.Error) {
	if c.gone != nil {
		return
	}
	why = c.calmed(why)
	c.gone, c.leaving = why, true
	for _, k := range c.calls {
		k.fail(why)
		c.forget(k)
	}
	if c.out != nil {
		c.bufs.Put(c.out)
		c.out = nil
	}
	if c.alarm != nil {
		c.alarm.Stop()
	}
	c.changed.Broadcast()
	_ = socket.Beneath(c.conn).Close() // skip close_notify, which could block
}

// ping sends a PING to test whether the server is alive; mu is held.
func (c *Client) ping() {
	now := time.Now()
	if c.pinged || c.gone != nil || !c.spendPing(now) {
		return
	}
	c.pinged, c.pingBy = true, now.Add(c.options.PingTime)
	b := c.control()
	b.B = appendPing(b.B, 0, []byte(alivePing))
	c.remind(c.pingBy)
}

// remind moves the alarm to at if that is earlier; mu is held. Most deadlines are never reached, so
// the timer rarely moves.
func (c *Client) remind(at time.Time) {
	if at.IsZero() || !c.alarmAt.IsZero() && !at.Before(c.alarmAt) || c.gone != nil {
		return
	}
	c.alarmAt = at
	if wait := max(time.Until(at), 1); c.alarm == nil { // a deadline has passed only after its time
		c.alarm = time.AfterFunc(wait, c.look)
	} else {
		c.alarm.Reset(wait)
	}
}

// look wakes waiters whose deadline has passed; it runs in the alarm's goroutine.
func (c *Client) look() {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.gone != nil {
		return
	}
	now := time.Now()
	switch {
	case c.pinged && passed(c.pingBy, now):
		c.die(&wire.Error{Fault: wire.FaultBroken, Err: errDeaf})
		return
	case c.writing && passed(c.writeBy, now):
		c.die(&wire.Error{Fault: wire.FaultTimeout, Err: fmt.Errorf("%w: %w", errStalled, os.ErrDeadlineExceeded)})
		return
	}
	c.alarmAt = time.Time{}
	if c.pinged {
		c.remind(c.pingBy)
	}
	if c.writing {
		c.remind(c.writeBy)
	}
	for _, k := range c.calls {
		k.look(now)
	}
	c.resetLingering(now)
	c.askSilent(now)
}

// end ends a call and resets its stream, unless the server has ended it already; mu is held. The
// reset is delayed, or left out, once resets have cost too much on the connection.
func (c *Client) end(k *call, why code) {
	if c.calls[k.id] != k || k.lingers {
		return
	}
	if k.reset || k.inEnded && k.outEnded {
		c.forget(k)
		return
	}
	if now := time.Now(); c.spendReset(k, now) {
		c.reset(k, why)
	} else {
		c.linger(k, why, now)
	}
}

// forget removes a call from the connection; mu is held.
func (c *Client) forget(k *call) {
	if c.calls[k.id] != k {
		return
	}
	delete(c.calls, k.id)
	if k.lingers {
		c.lingers--
	}
	c.spare += k.receive.size - startWindow
	k.receive.size = startWindow
}
