package auth

import (
	"hash/maphash"
	"math"
	"sync"

	"sallyport/auth/identity"
	"sallyport/auth/login"
)

// verified is a token whose signature was verified and whose claims satisfy the issuer's
// configuration. candidate.accept checks the rest on each use. It is immutable, except
// for the fields that belong to the cache.
type verified struct {
	issuer    uint64 // issuerMemory.number of the configuration that verified it
	hash      uint64
	raw       string
	key       *key
	notBefore int64 // in seconds since 1970, skew included
	notAfter  int64
	lookAgain int64 // when the issuer must be asked again, in seconds since 1970; 0: never
	principal identity.Principal
	aud       []string             // the claim aud; nil if there is none
	bound     *[32]byte            // thumbprint of the certificate that it is bound to; nil if it is not
	by        login.Authentication // how and when its owner was authenticated
	skew      int32                // of the issuer's clock, in seconds
	session   *login.Session       // of a cookie, whose principal counts instead; nil for a token

	size int32 // approximate bytes

	// Guarded by the shard's mutex.
	uses       uint8
	inMain     bool
	next, prev *verified
}

const (
	shards        = 16
	entryOverhead = 512 // bytes of a verified token besides its text and claims
	maxUses       = 3
	smallShare    = 10 // the small queue gets a tenth of the cache

	defaultTokens     = 20_000
	defaultTokenBytes = 64 << 20
)

// CacheLimits bound the cache of verified tokens.
type CacheLimits struct {
	Tokens int   // 20,000 if zero
	Bytes  int64 // 64 MiB if zero
}

// tokenCache stores verified tokens by the configuration of their issuer and their text.
// It admits only verified tokens, so forged tokens cannot flush it. It evicts by S3-FIFO:
// tokens that are used once stay in the small queue, so they cannot flush it either.
//
// The cache stores the whole text of a JWT. It finds a token by a keyed hash and then
// compares the text in constant time, so it never confuses two tokens. An attacker who
// can read this memory can read the tokens in requests as well. Of a token that an issuer
// was asked about it stores a digest instead, see [digest].
type tokenCache struct {
	seed   maphash.Seed
	shards [shards]tokenShard
}

type tokenKey struct {
	hash   uint64
	issuer uint64
}

type tokenShard struct {
	mu       sync.Mutex // guards the fields below
	entries  map[tokenKey]*verified
	small    queue // new tokens
	main     queue // tokens used more than once
	ghosts   ghosts
	tokens   int // maximum number of entries
	bytes    int // maximum size of entries
	hits     uint64
	admitted uint64
}

// newTokenCache returns a cache whose limits are divided evenly between its shards.
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
		s.ghosts = ghosts{order: make([]uint64, s.tokens), set: make(map[uint64]struct{})}
	}
	return c
}

func (c *tokenCache) hash(raw string) uint64 { return maphash.String(c.seed, raw) }

func (c *tokenCache) shard(hash uint64) *tokenShard { return &c.shards[hash>>32%shards] }

// get returns the verified token with this text and issuer, nil if there is none.
func (c *tokenCache) get(issuer uint64, hash uint64, raw string) *verified {
	e := c.find(issuer, hash)
	if e == nil || !equal(e.raw, raw) {
		return nil
	}
	return e
}

// find returns the verified token with this hash and issuer, nil if there is none. The caller must
// compare the text.
func (c *tokenCache) find(issuer uint64, hash uint64) *verified {
	s := c.shard(hash)
	s.mu.Lock()
	e := s.entries[tokenKey{hash, issuer}]
	if e != nil {
		e.uses = min(e.uses+1, maxUses)
		s.hits++
	}
	s.mu.Unlock()
	return e
}

// equal compares eight bytes at a time. Its time depends on the lengths only.
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

// put adds a verified token and evicts others to stay within the limits. It does not add
// a token whose key was withdrawn meanwhile.
func (c *tokenCache) put(e *verified) {
	e.size += int32(len(e.raw))
	s := c.shard(e.hash)
	s.mu.Lock()
	defer s.mu.Unlock()
	if e.key.withdrawn.Load() {
		return
	}
	if int(e.size) > s.bytes/smallShare {
		return // it would evict too many others
	}
	id := tokenKey{e.hash, e.issuer}
	if old := s.entries[id]; old != nil {
		s.remove(old)
	}
	s.entries[id] = e
	s.admitted++
	if e.inMain = s.ghosts.has(e.hash); e.inMain {
		s.main.push(e)
	} else {
		s.small.push(e)
	}
	for len(s.entries) > s.tokens || s.small.bytes+s.main.bytes > s.bytes {
		s.evict()
	}
}

// evict removes one token. A token of the small queue that was used again moves to the
// main queue instead. A used token of the main queue returns to its front, with one use
// fewer.
func (s *tokenShard) evict() {
	for {
		if e := s.small.last; e != nil && (s.main.last == nil || s.small.n > s.tokens/smallShare || s.small.bytes > s.bytes/smallShare) {
			if e.uses == 0 {
				s.remove(e)
				s.ghosts.add(e.hash)
				return
			}
			s.small.unlink(e)
			e.uses, e.inMain = 0, true
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
	if e.inMain {
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

// dropToken removes the token with this issuer and hash, if there is one.
func (c *tokenCache) dropToken(issuer, hash uint64) {
	s := c.shard(hash)
	s.mu.Lock()
	defer s.mu.Unlock()
	if e := s.entries[tokenKey{hash, issuer}]; e != nil {
		s.remove(e)
	}
}

// dropWithdrawn removes the tokens of withdrawn keys.
func (c *tokenCache) dropWithdrawn() { c.sweep(math.MinInt64) }

// knownFor is for how long a token is known after its issuer should have been asked again.
const knownFor = 3600 // seconds

// sweep removes tokens that have expired or were not used for long, and those of withdrawn keys.
func (c *tokenCache) sweep(now int64) {
	for i := range c.shards {
		s := &c.shards[i]
		s.mu.Lock()
		for _, e := range s.entries {
			if now >= e.notAfter || e.lookAgain != 0 && now >= e.lookAgain+knownFor || e.key.withdrawn.Load() {
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
	Admitted uint64 // tokens that were verified and added, since the start
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

// queue is a linked list of tokens, the newest first.
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
	q.bytes += int(e.size)
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
	q.bytes -= int(e.size)
}

// ghosts stores the hashes of the tokens last evicted from the small queue, as many as
// the shard may have entries.
type ghosts struct {
	order []uint64 // ring
	at    int      // index of the oldest
	set   map[uint64]struct{}
}

func (g *ghosts) has(hash uint64) bool {
	_, ok := g.set[hash]
	return ok
}

func (g *ghosts) add(hash uint64) {
	if g.has(hash) {
		return
	}
	if len(g.set) >= len(g.order) {
		delete(g.set, g.order[g.at])
	}
	g.order[g.at] = hash
	g.set[hash] = struct{}{}
	g.at = (g.at + 1) % len(g.order)
}
