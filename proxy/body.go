package proxy

import (
	"errors"
	"io"
	"sync/atomic"
	"time"

	"sallyport/auth/httpsig"
	"sallyport/proxy/message"
)

// requestContent is the content of a request as it goes to the upstream.
type requestContent struct {
	message.Body             // nil where there is none
	length       int64       // in bytes: 0 for none, -1 where only its end will tell
	digest       string      // the value of Content-Digest that holds for it; "" where none is known
	counted      countedBody // what comes from the client
	held         held        // what was read before anything acts on it
	checked      checkedBody // what is checked while it is sent on
	unverified   bool        // the end decides whether anybody may act on it
}

// body takes the content. Where somebody vouches for it, or the upstream is to be
// told who did, it is read to its end and compared before the upstream learns of the
// request; where the route streams, it is compared on its way, and the upstream
// never gets the end of what is wrong.
func (x *exchange) body() error {
	c := &x.content
	c.counted = countedBody{
		src:   x.stream.Body(),
		limit: x.route.limits.body,
		rate:  x.g.bodyRate,
		now:   x.g.now,
		wait:  untilIdle{idle: x.route.timeouts.idle, stream: x.stream, clock: x.g.clock},
	}
	if x.grpc {
		c.counted.rate = 0 // a stream may rest between messages
	}
	c.Body, c.length = &c.counted, x.head.ContentLength
	var digests httpsig.Digests
	vouched := x.vouched()
	if vouched {
		var err error
		if digests, err = httpsig.ParseContentDigest(&x.head.Fields); err != nil {
			return ofSignature(err)
		}
	}
	if !x.holds() {
		if vouched {
			return x.watch(digests)
		}
		return nil
	}
	if err := x.hold(x.route.integrity.buffer); err != nil {
		return err
	}
	if vouched {
		return x.compare(digests)
	}
	c.digest = c.held.contentDigest()
	return nil
}

// vouched says whether the caller signed the digest of the content.
func (x *exchange) vouched() bool {
	s := x.proof.Signature
	return s != nil && (x.route.integrity.body != integrityHeadersOnly || s.Covers("content-digest"))
}

// holds says whether all of the content is held before the upstream learns of the
// request: what is vouched for, unless the route streams, and what the upstream is
// to be told the digest of.
func (x *exchange) holds() bool {
	if x.vouched() {
		return !x.route.integrity.streams
	}
	return x.route.upstreamLeg.digests()
}

// hold reads the content to its end, at most so much.
func (x *exchange) hold(most int64) error {
	c := &x.content
	if c.length == 0 {
		return nil
	}
	if err := x.keep(c.held.fill(x.g.memory, &c.counted, most)); err != nil {
		return err
	}
	c.Body, c.length = &c.held, c.held.size
	x.record.BytesIn = c.counted.n.Load()
	return nil
}

// keep turns an error of held into a refusal.
func (x *exchange) keep(err error) error {
	switch {
	case errors.Is(err, errTooLong):
		return &refusal{reason: reasonBodyTooLarge, cause: err}
	case errors.Is(err, errMemory):
		return &refusal{reason: reasonBodyMemory, cause: err, retryAfter: busyRetry}
	}
	return err
}

// compare compares what was held with its digests.
func (x *exchange) compare(d httpsig.Digests) error {
	c := &x.content
	c.digest = x.head.Fields.Get("content-digest")
	if block, ok := c.held.block(); ok {
		return ofSignature(d.Match(block))
	}
	checker := d.NewChecker()
	c.held.writeTo(checker)
	return ofSignature(checker.Check())
}

// watch has the content compared while it is sent on. What is short is held whole,
// so that of a short body with a wrong digest the upstream learns nothing.
func (x *exchange) watch(d httpsig.Digests) error {
	c := &x.content
	if c.length >= 0 && c.length <= wholeBytes {
		if err := x.hold(wholeBytes); err != nil {
			return err
		}
		return x.compare(d)
	}
	c.checked.src, c.checked.checker, c.checked.release = &c.counted, d.NewChecker(), x.complete
	if c.length < 0 {
		switch err := c.held.fill(x.g.memory, &c.counted, wholeBytes); {
		case err == nil:
			c.Body, c.length = &c.held, c.held.size
			x.record.BytesIn = c.counted.n.Load()
			return x.compare(d)
		case !errors.Is(err, errTooLong):
			return x.keep(err)
		}
		c.held.rest = &c.counted
		c.checked.src = &c.held
	}
	c.Body, c.unverified = &c.checked, true
	c.digest = x.head.Fields.Get("content-digest")
	return nil
}

