package exchange

import (
	"errors"
	"strconv"
	"time"

	"sallyport/proxy/message"
	"sallyport/proxy/seal"
	"sallyport/proxy/wire"
)

// openCall is an answer to a gRPC call whose head has been sent, and whose status is still to come. The
// zero openCall is none.
type openCall struct {
	head *message.Response
	form seal.Form
	tail *seal.Tail // nil unless the signature comes at the end
}

// noteOpen notes that the head of an answer has been sent. Only an answer of gRPC can end with a status: a
// client takes another one for whole if it is not cut.
func (x *exchange) noteOpen(h *message.Response, form seal.Form, tail *seal.Tail) {
	if h.Status == 200 && message.IsGRPC(h.Fields.Get("content-type")) {
		x.open = openCall{h, form, tail}
	}
}

// cut ends an answer that has begun. A gRPC call gets the status of the refusal in its trailers, if it can
// still have one. The engine aborts every other answer.
func (x *exchange) cut(o outcome, r *refusal, err error) {
	var reset *wire.Reset
	byServer := errors.As(err, &reset) && !reset.Connection // it chose the code of the reset
	if x.open.head != nil && r.reason != reasonClientGone && !byServer && x.endCall(o, r) == nil {
		return
	}
	if s, ok := x.stream.(wire.Cutter); ok && reset != nil {
		s.CutAs(reset.Code)
	}
}

// endCall ends a call with the status of a refusal. The signature covers the status and the messages so
// far. A client that does not read gets no status, since it must not delay the end.
func (x *exchange) endCall(o outcome, r *refusal) (err error) {
	var trailers message.Fields
	addStatus(o, r, x.record.RequestID, &trailers)
	if x.open.tail != nil {
		if trailers, _, err = x.answer.SignTail(x.open.tail, x.open.form, x.open.head, trailers); err != nil {
			return err
		}
	}
	if err := x.stream.SetWriteDeadline(time.Now().Add(wire.Brief)); err != nil {
		return err
	}
	if err := x.finishAnswer(trailers); err != nil {
		return err
	}
	x.record.GRPC = strconv.Itoa(int(o.grpc))
	return nil
}
