package limit

import "sync"

const (
	shards = 16 // a power of two
	ways   = 8
	// maxSets bounds a shard: with 8 ways, 131072 keys and 2.2 MiB in all.
	maxSets = 1024
)

// shard is a part of a table from a key's hash to its theoretical arrival time:
// the time, in nanoseconds since the table's start, at which the key will have
// its full allowance again. A time that has passed is the same as none, so
// nothing has to be swept.
type shard struct {
	mu   sync.Mutex // guards sets
	sets []set      // a power of two of them
	_    [32]byte   // neighbors' locks on other cache lines
}

// set holds the keys whose hashes agree in the bits that choose it.
type set struct {
	hash   [ways]uint64
	full   [ways]int64 // when the key has its full allowance again
	shared int64       // the same, for all keys that have no place here
}

// take takes one interval from the allowance of hash at the time now, or returns how
// long to wait for it. shared says that the allowance is that of keys without a place.
func (s *shard) take(hash uint64, now, interval, slack int64) (wait int64, shared bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	at, shared := s.place(hash, now)
	full := max(*at, now)
	if ahead := full - now; ahead > slack {
		return ahead - slack, shared
	}
	*at = full + interval
	return 0, shared
}

// wait is how long hash has to wait at the time now; it takes nothing and makes no place.
func (s *shard) wait(hash uint64, now, slack int64) int64 {
	s.mu.Lock()
	defer s.mu.Unlock()
	set := &s.sets[s.index(hash)]
	i, free := set.find(hash, now)
	full := set.shared
	switch {
	case i >= 0:
		full = set.full[i]
	case free >= 0 || len(s.sets) < maxSets:
		full = now // a key without a place has its full allowance
	}
	return max(full-now-slack, 0)
}

// give gives an interval back to where take has just taken it. A key that has lost its
// place since has its full allowance without it.
func (s *shard) give(hash uint64, interval int64, shared bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	set := &s.sets[s.index(hash)]
	if shared {
		set.shared -= interval
	} else if i, _ := set.find(hash, 0); i >= 0 {
		set.full[i] -= interval
	}
}

// find is where hash has its place, below zero if it has none, and a place that is free
// at the time now, below zero if none is. A key that is found may have passed its time.
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

// place finds the time of a key, or makes a place for it, or finds the time that it
// shares. The caller holds mu.
func (s *shard) place(hash uint64, now int64) (at *int64, shared bool) {
	for {
		set := &s.sets[s.index(hash)]
		switch i, free := set.find(hash, now); {
		case i >= 0:
			return &set.full[i], false
		case free >= 0:
			set.hash[free], set.full[free] = hash, 0
			return &set.full[free], false
		case len(s.sets) >= maxSets:
			return &set.shared, true
		}
		s.grow()
	}
}

// index is the set for a hash; the lowest bits have chosen the shard.
func (s *shard) index(hash uint64) int { return int(hash / shards & uint64(len(s.sets)-1)) }

// grow doubles the number of sets. Each set's keys part by one more bit of
// their hashes. The caller holds mu.
func (s *shard) grow() {
	old := s.sets
	s.sets = make([]set, 2*len(old))
	for i := range old {
		for half := range 2 {
			to, n := &s.sets[i+half*len(old)], 0
			to.shared = old[i].shared
			for j, hash := range old[i].hash {
				if s.index(hash) == i+half*len(old) {
					to.hash[n], to.full[n] = hash, old[i].full[j]
					n++
				}
			}
		}
	}
}
