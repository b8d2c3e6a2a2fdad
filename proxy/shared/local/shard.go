package local

import (
	"slices"
	"sync"
	"time"

	"sallyport/proxy/shared"
)

const shards = 64 // a power of two

// use is a claim to be made.
type use struct {
	claim   [16]byte
	key     *key
	created int64
	end     int64 // the last second at which the signature is valid
}

// shard is a part of the claims, selected by their first byte.
type shard struct {
	mu      sync.Mutex // guards buckets
	buckets []bucket   // about five; more only after the clock was set
	_       [32]byte   // padding: locks of neighbors are on other cache lines
}

// bucket holds the claims of signatures created in one time span. It is dropped as a whole. The
// creation time is signed, so a replayed signature maps to the same bucket. If that was dropped,
// the signature is not above the floor.
type bucket struct {
	from, to int64               // creation times; to is exclusive
	last     int64               // latest creation time
	end      int64               // the last second at which one of the signatures is valid
	claims   map[[16]byte]uint32 // to the number of the key
}

func (r *Replay) shard(claim *[16]byte) *shard { return &r.shards[claim[0]%shards] }

// put makes a claim at time now, in Unix seconds.
func (r *Replay) put(c *use, now int64) error {
	s := r.shard(&c.claim)
	s.mu.Lock()
	defer s.mu.Unlock()
	if r.stopped.Load() {
		return shared.ErrStopped
	}
	r.drop(s, now)
	if floor := r.floor.Load(); c.created <= floor {
		return &shared.WindowError{Until: time.Unix(floor+1, 0)}
	}
	var to *bucket
	for i := range s.buckets {
		b := &s.buckets[i]
		if c.created < b.from || c.created >= b.to {
			continue
		}
		if _, used := b.claims[c.claim]; used {
			return shared.ErrReplayed
		}
		to = b
	}
	limits := r.bounds.Load()
	if c.key.live.Add(1) > limits.perKey {
		c.key.live.Add(-1)
		return &shared.KeyFullError{KeyID: c.key.id}
	}
	if r.live.Add(1) > limits.nonces {
		r.live.Add(-1)
		c.key.live.Add(-1)
		return shared.ErrFull
	}
	if to == nil {
		from := c.created - modulo(c.created, limits.width)
		to = s.bucket(from, from+limits.width)
	}
	to.claims[c.claim] = c.key.number
	to.last = max(to.last, c.created)
	to.end = max(to.end, c.end)
	return nil
}

// bucket returns the bucket of exactly this span, or makes it. The caller holds mu.
func (s *shard) bucket(from, to int64) *bucket {
	for i := range s.buckets {
		if b := &s.buckets[i]; b.from == from && b.to == to {
			return b
		}
	}
	s.buckets = append(s.buckets, bucket{from: from, to: to, last: from, end: from, claims: make(map[[16]byte]uint32)})
	return &s.buckets[len(s.buckets)-1]
}

// drop removes expired buckets of a shard and reports whether there were any. The caller holds
// mu.
func (r *Replay) drop(s *shard, now int64) bool {
	n := len(s.buckets)
	s.buckets = slices.DeleteFunc(s.buckets, func(b bucket) bool {
		if now <= b.end {
			return false
		}
		r.raise(b.last)
		all := r.keys.Load().all
		for _, number := range b.claims {
			all[number].live.Add(-1)
		}
		r.live.Add(-int64(len(b.claims)))
		return true
	})
	return len(s.buckets) < n
}

// sweep drops all expired buckets and reports whether there were any.
func (r *Replay) sweep(now int64) (any bool) {
	for i := range r.shards {
		s := &r.shards[i]
		s.mu.Lock()
		if r.drop(s, now) {
			any = true
		}
		s.mu.Unlock()
	}
	return any
}

// modulo returns a mod b, which is never negative.
func modulo(a, b int64) int64 { return (a%b + b) % b }
