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

// notifier is the kernel's reporter of changes in folders.
type notifier struct {
	events      <-chan fsnotify.Event
	errors      <-chan error
	add, remove func(folder string) error
	close       func() error
}

// openNotifier asks the kernel for a reporter. Its goroutine has ended when close returns.
func openNotifier() (*notifier, error) {
	n, err := fsnotify.NewWatcher()
	if err != nil {
		return nil, err
	}
	return &notifier{events: n.Events, errors: n.Errors, add: n.Add, remove: n.Remove, close: n.Close}, nil
}

// folder is one that the kernel reports on.
type folder struct{ info fs.FileInfo }

// run is what one call of [Watch.Run] knows. It belongs to one goroutine.
type run struct {
	*Watch
	n       *notifier // nil: the kernel reports nothing
	places  *places
	watched map[string]folder
	// deaf means that changes in some folder are not reported.
	deaf   bool
	warned map[string]bool // by what
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

// lost gives up a notifier that has ended by itself.
func (r *run) lost() {
	r.end()
	r.warnOfPolling(errors.New("the kernel ended its reports"))
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

// interval is how long to wait before all files are compared.
func (r *run) interval() time.Duration {
	if r.n == nil || r.deaf {
		return r.o.Poll
	}
	return max(safetyNet, r.o.Poll)
}

// concerns says whether an event may be a change of a watched file.
func (r *run) concerns(e fsnotify.Event) bool { return r.places == nil || r.places.concerns(e.Name) }

// follow watches the folders in which something may happen now, and no others. Links may change
// while it follows them: it looks again until it finds nothing new. What it misses beyond that is
// left to polling.
func (r *run) follow() {
	files, globs := r.wanted()
	for range 4 {
		r.places = placesOf(files, globs)
		if r.n == nil || !r.listen() {
			return
		}
	}
}

// listen makes the folders of r.places those that the kernel reports on. It says whether there
// was one that it did not report on before.
func (r *run) listen() (added bool) {
	for path, f := range r.watched {
		info, err := os.Lstat(path)
		// Another folder under the same path is another folder.
		if !r.places.folders[path] || err != nil || !os.SameFile(info, f.info) {
			_ = r.n.remove(path) // an error means that it is gone
			delete(r.watched, path)
		}
	}
	r.deaf = len(r.places.folders) == maxFolders
	if r.deaf {
		r.warnOfPolling(fmt.Errorf("the files lie in %d folders or more", maxFolders))
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
			added = true // it went in this moment: follow looks again
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

// warnOfPolling warns once that changes are seen late, and names the cure.
func (r *run) warnOfPolling(cause error) {
	if r.warned["polling"] {
		return
	}
	r.warned["polling"] = true
	cure := "send SIGHUP, or run sallyport reload, where that is too late"
	switch {
	case errors.Is(cause, syscall.EMFILE):
		cure = "raise the sysctl fs.inotify.max_user_instances, or the limit of open files"
	case errors.Is(cause, syscall.ENOSPC):
		cure = "raise the sysctl fs.inotify.max_user_watches"
	}
	r.o.Log.Warn("file changes are noticed only by polling", "every", r.o.Poll.String(), "cause", cause.Error(), "cure", cure)
}

// warnOfMounts warns once of files that can never be seen to change.
func (r *run) warnOfMounts() {
	if r.warned["mounts"] {
		return
	}
	files, _ := r.wanted()
	var alone []string
	points := mountPoints()
	for _, path := range files {
		if points[path] {
			alone = append(alone, path)
		}
	}
	if len(alone) == 0 {
		return
	}
	r.warned["mounts"] = true
	r.o.Log.Warn("a file is mounted by itself: after an editor replaces it, the mount still shows the old one",
		"files", strings.Join(alone[:min(len(alone), 5)], " "), "count", len(alone), "cure", "mount the folder that holds it")
}

// MountedAlone says whether a file is a mount of its own, such as one of docker compose's
// `./gateway.yaml:/etc/sallyport/gateway.yaml`: it never shows a file that took the place of the
// mounted one. It is false where the system does not tell (other than Linux).
func MountedAlone(path string) bool {
	full, err := filepath.Abs(path)
	if err != nil {
		return false
	}
	info, err := os.Stat(full)
	return err == nil && info.Mode().IsRegular() && mountPoints()[full]
}
