package endfile

const (
	// MaxEnds is how many ends a [Set] has. If there are more, the oldest become one of all sessions that
	// began before them.
	MaxEnds = 1 << 16
	// MaxOfSubject is how many of them may be of single sessions of one subject. If there are more, the older
	// half become one of the subject's sessions that were issued before them. So a person who signs in and out
	// over and over ends no session of others.
	MaxOfSubject = 1 << 10
)

// End says which sessions end: one, all with a sid, or all of a subject.
type End struct {
	Kind Kind
	ID   ID // zero for none
}

// mark is what a [Set] has of an end. The fields are those of [Line].
type mark struct {
	at, until int64
	of        ID
	turn      uint64 // of its entry
}

// entry is the place of an end in the order in which they came. It is dead if the end has come again since,
// and has another turn.
type entry struct {
	End
	turn uint64
}

// Set is the ends of one login's sessions. Its size is bounded. The zero Set is empty.
type Set struct {
	floor  int64 // sessions that began until then have ended
	marks  map[End]mark
	order  []entry
	turn   uint64     // of the last entry
	number map[ID]int // ends of single sessions, by their subject
}

// Floor returns a time, in seconds since 1970. Sessions that began until then have ended, whatever the other ends
// say.
func (s *Set) Floor() int64 { return s.floor }

// Len returns the number of ends.
func (s *Set) Len() int { return len(s.marks) }

// Raise ends the sessions that began until a time.
func (s *Set) Raise(to int64) { s.floor = max(s.floor, to) }

// Add adds a line. It reports whether the line ends more than the others.
func (s *Set) Add(l *Line) bool {
	e := End{l.Kind, l.ID}
	switch {
	case l.Kind == Before:
		grows := l.At > s.floor
		s.Raise(l.At)
		return grows
	case l.At <= s.floor: // the sessions began before they ended, so the floor covers them
		return false
	case l.Of != (ID{}) && s.Has(End{Subject, l.Of}, l.Until):
		return false
	}
	if old, known := s.marks[e]; known {
		if l.Until <= old.until {
			return false
		}
		s.remove(e, &old)
	}
	if s.put(e, mark{at: l.At, until: l.Until, of: l.Of}) > MaxOfSubject {
		s.merge(l.Of)
	}
	for len(s.marks) > MaxEnds {
		s.dropOldest()
	}
	return true
}

// Has reports whether an end is of sessions that were issued at a time.
func (s *Set) Has(e End, issued int64) bool {
	m, known := s.marks[e]
	return known && issued <= m.until
}

// put puts an end at the end of the order. It returns how many ends its subject has then.
func (s *Set) put(e End, m mark) (ofSubject int) {
	if s.marks == nil {
		s.marks, s.number = map[End]mark{}, map[ID]int{}
	}
	s.turn++
	m.turn = s.turn
	s.marks[e] = m
	s.order = append(s.order, entry{e, m.turn})
	if len(s.order) > 2*len(s.marks)+slack {
		s.order = s.living()
	}
	if m.of == (ID{}) {
		return 0
	}
	ofSubject = s.number[m.of] + 1
	s.number[m.of] = ofSubject
	return ofSubject
}

// remove removes an end and its mark.
func (s *Set) remove(e End, m *mark) {
	delete(s.marks, e)
	if m.of == (ID{}) {
		return
	}
	if n := s.number[m.of]; n > 1 {
		s.number[m.of] = n - 1
	} else {
		delete(s.number, m.of)
	}
}

// living returns the entries that are not dead.
func (s *Set) living() []entry {
	all := make([]entry, 0, len(s.marks)+1)
	for _, o := range s.order {
		if m, known := s.marks[o.End]; known && m.turn == o.turn {
			all = append(all, o)
		}
	}
	return all
}

// merge makes the older half of a subject's ends one of the subject.
func (s *Set) merge(of ID) {
	left, one := s.number[of]/2, mark{}
	for _, o := range s.order {
		m, known := s.marks[o.End]
		if !known || m.turn != o.turn || m.of != of {
			continue
		}
		one.at, one.until = max(one.at, m.at), max(one.until, m.until)
		s.remove(o.End, &m)
		if left--; left == 0 {
			break
		}
	}
	e := End{Subject, of}
	if old, known := s.marks[e]; known {
		one.at, one.until = max(one.at, old.at), max(one.until, old.until)
		s.remove(e, &old)
	}
	s.put(e, one)
}

// dropOldest drops the oldest end, and raises the floor to it: all sessions that began before it end.
func (s *Set) dropOldest() {
	for {
		o := s.order[0]
		s.order = s.order[1:]
		if m, known := s.marks[o.End]; known && m.turn == o.turn {
			s.Raise(m.at)
			s.remove(o.End, &m)
			return
		}
	}
}

// youngest returns the time of the youngest end.
func (s *Set) youngest() int64 {
	at := s.floor
	for _, m := range s.marks {
		at = max(at, m.at)
	}
	return at
}

// Forget drops the ends that came before a time, in seconds since 1970, and raises the floor to the last of
// them.
func (s *Set) Forget(before int64) {
	for len(s.order) > 0 {
		o := s.order[0]
		m, known := s.marks[o.End]
		switch {
		case !known || m.turn != o.turn:
			s.order = s.order[1:]
		case m.at < before:
			s.dropOldest()
		default:
			return
		}
	}
}

// Lines returns the ends as lines of a login.
func (s *Set) Lines(of Login) []Line {
	all := make([]Line, 0, len(s.marks)+1)
	if s.floor != 0 {
		all = append(all, Line{Kind: Before, Login: of, At: s.floor})
	}
	for _, o := range s.living() {
		m := s.marks[o.End]
		all = append(all, Line{Kind: o.Kind, Login: of, ID: o.ID, Of: m.of, At: m.at, Until: m.until})
	}
	return all
}

// sets are the ends of several logins.
type sets map[Login]*Set

func (all sets) add(l *Line) {
	if all[l.Login] == nil {
		all[l.Login] = &Set{}
	}
	all[l.Login].Add(l)
}

func (all sets) lines() (lines []Line) {
	for login, s := range all {
		lines = append(lines, s.Lines(login)...)
	}
	return lines
}
