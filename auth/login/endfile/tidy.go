package endfile

import (
	"errors"
	"os"
)

const (
	nextEnding = ".new" // of the name of the file that replaces another
	maxName    = 255    // bytes of a file name on most file systems
)

// slack is how many lines may be dead without regard to the others.
const slack = 1024

// Tidy writes the file anew without its dead lines: if these may be more than the others, or if a day's
// lines no longer count. It is called now and then. The header of the new file says that the sessions of these
// lines have ended, in case the clock was only ahead.
func (f *File) Tidy() {
	f.disk.Lock()
	if !f.untidy() {
		f.disk.Unlock()
		return
	}
	err := f.locked(f.rewrite)
	f.disk.Unlock()
	f.note(err)
}

// oldest returns the time of the oldest ends that count.
func (f *File) oldest() int64 { return f.o.Now().Add(-f.o.Keep).Unix() }

func (f *File) untidy() bool {
	oldest := f.oldest()
	for d := range f.state.days {
		if (d+1)*day <= oldest {
			return true
		}
	}
	return f.state.lines > 2*f.kept+slack
}

// rewrite writes the living lines beside the file, and renames that. The caller holds the lock.
func (f *File) rewrite() error {
	old := content{}
	living := living{oldest: f.oldest(), sets: sets{}}
	if err := old.scan(f.path, f.file, f.state.read, living.add); err != nil {
		return err
	}
	lines := living.sets.lines()
	next := content{created: max(old.created, living.dropped), lines: 1}
	text := appendHeader(nil, next.created)
	for i := range lines {
		text = appendLine(text, &lines[i])
		next.count(&lines[i], true)
	}
	next.read = int64(len(text))
	file, info, err := f.replace(text)
	if err != nil {
		return err
	}
	_ = f.file.Close() // the old file, whose lock ends by that
	f.file, f.info, f.state, f.kept = file, info, next, len(lines)
	return syncFolder(f.path)
}

// replace replaces the file by another with this text, and returns it.
func (f *File) replace(text []byte) (*os.File, os.FileInfo, error) {
	name := f.path + nextEnding
	if err := os.Remove(name); err != nil && !errors.Is(err, os.ErrNotExist) { // of a crash
		return nil, nil, err
	}
	file, err := os.OpenFile(name, openFlags|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return nil, nil, err
	}
	info, err := file.Stat()
	if err == nil {
		err = f.put(file, text)
	}
	if err == nil {
		err = os.Rename(name, f.path)
	}
	if err != nil {
		return nil, nil, errors.Join(err, file.Close(), os.Remove(name))
	}
	return file, info, nil
}

// living collects the lines that count.
type living struct {
	oldest  int64
	dropped int64 // time of the youngest line that no longer counts; 0 for none
	sets    sets
}

// add adds a line, in the order of the file.
func (v *living) add(l Line) {
	if l.At < v.oldest {
		v.dropped = max(v.dropped, l.At)
		return
	}
	v.sets.add(&l)
}
