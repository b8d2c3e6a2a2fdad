package upstream

import (
	"context"
	"crypto/x509"
	"fmt"
	"maps"
	"net"
	"slices"
	"sync"
	"time"

	"sallyport/proxy/setting"
	"sallyport/proxy/wire"
)

// Options are what the process gives to its upstreams.
type Options struct {
	// Now is the clock for idle and ejected times; time.Now if nil.
	Now func() time.Time
	// Clock, if there is one, is asked instead of the system for deadlines and for how
	// long connections were idle.
	Clock *wire.Clock
	// Dial connects; a net.Dialer's DialContext if nil.
	Dial func(ctx context.Context, network, addr string) (net.Conn, error)
}

// Pools keeps the upstreams that are open, with their connections. A process has one,
// so that upstreams outlive the configurations that use them. It holds nothing of an
// upstream that is closed. It is safe for concurrent use.
type Pools struct {
	options Options
	bufs    wire.Buffers

	mu   sync.Mutex             // guards what follows
	open map[string][]*Upstream // by name; the one opened last at the end
}

// NewPools returns Pools without upstreams.
func NewPools(o Options) *Pools {
	if o.Now == nil {
		o.Now = time.Now
	}
	if o.Dial == nil {
		o.Dial = (&net.Dialer{}).DialContext
	}
	return &Pools{options: o, open: map[string][]*Upstream{}}
}

// Open returns the upstream of a name and a configuration. It reads the CA file, does
// nothing on the network and starts no goroutine. Each Open needs one [Upstream.Close].
//
// If the name is open already with an equal configuration, CA file included, Open
// returns that upstream, with its idle connections. If it is open with another
// configuration, the new upstream begins without connections, but keeps what is known
// of endpoints with the same URL:
//
//   - the counters and the number of requests in flight, which both then share;
//   - whether connects have failed lately, if both verify the server's certificate in
//     the same way. Else a changed ca or server_name may be the cure, so the endpoint is
//     tried at once.
//
// Until the old one is closed, each of them may have max_connections.
//
// localhost is for servers that refuse any other name while they are bound to loopback:
// where c.Host is empty, they see localhost with the port of the endpoint.
func (p *Pools) Open(name string, c Config, localhost bool) (*Upstream, error) {
	var faults setting.Faults
	c.Check(name, &faults)
	if err := faults.Err(); err != nil {
		return nil, err
	}
	// In this order: if the CA file changes in between, the digest is of the old one, and
	// the next configuration opens the upstream anew.
	digest := setting.Digest(c)
	roots, err := c.roots()
	if err != nil {
		return nil, fmt.Errorf("upstream %s: %w", name, err)
	}
	trust := c.trust()
	p.mu.Lock()
	defer p.mu.Unlock()
	open := p.open[name]
	if i := slices.IndexFunc(open, func(u *Upstream) bool { return u.digest == digest }); i >= 0 {
		open[i].refs++
		return open[i], nil
	}
	u := &Upstream{pools: p, name: name, digest: digest, trust: trust, refs: 1}
	u.rest = u.newEndpoints(c.Rest, &c, roots, localhost)
	u.grpc = u.newEndpoints(c.GRPC, &c, roots, localhost)
	p.open[name] = append(open, u)
	return u, nil
}

// newEndpoints makes the endpoints of a list. An endpoint that is in the other list too
// is made once. The mutex of the pools is held.
func (u *Upstream) newEndpoints(urls []setting.URL, c *Config, roots *x509.CertPool, localhost bool) (all []*endpoint) {
	for _, at := range urls {
		if i := slices.IndexFunc(u.rest, func(e *endpoint) bool { return e.label == at.String() }); i >= 0 {
			all = append(all, u.rest[i])
			continue
		}
		e := u.pools.newEndpoint(at.URL, c, roots, localhost)
		e.spared = len(urls) > 1
		u.inherit(e)
		all = append(all, e)
	}
	return all
}

// inherit gives an endpoint the counters and the health of the same endpoint of other
// open upstreams of the name; new ones where there are none.
func (u *Upstream) inherit(e *endpoint) {
	for _, other := range u.pools.open[u.name] {
		for _, known := range other.all() {
			if known.label != e.label {
				continue
			}
			e.counters = known.counters
			if other.trust == u.trust {
				e.health = known.health
			}
		}
	}
	if e.counters == nil {
		e.counters = new(counters)
	}
	if e.health == nil {
		e.health = new(health)
	}
}

// Close gives back what one Open has returned. With the last one, idle connections close
// at once, and those in use when their responses are closed. A request that is sent
// after that is served, on a connection that is not kept. Calls beyond the last one do
// nothing.
func (u *Upstream) Close() {
	if !u.pools.release(u) {
		return
	}
	for _, e := range u.all() {
		e.conns.close()
	}
}

// release takes one reference from an upstream and says whether it was the last, with
// which the upstream is forgotten.
func (p *Pools) release(u *Upstream) (last bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if u.refs == 0 {
		return false
	}
	if u.refs--; u.refs > 0 {
		return false
	}
	open := slices.DeleteFunc(p.open[u.name], func(other *Upstream) bool { return other == u })
	if p.open[u.name] = open; len(open) == 0 {
		delete(p.open, u.name)
	}
	return true
}

// Status is the state of one upstream, for metrics and the status page.
type Status struct {
	Name      string
	Endpoints []EndpointStatus // in the order of the configuration
}

// EndpointStatus is the state of one endpoint.
type EndpointStatus struct {
	URL       string
	InFlight  int       // requests that have a connection or are waiting for it to be made
	Idle      int       // connections kept that no request uses
	Dials     uint64    // connects begun
	Reuses    uint64    // requests sent on a connection that had served before
	Failures  uint64    // connects that failed
	Ejected   bool      // not tried now, because connects failed
	EjectedTo time.Time // until when; zero where it is not ejected
}

// Status is the state of the open upstreams, sorted by name, each name once. If a name
// is open with more than one configuration, the endpoints of the one opened last come
// first, then those that only older ones have; Idle counts the connections of all.
func (p *Pools) Status() []Status {
	p.mu.Lock()
	defer p.mu.Unlock()
	all := make([]Status, 0, len(p.open))
	for _, name := range slices.Sorted(maps.Keys(p.open)) {
		s := Status{Name: name}
		for _, u := range slices.Backward(p.open[name]) {
			for _, e := range u.all() {
				i := slices.IndexFunc(s.Endpoints, func(known EndpointStatus) bool { return known.URL == e.label })
				if i < 0 {
					s.Endpoints = append(s.Endpoints, e.status())
				} else {
					s.Endpoints[i].Idle += e.conns.idle() // all else they share
				}
			}
		}
		all = append(all, s)
	}
	return all
}

func (e *endpoint) status() EndpointStatus {
	s := EndpointStatus{
		URL:      e.label,
		InFlight: int(e.inFlight.Load()),
		Idle:     e.conns.idle(),
		Dials:    e.dials.Load(),
		Reuses:   e.reuses.Load(),
		Failures: e.failures.Load(),
	}
	if e.spared {
		s.EjectedTo = e.health.ejected(e.now())
		s.Ejected = !s.EjectedTo.IsZero()
	}
	return s
}
