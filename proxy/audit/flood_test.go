package audit

import (
	"strings"
	"testing"
	"testing/synctest"
)

// TestFloodOfRefusedRequestsTakesNoReservedRoom sends refused requests without end while
// the disk takes nothing. A good caller's request finds its place, and its record comes
// out once the disk works again.
func TestFloodOfRefusedRequestsTakesNoReservedRoom(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := sink{block: make(chan struct{})}
		l := newLog(t, Config{}, Options{Stdout: &s})
		stop := run(t, l)
		flood := fullRecord()
		flood.Path = "/" + strings.Repeat("x", maxPath) // as long as the flooder can make it
		for range 100_000 {
			l.Write(flood)
		}
		synctest.Wait() // the writer hangs in its first write
		for range 100_000 {
			l.Write(flood)
		}
		if st := l.Stats(); st.Dropped == 0 || st.Pending > refusedBudget+maxLine {
			t.Fatalf("the flood has %d bytes in memory and lost %d records: want at most %d bytes", st.Pending, st.Dropped, refusedBudget)
		}
		const victims = budget / place
		for i := range victims {
			if err := l.Reserve(); err != nil {
				t.Fatalf("victim %d: %v", i, err)
			}
			l.Write(flood) // goes on
		}
		victim := fullRecord()
		victim.RequestID, victim.Reserved = "victim", true
		for range victims {
			l.Write(victim)
		}
		close(s.block)
		if err := stop(); err != nil {
			t.Fatal(err)
		}
		if got := strings.Count(s.String(), `"id":"victim"`); got != victims {
			t.Errorf("%d of the victims' records came out, want %d", got, victims)
		}
	})
}

// TestReservedRecordsLeaveRoomForRefusedOnes is the other way round: who is admitted
// cannot hide refused requests from the log.
func TestReservedRecordsLeaveRoomForRefusedOnes(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := sink{block: make(chan struct{})}
		l := newLog(t, Config{}, Options{Stdout: &s})
		stop := run(t, l)
		r := fullRecord()
		for l.Reserve() == nil {
			r.Reserved = true
			l.Write(r)
		}
		r.Reserved = false
		l.Write(r)
		if st := l.Stats(); st.Dropped != 0 {
			t.Error("a refused request's record was dropped while none of their room was used")
		}
		close(s.block)
		if err := stop(); err != nil {
			t.Error(err)
		}
	})
}
