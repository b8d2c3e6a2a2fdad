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

// forward sends the request to the upstream and its answer to the client. It requires a grant for
// exactly the call that the head describes now. While the body is unverified, a provisional grant
// is enough, because the end of the body is withheld.
func (x *exchange) forward(v verdict) error {
	target := x.reading.Target()
	head, call, ok := x.forwardable()
	if !ok || !v.grant.Permits(call) && !(x.content.unverified() && v.provisional.Permits(head)) {
		return &refusal{reason: reasonInternal, cause: errNoGrant}
	}
	x.chooseUpstream()
	if err := x.backend.Credential.Ready(x.life); err != nil {
		return x.blame(err)
	}
	ask := x.request(target)
	defer x.stopEnding()
	if ask.Length > seal.BlockBytes || ask.Length < 0 && !arrived(ask.Body) {
		x.endWithCredential()
	}
	defer x.noteTrailers()
	start := x.elapsed()
	answer, err := x.backend.Upstream.Send(x.life, ask)
	x.record.BytesIn = x.content.counted.n.Load()
	if err != nil {
		x.record.UpstreamDuration = x.elapsed() - start
		var fault *upstream.Error
		if errors.As(err, &fault) {
			x.record.Upstream = fault.Endpoint
		}
		return x.blame(err)
	}
	defer func() {
		answer.Close()
		x.record.BytesIn = max(x.record.BytesIn, x.content.counted.n.Load()) // a tunnel has set its own count
		x.record.UpstreamDuration = x.elapsed() - start
	}()
	x.record.Upstream = answer.Endpoint
	x.record.Status = answer.Head.Status
	if err := x.checkCredential(&answer.Head); err != nil {
		return err
	}
	x.noteOrigin(answer)
	if err := x.backend.Leg.VerifyAnswer(answer, &x.sent, x.head, x.route.Integrity.ResponseBuffer); err != nil {
		return err
	}
	if err := x.checkEarly(&answer.Head); err != nil {
		return err
	}
	if answer.Head.ContentLength < 0 && !arrived(answer.Body) || answer.Head.Status == http.StatusSwitchingProtocols {
		x.endWithCredential()
	}
	if err := x.awaitDecision(answer); err != nil {
		return x.blame(err)
	}
	if err := x.filterListing(answer); err != nil {
		return x.blame(err)
	}
	if answer.Head.Status == http.StatusSwitchingProtocols {
		return x.tunnel(answer)
	}
	if x.wantsTunnel() && answer.Head.Status < 300 {
		return &refusal{reason: reasonGarbage, cause: errNoSwitch} // a 2xx would mean that a tunnel is open
	}
	return x.blame(x.relay(answer))
}

// checkCredential refuses an answer that refuses the gateway's own credential. Passed on, it would
// tell a caller with a good credential to get another.
func (x *exchange) checkCredential(h *message.Response) error {
	if x.route.ForwardAuthorization {
		return nil // the answer may be about the caller's credential
	}
	return x.backend.Credential.Accepted(h)
}

// arrived reports whether all of a short body has arrived, so that its sender cannot make the exchange
// last.
func arrived(body message.Body) bool {
	n, whole := message.ArrivedOf(body)
	return whole && n <= seal.BlockBytes
}

// endWithCredential ends a long exchange when the credential expires, so that a stream does not
// keep expired rights. stopEnding cancels that.
func (x *exchange) endWithCredential() {
	if x.ending != nil || x.caller.Expires.IsZero() {
		return
	}
	life := x.life // it outlives the exchange
	x.ending = time.AfterFunc(x.caller.Expires.Sub(x.server.now()), func() { life.End(expired()) })
}

func (x *exchange) stopEnding() {
	if x.ending != nil {
		x.ending.Stop()
	}
}

// request returns the request for the upstream.
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
		Timeouts: x.timeouts,
		Inform:   x.callbacks.inform,
	}
	if r.Length < 0 || r.Length > seal.BlockBytes {
		r.Trailers, r.Interrupt = x.callbacks.trailers, x.callbacks.interrupt
	}
	switch {
	case x.route.WebSocket && x.head.Upgrade == "websocket":
		r.Upgrade = "websocket"
	case x.head.Upgrade != "" || x.head.VainUpgrade:
		x.dropUpgrade()
	}
	x.backend.Leg.SignRequest(r, x.content.digest, &x.sent)
	r.Credential = x.backend.Credential.Attempt(&x.caller)
	return r
}

// interrupt stops an upload because the upstream answered and wants no more. The client is not
// told: the engine skips the rest, or closes the connection if that is too much.
func (x *exchange) interrupt() { _ = x.stream.SetReadDeadline(longAgo) }

// longAgo is a deadline in the past.
var longAgo = time.Unix(1, 0)

// isHopField reports whether a field is hop-by-hop. Signature fields pass through if this route
// neither verifies nor signs.
func (x *exchange) isHopField(name string) bool {
	switch name {
	case "signature", "signature-input":
		return x.signaturesEndHere()
	case "accept-signature":
		return x.backend.Leg.Signs() || x.answer.Signs()
	}
	return false
}

func (x *exchange) signaturesEndHere() bool {
	return x.backend.Leg.Signs() || x.route.Chain.Signs() && !x.route.Integrity.ForwardSignature
}

// inform forwards an interim response.
func (x *exchange) inform(m *message.Response) error {
	x.dropOwnFields(&m.Fields)
	if err := x.boundSending(); err != nil {
		return err
	}
	return x.stream.Inform(m)
}

// dropOwnFields removes the answer's fields that only the gateway may write, and those that
// describe the upstream.
func (x *exchange) dropOwnFields(fields *message.Fields) {
	signs := x.answer.Signs() || x.signaturesEndHere()
	fields.DelFunc(func(f message.Field) bool {
		switch f.Name {
		case "server", "x-powered-by":
			return !x.route.KeepServer
		case "signature", "signature-input":
			return signs
		case "set-cookie":
			return setsOwnCookie(f.Value)
		case "ratelimit", "ratelimit-policy":
			return x.route.Limits.Count()
		}
		return strings.HasPrefix(f.Name, "x-sallyport-")
	})
}

// trailers returns the client's trailers that are forwarded.
func (x *exchange) trailers(fields message.Fields) message.Fields {
	kept := x.snapshot.Guard.Trailers(fields)
	kept.DelFunc(func(f message.Field) bool { return x.route.ToUpstream.Drops(f.Name) })
	x.content.trailers.Store(int32(len(kept)))
	return kept
}

// blame attributes an error: to a client that left or sent too much, to an expired credential, or
// to the upstream.
func (x *exchange) blame(err error) error {
	if err == nil {
		return nil
	}
	return x.blameFor(err)
}

// blameFor implements blame for an error. It is separate because its variables are allocated.
func (x *exchange) blameFor(err error) error {
	var own *refusal
	var signature *httpsig.Error
	if errors.As(err, &own) && own.reason != reasonClientGone || errors.As(err, &signature) {
		return err
	}
	// When the gateway ends an exchange, the write error looks as if the client had left.
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
	return &refusal{reason: reasonClientGone, cause: cause}
}

// timedOut reports whether a read or write exceeded its deadline.
func timedOut(err error) bool { return errors.Is(err, os.ErrDeadlineExceeded) }
