package proxy

import (
	"errors"
	"io"
	"net/http"
	"os"
	"slices"
	"strings"
	"sync"
	"time"

	"sallyport/auth/httpsig"
	"sallyport/policy"
	"sallyport/proxy/message"
	"sallyport/proxy/upstream"
)

// requestIDField tells every caller the id under which the record is found.
const requestIDField = "x-request-id"

// forward sends the request to the upstream and its answer to the client. It needs a
// grant for the very call that it is about to send, which it reads from the head anew.
// A provisional one does while the body is unverified, because its end is held back.
func (x *exchange) forward(grant policy.Grant, provisional policy.Provisional) error {
	call := x.route.dialect.Read(x.head)
	if !grant.Permits(call) && !(x.content.unverified && provisional.Permits(call)) {
		return &refusal{reason: reasonInternal, cause: errNoGrant}
	}
	target, err := x.route.rewriting.target(x.head)
	if err != nil {
		return err
	}
	start := x.elapsed()
	answer, err := x.route.upstream.Send(x.life, x.request(target))
	x.record.UpstreamDuration = x.elapsed() - start
	x.record.BytesIn = x.content.counted.n.Load()
	if err != nil {
		var fault *upstream.Error
		if errors.As(err, &fault) {
			x.record.Upstream = fault.Endpoint
		}
		return x.blame(err)
	}
	defer func() {
		answer.Close()
		x.record.BytesIn = x.content.counted.n.Load()
		x.record.UpstreamDuration = x.elapsed() - start
	}()
	x.record.Upstream = answer.Endpoint
	x.record.Status = answer.Head.Status
	if err := x.verifyAnswer(answer); err != nil {
		return err
	}
	if err := x.early(&answer.Head); err != nil {
		return err
	}
	if answer.Head.ContentLength < 0 || answer.Head.Status == http.StatusSwitchingProtocols {
		defer x.endWithCredential()()
	}
	if answer.Head.Status == http.StatusSwitchingProtocols {
		return x.tunnel(answer)
	}
	if x.tunnels() && answer.Head.Status < 300 {
		return &refusal{reason: reasonGarbage, cause: errNoSwitch} // it would say that there is a tunnel
	}
	return x.blame(x.relay(answer))
}

// endWithCredential cancels what may go on for long when the credential expires:
// long streams do not keep rights for ever. The function that it returns calls
// that off.
func (x *exchange) endWithCredential() (stop func()) {
	if x.caller.Expires.IsZero() {
		return func() {}
	}
	life := x.life // it outlives the exchange
	t := time.AfterFunc(x.caller.Expires.Sub(x.g.now()), func() { life.End(errExpired) })
	return func() { t.Stop() }
}

// request is what the upstream gets.
func (x *exchange) request(target string) *upstream.Request {
	r := &x.ask
	*r = upstream.Request{
		Into:     &x.reply,
		Method:   x.head.Method,
		Target:   target,
		Host:     x.head.Authority,
		Fields:   x.outgoing(),
		Body:     x.content.Body,
		Length:   x.content.length,
		Expect:   x.head.Expect,
		Timeouts: x.route.timeouts.upstream(),
		Inform:   x.bound.inform,
	}
	if r.Length < 0 || r.Length > blockBytes {
		r.Trailers, r.Interrupt = x.bound.trailers, x.bound.interrupt
	}
	if x.route.websocket && x.head.Upgrade == "websocket" {
		r.Upgrade = "websocket"
	}
	r.Sign = x.sealRequest(r)
	return r
}

// bound are the methods of an exchange that upstreams call, made once for all requests
// that it serves.
type bound struct {
	inform    func(*message.Response) error
	trailers  func(message.Fields) message.Fields
	interrupt func()
}

func (x *exchange) bind() bound {
	return bound{
		inform:   x.inform,
		trailers: x.trailers,
		interrupt: func() {
			// The upstream answered and wants no more. The client has not been told to
			// stop: the engine skips what is left, or closes where that is too much.
			_ = x.stream.SetReadDeadline(longAgo)
		},
	}
}

// endsHere says whether a field speaks between client and gateway alone. Where
// signatures are neither taken nor made here they are others' business.
func (x *exchange) endsHere(name string) bool {
	switch name {
	case "signature", "signature-input":
		return x.signaturesEndHere()
	case "accept-signature":
		return x.route.upstreamLeg.key != nil || x.signing.key != nil
	}
	return false
}

