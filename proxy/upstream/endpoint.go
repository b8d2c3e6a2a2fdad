package upstream

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"net/url"
	"strings"
	"sync/atomic"
	"time"

	"sallyport/proxy/message"
	"sallyport/proxy/setting"
	"sallyport/proxy/wire"
	"sallyport/proxy/wire/h1"
	"sallyport/proxy/wire/socket"
)

// maxDialing is the maximum number of concurrent connects to one endpoint.
const maxDialing = 128

// endpoint is one server under one configuration.
type endpoint struct {
	skippable bool   // skipped while ejected, because there are other endpoints
	label     string // its URL
	network   string
	addr      string
	host      string      // the Host field; "" for the client's
	tls       *tls.Config // nil without TLS
	shares    bool        // requests share connections: HTTP/2
	trailers  bool        // requests other than gRPC may have trailers

	conns   connections
	bufs    *wire.Buffers
	now     func() time.Time
	clock   *wire.Clock
	connect func(ctx context.Context, network, addr string) (net.Conn, error)
	slots   chan struct{} // one for each admitted HTTP/1.1 request; nil: no limit
	dialing chan struct{}
	asked   atomic.Bool // the server has asked for a certificate

	*counters
	health *health
}

// newEndpoint makes the endpoint at a URL.
func (p *Pools) newEndpoint(at *url.URL, c *Config, files *tlsFiles, localhost bool) *endpoint {
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
	idleNow, lag := o.Now, time.Duration(0)
	if o.Clock != nil {
		idleNow, lag = o.Clock.Now, wire.Lag
	}
	protocol, idleTime := "http/1.1", c.IdleTime.Or(defaultIdleTime)
	if e.shares = shares(at.Scheme); e.shares {
		protocol = "h2"
		e.trailers = c.RequestTrailers
		e.conns = &shared{e: e, most: c.MaxConnections, idleTime: idleTime, now: idleNow}
	} else {
		maxIdle := c.MaxIdle
		if maxIdle == 0 {
			maxIdle = defaultMaxIdle
		}
		e.trailers = true
		e.conns = &exclusive{e: e, maxIdle: maxIdle, idleTime: idleTime, now: idleNow, lag: lag}
		if c.MaxConnections > 0 {
			e.slots = make(chan struct{}, c.MaxConnections)
		}
	}
	if ofThisMachine(at.Hostname()) && !overTLS(at.Scheme) {
		e.connect = onlyLoopback(o.Dial)
	}
	if overTLS(at.Scheme) {
		e.tls = c.tlsConfig(at.Hostname(), protocol, files, &e.asked)
	}
	return e
}

// ofThisMachine reports whether a name is reserved for this machine (RFC 6761, section 6.3).
func ofThisMachine(host string) bool {
	host = strings.ToLower(strings.TrimSuffix(host, "."))
	return host == loopback || strings.HasSuffix(host, "."+loopback)
}

// onlyLoopback refuses connections to other machines. The configuration takes names of this machine
// for safe without TLS, also with credentials, but a resolver may answer otherwise.
func onlyLoopback(dial func(ctx context.Context, network, addr string) (net.Conn, error)) func(ctx context.Context, network, addr string) (net.Conn, error) {
	return func(ctx context.Context, network, addr string) (net.Conn, error) {
		c, err := dial(ctx, network, addr)
		if err != nil {
			return nil, err
		}
		if a, ok := c.RemoteAddr().(*net.TCPAddr); ok && !a.IP.IsLoopback() {
			_ = c.Close()
			return nil, errElsewhere
		}
		return c, nil
	}
}

var errElsewhere = errors.New("the name is reserved for this machine, but resolves to another: write the other's own name")

// hostFor returns the Host field for the endpoint; "" means the client's. localhost is as in
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

// admit waits until one more request is allowed.
func (e *endpoint) admit(ctx context.Context, wait time.Duration, limit time.Time) error {
	if e.slots == nil {
		return nil
	}
	select {
	case e.slots <- struct{}{}:
		return nil
	default:
	}
	ctx, cancel := bounded(ctx, wait, limit)
	defer cancel()
	select {
	case e.slots <- struct{}{}:
		return nil
	case <-ctx.Done():
		return full(cap(e.slots), wait)
	}
}

