// Package upstream sends requests to model servers and returns their answers. It chooses the
// endpoint, pools connections and handles failures.
//
// A request is sent again in two cases only:
//
//   - It is idempotent, its content is in memory, and a reused connection broke before any byte of
//     an answer. Most likely the server had closed an idle connection.
//   - An HTTP/2 server says that it has not processed the request (REFUSED_STREAM, or GOAWAY with
//     an earlier stream).
//
// In neither case is it sent again if the server ended the connection because too much was asked of
// it (ENHANCE_YOUR_CALM), or if two connections have ended under the request. It may be the cause,
// and many callers share the next connection.
//
// A POST is never sent twice otherwise. Connections are checked before reuse, so this rarely
// fails a request. A failed connect has sent nothing, so any request tries the next endpoint.
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

// maxWhole is the largest content, in bytes, that is buffered before sending. Head and
// content then leave in one write and can be sent again.
const maxWhole = 64 << 10

// maxEndpoints is the maximum number of endpoints in a list.
const maxEndpoints = 64

// Upstream is a set of equal servers. It is safe for concurrent use.
type Upstream struct {
	pools      *Pools
	name       string
	digest     string // of its configuration and the content of the files it names
	trust      string // digest of the verification settings
	refs       int    // calls of Open without Close; guarded by the mutex of pools
	rest, grpc []*endpoint
	turn       atomic.Uint32 // where the search for an endpoint starts
}

var (
	errAllEjected = errors.New("every endpoint is ejected after failed connects")
	errNoStream   = errors.New("the server allows no request on a new connection")
	errNoREST     = errors.New("the upstream has endpoints for gRPC only")
	errNoGRPC     = errors.New("the upstream has no endpoints for gRPC")
	errNoBody     = errors.New("the request has a length but no body")
)

// Name returns the name given to Open.
func (u *Upstream) Name() string { return u.name }

// all returns the endpoints of both lists, in the order of the configuration.
func (u *Upstream) all() []*endpoint {
	all := slices.Clone(u.rest)
	for _, e := range u.grpc {
		if !slices.Contains(u.rest, e) {
			all = append(all, e)
		}
	}
	return all
}

// Send sends one request and returns once the head of the final response has arrived. The
// response must be closed. The error is an [*Error] if the upstream is at fault.
//
// Content up to 64 KiB of known length, or that has already arrived, is read first, in the
// caller's goroutine and before a connection is taken. Other content is sent while the answer is
// read. An early answer is returned at once, and the upload continues until the response ends or
// is closed; an early refusal stops it. The end of ctx ends everything.
func (u *Upstream) Send(ctx context.Context, r *Request) (*Response, error) {
	if r.Length != 0 && r.Body == nil {
		return nil, errNoBody
	}
	if ctx.Err() != nil {
		return nil, fmt.Errorf("sending request: %w", wire.Cause(ctx))
	}
	endpoints, grpc := u.rest, r.grpc()
	if grpc {
		endpoints = u.grpc
	}
	if len(endpoints) == 0 {
		if grpc {
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
		x.out.Limit = time.Now().Add(r.Timeouts.Total)
	}
	lent, err := u.prepare(r, &x.out)
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

// prepare translates r into out. Small content is read into a buffer, which the caller must
// return to the pool.
func (u *Upstream) prepare(r *Request, out *wire.Request) (*wire.Buffer, error) {
	out.Method, out.Target, out.Host, out.Fields = r.Method, r.Target, r.Host, r.Fields
	out.Upgrade, out.Inform = r.Upgrade, r.Inform
	out.Head, out.Idle, out.Pause = r.Timeouts.Head, r.Timeouts.Idle, r.Timeouts.Pause
	length := r.Length
	if length < 0 {
		if n, whole := message.ArrivedOf(r.Body); whole && n <= maxWhole {
			length = int64(n)
		}
	}
	switch {
	case r.Length == 0:
		return nil, nil
	case length < 0 || length > maxWhole:
		out.Body, out.Length = r.Body, r.Length
		out.Interrupt = r.Interrupt
		return nil, nil
	}
	lent := u.pools.bufs.Get(int(length) + 1)
	buf := lent.B[:length+1] // one more byte, to detect the end
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
	out.Content = buf[:n]
	return lent, nil
}

// pick returns the fit endpoint with the fewest requests in flight among those not yet
// tried, and its bit in tried. A single endpoint is always fit: there is no alternative.
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
