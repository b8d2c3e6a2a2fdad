package limit

import (
	"context"
	"runtime/metrics"
	"sync/atomic"
	"time"

	"sallyport/proxy/setting"
)

// Pressure reports whether the process exceeds its memory budget. New work is then refused
// while there is still memory for work in progress. It is safe for concurrent use.
type Pressure struct {
	budget  atomic.Int64
	used    func() int64
	spent   atomic.Bool
	changed chan struct{} // buffered with one slot; wakes Run
}

// lookEvery is the interval of memory measurements.
const lookEvery = 200 * time.Millisecond

// NewPressure sets a budget in bytes; zero or less means no limit. used returns the bytes in
// use; nil measures the Go runtime.
func NewPressure(budget int64, used func() int64) *Pressure {
	if used == nil {
		used = heapInUse
	}
	p := &Pressure{used: used, changed: make(chan struct{}, 1)}
	p.SetBudget(budget)
	return p
}

// SetBudget changes the budget and measures at once.
func (p *Pressure) SetBudget(budget int64) {
	p.budget.Store(budget)
	p.look()
	select {
	case p.changed <- struct{}{}:
	default:
	}
}

// Run measures until ctx ends. Without a budget it sleeps. It returns nil.
func (p *Pressure) Run(ctx context.Context) error {
	tick := time.NewTicker(lookEvery)
	defer tick.Stop()
	for {
		looks := tick.C
		if p.budget.Load() <= 0 {
			tick.Stop()
			looks = nil
		} else {
			tick.Reset(lookEvery)
		}
		select {
		case <-looks:
			p.look()
		case <-p.changed:
		case <-ctx.Done():
			return nil
		}
	}
}

func (p *Pressure) look() {
	budget := p.budget.Load()
	p.spent.Store(budget > 0 && p.used() > budget)
}

// Spent reports whether the last measurement exceeded the budget.
func (p *Pressure) Spent() bool { return p.spent.Load() }

// String describes the memory that the process uses now and its budget, for the cause of a refusal.
func (p *Pressure) String() string {
	used, budget := setting.Size(p.used()>>20<<20), setting.Size(p.budget.Load())
	return "the process uses " + used.String() + ", over " + budget.String() + " (limits.memory)"
}

// heapInUse returns the memory that the runtime holds, without free and released heap.
func heapInUse() int64 {
	s := [...]metrics.Sample{{Name: "/memory/classes/total:bytes"}, {Name: "/memory/classes/heap/released:bytes"}, {Name: "/memory/classes/heap/free:bytes"}}
	metrics.Read(s[:])
	return int64(s[0].Value.Uint64()) - int64(s[1].Value.Uint64()) - int64(s[2].Value.Uint64())
}
