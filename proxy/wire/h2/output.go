package h2

import (
	"runtime"

	"sallyport/proxy/wire"
)

const (
	// maxHeld limits the buffered output of a stream, and the pending output at which streams must
	// wait.
	maxHeld = 64 << 10
	// maxWaiting limits all pending output, including control frames.
	maxWaiting = 256 << 10
)

// control returns the output buffer for control frames; mu is held.
func (c *serverConn) control() *wire.Buffer {
	if c.out == nil {
		c.out = c.srv.bufs.Get(0)
	}
	return c.out
}

// queue adds whole frames of a stream to the output and takes over their buffer; mu is held.
func (c *serverConn) queue(b *wire.Buffer) {
	if c.out == nil {
		c.out = b
		return
	}
	c.append(b.B)
	c.srv.bufs.Put(b)
}

// append copies whole frames; mu is held.
func (c *serverConn) append(frames []byte) {
	b := c.control()
	if n := len(b.B) + len(frames); n > cap(b.B) {
		wider := c.srv.bufs.Get(n)
		wider.B = append(wider.B, b.B...)
		c.srv.bufs.Put(b)
		c.out, b = wider, wider
	}
	b.B = append(b.B, frames...)
}

// flush writes pending output unless another goroutine is doing so; it releases mu meanwhile. by is
// the stream whose goroutine calls it; nil for the connection's.
func (c *serverConn) flush(by *stream) {
	for range 4 {
		if c.out == nil || c.writing || c.stage == over {
			return
		}
		c.write(by)
	}
	c.kick() // other streams add output: do not make this one write for them
}

// write writes once; it releases mu meanwhile.
func (c *serverConn) write(by *stream) {
	c.writing, c.author = true, by
	c.writes++
	if c.serving > 1 {
		// Yield: other ready goroutines may add output to the same write.
		c.mu.Unlock()
		runtime.Gosched()
		c.mu.Lock()
	}
	out := c.out
	c.out = nil
	var err error
	if out != nil {
		c.mu.Unlock()
		_, err = c.conn.Write(out.B)
		c.srv.bufs.Put(out)
		c.mu.Lock()
	}
	c.writing, c.author = false, nil
	if err != nil {
		c.die(gone(err))
		c.Cut()
	}
	c.changed.Broadcast()
}

// kick starts a goroutine that writes pending output; mu is held. The reader must not write: client
// and server could then block on each other.
func (c *serverConn) kick() {
	if c.out == nil || c.writing || c.kicked || c.stage == over {
		return
	}
	c.kicked = true
	c.serving++ // the connection's end waits for this goroutine
	go func() {
		c.mu.Lock()
		defer c.mu.Unlock()
		c.kicked = false
		c.serving--
		c.flush(nil)
		c.changed.Broadcast()
	}()
}

func appendDate(b []byte, date string) []byte { return appendField(b, "date", date) }
