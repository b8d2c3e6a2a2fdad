package h2

import (
	"runtime"

	"sallyport/proxy/wire"
)

const (
	// maxHeld bounds what a stream holds back, and what waits to be written before
	// streams have to wait too.
	maxHeld = 64 << 10
	// maxWaiting bounds what waits to be written, control frames and all.
	maxWaiting = 256 << 10
)

// control is the buffer of what is to be written, for control frames; mu is held.
func (c *serverConn) control() *wire.Buffer {
	if c.out == nil {
		c.out = c.srv.bufs.Get(0)
	}
	return c.out
}

// queue takes whole frames of a stream over for writing; mu is held. The buffer is
// the connection's from then on.
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

// flush writes what is to be written, unless somebody does already; mu is held, and
// let go meanwhile. by is the stream in whose goroutine that is; nil: the connection's.
func (c *serverConn) flush(by *stream) {
	for range 4 {
		if c.out == nil || c.writing || c.stage == over {
			return
		}
		c.write(by)
	}
	c.kick() // others keep it busy: it is not for this stream to go on
}

// write writes once; mu is held, and let go meanwhile.
func (c *serverConn) write(by *stream) {
	c.writing, c.author = true, by
	c.writes++
	if c.serving > 1 {
		// Whoever is ready to run may have more to send: it goes in the same write.
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

// kick has a goroutine write what is to be written; mu is held. The reader must not
// wait for a client that waits for the reader.
func (c *serverConn) kick() {
	if c.out == nil || c.writing || c.kicked || c.stage == over {
		return
	}
	c.kicked = true
	c.serving++ // the end of the connection waits for it
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
