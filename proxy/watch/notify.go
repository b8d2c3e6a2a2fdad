package watch

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"github.com/fsnotify/fsnotify"
)

// notifier reports changes in folders; the kernel is its source.
type notifier struct {
	events      <-chan fsnotify.Event
	errors      <-chan error
	add, remove func(folder string) error
	close       func() error
}

// openNotifier opens the kernel's notifier. Its goroutine has ended when close returns.
func openNotifier() (*notifier, error) {
	n, err := fsnotify.NewWatcher()
	if err != nil {
		return nil, err
	}
	return &notifier{events: n.Events, errors: n.Errors, add: n.Add, remove: n.Remove, close: n.Close}, nil
}

// folder is a watched folder.
type folder struct{ info fs.FileInfo }

// run is the state of one call of [Watch.Run]. Only that goroutine uses it.
type run struct {
	*Watch
	n       *notifier // nil: there is no notifier
	places  *places
	watched map[string]folder
	// deaf means that changes in some folder are not reported, so files are polled.
	deaf   bool
	warned map[string]bool // warnings already logged, by kind
}

func (r *run) begin() {
	n, err := r.o.open()
	if err != nil {
		r.warnOfPolling(err)
		return
	}
	r.n = n
}

func (r *run) end() {
	if r.n != nil {
		_ = r.n.close()
		r.n = nil
	}
}

// lost handles a notifier that ended unexpectedly.
func (r *run) lost() {
	r.end()
	r.warnOfPolling(errors.New("the kernel stopped reporting changes"))
}

func (r *run) events() <-chan fsnotify.Event {
	if r.n == nil {
		return nil
	}
	return r.n.events
}

func (r *run) errors() <-chan error {
	if r.n == nil {
		return nil
	}
	return r.n.errors
}

// interval returns the time until all files are compared again.
func (r *run) interval() time.Duration {
	if r.n == nil || r.deaf {
		return r.o.Poll
	}
	return max(safetyNet, r.o.Poll)
}

// concerns reports whether an event may be a change of a watched file.
func (r *run) concerns(e fsnotify.Event) bool { return r.places == nil || r.places.concerns(e.Name) }

// follow watches exactly the folders in which watched files can change. Links may change
// meanwhile, so it repeats until it finds nothing new. Polling finds whatever it still misses.
func (r *run) follow() {
	files, globs := r.wanted()
	for range 4 {
		r.places = placesOf(files, globs)
		if r.n == nil || !r.listen() {
			return
		}
	}
}

// listen watches the folders of r.places and no others. It reports whether it added a folder.
func (r *run) listen() (added bool) {
	for path, f := range r.watched {
		info, err := os.Lstat(path)
		// After a rename, the same path may be a different folder.
		if !r.places.folders[path] || err != nil || !os.SameFile(info, f.info) {
			_ = r.n.remove(path) // an error means that the folder is gone
			delete(r.watched, path)
		}
	}
	r.deaf = len(r.places.folders) == maxFolders
	if r.deaf {
		r.warnOfPolling(fmt.Errorf("the files are in %d folders or more", maxFolders))
	}
	for path := range r.places.folders {
		if remoteFolder(path) {
			r.deaf = true
			r.warnOfPolling(fmt.Errorf("%s is on a network file system", path))
		}
		if _, known := r.watched[path]; known {
			continue
		}
		info, err := os.Lstat(path)
		if err == nil {
			err = r.n.add(path)
		}
		switch {
		case errors.Is(err, fs.ErrNotExist):
			added = true // it vanished just now, so follow must look again
		case err != nil:
			r.deaf = true
			r.warnOfPolling(fmt.Errorf("watching %s: %w", path, err))
		default:
			r.watched[path] = folder{info}
			added = true
		}
	}
	return added
}

// warnOfPolling warns once that changes are noticed late, with the cause and a remedy.
func (r *run) warnOfPolling(cause error) {
	if r.warned["polling"] {
		return
	}
	r.warned["polling"] = true
	cure := "send SIGHUP, or run sallyport reload if polling is too slow"
	switch {
	case errors.Is(cause, syscall.EMFILE):
		cure = "raise the sysctl fs.inotify.max_user_instances, or the limit of open files"
	case errors.Is(cause, syscall.ENOSPC):
		cure = "raise the sysctl fs.inotify.max_user_watches"
	}
	r.o.Log.Warn("file changes are noticed only by polling", "every", r.o.Poll.String(), "cause", cause.Error(), "cure", cure)
}

// warnOfMounts warns once about single-file mounts, whose changes may be invisible.
func (r *run) warnOfMounts() {
	if r.warned["mounts"] {
		return
	}
	files, _ := r.wanted()
	alone := MountedAlone(files)
	if len(alone) == 0 {
		return
	}
	r.warned["mounts"] = true
	var names []string
	for _, m := range alone[:min(len(alone), 5)] {
		names = append(names, m.Path)
	}
	r.o.Log.Warn("a file is mounted by itself: if an editor replaces it, the mount still shows the old file",
		"files", strings.Join(names, " "), "count", len(alone), "cure", "mount its folder instead")
}

// Mount is a file that is a mount point, such as docker compose's
// `./gateway.yaml:/etc/sallyport/gateway.yaml`. It never shows a file that replaced the mounted one.
type Mount struct {
	File string // as it was given to [MountedAlone]
	Path string // the absolute path, under which [Watch] reports it
	// Gone means that the mounted file has no name any more: it was replaced or removed where it
	// came from. Some file systems of virtual machines do not tell.
	Gone bool
}

// MountedAlone returns those of the files that are mounted by themselves. It finds none on systems
// other than Linux.
func MountedAlone(files []string) []Mount {
	var alone []Mount
	points := mountPoints()
	for _, file := range files {
		full, err := filepath.Abs(file)
		if err != nil || !points[full] {
			continue
		}
		if info, err := os.Stat(full); err == nil && info.Mode().IsRegular() {
			alone = append(alone, Mount{file, full, withoutName(info)})
		}
	}
	return alone
}
