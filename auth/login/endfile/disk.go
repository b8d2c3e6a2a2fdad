package endfile

import (
	"bufio"
	"bytes"
	"errors"
	"io"
	"os"
	"path/filepath"
	"strings"
)

const (
	day      = 24 * 60 * 60 // seconds
	readSize = 64 << 10     // bytes of one read
	fedLines = 512          // for a sink at once
)

// content is what was read of a file.
type content struct {
	read    int64 // bytes up to the end of the last line that was read or written
	lines   int   // the header among them, without those of subjects
	created int64 // from the header
	days    map[int64]int

	subjects int  // lines of subjects
	subject  Line // the last line, if it is the subject of the next one
}

// place returns the number of the next line, from 1.
func (c *content) place() int { return c.lines + c.subjects + 1 }

// count counts a line that was read or written, and that of its subject if that was written.
func (c *content) count(l *Line, written bool) {
	if c.subject = (Line{}); written && l.Of != (ID{}) {
		c.subjects++
	}
	if c.days == nil {
		c.days = map[int64]int{}
	}
	c.days[l.At/day]++
	c.lines++
}

// scan reads the lines that follow what was read before. It leaves out a torn last line.
func (c *content) scan(path string, file *os.File, size int64, each func(Line)) error {
	r := bufio.NewReaderSize(io.NewSectionReader(file, c.read, size-c.read), readSize)
	for {
		text, err := r.ReadSlice('\n')
		long := errors.Is(err, bufio.ErrBufferFull)
		for errors.Is(err, bufio.ErrBufferFull) {
			_, err = r.ReadSlice('\n')
		}
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return err
		}
		if long || len(text) > maxLine {
			return &Fault{Path: path, Line: c.place(), Err: errLine}
		}
		if err := c.take(text[:len(text)-1], each); err != nil {
			return &Fault{Path: path, Line: c.place(), Err: err}
		}
		c.read += int64(len(text))
	}
}

// take decodes the next line.
func (c *content) take(text []byte, each func(Line)) (err error) {
	if c.lines == 0 {
		if c.created, err = parseHeader(text); err == nil {
			c.lines = 1
		}
		return err
	}
	l, err := parseLine(text)
	if err != nil {
		return err
	}
	if l.isSubject() {
		c.subject = l
		c.subjects++
		return nil
	}
	if l.Kind == Session && l.Login == c.subject.Login {
		l.Of = c.subject.ID
	}
	c.count(&l, false)
	each(l)
	return nil
}

// isNew reports whether a file has no header yet: it is empty, or a crash tore the header. It returns
// errForeign for a file of something else.
func isNew(file *os.File, size int64) (bool, error) {
	b := make([]byte, min(size, maxLine))
	if _, err := file.ReadAt(b, 0); err != nil {
		return false, err
	}
	if bytes.IndexByte(b, '\n') >= 0 {
		return false, nil
	}
	b = bytes.Trim(b, "\x00") // of a crash of the machine
	if size >= maxLine || !strings.HasPrefix(string(b), magic[:min(len(b), len(magic))]) {
		return false, errForeign
	}
	return true, nil
}

// isSame reports whether the file has the header that was read before.
func (f *File) isSame() bool {
	b := make([]byte, maxLine)
	n, err := f.file.ReadAt(b, 0)
	if err != nil && !errors.Is(err, io.EOF) {
		return false
	}
	text, _, whole := bytes.Cut(b[:n], []byte("\n"))
	created, err := parseHeader(text)
	return whole && err == nil && created == f.state.created
}

// locked runs do while no other process writes the file, and after all that others have written was read.
// The caller holds f.disk.
func (f *File) locked(do func() error) error {
	for range 8 {
		if f.file == nil {
			if err := f.open(); err != nil {
				return err
			}
		}
		if err := lockFile(f.file, lockTime); err != nil {
			return err
		}
		if info, err := os.Lstat(f.path); err == nil && os.SameFile(info, f.info) {
			if err = f.catchUp(); err == nil {
				err = do()
			}
			if seen, failed := f.file.Stat(); failed == nil {
				f.info = seen
			}
			unlockFile(f.file)
			f.lines.Store(int64(max(f.state.lines-1, 0)))
			return err
		}
		f.forget() // it was removed or replaced meanwhile
	}
	return errBusy
}

