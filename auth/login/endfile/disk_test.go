package endfile

import (
	"errors"
	"fmt"
	"log/slog"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"
)

// A login gets its own ends of a long file, in the order of the file and in parts. Those who have theirs get
// them no second time.
func TestLoginsGetTheirEndsOnce(t *testing.T) {
	d := newDisk(t)
	f, _ := d.process()
	second, other := &sink{}, LoginOf("corp", "another")
	var mine, others []Line
	for i := range 2*fedLines + 7 {
		l := numbered(i)
		mine = append(mine, l)
		l.Login = other
		others = append(others, l)
	}
	d.append(f, mine...)
	d.append(f, others...)
	f.Close()
	f, first := d.process()
	f.Attach(other, second)
	if !slices.Equal(first.lines, mine) || !slices.Equal(second.lines, others) || second.before != start {
		t.Errorf("got %d and %d lines, want %d of each, in order; before %d", len(first.lines), len(second.lines), len(mine), second.before)
	}
	beside, _ := d.process()
	d.append(beside, numbered(1<<20))
	f.Follow()
	if len(first.lines) != len(mine)+1 || len(second.lines) != len(others) {
		t.Errorf("of one more line the logins got %d and %d", len(first.lines)-len(mine), len(second.lines)-len(others))
	}
}

// The file that replaces another needs a longer name. Without one the file would only grow.
func TestNameWithoutRoomForAnEndingIsRefused(t *testing.T) {
	o := Options{Now: time.Now, Log: slog.New(slog.DiscardHandler)}
	for n, good := range map[int]bool{maxName - len(nextEnding): true, maxName - len(nextEnding) + 1: false, maxName + 1: false} {
		path := filepath.Join(t.TempDir(), strings.Repeat("n", n))
		check := Check(path)
		f, open := Open(path, o)
		if good {
			if check != nil || open != nil {
				t.Errorf("%d bytes: check says %v, and the start %v", n, check, open)
				continue
			}
			f.disk.Lock()
			if err := f.locked(f.rewrite); err != nil {
				t.Errorf("%d bytes: %v", n, err)
			}
			f.disk.Unlock()
			f.Close()
			continue
		}
		var fault *Fault
		if !errors.As(check, &fault) || !errors.As(open, &fault) || check.Error() != open.Error() || fault.Cure() != fmt.Sprintf("write a name of 251 bytes or less; it has %d", n) {
			t.Errorf("%d bytes: check says %v, and the start %v", n, check, open)
		}
	}
}
