package upstream

import (
	"context"
	"fmt"
	"log/slog"
	"maps"
	"net"
	"slices"
	"sync"
	"time"

	"sallyport/proxy/setting"
	"sallyport/proxy/wire"
)

// Options are the dependencies of all upstreams of a process.
type Options struct {
	// Now is the clock for idle and ejected times; time.Now if nil.
	Now func() time.Time
	// Clock, if not nil, replaces the system clock for deadlines and idle times.
	Clock *wire.Clock
	// Dial connects; a net.Dialer's DialContext if nil.
	Dial func(ctx context.Context, network, addr string) (net.Conn, error)
	// Log gets a line when connects to an endpoint begin to fail, and when they succeed again. If it
	// is nil, the lines are discarded.
	Log *slog.Logger
}

// Pools holds the open upstreams and their connections. A process has one, so that
// upstreams outlive configurations. It drops an upstream when that is closed. It is safe for
// concurrent use.
type Pools struct {
	options Options
	bufs    wire.Buffers

	mu   sync.Mutex             // guards open
	open map[string][]*Upstream // by name; the most recently opened last
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

// Open returns the upstream for a name and a configuration. It reads the files for TLS, but uses
// no network and starts no goroutine. Each Open needs one [Upstream.Close].
//
// If the name is already open with an equal configuration and equal files, Open returns the same
// upstream with its idle connections. Credentials do not count: requests bring their own. If the configuration differs, the new upstream has no
// connections, but endpoints with the same URL share:
//
//   - the counters and the number of requests in flight;
//   - the ejection after failed connects, if both verify certificates in the same way. Otherwise a
//     changed ca or server_name may be the remedy, so the endpoint is tried at once.
//
// Until the old upstream is closed, each of them may use max_connections.
//
// localhost is for servers that refuse other names while they listen on loopback: if c.Host is
// empty, they see localhost with the endpoint's port.
func (p *Pools) Open(name string, c Config, localhost bool) (*Upstream, error) {
	var faults setting.Faults
	c.Check(name, &faults)
	if err := faults.Err(); err != nil {
		return nil, err
	}
	// Compute the digest first. If a file changes in between, the digest is of the old file, and
	// the next reload opens the upstream anew.
	digest := c.digest()
	files, err := c.readTLS()
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
	u.rest = u.newEndpoints(c.Rest, &c, files, localhost)
	u.grpc = u.newEndpoints(c.GRPC, &c, files, localhost)
	p.open[name] = append(open, u)
	return u, nil
}

// digest identifies what decides on connections: everything but the credentials, which rotate.
func (c Config) digest() string {
	c.Credentials = CredentialsConfig{}
	return setting.Digest(c)
}

// newEndpoints makes the endpoints of a list. An endpoint in both lists is made once. The
// caller holds the mutex of the pools.
func (u *Upstream) newEndpoints(urls []setting.URL, c *Config, files *tlsFiles, localhost bool) (all []*endpoint) {
	for _, at := range urls {
		if i := slices.IndexFunc(u.rest, func(e *endpoint) bool { return e.label == at.String() }); i >= 0 {
			all = append(all, u.rest[i])
			continue
		}
		e := u.pools.newEndpoint(at.URL, c, files, localhost)
		e.skippable = len(urls) > 1
		u.inherit(e)
		all = append(all, e)
	}
	return all
}

// inherit takes counters and health from the same endpoint of open upstreams of that name,
// or makes new ones.
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
		e.health = newHealth(u.pools.options.Log, u.name, e.label)
	}
}

// Close undoes one Open. The last Close closes idle connections at once and the others when
// their responses are closed. Later requests still succeed, on connections that are not kept.
// Surplus calls do nothing.
func (u *Upstream) Close() {
	if !u.pools.release(u) {
		return
	}
	for _, e := range u.all() {
		e.conns.close()
	}
}

// release drops one reference to an upstream and reports whether it was the last; then it
// also removes the upstream.
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
	InFlight  int       // requests with a connection or waiting for one
	Idle      int       // idle connections
	Dials     uint64    // connects started
	Reuses    uint64    // requests on a reused connection
	Failures  uint64    // failed connects
	Ejected   bool      // skipped now, because connects failed
	EjectedTo time.Time // end of the ejection; zero if not ejected
	Fault     error     // why the last connect failed; nil if it succeeded or there was none
}

// Status returns the state of the open upstreams, one entry a name, sorted. If a name is open
// with several configurations, the endpoints of the newest come first, then those of older ones
// only. Idle is the sum over all.
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
					s.Endpoints[i].Idle += e.conns.idle() // everything else is shared
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
		Fault:    e.health.fault(),
	}
	if e.skippable {
		s.EjectedTo = e.health.ejected(e.now())
		s.Ejected = !s.EjectedTo.IsZero()
	}
	return s
}
