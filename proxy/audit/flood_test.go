package audit

import (
	"strings"
	"testing"
	"testing/synctest"
)

// A client sends refused requests without end while the disk is stalled. Other requests still
// get reservations, and their records are written once the disk works again.
func TestFloodOfRefusedRequestsDoesNotBlockReservations(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := sink{block: make(chan struct{})}
		l := newLog(t, Config{}, Options{Stdout: &s})
		stop := run(t, l)
		flood := fullRecord()
		flood.Path = "/" + strings.Repeat("x", maxPath) // as long as an attacker can make it
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
		const victims = budget / reservation
		for i := range victims {
			if err := l.Reserve(); err != nil {
				t.Fatalf("victim %d: %v", i, err)
			}
			l.Write(flood) // the flood continues
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
			t.Errorf("%d of the victims' records were written, want %d", got, victims)
		}
	})
}

// Admitted requests cannot crowd refused ones out of the log.
func TestReservedRecordsDoNotDisplaceRefusedOnes(t *testing.T) {
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
			t.Error("a refused request's record was dropped while their buffer was empty")
		}
		close(s.block)
		if err := stop(); err != nil {
			t.Error(err)
		}
	})
}
