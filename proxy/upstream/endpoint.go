package upstream

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"net/url"
	"sync/atomic"
	"time"

	"sallyport/proxy/message"
	"sallyport/proxy/wire"
	"sallyport/proxy/wire/h1"
	"sallyport/proxy/wire/h2"
	"sallyport/proxy/wire/socket"
)

const (
	maxDialing = 128              // connects under way to one endpoint
	ejectFirst = time.Second      // after one failed connect; doubles with each
	ejectMost  = 30 * time.Second // ... up to this
	probeTime  = time.Second      // one request tries an ejected endpoint, the others wait this long
)

// endpoint is one server.
type endpoint struct {
	spared  bool   // there are others, so that it is not tried while it is ejected
	label   string // its URL
	network string
	addr    string
	host    string      // the Host field; "" for the client's
	tls     *tls.Config // nil without TLS

	pool    pool
	shared  *shared // in the place of pool, over HTTP/2
	bufs    *h1.Buffers
	now     func() time.Time
	clock   *wire.Clock
	connect func(ctx context.Context, network, addr string) (net.Conn, error)
	slots   chan struct{} // one for each request that is let through; nil: no bound
	dialing chan struct{}

	inFlight, failed      atomic.Int64 // failed: connects in a row
	dials, reuses, faults atomic.Uint64
	ejectedTo             atomic.Int64 // in nanoseconds of Unix time; 0: it is fit
}

func (u *Upstream) newEndpoint(at *url.URL, c *Config, o *Options) *endpoint {
	idle := o.Now // the clock of idle connections
	if o.Clock != nil {
		idle = o.Clock.Now
	}
	e := &endpoint{
		label:   at.String(),
		bufs:    &u.bufs,
		now:     o.Now,
		clock:   o.Clock,
		connect: o.Dial,
		dialing: make(chan struct{}, maxDialing),
		pool:    pool{maxIdle: c.MaxIdle, idleTime: c.IdleTime.Or(defaultIdleTime), now: idle},
	}
	if e.pool.maxIdle == 0 {
		e.pool.maxIdle = defaultMaxIdle
	}
	if shares(at.Scheme) {
		e.shared = &shared{most: c.MaxConnections, idleTime: e.pool.idleTime, now: idle}
	} else if c.MaxConnections > 0 {
		e.slots = make(chan struct{}, c.MaxConnections)
	}
	if at.Scheme == "unix" {
		e.network, e.addr = "unix", at.Path
	} else {
		port := at.Port()
		if port == "" {
			port = "80"
			if overTLS(at.Scheme) {
				port = "443"
			}
		}
		e.network, e.addr = "tcp", net.JoinHostPort(at.Hostname(), port)
	}
	e.host = c.hostFor(at, o.Localhost)
	return e
}

// hostFor is the Host field for the endpoint, "" for the client's; localhost is
// [Options.Localhost].
func (c *Config) hostFor(at *url.URL, localhost bool) string {
	host, port := at.Host, at.Port()
	if at.Scheme == "unix" {
		host = "localhost"
	}
	switch {
	case c.Host == "client":
		return ""
	case c.Host != "" && c.Host != "upstream":
		return c.Host
	case c.Host == "" && localhost && port != "":
		return "localhost:" + port
	case c.Host == "" && localhost:
		return "localhost"
	}
	scheme := "http"
	if overTLS(at.Scheme) {
		scheme = "https"
	}
	if canonical, _, err := message.CanonicalAuthority(host, scheme); err == nil {
		return canonical
	}
	return host
}

// admit waits for room for one more request.
func (e *endpoint) admit(ctx context.Context, wait time.Duration) error {
	if e.slots == nil {
		return nil
	}
	select {
	case e.slots <- struct{}{}:
		return nil
	default:
	}
	ctx, cancel := bounded(ctx, wait)
	defer cancel()
	select {
	case e.slots <- struct{}{}:
		return nil
	case <-ctx.Done():
		return errFull
	}
}

// leave gives back what a request held of the endpoint.
func (e *endpoint) leave() {
	e.inFlight.Add(-1)
	if e.slots != nil {
		<-e.slots
	}
}

// idle is the number of connections that no request uses.
func (e *endpoint) idle() int {
	if e.shared != nil {
		return e.shared.len()
	}
	return e.pool.len()
}

