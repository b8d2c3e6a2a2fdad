// Package limit answers whether there is room for one more: request by rate,
// request in flight, connection. All counts live in this process, in bounded
// memory, and none of them can be reset by somebody else's traffic.
package limit

import (
	"net/netip"
	"sync"
	"sync/atomic"
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
	config atomic.Pointer[ConnsConfig]

	mu     sync.Mutex // guards all below
	total  int
	byAddr map[netip.Addr]int // of all clients, those that are exempt too; no more entries than total
}

// NewConns makes a Conns with nobody in it. It keeps c.Exempt.
func NewConns(c ConnsConfig) *Conns {
	all := &Conns{byAddr: make(map[netip.Addr]int)}
	all.config.Store(&c)
	return all
}

// SetConfig changes the bounds. Connections that are there stay, and count.
func (c *Conns) SetConfig(next ConnsConfig) { c.config.Store(&next) }

// Enter takes a place for a connection from a and says whether there was one.
// Who got one must [Conns.Leave] with the same address.
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

// timely says whether connections do not come too fast. One address's share is
// looked at first, so that it cannot use up that of all.
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

// Leave gives the place of a connection from a back.
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

// Len is how many connections there are.
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
