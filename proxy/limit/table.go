package limit

import "sync"

const (
	shards = 16 // a power of two
	ways   = 8
	// maxSets limits a shard: with 8 ways, 131072 keys and 2.2 MiB in all.
	maxSets = 1024
)

// shard is a part of a table from a key's hash to its theoretical arrival time: the time, in
// nanoseconds since the table's start, at which its allowance is full again. An entry whose time
// has passed is free, so nothing must be swept.
type shard struct {
	mu   sync.Mutex // guards sets
	sets []set      // a power of two
	_    [32]byte   // padding: locks of neighbors are on other cache lines
}

// set holds the keys whose hashes agree in the bits that select it.
type set struct {
	hash   [ways]uint64
	full   [ways]int64 // when the key's allowance is full again
	common int64       // the same, for all keys without an entry
}

// take takes one interval from the allowance of hash at time now, or returns how long to wait.
// overflow reports that the key has no entry and used the common allowance.
func (s *shard) take(hash uint64, now, interval, slack int64) (wait int64, overflow bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	at, overflow := s.entry(hash, now)
	full := max(*at, now)
	if ahead := full - now; ahead > slack {
		return ahead - slack, overflow
	}
	*at = full + interval
	return 0, overflow
}

// ahead returns how far the time of hash runs ahead of now. It takes nothing and adds no entry.
func (s *shard) ahead(hash uint64, now int64) int64 {
	s.mu.Lock()
	defer s.mu.Unlock()
	set := &s.sets[s.index(hash)]
	i, free := set.find(hash, now)
	full := set.common
	switch {
	case i >= 0:
		full = set.full[i]
	case free >= 0 || len(s.sets) < maxSets:
		full = now // a key without an entry has a full allowance
	}
	return max(full-now, 0)
}

// give returns an amount of the last take of hash. If its entry has been reused since, its allowance
// is full anyway.
func (s *shard) give(hash uint64, amount int64, overflow bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	set := &s.sets[s.index(hash)]
	if overflow {
		set.common -= amount
	} else if i, _ := set.find(hash, 0); i >= 0 {
		set.full[i] -= amount
	}
}

// find returns the entry of hash, or -1, and an entry that is free at time now, or -1. The
// time of a found entry may have passed.
func (s *set) find(hash uint64, now int64) (i, free int) {
	free = -1
	for i := range s.hash {
		if s.hash[i] == hash {
			return i, free
		}
		if s.full[i] <= now {
			free = i
		}
	}
	return -1, free
}

// entry returns the time of a key: of its entry, of a new entry, or of the common allowance.
// The caller holds mu.
func (s *shard) entry(hash uint64, now int64) (at *int64, overflow bool) {
	for {
		set := &s.sets[s.index(hash)]
		switch i, free := set.find(hash, now); {
		case i >= 0:
			return &set.full[i], false
		case free >= 0:
			set.hash[free], set.full[free] = hash, 0
			return &set.full[free], false
		case len(s.sets) >= maxSets:
			return &set.common, true
		}
		s.grow()
	}
}

// index returns the set of a hash; its lowest bits have selected the shard.
func (s *shard) index(hash uint64) int { return int(hash / shards & uint64(len(s.sets)-1)) }

// grow doubles the number of sets and splits each by one more bit of the hashes. The caller
// holds mu.
func (s *shard) grow() {
	old := s.sets
	s.sets = make([]set, 2*len(old))
	for i := range old {
		for half := range 2 {
			to, n := &s.sets[i+half*len(old)], 0
			to.common = old[i].common
			for j, hash := range old[i].hash {
				if s.index(hash) == i+half*len(old) {
					to.hash[n], to.full[n] = hash, old[i].full[j]
					n++
				}
			}
		}
	}
}
