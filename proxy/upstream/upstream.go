// Package upstream answers which server gets a request, and brings back its
// answer: endpoints, their pools of connections, and what is done when one fails.
//
// A request is sent again in two cases only. Its method is idempotent, its
// content is at hand in full, and it went out on a connection that had served
// before and broke without a byte of an answer; most likely the server had closed
// it. Or the server says itself, over HTTP/2, that it has not looked at the request
// and will not (REFUSED_STREAM, or GOAWAY with an earlier stream). In neither case is it
// sent again where the server ended the connection because it was asked for too much
// (ENHANCE_YOUR_CALM), or where two connections have ended under it: the request may be
// why, and many callers share the next connection. Else a POST is
// never sent twice; that connections are looked at before they are used again makes
// it rare that this matters. A connect that fails has sent nothing, so the next
// endpoint is tried with any request.
package upstream

import (
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"sync/atomic"
	"time"

	"sallyport/proxy/message"
	"sallyport/proxy/wire"
)

// maxWhole is up to which length content is read before it is sent, so that head
// and content leave in one write and can be sent again.
const maxWhole = 64 << 10

// maxEndpoints of an upstream.
const maxEndpoints = 64

// Upstream is a set of equal servers. It is safe for concurrent use.
type Upstream struct {
	pools      *Pools
	name       string
	digest     string // of its configuration and of what that names
	trust      string // of how servers' certificates are verified
	refs       int    // calls of Open that no Close has given back; the mutex of pools guards it
	rest, grpc []*endpoint
	turn       atomic.Uint32 // where the search for an endpoint starts
}

var (
	errAllEjected = errors.New("every endpoint has failed lately")
	errFull       = errors.New("max_connections are in use")
	errNoREST     = errors.New("the upstream has endpoints for gRPC only")
	errNoGRPC     = errors.New("the upstream has no endpoints for gRPC")
	errNoBody     = errors.New("request body announced and not given")
)

// Name is the name that Open was given.
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
	defer u.pools.bufs.Put(lent)
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
func (u *Upstream) prepare(r *Request, ask *wire.Request) (*wire.Buffer, error) {
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
		ask.Interrupt = r.Interrupt
		return nil, nil
	}
	lent := u.pools.bufs.Get(int(length) + 1)
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
		return lent, fmt.Errorf("reading request body: %w", wire.ErrHalfBody)
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
		if best == nil || best.health.fit(best.now()) {
			return best, bit
		}
	}
}
