package endfile

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"syscall"
)

var (
	errForeign = errors.New("is not a file with ends of sessions")
	errVersion = errors.New("is of another version of this program")
	errLine    = errors.New("is damaged")
	errLong    = errors.New("has a name that is too long, since the gateway makes a file beside it with " + nextEnding + " at the end of the name")
	errKind    = errors.New("is not a regular file")
	errOwner   = errors.New("belongs to another user, who could have written it")
	errOthers  = errors.New("can be written by every user of this machine")
	errFolder  = errors.New("belongs to another user, and lies in a folder where every user of this machine may write")
	errNoLocks = errors.New("lies on a file system without locks, which processes need to share it")
	errBusy    = errors.New("another process holds its lock")
	errLate    = errors.New("the disk takes too long")
)

// Fault says why a file cannot be used.
type Fault struct {
	Path string
	Line int // 0: the whole file
	Err  error
}

// Place returns the file, and the line if it is known.
func (e *Fault) Place() string {
	if e.Line > 0 {
		return fmt.Sprintf("%s:%d", e.Path, e.Line)
	}
	return e.Path
}

// Error returns the place and the cause, and what to do.
func (e *Fault) Error() string {
	if cure := e.Cure(); cure != "" {
		return fmt.Sprintf("%s: %v; %s", e.Place(), e.Err, cure)
	}
	return fmt.Sprintf("%s: %v", e.Place(), e.Err)
}

// Unwrap returns the cause.
func (e *Fault) Unwrap() error { return e.Err }

// Cure returns what to do; "" if the cause says it.
func (e *Fault) Cure() string {
	switch {
	case errors.Is(e.Err, errLine), errors.Is(e.Err, errVersion):
		return "move the file away: all sessions end then, and people sign in again"
	case errors.Is(e.Err, errLong):
		if n := len(filepath.Base(e.Path)); n > maxName-len(nextEnding) {
			return fmt.Sprintf("write a name of %d bytes or less; it has %d", maxName-len(nextEnding), n)
		}
		return "write a shorter path"
	case errors.Is(e.Err, errForeign), errors.Is(e.Err, errKind):
		return "name another file"
	case errors.Is(e.Err, errOwner):
		return "give it to the gateway's user, or name another file"
	case errors.Is(e.Err, errOthers):
		return "chmod 600 " + e.Path
	case errors.Is(e.Err, errFolder):
		return "chmod go-w " + filepath.Dir(e.Path)
	case errors.Is(e.Err, errNoLocks):
		return "name a file on a local disk, or write off"
	}
	return ""
}

// explain returns the error as a [*Fault] of the file; nil for nil.
func (f *File) explain(err error) error { return explain(f.path, err) }

func explain(path string, err error) error {
	var known *Fault
	var at *fs.PathError
	switch {
	case err == nil, errors.As(err, &known):
		return err
	case errors.As(err, &at) && at.Path == path:
		err = at.Err
	}
	return &Fault{Path: path, Err: err}
}

// inspect returns why a file must not be trusted; nil if it is missing.
func inspect(path string) error {
	if _, err := os.Lstat(path + nextEnding); errors.Is(err, syscall.ENAMETOOLONG) {
		return errLong
	}
	info, err := os.Lstat(path)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return nil
	case err != nil:
		return err
	case !info.Mode().IsRegular():
		return errKind
	case info.Mode().Perm()&0o002 != 0:
		return errOthers
	case !foreignOwner(info):
		return nil
	case os.Geteuid() != 0:
		return errOwner
	}
	// Root may check the file of a service, unless anybody could have put it there.
	folder, err := os.Stat(filepath.Dir(path))
	if err == nil && folder.Mode().Perm()&0o002 != 0 {
		return errFolder
	}
	return err
}

// Check returns why [Open] would refuse a file, as a [*Fault]. It leaves the folder as it was, and a process
// that has the file does not notice.
func Check(path string) error {
	if err := inspect(path); err != nil {
		return explain(path, err)
	}
	file, err := os.OpenFile(path, openFlags, 0)
	if errors.Is(err, fs.ErrNotExist) {
		return explain(path, tryNew(path))
	}
	if err != nil {
		return explain(path, err)
	}
	defer file.Close() // nothing was written
	if err := tryLock(file); err != nil {
		return explain(path, err)
	}
	info, err := file.Stat()
	if err != nil {
		return explain(path, err)
	}
	var c content
	fresh, err := isNew(file, info.Size())
	if err == nil && !fresh {
		err = c.scan(path, file, info.Size(), func(Line) {})
	}
	return explain(path, err)
}

// tryNew returns why no new file could be made at a path: it makes another one there, and removes it.
func tryNew(path string) error {
	file, err := os.CreateTemp(filepath.Dir(path), ".sallyport-check-*")
	if err != nil {
		return err
	}
	defer file.Close() // it is removed
	if err := os.Remove(file.Name()); err != nil {
		return err
	}
	if err := tryLock(file); err != nil {
		return err
	}
	return put(file, appendHeader(nil, 0))
}
