package login

import (
	"crypto/sha256"
	"fmt"
	"slices"
	"strings"

	"sallyport/auth/login/endfile"
)

// endsOf returns the ends that would be of a session.
func endsOf(r *record) [3]endfile.End {
	return [...]endfile.End{
		endfile.Session: {Kind: endfile.Session, ID: digest(endfile.Session, string(r.id[:]))},
		endfile.SID:     {Kind: endfile.SID, ID: named(endfile.SID, r.issuer, r.sid)},
		endfile.Subject: {Kind: endfile.Subject, ID: named(endfile.Subject, r.issuer, r.subject)},
	}
}

// named returns the digest of a sid or subject of an issuer; zero for "".
func named(kind endfile.Kind, issuer, id string) endfile.ID {
	if id == "" {
		return endfile.ID{}
	}
	return digest(kind, issuer+"\x00"+id)
}

func digest(kind endfile.Kind, id string) endfile.ID {
	return sha256.Sum256([]byte(kind.String() + "\x00" + id))
}

// end ends sessions at once, and returns when the file has that too, if there is one. After an error the
// sessions have ended until the process ends; later writes try to store that again.
func (s *state) end(l endfile.Line) error {
	s.mu.Lock()
	l.Login, l.At = s.login, max(l.At, s.ends.Floor()+1) // not before the session began: see begin
	file, lines := s.file, []endfile.Line{l}
	if !s.apply(0, lines) {
		lines = nil // known; Append waits until it is stored
	}
	s.mu.Unlock()
	if file == nil {
		return nil
	}
	return file.Append(lines...)
}

// Apply implements [endfile.Sink].
func (s *state) Apply(before int64, lines []endfile.Line) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.apply(before, lines)
}

// apply ends sessions, and reports whether any of that is new. Too many ends become fewer that end more:
// people sign in again, and no ended session returns. The caller holds s.mu.
func (s *state) apply(before int64, lines []endfile.Line) bool {
	floor, news := s.ends.Floor(), false
	s.ends.Raise(before)
	for i := range lines {
		if l := &lines[i]; s.ends.Add(l) {
			news = true
			s.drop(l)
		}
	}
	if !news && s.ends.Floor() == floor {
		return false
	}
	s.changes.Add(1)
	return true
}

// drop removes the live sessions that a line ends. It does not look at all that live, since others wait
// meanwhile: those that ended otherwise are refused by [state.hasEnded], and go at the next sweep.
func (s *state) drop(line *endfile.Line) {
	l := s.live[line.ID]
	if line.Kind != endfile.Session {
		l = s.groups[endfile.End{Kind: line.Kind, ID: line.ID}]
	}
	for l != nil {
		next := l.next[line.Kind]
		if l.newest.Load().issued <= line.Until {
			l.gone.Store(true)
			s.remove(l)
		}
		l = next
	}
}

// forget removes the ends of sessions that have expired meanwhile. If the clock is only ahead, these sessions
// have ended all the same when it is set back.
func (s *state) forget(before int64) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.ends.Forget(before)
}

// hasEnded reports whether a session was ended.
func (s *state) hasEnded(r *record) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if r.begun <= s.ends.Floor() {
		return true
	}
	for _, e := range r.ends {
		if e.ID != (endfile.ID{}) && s.ends.Has(e, r.issued) {
			return true
		}
	}
	return false
}

// begin returns when a session begins that was just proved: after all that have ended by their time. That is
// later than now if the clock was set back since.
func (s *state) begin(now int64) int64 {
	s.mu.Lock()
	defer s.mu.Unlock()
	return max(now, s.ends.Floor()+1)
}

// openFile returns the file of a name, which may be open already. It does not use its ends yet.
func (m *Memory) openFile(path string) (*endfile.File, error) {
	m.mu.Lock()
	known := m.files[path]
	m.mu.Unlock()
	if known != nil {
		return known, nil
	}
	f, err := endfile.Open(path, endfile.Options{Now: m.now, Log: m.log, Keep: MaxAbsolute}) // requests must not wait for the disk
	if err != nil {
		return nil, err
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	if known = m.files[path]; known != nil { // opened meanwhile
		f.Close()
		return known, nil
	}
	m.files[path] = f
	return f, nil
}

func (m *Memory) allFiles() (all []*endfile.File) {
	m.mu.Lock()
	defer m.mu.Unlock()
	for _, f := range m.files {
		all = append(all, f)
	}
	return all
}

// usedFiles returns the files of logins that serve or have served. A configuration that was refused may have
// opened others.
func (m *Memory) usedFiles() (used []*endfile.File) {
	m.mu.Lock()
	defer m.mu.Unlock()
	for _, s := range m.states {
		if f := s.usedFile(); f != nil && !slices.Contains(used, f) {
			used = append(used, f)
		}
	}
	return used
}

// Follow reads the ends that other processes have added to the files. It is called about once a second.
func (m *Memory) Follow() {
	for _, f := range m.usedFiles() {
		f.Follow()
	}
}

// Files returns the state of the files with ends of sessions, by name.
func (m *Memory) Files() (all []endfile.Status) {
	for _, f := range m.usedFiles() {
		all = append(all, f.Status())
	}
	slices.SortFunc(all, func(a, b endfile.Status) int { return strings.Compare(a.Path, b.Path) })
	return all
}

// CloseUnused closes the files that only configurations have opened that were refused. The logins of the
// current one must be active, and no other may be under construction.
func (m *Memory) CloseUnused() {
	used := m.usedFiles()
	m.mu.Lock()
	defer m.mu.Unlock()
	for path, f := range m.files {
		if !slices.Contains(used, f) {
			f.Close() // nothing was written
			delete(m.files, path)
		}
	}
}

// openState opens the login's file, if it has one, and reports why it cannot be used. A login cannot
// change its file while the process runs, because that would lose ends of sessions.
func (l *Login) openState() (err error) {
	if l.config.State == "" {
		return nil
	}
	if l.file, err = l.memory.openFile(l.config.State); err != nil {
		return fmt.Errorf("session.state: %w", err)
	}
	if held := l.state.path(); held != "" && held != l.config.State {
		return fmt.Errorf("session.state cannot change while the gateway runs, which holds %s: restart the gateway, or put back what it was", held)
	}
	return nil
}

// usedFile returns the file of the ends; nil for none.
func (s *state) usedFile() *endfile.File {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.file
}

// path returns the name of the file; "" for none.
func (s *state) path() string {
	if f := s.usedFile(); f != nil {
		return f.Path()
	}
	return ""
}

// Activate makes this the current login of its name and client, and the ends of sessions in its file count.
// Until then, a new Login changes nothing for those that serve.
func (l *Login) Activate() {
	l.state.current.Store(l)
	if l.file == nil {
		return
	}
	s := l.state
	s.mu.Lock()
	if s.file != nil {
		s.mu.Unlock()
		return
	}
	s.file = l.file
	known := s.ends.Lines(s.login) // of a time without the file
	s.mu.Unlock()
	l.file.Attach(s.login, s)
	if len(known) > 0 {
		_ = l.file.Append(known...) // the file notes its own faults, and tries again
	}
}

// StatePath returns the file that the sessions of a login and client have; "" for none.
func (m *Memory) StatePath(name, client string) string {
	m.mu.Lock()
	s := m.states[stateKey(name, client)]
	m.mu.Unlock()
	if s == nil {
		return ""
	}
	return s.path()
}

func stateKey(name, client string) string { return name + "\x00" + client }
