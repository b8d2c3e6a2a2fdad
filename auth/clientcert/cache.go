package clientcert

import (
	"crypto/sha256"
	"crypto/x509"
	"encoding/binary"
	"slices"
	"sync"
	"time"
	"weak"
)

const (
	maxVerified = 4096 // verified chains; twice as many at most
	maxFailed   = 1024 // refused chains; twice as many at most
	// failedTime is how long a refusal is remembered: the outcome may depend on the time.
	failedTime = 10 * time.Second
)

// cache remembers the chains of one Trust: verified ones, and refused ones, so that a client that
// sends a bad one with each request causes no public-key operation. Refused chains never displace
// verified ones.
//
// Requests of one connection have the same certificates in memory, and so are found by pointers.
// Others are found by a digest of the whole chain. The pointers are weak: the cache keeps no
// certificate alive.
type cache struct {
	mu       sync.Mutex // guards the fields below
	pointers recent[weak.Pointer[x509.Certificate], *pointed]
	verified recent[[32]byte, *verdict]
	failed   recent[[32]byte, failure]
}

// pointed is a verified chain by the addresses of its certificates.
type pointed struct {
	chain   []weak.Pointer[x509.Certificate]
	verdict *verdict
}

type failure struct {
	err        *Error
	generation uint64
	until      time.Time
}

func newCache() *cache {
	c := &cache{}
	c.pointers.most, c.verified.most, c.failed.most = maxVerified, maxVerified, maxFailed
	return c
}

// recent is a map that forgets the entries that were not used for longest. It holds at most twice
// most of them.
type recent[K comparable, V any] struct {
	most       int
	young, old map[K]V
}

func (r *recent[K, V]) get(k K) (V, bool) {
	v, ok := r.young[k]
	if !ok {
		if v, ok = r.old[k]; ok {
			r.put(k, v)
		}
	}
	return v, ok
}

func (r *recent[K, V]) put(k K, v V) {
	if r.young == nil || len(r.young) >= r.most {
		r.old, r.young = r.young, make(map[K]V)
	}
	r.young[k] = v
}

func (r *recent[K, V]) drop(k K) {
	delete(r.young, k)
	delete(r.old, k)
}

// byPointer returns the current verdict on a chain whose certificates are the same in memory, nil
// if there is none.
func (c *cache) byPointer(chain []*x509.Certificate, generation uint64, now time.Time) *verdict {
	leaf := weak.Make(chain[0])
	c.mu.Lock()
	defer c.mu.Unlock()
	p, ok := c.pointers.get(leaf)
	if !ok || len(p.chain) != len(chain) {
		return nil
	}
	for i := range chain {
		if p.chain[i] != weak.Make(chain[i]) {
			return nil
		}
	}
	if !p.verdict.current(generation, now) {
		c.pointers.drop(leaf)
		return nil
	}
	return p.verdict
}

// byID returns the current verdict on a chain with this id, or why it was refused; nil if neither
// is known.
func (c *cache) byID(id [32]byte, generation uint64, now time.Time) (*verdict, *Error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if v, ok := c.verified.get(id); ok {
		if v.current(generation, now) {
			return v, nil
		}
		c.verified.drop(id)
	}
	if f, ok := c.failed.get(id); ok {
		if f.generation == generation && now.Before(f.until) {
			return nil, f.err
		}
		c.failed.drop(id)
	}
	return nil, nil
}

func (c *cache) put(id [32]byte, chain []*x509.Certificate, v *verdict) {
	p := &pointed{verdict: v}
	for _, one := range chain {
		p.chain = append(p.chain, weak.Make(one))
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.verified.put(id, v)
	c.pointers.put(p.chain[0], p)
}

// putFailure remembers a refusal.
func (c *cache) putFailure(id [32]byte, f failure) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.failed.put(id, f)
}

// chainID identifies a chain by all of its bytes.
func chainID(chain []*x509.Certificate) [32]byte {
	h := sha256.New()
	var n [8]byte
	for _, c := range chain {
		binary.BigEndian.PutUint64(n[:], uint64(len(c.Raw)))
		h.Write(n[:])
		h.Write(c.Raw)
	}
	return [32]byte(slices.Clone(h.Sum(nil)))
}
