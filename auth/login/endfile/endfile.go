// Package endfile keeps the ends of sessions in a file, so that they outlive the process. Several
// processes may share the file.
//
// The file only grows, until [File.Tidy] writes it anew beside and renames that. A process writes whole
// lines under a lock, and reads those of the others before it writes and whenever [File.Follow] sees that
// the file has changed. Under the lock a torn last line, which a crash left, is cut off: nobody was told
// that it had been written.
//
// The header of the file says when it was made. Sessions that began until then have ended, so that a file
// that was lost, or cut while the gateway runs, brings no session back.
package endfile

import (
	"errors"
	"log/slog"
	"os"
	"slices"
	"sync"
	"sync/atomic"
	"time"
)

const (
	lockPause  = 2 * time.Millisecond
	lockTime   = 4 * time.Second  // for another process to finish its write
	writeTime  = 5 * time.Second  // for Append to wait for the disk
	retryAfter = 10 * time.Second // after a failed write
)

// Options configure a [File].
type Options struct {
	Now  func() time.Time
	Log  *slog.Logger
	Keep time.Duration // how long an end counts: longer than any session lasts
}

// Sink takes the ends of one login.
type Sink interface {
	// Apply takes lines in the order of the file. Sessions that began until before have ended too. It must not
	// keep the slice.
	Apply(before int64, lines []Line)
}

// File is a file with the ends of sessions. It is safe for concurrent use.
type File struct {
	path string
	o    Options
	work sync.WaitGroup

	mu       sync.Mutex // guards the fields below
	next     *batch     // lines of the next write; nil if there are none
	writing  bool
	unsaved  []Line    // of writes that failed
	retry    time.Time // when they are tried again
	failures uint64    // writes that failed
	fault    error     // of the last use of the file; nil if it succeeded
	closed   bool

	lines atomic.Int64 // of the file, besides the header

	disk  sync.Mutex // guards the fields below; held while the file is read or written
	file  *os.File   // nil before it is opened anew
	info  os.FileInfo
	state content
	kept  int // lines that the last Tidy kept
	sinks map[Login]Sink
	put   func(*os.File, []byte) error // writes and syncs; tests replace it
}

// batch is what one write, and one fsync, stores.
type batch struct {
	lines []Line
	done  chan struct{}
	err   error // valid when done is closed
}

// Open opens a file, and makes it if it is missing. It reads the file to find faults. The error is a
// [*Fault].
func Open(path string, o Options) (*File, error) {
	f := &File{path: path, o: o, sinks: map[Login]Sink{}, put: put}
	f.disk.Lock()
	defer f.disk.Unlock()
	if err := f.locked(func() error { return nil }); err != nil {
		f.forget()
		return nil, f.explain(err)
	}
	return f, nil
}

// Path returns the name of the file.
func (f *File) Path() string { return f.path }

// Attach gives a login's ends to s: those of the file before it returns, and later those that other
// processes add. If the file cannot be read, all sessions that have begun have ended.
func (f *File) Attach(l Login, s Sink) {
	f.disk.Lock()
	err := f.locked(func() error {
		return f.feed(&content{}, f.state.read, map[Login]Sink{l: s})
	})
	f.sinks[l] = s
	if err != nil {
		f.state = content{} // read it again
		s.Apply(f.o.Now().Unix(), nil)
	}
	f.disk.Unlock()
	f.note(err)
}

// Append stores lines, and returns once the disk has them and all earlier ones. Lines that could not be
// stored are tried again later.
func (f *File) Append(lines ...Line) error {
	b := f.queue(lines)
	if b == nil {
		return nil
	}
	late := time.NewTimer(writeTime)
	defer late.Stop()
	select {
	case <-b.done:
		return b.err
	case <-late.C:
		return f.explain(errLate)
	}
}

// queue adds lines to the next write. It returns nil if nothing is to be written.
func (f *File) queue(lines []Line) *batch {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.closed {
		return &batch{done: closedChan(), err: f.explain(os.ErrClosed)}
	}
	if len(lines) == 0 && len(f.unsaved) == 0 && !f.writing {
		return nil
	}
	if f.next == nil {
		f.next = &batch{done: make(chan struct{})}
	}
	f.next.lines = append(f.next.lines, lines...)
	if !f.writing {
		f.writing = true
		f.work.Go(f.flush)
	}
	return f.next
}

