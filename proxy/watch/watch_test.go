package watch

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"github.com/fsnotify/fsnotify"
)

// patience is the timeout of tests; it matters only when a test fails.
const patience = time.Minute

func write(t testing.TB, path, text string) {
	t.Helper()
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
}

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// running runs a watcher of the files until the test ends, and checks that Run returns nil.
func running(t *testing.T, o Options, files, globs []string) *Watch {
	t.Helper()
	if o.Debounce == 0 {
		o.Debounce = 20 * time.Millisecond
	}
	w := New(o)
	w.Set(files, globs)
	ctx, stop := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- w.Run(ctx) }()
	t.Cleanup(func() {
		stop()
		if err := <-done; err != nil {
			t.Errorf("Run: %v", err)
		}
	})
	return w
}

// reports waits for a report.
func reports(t *testing.T, w *Watch, what string) {
	t.Helper()
	select {
	case <-w.Changed():
	case <-time.After(patience):
		t.Fatalf("no report after: %s", what)
	}
}

// isQuiet checks that earlier events caused no report: it changes the watched file marker, and
// there must be exactly one report.
func isQuiet(t *testing.T, w *Watch, marker string) {
	t.Helper()
	w.mu.Lock()
	before := len(w.last.changes(w.look()))
	w.mu.Unlock()
	if before != 0 {
		t.Fatalf("%d files count as changed", before)
	}
	write(t, marker, time.Now().String())
	reports(t, w, "the marker")
	select {
	case <-w.Changed():
		t.Fatal("a second report")
	default:
	}
}

func TestChangesAreReported(t *testing.T) {
	for _, c := range []struct {
		name   string
		change func(t *testing.T, dir, file string)
	}{
		{"overwritten in place", func(t *testing.T, _, file string) { write(t, file, "new") }},
		{"overwritten in place by as many bytes", func(t *testing.T, _, file string) { write(t, file, "OLD") }},
		{"replaced by rename", func(t *testing.T, dir, file string) {
			write(t, filepath.Join(dir, ".new"), "new")
			must(t, os.Rename(filepath.Join(dir, ".new"), file))
		}},
		{"removed", func(t *testing.T, _, file string) { must(t, os.Remove(file)) }},
		{"mode changed", func(t *testing.T, _, file string) { must(t, os.Chmod(file, 0o640)) }},
		{"replaced by a link", func(t *testing.T, dir, file string) {
			write(t, filepath.Join(dir, "other"), "new")
			must(t, os.Remove(file))
			must(t, os.Symlink("other", file))
		}},
		{"folder replaced by rename", func(t *testing.T, dir, _ string) {
			must(t, os.Mkdir(dir+".new", 0o700))
			write(t, filepath.Join(dir+".new", "gateway.yaml"), "new")
			must(t, os.Rename(dir, dir+".old"))
			must(t, os.Rename(dir+".new", dir))
		}},
	} {
		t.Run(c.name, func(t *testing.T) {
			dir := filepath.Join(t.TempDir(), "sallyport")
			must(t, os.Mkdir(dir, 0o700))
			file := filepath.Join(dir, "gateway.yaml")
			write(t, file, "old")
			w := running(t, Options{}, []string{file}, nil)
			c.change(t, dir, file)
			reports(t, w, c.name)
			// The watcher must still see changes, on the new inode too.
			_ = os.Remove(file)
			isQuietOrReported(t, w)
			write(t, file, "newer")
			reports(t, w, "a later change")
		})
	}
}

// isQuietOrReported waits until the current state has been reported.
func isQuietOrReported(t *testing.T, w *Watch) {
	t.Helper()
	for end := time.Now().Add(patience); w.differs(); {
		select {
		case <-w.Changed():
		case <-time.After(time.Millisecond):
		}
		if time.Now().After(end) {
			t.Fatal("the current state was never reported")
		}
	}
	select {
	case <-w.Changed():
	default:
	}
}

// kubernetes writes and updates a mounted ConfigMap as the kubelet does.
type kubernetes struct {
	dir string
	n   int
}

