// Package upstream answers which server gets a request, and brings back its
// answer: endpoints, their pools of connections, and what is done when one fails.
//
// A request is sent a second time in two cases only. Its method is idempotent, its
// content is at hand in full, and it went out on a connection that had served
// before and broke without a byte of an answer; most likely the server had closed
// it. Or the server says itself, over HTTP/2, that it has not looked at the request
// and will not (REFUSED_STREAM, or GOAWAY with an earlier stream). Else a POST is
// never sent twice; that connections are looked at before they are used again makes
// it rare that this matters. A connect that fails has sent nothing, so the next
// endpoint is tried with any request.
package upstream

import (
	"context"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"net"
	"slices"
	"sync/atomic"
	"time"

	"sallyport/proxy/message"
	"sallyport/proxy/setting"
	"sallyport/proxy/wire"
	"sallyport/proxy/wire/h1"
	"sallyport/proxy/wire/h2"
)

// maxWhole is up to which length content is read before it is sent, so that head
// and content leave in one write and can be sent again.
const maxWhole = 64 << 10

// maxEndpoints of an upstream.
const maxEndpoints = 64

// Options are what the process gives to its upstreams.
type Options struct {
	// Now is the clock for idle and ejected times; time.Now if nil.
	Now func() time.Time
	// Clock, if there is one, is asked instead of the system for deadlines and for how
	// long connections were idle.
	Clock *wire.Clock
	// Dial connects; a net.Dialer's DialContext if nil.
	Dial func(ctx context.Context, network, addr string) (net.Conn, error)
	// Localhost is for servers that refuse any other name while they are bound to
	// loopback: where Config.Host is empty, they see localhost with the endpoint's port.
	Localhost bool
}

// Upstream is a set of equal servers. It is safe for concurrent use.
type Upstream struct {
	name       string
	rest, grpc []*endpoint
	bufs       h1.Buffers
	turn       atomic.Uint32 // where the search for an endpoint starts
}

var (
	errAllEjected = errors.New("every endpoint has failed lately")
	errFull       = errors.New("max_connections are in use")
	errNoREST     = errors.New("the upstream has endpoints for gRPC only")
	errNoGRPC     = errors.New("the upstream has no endpoints for gRPC")
	errHalfBody   = errors.New("request body has not the announced length")
	errNoBody     = errors.New("request body announced and not given")
)

// New makes an upstream. It reads the CA file and does nothing on the network.
func New(name string, c Config, o Options) (*Upstream, error) {
	var faults setting.Faults
	c.Check(name, &faults)
	if err := faults.Err(); err != nil {
		return nil, err
	}
	roots, err := c.roots()
	if err != nil {
		return nil, fmt.Errorf("upstream %s: %w", name, err)
	}
	if o.Now == nil {
		o.Now = time.Now
	}
	if o.Dial == nil {
		o.Dial = (&net.Dialer{}).DialContext
	}
	u := &Upstream{name: name}
	u.rest = u.newEndpoints(c.Rest, roots, &c, &o)
	u.grpc = u.newEndpoints(c.GRPC, roots, &c, &o)
	return u, nil
}

// newEndpoints makes the endpoints of a list. One that is in the other too is the same.
func (u *Upstream) newEndpoints(urls []setting.URL, roots *x509.CertPool, c *Config, o *Options) (all []*endpoint) {
	for _, at := range urls {
		i := slices.IndexFunc(u.rest, func(e *endpoint) bool { return e.label == at.String() })
		if i >= 0 {
			all = append(all, u.rest[i])
			continue
		}
		e := u.newEndpoint(at.URL, c, o)
		switch at.Scheme {
		case "https":
			e.tls = c.tlsConfig(at.Hostname(), "http/1.1", roots)
		case "h2":
			e.tls = c.tlsConfig(at.Hostname(), "h2", roots)
		}
		e.spared = len(urls) > 1
		all = append(all, e)
	}
	return all
}

// Name is the one that New was given.
func (u *Upstream) Name() string { return u.name }

// all are the endpoints of both kinds, in the order of the configuration.
func (u *Upstream) all() []*endpoint {
	all := slices.Clone(u.rest)
	for _, e := range u.grpc {
		if !slices.Contains(u.rest, e) {
			all = append(all, e)
		}
	}
	return all
}

// Close closes the idle connections; those in use close when their response does.
func (u *Upstream) Close() {
	for _, e := range u.all() {
		if e.shared != nil {
			e.shared.close()
		} else {
			e.pool.close()
		}
	}
}

