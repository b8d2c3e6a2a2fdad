package login

import (
	"fmt"
	"log/slog"
	"math/rand/v2"
	"testing"
	"time"

	"sallyport/auth/login/endfile"
)

// numbered returns one of many sessions: three have a sid, and five a subject.
func numbered(l *Login, n int) *Session {
	r := record{id: sessionID{byte(n), byte(n >> 8)}, begun: 100, issued: 100, expires: 1000, issuer: "i", sid: fmt.Sprint(n / 3), subject: fmt.Sprint(n / 5), memory: true}
	if n%7 == 0 {
		r.sid = ""
	}
	r.ends = endsOf(&r)
	return &Session{record: r, login: l}
}

func newState() (*state, *Login) {
	m := NewMemory(func() time.Time { return time.Unix(200, 0) }, slog.New(slog.DiscardHandler), nil)
	s := m.state("corp", "gateway")
	return s, &Login{name: "corp", memory: m, state: s, config: Config{Idle: time.Hour}}
}

// TestEndLooksAtNoOtherSession ends one session of many, and those of a sid and of a subject. The others are
// not looked at: while one person signs out, the others wait.
func TestEndLooksAtNoOtherSession(t *testing.T) {
	s, l := newState()
	var all []*Session
	for i := range 1000 {
		all = append(all, numbered(l, i))
		s.keep(all[i], 2000)
	}
	ended := map[int]bool{1: true}
	for i, n := range all {
		if ended[i] = i == 1 || i/3 == 100 && i%7 != 0 || i/5 == 150; !ended[i] {
			n.live.newest.Store(nil) // whoever looks crashes
		}
	}
	for _, e := range []endfile.End{all[1].ends[endfile.Session], all[300].ends[endfile.SID], all[750].ends[endfile.Subject]} {
		if err := s.end(endfile.Line{Kind: e.Kind, ID: e.ID, At: 200, Until: 100}); err != nil {
			t.Fatal(err)
		}
	}
	for i, n := range all {
		if n.live.gone.Load() != ended[i] {
			t.Errorf("session %d has ended: %v", i, !ended[i])
		}
	}
}

// TestGroupsOfSessions adds, evicts and ends sessions in any order, and compares what lives with a plain list.
func TestGroupsOfSessions(t *testing.T) {
	s, l := newState()
	random := rand.New(rand.NewPCG(1, 2))
	alive := map[int]*Session{}
	for step := range 20_000 {
		n := random.IntN(60)
		one := numbered(l, n)
		kind := endfile.Kind(random.IntN(3))
		switch e := one.ends[kind]; {
		case random.IntN(3) > 0:
			if alive[n] == nil {
				s.add(one, 100, 10)
				alive[n] = one
			}
		case e.ID != endfile.ID{}:
			s.drop(&endfile.Line{Kind: kind, ID: e.ID, Until: 100})
			for i, other := range alive {
				if other.ends[kind] == e {
					delete(alive, i)
				}
			}
		}
		groups := map[endfile.End]int{}
		for _, a := range alive {
			for _, e := range a.ends[endfile.SID:] {
				if e.ID != (endfile.ID{}) {
					groups[e]++
				}
			}
		}
		if len(s.live) != len(alive) || len(s.groups) != len(groups) {
			t.Fatalf("step %d: %d sessions and %d groups, want %d and %d", step, len(s.live), len(s.groups), len(alive), len(groups))
		}
		for e, want := range groups {
			got, prev := 0, (*live)(nil)
			for l := s.groups[e]; l != nil; prev, l = l, l.next[e.Kind] {
				if got++; l.prev[e.Kind] != prev || l.ends[e.Kind] != e || s.live[l.ends[endfile.Session].ID] != l {
					t.Fatalf("step %d: a group has a session that is not of it", step)
				}
			}
			if got != want {
				t.Fatalf("step %d: a group has %d sessions, want %d", step, got, want)
			}
		}
	}
	s.sweep(100 + 3600)
	if len(s.live)+len(s.groups) != 0 {
		t.Errorf("%d sessions and %d groups are left", len(s.live), len(s.groups))
	}
}

// Sessions that began before all others were forgotten go at the next sweep.
func TestSweepRemovesSessionsOfBefore(t *testing.T) {
	s, l := newState()
	n := numbered(l, 1)
	s.keep(n, 10)
	s.Apply(100, nil)
	if !s.hasEnded(&n.record) {
		t.Error("the session goes on")
	}
	if s.sweep(101); len(s.live) != 0 || !n.live.gone.Load() {
		t.Error("the session is left")
	}
}
