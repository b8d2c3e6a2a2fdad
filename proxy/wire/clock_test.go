package wire

import (
	"testing"
	"testing/synctest"
	"time"
)

// silent is a connection without activity.
type silent struct{ looks int }

func (s *silent) Look(time.Time) (until time.Time) {
	s.looks++
	return time.Time{}
}

// TestClockFollowsTheSweeps: between sweeps the clock stands still; without sweeps it is exact.
func TestClockFollowsTheSweeps(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var c Clock
		r := NewRegister[*silent](time.Hour, &c, nil) // limited to Lag
		exact := func(when string) {
			t.Helper()
			for range 3 {
				time.Sleep(time.Second)
				if !c.Now().Equal(time.Now()) {
					t.Errorf("%s: %v late", when, time.Since(c.Now()))
				}
			}
		}
		exact("before a connection")
		s := new(silent)
		r.Enter(s)
		for i := range 1000 {
			time.Sleep(7 * time.Millisecond)
			if late := time.Since(c.Now()); late < 0 || late > Lag {
				t.Fatalf("%d: %v late", i, late)
			}
			for _, d := range []time.Duration{0, time.Millisecond, time.Second, 8 * Lag, time.Minute} {
				by := time.Until(c.After(d))
				if by < d || by > d+Lag || d < 8*Lag && by != d {
					t.Fatalf("a deadline after %v is %v away", d, by)
				}
			}
		}
		r.Leave(s)
		if s.looks < 7 {
			t.Errorf("%d sweeps in 7 s", s.looks)
		}
		time.Sleep(Lag)
		exact("after the last connection")
	})
	var none *Clock
	if d := time.Until(none.After(time.Minute)); d > time.Minute || d < 59*time.Second {
		t.Errorf("no clock: a minute is %v", d)
	}
	if time.Since(none.Now()) > time.Second {
		t.Error("no clock: another time")
	}
}
