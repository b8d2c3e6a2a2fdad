package endfile

import (
	"bytes"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"
)

const start = 1_764_457_000

// sink collects what a file applies.
type sink struct {
	mu     sync.Mutex // guards the fields below
	before int64
	lines  []Line
}

func (s *sink) Apply(before int64, lines []Line) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.before = max(s.before, before)
	s.lines = append(s.lines, lines...)
}

// has reports whether the sink was given a line.
func (s *sink) has(l Line) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return slices.Contains(s.lines, l)
}

// disk is a folder with a file, and a clock.
type disk struct {
	t    *testing.T
	path string
	at   atomic.Int64 // the time
	log  bytes.Buffer
}

func newDisk(t *testing.T) *disk {
	d := &disk{t: t, path: filepath.Join(t.TempDir(), "ends")}
	d.at.Store(start)
	return d
}

func (d *disk) now() time.Time { return time.Unix(d.at.Load(), 0) }

// process opens the file as another process does.
func (d *disk) process() (*File, *sink) {
	d.t.Helper()
	f, err := Open(d.path, Options{Now: d.now, Log: slog.New(slog.NewTextHandler(&d.log, nil)), Keep: 30 * 24 * time.Hour})
	if err != nil {
		d.t.Fatal(err)
	}
	d.t.Cleanup(f.Close)
	s := &sink{}
	f.Attach(corp, s)
	return f, s
}

// text returns the content of the file.
func (d *disk) text() string {
	d.t.Helper()
	b, err := os.ReadFile(d.path)
	if err != nil {
		d.t.Fatal(err)
	}
	return string(b)
}

// write replaces the content of the file, as no gateway does.
func (d *disk) write(text string) {
	d.t.Helper()
	if err := os.WriteFile(d.path, []byte(text), 0o600); err != nil {
		d.t.Fatal(err)
	}
}

var corp = LoginOf("corp", "gateway")

// numbered returns the end of one of many sessions.
func numbered(n int) Line {
	return Line{Kind: Session, Login: corp, ID: ID{1, byte(n), byte(n >> 8), byte(n >> 16)}, At: start, Until: 1<<63 - 1}
}

func (d *disk) append(f *File, lines ...Line) {
	d.t.Helper()
	if err := f.Append(lines...); err != nil {
		d.t.Fatal(err)
	}
}

func TestNextProcessReadsTheEnds(t *testing.T) {
	d := newDisk(t)
	f, s := d.process()
	if s.before != start {
		t.Errorf("the new file was made at %d", s.before)
	}
	all := []Line{
		numbered(1), {SID, corp, ID{2}, ID{}, start + 1, start - 5}, {Subject, corp, ID{3}, ID{}, start + 2, start}, {Before, corp, ID{}, ID{}, start - 9, 0},
		{Session, corp, ID{5}, ID{3}, start + 3, start + 1},
	}
	d.append(f, all...)
	d.append(f, Line{Session, LoginOf("corp", "another"), ID{4}, ID{}, start, start})
	f.Close()
	d.at.Add(1000)
	_, s = d.process()
	if !slices.Equal(s.lines, all) || s.before != start {
		t.Errorf("got %v before %d", s.lines, s.before)
	}
	info, err := os.Stat(d.path)
	if err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("mode %v, %v", info.Mode(), err)
	}
}

// A crash tears the last line. Nobody was told that it had been written.
func TestTornLastLineIsCut(t *testing.T) {
	d := newDisk(t)
	f, _ := d.process()
	d.append(f, numbered(1))
	f.Close()
	whole := d.text()
	next := string(appendLine(nil, &[]Line{numbered(2)}[0]))
	for n := 1; n < len(next); n++ {
		d.write(whole + next[:n])
		f, s := d.process()
		if !s.has(numbered(1)) || s.has(numbered(2)) {
			t.Fatalf("%d bytes: got %v", n, s.lines)
		}
		d.append(f, numbered(3))
		f.Close()
		if got, want := d.text(), whole+string(appendLine(nil, &[]Line{numbered(3)}[0])); got != want {
			t.Fatalf("%d bytes: the file is %q", n, got)
		}
	}
	d.write(whole + strings.Repeat("\x00", 100_000)) // a crash of the machine
	if _, s := d.process(); !s.has(numbered(1)) || d.text() != whole {
		t.Errorf("zeros: got %v", s.lines)
	}
}