// open opens the file, and makes it if it is missing.
func (f *File) open() error {
	if err := inspect(f.path); err != nil {
		return err
	}
	file, err := os.OpenFile(f.path, openFlags|os.O_CREATE, 0o600)
	if err != nil {
		return err
	}
	if f.info, err = file.Stat(); err != nil {
		_ = file.Close() // nothing was written
		return err
	}
	f.file = file
	return nil
}

// catchUp reads what other processes have written, and cuts off a torn last line. It begins a new file.
// The caller holds the lock.
func (f *File) catchUp() error {
	info, err := f.file.Stat()
	if err != nil {
		return err
	}
	size, cut := info.Size(), false
	if f.state.read > 0 && !f.isSame() {
		f.state = content{} // another process has begun it anew
	}
	if size < f.state.read {
		f.state, cut = content{}, true // and what stood there is lost
	}
	if size == f.state.read && size > 0 {
		return nil
	}
	if f.state.read == 0 {
		fresh, err := isNew(f.file, size)
		if err != nil {
			return err
		}
		if fresh || cut {
			if size, err = f.begin(); err != nil {
				return err
			}
		}
	}
	err = f.feed(&f.state, size, f.sinks)
	if err == nil && f.state.read < size {
		err = f.file.Truncate(f.state.read)
	}
	return err
}

// feed reads the lines that follow what was read before, and gives them to the sinks of their logins. It
// does so some at a time, so that a long file takes little memory and keeps no sink locked for long.
func (f *File) feed(c *content, size int64, sinks map[Login]Sink) error {
	lines := map[Login][]Line{}
	give := func(l Login) {
		// A clock that was ahead when the file was made ends no session that begins from now on.
		sinks[l].Apply(min(c.created, f.o.Now().Unix()), lines[l])
		lines[l] = lines[l][:0]
	}
	err := c.scan(f.path, f.file, size, func(l Line) {
		if sinks[l.Login] == nil {
			return
		}
		if lines[l.Login] = append(lines[l.Login], l); len(lines[l.Login]) == fedLines {
			give(l.Login)
		}
	})
	for l := range sinks {
		give(l)
	}
	return err
}

// begin writes the header of a new file, and returns its size.
func (f *File) begin() (size int64, err error) {
	if err := f.file.Truncate(0); err != nil {
		return 0, err
	}
	text := appendHeader(nil, f.o.Now().Unix())
	if err := f.put(f.file, text); err != nil {
		return 0, errors.Join(err, f.file.Truncate(0))
	}
	return int64(len(text)), syncFolder(f.path)
}

// add appends lines. After an error the file is as before. The caller holds the lock.
func (f *File) add(lines []Line) error {
	var text []byte
	for i := range lines {
		text = appendLine(text, &lines[i])
	}
	if len(text) == 0 {
		return nil
	}
	if err := f.put(f.file, text); err != nil {
		return errors.Join(err, f.file.Truncate(f.state.read))
	}
	f.state.read += int64(len(text))
	for i := range lines {
		f.state.count(&lines[i], true)
	}
	return nil
}

// put writes text at the end of a file, and syncs it.
func put(file *os.File, text []byte) error {
	if _, err := file.Write(text); err != nil {
		return err
	}
	return file.Sync()
}

// syncFolder makes a new name in the folder of a file durable.
func syncFolder(path string) error {
	d, err := os.Open(filepath.Dir(path))
	if err != nil {
		return err
	}
	defer d.Close() // it was only read
	if err = d.Sync(); unsupportedSync(err) {
		return nil
	}
	return err
}
