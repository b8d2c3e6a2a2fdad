package audit

import (
	"errors"
	"time"

	"sallyport/proxy/setting"
)

// ErrLate means that records were not written within [CommitTime].
var ErrLate = errors.New("the audit log did not take the record in time: its file is slow or failing")

// commits is the state of answers that wait for their records. One write, and one fsync, serves all
// answers that wait when it begins. Log.mu guards the fields.
//
// A position is a number of bytes of all lines since the start. Lines are written in order, so a line
// is written once at most as many bytes wait as were accepted after it.
type commits struct {
	accepted uint64        // position after the last accepted line
	synced   uint64        // position up to which the disk has all lines
	wanted   uint64        // position up to which answers wait for the disk
	changed  chan struct{} // closed when lines were written; nil if nobody waits
	since    time.Time     // when the first write began that has not succeeded yet; zero for none
}

// stalled reports whether a pending write has already taken longer than [CommitTime].
func (c *commits) stalled() bool { return !c.since.IsZero() && time.Since(c.since) > CommitTime }

// Timely returns [ErrLate] if a pending write has already taken longer than [CommitTime], so that
// [Log.Commit] would fail. The caller can then refuse a request before it forwards it.
func (l *Log) Timely() error {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.commits.stalled() {
		return ErrLate
	}
	return nil
}

// Commit writes a record like [Log.Write], and waits until it is as durable as d demands, for at
// most [CommitTime]. It returns [ErrFull] if the record was dropped, and [ErrLate] if the time is
// over; the record may then still be written later. It delays no caller of [Log.Write].
func (l *Log) Commit(r *Record, d setting.Durability) error {
	l.mu.Lock()
	if l.accept(r) == 0 {
		l.mu.Unlock()
		return ErrFull
	}
	c := &l.commits
	at, stalled := c.accepted, c.stalled()
	if d == setting.Synced {
		c.wanted = max(c.wanted, at)
	}
	l.mu.Unlock()
	post(l.wake)
	post(l.full)
	if stalled {
		return ErrLate
	}
	return l.await(at, d)
}

// await waits until all lines up to a position are durable, or returns [ErrLate] after [CommitTime].
func (l *Log) await(at uint64, d setting.Durability) error {
	limit := time.NewTimer(CommitTime)
	defer limit.Stop()
	for {
		changed := l.reached(at, d)
		if changed == nil {
			return nil
		}
		select {
		case <-changed:
		case <-limit.C:
			return ErrLate
		}
	}
}

// reached returns nil if all lines up to a position are durable, and otherwise a channel that is
// closed when more lines were written.
func (l *Log) reached(at uint64, d setting.Durability) <-chan struct{} {
	l.mu.Lock()
	defer l.mu.Unlock()
	c := &l.commits
	switch {
	case d == setting.Synced && c.synced >= at:
		return nil
	case d != setting.Synced && l.written() >= at:
		return nil
	case c.changed == nil:
		c.changed = make(chan struct{})
	}
	return c.changed
}

// written returns the position up to which all lines were written. The caller holds mu.
func (l *Log) written() uint64 {
	// A line that is written again in another file counts as waiting once more.
	return l.commits.accepted - min(l.commits.accepted, uint64(l.waiting()))
}

// progress wakes all waiting answers after a write. synced means that the disk has what was written.
// The caller holds mu.
func (l *Log) progress(synced bool) {
	c := &l.commits
	if synced {
		c.synced = max(c.synced, l.written())
	}
	if c.changed != nil {
		close(c.changed)
		c.changed = nil
	}
}

// begin notes the time of the first attempt to write the waiting lines.
func (l *Log) begin() {
	l.mu.Lock()
	defer l.mu.Unlock()
	if c := &l.commits; c.since.IsZero() && l.waiting() > 0 {
		c.since = time.Now()
	}
}

// sync waits until the disk has what was written. It does nothing for what is no regular file.
func (t *target) sync() error {
	if t.info == nil {
		return nil
	}
	return t.file.Sync()
}
