package limit

import (
	"context"
	"runtime/metrics"
	"sync/atomic"
	"time"
)

// Pressure says whether the process has used up the memory that it may have, so that new
// work is refused while there still is some for the old. It is safe for concurrent use.
type Pressure struct {
	budget  atomic.Int64
	used    func() int64
	spent   atomic.Bool
	changed chan struct{} // has room for one
}

// lookEvery is how often the use is looked at.
const lookEvery = 200 * time.Millisecond

// NewPressure bounds the process to budget bytes; zero or less: no bound. used tells how
// many are in use; nil asks the Go runtime.
func NewPressure(budget int64, used func() int64) *Pressure {
	if used == nil {
		used = heapInUse
	}
	p := &Pressure{used: used, changed: make(chan struct{}, 1)}
	p.SetBudget(budget)
	return p
}

// SetBudget changes the budget, and looks at the use.
func (p *Pressure) SetBudget(budget int64) {
	p.budget.Store(budget)
	p.look()
	select {
	case p.changed <- struct{}{}:
	default:
	}
}

// Run looks at the use until ctx ends; without a budget it sleeps. Its error is nil.
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

// Spent says whether more than the budget was in use when it was last looked at.
func (p *Pressure) Spent() bool { return p.spent.Load() }

// heapInUse is what the runtime has of the system and not given back.
func heapInUse() int64 {
	s := [...]metrics.Sample{{Name: "/memory/classes/total:bytes"}, {Name: "/memory/classes/heap/released:bytes"}, {Name: "/memory/classes/heap/free:bytes"}}
	metrics.Read(s[:])
	return int64(s[0].Value.Uint64()) - int64(s[1].Value.Uint64()) - int64(s[2].Value.Uint64())
}