// Send sends one request and returns when the head of the final response is in.
// The response must be closed. The error is an [*Error] where the upstream is at
// fault.
//
// Content of at most 64 KiB and known length, or that has come already, is read
// first, in the caller's goroutine and before a connection is taken. Longer content, or content of
// unknown length, is read and sent while the answer is read: an early answer
// comes back at once, and the upload goes on, unless it is a refusal, until the
// response is at its end or closed. The end of ctx ends all of it.
func (u *Upstream) Send(ctx context.Context, r *Request) (*Response, error) {
	if r.Length != 0 && r.Body == nil {
		return nil, errNoBody
	}
	if ctx.Err() != nil {
		return nil, fmt.Errorf("sending request: %w", wire.Cause(ctx))
	}
	endpoints := u.rest
	if r.grpc() {
		endpoints = u.grpc
	}
	if len(endpoints) == 0 {
		if r.grpc() {
			return nil, &Error{Unserved, "", errNoGRPC}
		}
		return nil, &Error{Unserved, "", errNoREST}
	}
	x := r.Into
	if x == nil {
		x = new(Response)
	}
	x.Forget()
	if r.Timeouts.Total > 0 {
		x.ask.Limit = time.Now().Add(r.Timeouts.Total)
	}
	lent, err := u.prepare(r, &x.ask)
	defer u.bufs.Put(lent)
	if err != nil {
		return nil, err
	}
	var last error
	for tried := uint64(0); ; {
		e, bit := u.pick(endpoints, tried)
		if e == nil {
			if last == nil {
				last = &Error{NoneHealthy, "", errAllEjected}
			}
			return nil, last
		}
		tried |= bit
		sent, err := e.try(ctx, r, x)
		if err == nil {
			return x, nil
		}
		if last = err; sent || ctx.Err() != nil {
			return nil, err
		}
	}
}

// prepare makes what is written of what is asked; small content is read whole,
// into a buffer that is to be given back.
func (u *Upstream) prepare(r *Request, ask *h1.Request) (*h1.Buffer, error) {
	ask.Method, ask.Target, ask.Host, ask.Fields = r.Method, r.Target, r.Host, r.Fields
	ask.Upgrade, ask.Inform = r.Upgrade, r.Inform
	ask.Head, ask.Idle = r.Timeouts.Head, r.Timeouts.Idle
	length := r.Length
	if came, ok := r.Body.(message.Arrived); ok && length < 0 {
		if n, whole := came.Arrived(); whole && n <= maxWhole {
			length = int64(n)
		}
	}
	switch {
	case r.Length == 0:
		return nil, nil
	case length < 0 || length > maxWhole:
		ask.Body, ask.Length = r.Body, r.Length
		ask.Interrupt, ask.Trailers = r.Interrupt, r.Trailers
		return nil, nil
	}
	lent := u.bufs.Get(int(length) + 1)
	buf := lent.B[:length+1] // a byte more, to see the end
	n := 0
	for n < len(buf) {
		m, err := r.Body.Read(buf[n:])
		n += m
		if err == io.EOF {
			break
		}
		if err != nil {
			return lent, fmt.Errorf("reading request body: %w", err)
		}
	}
	if int64(n) != length {
		return lent, fmt.Errorf("reading request body: %w", errHalfBody)
	}
	ask.Content = buf[:n]
	return lent, nil
}

// pick finds the fit endpoint, of those not yet tried, with the fewest requests in
// flight, and its bit in tried. A single endpoint is always fit: there is no other to spare it for.
func (u *Upstream) pick(of []*endpoint, tried uint64) (best *endpoint, bit uint64) {
	if len(of) == 1 {
		if tried != 0 {
			return nil, 0
		}
		return of[0], 1
	}
	start := int(u.turn.Add(1))
	for passed := tried; ; passed |= bit {
		best = nil
		for i := range of {
			at := (start + i) % len(of)
			e := of[at]
			if passed>>at&1 == 0 && (best == nil || e.inFlight.Load() < best.inFlight.Load()) {
				best, bit = e, 1<<at
			}
		}
		if best == nil || best.fit() {
			return best, bit
		}
	}
}