// leave undoes admit and the count of requests in flight.
func (e *endpoint) leave() {
	e.inFlight.Add(-1)
	if e.slots != nil {
		<-e.slots
	}
}

// bounded returns ctx with a timeout if d is positive, and with a deadline unless limit is zero.
func bounded(ctx context.Context, d time.Duration, limit time.Time) (context.Context, context.CancelFunc) {
	if d > 0 {
		if by := time.Now().Add(d); limit.IsZero() || by.Before(limit) {
			limit = by
		}
	}
	if limit.IsZero() {
		return ctx, func() {}
	}
	return context.WithDeadline(ctx, limit)
}

// expired reports whether the exchange's limit, if any, has passed.
func expired(limit time.Time) bool { return !limit.IsZero() && !time.Now().Before(limit) }

// dial connects and calls open to make a client of the connection, all within the timeout, the
// exchange's limit and the connect limit of the endpoint. open must close the connection if it fails.
func (e *endpoint) dial(ctx context.Context, timeout time.Duration, limit time.Time, open func(context.Context, net.Conn, *h1.Socket) error) error {
	bound, cancel := bounded(ctx, timeout, limit)
	defer cancel()
	if bound.Err() != nil {
		return e.dialFault(ctx, bound, limit, fmt.Errorf("connecting: %w", bound.Err()))
	}
	select {
	case e.dialing <- struct{}{}:
		defer func() { <-e.dialing }()
	case <-bound.Done():
		if ctx.Err() == nil {
			return &Error{Timeout, e.label, &noConnection{"waiting for other connects", bound.Err()}}
		}
		return e.dialFault(ctx, bound, limit, bound.Err())
	}
	e.dials.Add(1)
	conn, sock, err := e.connectTLS(bound)
	if err == nil {
		err = open(bound, conn, sock)
	}
	if err != nil {
		return e.dialFault(ctx, bound, limit, err)
	}
	e.health.recovered()
	return nil
}

// connectTLS opens a connection, with a TLS handshake if the endpoint uses TLS.
func (e *endpoint) connectTLS(ctx context.Context) (net.Conn, *h1.Socket, error) {
	nc, err := e.connect(ctx, e.network, e.addr)
	if err != nil {
		return nil, nil, &described{"connecting: " + setting.PlainError(err).Error(), err}
	}
	nc = socket.New(nc)
	sock := h1.NewSocket(nc)
	if e.tls == nil {
		return nc, sock, nil
	}
	t := tls.Client(sock, e.tls)
	if err := plainer(t.HandshakeContext(ctx)); err != nil {
		_ = nc.Close() // after a failed handshake the close error does not matter
		return nil, nil, fmt.Errorf("completing the TLS handshake: %w", err)
	}
	return t, sock, nil
}

// scheme returns the scheme of requests to the endpoint.
func (e *endpoint) scheme() string {
	if e.tls != nil {
		return "https"
	}
	return "http"
}

// dialFault distinguishes the end of the caller's context, and of its exchange's time, from a failure of
// the endpoint, which ejects the endpoint for a while.
func (e *endpoint) dialFault(ctx, bound context.Context, limit time.Time, err error) error {
	if ctx.Err() != nil {
		return fmt.Errorf("connecting to upstream: %w", wire.Cause(ctx))
	}
	late := bound.Err() != nil
	if !late || !expired(limit) {
		e.failures.Add(1)
		e.health.failed(e.now(), err)
	}
	var timeout net.Error
	switch {
	case late:
		doing, _, _ := strings.Cut(err.Error(), ":")
		return &Error{Timeout, e.label, &noConnection{doing, err}}
	case errors.As(err, &timeout) && timeout.Timeout(): // the system gave up
		return &Error{Timeout, e.label, err}
	}
	return &Error{Refused, e.label, err}
}