func (k *kubernetes) update(t *testing.T, files map[string]string) {
	t.Helper()
	k.n++
	stamp := fmt.Sprintf("..2026_11_28_%02d", k.n)
	must(t, os.Mkdir(filepath.Join(k.dir, stamp), 0o700))
	for name, text := range files {
		write(t, filepath.Join(k.dir, stamp, name), text)
	}
	before, _ := os.Readlink(filepath.Join(k.dir, "..data"))
	must(t, os.Symlink(stamp, filepath.Join(k.dir, "..data_tmp")))
	must(t, os.Rename(filepath.Join(k.dir, "..data_tmp"), filepath.Join(k.dir, "..data")))
	for name := range files {
		_ = os.Symlink(filepath.Join("..data", name), filepath.Join(k.dir, name))
	}
	if before != "" {
		must(t, os.RemoveAll(filepath.Join(k.dir, before)))
	}
}

func TestKubernetesUpdatesAreReported(t *testing.T) {
	k := kubernetes{dir: t.TempDir()}
	k.update(t, map[string]string{"gateway.yaml": "one"})
	w := running(t, Options{}, []string{filepath.Join(k.dir, "gateway.yaml")}, nil)
	for i := range 5 {
		k.update(t, map[string]string{"gateway.yaml": fmt.Sprint("more ", i)})
		reports(t, w, "an update of the ConfigMap")
	}
}

func TestMissingFileIsReportedOnceItExists(t *testing.T) {
	top := t.TempDir()
	file := filepath.Join(top, "a", "b", "gateway.yaml")
	w := running(t, Options{}, []string{file}, nil)
	must(t, os.MkdirAll(filepath.Dir(file), 0o700))
	write(t, file, "now")
	reports(t, w, "the file and its folders were created")
	isQuietOrReported(t, w)
	must(t, os.RemoveAll(filepath.Join(top, "a")))
	reports(t, w, "the folders were removed")
	isQuietOrReported(t, w)
	must(t, os.MkdirAll(filepath.Dir(file), 0o700))
	write(t, file, "again")
	reports(t, w, "the file was created again")
}

func TestTakeReturnsTheChangedFilesOnce(t *testing.T) {
	dir := t.TempDir()
	a, b, c := filepath.Join(dir, "a.yaml"), filepath.Join(dir, "b.yaml"), filepath.Join(dir, "c.yaml")
	for _, file := range []string{a, b, c} {
		write(t, file, "loaded")
	}
	w := running(t, Options{}, []string{a, b, c}, nil)
	if got := w.Take(); len(got) != 0 {
		t.Errorf("before a change: %v", got)
	}
	write(t, b, "a fault")
	reports(t, w, "the fault")
	write(t, a, "the cure in another file")
	reports(t, w, "the cure")
	if got := w.Take(); !slices.Equal(got, []string{a, b}) {
		t.Errorf("got %v, want the two files that changed", got)
	}
	if got := w.Take(); len(got) != 0 {
		t.Errorf("once more: %v", got)
	}
}

func TestOtherFilesInTheFolderCauseNoReport(t *testing.T) {
	dir := t.TempDir()
	file, marker := filepath.Join(dir, "gateway.yaml"), filepath.Join(dir, "marker")
	write(t, file, "text")
	write(t, marker, "text")
	w := running(t, Options{}, []string{file, marker}, []string{filepath.Join(dir, "conf.d", "*.yaml")})
	for i := range 100 {
		write(t, filepath.Join(dir, "audit.log"), strings.Repeat("x", i))
		write(t, filepath.Join(dir, ".gateway.yaml.swp"), fmt.Sprint(i))
	}
	must(t, os.Mkdir(filepath.Join(dir, "conf.d"), 0o700))
	write(t, filepath.Join(dir, "conf.d", "README"), "no configuration")
	isQuiet(t, w, marker)
}

func TestPatternsReportCreatedAndRemovedFiles(t *testing.T) {
	dir := t.TempDir()
	w := running(t, Options{}, nil, []string{filepath.Join(dir, "conf.d", "*.yaml"), filepath.Join(dir, "team-*", "routes.yaml")})
	one, team := filepath.Join(dir, "conf.d", "one.yaml"), filepath.Join(dir, "team-a", "routes.yaml")
	for _, step := range []struct {
		what string
		do   func()
	}{
		{"a file was created", func() { must(t, os.MkdirAll(filepath.Dir(one), 0o700)); write(t, one, "1") }},
		{"it changed", func() { write(t, one, "two") }},
		{"it was removed", func() { must(t, os.Remove(one)) }},
		{"a matching folder was created", func() { must(t, os.Mkdir(filepath.Dir(team), 0o700)); write(t, team, "1") }},
		{"the file in it changed", func() { write(t, team, "two") }},
	} {
		step.do()
		reports(t, w, step.what)
		isQuietOrReported(t, w)
	}
}

