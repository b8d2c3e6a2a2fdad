// Package watch reports changes of the configuration file and of the files that it names.
//
// # Which changes are reported
//
// The watcher asks the kernel (inotify, kqueue) for events in the folders, not on the files.
// Editors and `mv new gateway.yaml` replace the inode, and a watch on the old inode would report
// nothing more. The watcher follows symbolic links and watches every folder on the way.
// Kubernetes needs that: in a mounted ConfigMap or Secret, gateway.yaml is a link to
// ..data/gateway.yaml, ..data is a link to a folder with a timestamp, and an update renames a new
// link over ..data.
//
// An event alone is no change. After a burst of events, the watcher compares each file with its
// last state: link target, inode, mode, size, modification time and, for recently written files,
// a digest. So other files in the same folder, such as logs, cause no report.
//
// The watcher also compares all files once a minute, in case an event was missed. It does so
// every few seconds if the kernel reports nothing: when inotify has reached its limits, and on
// network file systems, which do not report changes by other machines.
//
// # Which changes are invisible
//
// A container may mount a single file, as in docker compose with
//
//	volumes: ["./gateway.yaml:/etc/sallyport/gateway.yaml"]
//
// or with a subPath in Kubernetes. Such a mount always shows the same inode. If an editor on the
// host replaces the file, the container still sees the old one, without any event. Therefore a
// reload that finds no change mentions the single-file mounts that may be the cause, and the watcher
// warns once if there is one ([MountedAlone]). Mount the folder instead.
package watch

import (
	"context"
	"log/slog"
	"maps"
	"path/filepath"
	"slices"
	"sync"
	"time"
)

// Defaults and limits.
const (
	defaultDebounce = 200 * time.Millisecond
	defaultLatest   = 2 * time.Second
	defaultPoll     = 5 * time.Second
	// safetyNet is the interval of comparing files while the kernel reports changes.
	safetyNet = time.Minute
	// maxFiles and maxFolders are the limits of one watcher.
	maxFiles   = 4096
	maxFolders = 1024
)

// Options configure a [Watch]. The zero Options are usable.
type Options struct {
	// Debounce is the quiet time before a change is reported, so that a half-written file is not
	// read. Zero: 200 ms.
	Debounce time.Duration
	// Latest is the maximum delay of a report by further events. Zero: 2 s.
	Latest time.Duration
	// Poll is the interval of comparing files if the kernel reports no changes. Zero: 5 s.
	Poll time.Duration
	// Log gets at most one warning of each kind. Nil: discarded.
	Log *slog.Logger

	open func() (*notifier, error) // nil: [openNotifier]
}

// Watch is a watcher of files. [New] makes one; its methods are safe for concurrent use.
type Watch struct {
	o       Options
	changed chan struct{} // buffered with one slot for a report
	renewed chan struct{} // buffered with one slot: the set of files has changed

	mu    sync.Mutex // guards the fields below
	files []string
	globs []string
	last  state
	// reported are the paths of reported changes since the last Take.
	reported map[string]bool
}

// New returns a watcher without files. It starts nothing; see [Watch.Set] and [Watch.Run].
func New(o Options) *Watch {
	if o.Debounce == 0 {
		o.Debounce = defaultDebounce
	}
	if o.Latest == 0 {
		o.Latest = defaultLatest
	}
	if o.Poll == 0 {
		o.Poll = defaultPoll
	}
	if o.Log == nil {
		o.Log = slog.New(slog.DiscardHandler)
	}
	if o.open == nil {
		o.open = openNotifier
	}
	return &Watch{o: o, changed: make(chan struct{}, 1), renewed: make(chan struct{}, 1), reported: map[string]bool{}}
}

