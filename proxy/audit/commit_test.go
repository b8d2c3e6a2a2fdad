package audit

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"sallyport/proxy/setting"
)

func TestCommitReturnsOnceTheRecordIsWritten(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var s sink
		l := newLog(t, Config{}, Options{Stdout: &s})
		stop := run(t, l)
		start := time.Now()
		for i := range 3 {
			if err := l.Commit(numbered(i), setting.Written); err != nil {
				t.Fatal(err)
			}
			if got := s.String(); strings.Count(got, "\n") != i+1 {
				t.Fatalf("after commit %d: %q", i, got)
			}
		}
		if took := time.Since(start); took != 0 {
			t.Errorf("three commits waited %s for other records, want no wait", took)
		}
		if err := stop(); err != nil {
			t.Error(err)
		}
	})
}

// counted counts writes, each of which takes a while.
type counted struct {
	sink
	writes int
}

func (c *counted) Write(p []byte) (int, error) {
	c.writes++
	time.Sleep(10 * time.Millisecond)
	return c.sink.Write(p)
}

func TestOneWriteServesAllWaitingCommits(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var s counted
		l := newLog(t, Config{}, Options{Stdout: &s})
		stop := run(t, l)
		var wg sync.WaitGroup
		start := time.Now()
		for i := range 500 {
			wg.Go(func() {
				if err := l.Commit(numbered(i), setting.Written); err != nil {
					t.Error(err)
				}
			})
		}
		wg.Wait()
		if took := time.Since(start); s.writes > 3 || took > 30*time.Millisecond {
			t.Errorf("%d writes in %s for 500 commits at once, want at most 3 of 10ms", s.writes, took)
		}
		if err := stop(); err != nil {
			t.Error(err)
		}
	})
}

func TestBlockedDiskDelaysOnlyCommits(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := sink{block: make(chan struct{})}
		l := newLog(t, Config{}, Options{Stdout: &s})
		stop := run(t, l)
		start := time.Now()
		var wg sync.WaitGroup
		wg.Go(func() {
			if err := l.Commit(numbered(1), setting.Written); !errors.Is(err, ErrLate) {
				t.Errorf("got %v, want ErrLate", err)
			}
		})
		synctest.Wait()
		l.Write(numbered(2))
		if err := l.Reserve(); err != nil {
			t.Errorf("another caller's reservation: %v", err)
		}
		if took := time.Since(start); took != 0 {
			t.Errorf("another caller waited %s", took)
		}
		wg.Wait()
		if took := time.Since(start); took != CommitTime {
			t.Errorf("the commit took %s, want %s", took, CommitTime)
		}
		time.Sleep(time.Millisecond)
		now := time.Now()
		if err := l.Timely(); !errors.Is(err, ErrLate) {
			t.Errorf("Timely: %v, want ErrLate", err)
		}
		if err := l.Commit(numbered(3), setting.Written); !errors.Is(err, ErrLate) || time.Since(now) != 0 {
			t.Errorf("a later commit: %v after %s, want ErrLate at once", err, time.Since(now))
		}
		close(s.block)
		synctest.Wait()
		if err := l.Timely(); err != nil {
			t.Errorf("after the recovery: %v", err)
		}
		if err := l.Commit(numbered(4), setting.Written); err != nil {
			t.Errorf("a commit after the recovery: %v", err)
		}
		if err := stop(); err != nil {
			t.Error(err)
		}
		if got := strings.Count(s.String(), "\n"); got != 4 {
			t.Errorf("%d records, want 4", got)
		}
	})
}

// A disk that is full for a moment cuts no answer.
func TestCommitOutlivesAShortFailure(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var s sink
		l := newLog(t, Config{}, Options{Stdout: &s})
		stop := run(t, l)
		s.fail(errors.New("no space left on device"), 3)
		time.AfterFunc(3*retry, func() { s.fail(nil, 0) })
		if err := l.Commit(numbered(1), setting.Written); err != nil {
			t.Error(err)
		}
		if got := s.String(); got != string(numbered(1).appendLine(nil, new(stamp))) {
			t.Errorf("got %q", got)
		}
		if err := stop(); err != nil {
			t.Error(err)
		}
	})
}

// While files are changed, renamed and deleted, each committed record is in a file that had a name
// when it was written.
func TestNoCommittedRecordIsLostInRotations(t *testing.T) {
	const workers, each = 4, 100
	dir := t.TempDir()
	name := filepath.Join(dir, "audit.log")
	l := newLog(t, Config{File: setting.Place(name)}, Options{})
	stop := run(t, l)
	var wg sync.WaitGroup
	for w := range workers {
		wg.Go(func() {
			for i := range each {
				// A busy disk may be late. The record is then written all the same.
				if err := l.Commit(numbered(w*each+i), []setting.Durability{setting.Written, setting.Synced}[i%2]); err != nil && !errors.Is(err, ErrLate) {
					t.Error(err)
				}
			}
		})
	}
	for i := range 20 {
		if err := os.Rename(name, fmt.Sprint(name, ".", i)); err != nil && !os.IsNotExist(err) {
			t.Error(err)
		}
		if i%3 == 0 {
			prepare(t, l, Config{File: setting.Place(name)}).Apply()
		}
	}
	wg.Wait()
	if err := stop(); err != nil {
		t.Fatal(err)
	}
	files, _ := filepath.Glob(name + "*")
	var all strings.Builder
	for _, f := range files {
		all.WriteString(content(t, f))
	}
	for i := range workers * each {
		if n := strings.Count(all.String(), fmt.Sprintf("%q", numbered(i).RequestID)); n != 1 {
			t.Fatalf("record %d is there %d times", i, n)
		}
	}
}

// After a failed fsync nobody knows which lines the disk has.
func TestRecordsAreWrittenAgainAfterAFailedSync(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		name := filepath.Join(t.TempDir(), "audit.log")
		l := newLog(t, Config{File: setting.Place(name)}, Options{})
		good := l.target.file
		bad, err := os.OpenFile(name, os.O_WRONLY, 0o600)
		if err != nil {
			t.Fatal(err)
		}
		bad.Close()
		l.target.file = bad // whose fsync fails
		// Between two attempts: at the same instant as one, it would change the file under the writer.
		time.AfterFunc(retry+retry/2, func() { l.mu.Lock(); l.target.file = good; l.mu.Unlock() })
		stop := run(t, l)
		if err := l.Commit(numbered(1), setting.Synced); err != nil {
			t.Error(err)
		}
		line := string(numbered(1).appendLine(nil, new(stamp)))
		if got := content(t, name); !strings.HasSuffix(got, line+line) {
			t.Errorf("got %q, want the record again", got)
		}
		if err := stop(); err != nil {
			t.Error(err)
		}
	})
}
