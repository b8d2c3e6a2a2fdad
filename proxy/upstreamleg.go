package proxy

import (
	"errors"
	"fmt"
	"io"
	"slices"
	"time"

	"sallyport/auth"
	"sallyport/auth/httpsig"
	"sallyport/proxy/message"
	"sallyport/proxy/upstream"
)

// upstreamLeg is what is signed between the gateway and the upstream of a route, by
// keys of their own (RFC 9421, section 4.3: the client's signature ends here). It is
// immutable; the zero one signs and verifies nothing.
type upstreamLeg struct {
	key    *auth.SigningKey // nil: requests are not signed
	bodies bool             // those that no client signed are covered too
	whole  *httpsig.Signer  // with the content's digest
	bare   *httpsig.Signer  // without

	answer, head, headOnly, tail *httpsig.Verifier // nil: answers are not verified
}

// newUpstreamLeg makes the leg of a route from the section of its upstream.
func newUpstreamLeg(c *upstream.IntegrityConfig, names identityNames, a *auth.Auth, now func() time.Time) (upstreamLeg, error) {
	var l upstreamLeg
	if c.Sign == "" {
		return l, nil
	}
	l.key, l.bodies = a.Key(c.Sign), c.Digests()
	var identity []string
	for _, name := range []string{names.principal, names.scopes, names.requestID} {
		if name != "" {
			identity = append(identity, name)
		}
	}
	var err error
	whole := httpsig.ForwardProfile(identity...)
	if l.whole, err = httpsig.NewSigner(whole, now); err != nil {
		return l, err
	}
	bare := whole
	bare.Cover = slices.DeleteFunc(slices.Clone(whole.Cover), func(s string) bool { return s == "content-digest" })
	if l.bare, err = httpsig.NewSigner(bare, now); err != nil {
		return l, err
	}
	if len(c.Verify) == 0 {
		return l, nil
	}
	ids := slices.Clone(c.Verify)
	o := httpsig.VerifierOptions{Now: now, Key: func(id string) *httpsig.Key {
		if !slices.Contains(ids, id) {
			return nil
		}
		return a.Key(id).For(auth.VerifyResponse, now())
	}}
	for _, v := range []struct {
		to     **httpsig.Verifier
		policy httpsig.Policy
	}{
		{&l.answer, httpsig.ResponsePolicy()},
		{&l.head, httpsig.HeadPolicy(httpsig.TagResponseHead)},
		{&l.headOnly, httpsig.HeadPolicy(httpsig.TagResponseHeadOnly)},
		{&l.tail, httpsig.TailPolicy()},
	} {
		v.policy.Algorithms = []httpsig.Algorithm{httpsig.HMACSHA256, httpsig.Ed25519}
		if *v.to, err = httpsig.NewVerifier(v.policy, o); err != nil {
			return l, err
		}
	}
	return l, nil
}

// digests says whether the upstream is to be told the digest of every content.
func (l *upstreamLeg) digests() bool { return l.key != nil && l.bodies }

// verifies says whether answers must be signed.
func (l *upstreamLeg) verifies() bool { return l.answer != nil }

// sentRequest is the last attempt as it was signed, to which the answer is bound.
type sentRequest struct {
	message httpsig.Message
	fields  message.Fields
	nonce   string
}

var errKeyEnded = errors.New("the key that signs requests to the upstream is not valid now")

// sealRequest returns how one attempt is signed, anew for each: after all rewriting,
// for the host that the endpoint is asked as. It is nil where nothing is signed.
func (x *exchange) sealRequest(r *upstream.Request) func(scheme, host string) (message.Fields, error) {
	l := &x.route.upstreamLeg
	if l.key == nil {
		return nil
	}
	signer := l.bare
	if x.content.digest != "" {
		signer = l.whole
		r.Fields.Set("content-digest", x.content.digest)
	}
	plain := slices.Clip(r.Fields)
	return func(scheme, host string) (message.Fields, error) {
		key := l.key.For(auth.SignRequest, x.g.now())
		if key == nil {
			return nil, &refusal{reason: reasonInternal, cause: errKeyEnded}
		}
		sent := &x.sent
		sent.fields = plain
		sent.message = httpsig.Message{Method: r.Method, Scheme: scheme, Authority: host, Fields: &sent.fields}
		sent.message.Path, sent.message.Query, sent.message.HasQuery = cutTarget(r.Target)
		signed, err := signer.Sign(key, &sent.message, "")
		if err != nil {
			return nil, &refusal{reason: reasonInternal, cause: fmt.Errorf("signing the request to the upstream: %w", err)}
		}
		sent.nonce = signed.Nonce
		sent.fields = append(plain, message.Field{Name: "signature-input", Value: signed.Input}, message.Field{Name: "signature", Value: signed.Signature})
		return sent.fields, nil
	}
}

