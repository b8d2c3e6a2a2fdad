package exchange

import (
	"context"
	"errors"
	"fmt"
	"io"

	"sallyport/proxy/setting"
)

// A cause goes to the audit record, never to the client. It says which value was wrong, and which
// setting it exceeds. No cause contains a credential. [audit.Record] limits the length of causes.

// because returns a refusal with this reason and cause.
func because(reason, cause string) *refusal {
	return &refusal{reason: reason, cause: errors.New(cause)}
}

// over describes an exceeded size limit by its value and its setting: over 1MiB (limits.body).
func over(most int64, name string) string {
	return "over " + setting.Size(most).String() + " (" + name + ")"
}

// causeOf returns the cause of a refusal as it is recorded; "" for none.
func (x *exchange) causeOf(r *refusal) string {
	switch {
	case r.cause == nil:
		return ""
	case r.reason == reasonClientGone:
		return x.departure(r.cause)
	}
	return r.cause.Error()
}

// departure describes how a client left, or what it did not read in time.
func (x *exchange) departure(err error) string {
	when := "before the answer"
	switch {
	case x.responded:
		when = "within the answer"
	case errors.Is(err, io.ErrUnexpectedEOF):
		when = "within the request"
	}
	switch plain := setting.PlainError(err); {
	case timedOut(err) && x.route != nil && x.sending.stream != nil:
		return "the client took no content for " + setting.Duration(x.route.Timeouts.Idle).String() + " (timeouts.idle)"
	case timedOut(err):
		return fmt.Sprintf("the client did not take the answer within %s", answerTime)
	case errors.Is(err, io.EOF), errors.Is(err, io.ErrUnexpectedEOF), errors.Is(err, context.Canceled):
		return "the client closed the connection " + when
	default:
		return "the client left " + when + ": " + plain.Error()
	}
}
