// Package limit answers whether there is room for one more: request by rate,
// request in flight, connection. All counts live in this process, in bounded
// memory, and none of them can be reset by somebody else's traffic.
package limit

import (
	"net/netip"
	"sync"
)

// ConnsConfig bounds the connections of a [Conns].
type ConnsConfig struct {
	Total      int // at once; zero or less refuses all: memory would have no bound
	PerAddress int // at once from one client address, see [Key]; zero or less: no bound but Total
	// Accepts bounds how many come in a time from all clients, and
	// AcceptsPerAddress from one; nil: no bound. A handshake costs more than a request.
	Accepts, AcceptsPerAddress *Rate
	// Spent says whether the process has no memory left for more; nil: never.
	Spent func() bool
	// Exempt are not counted by address: balancers, behind which are many clients.
	Exempt []netip.Prefix
}

// Conns bounds connections, in total and by client address. Several listeners
// may share one. It is safe for concurrent use.
type Conns struct {
	config ConnsConfig

	mu     sync.Mutex // guards all below
	total  int
	byAddr map[netip.Addr]int // no more entries than total
}

// NewConns makes a Conns with nobody in it. It keeps c.Exempt.
func NewConns(c ConnsConfig) *Conns {
	return &Conns{config: c, byAddr: make(map[netip.Addr]int)}
}

// Enter takes a place for a connection from a and says whether there was one.
// Who got one must [Conns.Leave] with the same address.
func (c *Conns) Enter(a netip.Addr) bool {
	if !c.timely(a) || c.config.Spent != nil && c.config.Spent() {
		return false
	}
	key, counted := c.key(a)
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.total >= c.config.Total {
		return false
	}
	if counted {
		n := c.byAddr[key]
		if n >= c.config.PerAddress {
			return false
		}
		c.byAddr[key] = n + 1
	}
	c.total++
	return true
}

// timely says whether connections do not come too fast. One address's share is
// looked at first, so that it cannot use up that of all.
func (c *Conns) timely(a netip.Addr) bool {
	if r := c.config.AcceptsPerAddress; r != nil && !c.exempt(a.Unmap()) {
		if _, ok := r.AllowAddr(a); !ok {
			return false
		}
	}
	if r := c.config.Accepts; r != nil {
		if _, ok := r.Allow(""); !ok {
			return false
		}
	}
	return true
}

// Leave gives the place of a connection from a back.
func (c *Conns) Leave(a netip.Addr) {
	key, counted := c.key(a)
	c.mu.Lock()
	defer c.mu.Unlock()
	c.total--
	if !counted {
		return
	}
	if n := c.byAddr[key]; n > 1 {
		c.byAddr[key] = n - 1
	} else {
		delete(c.byAddr, key)
	}
}

// Len is how many connections there are.
func (c *Conns) Len() int {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.total
}

// key is what a is counted by, and whether it is counted by address at all.
func (c *Conns) key(a netip.Addr) (netip.Addr, bool) {
	if c.config.PerAddress <= 0 {
		return a, false
	}
	if a = a.Unmap(); c.exempt(a) {
		return a, false
	}
	return Key(a), true
}

func (c *Conns) exempt(a netip.Addr) bool {
	for _, p := range c.config.Exempt {
		if p.Contains(a) {
			return true
		}
	}
	return false
}

// Key is what stands for a client in limits by address: the address itself for
// IPv4, its /64 for IPv6, since whoever has one address there has them all. An
// IPv4 address in IPv6 form counts as IPv4.
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
