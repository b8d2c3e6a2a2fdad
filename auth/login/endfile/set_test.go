package endfile

import (
	"slices"
	"testing"
)

// TestOnePersonsEndsEndNoSessionOfOthers ends far more sessions of one person than a Set has room for. Those of
// others keep their ends, each of its own, and nothing else ends.
func TestOnePersonsEndsEndNoSessionOfOthers(t *testing.T) {
	mallory := ID{7}
	ofMallory := func(n int) Line {
		l := numbered(n)
		l.Of, l.At, l.Until = mallory, start+int64(n), start+int64(n)
		return l
	}
	other := Line{Kind: Session, Login: corp, ID: ID{8}, Of: ID{6}, At: start, Until: start}
	s := &Set{}
	var all []Line
	add := func(l Line) { s.Add(&l); all = append(all, l) }
	add(other)
	const n = MaxEnds + 7
	for i := range n {
		add(ofMallory(i))
		if s.Len() > MaxOfSubject+2 || len(s.order) > 2*s.Len()+slack+1 {
			t.Fatalf("%d ends, %d entries", s.Len(), len(s.order))
		}
	}
	read := sets{}
	for i := range all {
		read.add(&all[i])
	}
	again := sets{}
	for _, l := range read.lines() {
		again.add(&l)
	}
	twice := &Set{} // as after another process has replaced the file
	for range 2 {
		for i := range all {
			twice.Add(&all[i])
		}
	}
	for name, s := range map[string]*Set{"at once": s, "of a file": read[corp], "of a tidy file": again[corp], "twice": twice} {
		if s.Floor() != 0 || !s.Has(End{Session, other.ID}, other.Until) || s.Has(End{Subject, other.Of}, 0) {
			t.Errorf("%s: sessions of others have ended, until %d", name, s.Floor())
		}
		for i := range n {
			l := ofMallory(i)
			if !s.Has(End{Session, l.ID}, l.Until) && !s.Has(End{Subject, mallory}, l.Until) {
				t.Fatalf("%s: session %d came back", name, i)
			}
		}
		if s.Has(End{Subject, mallory}, start+n-MaxOfSubject/2) {
			t.Errorf("%s: the youngest sessions have ended", name)
		}
	}
}

// An end that comes again is the youngest. Those that came between stay.
func TestEndThatComesAgainIsTheYoungest(t *testing.T) {
	s := &Set{}
	for i := range int64(3 * MaxEnds) {
		s.Add(&Line{Kind: Subject, ID: ID{1}, At: start + i, Until: i})
		if i < MaxEnds-1 {
			l := numbered(int(i))
			s.Add(&l)
		}
	}
	if s.Floor() != 0 || s.Len() != MaxEnds || len(s.order) > 2*MaxEnds+slack+1 {
		t.Errorf("until %d all have ended; %d ends, %d entries", s.Floor(), s.Len(), len(s.order))
	}
	l := numbered(MaxEnds)
	l.At = start + 100*MaxEnds
	s.Add(&l)
	if s.Floor() != start {
		t.Errorf("until %d all have ended, want %d", s.Floor(), int64(start))
	}
	s.Forget(l.At + 1)
	if s.Len() != 0 || len(s.order) != 0 || s.Floor() != l.At || s.number[ID{}] != 0 {
		t.Errorf("%d ends are left, %d entries, until %d", s.Len(), len(s.order), s.Floor())
	}
}

func TestOldEndsEndNothingMore(t *testing.T) {
	s := &Set{}
	s.Raise(start + 10)
	before := s.Lines(corp)
	l := numbered(1)
	if s.Add(&l) || !slices.Equal(s.Lines(corp), before) {
		t.Errorf("got %v", s.Lines(corp))
	}
}