func (x *exchange) signaturesEndHere() bool {
	return x.route.upstreamLeg.key != nil || x.route.chain.Signs() && !x.route.integrity.forwardSignature
}

// inform sends an interim response on.
func (x *exchange) inform(m *message.Response) error {
	x.disown(&m.Fields)
	return x.stream.Inform(m)
}

// disown removes the fields of an answer that only the gateway may write, and what
// the upstream told of itself.
func (x *exchange) disown(fields *message.Fields) {
	signs := x.signing.key != nil || x.signaturesEndHere()
	fields.DelFunc(func(f message.Field) bool {
		switch f.Name {
		case "server", "x-powered-by":
			return !x.route.keepServer
		case "signature", "signature-input":
			return signs
		}
		return strings.HasPrefix(f.Name, "x-sallyport-")
	})
}

// trailers are those of the client's that go on.
func (x *exchange) trailers(fields message.Fields) message.Fields {
	kept := x.s.guard.trailers(fields)
	kept.DelFunc(func(f message.Field) bool { return x.route.toUpstream.drops(f.Name) })
	return kept
}

// longAgo is a deadline that has passed.
var longAgo = time.Unix(1, 0)

// relay sends the upstream's answer to the client as it arrives, or, where it is
// signed as a whole, once all of it is there.
func (x *exchange) relay(answer *upstream.Response) error {
	h := &answer.Head
	x.relocate(h, answer.Host)
	x.dress(h)
	hasBody := message.MayHaveBody(x.head.Method, h.Status)
	form := x.formOf(h)
	if hasBody && x.holdsAnswer(h) && (form == formHeader || x.signing.digest || x.route.upstreamLeg.verifies()) {
		return x.relayHeld(answer, form)
	}
	if form == formTrailer || form == formInline {
		h.ContentLength = -1
		h.Fields.Del("content-digest")
	}
	streams := hasBody && h.ContentLength < 0
	length := h.ContentLength
	var compressed *compressor
	if form == formNone {
		compressed = x.compress(h)
	}
	if compressed != nil {
		defer func() {
			x.record.BytesOut = compressed.sent
			compressed.release()
		}()
	}
	if err := x.sealHead(h, form); err != nil {
		return &refusal{reason: reasonGarbage, cause: err}
	}
	err := x.open(h, streams && x.head.Trailers)
	if err == nil && streams {
		err = x.announce(answer.Body)
	}
	if err != nil {
		return err
	}
	var tail *tailed
	switch {
	case compressed != nil:
		if err = x.pump(answer.Body, length, compressed); err == nil {
			if gerr := compressed.gzip.Close(); gerr != nil {
				err = errClientGone(gerr)
			}
		}
	case form == formTrailer || form == formInline:
		tail = &tailed{sink: x.stream, digester: httpsig.NewDigester()}
		err = x.pump(answer.Body, length, tail)
	case hasBody:
		err = x.pump(answer.Body, length, x.stream)
	}
	if err != nil {
		return err
	}
	var trailers message.Fields
	if streams && x.head.Trailers {
		trailers = x.trailersOf(answer)
	}
	return x.end(h, form, tail, trailers)
}

// open sends the head of an answer of the upstream's. From then on a fault can only
// cut the answer; x.sending bounds what follows.
func (x *exchange) open(h *message.Response, trailers bool) error {
	x.responded = true
	x.sending.idle, x.sending.stream, x.sending.clock, x.sending.writes = x.route.timeouts.idle, x.stream, x.g.clock, true
	if err := x.sending.extend(); err != nil {
		return errClientGone(err)
	}
	if err := x.stream.Respond(h, trailers); err != nil {
		return errClientGone(err)
	}
	return nil
}

// announce sends the head of a stream at once where no content has come with it: the
// client may wait for it before it sends what the server waits for.
func (x *exchange) announce(body message.Body) error {
	if _, ok := body.(message.Arrived); !ok || followed(body) {
		return nil
	}
	if err := x.stream.Flush(); err != nil {
		return errClientGone(err)
	}
	return nil
}

