package limit

import (
	"hash/maphash"
	"slices"
	"strconv"
	"sync"
	"time"

	"sallyport/proxy/setting"
)

// InFlightConfig is one entry of `limits.in_flight` of a route.
type InFlightConfig struct {
	Scope `yaml:",inline"`
	// Name is the name of the entry in the RateLimit and RateLimit-Policy fields of refusals. Default:
	// the limit and per, such as "4 in flight per principal".
	Name string `yaml:"name"`
	// Limit is how many requests may be in flight at once.
	Limit int `yaml:"limit"`
}

// Check records the faults of the entry at path.
func (c *InFlightConfig) Check(path string, f *setting.Faults) {
	c.Scope.check(path, f)
	checkName(path+".name", c.Name, f)
	if c.Limit <= 0 {
		f.Add(path+".limit", strconv.Itoa(c.Limit), "not a number above zero", "write how many requests may be in flight at once")
	}
}

// Words describes the limit and who shares it, such as "4 in flight per principal".
func (c *InFlightConfig) Words() string {
	return strconv.Itoa(c.Limit) + " in flight per " + c.Scope.words()
}

// Places limit concurrent requests by entries that each count some of a route's requests;
// [Lease.Places] returns them. Places are safe for concurrent use.
//
// The counts are exact, and there are none but those of requests in flight. So no caller's traffic
// can displace another's count.
type Places struct {
	entries []place
	counts  *placeCounts
}

// place is one entry of Places.
type place struct {
	scope    scope
	stage    Stage
	identity string
	limit    int
	words    string
	quota    Quota
}

// placeCounts are the counts of a route. They outlive a configuration.
type placeCounts struct {
	seed maphash.Seed

	mu sync.Mutex // guards n
	n  map[uint64]int
}

// Places returns the entries of a route with their current counts. All leases of a route share the
// count of an entry, but each has its own limit.
func (l *Lease) Places(route string, configs []InFlightConfig) *Places {
	c := l.counters
	c.mu.Lock()
	defer c.mu.Unlock()
	p := &Places{counts: use(c.places, l.places, route, func() *placeCounts {
		return &placeCounts{seed: maphash.MakeSeed(), n: map[uint64]int{}}
	})}
	var names names
	for i := range configs {
		config := &configs[i]
		name := names.of(config.Name, config.Words())
		if same := slices.IndexFunc(p.entries, func(e place) bool { return e.identity == config.identity() }); same >= 0 {
			if p.entries[same].limit <= config.Limit {
				continue // a count is limited once, by the smallest number
			}
			p.entries = slices.Delete(p.entries, same, same+1)
		}
		p.entries = append(p.entries, place{
			scope: config.Scope.compile(), stage: config.stage(), identity: config.identity(), limit: config.Limit, words: config.Words(),
			quota: placesQuota(name, config.Limit),
		})
	}
	return p
}

// Entered are the places of one request. Its memory is reused. The zero Entered holds none.
type Entered struct {
	counts *placeCounts
	keys   []uint64
}

// Enter takes a place of each count of each entry of these stages that covers a request. If one has
// none left, Enter takes nothing and returns that entry; otherwise nil. Who enters must leave, by
// [Entered.Leave].
func (p *Places) Enter(q *Asked, stages Stage, e *Entered) *Over {
	if len(p.entries) == 0 {
		return nil
	}
	c, before := p.counts, len(e.keys)
	c.mu.Lock()
	defer c.mu.Unlock()
	for i := range p.entries {
		entry := &p.entries[i]
		if entry.stage&stages == 0 || !entry.scope.covers(q) {
			continue
		}
		for _, group := range entry.scope.groups {
			if !q.counts(group) {
				continue
			}
			key := entry.key(c.seed, q, group)
			if c.n[key] >= entry.limit {
				e.keys = e.keys[:before]
				return &Over{Words: entry.words, Retry: retryPlace, Quota: entry.quota}
			}
			e.keys = append(e.keys, key)
		}
	}
	e.counts = c
	for _, key := range e.keys[before:] {
		c.n[key]++
	}
	return nil
}

// Count reports whether there are entries.
func (p *Places) Count() bool { return len(p.entries) > 0 }

// NeedModel reports whether an entry counts the request by its model.
func (p *Places) NeedModel(q *Asked) bool {
	return slices.ContainsFunc(p.entries, func(e place) bool { return e.stage == Late && e.scope.coversCaller(q) })
}

// placesQuota describes a limit of concurrent requests that has no place left.
func placesQuota(name string, limit int) Quota {
	return Quota{Policy: quoted(name) + ";q=" + strconv.Itoa(limit) + `;qu="concurrent-requests"`, State: rateState(name, 0, retryPlace)}
}

// retryPlace is when a caller may try again to get a place.
const retryPlace = time.Second

// key returns the count of a request in an entry.
func (p *place) key(seed maphash.Seed, q *Asked, group string) uint64 {
	var h maphash.Hash
	h.SetSeed(seed)
	write(&h, p.identity)
	var b [8]byte
	n := p.scope.hash(seed, q, group)
	for i := range b {
		b[i] = byte(n >> (8 * i))
	}
	_, _ = h.Write(b[:])
	return h.Sum64()
}

// Leave gives all places back. A second Leave does nothing.
func (e *Entered) Leave() {
	if e.counts == nil {
		return
	}
	c := e.counts
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, key := range e.keys {
		if c.n[key]--; c.n[key] <= 0 {
			delete(c.n, key)
		}
	}
	e.counts, e.keys = nil, e.keys[:0]
}
