// Package limit limits request rates, requests in flight, connections and memory. All counts
// are in this process and in bounded memory. Nobody's traffic can reset another's count.
package limit

import (
	"net/netip"
	"sync"
	"sync/atomic"
)

// ConnsConfig configures a [Conns].
type ConnsConfig struct {
	Total      int // maximum at once; zero or less refuses all, since memory would be unbounded
	PerAddress int // maximum at once from one client address, see [Key]; zero or less: no limit but Total
	// Accepts limits the rate of new connections from all clients, and AcceptsPerAddress from
	// one; nil means no limit. A handshake costs more than a request.
	Accepts, AcceptsPerAddress *Rate
	// Spent reports whether the process is out of memory; nil means never.
	Spent func() bool
	// Exempt are addresses without limits per address: balancers, which carry many clients.
	Exempt []netip.Prefix
}

// Conns limits connections, in total and by client address. Several listeners may share one.
// It is safe for concurrent use.
type Conns struct {
	config atomic.Pointer[ConnsConfig]

	mu     sync.Mutex // guards the fields below
	total  int
	byAddr map[netip.Addr]int // connections by client, exempt ones included; at most total entries
}

// NewConns returns a Conns without connections. It keeps c.Exempt.
func NewConns(c ConnsConfig) *Conns {
	all := &Conns{byAddr: make(map[netip.Addr]int)}
	all.config.Store(&c)
	return all
}

// SetConfig changes the limits. Existing connections stay and count.
func (c *Conns) SetConfig(next ConnsConfig) { c.config.Store(&next) }

// Enter admits a connection from a if the limits allow it. Each success needs one
// [Conns.Leave] with the same address.
func (c *Conns) Enter(a netip.Addr) bool {
	config := c.config.Load()
	exempt := config.exempt(a.Unmap())
	if !config.timely(a, exempt) || config.Spent != nil && config.Spent() {
		return false
	}
	key := Key(a)
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.total >= config.Total {
		return false
	}
	n := c.byAddr[key]
	if config.PerAddress > 0 && n >= config.PerAddress && !exempt {
		return false
	}
	c.byAddr[key] = n + 1
	c.total++
	return true
}

// timely reports whether the accept rates allow a connection. It checks the rate per address
// first, so that one address cannot use up the common rate.
func (c *ConnsConfig) timely(a netip.Addr, exempt bool) bool {
	if r := c.AcceptsPerAddress; r != nil && !exempt {
		if _, ok := r.AllowAddr(a); !ok {
			return false
		}
	}
	if r := c.Accepts; r != nil {
		if _, ok := r.Allow(""); !ok {
			return false
		}
	}
	return true
}

// Leave ends a connection from a.
func (c *Conns) Leave(a netip.Addr) {
	key := Key(a)
	c.mu.Lock()
	defer c.mu.Unlock()
	c.total--
	if n := c.byAddr[key]; n > 1 {
		c.byAddr[key] = n - 1
	} else {
		delete(c.byAddr, key)
	}
}

// Len returns the number of connections.
func (c *Conns) Len() int {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.total
}

func (c *ConnsConfig) exempt(a netip.Addr) bool {
	for _, p := range c.Exempt {
		if p.Contains(a) {
			return true
		}
	}
	return false
}

// Key identifies a client in limits by address: its IPv4 address, or the /64 of its IPv6
// address, because one client usually controls a whole /64. IPv4-mapped addresses count as IPv4.
func Key(a netip.Addr) netip.Addr {
	a = a.Unmap()
	if !a.Is6() {
		return a
	}
	p, err := a.Prefix(64)
	if err != nil {
		return netip.Addr{}
	}
	return p.Addr()
}