// A crash while the file is made leaves no header.
func TestTornHeaderIsWrittenAnew(t *testing.T) {
	header := string(appendHeader(nil, start-500))
	for n := range len(header) {
		d := newDisk(t)
		d.write(header[:n])
		if err := Check(d.path); err != nil {
			t.Errorf("%d bytes: %v", n, err)
		}
		if _, s := d.process(); s.before != start {
			t.Errorf("%d bytes: sessions before %d have ended", n, s.before)
		}
	}
}

// TestDamageIsAFault changes each byte of a file with three lines.
func TestDamageIsAFault(t *testing.T) {
	d := newDisk(t)
	f, _ := d.process()
	d.append(f, numbered(1), numbered(2))
	f.Close()
	whole := []byte(d.text())
	for i := range whole[:len(whole)-1] {
		bad := slices.Clone(whole)
		bad[i] ^= 1
		d.write(string(bad))
		_, err := Open(d.path, Options{Now: d.now, Log: slog.New(slog.DiscardHandler)})
		var fault *Fault
		if !errors.As(err, &fault) {
			t.Fatalf("byte %d: %v", i, err)
		}
		line := bytes.Count(whole[:i], []byte("\n")) + 1
		if fault.Line != line && !errors.Is(err, errForeign) && whole[i] != '\n' || fault.Cure() == "" {
			t.Errorf("byte %d of line %d: %v", i, line, err)
		}
		if check := Check(d.path); check == nil || check.Error() != err.Error() {
			t.Errorf("byte %d: check says %v, and the start %v", i, check, err)
		}
		if d.text() != string(bad) {
			t.Fatalf("byte %d: the file was changed", i)
		}
	}
}

func TestFilesThatMustNotBeTrusted(t *testing.T) {
	for name, c := range map[string]struct {
		make func(path string) error
		want string
	}{
		"another file":       {func(p string) error { return os.WriteFile(p, []byte("root:x:0:0\n"), 0o600) }, "is not a file with ends of sessions; name another file"},
		"binary":             {func(p string) error { return os.WriteFile(p, bytes.Repeat([]byte{1}, 1<<20), 0o600) }, "is not a file with ends of sessions; name another file"},
		"another version":    {func(p string) error { return os.WriteFile(p, []byte(magic+" 2 1 00000000\n"), 0o600) }, ":1: is of another version of this program; move the file away: all sessions end then, and people sign in again"},
		"a folder":           {func(p string) error { return os.Mkdir(p, 0o700) }, "is not a regular file; name another file"},
		"a link":             {func(p string) error { return os.Symlink("/etc/passwd", p) }, "is not a regular file; name another file"},
		"writable by others": {func(p string) error { return errors.Join(os.WriteFile(p, nil, 0o600), os.Chmod(p, 0o602)) }, "can be written by every user of this machine; chmod 600 "},
	} {
		d := newDisk(t)
		if err := c.make(d.path); err != nil {
			t.Fatal(err)
		}
		_, err := Open(d.path, Options{Now: d.now, Log: slog.New(slog.DiscardHandler)})
		if err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: got %v", name, err)
		}
		if check := Check(d.path); check == nil || check.Error() != err.Error() {
			t.Errorf("%s: check says %v", name, check)
		}
	}
	if _, err := Open(filepath.Join(t.TempDir(), "none", "ends"), Options{Now: time.Now, Log: slog.New(slog.DiscardHandler)}); err == nil {
		t.Error("a missing folder")
	}
}

// A file that was lost must not bring sessions back: those that began before the new one have ended.
func TestLostFileEndsAllSessions(t *testing.T) {
	d := newDisk(t)
	f, s := d.process()
	d.append(f, numbered(1))
	if err := os.Remove(d.path); err != nil {
		t.Fatal(err)
	}
	d.at.Add(100)
	f.Follow()
	if s.before != start+100 {
		t.Errorf("the process that runs ends sessions before %d", s.before)
	}
	d.append(f, numbered(2))
	if _, s := d.process(); s.before != start+100 || !s.has(numbered(2)) {
		t.Errorf("the next process ends sessions before %d: %v", s.before, s.lines)
	}
}

