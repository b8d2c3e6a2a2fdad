package httpsig

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/textproto"
	"strings"
	"sync"
	"time"
)

// maxBody bounds the content of a request that Transport buffers.
const maxBody = 32 << 20

// Transport signs requests and verifies responses. It signs each attempt anew, so that
// retries and redirects by its user work. It is safe for concurrent use; its fields must
// not change after the first request. The zero Transport refuses every request.
//
// Transport reads the content of a request twice, for the digest and to send it. It calls
// GetBody if the request has one, as net/http sets it for in-memory readers; otherwise it
// buffers the content.
//
// It verifies the content of a response as the caller reads it. The body ends with
// io.EOF only if it matches the signature, and otherwise with an [*Error]. Do not act on
// the content before.
type Transport struct {
	Base http.RoundTripper // http.DefaultTransport if nil
	Key  *Key              // signs requests; required

	// Cover are the lower-case names of further fields to sign if a request has them,
	// such as authorization if the route requires it.
	Cover []string

	// ResponseKey looks up the keys that sign responses. If nil, only Key is accepted.
	ResponseKey func(id string) *Key

	// AcceptUnsigned accepts responses without a sallyport signature, such as refusals
	// by a gateway that does not know the key. A signature that is present must verify.
	AcceptUnsigned bool
	// AcceptHeadOnly accepts responses with content of which only the head is signed.
	// For responses without content that is always enough.
	AcceptHeadOnly bool

	Now func() time.Time // time.Now if nil

	once   sync.Once
	fault  error
	signer *Signer
	whole  *Verifier
	head   *Verifier
	only   *Verifier
	tail   *Verifier
}

// RoundTrip signs and sends a request. The error wraps an [*Error] if the response is not
// signed or its signature does not verify.
func (t *Transport) RoundTrip(r *http.Request) (*http.Response, error) {
	if t.once.Do(t.prepare); t.fault != nil {
		closeBody(r)
		return nil, t.fault
	}
	signed, m, nonce, err := t.sign(r)
	if err != nil {
		closeBody(r)
		return nil, fmt.Errorf("signing the request: %w", err)
	}
	base := t.Base
	if base == nil {
		base = http.DefaultTransport
	}
	response, err := base.RoundTrip(signed)
	if err != nil {
		return nil, err
	}
	if err := t.verify(response, m, nonce); err != nil {
		response.Body.Close()
		return nil, fmt.Errorf("verifying the response with status %d: %w", response.StatusCode, err)
	}
	return response, nil
}

func closeBody(r *http.Request) {
	if r.Body != nil {
		r.Body.Close()
	}
}

func (t *Transport) prepare() {
	if t.fault = needsKey(t.Key); t.fault != nil {
		return
	}
	profile := RequestProfile()
	profile.IfPresent = append(profile.IfPresent, t.Cover...)
	if t.signer, t.fault = NewSigner(profile, t.Now); t.fault != nil {
		return
	}
	t.fault = newVerifiers(responseOptions(t.Key, t.ResponseKey, t.Now), map[**Verifier]Policy{
		&t.whole: ResponsePolicy(),
		&t.head:  HeadPolicy(TagResponseHead),
		&t.only:  HeadPolicy(TagResponseHeadOnly),
		&t.tail:  TailPolicy(),
	})
}

func needsKey(k *Key) error {
	if k == nil {
		return errors.New("there is no key to sign requests with")
	}
	return nil
}

// responseOptions returns the options of a client's verifiers. If lookup is nil, only the
// client's own key is accepted.
func responseOptions(own *Key, lookup func(id string) *Key, now func() time.Time) VerifierOptions {
	if lookup == nil {
		lookup = func(id string) *Key {
			if id == own.id {
				return own
			}
			return nil
		}
	}
	return VerifierOptions{Key: lookup, Now: now}
}

// newVerifiers makes verifiers that accept all algorithms.
func newVerifiers(o VerifierOptions, all map[**Verifier]Policy) error {
	for to, policy := range all {
		policy.Algorithms = []Algorithm{HMACSHA256, Ed25519}
		var err error
		if *to, err = NewVerifier(policy, o); err != nil {
			return err
		}
	}
	return nil
}

// sign returns a copy of the request with digest and signature, the signed message and
// the nonce.
func (t *Transport) sign(r *http.Request) (*http.Request, *Message, string, error) {
	signed := r.Clone(r.Context())
	if signed.Header == nil {
		signed.Header = make(http.Header)
	}
	digest, err := digestBody(signed)
	if err != nil {
		return nil, nil, "", err
	}
	signed.Header.Set("Content-Digest", digest)
	if signed.Header.Get("Accept-Encoding") == "" {
		// Otherwise net/http would ask for gzip and decompress the response, and the
		// content would not match its digest.
		signed.Header.Set("Accept-Encoding", "identity")
	}
	if signed.Header.Get("Te") == "" {
		signed.Header.Set("Te", "trailers") // they carry the signature of a stream
	}
	m, err := messageOf(signed)
	if err != nil {
		return nil, nil, "", err
	}
	s, err := t.signer.Sign(t.Key, m, "")
	if err != nil {
		return nil, nil, "", err
	}
	signed.Header.Set("Signature-Input", s.Input)
	signed.Header.Set("Signature", s.Signature)
	return signed, m, s.Nonce, nil
}

