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
	// lookEvery is how often collectWhenQuiet looks at the heap while there is much to
	// collect; a quiet moment lasts for two looks.
	lookEvery = 250 * time.Millisecond
	// lookIdle is how often it looks otherwise.
	lookIdle = time.Second
	// quietBytes are allocated between two looks by some hundred requests; a gateway
	// that allocates no more has time to collect.
	quietBytes = 256 << 10
	// spareBytes, and a quarter of what is live, are allocated before another
	// collection can be worth its time.
	spareBytes = 8 << 20
)

// collectWhenQuiet gives memory back once the gateway has little to do, until ctx ends.
// What requests leave behind would otherwise stay for two minutes: with many idle
// connections that is several times what they hold.
func collectWhenQuiet(ctx context.Context) {
	timer := time.NewTimer(lookIdle)
	defer timer.Stop()
	var collected, before, last heap
	for {
		select {
		case <-ctx.Done():
			return
		case <-timer.C:
		}
		now := readHeap()
		next := lookIdle
		if now.leftBehind(collected) {
			next = lookEvery
			if now.quiet(before, last) {
				debug.FreeOSMemory()
				now = readHeap()
				collected, next = now, lookIdle
			}
		}
		before, last = last, now
		timer.Reset(next)
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

// leftBehind says whether so much was allocated since the last collection of a quiet
// moment that another can be worth its time.
func (h heap) leftBehind(collected heap) bool {
	return h.allocated-collected.allocated > max(spareBytes, h.live/4)
}

// quiet says whether little was allocated between the last two looks and until now.
func (h heap) quiet(before, last heap) bool {
	return last.allocated-before.allocated < quietBytes && h.allocated-last.allocated < quietBytes
}
