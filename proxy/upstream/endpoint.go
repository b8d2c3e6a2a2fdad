package upstream

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"net"
	"net/url"
	"time"

	"sallyport/proxy/message"
	"sallyport/proxy/wire"
	"sallyport/proxy/wire/h1"
	"sallyport/proxy/wire/socket"
)

// maxDialing bounds the connects under way to one endpoint.
const maxDialing = 128

// endpoint is one server, as one configuration describes it.
type endpoint struct {
	spared  bool   // there are others, so that it is not tried while it is ejected
	label   string // its URL
	network string
	addr    string
	host    string      // the Host field; "" for the client's
	tls     *tls.Config // nil without TLS
	// trailers says whether requests other than those of gRPC may have trailers.
	trailers bool

	conns   connections
	bufs    *wire.Buffers
	now     func() time.Time
	clock   *wire.Clock
	connect func(ctx context.Context, network, addr string) (net.Conn, error)
	slots   chan struct{} // one for each request over HTTP/1.1 that is let through; nil: no bound
	dialing chan struct{}

	*counters
	health *health
}

// newEndpoint makes the endpoint at a URL. roots are those that TLS servers are
// verified against, nil for the system's.
func (p *Pools) newEndpoint(at *url.URL, c *Config, roots *x509.CertPool, localhost bool) *endpoint {
	o := &p.options
	e := &endpoint{
		label:   at.String(),
		host:    c.hostFor(at, localhost),
		bufs:    &p.bufs,
		now:     o.Now,
		clock:   o.Clock,
		connect: o.Dial,
		dialing: make(chan struct{}, maxDialing),
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
	idleNow := o.Now
	if o.Clock != nil {
		idleNow = o.Clock.Now
	}
	protocol, idleTime := "http/1.1", c.IdleTime.Or(defaultIdleTime)
	if shares(at.Scheme) {
		protocol = "h2"
		e.trailers = c.RequestTrailers
		e.conns = &shared{e: e, most: c.MaxConnections, idleTime: idleTime, now: idleNow}
	} else {
		maxIdle := c.MaxIdle
		if maxIdle == 0 {
			maxIdle = defaultMaxIdle
		}
		e.trailers = true
		e.conns = &exclusive{e: e, maxIdle: maxIdle, idleTime: idleTime, now: idleNow}
		if c.MaxConnections > 0 {
			e.slots = make(chan struct{}, c.MaxConnections)
		}
	}
	if overTLS(at.Scheme) {
		e.tls = c.tlsConfig(at.Hostname(), protocol, roots)
	}
	return e
}

// hostFor is the Host field for the endpoint, "" for the client's. localhost is as of
// [Pools.Open].
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

// bounded is ctx with a timeout, if there is one.
func bounded(ctx context.Context, d time.Duration) (context.Context, context.CancelFunc) {
	if d <= 0 {
		return ctx, func() {}
	}
	return context.WithTimeout(ctx, d)
}

// dial connects, and has open make a client of the connection, all of it within the
// timeout and the bounds of the endpoint. open must close the connection if it fails.
func (e *endpoint) dial(ctx context.Context, timeout time.Duration, open func(context.Context, net.Conn, *h1.Socket) error) error {
	bound, cancel := bounded(ctx, timeout)
	defer cancel()
	select {
	case e.dialing <- struct{}{}:
		defer func() { <-e.dialing }()
	case <-bound.Done():
		return e.dialFault(ctx, bound, bound.Err())
	}
	e.dials.Add(1)
	conn, sock, err := e.reach(bound)
	if err == nil {
		err = open(bound, conn, sock)
	}
	if err != nil {
		return e.dialFault(ctx, bound, err)
	}
	e.health.recovered()
	return nil
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
	e.failures.Add(1)
	e.health.failed(e.now())
	kind := Refused
	var timeout net.Error
	if bound.Err() != nil || errors.As(err, &timeout) && timeout.Timeout() {
		kind = Timeout
	}
	return &Error{kind, e.label, err}
}
