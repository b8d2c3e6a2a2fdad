package ratelog

import (
	"sync"
	"sync/atomic"
	"testing"
	"time"
)

func TestRarelyAllowsOncePerPause(t *testing.T) {
	var r Rarely
	start := time.Unix(1_700_000_000, 0)
	for _, c := range []struct {
		after time.Duration
		want  bool
	}{{0, true}, {0, false}, {time.Minute - 1, false}, {time.Minute, true}, {time.Minute + 1, false}, {time.Hour, true}} {
		if got := r.Allow(start.Add(c.after), time.Minute); got != c.want {
			t.Errorf("after %v: %v, want %v", c.after, got, c.want)
		}
	}
	var together Rarely
	var allowed atomic.Int64
	var all sync.WaitGroup
	for range 16 {
		all.Go(func() {
			if together.Allow(start, time.Minute) {
				allowed.Add(1)
			}
		})
	}
	all.Wait()
	if n := allowed.Load(); n != 1 {
		t.Errorf("%d of 16 at once were allowed; want 1", n)
	}
}