// trailersOf are the upstream's trailers that go on.
func (x *exchange) trailersOf(answer *upstream.Response) message.Fields {
	trailers := slices.Clone(answer.Body.Trailers())
	x.disown(&trailers)
	if x.signing.key != nil {
		trailers.Del("content-digest") // ours comes there
	}
	return trailers
}

// end ends the answer cleanly, with the signature over a stream.
func (x *exchange) end(h *message.Response, form signatureForm, tail *tailed, trailers message.Fields) error {
	x.noteCall(h.Fields, trailers)
	if tail != nil {
		if form == formInline && !tail.endsEvent() {
			return &refusal{reason: reasonGarbage, cause: errMidEvent}
		}
		signed, err := x.seal(tail, h, trailers)
		if err != nil {
			return &refusal{reason: reasonGarbage, cause: err}
		}
		if form == formTrailer {
			trailers = signed
		} else if _, err := x.stream.Write([]byte(eventTail(signed))); err != nil {
			return errClientGone(err)
		}
	}
	if err := x.stream.Finish(trailers); err != nil {
		return errClientGone(err)
	}
	return nil
}

// dress puts the gateway's own fields on an answer.
func (x *exchange) dress(h *message.Response) {
	r := x.route
	x.disown(&h.Fields)
	x.receipt(h)
	r.toClient.apply(&h.Fields)
	for _, f := range r.security {
		if !h.Fields.Has(f.Name) {
			h.Fields = append(h.Fields, f)
		}
	}
	h.Fields.Set(requestIDField, x.record.RequestID)
	if r.cors != nil {
		r.cors.mark(&h.Fields, x.head.Fields)
	}
}

// sink is where content goes: the stream, or a compressor before it.
type sink interface {
	io.Writer
	Flush() error
}

// pump copies the content, of which left bytes are to come, negative if that is
// unknown. What arrives is sent on at once: an event of a stream
// must not wait for the next.
func (x *exchange) pump(body message.Body, left int64, to sink) error {
	buf := buffers.Get().(*[]byte)
	defer buffers.Put(buf)
	for {
		n, err := body.Read(*buf)
		if n > 0 {
			if werr := x.sending.extend(); werr != nil {
				return errClientGone(werr)
			}
			if _, werr := to.Write((*buf)[:n]); werr != nil {
				return errClientGone(werr)
			}
			x.record.BytesOut += int64(n)
			if x.grpc {
				// A caller that only listens is not idle.
				_ = x.content.counted.wait.extend()
			}
			if left -= int64(n); left != 0 && err == nil && !followed(body) {
				if werr := to.Flush(); werr != nil {
					return errClientGone(werr)
				}
			}
		}
		if err == io.EOF {
			return nil
		}
		if err != nil {
			return err
		}
		if left < 0 && x.life.Err() != nil {
			return x.life.Cause()
		}
	}
}

// followed says whether more of a body, or its end, can be read without waiting: what
// was read before it may go out with it.
func followed(body message.Body) bool {
	came, ok := body.(message.Arrived)
	if !ok {
		return false
	}
	n, whole := came.Arrived()
	return n > 0 || whole
}

// buffers are those of pump and tunnel; a pool, so that idle streams of the past
// cost nothing.
var buffers = sync.Pool{New: func() any { b := make([]byte, 32<<10); return &b }}

// errClientGone marks an error in writing to the client as its departure.
func errClientGone(err error) error { return &refusal{reason: reasonClientGone, cause: err} }

// blame finds out whose fault an error is: the client's that left or sent too
// much, the credential's that ended, or the upstream's.
func (x *exchange) blame(err error) error {
	if err == nil {
		return nil
	}
	return x.blamed(err)
}

func (x *exchange) blamed(err error) error {
	var own *refusal
	switch {
	case errors.As(err, &own):
		return err
	case x.life.Cause() == errExpired:
		return &refusal{reason: reasonExpired, cause: errExpired}
	case errors.Is(x.life.Cause(), message.ErrFraming): // over HTTP/2 that ends the request at once
		return &refusal{reason: reasonBadBody, cause: x.life.Cause()}
	case x.life.Err() != nil:
		return &refusal{reason: reasonClientGone, cause: err}
	}
	return err
}

// timedOut says whether a read or write ran into its deadline.
func timedOut(err error) bool { return errors.Is(err, os.ErrDeadlineExceeded) }