func TestThousandFilesInOneFolderNeedOneWatch(t *testing.T) {
	dir := t.TempDir()
	var files []string
	for i := range 1000 {
		files = append(files, filepath.Join(dir, fmt.Sprintf("%04d.yaml", i)))
		write(t, files[i], "text")
	}
	opened := make(chan *counting, 1)
	w := running(t, Options{Debounce: 100 * time.Millisecond, Latest: patience, open: func() (*notifier, error) { return count(opened) }}, files, nil)
	write(t, files[777], "other")
	reports(t, w, "one of a thousand changed")
	if n := (<-opened).adds(); n != 1 {
		t.Errorf("%d folders are watched, want 1", n)
	}
	for _, f := range files {
		write(t, f, "all of them")
	}
	reports(t, w, "all changed")
	isQuietOrReported(t, w)
}

// counting counts the folders added to a real notifier.
type counting struct {
	mu sync.Mutex
	n  int
}

func (c *counting) adds() int {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.n
}

func count(opened chan<- *counting) (*notifier, error) {
	n, err := openNotifier()
	if err != nil {
		return nil, err
	}
	c, add := new(counting), n.add
	n.add = func(folder string) error {
		c.mu.Lock()
		c.n++
		c.mu.Unlock()
		return add(folder)
	}
	opened <- c
	return n, nil
}

func TestSetKeepsUnreportedChanges(t *testing.T) {
	dir := t.TempDir()
	file := filepath.Join(dir, "gateway.yaml")
	write(t, file, "loaded")
	w := New(Options{})
	w.Set([]string{file}, nil)
	write(t, file, "changed while it was loaded")
	w.Set([]string{file, filepath.Join(dir, "ca.pem")}, nil)
	if !w.differs() {
		t.Error("the change was lost")
	}
	w.Set(nil, nil)
	w.Set([]string{file}, nil)
	if w.differs() {
		t.Error("a file that was not watched in between counts as changed")
	}
}

// fakeEvents returns a notifier with the test's events.
func fakeEvents(events chan fsnotify.Event, errs chan error) func() (*notifier, error) {
	nothing := func(string) error { return nil }
	return func() (*notifier, error) {
		return &notifier{events: events, errors: errs, add: nothing, remove: nothing, close: func() error { return nil }}, nil
	}
}

func TestBurstIsReportedOnceItIsQuiet(t *testing.T) {
	file := filepath.Join(t.TempDir(), "gateway.yaml")
	write(t, file, "0")
	synctest.Test(t, func(t *testing.T) {
		events := make(chan fsnotify.Event)
		w := running(t, Options{Debounce: 200 * time.Millisecond, open: fakeEvents(events, nil)}, []string{file}, nil)
		begin := time.Now()
		for i := range 10 {
			write(t, file, fmt.Sprint("write ", i))
			events <- fsnotify.Event{Name: file, Op: fsnotify.Write}
			time.Sleep(100 * time.Millisecond)
		}
		<-w.Changed()
		if took := time.Since(begin); took != 1100*time.Millisecond {
			t.Errorf("reported after %v, want 200ms after the last event", took)
		}
		time.Sleep(10 * time.Second)
		select {
		case <-w.Changed():
			t.Error("a second report")
		default:
		}
	})
}

func TestEndlessEventsDelayTheReportByTwoSecondsAtMost(t *testing.T) {
	file := filepath.Join(t.TempDir(), "gateway.yaml")
	write(t, file, "0")
	synctest.Test(t, func(t *testing.T) {
		events := make(chan fsnotify.Event)
		w := running(t, Options{Debounce: 200 * time.Millisecond, open: fakeEvents(events, nil)}, []string{file}, nil)
		begin := time.Now()
		write(t, file, "written once, and something goes on")
		for {
			select {
			case events <- fsnotify.Event{Name: file, Op: fsnotify.Chmod}:
				time.Sleep(time.Millisecond)
				continue
			case <-w.Changed():
			}
			break
		}
		if took := time.Since(begin); took < 2*time.Second || took > 2100*time.Millisecond {
			t.Errorf("reported after %v, want 2s", took)
		}
	})
}