// try sends the request to one endpoint. sent says that it may have arrived there.
func (e *endpoint) try(ctx context.Context, r *Request, x *Response) (sent bool, err error) {
	if err := e.admit(ctx, r.Timeouts.Connect); err != nil {
		if ctx.Err() != nil {
			return false, fmt.Errorf("waiting for upstream: %w", wire.Cause(ctx))
		}
		return false, &Error{NoneHealthy, e.label, err}
	}
	e.inFlight.Add(1)
	if x.ask.Host = e.host; e.host == "" {
		x.ask.Host = r.Host
	}
	if e.shared != nil {
		return e.tryShared(ctx, r, x)
	}
	if err := e.sign(r, x); err != nil {
		e.leave()
		return true, err
	}
	c := e.pool.take()
	if c != nil {
		e.reuses.Add(1)
		err = c.Exchange(ctx, &x.ask, &x.x)
		if err == nil {
			e.recovered()
			x.begin(e, c)
			return true, nil
		}
		if !again(&x.ask, &x.x, err) {
			e.leave()
			return true, e.blame(err)
		}
		if err := e.sign(r, x); err != nil {
			e.leave()
			return true, err
		}
	}
	if c, err = e.dial(ctx, connectTime(&r.Timeouts, x.ask.Limit)); err != nil {
		e.leave()
		return false, err
	}
	if err = c.Exchange(ctx, &x.ask, &x.x); err != nil {
		e.leave()
		return true, e.blame(err)
	}
	x.begin(e, c)
	return true, nil
}

// maxAttempts is how often a request is sent to a server that says each time that it
// has not looked at it.
const maxAttempts = 3

// tryShared sends the request on a connection that others use too.
func (e *endpoint) tryShared(ctx context.Context, r *Request, x *Response) (sent bool, err error) {
	for attempt := 1; ; attempt++ {
		c, fresh, err := e.shared.take(ctx, connectTime(&r.Timeouts, x.ask.Limit), e)
		if err != nil {
			e.leave()
			return false, err
		}
		if !fresh {
			e.reuses.Add(1)
		}
		if err := e.sign(r, x); err != nil {
			e.shared.giveUp(c)
			e.leave()
			return true, err
		}
		answer := &h2.Response{}
		if err = c.Exchange(ctx, &x.ask, answer); err == nil {
			e.recovered()
			x.beginShared(e, c, answer)
			return true, nil
		}
		e.shared.leave(c)
		repeat := answer.Unprocessed || !fresh && !answer.Answered && repeatable(&x.ask, err)
		if !repeat || attempt == maxAttempts || ctx.Err() != nil {
			e.leave()
			return !answer.Unprocessed, e.blame(err)
		}
	}
}

// sign has the next attempt signed for the endpoint.
func (e *endpoint) sign(r *Request, x *Response) (err error) {
	if r.Sign == nil {
		return nil
	}
	x.ask.Fields, err = r.Sign(e.scheme(), x.ask.Host)
	return err
}

// again says whether a request that failed on a connection used before may be
// sent once more.
func again(ask *h1.Request, x *h1.Response, err error) bool {
	return !x.Answered && repeatable(ask, err)
}

// repeatable says whether a request on a connection that broke may be sent again,
// provided that nobody has answered it.
func repeatable(ask *h1.Request, err error) bool {
	var fault *h1.Error
	return errors.As(err, &fault) && fault.Fault == h1.FaultBroken && ask.Body == nil && message.Idempotent(ask.Method)
}

// connectTime is how long a connect may take.
func connectTime(t *Timeouts, limit time.Time) time.Duration {
	if limit.IsZero() {
		return t.Connect
	}
	left := max(time.Until(limit), time.Nanosecond)
	if t.Connect > 0 {
		left = min(left, t.Connect)
	}
	return left
}

// blame tells the upstream's faults from the caller's own.
func (e *endpoint) blame(err error) error {
	var fault *h1.Error
	if !errors.As(err, &fault) {
		return &Error{Reset, e.label, err}
	}
	switch fault.Fault {
	case h1.FaultMalformed:
		return &Error{Garbage, e.label, fault.Err}
	case h1.FaultTimeout:
		return &Error{Timeout, e.label, fault.Err}
	case h1.FaultBroken:
		return &Error{Reset, e.label, fault.Err}
	}
	return fault.Err
}

// EndpointStatus is the state of one endpoint, for metrics and the status page.
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

// Status is the state of each endpoint in the order of the configuration.
func (u *Upstream) Status() []EndpointStatus {
	endpoints := u.all()
	all := make([]EndpointStatus, len(endpoints))
	for i, e := range endpoints {
		all[i] = EndpointStatus{
			URL:      e.label,
			InFlight: int(e.inFlight.Load()),
			Idle:     e.idle(),
			Dials:    e.dials.Load(),
			Reuses:   e.reuses.Load(),
			Failures: e.faults.Load(),
		}
		if e.spared && e.ejected() {
			all[i].Ejected, all[i].EjectedTo = true, time.Unix(0, e.ejectedTo.Load())
		}
	}
	return all
}
