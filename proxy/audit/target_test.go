package audit

import (
	"bytes"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"sallyport/proxy/setting"
)

func numbered(i int) *Record { return &Record{RequestID: fmt.Sprint("r", i, ".")} }

func content(t *testing.T, name string) string {
	t.Helper()
	b, err := os.ReadFile(name)
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

func prepare(t *testing.T, l *Log, c Config) *Change {
	t.Helper()
	change, err := l.Prepare(c)
	if err != nil {
		t.Fatal(err)
	}
	return change
}

func TestRecordsAfterApplyGoToTheNewFile(t *testing.T) {
	dir := t.TempDir()
	a, b := filepath.Join(dir, "a.log"), filepath.Join(dir, "b.log")
	l := newLog(t, Config{File: setting.Place(a)}, Options{})
	stop := run(t, l)
	l.Write(numbered(1))
	change := prepare(t, l, Config{File: setting.Place(b)})
	l.Write(numbered(2)) // Prepare alone changes nothing
	change.Apply()
	l.Write(numbered(3))
	if err := stop(); err != nil {
		t.Fatal(err)
	}
	if got := content(t, a); strings.Count(got, "\n") != 2 || !strings.Contains(got, "r1.") || !strings.Contains(got, "r2.") {
		t.Errorf("the old file has %q, want records 1 and 2", got)
	}
	if got := content(t, b); strings.Count(got, "\n") != 1 || !strings.Contains(got, "r3.") {
		t.Errorf("the new file has %q, want record 3", got)
	}
	if _, err := l.target.file.Write([]byte("x")); !errors.Is(err, os.ErrClosed) {
		t.Errorf("the new file is still open after Run: %v", err)
	}
}

func TestFileThatCannotBeOpenedChangesNothing(t *testing.T) {
	dir := t.TempDir()
	name := filepath.Join(dir, "a.log")
	l := newLog(t, Config{File: setting.Place(name)}, Options{})
	stop := run(t, l)
	if _, err := l.Prepare(Config{File: setting.Place(filepath.Join(dir, "no", "b.log"))}); err == nil {
		t.Error("a file in a missing folder was opened")
	}
	prepare(t, l, Config{}).Discard()
	prepare(t, l, Config{File: setting.Place(filepath.Join(dir, "c.log"))}).Discard()
	l.Write(numbered(1))
	if err := stop(); err != nil {
		t.Fatal(err)
	}
	if got := content(t, name); !strings.Contains(got, "r1.") {
		t.Errorf("the file has %q, want record 1", got)
	}
}

func TestReopenFollowsARotation(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		name := filepath.Join(t.TempDir(), "audit.log")
		l := newLog(t, Config{File: setting.Place(name)}, Options{})
		stop := run(t, l)
		for i := range 5 {
			l.Write(numbered(i))
			if err := os.Rename(name, fmt.Sprint(name, ".", i)); err != nil {
				t.Fatal(err)
			}
			if err := l.Reopen(); err != nil {
				t.Fatal(err)
			}
			time.Sleep(2 * pause) // the writer switches files
			synctest.Wait()
		}
		if err := stop(); err != nil {
			t.Fatal(err)
		}
		for i := range 5 {
			if got := content(t, fmt.Sprint(name, ".", i)); strings.Count(got, "\n") != 1 || !strings.Contains(got, fmt.Sprint("r", i, ".")) {
				t.Errorf("file %d has %q, want record %[1]d", i, got)
			}
		}
		if got := content(t, name); got != "" {
			t.Errorf("the last file has %q, want nothing", got)
		}
	})
}

func TestReopenOfStandardOutputDoesNothing(t *testing.T) {
	var s sink
	l := newLog(t, Config{}, Options{Stdout: &s})
	stop := run(t, l)
	l.Write(numbered(1))
	if err := l.Reopen(); err != nil {
		t.Fatal(err)
	}
	l.Write(numbered(2))
	if err := stop(); err != nil {
		t.Fatal(err)
	}
	if got := s.String(); strings.Count(got, "\n") != 2 {
		t.Errorf("got %q, want both records", got)
	}
}

// The old file takes only a part of the lines before the change. Each line is complete in one
// of the two files.
func TestChangeFromAFullDiskLosesNoRecords(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var logged bytes.Buffer
		var old sink
		name := filepath.Join(t.TempDir(), "b.log")
		l := newLog(t, Config{}, Options{Stdout: &old, Log: slog.New(slog.NewTextHandler(&logged, nil))})
		stop := run(t, l)
		line := len(numbered(1).appendLine(nil, new(stamp)))
		// Two lines and a part fit first, then three bytes at each attempt.
		old.fail(errors.New("no space left on device"), 2*line+7)
		for i := range 5 {
			l.Write(numbered(i))
		}
		time.Sleep(2 * pause)
		old.fail(errors.New("no space left on device"), 3)
		time.Sleep(2 * retry)
		prepare(t, l, Config{File: setting.Place(name)}).Apply()
		l.Write(numbered(5))
		if err := stop(); err != nil {
			t.Fatal(err)
		}
		if got := strings.Count(old.String(), "\n"); got != 2 {
			t.Errorf("the old one has %d lines, want 2", got)
		}
		var want []byte
		for i := 2; i <= 5; i++ {
			want = numbered(i).appendLine(want, new(stamp))
		}
		if got := content(t, name); got != string(want) {
			t.Errorf("the new one has\n%swant\n%s", got, want)
		}
		if !strings.Contains(logged.String(), "could not take its last records") {
			t.Errorf("the change was not logged:\n%s", logged.String())
		}
	})
}

// The file changes many times while requests are recorded and the writer is busy.
func TestManyChangesLoseNoRecords(t *testing.T) {
	const files, workers, each = 50, 4, 500
	dir := t.TempDir()
	name := func(i int) string { return filepath.Join(dir, fmt.Sprint(i, ".log")) }
	l := newLog(t, Config{File: setting.Place(name(0))}, Options{})
	stop := run(t, l)
	var wg sync.WaitGroup
	for w := range workers {
		wg.Go(func() {
			for i := range each {
				r := numbered(w*each + i)
				r.Reserved = l.Reserve() == nil
				l.Write(r)
			}
		})
	}
	for i := 1; i < files; i++ {
		prepare(t, l, Config{File: setting.Place(name(i))}).Apply()
	}
	wg.Wait()
	if err := stop(); err != nil {
		t.Fatal(err)
	}
	var all strings.Builder
	for i := range files {
		all.WriteString(content(t, name(i)))
	}
	if got := strings.Count(all.String(), "\n"); got != workers*each {
		t.Errorf("%d lines in all files, want %d", got, workers*each)
	}
	for i := range workers * each {
		if strings.Count(all.String(), fmt.Sprintf("%q", numbered(i).RequestID)) != 1 {
			t.Fatalf("record %d is missing or duplicated", i)
		}
	}
	if st := l.Stats(); st.Dropped > 0 || st.Reserved != 0 || st.Pending != 0 || l.refused != 0 {
		t.Errorf("in the end: %+v, refused %d", st, l.refused)
	}
}
