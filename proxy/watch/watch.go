// Package watch tells when the configuration file, or a file that it names, has changed.
//
// # What is seen
//
// The watcher asks the kernel (inotify, kqueue) about the folders of the files, not about the
// files: an editor, and `mv new gateway.yaml`, put another inode in the place of the old one, and
// a watch on the old inode would never report again. It follows symbolic links and watches every
// folder on the way. Kubernetes needs that: in a mounted ConfigMap or Secret, gateway.yaml is a
// link to ..data/gateway.yaml, ..data is a link to a folder with a timestamp, and an update
// renames a new link over ..data.
//
// An event alone is no change. After each burst of events the watcher compares the files with
// what they were: link target, inode, mode, size, time of modification and, for files written in
// the last seconds, a digest. Logs and state files in the same folder cause no report.
//
// All files are compared once a minute as well, in case an event was missed, and every few
// seconds where the kernel reports none: when inotify has reached its limits, and on network file
// systems, whose servers do not tell of changes that others made.
//
// # What cannot be seen
//
// A container may have one file mounted by itself, as in
//
//	volumes: ["./gateway.yaml:/etc/sallyport/gateway.yaml"]
//
// of docker compose, or by a subPath of Kubernetes. Such a mount shows one inode for ever. An
// editor on the host makes a new inode, and the container keeps seeing the old file: no event
// comes, and reading the file again gives the old bytes. Therefore a reload that finds nothing
// new asks "is it a single-file mount?", and the watcher warns once when it finds one
// ([MountedAlone]). The cure is to mount the folder.
package watch

import (
	"context"
	"log/slog"
	"path/filepath"
	"slices"
	"sync"
	"time"
)

// Defaults and bounds.
const (
	defaultDebounce = 200 * time.Millisecond
	defaultLatest   = 2 * time.Second
	defaultPoll     = 5 * time.Second
	// safetyNet is how often files are compared although the kernel reports changes.
	safetyNet = time.Minute
	// maxFiles and maxFolders bound what one watcher looks at.
	maxFiles   = 4096
	maxFolders = 1024
)

// Options are what a [Watch] takes from its surroundings. The zero Options are usable.
type Options struct {
	// Debounce is how long no event may come before a change is reported, so that a file that is
	// being written is not read half. Zero: 200 ms.
	Debounce time.Duration
	// Latest bounds how long a report may be put off by further events. Zero: 2 s.
	Latest time.Duration
	// Poll is how often files are compared where the kernel reports no changes. Zero: 5 s.
	Poll time.Duration
	// Log gets at most one warning for each thing that makes changes hard to see. Nil: discarded.
	Log *slog.Logger

	open func() (*notifier, error) // nil: [openNotifier]
}

// Watch is a watcher of files. [New] makes one; its methods are safe for concurrent use.
type Watch struct {
	o       Options
	changed chan struct{} // has room for one report
	renewed chan struct{} // has room for one: the set of files is another

	mu    sync.Mutex // guards the following
	files []string
	globs []string
	last  state
}

// New makes a watcher of no files. It starts nothing; see [Watch.Set] and [Watch.Run].
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
	return &Watch{o: o, changed: make(chan struct{}, 1), renewed: make(chan struct{}, 1)}
}

// Set replaces the set of watched files. files need not exist: to come into being is a change.
// globs are patterns of [filepath.Match]; every file that fits one is watched, and one that begins
// or ceases to fit is a change. Relative paths count from the working folder. At most 4096 files
// are watched, those of files first.
//
// A file that was watched before keeps the state that was last reported, so that no change gets
// lost that is made while a configuration is loaded: call Set with the configuration file before
// the first load, and with everything that was read after each load. For a file that is new in
// the set, changes count from this call on.
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

// Changed receives after one or more watched files have changed. A report that nobody has
// received yet stands for all changes since. The channel is never closed.
func (w *Watch) Changed() <-chan struct{} { return w.changed }

// Run watches until ctx ends, and returns nil: what goes wrong is warned of, and made up for by
// comparing the files more often. Call it once. When it returns, nothing that it started goes on.
func (w *Watch) Run(ctx context.Context) error {
	r := &run{Watch: w, watched: map[string]folder{}, warned: map[string]bool{}}
	r.begin()
	defer r.end()
	poll := time.NewTimer(r.interval())
	defer poll.Stop()
	quiet := time.NewTimer(time.Hour)
	quiet.Stop()
	defer quiet.Stop()
	var due, latest time.Time // of the pending report; zero: none is pending
	put := func() {
		now := time.Now()
		if latest.IsZero() {
			latest = now.Add(w.o.Latest)
		}
		next := now.Add(w.o.Debounce)
		if next.After(latest) {
			next = latest
		}
		if next.After(due) { // at the latest moment further events change nothing
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
			poll.Reset(r.interval()) // following may have found that the kernel is no help
		case e, open := <-r.events():
			if !open {
				r.lost()
				poll.Reset(r.interval())
			} else if r.concerns(e) {
				put()
			}
		case _, open := <-r.errors():
			// Events were lost: the files themselves tell.
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

// differs says whether a file is not what was last reported.
func (w *Watch) differs() bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	return len(w.last.changes(w.look())) > 0
}

// compare reports, if a file is not what was last reported.
func (w *Watch) compare() {
	w.mu.Lock()
	defer w.mu.Unlock()
	now := w.look()
	changes := w.last.changes(now)
	w.last = now
	if len(changes) == 0 {
		return
	}
	w.o.Log.Debug("files changed", "files", changes[:min(len(changes), 5)], "count", len(changes))
	signal(w.changed)
}

// wanted is a copy of what is to be watched.
func (w *Watch) wanted() (files, globs []string) {
	w.mu.Lock()
	defer w.mu.Unlock()
	return slices.Clone(w.files), slices.Clone(w.globs)
}

// signal sends without waiting; one that nobody has received yet is enough.
func signal(c chan<- struct{}) {
	select {
	case c <- struct{}{}:
	default:
	}
}
