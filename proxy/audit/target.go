package audit

import (
	"errors"
	"fmt"
	"io"
	"os"

	"sallyport/proxy/setting"
)

// target is a destination of lines.
type target struct {
	place setting.Place
	name  string // for messages
	w     io.Writer
	file  *os.File    // to be closed; nil for stdout
	info  os.FileInfo // of file, if it is regular; nil if it cannot be rotated or synced
}

// open opens a destination; "" means stdout.
func (l *Log) open(place setting.Place) (target, error) {
	if place == "" || place == stdout {
		return target{place: place, name: stdout, w: l.stdout}, nil
	}
	f, err := os.OpenFile(string(place), os.O_WRONLY|os.O_APPEND|os.O_CREATE, 0o600)
	if err != nil {
		return target{}, fmt.Errorf("opening the audit log: %w", err)
	}
	t := target{place: place, name: string(place), w: f, file: f}
	if info, err := f.Stat(); err == nil && info.Mode().IsRegular() {
		t.info = info
	}
	return t, nil
}

// close closes the target, except standard output.
func (t *target) close() error {
	if t.file == nil {
		return nil
	}
	return t.file.Close()
}

// name returns the name of the current target, for messages.
func (l *Log) name() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.target.name
}

// Change is a new destination that is open but not yet in use. It must be applied or discarded,
// once.
type Change struct {
	log *Log
	to  target
}

// Prepare opens the destination of c. Nothing changes until [Change.Apply]. It opens the file
// even if the name did not change, because a log rotation may have renamed the old file.
func (l *Log) Prepare(c Config) (*Change, error) {
	to, err := l.open(c.File)
	if err != nil {
		return nil, err
	}
	return &Change{l, to}, nil
}

// Apply sends all records written from now on to the new destination. Earlier records go to the
// old one, which is then closed; if they fail there, they go to the new one. It does not wait. It
// replaces an earlier change that is still pending. Call it only before or during [Log.Run].
func (c *Change) Apply() {
	l := c.log
	l.mu.Lock()
	given := l.next
	l.next = &c.to
	if given == nil {
		l.head = buffered{len(l.lines), l.refused}
	}
	l.mu.Unlock()
	if given != nil {
		_ = given.close() // nothing was written to it
	}
	post(l.changed)
}

// Discard closes the unused destination.
func (c *Change) Discard() { _ = c.to.close() }

// Reopen opens the file again under its name, after a log rotation renamed it. Earlier records
// go to the old file. An error changes nothing.
func (l *Log) Reopen() error {
	l.mu.Lock()
	place := l.target.place
	if l.next != nil {
		place = l.next.place
	}
	l.mu.Unlock()
	c, err := l.Prepare(Config{File: place})
	if err != nil {
		return errors.Join(errors.New("the audit log continues in the open file"), err)
	}
	c.Apply()
	return nil
}
