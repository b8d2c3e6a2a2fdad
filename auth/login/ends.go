package login

import (
	"crypto/sha256"
	"fmt"
	"slices"
	"strings"

	"sallyport/auth/login/endfile"
)

// end says which sessions end: one, all with a sid, or all of a subject.
type end struct {
	kind endfile.Kind
	id   endfile.ID // zero for none
}

// ended says when sessions ended, in seconds since 1970.
type ended struct {
	at    int64 // by our clock
	until int64 // those issued until then have ended, by the issuer's clock
}

// endsOf returns the ends that would be of a session.
func endsOf(r *record) [3]end {
	return [...]end{
		endfile.Session: {endfile.Session, digest(endfile.Session, string(r.id[:]))},
		endfile.SID:     {endfile.SID, named(endfile.SID, r.issuer, r.sid)},
		endfile.Subject: {endfile.Subject, named(endfile.Subject, r.issuer, r.subject)},
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
func (s *state) end(e end, at, until int64) error {
	s.mu.Lock()
	at = max(at, s.floor+1) // not before the session began: see begin
	file, lines := s.file, []endfile.Line{{Kind: e.kind, Login: s.login, ID: e.id, At: at, Until: until}}
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

// apply ends sessions, and reports whether any of that is new. If there are too many ends, the oldest
// becomes one of all sessions that began before it: people sign in again, and no ended session returns.
// The caller holds s.mu.
func (s *state) apply(before int64, lines []endfile.Line) bool {
	floor, fresh := s.floor, map[end]int64{}
	s.floor = max(s.floor, before)
	for i := range lines {
		l := &lines[i]
		if l.Kind == endfile.Before {
			s.floor = max(s.floor, l.At)
			continue
		}
		e := end{l.Kind, l.ID}
		if old, known := s.ends[e]; !known {
			s.order = append(s.order, e)
		} else if l.Until <= old.until {
			continue
		}
		s.ends[e] = ended{l.At, l.Until}
		fresh[e] = l.Until
	}
	for len(s.order) > endfile.MaxEnds {
		oldest := s.order[0]
		s.order = s.order[1:]
		s.floor = max(s.floor, s.ends[oldest].at)
		delete(s.ends, oldest)
	}
	if len(fresh) == 0 && s.floor == floor {
		return false
	}
	for id, l := range s.live {
		if n := l.newest.Load(); n.begun <= s.floor || n.endedBy(fresh) {
			l.gone.Store(true)
			s.remove(id)
		}
	}
	s.changes.Add(1)
	return true
}

// endedBy reports whether one of these ends is of the session. They say until when it must be issued.
func (r *record) endedBy(ends map[end]int64) bool {
	for _, e := range r.ends {
		if until, known := ends[e]; known && e.id != (endfile.ID{}) && r.issued <= until {
			return true
		}
	}
	return false
}

// forget removes the ends of sessions that have expired meanwhile. If the clock is only ahead, these sessions
// have ended all the same when it is set back.
func (s *state) forget(before int64) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for len(s.order) > 0 && s.ends[s.order[0]].at < before {
		s.floor = max(s.floor, s.ends[s.order[0]].at)
		delete(s.ends, s.order[0])
		s.order = s.order[1:]
	}
}

// hasEnded reports whether a session was ended.
func (s *state) hasEnded(r *record) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if r.begun <= s.floor {
		return true
	}
	for _, e := range r.ends {
		if ended, known := s.ends[e]; known && e.id != (endfile.ID{}) && r.issued <= ended.until {
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
	return max(now, s.floor+1)
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

// Activate makes the ends of sessions in the login's file count. Until then, a new Login changes nothing
// for those that serve.
func (l *Login) Activate() {
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
	var known []endfile.Line // of a time without the file
	for _, e := range s.order {
		known = append(known, endfile.Line{Kind: e.kind, Login: s.login, ID: e.id, At: s.ends[e].at, Until: s.ends[e].until})
	}
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