// Somebody empties the file while a process runs: that is as if it were lost.
func TestEmptiedFileEndsAllSessions(t *testing.T) {
	d := newDisk(t)
	f, s := d.process()
	d.append(f, numbered(1))
	d.write("")
	d.at.Add(100)
	d.append(f, numbered(2))
	if _, next := d.process(); s.before != start+100 || next.before != start+100 || !next.has(numbered(2)) {
		t.Errorf("sessions before %d have ended, and %d: %v", s.before, next.before, next.lines)
	}
}

// A clock that was ahead when the file was made ends no session that begins later.
func TestFileOfAClockThatWasAhead(t *testing.T) {
	d := newDisk(t)
	d.at.Add(1_000_000)
	f, _ := d.process()
	f.Close()
	d.at.Store(start)
	if _, s := d.process(); s.before != start {
		t.Errorf("sessions before %d have ended", s.before)
	}
}

func TestProcessesShareTheFile(t *testing.T) {
	d := newDisk(t)
	a, sa := d.process()
	b, sb := d.process()
	var work sync.WaitGroup
	for i := range 200 {
		work.Go(func() {
			if err := []*File{a, b}[i%2].Append(numbered(i)); err != nil {
				t.Error(err)
			}
		})
	}
	work.Wait()
	a.Follow()
	b.Follow()
	_, sc := d.process()
	for i := range 200 {
		other := []*sink{sb, sa}[i%2]
		if !other.has(numbered(i)) || !sc.has(numbered(i)) {
			t.Fatalf("end %d: the other process has it: %v, the next: %v", i, other.has(numbered(i)), sc.has(numbered(i)))
		}
	}
	if n := strings.Count(d.text(), "\n"); n != 201 {
		t.Errorf("%d lines", n)
	}
}

// Ends that come while the disk is busy share the next fsync.
func TestConcurrentEndsShareAWrite(t *testing.T) {
	d := newDisk(t)
	f, _ := d.process()
	var writes atomic.Int64
	begun, free := make(chan bool, 1), make(chan bool)
	f.put = func(file *os.File, text []byte) error {
		if writes.Add(1) == 1 {
			begun <- true
			<-free
		}
		return put(file, text)
	}
	var work sync.WaitGroup
	end := func(n int) {
		if err := f.Append(numbered(n)); err != nil {
			t.Error(err)
		}
	}
	work.Go(func() { end(0) })
	<-begun
	for i := range 100 {
		work.Go(func() { end(i + 1) })
	}
	for waiting := 0; waiting < 100; {
		f.mu.Lock()
		if waiting = 0; f.next != nil {
			waiting = len(f.next.lines)
		}
		f.mu.Unlock()
		time.Sleep(time.Millisecond)
	}
	free <- true
	work.Wait()
	if n := writes.Load(); n != 2 {
		t.Errorf("%d writes for 101 ends", n)
	}
}

// The disk is full: half of a line is written. It is cut, and the end is stored once there is room.
func TestFullDisk(t *testing.T) {
	d := newDisk(t)
	f, s := d.process()
	d.append(f, numbered(1))
	whole := d.text()
	f.put = func(file *os.File, text []byte) error {
		_, err := file.Write(text[:len(text)/2])
		return errors.Join(err, errors.New("no space left on device"))
	}
	for range 2 {
		if err := f.Append(numbered(2)); err == nil || !strings.Contains(err.Error(), d.path+": no space left on device") {
			t.Errorf("got %v", err)
		}
	}
	if st := f.Status(); st.Unsaved != 2 || st.Failures != 2 || st.Fault == nil || st.Lines != 1 {
		t.Errorf("status %+v", st)
	}
	if n := strings.Count(d.log.String(), "no space left on device"); n != 1 || d.text() != whole {
		t.Errorf("%d lines in the log; the file is %q", n, d.text())
	}
	other, seen := d.process() // is not hindered
	d.append(other, numbered(3))

	f.put = put
	f.Follow() // too early
	if seen.has(numbered(2)) {
		t.Error("tried again at once")
	}
	d.at.Add(11)
	f.Follow()
	d.append(f) // waits for the write
	other.Follow()
	if st := f.Status(); st.Unsaved != 0 || st.Fault != nil || !seen.has(numbered(2)) || !s.has(numbered(3)) {
		t.Errorf("status %+v", st)
	}
	if !strings.Contains(d.log.String(), "can be used again") {
		t.Error("the log does not say that it works again")
	}
}

