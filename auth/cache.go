package auth

import (
	"hash/maphash"
	"math"
	"sync"

	"sallyport/auth/identity"
)

// verified is a token whose signature was verified and whose claims are what the
// issuer's configuration demands. Whether it opens a route is checked on each use,
// see candidate.accept. Only the cache's own fields change once it is made.
type verified struct {
	issuer    uint64 // number of the configuration that it was checked against
	hash      uint64
	raw       string
	key       *key
	audience  []string
	notBefore int64 // in seconds since 1970, skew included
	notAfter  int64
	principal identity.Principal

	// Of the shard that holds it.
	size       int // bytes, roughly
	uses       uint8
	kept       bool // in the main queue
	next, prev *verified
}

const (
	shards        = 16
	entryOverhead = 512 // bytes of a verified token beside its text and claims
	maxUses       = 3
	smallShare    = 10 // the queue of newcomers has a tenth

	defaultTokens     = 20_000
	defaultTokenBytes = 64 << 20
)

// CacheLimits bound the cache of verified tokens.
type CacheLimits struct {
	Tokens int   // 20,000 if zero
	Bytes  int64 // 64 MiB if zero
}

// tokenCache keeps verified tokens by the configuration of their issuer and
// their text. Nothing enters that was not signed, so forged tokens cannot flush
// it; tokens that are shown once only pass through the queue of newcomers
// (S3-FIFO), so neither can those.
//
// The text of the tokens is in memory, in full: a token is looked up by a hash
// under a key of this process, and then compared in constant time, so no two
// tokens are ever taken for each other. Whoever reads this memory reads the
// requests too, and the tokens in them.
type tokenCache struct {
	seed   maphash.Seed
	shards [shards]tokenShard
}

type tokenKey struct {
	hash   uint64
	issuer uint64
}

type tokenShard struct {
	mu       sync.Mutex // guards what follows
	entries  map[tokenKey]*verified
	small    queue // newcomers
	main     queue // used more than once
	past     past  // who left the newcomers lately
	tokens   int   // bound of entries
	bytes    int   // bound of bytes
	hits     uint64
	admitted uint64
}

// newTokenCache makes a cache; shards share its bounds evenly.
func newTokenCache(l CacheLimits) *tokenCache {
	if l.Tokens <= 0 {
		l.Tokens = defaultTokens
	}
	if l.Bytes <= 0 {
		l.Bytes = defaultTokenBytes
	}
	c := &tokenCache{seed: maphash.MakeSeed()}
	for i := range c.shards {
		s := &c.shards[i]
		s.entries = make(map[tokenKey]*verified)
		s.tokens = max(l.Tokens/shards, 1)
		s.bytes = int(max(l.Bytes/shards, 1))
		s.past = past{order: make([]uint64, s.tokens), set: make(map[uint64]struct{})}
	}
	return c
}

func (c *tokenCache) hash(raw string) uint64 { return maphash.String(c.seed, raw) }

func (c *tokenCache) shard(hash uint64) *tokenShard { return &c.shards[hash>>32%shards] }

// get returns the verified token of this text and issuer, nil if there is none.
func (c *tokenCache) get(issuer uint64, hash uint64, raw string) *verified {
	s := c.shard(hash)
	s.mu.Lock()
	e := s.entries[tokenKey{hash, issuer}]
	if e != nil {
		e.uses = min(e.uses+1, maxUses)
		s.hits++
	}
	s.mu.Unlock()
	if e == nil || !equal(e.raw, raw) {
		return nil
	}
	return e
}

// equal compares in a time that depends on the lengths alone, eight bytes at a time.
func equal(a, b string) bool {
	if len(a) != len(b) {
		return false
	}
	var diff uint64
	i := 0
	for ; i+8 <= len(a); i += 8 {
		diff |= word(a, i) ^ word(b, i)
	}
	for ; i < len(a); i++ {
		diff |= uint64(a[i] ^ b[i])
	}
	return diff == 0
}

func word(s string, i int) uint64 {
	s = s[i : i+8]
	return uint64(s[0]) | uint64(s[1])<<8 | uint64(s[2])<<16 | uint64(s[3])<<24 |
		uint64(s[4])<<32 | uint64(s[5])<<40 | uint64(s[6])<<48 | uint64(s[7])<<56
}