func closedChan() chan struct{} {
	c := make(chan struct{})
	close(c)
	return c
}

// flush writes batches until there are none. Those who come meanwhile share the next write.
func (f *File) flush() {
	for {
		f.mu.Lock()
		b := f.next
		if f.next = nil; b == nil {
			f.writing = false
			f.mu.Unlock()
			return
		}
		lines := slices.Concat(f.unsaved, b.lines)
		f.mu.Unlock()

		b.err = f.write(lines)
		f.mu.Lock()
		f.unsaved = nil
		if b.err != nil {
			f.unsaved, f.retry = bounded(lines), f.o.Now().Add(retryAfter)
			f.failures++
		}
		f.mu.Unlock()
		close(b.done)
	}
}

// bounded returns lines, or fewer that end more if there are too many.
func bounded(lines []Line) []Line {
	if len(lines) <= MaxEnds {
		return lines
	}
	all := sets{}
	for i := range lines {
		all.add(&lines[i])
	}
	if few := all.lines(); len(few) <= MaxEnds/2 { // else the next would soon be too many again
		return few
	}
	one := make([]Line, 0, len(all))
	for login, s := range all {
		one = append(one, Line{Kind: Before, Login: login, At: s.youngest()})
	}
	return one
}

// write stores lines.
func (f *File) write(lines []Line) error {
	f.disk.Lock()
	err := f.locked(func() error { return f.add(lines) })
	f.disk.Unlock()
	f.note(err)
	return f.explain(err)
}

// Follow reads what other processes have written, and tries again to store what could not be stored. It
// is called about once a second.
func (f *File) Follow() {
	f.mu.Lock()
	again := len(f.unsaved) > 0 && !f.o.Now().Before(f.retry)
	f.mu.Unlock()
	if again {
		f.queue(nil)
		return
	}
	f.disk.Lock()
	changed, err := f.changed(), error(nil)
	if changed {
		err = f.locked(func() error { return nil })
	}
	f.disk.Unlock()
	if changed && !errors.Is(err, errBusy) {
		f.note(err)
	}
}

// changed reports whether the file is another one, or was written, since it was last used.
func (f *File) changed() bool {
	info, err := os.Lstat(f.path)
	return err != nil || f.file == nil || !os.SameFile(info, f.info) || info.Size() != f.state.read || !info.ModTime().Equal(f.info.ModTime())
}

// note notes the outcome of a use of the file, and logs it if it is another than before.
func (f *File) note(err error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	old := f.fault
	f.fault = f.explain(err)
	switch {
	case err != nil && (old == nil || old.Error() != f.fault.Error()):
		f.o.Log.Error("the file with ends of sessions cannot be used; ends count in this process, until it restarts", "error", f.fault)
	case err == nil && old != nil:
		f.o.Log.Info("the file with ends of sessions can be used again", "file", f.path)
	}
}

// Status is the state of a [File].
type Status struct {
	Path     string
	Lines    int    // of the file, besides the header
	Unsaved  int    // ends that are not on disk
	Failures uint64 // writes that failed
	Fault    error  // why the file cannot be used; nil if it can
}

// Status returns the state of the file.
func (f *File) Status() Status {
	f.mu.Lock()
	defer f.mu.Unlock()
	return Status{Path: f.path, Lines: int(f.lines.Load()), Unsaved: len(f.unsaved), Failures: f.failures, Fault: f.fault}
}

// Close stores what is left, and closes the file.
func (f *File) Close() {
	f.queue(nil)
	f.mu.Lock()
	f.closed = true
	f.mu.Unlock()
	f.work.Wait()
	f.disk.Lock()
	defer f.disk.Unlock()
	f.forget()
}

// forget closes the file, so that the next use opens it anew.
func (f *File) forget() {
	if f.file != nil {
		_ = f.file.Close() // what was written is on disk
	}
	f.file, f.info, f.state = nil, nil, content{}
}
