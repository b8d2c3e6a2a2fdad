package audit

import (
	"errors"
	"fmt"
	"io"
	"os"

	"sallyport/proxy/setting"
)

// target is where lines go.
type target struct {
	place setting.Place
	name  string // for messages
	w     io.Writer
	file  *os.File // what is closed in the end; nil for stdout
}

// open opens a place for records: stdout if it is "" or says so.
func (l *Log) open(place setting.Place) (target, error) {
	if place == "" || place == stdout {
		return target{place: place, name: stdout, w: l.stdout}, nil
	}
	f, err := os.OpenFile(string(place), os.O_WRONLY|os.O_APPEND|os.O_CREATE, 0o600)
	if err != nil {
		return target{}, fmt.Errorf("opening the audit log: %w", err)
	}
	return target{place: place, name: string(place), w: f, file: f}, nil
}

// close closes the target; standard output stays open.
func (t *target) close() error {
	if t.file == nil {
		return nil
	}
	return t.file.Close()
}

// name is that of the present target, for messages.
func (l *Log) name() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.target.name
}

// Change is a new place for records that is open and not yet in use. It must be applied
// or discarded, once.
type Change struct {
	log *Log
	to  target
}

// Prepare opens what c says. Nothing changes, and an error changes nothing, until
// [Change.Apply]. The file is opened anew even where c says the same as before: a file
// that was renamed by a log rotation is left for a new one.
func (l *Log) Prepare(c Config) (*Change, error) {
	to, err := l.open(c.File)
	if err != nil {
		return nil, err
	}
	return &Change{l, to}, nil
}

// Apply sends all records that are written from now on to the new place. Those from
// before are written to the old one, which is then closed; what it refuses goes to the
// new one. It waits for neither. Where an earlier change has not been carried out yet,
// this one takes its place. Apply only while [Log.Run] runs, or before.
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

// Discard closes the new place, unused.
func (c *Change) Discard() { _ = c.to.close() }

// Reopen opens the file anew under its name, after somebody renamed it to rotate logs.
// Records from before the call go to the old file. An error leaves everything as it was.
func (l *Log) Reopen() error {
	l.mu.Lock()
	place := l.target.place
	if l.next != nil {
		place = l.next.place
	}
	l.mu.Unlock()
	c, err := l.Prepare(Config{File: place})
	if err != nil {
		return errors.Join(errors.New("the audit log stays in the file that is open"), err)
	}
	c.Apply()
	return nil
}
