package upstream

import (
	"context"
	"errors"
	"fmt"
	"time"

	"sallyport/proxy/message"
	"sallyport/proxy/wire"
)

// connections are those of one endpoint: [exclusive] over HTTP/1.1, [shared] over
// HTTP/2. They are safe for concurrent use.
type connections interface {
	// take returns a connection with room for one exchange, waiting for it or connecting
	// for at most wait; 0 is no bound. used says that the connection has served others
	// before. again says that one such has failed the request just now.
	//
	// Its error is an [*Error], or the end of ctx.
	take(ctx context.Context, wait time.Duration, again bool) (c connection, used bool, err error)
	// idle counts the connections that no request uses.
	idle() int
	// close closes the idle connections now, and each of the others when no request uses it
	// any more. take works afterwards; what it opens is not kept.
	close()
}

// connection is room for one exchange on a connection.
type connection interface {
	wire.Client
	// leave gives the room back when the exchange has failed or its response was closed.
	// It takes what Close of the response has returned, and its KeepAlive.
	leave(reusable bool, keepAlive time.Duration)
	// giveUp gives back room in which no exchange was begun.
	giveUp()
}

// reapEvery is how often connections are looked at that are kept idle for a time.
func reapEvery(idleTime time.Duration) time.Duration {
	return min(max(idleTime/4, 100*time.Millisecond), 15*time.Second)
}

// maxAttempts bounds how often a request is sent to an endpoint. Over HTTP/1.1 it is
// never sent more than twice, because the second connection is new; over HTTP/2 a server
// may say each time that it has not processed the request.
const maxAttempts = 3

// maxEnds is how many connections may end under a request, of all endpoints together,
// before it is not sent again: it may be why, and others share the next one.
const maxEnds = 2

// try sends the request to one endpoint. sent says that the server may have seen it.
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
	if x.ask.Trailers = nil; e.trailers && !r.grpc() {
		x.ask.Trailers = r.Trailers
	}
	for attempt := 1; ; attempt++ {
		c, used, err := e.conns.take(ctx, connectTime(&r.Timeouts, x.ask.Limit), attempt > 1)
		if err != nil {
			e.leave()
			return false, err
		}
		if used {
			e.reuses.Add(1)
		}
		if err := e.sign(r, x); err != nil {
			c.giveUp()
			e.leave()
			return true, err
		}
		err = c.Exchange(ctx, &x.ask, &x.answer)
		if err == nil {
			e.health.recovered()
			x.begin(e, c)
			return true, nil
		}
		c.leave(faultOf(err) == wire.FaultRequest, 0)
		if endsConnection(&x.answer, err) {
			x.ends++
		}
		again := x.answer.Unprocessed || used && !x.answer.Answered && repeatable(&x.ask, err)
		if !again || attempt == maxAttempts || x.ends == maxEnds || ctx.Err() != nil {
			e.leave()
			return !x.answer.Unprocessed || x.ends == maxEnds, e.blame(err)
		}
	}
}

// sign asks for the fields of the next attempt, signed for the endpoint.
func (e *endpoint) sign(r *Request, x *Response) (err error) {
	if r.Sign == nil {
		return nil
	}
	x.ask.Fields, err = r.Sign(e.scheme(), x.ask.Host)
	return err
}

// endsConnection says whether an exchange failed because its connection ended, other than
// by a GOAWAY without an error.
func endsConnection(x *wire.Response, err error) bool {
	var reset *wire.Reset
	if errors.As(err, &reset) {
		return reset.Connection && reset.Code != 0
	}
	return !x.Unprocessed && faultOf(err) == wire.FaultBroken
}

// faultOf says whose fault a failed exchange is; 0 where the error does not tell.
func faultOf(err error) wire.Fault {
	var fault *wire.Error
	if errors.As(err, &fault) {
		return fault.Fault
	}
	return 0
}

// repeatable says whether a request that failed without a byte of an answer may be sent
// again: its connection broke, though not because too much was asked of the server, its
// content is at hand in full, and its method is idempotent.
func repeatable(ask *wire.Request, err error) bool {
	return faultOf(err) == wire.FaultBroken && !errors.Is(err, wire.ErrCalm) && ask.Body == nil && message.Idempotent(ask.Method)
}

// connectTime is how long a connect may take; 0 is no bound.
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

// blame makes an [*Error] of the upstream's faults and leaves others as they are.
func (e *endpoint) blame(err error) error {
	var fault *wire.Error
	if !errors.As(err, &fault) {
		return &Error{Reset, e.label, err}
	}
	switch fault.Fault {
	case wire.FaultMalformed:
		return &Error{Garbage, e.label, fault.Err}
	case wire.FaultTimeout:
		return &Error{Timeout, e.label, fault.Err}
	case wire.FaultBroken:
		return &Error{Reset, e.label, fault.Err}
	}
	return fault.Err
}