// verifyAnswer verifies the head of an answer that must be signed, and has its
// content compared as it is read.
func (x *exchange) verifyAnswer(answer *upstream.Response) error {
	if !x.route.upstreamLeg.verifies() {
		return nil
	}
	if err := x.verifyHead(answer); err != nil {
		return notSigned(err)
	}
	// Where nothing but the last byte tells the client that it has all. What is held
	// anyway has no need of it.
	length := answer.Head.ContentLength
	if length > x.route.integrity.responseBuffer || length < 0 && x.head.Version == message.HTTP10 {
		answer.Body = &withheldEnd{Body: answer.Body}
	}
	return nil
}

// verifyHead finds out what the upstream signed: all of the answer, or its head with
// the promise of more in the trailers, or a head without content.
func (x *exchange) verifyHead(answer *upstream.Response) error {
	l, h := &x.route.upstreamLeg, &answer.Head
	hasBody := message.MayHaveBody(x.head.Method, h.Status)
	m := &httpsig.Message{Status: h.Status, Fields: &h.Fields, Request: &x.sent.message}
	_, err := l.answer.VerifyResponse(m, x.sent.nonce, false)
	if err == nil {
		digests, err := httpsig.ParseContentDigest(&h.Fields)
		answer.Body = &comparedAnswer{Body: answer.Body, checker: digests.NewChecker()}
		return err
	}
	if !isMissing(err) {
		return err
	}
	_, err = l.head.VerifyResponse(m, x.sent.nonce, false)
	switch {
	case err == nil && hasBody && h.ContentLength >= 0:
		return errNoTrailers
	case err == nil:
		answer.Body = &tailedAnswer{Body: answer.Body, digester: httpsig.NewDigester(), leg: l, message: m, nonce: x.sent.nonce}
		return nil
	case !isMissing(err):
		return err
	}
	_, err = l.headOnly.VerifyResponse(m, x.sent.nonce, false)
	if err == nil && hasBody && h.ContentLength != 0 {
		return errOnlyHead
	}
	return err
}

var (
	errOnlyHead   = errors.New("only the head of the answer is signed")
	errNoTrailers = errors.New("a signature in trailers is promised where none can be")
)

func isMissing(err error) bool {
	var fault *httpsig.Error
	return errors.As(err, &fault) && fault.Code == httpsig.Missing
}

func notSigned(err error) error { return &refusal{reason: reasonUpstreamSignature, cause: err} }

// comparedAnswer is the content of an answer whose end comes only if it is what was
// signed.
type comparedAnswer struct {
	message.Body
	checker *httpsig.Checker
}

func (b *comparedAnswer) Read(p []byte) (int, error) {
	n, err := b.Body.Read(p)
	_, _ = b.checker.Write(p[:n])
	if err == io.EOF {
		if bad := b.checker.Check(); bad != nil {
			return n, notSigned(bad)
		}
	}
	return n, err
}

// withheldEnd is content of which the last piece comes only after its clean end, so
// that all of what is wrong comes to nobody.
type withheldEnd struct {
	message.Body
	out   []byte // may be handed out
	ahead []byte // read behind it, perhaps the last
	spare []byte
	err   error // what came behind that
}

func (b *withheldEnd) Read(p []byte) (int, error) {
	for len(b.out) == 0 {
		switch {
		case b.err == io.EOF && len(b.ahead) > 0:
			b.out, b.ahead = b.ahead, nil
			continue
		case b.err != nil:
			return 0, b.err
		}
		if b.spare == nil {
			b.spare = make([]byte, blockBytes)
		}
		var n int
		if n, b.err = b.Body.Read(b.spare); n > 0 {
			b.out, b.ahead, b.spare = b.ahead, b.spare[:n], b.ahead[:cap(b.ahead)]
		}
	}
	n := copy(p, b.out)
	b.out = b.out[n:]
	return n, nil
}

// tailedAnswer is the content of a stream that is signed in its trailers.
type tailedAnswer struct {
	message.Body
	digester *httpsig.Digester
	leg      *upstreamLeg
	message  *httpsig.Message
	nonce    string
}

func (b *tailedAnswer) Read(p []byte) (int, error) {
	n, err := b.Body.Read(p)
	_, _ = b.digester.Write(p[:n])
	if err == io.EOF {
		if bad := b.verifyTail(); bad != nil {
			return n, notSigned(bad)
		}
	}
	return n, err
}

func (b *tailedAnswer) verifyTail() error {
	trailers := b.Body.Trailers()
	b.message.Trailers = &trailers
	if _, err := b.leg.tail.VerifyResponse(b.message, b.nonce, true); err != nil {
		return err
	}
	if trailers.Get("content-digest") != b.digester.Value() {
		return &httpsig.Error{Code: httpsig.DigestMismatch}
	}
	return nil
}