// digestBody returns the digest of the content, which can still be read afterwards.
func digestBody(r *http.Request) (string, error) {
	if r.Body == nil {
		return ContentDigest(nil), nil
	}
	if r.GetBody != nil {
		body, err := r.GetBody()
		if err != nil {
			return "", err
		}
		defer body.Close()
		d := NewDigester()
		if _, err := io.Copy(d, body); err != nil {
			return "", err
		}
		return d.Value(), nil
	}
	content, err := io.ReadAll(io.LimitReader(r.Body, maxBody+1))
	if err != nil {
		return "", err
	}
	if len(content) > maxBody {
		return "", fmt.Errorf("the content is longer than %d bytes and can be read only once", maxBody)
	}
	r.Body.Close()
	r.Body, r.ContentLength = io.NopCloser(bytes.NewReader(content)), int64(len(content))
	return ContentDigest(content), nil
}

// messageOf returns a client's request as net/http will send it.
func messageOf(r *http.Request) (*Message, error) {
	m := &Message{Method: r.Method, Scheme: r.URL.Scheme, Authority: r.Host, Fields: Header(r.Header)}
	if m.Method == "" {
		m.Method = "GET"
	}
	if m.Authority == "" {
		m.Authority = r.URL.Host
	}
	m.Path, m.Query, m.HasQuery = strings.Cut(r.URL.RequestURI(), "?")
	if !strings.HasPrefix(m.Path, "/") {
		return nil, errors.New("the target is not a path")
	}
	return m, nil
}

// Header adapts a net/http header to [Fields].
func Header(h http.Header) Fields { return header(h) }

type header http.Header

func (h header) Line(name string, n int) (string, bool) {
	lines := h[textproto.CanonicalMIMEHeaderKey(name)]
	if n >= len(lines) {
		return "", false
	}
	return lines[n], true
}

// verify verifies the head of a response and replaces its body by one that verifies the
// content.
func (t *Transport) verify(r *http.Response, request *Message, nonce string) error {
	m := &Message{Status: r.StatusCode, Fields: Header(r.Header), Request: request}
	body := &verifiedBody{ReadCloser: r.Body, digester: NewDigester()}
	_, err := t.whole.VerifyResponse(m, nonce, false)
	if err == nil {
		digests, err := ParseContentDigest(m.Fields)
		if err != nil {
			return err
		}
		body.checker = digests.NewChecker()
		r.Body = body
		return nil
	}
	if !missing(err) {
		return err
	}
	if _, err = t.head.VerifyResponse(m, nonce, false); err == nil {
		body.tail = func() error { return t.verifyTail(m, r, nonce, body.digester.Value()) }
		r.Body = body
		return nil
	}
	if !missing(err) {
		return err
	}
	empty := request.Method == "HEAD" || r.StatusCode == 204 || r.StatusCode == 304
	switch _, err = t.only.VerifyResponse(m, nonce, false); {
	case err == nil && (empty || t.AcceptHeadOnly):
		return nil
	case err == nil:
		return fault(Coverage, "only the head of the response is signed")
	case missing(err) && t.AcceptUnsigned:
		return nil
	}
	return err
}

func missing(err error) bool { return is(err, Missing) }

// is reports whether an error is an [*Error] with this code.
func is(err error, c Code) bool {
	var e *Error
	return errors.As(err, &e) && e.Code == c
}

// verifyTail verifies the signature in the trailers that the head announced, and compares
// its digest with that of the content. The trailers must have only sha-256, the one
// digest that the body has computed.
func (t *Transport) verifyTail(m *Message, r *http.Response, nonce, digest string) error {
	m.Trailers = Header(r.Trailer)
	if _, err := t.tail.VerifyResponse(m, nonce, true); err != nil {
		return err
	}
	want, err := ParseContentDigest(m.Trailers)
	if err != nil {
		return err
	}
	got, err := ParseContentDigest(Lines{{Name: "content-digest", Value: digest}})
	if err == nil && got != want {
		return fault(DigestMismatch, "")
	}
	return err
}

// verifiedBody is a body that ends with io.EOF only if its content verifies.
type verifiedBody struct {
	io.ReadCloser
	checker  *Checker     // nil for a stream
	digester *Digester    // of a stream
	tail     func() error // of a stream
	end      error
}

// Read implements [io.Reader].
func (b *verifiedBody) Read(p []byte) (int, error) {
	if b.end != nil {
		return 0, b.end
	}
	n, err := b.ReadCloser.Read(p)
	if b.checker != nil {
		_, _ = b.checker.Write(p[:n])
	} else {
		_, _ = b.digester.Write(p[:n])
	}
	if err == io.EOF {
		bad := error(nil)
		if b.checker != nil {
			bad = b.checker.Check()
		} else {
			bad = b.tail()
		}
		if bad != nil {
			err = fmt.Errorf("verifying the content of the response: %w", bad)
		}
	}
	b.end = err
	return n, err
}