// A disk that does not answer holds nobody for ever, and what is not stored is bounded.
func TestUnsavedEndsAreBounded(t *testing.T) {
	var all []Line
	for i := range MaxEnds + 1 {
		l := numbered(i)
		l.At = start + int64(i%7)
		all = append(all, l)
	}
	if got := bounded(all[1:]); len(got) != MaxEnds {
		t.Errorf("%d of %d are left", len(got), MaxEnds)
	}
	if got, want := bounded(all), []Line{{Kind: Before, Login: corp, At: start + 6}}; !slices.Equal(got, want) {
		t.Errorf("got %d lines: %v", len(got), got[:1])
	}
	for i := range all { // but one person ends nobody else's
		all[i].Of = ID{7}
	}
	if got := bounded(all); len(got) > MaxOfSubject+1 || got[0].Kind == Before {
		t.Errorf("got %d lines: %v", len(got), got[:1])
	}
}

func TestTidyKeepsWhatCounts(t *testing.T) {
	d := newDisk(t)
	a, _ := d.process()
	b, sb := d.process()
	var all []Line
	for i := range 3 * slack { // all but the last are dead
		all = append(all, Line{Subject, corp, ID{9}, ID{}, start, int64(i + 1)})
	}
	d.append(a, append(all, numbered(1))...)
	last := Line{Subject, corp, ID{9}, ID{}, start, 3 * slack}
	if err := os.WriteFile(d.path+".new", []byte("of a crash"), 0o600); err != nil {
		t.Fatal(err)
	}
	a.Tidy()
	want := string(appendHeader(nil, start)) + string(appendLine(nil, &last)) + string(appendLine(nil, &[]Line{numbered(1)}[0]))
	if d.text() != want {
		t.Fatalf("the file is %q", d.text())
	}
	d.append(b, numbered(2)) // it had the old file open
	d.append(a, numbered(3))
	b.Follow()
	_, s := d.process()
	for i := 1; i <= 3; i++ {
		if !s.has(numbered(i)) || i != 2 && !sb.has(numbered(i)) {
			t.Errorf("end %d is lost", i)
		}
	}
	if sb.before != start || s.before != start {
		t.Errorf("the time of the file's creation is %d and %d", sb.before, s.before)
	}

	d.at.Add(31*24*60*60 + 1)
	later := numbered(4)
	later.At = d.at.Load()
	d.append(a, later)
	a.Tidy()
	if want := string(appendHeader(nil, start)) + string(appendLine(nil, &later)); d.text() != want {
		t.Errorf("after a month the file is %q", d.text())
	}
}

// A process ends many more sessions than are kept. The oldest ends become one of all older sessions.
func TestSeventyThousandEnds(t *testing.T) {
	d := newDisk(t)
	f, _ := d.process()
	const n = 70_000
	var all []Line
	for i := range n {
		l := numbered(i)
		l.At = start + int64(i)
		all = append(all, l)
	}
	d.append(f, all...)
	f.Tidy()
	if lines := f.Status().Lines; lines != MaxEnds+1 {
		t.Errorf("%d lines", lines)
	}
	_, s := d.process()
	floor := Line{Kind: Before, Login: corp, At: start + n - MaxEnds - 1}
	if !s.has(floor) || !s.has(all[n-1]) || !s.has(all[n-MaxEnds]) || s.has(all[n-MaxEnds-1]) {
		t.Errorf("first: %v", s.lines[0])
	}
}

func TestLinesNameNobody(t *testing.T) {
	l := numbered(1)
	got := string(appendLine(nil, &l))
	want := fmt.Sprintf("session %x %x %d %d ", l.Login, l.ID, l.At, l.Until)
	if !strings.HasPrefix(got, want) || len(got) > maxLine {
		t.Errorf("got %q", got)
	}
}

func FuzzParseLine(f *testing.F) {
	l := numbered(1)
	f.Add(appendLine(nil, &l))
	f.Add(appendHeader(nil, start))
	f.Fuzz(func(t *testing.T, text []byte) {
		text = bytes.TrimSuffix(text, []byte("\n"))
		if l, err := parseLine(text); err == nil && string(appendLine(nil, &l)) != string(text)+"\n" {
			t.Errorf("%q has two forms", text)
		}
		if at, err := parseHeader(text); err == nil && string(appendHeader(nil, at)) != string(text)+"\n" {
			t.Errorf("%q has two forms", text)
		}
	})
}
