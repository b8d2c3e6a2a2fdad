package exchange

import (
	"cmp"
	"errors"
	"fmt"
	"io"
	"sync/atomic"
	"time"

	"sallyport/auth/httpsig"
	"sallyport/proxy/message"
	"sallyport/proxy/seal"
	"sallyport/proxy/setting"
	"sallyport/proxy/upstream"
)

// content is the request's content as sent to the upstream.
type content struct {
	message.Body                // nil if there is none
	length       int64          // in bytes: 0 for none, -1 if unknown
	digest       string         // its Content-Digest; "" if unknown
	counted      countedBody    // the client's body
	held         seal.Buffer    // content read completely before it is used
	trailers     atomic.Int32   // number of trailer lines sent upstream
	verified     *seal.Verified // content verified while it is forwarded; nil if none
	sealed       bool           // it is signed, so that only its end proves it
}

// unverified reports whether the content is verified only at its end, while it is forwarded.
func (c *content) unverified() bool { return c.verified != nil }

// takeBody prepares the content. If the caller signed its digest, or the upstream must receive one,
// the content is read and compared before the upstream sees the request. A route that streams
// verifies it while forwarding, and the upstream never gets the end of bad content.
func (x *exchange) takeBody() error {
	c := &x.content
	c.counted = countedBody{
		src:   x.stream.Body(),
		limit: x.route.Limits.Body,
		now:   x.server.now,
		wait:  idleDeadline{idle: x.timeouts.Idle, name: "timeouts.idle", stream: x.stream, clock: x.server.Clock},
	}
	if d := x.timeouts.Pause; d > 0 {
		c.counted.wait.idle, c.counted.wait.name = d, upstream.PauseName
	}
	if e := x.caller.Expires; !e.IsZero() && x.head.ContentLength != 0 && !arrived(&c.counted) {
		// Deadlines go by one clock, and credentials by another.
		c.counted.wait.until = x.server.Clock.Now().Add(e.Sub(x.server.now()))
	}
	c.Body, c.length = &c.counted, x.head.ContentLength
	if err := x.prepare(); err != nil {
		return err
	}
	c.counted.rate = x.bodyRate()
	var digests httpsig.Digests
	signed := x.bodySigned()
	if signed {
		var err error
		if digests, err = httpsig.ParseContentDigest(&x.head.Fields); err != nil {
			return err
		}
	}
	if !x.holdsBody() {
		if signed || x.scanned.scanner != nil || x.scanned.counter != nil {
			return x.verifyOnTheWay(digests, signed)
		}
		return nil
	}
	if err := x.hold(x.route.Integrity.Buffer); err != nil {
		return err
	}
	if signed {
		if err := x.compare(digests); err != nil {
			return err
		}
	} else if x.route.Leg.Digests() {
		c.digest = c.held.Digest()
	}
	return x.scan()
}

// bodyRate returns the minimum rate of the content. A stream may pause between messages, but not within
// the one message of a call that takes memory until it has named its model.
func (x *exchange) bodyRate() int64 {
	if x.grpc && (x.scanned.scanner == nil || x.reading.Streams()) {
		return 0
	}
	return x.snapshot.BodyRate
}

// bodySigned reports whether the caller signed the digest of the content.
func (x *exchange) bodySigned() bool {
	s := x.proof.Signature
	return s != nil && (!x.route.Integrity.HeadersOnly || s.Covers("content-digest"))
}

// holdsBody reports whether all content is read before the upstream sees the request. That is so
// for content that names the model, for content with a signed digest, unless the route streams, and for content whose digest the
// upstream must receive. Content that is only counted is held for servers that may act on its start.
func (x *exchange) holdsBody() bool {
	if x.scanned.scanner != nil && !x.reading.GRPC() || x.scanned.counter != nil && !x.route.Dialect.ActsOnWhole() {
		return true
	}
	if x.bodySigned() {
		return !x.route.Integrity.Streams
	}
	return x.route.Leg.Digests()
}

// hold reads the content to its end, at most most bytes.
func (x *exchange) hold(most int64) error {
	c := &x.content
	if c.length == 0 {
		return nil
	}
	if err := c.held.Fill(x.server.Held, &c.counted, most); err != nil {
		return x.unheld(err, most)
	}
	x.useHeld()
	return nil
}

// unheld turns the error of content that could not be held into a refusal that names the exceeded
// setting. It returns other errors unchanged.
func (x *exchange) unheld(err error, most int64) error {
	switch {
	case errors.Is(err, seal.ErrTooLong):
		return because(reasonBodyTooLarge, over(most, "integrity.buffer"))
	case errors.Is(err, seal.ErrMemory):
		return x.noMemory(x.content.held.Size() + seal.BlockBytes)
	}
	return err
}

// noMemory returns the refusal of content of this many bytes, which does not fit the memory left.
func (x *exchange) noMemory(length int64) *refusal {
	left := cmp.Or(setting.Size(x.server.Held.Left()).String(), "0B")
	r := because(reasonBodyMemory, fmt.Sprintf("the body needs %s, and %s of %s are left (integrity.memory)",
		setting.Size(seal.BlocksOf(length)), left, setting.Size(x.server.Held.Total())))
	r.retryAfter = busyRetry
	return r
}

// useHeld makes the held bytes the content, with a known length.
func (x *exchange) useHeld() {
	c := &x.content
	c.Body, c.length = &c.held, c.held.Size()
	x.record.BytesIn = c.counted.n.Load()
}

// compare compares the held content with its digests.
func (x *exchange) compare(d httpsig.Digests) error {
	x.content.digest = x.head.Fields.Get("content-digest")
	return x.content.held.Match(d)
}

