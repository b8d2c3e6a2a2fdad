package exchange

import (
	"net"
	"sync"
	"time"

	"sallyport/proxy/audit"
	"sallyport/proxy/setting"
)

// durability is when the record must be in the log: as the route says or, before there is one, the
// file.
func (x *exchange) durability() setting.Durability {
	if x.route != nil {
		return x.route.Durable
	}
	return x.snapshot.Durable
}

// keepEnd makes the engine keep the end of the answer, so that writeRecord can cut it. It is called
// before the head is sent.
func (x *exchange) keepEnd() {
	if x.durability().Waits() {
		x.stream.KeepEnd()
	}
}

// writeRecord writes the record. If the route demands it, a whole answer waits for its record, and
// is cut if that cannot be written in time. A second record of the same request then says so. A
// tunnel's connection to the client is closed afterwards.
func (x *exchange) writeRecord() {
	log := x.server.Audit
	if d := x.durability(); !d.Waits() || !x.whole {
		log.Write(&x.record)
	} else if err := log.Commit(&x.record, d); err != nil {
		x.stream.Abort()
		x.record.Reason, x.record.Cause, x.record.Reserved = reasonAudit, "the answer was cut: "+err.Error(), false
		if err == audit.ErrLate {
			log.Write(&x.record)
		}
	}
	if x.kept != nil {
		_ = x.kept.Close() // the error has no receiver
	}
}

// keptOpen is a tunnel's connection to the client that stays open when it is closed, until there is
// a record. Reads and later writes fail. A write in progress gets a little time.
type keptOpen struct {
	net.Conn

	mu     sync.Mutex // guards closed
	closed bool
}

// Close ends reads and writes, but not the connection.
func (c *keptOpen) Close() error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.closed {
		return nil
	}
	c.closed = true
	if err := c.Conn.SetWriteDeadline(time.Now().Add(answerTime)); err != nil {
		return err
	}
	return c.Conn.SetReadDeadline(longAgo)
}

// SetReadDeadline fails once the connection is to be closed.
func (c *keptOpen) SetReadDeadline(by time.Time) error {
	return c.set(c.Conn.SetReadDeadline, by)
}

// SetWriteDeadline fails once the connection is to be closed.
func (c *keptOpen) SetWriteDeadline(by time.Time) error {
	return c.set(c.Conn.SetWriteDeadline, by)
}

func (c *keptOpen) set(deadline func(time.Time) error, by time.Time) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.closed {
		return net.ErrClosed
	}
	return deadline(by)
}
