package exchange

import (
	"net"
	"sync"
	"time"

	"sallyport/proxy/audit"
	"sallyport/proxy/setting"
)

// durability returns when the record must be in the audit log: the route's setting or, before a
// route is found, that of the whole configuration.
func (x *exchange) durability() setting.Durability {
	if x.route != nil {
		return x.route.Durable
	}
	return x.snapshot.Durable
}

// keepEnd makes the engine hold back the end of an answer that waits for its record, so that
// writeRecord can abort the answer. Call it before the head is sent.
func (x *exchange) keepEnd() {
	if x.durability().Waits() {
		x.stream.KeepEnd()
	}
}

// writeRecord writes the record. With audit.durable, the end of a complete answer waits for the
// record. If the record cannot be written in time, the answer is aborted, and a second record of the
// request reports this. A tunnel's connection to the client is closed after the record.
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
		_ = x.kept.Close() // nobody could act on the error
	}
}

// closedLater is a tunnel's connection to the client, which is closed only after the record is
// written. Close makes reads and later writes fail but leaves the connection open. A write in
// progress may take answerTime.
type closedLater struct {
	net.Conn

	mu     sync.Mutex // guards closed
	closed bool
}

// Close ends reads and writes, but not the connection.
func (c *closedLater) Close() error {
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
func (c *closedLater) SetReadDeadline(by time.Time) error {
	return c.set(c.Conn.SetReadDeadline, by)
}

// SetWriteDeadline fails once the connection is to be closed.
func (c *closedLater) SetWriteDeadline(by time.Time) error {
	return c.set(c.Conn.SetWriteDeadline, by)
}

func (c *closedLater) set(deadline func(time.Time) error, by time.Time) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.closed {
		return net.ErrClosed
	}
	return deadline(by)
}