// wholeBytes is the length up to which content is held even if the route streams.
const wholeBytes = 64 << 10

// verifyOnTheWay verifies the content while it is forwarded: its digests if it is signed, and the
// model that it names. Short content is held whole, so that the upstream sees nothing of what is
// refused. Of an unsigned gRPC call, only what names the model is held, and nothing of a stream: its
// client may wait for an answer before it sends more.
func (x *exchange) verifyOnTheWay(d httpsig.Digests, signed bool) error {
	c, v := &x.content, &x.verifying
	var room [4]seal.Inspector // saves an allocation
	all := room[:0]
	if x.scanned.scanner != nil {
		all = append(all, x.scanned.scanner)
	}
	if x.scanned.counter != nil {
		all = append(all, x.scanned.counter)
	}
	if signed && x.grpc {
		all = append(all, new(oneMessage))
	}
	if signed {
		all = append(all, d.NewChecker())
		c.sealed, c.digest = true, x.head.Fields.Get("content-digest")
	}
	v.Renew(withoutTrailers{&c.counted}, append(all, x.callbacks.complete)...)
	if signed || !x.reading.Streams() {
		enough := func() bool { return !signed && x.scanned.known() }
		switch err := c.held.Lead(x.server.Held, v, wholeBytes, enough); {
		case err == io.EOF:
			x.useHeld()
			return nil
		case err != nil:
			return x.unheld(err, wholeBytes)
		}
	}
	c.held.Follow(v)
	if c.verified, c.Body = v, &c.held; signed && x.grpc {
		c.Body = seal.WithholdEnd(&c.held) // the server acts on the end of a message, before that of the stream
	}
	return nil
}

// complete turns the provisional grant into one for the whole call, once the body has
// been verified. Without one, authorize decides on a body that was held whole.
func (x *exchange) complete() error {
	if !x.provisional.Valid() {
		return nil
	}
	_, err := x.provisional.Complete(x.scanned.get().call(&x.reading))
	return err
}

// checkEarly checks an answer that came before the content was verified. A 2xx before the end
// contradicts what the dialect promises of its servers, so it is refused. Any other answer stays
// unsigned: a signature would bind it to unverified content.
func (x *exchange) checkEarly(h *message.Response) error {
	v := x.content.verified
	if v == nil || v.Right() || !x.content.sealed { // servers of gRPC may send a head at any time
		return nil
	}
	if h.Status < 300 && !(x.grpc && failed(h)) {
		return &refusal{reason: reasonGarbage, cause: errEarly}
	}
	x.answer.Forget()
	return nil
}

// countedBody is the client's body on its way to the upstream. It enforces the route's size limit,
// the idle time, the minimum rate and the end of the caller's credential. A violation is the
// client's fault and returned as a
// [refusal].
type countedBody struct {
	src   message.Body
	limit int64 // in bytes; zero: none
	n     atomic.Int64
	wait  idleDeadline

	rate   int64 // minimum average rate in bytes per second; zero: none
	now    func() time.Time
	waited time.Duration // time spent waiting for the client, not for a slow upstream
}

// patience is how long a body may keep the gateway waiting before its rate is checked.
const patience = 10 * time.Second

// tooSlow reports whether a body is too slow that brought total bytes since from.
func (b *countedBody) tooSlow(from time.Time, total int64) bool {
	b.waited += b.now().Sub(from)
	return b.waited > patience && total < int64(float64(b.rate)*(b.waited-patience).Seconds())
}

func (b *countedBody) Read(p []byte) (int, error) {
	n, whole := b.Arrived()
	if !whole { // else nothing is waited for
		if err := b.wait.extend(); err != nil {
			if endingOf(err) != "" {
				return 0, &refusal{reason: endingOf(err), cause: err}
			}
			return 0, errClientGone(err)
		}
	}
	var from time.Time
	timed := b.rate > 0 && n == 0 && !whole
	if timed {
		from = b.now()
	}
	n, err := b.src.Read(p)
	total := b.n.Add(int64(n))
	switch {
	case err == nil && timed && b.tooSlow(from, total):
		return 0, because(reasonBodyTimeout, "slower than "+setting.Size(b.rate).String()+"/s (limits.body_rate)")
	case b.limit > 0 && total > b.limit:
		return 0, because(reasonBodyTooLarge, over(b.limit, "limits.body"))
	case err == io.EOF:
		b.wait.lift()
		return n, err
	case err == nil:
		return n, nil
	case timedOut(err) && b.wait.passed(time.Now()):
		return n, expired().refusal()
	case timedOut(err):
		return n, because(reasonBodyTimeout, "no content within "+setting.Duration(b.wait.idle).String()+" ("+b.wait.name+")")
	case errors.Is(err, io.ErrUnexpectedEOF):
		return n, errClientGone(err)
	}
	return n, &refusal{reason: reasonBadBody, cause: err}
}

// Arrived implements [message.Arrived].
func (b *countedBody) Arrived() (n int, whole bool) { return message.ArrivedOf(b.src) }

// Coming implements [message.Coming].
func (b *countedBody) Coming() bool {
	if src, ok := b.src.(message.Coming); ok {
		return src.Coming()
	}
	n, _ := b.Arrived()
	return n > 0
}

func (b *countedBody) Trailers() message.Fields { return b.src.Trailers() }

// withoutTrailers is content whose trailers are dropped, because no inspector sees them.
type withoutTrailers struct{ *countedBody }

func (withoutTrailers) Trailers() message.Fields { return nil }