func TestLostEventsAreFoundByComparing(t *testing.T) {
	file := filepath.Join(t.TempDir(), "gateway.yaml")
	write(t, file, "0")
	synctest.Test(t, func(t *testing.T) {
		errs := make(chan error)
		w := running(t, Options{open: fakeEvents(make(chan fsnotify.Event), errs)}, []string{file}, nil)
		synctest.Wait()
		write(t, file, "no event, but word that the queue overflowed")
		errs <- fsnotify.ErrEventOverflow
		<-w.Changed()
		begin := time.Now()
		write(t, file, "no event at all")
		<-w.Changed()
		if took := time.Since(begin); took > 2*safetyNet {
			t.Errorf("found after %v", took)
		}
	})
}

func TestFilesArePolledWithoutANotifier(t *testing.T) {
	for _, c := range []struct {
		name string
		open func() (*notifier, error)
		cure string
	}{
		{"no inotify instances left", func() (*notifier, error) { return nil, fmt.Errorf("inotify: %w", syscall.EMFILE) }, "max_user_instances"},
		{"no inotify watches left", func() (*notifier, error) {
			n, err := fakeEvents(make(chan fsnotify.Event), nil)()
			n.add = func(string) error { return syscall.ENOSPC }
			return n, err
		}, "max_user_watches"},
		{"notifier ends", func() (*notifier, error) {
			events := make(chan fsnotify.Event)
			close(events)
			return fakeEvents(events, nil)()
		}, "sallyport reload"},
		{"not implemented", func() (*notifier, error) { return nil, errors.New("not here") }, "SIGHUP"},
	} {
		t.Run(c.name, func(t *testing.T) {
			file := filepath.Join(t.TempDir(), "gateway.yaml")
			write(t, file, "0")
			var text bytes.Buffer
			synctest.Test(t, func(t *testing.T) {
				w := running(t, Options{Log: slog.New(slog.NewTextHandler(&text, nil)), open: c.open}, []string{file}, nil)
				synctest.Wait()
				for i := range 3 {
					begin := time.Now()
					write(t, file, strings.Repeat("new", i+1))
					<-w.Changed()
					if took := time.Since(begin); took > 6*time.Second {
						t.Errorf("found after %v, want the next poll", took)
					}
				}
			})
			if got := text.String(); strings.Count(got, "level=WARN") != 1 || !strings.Contains(got, c.cure) {
				t.Errorf("logged\n%s\nwant one warning with %s", got, c.cure)
			}
		})
	}
}

func TestRunLeavesNoGoroutines(t *testing.T) {
	file := filepath.Join(t.TempDir(), "gateway.yaml")
	before := runtime.NumGoroutine()
	for range 20 {
		w := New(Options{})
		w.Set([]string{file}, nil)
		ctx, stop := context.WithCancel(t.Context())
		done := make(chan error, 1)
		go func() { done <- w.Run(ctx) }()
		w.Set([]string{file, file + ".other"}, nil)
		stop()
		if err := <-done; err != nil {
			t.Fatal(err)
		}
	}
	// The goroutine that sent to done may not have ended yet.
	for end := time.Now().Add(patience); runtime.NumGoroutine() > before; runtime.Gosched() {
		if time.Now().After(end) {
			t.Fatalf("%d goroutines, %d before", runtime.NumGoroutine(), before)
		}
	}
}

func TestCircularLinksAreHandled(t *testing.T) {
	dir := t.TempDir()
	must(t, os.Symlink("b", filepath.Join(dir, "a")))
	must(t, os.Symlink("a", filepath.Join(dir, "b")))
	must(t, os.Symlink(".", filepath.Join(dir, "self")))
	file := filepath.Join(dir, "a")
	w := running(t, Options{}, []string{file, filepath.Join(dir, "self", "self", "x"), filepath.Join(dir, "a", "y")}, nil)
	must(t, os.Remove(file))
	write(t, file, "a file now")
	reports(t, w, "the circle was removed")
}
