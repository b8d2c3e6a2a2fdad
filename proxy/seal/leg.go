package seal

import (
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"time"

	"sallyport/auth"
	"sallyport/auth/httpsig"
	"sallyport/proxy/message"
	"sallyport/proxy/upstream"
)

// Leg signs and verifies messages between the gateway and the upstream of a route, with keys of its
// own: the client's signature ends at the gateway (RFC 9421, section 4.3). It is immutable; the
// zero Leg signs and verifies nothing.
type Leg struct {
	key    *auth.SigningKey // nil: requests are not signed
	bodies bool             // also cover content that no client signed
	whole  *httpsig.Signer  // covers the content's digest
	bare   *httpsig.Signer  // covers no digest
	now    func() time.Time

	answer, head, headOnly, tail *httpsig.Verifier // nil: answers are not verified
}

// Identity lists the fields with the caller's identity: those of all requests, and those that only some have.
type Identity struct{ Always, IfPresent []string }

// NewLeg makes the leg of a route from the integrity section of its upstream. The signature covers the fields
// with the caller's identity.
func NewLeg(c *upstream.IntegrityConfig, identity Identity, a *auth.Auth, now func() time.Time) (Leg, error) {
	l := Leg{now: now}
	if c.Sign == "" {
		return l, nil
	}
	l.key, l.bodies = a.Key(c.Sign), c.Digests()
	var err error
	whole := httpsig.ForwardProfile(identity.Always...)
	whole.IfPresent = append(whole.IfPresent, identity.IfPresent...)
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
		return a.Key(id).Whenever(auth.VerifyResponse)
	}, Usable: func(id string) *httpsig.Error { return a.Key(id).Usable(now()) }}
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

// Signs reports whether requests to the upstream are signed.
func (l *Leg) Signs() bool { return l.key != nil }

// Digests reports whether the upstream must receive the digest of all content.
func (l *Leg) Digests() bool { return l.key != nil && l.bodies }

// Verifies reports whether answers must be signed.
func (l *Leg) Verifies() bool { return l.answer != nil }

// Sent records the last signed attempt of a request; the answer's signature is bound to it. The
// zero Sent is ready for use.
type Sent struct {
	message httpsig.Message
	fields  message.Fields
	nonce   string
}

var errKeyEnded = errors.New("the key that signs requests to the upstream is not valid now")

// SignRequest sets r.Sign so that each attempt is signed anew, after all rewriting and for the
// endpoint's host. digest is the Content-Digest of the content, "" if unknown. Each signature is
// recorded in sent.
func (l *Leg) SignRequest(r *upstream.Request, digest string, sent *Sent) {
	if l.key == nil {
		return
	}
	signer := l.bare
	if digest != "" {
		signer = l.whole
		r.Fields.Set("content-digest", digest)
	}
	plain := slices.Clip(r.Fields)
	r.Sign = func(scheme, host string) (message.Fields, error) {
		key := l.key.For(auth.SignRequest, l.now())
		if key == nil {
			return nil, errKeyEnded
		}
		sent.fields = plain
		sent.message = httpsig.Message{Method: r.Method, Scheme: scheme, Authority: host, Fields: &sent.fields}
		sent.message.Path, sent.message.Query, sent.message.HasQuery = strings.Cut(r.Target, "?")
		signed, err := signer.Sign(key, &sent.message, "")
		if err != nil {
			return nil, fmt.Errorf("signing the request to the upstream: %w", err)
		}
		sent.nonce = signed.Nonce
		sent.fields = append(plain, message.Field{Name: "signature-input", Value: signed.Input}, message.Field{Name: "signature", Value: signed.Signature})
		return sent.fields, nil
	}
}

// UnsignedAnswerError means that an answer lacks the signature that the upstream must make.
type UnsignedAnswerError struct{ Err error }

func (e *UnsignedAnswerError) Error() string { return e.Err.Error() }

func (e *UnsignedAnswerError) Unwrap() error { return e.Err }

// VerifyAnswer verifies the head of an answer that must be signed, and wraps its content so that it
// is verified as it is read. Bad content ends in an [*UnsignedAnswerError]. request is the client's
// request. held is the length up to which answers are read whole before anything is sent.
func (l *Leg) VerifyAnswer(answer *upstream.Response, sent *Sent, request *message.Head, held int64) error {
	if !l.Verifies() {
		return nil
	}
	if err := l.verifyHead(answer, sent, request.Method); err != nil {
		return &UnsignedAnswerError{err}
	}
	// With Content-Length, or over HTTP/1.0, the last byte completes the answer, so it is withheld
	// until all is verified. Held answers do not need that.
	length := answer.Head.ContentLength
	if length > held || length < 0 && request.Version == message.HTTP10 {
		answer.Body = WithholdEnd(answer.Body)
	}
	return nil
}

// verifyHead determines what the upstream signed: the whole answer, its head with a signature in
// the trailers to follow, or a head without content.
func (l *Leg) verifyHead(answer *upstream.Response, sent *Sent, method string) error {
	h := &answer.Head
	hasBody := message.MayHaveBody(method, h.Status)
	m := &httpsig.Message{Status: h.Status, Fields: &h.Fields, Request: &sent.message}
	_, err := l.answer.VerifyResponse(m, sent.nonce, false)
	if err == nil {
		digests, err := httpsig.ParseContentDigest(&h.Fields)
		checker := digests.NewChecker()
		answer.Body = NewVerified(answer.Body, answerInspector{checker, checker.Check})
		return err
	}
	if !isMissing(err) {
		return err
	}
	_, err = l.head.VerifyResponse(m, sent.nonce, false)
	switch {
	case err == nil && hasBody && h.ContentLength >= 0:
		return errNoTrailers
	case err == nil:
		body, digester := answer.Body, httpsig.NewDigester()
		answer.Body = NewVerified(body, answerInspector{digester, func() error {
			return l.verifyTail(m, body.Trailers(), digester.Value(), sent.nonce)
		}})
		return nil
	case !isMissing(err):
		return err
	}
	_, err = l.headOnly.VerifyResponse(m, sent.nonce, false)
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

// unsigned wraps an error in an [*UnsignedAnswerError]; nil stays nil.
func unsigned(err error) error {
	if err == nil {
		return nil
	}
	return &UnsignedAnswerError{err}
}

// answerInspector inspects the content of an answer. It blames the upstream for a fault at the end.
type answerInspector struct {
	io.Writer
	check func() error
}

func (i answerInspector) Check() error { return unsigned(i.check()) }

// verifyTail verifies the trailers' signature over content with this digest.
func (l *Leg) verifyTail(m *httpsig.Message, trailers message.Fields, digest, nonce string) error {
	m.Trailers = &trailers
	if _, err := l.tail.VerifyResponse(m, nonce, true); err != nil {
		return err
	}
	if trailers.Get("content-digest") != digest {
		return &httpsig.Error{Code: httpsig.DigestMismatch}
	}
	return nil
}
