package limit

import (
	"context"
	"runtime/metrics"
	"sync/atomic"
	"time"
)

// Memory says whether the process has used up the memory that it may have, so that
// new work is refused while there still is some for the old. It is safe for
// concurrent use.
type Memory struct {
	budget int64
	used   func() int64
	spent  atomic.Bool
}

// memoryEvery is how often the use is looked at.
const memoryEvery = 200 * time.Millisecond

// NewMemory bounds the process to budget bytes; zero or less: no bound. used tells
// how many are in use; nil asks the Go runtime.
func NewMemory(budget int64, used func() int64) *Memory {
	if used == nil {
		used = heapInUse
	}
	m := &Memory{budget: budget, used: used}
	m.look()
	return m
}

// Run looks at the use until ctx ends. Its error is nil.
func (m *Memory) Run(ctx context.Context) error {
	if m.budget <= 0 {
		return nil
	}
	tick := time.NewTicker(memoryEvery)
	defer tick.Stop()
	for {
		select {
		case <-tick.C:
			m.look()
		case <-ctx.Done():
			return nil
		}
	}
}

func (m *Memory) look() { m.spent.Store(m.budget > 0 && m.used() > m.budget) }

// Spent says whether more than the budget was in use when it was last looked at.
func (m *Memory) Spent() bool { return m.spent.Load() }

// heapInUse is what the runtime has of the system and not given back.
func heapInUse() int64 {
	s := [...]metrics.Sample{{Name: "/memory/classes/total:bytes"}, {Name: "/memory/classes/heap/released:bytes"}, {Name: "/memory/classes/heap/free:bytes"}}
	metrics.Read(s[:])
	return int64(s[0].Value.Uint64()) - int64(s[1].Value.Uint64()) - int64(s[2].Value.Uint64())
}