// complete turns the provisional grant into one for the whole call, once the body has
// been verified.
func (x *exchange) complete() error {
	_, err := x.provisional.Complete(x.call)
	return err
}

// early looks at an answer that came before the content was known to be right. It is
// not signed: that would bind it to content that nobody has compared. One that says
// that the request was acted on is none of a server that waits for the end.
func (x *exchange) early(h *message.Response) error {
	if !x.content.unverified || x.content.checked.right.Load() {
		return nil
	}
	if h.Status < 300 {
		return &refusal{reason: reasonGarbage, cause: errEarly}
	}
	x.signing = answerSigning{}
	return nil
}

// wholeBytes is up to which length content is held although the route streams.
const wholeBytes = 64 << 10

// contentDigest is the value of Content-Digest for what is held.
func (h *held) contentDigest() string {
	if block, ok := h.block(); ok {
		return httpsig.ContentDigest(block)
	}
	d := httpsig.NewDigester()
	h.writeTo(d)
	return d.Value()
}

// ofSignature turns an error of package httpsig into a refusal; nil stays nil.
func ofSignature(err error) error {
	var fault *httpsig.Error
	if errors.As(err, &fault) {
		return &refusal{reason: string(fault.Code.Public()), cause: fault}
	}
	return err
}

// checkedBody is content whose end comes only if it is what its digests say. The
// upstream's client writes the last of a body only after that.
type checkedBody struct {
	src     io.Reader
	checker *httpsig.Checker
	release func() error // gets the grant for the whole call; nil error: the end may go on
	right   atomic.Bool  // its end has come
}

func (b *checkedBody) Read(p []byte) (int, error) {
	n, err := b.src.Read(p)
	_, _ = b.checker.Write(p[:n])
	if err == io.EOF {
		if bad := ofSignature(b.checker.Check()); bad != nil {
			return n, bad
		}
		if err := b.release(); err != nil {
			return n, err
		}
		b.right.Store(true)
	}
	return n, err
}

// Trailers are none: nobody has signed them.
func (b *checkedBody) Trailers() message.Fields { return nil }

// countedBody is the client's body on its way to the upstream: counted against
// the route's limit while it streams, with a bound on how long it may pause and on
// how slow it may be. What is wrong with it is the client's fault and comes out as a
// [refusal].
type countedBody struct {
	src   message.Body
	limit int64 // in bytes; zero: none
	n     atomic.Int64
	wait  untilIdle

	rate   int64 // bytes a second that must come on average; zero: none
	now    func() time.Time
	waited time.Duration // for the client alone: an upstream that is slow is not its fault
}

// patience is how long a body may keep the gateway waiting before its rate counts.
const patience = 10 * time.Second

// tooSlow says whether a body of total bytes that was read since from comes too slowly.
func (b *countedBody) tooSlow(from time.Time, total int64) bool {
	b.waited += b.now().Sub(from)
	return b.waited > patience && total < int64(float64(b.rate)*(b.waited-patience).Seconds())
}

func (b *countedBody) Read(p []byte) (int, error) {
	if err := b.wait.extend(); err != nil {
		return 0, errClientGone(err)
	}
	var from time.Time
	timed := b.rate > 0 && !followed(b.src)
	if timed {
		from = b.now()
	}
	n, err := b.src.Read(p)
	total := b.n.Add(int64(n))
	switch {
	case err == nil && timed && b.tooSlow(from, total):
		return 0, &refusal{reason: reasonBodyTimeout, cause: errTooSlow}
	case b.limit > 0 && total > b.limit:
		return 0, &refusal{reason: reasonBodyTooLarge, cause: errTooLarge}
	case err == io.EOF:
		b.wait.lift()
		return n, err
	case err == nil:
		return n, nil
	case timedOut(err):
		return n, &refusal{reason: reasonBodyTimeout, cause: err}
	case errors.Is(err, io.ErrUnexpectedEOF):
		return n, errClientGone(err)
	}
	return n, &refusal{reason: reasonBadBody, cause: err}
}

// Arrived implements [message.Arrived].
func (b *countedBody) Arrived() (n int, whole bool) {
	if src, ok := b.src.(message.Arrived); ok {
		return src.Arrived()
	}
	return 0, false
}

// Coming implements [message.Coming].
func (b *countedBody) Coming() bool {
	if src, ok := b.src.(message.Coming); ok {
		return src.Coming()
	}
	n, _ := b.Arrived()
	return n > 0
}

func (b *countedBody) Trailers() message.Fields { return b.src.Trailers() }
