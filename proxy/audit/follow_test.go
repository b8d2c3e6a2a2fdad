package audit

import (
	"errors"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"sallyport/proxy/setting"
	"sallyport/proxy/setting/settingtest"
)

// rotation is a log that writes to a file in its own folder.
type rotation struct {
	*Log
	t      *testing.T
	dir    string
	name   string
	logged sink
	stop   func() error
}

func newRotation(t *testing.T) *rotation {
	r := &rotation{t: t, dir: filepath.Join(t.TempDir(), "logs")}
	r.do(os.Mkdir(r.dir, 0o700))
	r.name = filepath.Join(r.dir, "audit.log")
	r.begin(r.name)
	return r
}

func (r *rotation) begin(name string) {
	r.Log = newLog(r.t, Config{File: setting.Place(name)}, Options{Log: slog.New(slog.NewTextHandler(&r.logged, nil))})
	r.stop = run(r.t, r.Log)
}

func (r *rotation) do(err error) {
	r.t.Helper()
	if err != nil {
		r.t.Fatal(err)
	}
}

// record writes a record and waits until the writer has seen it.
func (r *rotation) record(i int) {
	r.Write(numbered(i))
	r.settle(2 * pause)
}

func (r *rotation) settle(d time.Duration) {
	time.Sleep(d) // of the bubble
	synctest.Wait()
}

// has fails unless the file holds exactly these records.
func (r *rotation) has(name string, records ...int) {
	r.t.Helper()
	var want []byte
	for _, i := range records {
		want = numbered(i).appendLine(want, new(stamp))
	}
	if got := content(r.t, filepath.Join(r.dir, name)); got != string(want) {
		r.t.Errorf("%s has\n%swant\n%s", name, got, want)
	}
}

func TestRotatedFileIsOpenedAgain(t *testing.T) {
	for _, tt := range []struct {
		name   string
		rotate func(r *rotation)
		old    string // where record 1 then is; "" if it is deleted
		first  []int  // records of the file named in the configuration
	}{
		{"renamed and created", func(r *rotation) {
			r.do(os.Rename(r.name, r.name+".1"))
			r.do(os.WriteFile(r.name, nil, 0o640))
		}, "audit.log.1", []int{2}},
		{"renamed", func(r *rotation) { r.do(os.Rename(r.name, r.name+".1")) }, "audit.log.1", []int{2}},
		{"deleted", func(r *rotation) { r.do(os.Remove(r.name)) }, "", []int{2}},
		{"copied and truncated", func(r *rotation) {
			r.do(os.WriteFile(r.name+".1", []byte(content(r.t, r.name)), 0o600))
			r.do(os.Truncate(r.name, 0))
		}, "audit.log.1", []int{2}},
		{"folder renamed and made", func(r *rotation) {
			r.do(os.Rename(r.dir, r.dir+".1"))
			r.do(os.Mkdir(r.dir, 0o700))
		}, "../logs.1/audit.log", []int{2}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				r := newRotation(t)
				r.record(1)
				tt.rotate(r)
				r.record(2)
				r.has("audit.log", tt.first...)
				if tt.old != "" {
					r.has(tt.old, 1)
				}
				r.do(r.stop())
			})
		})
	}
}

func TestIdleWriterCreatesARotatedFile(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRotation(t)
		r.do(os.Rename(r.name, r.name+".1"))
		r.settle(2 * looking)
		r.has("audit.log")
		r.do(r.stop())
	})
}

func TestChangedLinkIsFollowed(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := &rotation{t: t, dir: t.TempDir()}
		link := filepath.Join(r.dir, "audit.log")
		r.do(os.Symlink("a.log", link))
		r.begin(link)
		r.record(1)
		r.do(os.Symlink("b.log", link+".new"))
		r.do(os.Rename(link+".new", link))
		r.record(2)
		r.has("a.log", 1)
		r.has("b.log", 2)
		r.do(r.stop())
	})
}

// Nobody could read records in a deleted file, so they stay in memory, and requests are refused
// once that is full.
func TestRecordsAreHeldWhileTheFolderIsDeleted(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRotation(t)
		r.record(1)
		r.do(os.RemoveAll(r.dir))
		r.record(2)
		r.record(3)
		if r.Stats().Pending == 0 {
			t.Error("the records were written to the deleted file")
		}
		for r.Reserve() == nil {
			held := numbered(4)
			held.Reserved, held.Path = true, strings.Repeat("x", maxPath)
			r.Write(held)
		}
		if err := r.Reserve(); !errors.Is(err, ErrFull) {
			t.Errorf("got %v, want ErrFull", err)
		}
		if got := strings.Count(r.logged.String(), "cannot be written"); got != 1 {
			t.Errorf("the fault was logged %d times, want once:\n%s", got, r.logged.String())
		}
		r.do(os.Mkdir(r.dir, 0o700))
		r.settle(2 * retry)
		if got := content(t, r.name); !strings.Contains(got, "r2.") || !strings.Contains(got, "r3.") || strings.Count(got, "r4.") != strings.Count(got, "\n")-2 {
			t.Errorf("the new file has %d lines, want all that were held", strings.Count(got, "\n"))
		}
		if err := r.Reserve(); err != nil {
			t.Errorf("after the recovery: %v", err)
		}
		r.do(r.stop())
	})
}

// A renamed file keeps its lines, so losing the right to make a new one loses no record.
func TestRecordsGoToTheMovedFileWhileNoNewOneCanBeOpened(t *testing.T) {
	for _, tt := range []struct {
		name         string
		block, clear func(r *rotation)
	}{
		{"a folder has its name", func(r *rotation) { r.do(os.Mkdir(r.name, 0o700)) }, func(r *rotation) { r.do(os.Remove(r.name)) }},
		{"the folder is gone", func(r *rotation) { r.do(os.Rename(r.dir, r.dir+".1")) }, func(r *rotation) { r.do(os.Rename(r.dir+".1", r.dir)) }},
		{"permission lost", func(r *rotation) { r.do(os.Chmod(r.dir, 0o500)) }, func(r *rotation) { r.do(os.Chmod(r.dir, 0o700)) }},
	} {
		t.Run(tt.name, func(t *testing.T) {
			if tt.name == "permission lost" && settingtest.RunAsNobody(t) {
				return
			}
			synctest.Test(t, func(t *testing.T) {
				r := newRotation(t)
				r.record(1)
				r.do(os.Rename(r.name, r.name+".1"))
				tt.block(r)
				r.record(2)
				r.record(3)
				if st := r.Stats(); st.Pending > 0 || st.Failures > 0 {
					t.Errorf("%d bytes wait after %d failures, want none", st.Pending, st.Failures)
				}
				tt.clear(r)
				r.record(4)
				r.has("audit.log.1", 1, 2, 3)
				r.has("audit.log", 4)
				r.do(r.stop())
				if got := strings.Count(r.logged.String(), "cannot be opened again"); got != 1 {
					t.Errorf("the fault was logged %d times, want once:\n%s", got, r.logged.String())
				}
			})
		})
	}
}

// The file is deleted after the check that precedes a write.
func TestLinesWrittenToADeletedFileAreWrittenAgain(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRotation(t)
		r.target.w = deleter{r.target.file, r.name}
		r.record(1)
		r.has("audit.log", 1)
		r.do(r.stop())
	})
}

// deleter deletes the file just before each write.
type deleter struct {
	*os.File
	name string
}

func (d deleter) Write(p []byte) (int, error) {
	_ = os.Remove(d.name)
	return d.File.Write(p)
}