// Set replaces the set of watched files. files need not exist; creation is a change. globs are
// patterns of [filepath.Match]. All matching files are watched, and a change of the matches is a
// change. Relative paths are relative to the working folder. At most 4096 files are watched,
// files before globs.
//
// A file that is already watched keeps its last reported state, so that no change during a load
// is missed. Call Set with the configuration file before the first load, and with all files that
// were read after each load. For new files, changes after this call count.
func (w *Watch) Set(files, globs []string) {
	absolute := func(paths []string) []string {
		all := make([]string, 0, len(paths))
		for _, p := range paths {
			if a, err := filepath.Abs(p); err == nil {
				p = a
			}
			all = append(all, p)
		}
		slices.Sort(all)
		return slices.Compact(all)
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	w.files, w.globs = absolute(files), absolute(globs)
	now := w.look()
	for path := range now {
		if before, known := w.last[path]; known {
			now[path] = before
		}
	}
	w.last = now
	signal(w.renewed)
}

// Changed receives a value after watched files have changed. A pending value stands for all
// changes since. The channel is never closed.
func (w *Watch) Changed() <-chan struct{} { return w.changed }

// Take returns the paths of the files whose changes were reported since the last Take, sorted. They
// are the cause of a load that a report starts. Call it once a load has succeeded: the fault that an
// earlier change made may be mended by a change of another file.
func (w *Watch) Take() []string {
	w.mu.Lock()
	defer w.mu.Unlock()
	paths := slices.Sorted(maps.Keys(w.reported))
	clear(w.reported)
	return paths
}

// Run watches until ctx ends, and returns nil. It logs failures as warnings and then polls the
// files more often. Call it once. All its goroutines have ended when it returns.
func (w *Watch) Run(ctx context.Context) error {
	r := &run{Watch: w, watched: map[string]folder{}, warned: map[string]bool{}}
	r.begin()
	defer r.end()
	poll := time.NewTimer(r.interval())
	defer poll.Stop()
	quiet := time.NewTimer(time.Hour)
	quiet.Stop()
	defer quiet.Stop()
	var due, latest time.Time // times of the pending report; zero: none
	put := func() {
		now := time.Now()
		if latest.IsZero() {
			latest = now.Add(w.o.Latest)
		}
		next := now.Add(w.o.Debounce)
		if next.After(latest) {
			next = latest
		}
		if next.After(due) { // once due equals latest, further events change nothing
			due = next
			quiet.Reset(next.Sub(now))
		}
	}
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-w.renewed:
			r.follow()
			r.warnOfMounts()
			if w.differs() {
				put()
			}
			poll.Reset(r.interval()) // follow may have changed it
		case e, open := <-r.events():
			if !open {
				r.lost()
				poll.Reset(r.interval())
			} else if r.concerns(e) {
				put()
			}
		case _, open := <-r.errors():
			// Events were lost, so compare the files.
			if open {
				put()
			}
		case <-poll.C:
			r.follow()
			if w.differs() {
				put()
			}
			poll.Reset(r.interval())
		case <-quiet.C:
			due, latest = time.Time{}, time.Time{}
			r.follow()
			w.compare()
		}
	}
}

// differs reports whether a file differs from its last reported state.
func (w *Watch) differs() bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	return len(w.last.changes(w.look())) > 0
}

// compare sends a report if a file differs from its last reported state.
func (w *Watch) compare() {
	w.mu.Lock()
	defer w.mu.Unlock()
	now := w.look()
	changes := w.last.changes(now)
	w.last = now
	if len(changes) == 0 {
		return
	}
	for _, path := range changes {
		if len(w.reported) < maxFiles {
			w.reported[path] = true
		}
	}
	w.o.Log.Debug("files changed", "files", changes[:min(len(changes), 5)], "count", len(changes))
	signal(w.changed)
}

// wanted returns copies of the watched files and patterns.
func (w *Watch) wanted() (files, globs []string) {
	w.mu.Lock()
	defer w.mu.Unlock()
	return slices.Clone(w.files), slices.Clone(w.globs)
}

// signal sends without blocking; one pending value is enough.
func signal(c chan<- struct{}) {
	select {
	case c <- struct{}{}:
	default:
	}
}