// bounded is ctx with a timeout, if there is one.
func bounded(ctx context.Context, d time.Duration) (context.Context, context.CancelFunc) {
	if d <= 0 {
		return ctx, func() {}
	}
	return context.WithTimeout(ctx, d)
}

// dial makes a connection.
func (e *endpoint) dial(ctx context.Context, timeout time.Duration) (*conn, error) {
	return dialed(ctx, e, timeout, e.open)
}

// dialed is what open makes of a new connection, within the bounds of the endpoint.
func dialed[C any](ctx context.Context, e *endpoint, timeout time.Duration, open func(context.Context) (C, error)) (c C, err error) {
	bound, cancel := bounded(ctx, timeout)
	defer cancel()
	select {
	case e.dialing <- struct{}{}:
		defer func() { <-e.dialing }()
	case <-bound.Done():
		return c, e.dialFault(ctx, bound, bound.Err())
	}
	e.dials.Add(1)
	if c, err = open(bound); err != nil {
		return c, e.dialFault(ctx, bound, err)
	}
	e.recovered()
	return c, nil
}

// recovered ends an ejection.
func (e *endpoint) recovered() {
	if e.ejectedTo.Load() != 0 {
		e.failed.Store(0)
		e.ejectedTo.Store(0)
	}
}

func (e *endpoint) open(ctx context.Context) (*conn, error) {
	nc, sock, err := e.reach(ctx)
	if err != nil {
		return nil, err
	}
	c := h1.NewClient(nc, sock, e.bufs)
	c.Clock = e.clock
	return &conn{Client: c}, nil
}

// reach connects, and shakes hands where the endpoint uses TLS.
func (e *endpoint) reach(ctx context.Context) (net.Conn, *h1.Socket, error) {
	nc, err := e.connect(ctx, e.network, e.addr)
	if err != nil {
		return nil, nil, fmt.Errorf("connecting: %w", err)
	}
	nc = socket.New(nc)
	sock := h1.NewSocket(nc)
	if e.tls == nil {
		return nc, sock, nil
	}
	t := tls.Client(sock, e.tls)
	if err := t.HandshakeContext(ctx); err != nil {
		_ = nc.Close() // the handshake has failed; there is nothing to keep
		return nil, nil, fmt.Errorf("shaking hands: %w", err)
	}
	return t, sock, nil
}

// openShared makes a connection over HTTP/2.
func (e *endpoint) openShared(ctx context.Context) (*h2.Client, error) {
	nc, _, err := e.reach(ctx)
	if err != nil {
		return nil, err
	}
	if t, ok := nc.(*tls.Conn); ok && t.ConnectionState().NegotiatedProtocol != "h2" {
		_ = nc.Close() // nothing was said on it
		return nil, errNoHTTP2
	}
	c := h2.NewClient(nc, h2.ClientOptions{Scheme: e.scheme(), Buffers: e.bufs, Clock: e.clock})
	if err := c.Greet(ctx); err != nil {
		_ = c.Close() // it has no requests
		return nil, err
	}
	return c, nil
}

var errNoHTTP2 = errors.New("the server does not choose h2 by ALPN")

// scheme is that of the requests to the endpoint.
func (e *endpoint) scheme() string {
	if e.tls != nil {
		return "https"
	}
	return "http"
}

// dialFault tells a failure of the endpoint, which is ejected for a while, from
// the end of the caller's context.
func (e *endpoint) dialFault(ctx, bound context.Context, err error) error {
	if ctx.Err() != nil {
		return fmt.Errorf("connecting to upstream: %w", wire.Cause(ctx))
	}
	e.faults.Add(1)
	away := min(ejectFirst<<min(e.failed.Add(1)-1, 10), ejectMost)
	e.ejectedTo.Store(e.now().Add(away).UnixNano())
	kind := Refused
	var timeout net.Error
	if bound.Err() != nil || errors.As(err, &timeout) && timeout.Timeout() {
		kind = Timeout
	}
	return &Error{kind, e.label, err}
}

// fit says whether the endpoint may be tried: it is not ejected, or its time is
// over. Of the requests that find it over, one a second goes to see.
func (e *endpoint) fit() bool {
	to := e.ejectedTo.Load()
	if to == 0 {
		return true
	}
	now := e.now()
	return now.UnixNano() >= to && e.ejectedTo.CompareAndSwap(to, now.Add(probeTime).UnixNano())
}

func (e *endpoint) ejected() bool {
	to := e.ejectedTo.Load()
	return to != 0 && e.now().UnixNano() < to
}
