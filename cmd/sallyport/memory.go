package main

import (
	"context"
	"os"
	"runtime/debug"
	"runtime/metrics"
	"time"
)

// limitMemory has the heap collected more often near the budget, in bytes, unless
// GOMEMLIMIT says otherwise; 0: there is no budget.
//
// How far the heap may otherwise grow before it is collected is Go's own setting, twice
// what is live. A request leaves some 1.6 KB behind, so that collecting takes 1.5 % of the
// CPU time at full load. Five times what is live would take 0.4 %, but twice the memory.
func limitMemory(budget int64) {
	if budget > 0 && os.Getenv("GOMEMLIMIT") == "" {
		debug.SetMemoryLimit(budget / 10 * 9)
	}
}

const (
	// quietBytes are allocated in a second by some hundred requests; a gateway
	// that allocates no more has time to collect.
	quietBytes = 1 << 20
	// spareBytes, and a quarter of what is live, are allocated before another
	// collection can be worth its time.
	spareBytes = 8 << 20
)

// collectWhenQuiet gives memory back once the gateway has little to do, until ctx ends.
// What requests leave behind would otherwise stay for two minutes: with many idle
// connections that is several times what they hold.
func collectWhenQuiet(ctx context.Context) {
	tick := time.NewTicker(time.Second)
	defer tick.Stop()
	var collected, last heap
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
		now := readHeap()
		if now.worthCollecting(last, collected) {
			debug.FreeOSMemory()
			now = readHeap()
			collected = now
		}
		last = now
	}
}

// heap is how the memory of the process stands, in bytes.
type heap struct {
	allocated uint64 // since the start
	live      uint64 // at the last collection
}

func readHeap() heap {
	s := []metrics.Sample{{Name: "/gc/heap/allocs:bytes"}, {Name: "/gc/heap/live:bytes"}}
	metrics.Read(s)
	return heap{s[0].Value.Uint64(), s[1].Value.Uint64()}
}

// worthCollecting says whether little was allocated since the last look, and much
// since the last collection of a quiet moment.
func (h heap) worthCollecting(last, collected heap) bool {
	return h.allocated-last.allocated < quietBytes && h.allocated-collected.allocated > max(spareBytes, h.live/4)
}
