package wire

import (
	"slices"
	"testing"
	"testing/synctest"
	"time"
)

// sleeper is a connection that rests between looks and records their times.
type sleeper struct {
	rest  time.Duration
	looks []time.Duration
	began time.Time
}

func (s *sleeper) Look(now time.Time) (until time.Time) {
	s.looks = append(s.looks, now.Sub(s.began).Round(time.Second))
	return now.Add(s.rest)
}

// pass advances the time, and waits for all that happens in it.
func pass(d time.Duration) {
	time.Sleep(d)
	synctest.Wait()
}

// TestRestingConnectionsAreLeftAlone: sweeps look at a resting connection only at the time that it
// gave or after Wake. No sweep runs without need.
func TestRestingConnectionsAreLeftAlone(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var clock Clock
		sweeps := 0
		r := NewRegister[*sleeper](Lag, &clock, func(bool) bool { sweeps++; return false })
		now := time.Now()
		a, b, c := &sleeper{rest: time.Minute, began: now}, &sleeper{rest: 100 * time.Second, began: now}, &sleeper{rest: time.Hour, began: now}
		for _, s := range []*sleeper{c, a, b} {
			r.Enter(s)
		}
		pass(30 * time.Second)
		if sweeps != 1 || !clock.Now().Equal(time.Now()) {
			t.Errorf("%d sweeps in half a minute, want one; the clock is %v late", sweeps, time.Since(clock.Now()))
		}
		r.Wake(b)
		r.Wake(b) // already busy
		pass(2 * time.Minute)
		r.Leave(a)
		r.Wake(a) // has left
		pass(time.Minute)
		for _, x := range []struct {
			who   string
			s     *sleeper
			looks []time.Duration
		}{
			{"woken after 30 s", b, []time.Duration{0, 30 * time.Second, 130 * time.Second}},
			{"gone after 150 s", a, []time.Duration{0, time.Minute, 2 * time.Minute}},
			{"resting for long", c, []time.Duration{0}},
		} {
			if !slices.Equal(x.s.looks, x.looks) {
				t.Errorf("%s: looked at after %v, want %v", x.who, x.s.looks, x.looks)
			}
		}
		if sweeps > 6 {
			t.Errorf("%d sweeps, want five that looked, and the one that was due for who had left", sweeps)
		}

		looks := len(c.looks)
		var stopped []*sleeper
		r.Stop(func(s *sleeper) { stopped = append(stopped, s) })
		if len(stopped) != 2 || r.Enter(a) {
			t.Errorf("%d connections stopped, want two, and none enters", len(stopped))
		}
		pass(2 * Lag)
		if len(c.looks) != looks+1 {
			t.Error("sweeps do not look at what has been told to stop")
		}
		r.Leave(b)
		r.Leave(c)
		r.Leave(c)
		if err := r.Wait(t.Context()); err != nil {
			t.Error(err)
		}
	})
}

// TestManyRest enters and wakes many connections in arbitrary order. Each is looked at within a
// period after its rest.
func TestManyRest(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := NewRegister[*sleeper](Lag, nil, nil)
		all := make([]*sleeper, 500)
		for i := range all {
			all[i] = &sleeper{rest: time.Duration(1+i*7919%len(all)) * time.Second, began: time.Now()}
			r.Enter(all[i])
		}
		pass(10 * time.Second)
		for i := 0; i < len(all); i += 3 {
			r.Leave(all[i])
		}
		pass(time.Hour)
		for i, s := range all {
			last := s.looks[0]
			for _, at := range s.looks[1:] {
				if late := at - last - s.rest; late < -time.Second || late > time.Second {
					t.Fatalf("%d: looked at %v after it came to rest for %v", i, at-last, s.rest)
				}
				last = at
			}
			switch stays := i%3 != 0; {
			case stays && last < time.Hour+10*time.Second-s.rest-2*time.Second-time.Hour/100:
				t.Fatalf("%d: last looked at after %v, with rests of %v", i, last, s.rest)
			case !stays && last > 10*time.Second:
				t.Fatalf("%d: looked at after %v, when it had left", i, last)
			}
		}
		for i, s := range all {
			if i%3 != 0 {
				r.Leave(s)
			}
		}
	})
}

// worker is a connection that is always busy.
type worker struct{ looks *[]time.Time }

func (w *worker) Look(now time.Time) (until time.Time) {
	*w.looks = append(*w.looks, now)
	return time.Time{}
}

// TestSweepsShareTheirWork: each of many busy connections is looked at once a period, and only few
// at a time.
func TestSweepsShareTheirWork(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const conns, periods = 10*share + 1, 40
		var clock Clock
		var looks []time.Time
		r := NewRegister[*worker](Lag, &clock, nil)
		all := make([]*worker, conns)
		for i := range all {
			all[i] = &worker{looks: &looks}
			r.Enter(all[i])
		}
		pass(periods * Lag)
		if n := float64(len(looks)) / conns / periods; n < .9 || n > 1.1 {
			t.Errorf("a connection was looked at %.2f times a period, want once", n)
		}
		at := map[time.Time]int{}
		for _, l := range looks {
			at[l]++
		}
		for when, n := range at {
			if n > share {
				t.Fatalf("%v: %d connections looked at in one go, want at most %d", when, n, share)
			}
		}
		looks = nil
		for _, w := range all[1:] {
			r.Leave(w)
		}
		pass(periods * Lag)
		if n := len(looks); n < periods-2 || n > periods+2 {
			t.Errorf("the one that is left was looked at %d times in %d periods", n, periods)
		}
		r.Leave(all[0])
	})
}
