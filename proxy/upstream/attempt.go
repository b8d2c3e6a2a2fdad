package upstream

import (
	"context"
	"errors"
	"fmt"
	"time"

	"sallyport/proxy/message"
	"sallyport/proxy/wire"
)

// connections is the connection pool of one endpoint: [exclusive] for HTTP/1.1, [shared] for
// HTTP/2. It is safe for concurrent use.
type connections interface {
	// take returns a connection with capacity for one exchange. If none is free, it connects or
	// waits for at most connect, where 0 means no limit, and until limit, unless that is zero. limit
	// is the exchange's: if it passes, the endpoint has not failed. used reports that the connection
	// served earlier requests. again says that a used connection has just failed this request.
	//
	// Its error is an [*Error], or the cause of ctx's end.
	take(ctx context.Context, connect time.Duration, limit time.Time, again bool) (c connection, used bool, err error)
	// idle returns the number of connections without requests.
	idle() int
	// close closes idle connections now, and the others when their last request ends. take still
	// works afterwards, but its connections are not kept.
	close()
}

// connection is the capacity for one exchange on a connection.
type connection interface {
	wire.Client
	// leave returns the capacity after the exchange failed or its response was closed. Its
	// arguments are the result of the response's Close, and its KeepAlive.
	leave(reusable bool, keepAlive time.Duration)
	// giveUp returns unused capacity.
	giveUp()
}

// reapEvery is the interval of the search for expired idle connections.
func reapEvery(idleTime time.Duration) time.Duration {
	return min(max(idleTime/4, 100*time.Millisecond), 15*time.Second)
}

// maxAttempts is how often a request may be sent to one endpoint. HTTP/1.1 needs at most two,
// because the second connection is new. Over HTTP/2 a server may refuse each stream unprocessed.
const maxAttempts = 3

// maxEnds is how many connections may end under one request, over all endpoints, before it is not
// sent again. The request may be the cause, and other callers share the next connection.
const maxEnds = 2

// try sends the request to one endpoint. sent reports that the server may have seen it.
func (e *endpoint) try(ctx context.Context, r *Request, x *Response) (sent bool, err error) {
	if err := e.admit(ctx, r.Timeouts.Connect, x.out.Limit); err != nil {
		if ctx.Err() != nil {
			return false, fmt.Errorf("waiting for upstream: %w", wire.Cause(ctx))
		}
		if expired(x.out.Limit) {
			return false, e.unconnected(&Error{Timeout, e.label, &noConnection{"waiting for one that is free", err}}, r, x)
		}
		return false, &Error{NoneHealthy, e.label, err}
	}
	x.timeouts = r.Timeouts
	e.inFlight.Add(1)
	if x.out.Host = e.host; e.host == "" {
		x.out.Host = r.Host
	}
	if x.out.Trailers = nil; e.trailers && !r.grpc() {
		x.out.Trailers = r.Trailers
	}
	for attempt := 1; ; attempt++ {
		c, used, err := e.conns.take(ctx, r.Timeouts.Connect, x.out.Limit, attempt > 1)
		if err != nil {
			e.leave()
			return false, e.unconnected(err, r, x)
		}
		if used {
			e.reuses.Add(1)
		}
		if err := e.sign(r, x); err != nil {
			c.giveUp()
			e.leave()
			return true, err
		}
		err = c.Exchange(ctx, &x.out, &x.answer)
		if err == nil {
			e.health.recovered()
			if !e.answered.Load() {
				e.answered.Store(true)
			}
			x.begin(e, c)
			return true, nil
		}
		c.leave(faultOf(err) == wire.FaultRequest, 0)
		if endsConnection(&x.answer, err) {
			x.ends++
		}
		again := x.answer.Unprocessed || used && !x.answer.Answered && repeatable(&x.out, err)
		if !again || attempt == maxAttempts || x.ends == maxEnds || ctx.Err() != nil {
			e.leave()
			return !x.answer.Unprocessed || x.ends == maxEnds, e.blame(err, &r.Timeouts, false)
		}
	}
}

// unconnected adds to a [*noConnection] how long the request could wait, and the setting that limits
// the wait. It returns other errors unchanged.
func (e *endpoint) unconnected(err error, r *Request, x *Response) error {
	var unconnected *noConnection
	if !errors.As(err, &unconnected) {
		return err
	}
	late := r.Timeouts.waited(wire.LateConnect.Or(x.out.Limit))
	return &Error{Timeout, e.label, &described{late.Error() + ", while " + unconnected.doing, err}}
}

// sign sets the fields of the next attempt: signed for this endpoint, and with the credential of the
// moment.
func (e *endpoint) sign(r *Request, x *Response) (err error) {
	x.out.Fields = r.Fields
	if r.Sign != nil {
		if x.out.Fields, err = r.Sign(e.scheme(), x.out.Host); err != nil {
			return err
		}
	}
	if r.Credential != nil {
		x.out.Fields, err = r.Credential(x.out.Fields)
	}
	return err
}

// endsConnection reports whether an exchange failed because its connection ended, other than by a
// GOAWAY without an error.
func endsConnection(x *wire.Response, err error) bool {
	var reset *wire.Reset
	if errors.As(err, &reset) {
		return reset.Connection && reset.Code != 0
	}
	return !x.Unprocessed && faultOf(err) == wire.FaultBroken
}

// faultOf returns the fault of a failed exchange; 0 if the error does not say.
func faultOf(err error) wire.Fault {
	var fault *wire.Error
	if errors.As(err, &fault) {
		return fault.Fault
	}
	return 0
}

// repeatable reports whether a request that failed before any byte of the answer may be sent
// again: the connection broke, but not because too much was asked of the server, all content is in
// memory, and the method is idempotent.
func repeatable(out *wire.Request, err error) bool {
	return faultOf(err) == wire.FaultBroken && !errors.Is(err, wire.ErrCalm) && out.Body == nil && message.Idempotent(out.Method)
}

// blame turns faults of the upstream into an [*Error] and returns other errors unchanged. answering
// is true once the head of the answer has arrived.
func (e *endpoint) blame(err error, t *Timeouts, answering bool) error {
	var fault *wire.Error
	if !errors.As(err, &fault) {
		return &Error{Reset, e.label, e.ended(err, answering)}
	}
	switch fault.Fault {
	case wire.FaultMalformed:
		return &Error{Garbage, e.label, fault.Err}
	case wire.FaultTimeout:
		return &Error{Timeout, e.label, t.waited(fault.Err)}
	case wire.FaultBroken:
		return &Error{Reset, e.label, e.ended(fault.Err, answering)}
	}
	return fault.Err
}
