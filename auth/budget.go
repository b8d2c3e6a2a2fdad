package auth

import (
	"hash/maphash"
	"net/netip"
	"sync"
	"time"
)

// Budget limits the failed credential checks per client address. Checks that
// cost a public-key operation count, and unknown API keys. Once the budget is spent, tokens
// that are not in the cache are refused unchecked until it recovers. Cached tokens, tokens
// that an issuer is asked about again, and known API keys never depend on it, so a forger cannot lock out authenticated callers
// behind the same address.
type Budget struct {
	Burst int           // failures allowed at once; 200 if zero
	Every time.Duration // time until one failure is forgiven; 50 ms if zero
}

const (
	budgetSets = 1 << 14 // times budgetWays addresses: 1 MiB
	budgetWays = 4
)

// budget counts failures with the generic cell rate algorithm. It stores one time per
// address: when all of its failures will be forgiven.
//
// The table has a fixed size and is allocated at the first failure. A keyed hash maps
// an address to a set of entries. If the set is full, the entry with the fewest
// failures is evicted, so a flood from many addresses evicts the attacker's own first.
type budget struct {
	burst time.Duration // Burst times every
	every time.Duration
	seed  maphash.Seed

	mu   sync.Mutex         // guards sets
	sets [][budgetWays]debt // nil before the first failure
}

// debt is the entry of one address.
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

// owner returns the hash under which an address is counted. IPv6 addresses count by
// their /64, since a client may use every address of it.
func (b *budget) owner(a netip.Addr) uint64 {
	a = a.Unmap().WithZone("")
	if a.Is6() {
		p, _ := a.Prefix(64)
		a = p.Addr()
	}
	return maphash.Comparable(b.seed, a)
}

// ownerOf returns the hash under which a known caller is counted, apart from every address.
func (b *budget) ownerOf(principal string) uint64 { return maphash.String(b.seed, principal) }

// left reports whether another credential from the address may be checked. A nil budget
// is never spent.
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
	entry := &set[0]
	for i := range set {
		if set[i].owner == owner {
			entry = &set[i]
			break
		}
		if set[i].paid < entry.paid {
			entry = &set[i]
		}
	}
	if entry.owner != owner {
		*entry = debt{owner: owner}
	}
	entry.paid = max(entry.paid, now.UnixNano()) + int64(b.every)
}
