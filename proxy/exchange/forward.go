package exchange

import (
	"errors"
	"net/http"
	"os"
	"strings"
	"time"

	"sallyport/auth/httpsig"
	"sallyport/proxy/message"
	"sallyport/proxy/seal"
	"sallyport/proxy/upstream"
)

// forward sends the request to the upstream and its answer to the client. It needs a
// grant for the very call that it is about to send, which it reads from the head anew.
// A provisional one does while the body is unverified, because its end is held back.
func (x *exchange) forward(v verdict) error {
	call := x.readCall()
	if !v.grant.Permits(call) && !(x.content.unverified() && v.provisional.Permits(call)) {
		return &refusal{reason: reasonInternal, cause: errNoGrant}
	}
	target, err := x.route.Rewriting.Target(x.head)
	if err != nil {
		return err
	}
	ask := x.request(target)
	if ask.Length < 0 || ask.Length > seal.BlockBytes {
		defer x.endWithCredential()() // an upload may go on for long
	}
	start := x.elapsed()
	answer, err := x.route.Upstream.Send(x.life, ask)
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
	if err := x.route.Leg.VerifyAnswer(answer, &x.sent, x.head, x.route.Integrity.ResponseBuffer); err != nil {
		return err
	}
	if err := x.checkEarly(&answer.Head); err != nil {
		return err
	}
	if answer.Head.ContentLength < 0 || answer.Head.Status == http.StatusSwitchingProtocols {
		defer x.endWithCredential()()
	}
	if answer.Head.Status == http.StatusSwitchingProtocols {
		return x.tunnel(answer)
	}
	if x.wantsTunnel() && answer.Head.Status < 300 {
		return &refusal{reason: reasonGarbage, cause: errNoSwitch} // it would say that there is a tunnel
	}
	return x.blame(x.relay(answer))
}

// endWithCredential cancels what may go on for long when the credential expires: long
// streams do not keep rights for ever. The function that it returns calls that off.
func (x *exchange) endWithCredential() (stop func()) {
	if x.caller.Expires.IsZero() {
		return func() {}
	}
	life := x.life // it outlives the exchange
	t := time.AfterFunc(x.caller.Expires.Sub(x.server.now()), func() { life.End(errExpired) })
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
		Timeouts: x.route.Timeouts,
		Inform:   x.callbacks.inform,
	}
	if r.Length < 0 || r.Length > seal.BlockBytes {
		r.Trailers, r.Interrupt = x.callbacks.trailers, x.callbacks.interrupt
	}
	if x.route.WebSocket && x.head.Upgrade == "websocket" {
		r.Upgrade = "websocket"
	}
	x.route.Leg.SignRequest(r, x.content.digest, &x.sent)
	return r
}

// interrupt stops an upload: the upstream answered and wants no more. The client has
// not been told to stop: the engine skips what is left, or closes where that is too much.
func (x *exchange) interrupt() { _ = x.stream.SetReadDeadline(longAgo) }

// longAgo is a deadline that has passed.
var longAgo = time.Unix(1, 0)

// isHopField says whether a field speaks between client and gateway alone. Signature
// fields pass through if this route neither verifies nor signs.
func (x *exchange) isHopField(name string) bool {
	switch name {
	case "signature", "signature-input":
		return x.signaturesEndHere()
	case "accept-signature":
		return x.route.Leg.Signs() || x.answer.Signs()
	}
	return false
}

func (x *exchange) signaturesEndHere() bool {
	return x.route.Leg.Signs() || x.route.Chain.Signs() && !x.route.Integrity.ForwardSignature
}

// inform sends an interim response on.
func (x *exchange) inform(m *message.Response) error {
	x.dropOwnFields(&m.Fields)
	return x.stream.Inform(m)
}

// dropOwnFields removes the fields of an answer that only the gateway may write, and
// what the upstream tells of itself.
func (x *exchange) dropOwnFields(fields *message.Fields) {
	signs := x.answer.Signs() || x.signaturesEndHere()
	fields.DelFunc(func(f message.Field) bool {
		switch f.Name {
		case "server", "x-powered-by":
			return !x.route.KeepServer
		case "signature", "signature-input":
			return signs
		}
		return strings.HasPrefix(f.Name, "x-sallyport-")
	})
}

// trailers are those of the client's that go on.
func (x *exchange) trailers(fields message.Fields) message.Fields {
	kept := x.snapshot.Guard.Trailers(fields)
	kept.DelFunc(func(f message.Field) bool { return x.route.ToUpstream.Drops(f.Name) })
	return kept
}

// blame finds out whose fault an error is: the client's that left or sent too
// much, the credential's that ended, or the upstream's.
func (x *exchange) blame(err error) error {
	if err == nil {
		return nil
	}
	return x.blameFor(err)
}

// blameFor is blame where there is an error: apart, because its variables cost
// allocations.
func (x *exchange) blameFor(err error) error {
	var own *refusal
	var signature *httpsig.Error
	if errors.As(err, &own) && own.reason != reasonClientGone || errors.As(err, &signature) {
		return err
	}
	// What the gateway ends by itself shows as a client that can no longer be written to.
	cause := x.life.Cause()
	switch {
	case cause == nil:
		return err
	case errors.Is(cause, message.ErrFraming): // over HTTP/2 that ends the request at once
		return &refusal{reason: reasonBadBody, cause: cause}
	case endingOf(cause) != "":
		return &refusal{reason: endingOf(cause), cause: cause}
	case own != nil:
		return err
	}
	return &refusal{reason: reasonClientGone, cause: err}
}

// endingOf is the reason for which the gateway itself ends an exchange that is under
// way, "" for other causes.
func endingOf(cause error) string {
	switch cause {
	case errExpired:
		return reasonExpired
	case errWithdrawn:
		return reasonWithdrawn
	case errReplaced:
		return reasonReplaced
	case errShutdown:
		return reasonShutdown
	}
	return ""
}

// timedOut says whether a read or write ran into its deadline.
func timedOut(err error) bool { return errors.Is(err, os.ErrDeadlineExceeded) }