// put adds a verified token and evicts others to make room. A token whose key was
// withdrawn meanwhile is not added.
func (c *tokenCache) put(e *verified) {
	e.size += len(e.raw)
	s := c.shard(e.hash)
	s.mu.Lock()
	defer s.mu.Unlock()
	if e.key.withdrawn.Load() {
		return
	}
	if e.size > s.bytes/smallShare {
		return // it would push out too many others
	}
	id := tokenKey{e.hash, e.issuer}
	if old := s.entries[id]; old != nil {
		s.remove(old)
	}
	s.entries[id] = e
	s.admitted++
	if e.kept = s.past.has(e.hash); e.kept {
		s.main.push(e)
	} else {
		s.small.push(e)
	}
	for len(s.entries) > s.tokens || s.small.bytes+s.main.bytes > s.bytes {
		s.evict()
	}
}

// evict lets one token go. A newcomer that was used again moves to the main
// queue instead, and a token there goes round once for each time it was used.
func (s *tokenShard) evict() {
	for {
		if e := s.small.last; e != nil && (s.main.last == nil || s.small.n > s.tokens/smallShare || s.small.bytes > s.bytes/smallShare) {
			if e.uses == 0 {
				s.remove(e)
				s.past.add(e.hash)
				return
			}
			s.small.unlink(e)
			e.uses, e.kept = 0, true
			s.main.push(e)
			continue
		}
		e := s.main.last
		if e.uses == 0 {
			s.remove(e)
			return
		}
		e.uses--
		s.main.unlink(e)
		s.main.push(e)
	}
}

func (s *tokenShard) remove(e *verified) {
	delete(s.entries, tokenKey{e.hash, e.issuer})
	if e.kept {
		s.main.unlink(e)
	} else {
		s.small.unlink(e)
	}
}

// drop removes a token that is no longer accepted.
func (c *tokenCache) drop(e *verified) {
	s := c.shard(e.hash)
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.entries[tokenKey{e.hash, e.issuer}] == e {
		s.remove(e)
	}
}

// dropWithdrawn removes the tokens of keys that were withdrawn.
func (c *tokenCache) dropWithdrawn() { c.sweep(math.MinInt64) }

// sweep removes tokens that can never be accepted again: those that have expired,
// and those of withdrawn keys.
func (c *tokenCache) sweep(now int64) {
	for i := range c.shards {
		s := &c.shards[i]
		s.mu.Lock()
		for _, e := range s.entries {
			if now >= e.notAfter || e.key.withdrawn.Load() {
				s.remove(e)
			}
		}
		s.mu.Unlock()
	}
}

// CacheStatus is the state of the cache of verified tokens.
type CacheStatus struct {
	Tokens   int
	Bytes    int64
	Hits     uint64 // look-ups that found a token, since the start
	Admitted uint64 // tokens that were verified and kept, since the start
}

func (c *tokenCache) status() CacheStatus {
	var st CacheStatus
	for i := range c.shards {
		s := &c.shards[i]
		s.mu.Lock()
		st.Tokens += len(s.entries)
		st.Bytes += int64(s.small.bytes + s.main.bytes)
		st.Hits += s.hits
		st.Admitted += s.admitted
		s.mu.Unlock()
	}
	return st
}

// queue is tokens in order of arrival.
type queue struct {
	first, last *verified
	n, bytes    int
}

func (q *queue) push(e *verified) {
	e.prev, e.next = nil, q.first
	if q.first != nil {
		q.first.prev = e
	} else {
		q.last = e
	}
	q.first = e
	q.n++
	q.bytes += e.size
}

func (q *queue) unlink(e *verified) {
	if e.prev != nil {
		e.prev.next = e.next
	} else {
		q.first = e.next
	}
	if e.next != nil {
		e.next.prev = e.prev
	} else {
		q.last = e.prev
	}
	e.next, e.prev = nil, nil
	q.n--
	q.bytes -= e.size
}

// past remembers, by their hashes, as many tokens as fit into the shard.
type past struct {
	order []uint64
	at    int
	set   map[uint64]struct{}
}

func (p *past) has(hash uint64) bool {
	_, ok := p.set[hash]
	return ok
}

func (p *past) add(hash uint64) {
	if p.has(hash) {
		return
	}
	if len(p.set) >= len(p.order) {
		delete(p.set, p.order[p.at])
	}
	p.order[p.at] = hash
	p.set[hash] = struct{}{}
	p.at = (p.at + 1) % len(p.order)
}
