package audit

import (
	"errors"
	"fmt"
	"os"
	"slices"
)

// errDeleted means that the file has no name in any folder, so nobody could read what is written.
var errDeleted = errors.New("the file was deleted, and no new one can be made")

// follow opens the file again if its name now leads to another file, or to none: a log rotation
// renamed it, or a link was changed. Waiting lines go to the new file. If no new file can be opened,
// the log continues in the open file, because a renamed file keeps its lines. If the open file was
// deleted as well, follow returns an error, and the lines stay in memory.
//
// It costs one stat for each write, and one a second while there is nothing to write.
func (l *Log) follow() error {
	t := &l.target // only this goroutine changes it
	if t.info == nil || l.changing() {
		return nil
	}
	now, err := os.Stat(t.name)
	if err == nil && os.SameFile(now, t.info) {
		l.astray = ""
		return nil
	}
	if err == nil && !now.Mode().IsRegular() {
		err = fmt.Errorf("opening the audit log: %s is not a regular file", t.name)
	} else {
		var next target
		if next, err = l.open(t.place); err == nil {
			l.moveTo(next)
			return nil
		}
	}
	if deleted(t.file) {
		return fmt.Errorf("%w: %w", errDeleted, err)
	}
	if text := err.Error(); text != l.astray {
		l.astray = text
		l.log.Error("the audit log was moved away and cannot be opened again; it continues in the moved file", "file", t.name, "error", err)
	}
	return nil
}

// changing reports whether a change of the target is pending. The change then decides which lines go
// to which file, so follow does nothing.
func (l *Log) changing() bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.next != nil
}

// moveTo continues in the new file. It writes a line that the old file has only in part again.
func (l *Log) moveTo(next target) {
	l.mu.Lock()
	if l.next != nil { // a change of the target came meanwhile
		l.mu.Unlock()
		_ = next.close() // nothing was written to it
		return
	}
	old := l.target
	l.target, l.astray = next, ""
	if len(l.begun) > 0 {
		l.lines, l.begun = slices.Concat(l.begun, l.lines), nil
	}
	l.mu.Unlock()
	if err := old.close(); err != nil {
		l.log.Error("closing the old audit log failed; its last records may be missing", "file", next.name, "error", err)
	}
	l.log.Info("the audit log was opened again, because its name leads to another file", "file", next.name)
}

// lost reports whether nobody can read what was just written, because the file was deleted.
func (t *target) lost() bool {
	if t.info == nil || !deleted(t.file) {
		return false
	}
	// Some file systems always say that a file has no name, so check the name itself.
	now, err := os.Stat(t.name)
	return err != nil || !os.SameFile(now, t.info)
}
