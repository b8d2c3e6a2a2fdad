package auth

import (
	"hash/maphash"
	"net/netip"
	"sync"
	"time"
)

// Budget is how many tokens an address may have checked in vain: public-key work
// that a forger makes us do, and nothing else, counts. Once it is spent, tokens
// that are not in the cache are refused unchecked until some of it is back; those
// that are in the cache never depend on it, so that a forger cannot lock out
// callers behind the same address who have proved themselves.
type Budget struct {
	Burst int           // failures at once: 200 if zero
	Every time.Duration // how often one comes back: 50 ms if zero
}

const (
	budgetSets = 1 << 14 // times budgetWays addresses: 1 MiB
	budgetWays = 4
)

// budget counts failures by the generic cell rate algorithm: an address has one
// time, at which its debt will be paid.
//
// The table has a fixed size, and is made at the first failure. An address falls into a set of places by a hash
// under a key of this process; where the set is full the smallest debt is
// forgotten, so that a flood from many addresses costs an attacker his own first.
type budget struct {
	burst time.Duration // the debt that is allowed
	every time.Duration
	seed  maphash.Seed

	mu   sync.Mutex // guards sets
	sets [][budgetWays]debt // nil until something failed
}

type debt struct {
	owner uint64 // hash of the address
	paid  int64  // in nanoseconds since 1970
}

func newBudget(b Budget) *budget {
	if b.Burst <= 0 {
		b.Burst = 200
	}
	if b.Every <= 0 {
		b.Every = 50 * time.Millisecond
	}
	return &budget{
		burst: time.Duration(b.Burst) * b.Every,
		every: b.Every,
		seed:  maphash.MakeSeed(),
	}
}

// owner is what an address is counted as: itself, or for IPv6 its /64, of which
// a client may use every address.
func (b *budget) owner(a netip.Addr) uint64 {
	a = a.Unmap().WithZone("")
	if a.Is6() {
		p, _ := a.Prefix(64)
		a = p.Addr()
	}
	return maphash.Comparable(b.seed, a)
}

// left reports whether the address may have another token checked. A nil budget is
// never spent.
func (b *budget) left(a netip.Addr, now time.Time) bool {
	if b == nil {
		return true
	}
	owner := b.owner(a)
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.sets == nil {
		return true
	}
	set := &b.sets[owner%budgetSets]
	for i := range set {
		if set[i].owner == owner {
			return set[i].paid-now.UnixNano() <= int64(b.burst-b.every)
		}
	}
	return true
}

// charge counts a failure. A nil budget counts nothing.
func (b *budget) charge(a netip.Addr, now time.Time) {
	if b == nil {
		return
	}
	owner := b.owner(a)
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.sets == nil {
		b.sets = make([][budgetWays]debt, budgetSets)
	}
	set := &b.sets[owner%budgetSets]
	place := &set[0]
	for i := range set {
		if set[i].owner == owner {
			place = &set[i]
			break
		}
		if set[i].paid < place.paid {
			place = &set[i]
		}
	}
	if place.owner != owner {
		*place = debt{owner: owner}
	}
	place.paid = max(place.paid, now.UnixNano()) + int64(b.every)
}
