package audit

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"time"
)

// Run writes records until ctx ends, then writes the rest and closes the file. End ctx after
// the last Write. It returns an error if records are lost, because the last write failed or took
// longer than five seconds. A hanging write then continues in the background.
func (l *Log) Run(ctx context.Context) error {
	done := make(chan error, 1)
	go func() { done <- l.write(ctx) }()
	select {
	case err := <-done:
		return err
	case <-ctx.Done():
	}
	t := time.NewTimer(farewell)
	defer t.Stop()
	select {
	case err := <-done:
		return err
	case <-t.C:
		return fmt.Errorf("closing the audit log %s: the last write hangs, %d bytes are lost", l.name(), l.Stats().Pending)
	}
}

// write is the writer. Only it writes to targets and closes them.
func (l *Log) write(ctx context.Context) (err error) {
	defer func() { err = errors.Join(err, l.target.close()) }()
	healthy := true
	look := time.NewTicker(looking)
	defer look.Stop()
	for ctx.Err() == nil {
		select {
		case <-l.wake:
			sleep(ctx, pause, l.full)
		case <-l.changed:
		case <-look.C:
		case <-ctx.Done():
		}
		for ctx.Err() == nil {
			err := l.flush()
			l.report(&healthy, err)
			if err == nil {
				break
			}
			sleep(ctx, retry, l.changed)
		}
	}
	l.noteLost()
	if err := l.flush(); err != nil {
		return fmt.Errorf("closing the audit log %s: %d bytes are lost: %w", l.target.name, l.Stats().Pending, err)
	}
	return nil
}

// noteLost adds the line about dropped records that no later record has reported.
func (l *Log) noteLost() {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.lost > 0 {
		before := len(l.lines)
		l.lines = appendDropped(l.lines, &l.stamp, l.now(), l.lost)
		l.commits.accepted += uint64(len(l.lines) - before)
		l.lost = 0
	}
}

// flush writes all lines and changes the target if requested. The rest of a failed write stays
// for the next attempt, from the byte where it stopped.
func (l *Log) flush() error {
	for again := 0; ; {
		l.begin()
		if err := l.follow(); err != nil {
			return err
		}
		b, changing, sync := l.take()
		b, n, err := l.writeOut(b, sync, again < maxAgain)
		if changing {
			l.change(b, n, err)
			continue // the rest goes to the new target
		}
		l.put(b, n, err)
		l.settle(sync, err)
		if err == errDeleted {
			again++
			continue // follow opens a new file or returns an error
		}
		return err
	}
}

// maxAgain is how often one flush writes lines again because their file was deleted. On some network
// file systems every file looks deleted.
const maxAgain = 10

// writeOut writes lines to the target, and syncs them if sync is set. It returns the lines, and how
// many bytes of them were written. After a failed fsync it puts a line that was begun earlier in
// front of them. If mayBeLost is set, it also checks whether the file was deleted.
func (l *Log) writeOut(b []byte, sync, mayBeLost bool) (lines []byte, n int, err error) {
	if len(b) > 0 {
		n, err = l.target.w.Write(b)
		n = min(n, len(b))
	}
	if err == nil && n < len(b) {
		err = io.ErrShortWrite
	}
	if err == nil && sync {
		if err = l.target.sync(); err != nil {
			// Nobody knows which bytes the disk has, so all are written again, in whole lines.
			b, n, l.begun = slices.Concat(l.begun, b), 0, nil
		}
	}
	if len(b) > 0 && mayBeLost && l.target.lost() {
		n, err = 0, errDeleted
	}
	return b, n, err
}

// settle ends what begin began if the write succeeded, and wakes all waiting answers.
func (l *Log) settle(synced bool, err error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if err == nil {
		l.commits.since = time.Time{}
	}
	l.progress(synced && err == nil)
}

// take takes the lines for the current target. changing means that they are its last ones. sync
// means that answers wait until the disk has them.
func (l *Log) take() (b []byte, changing, sync bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	b, rest := l.lines, l.lines[:0:0]
	l.out = buffered{len(b), l.refused}
	if changing = l.next != nil; changing {
		l.out = l.head
		b, rest = b[:l.head.bytes], b[l.head.bytes:]
		l.head = buffered{}
	}
	l.lines, l.spare = append(l.spare[:0], rest...), nil
	l.refused -= l.out.refused
	return b, changing, l.commits.wanted > l.commits.synced
}

// put ends take, after n bytes of b were written.
func (l *Log) put(b []byte, n int, err error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	switch {
	case err != nil:
		l.stats.Failures++
		l.begun = beginning(l.begun, b[:n])
		l.back(b[n:])
	case cap(b) <= 16*batch: // do not keep a buffer that grew while the target was stalled
		l.spare = b[:0]
		fallthrough
	default:
		l.begun = nil
	}
	l.out = buffered{}
}

// beginning returns the incomplete last line of a target that had begun and then took b.
func beginning(begun, b []byte) []byte {
	if i := bytes.LastIndexByte(b, '\n'); i >= 0 {
		return bytes.Clone(b[i+1:])
	}
	return append(begun, b...)
}

// back puts unwritten lines in front of the others. It is slow, but rare. The caller holds mu.
func (l *Log) back(left []byte) {
	l.lines = slices.Concat(left, l.lines)
	l.refused += l.out.refused // slightly too much if some of them were written
	if l.next != nil {
		l.head.bytes += len(left)
		l.head.refused += l.out.refused
	}
}

// change closes the target after n bytes of b, its last lines, were written, and switches to
// the next one. The next target gets the rest in whole lines, including the line that the old one
// has in part. So a full disk can be left without losing records.
func (l *Log) change(b []byte, n int, err error) {
	old := l.target
	left := b[n:]
	if err != nil {
		left = slices.Concat(beginning(l.begun, b[:n]), left)
	}
	closed := old.close()

	l.mu.Lock()
	l.target, l.next, l.head, l.begun = *l.next, nil, buffered{}, nil
	if err != nil {
		l.stats.Failures++
		l.back(left)
	}
	l.out = buffered{}
	name := l.target.name
	l.mu.Unlock()

	switch {
	case err != nil:
		l.log.Error("the old audit log could not take its last records; the new one gets them", "before", old.name, "file", name, "bytes", len(left), "error", err)
	case closed != nil:
		l.log.Error("closing the old audit log failed; its last records may be missing", "before", old.name, "file", name, "error", closed)
	}
}

// report logs the first failure and the recovery, but no failures in between.
func (l *Log) report(healthy *bool, err error) {
	switch {
	case err != nil && *healthy:
		l.log.Error("the audit log cannot be written; requests are refused once its buffer is full", "file", l.target.name, "error", err)
	case err == nil && !*healthy:
		l.log.Info("the audit log can be written again", "file", l.target.name, "dropped", l.Stats().Dropped)
	}
	*healthy = err == nil
}

// sleep waits for d, ctx or c, whichever comes first.
func sleep(ctx context.Context, d time.Duration, c <-chan struct{}) {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
	case <-c:
	case <-ctx.Done():
	}
}
