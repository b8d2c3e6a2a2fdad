package endfile

import (
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"testing"
)

// TestEarlierReleasesReadTheFile holds the form of lines that a release before that of subjects reads. It knows
// six fields, and a time of zero ends nothing. Such a release may share the file, or come back to it.
func TestEarlierReleasesReadTheFile(t *testing.T) {
	d := newDisk(t)
	f, _ := d.process()
	end := Line{Session, corp, ID{5}, ID{3}, start + 3, start + 1}
	d.append(f, end)
	of := fmt.Sprintf("before %x %x 0 0", corp, ID{3})
	want := []string{fmt.Sprintf("sallyport-sessions 1 %d", start), of, fmt.Sprintf("session %x %x %d %d", corp, ID{5}, start+3, start+1)}
	for i, line := range strings.Split(strings.TrimSuffix(d.text(), "\n"), "\n") {
		if i >= len(want) || line[:len(line)-len(" 01234567")] != want[i] {
			t.Errorf("line %d is %q", i+1, line)
		}
	}
	if l, err := parseLine(seal([]byte(of), 0)[:len(of)+len(" 01234567")]); err != nil || l.At != 0 || l.Until != 0 {
		t.Errorf("the line of the subject: %+v, %v", l, err)
	}

	// A crash between the two lines tells nothing of the next end, and lines are numbered as they stand.
	older := Line{Session, corp, ID{6}, ID{}, start + 4, start + 2} // of an earlier release
	f.Close()
	d.write(d.text() + string(seal([]byte(of), 0)))
	f, _ = d.process()
	d.append(f, Line{Subject, corp, ID{7}, ID{}, start + 3, start})
	d.append(f, older)
	f.Close()
	_, s := d.process()
	if !slices.Equal(s.lines, []Line{end, {Subject, corp, ID{7}, ID{}, start + 3, start}, older}) {
		t.Errorf("got %v", s.lines)
	}
	d.write(d.text() + "x\n")
	var fault *Fault
	if _, err := Open(d.path, Options{Now: d.now, Log: slog.New(slog.DiscardHandler)}); !errors.As(err, &fault) || fault.Line != 7 {
		t.Errorf("got %v", err)
	}
}
