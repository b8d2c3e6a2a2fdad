package audit

import (
	"errors"
	"time"

	"sallyport/proxy/setting"
)

// ErrLate is the error of [Log.Commit] and [Log.Timely] when records are not written in time.
var ErrLate = errors.New("the audit log did not take the record in time: its file is slow or failing")

// commits is the state of answers that wait for their records. One write, and one fsync, serves all
// that wait by then. Log.mu guards it.
//
// Positions count bytes of lines since the start. Lines are written in order, so a line is written
// once the bytes that wait are fewer than those accepted behind it.
type commits struct {
	accepted uint64        // position behind the last line
	synced   uint64        // position up to which the disk has all lines
	wanted   uint64        // position that somebody waits for to be synced
	changed  chan struct{} // closed at the next progress; nil: nobody waits
	since    time.Time     // when the write began that has not succeeded yet; zero: none
}

// stalled reports whether nobody could be told in time that a record is written.
func (c *commits) stalled() bool { return !c.since.IsZero() && time.Since(c.since) > CommitTime }

// Timely returns [ErrLate] if [Log.Commit] would, because records have waited too long already. A
// request is then better refused before anything is done for it.
func (l *Log) Timely() error {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.commits.stalled() {
		return ErrLate
	}
	return nil
}

// Commit is [Log.Write] that waits until the record is as durable as d demands, for at most
// [CommitTime]. If it returns an error the record may still be written later, or was dropped. It
// delays no other caller of [Log.Write].
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

// await waits until all lines up to a position are durable.
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

// reached returns nil if all lines up to a position are durable, else a channel that is closed at
// the next progress.
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

// progress tells those who wait that lines were written, and synced if synced is set. The caller
// holds mu.
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

// begin notes that a write is due.
func (l *Log) begin() {
	l.mu.Lock()
	defer l.mu.Unlock()
	if c := &l.commits; c.since.IsZero() && l.waiting() > 0 {
		c.since = time.Now()
	}
}

// sync makes the disk take what was written. Only regular files have one.
func (t *target) sync() error {
	if t.info == nil {
		return nil
	}
	return t.file.Sync()
}
