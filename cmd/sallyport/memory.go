package main

import (
	"context"
	"math"
	"os"
	"runtime/debug"
	"runtime/metrics"
	"time"
)

// limitMemory sets the soft memory limit of the Go runtime to nine tenths of the budget,
// in bytes, unless GOMEMLIMIT is set. 0 means no budget, and no limit.
//
// GOGC stays at its default: the heap may grow to twice the live bytes before it is
// collected. A request leaves some 1.6 KB of garbage, so at full load collection takes
// 1.5 % of the CPU time. GOGC=400 would take 0.4 %, but twice the memory.
func limitMemory(budget int64) {
	if os.Getenv("GOMEMLIMIT") != "" {
		return
	}
	limit := int64(math.MaxInt64)
	if budget > 0 {
		limit = budget / 10 * 9
	}
	debug.SetMemoryLimit(limit)
}

const (
	// sampleBusy is how often collectWhenQuiet samples the heap while there is much
	// garbage. The gateway is quiet if two intervals in a row are quiet.
	sampleBusy = 250 * time.Millisecond
	// sampleIdle is how often it samples the heap otherwise.
	sampleIdle = time.Second
	// quietBytes is the most that a quiet gateway allocates in an interval; about a
	// hundred requests allocate that much.
	quietBytes = 256 << 10
	// minGarbage is how many bytes must be allocated before another collection is
	// worth its time; with a large heap, a quarter of the live bytes.
	minGarbage = 8 << 20
)

// collectWhenQuiet collects garbage and returns memory to the operating system when the
// gateway is quiet, until ctx ends. Otherwise garbage would stay for two minutes: with
// many idle connections that is several times the memory that they use.
func collectWhenQuiet(ctx context.Context) {
	timer := time.NewTimer(sampleIdle)
	defer timer.Stop()
	var collected, before, last heap
	for {
		select {
		case <-ctx.Done():
			return
		case <-timer.C:
		}
		now := readHeap()
		next := sampleIdle
		if now.worthCollecting(collected) {
			next = sampleBusy
			if now.quiet(before, last) {
				debug.FreeOSMemory()
				now = readHeap()
				collected, next = now, sampleIdle
			}
		}
		before, last = last, now
		timer.Reset(next)
	}
}

// heap is a sample of the heap statistics, in bytes.
type heap struct {
	allocated uint64 // since the start
	live      uint64 // at the last collection
}

func readHeap() heap {
	s := []metrics.Sample{{Name: "/gc/heap/allocs:bytes"}, {Name: "/gc/heap/live:bytes"}}
	metrics.Read(s)
	return heap{s[0].Value.Uint64(), s[1].Value.Uint64()}
}

// worthCollecting reports whether enough was allocated since collected, the sample after
// the last FreeOSMemory.
func (h heap) worthCollecting(collected heap) bool {
	return h.allocated-collected.allocated > max(minGarbage, h.live/4)
}

// quiet reports whether little was allocated in the last two intervals. before and last
// are the previous samples.
func (h heap) quiet(before, last heap) bool {
	return last.allocated-before.allocated < quietBytes && h.allocated-last.allocated < quietBytes
}
