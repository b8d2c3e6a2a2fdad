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

// maxBody is how much of a request's content Transport keeps in memory at most.
const maxBody = 32 << 20

// Transport signs requests and verifies responses. Each attempt is signed anew,
// so that retries and redirects above it work. It is safe for concurrent use; its
// fields must not change after the first request. The zero Transport sends nothing.
//
// Content is read twice: once for its digest, once to be sent. Requests with
// GetBody (which net/http sets for readers of memory) are not copied; the content
// of others is read into memory.
//
// The content of a response is verified as it is read: its reader ends with io.EOF
// only if it is what was signed, and else with an [*Error]. Do not act on it before.
type Transport struct {
	Base http.RoundTripper // http.DefaultTransport if nil
	Key  *Key              // signs requests; required

	// Cover are further fields that are signed where a request has them, by their
	// lower-case names: those that a route demands, such as authorization.
	Cover []string

	// ResponseKey finds the keys of those who sign responses. If nil, that is Key.
	ResponseKey func(id string) *Key

	// AcceptUnsigned lets responses pass that bear no signature of ours, such as
	// refusals by who does not know the key. What bears one must verify all the same.
	AcceptUnsigned bool
	// AcceptHeadOnly lets streams pass of which only the head is signed. Responses
	// without content always may be such.
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

// RoundTrip sends a request with a signature. The error wraps an [*Error] where
// the response is not what was signed, or not signed.
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
	if t.Key == nil {
		t.fault = errors.New("the transport has no key")
		return
	}
	profile := RequestProfile()
	profile.IfPresent = append(profile.IfPresent, t.Cover...)
	if t.signer, t.fault = NewSigner(profile, t.Now); t.fault != nil {
		return
	}
	o := VerifierOptions{Key: t.ResponseKey, Now: t.Now}
	if o.Key == nil {
		o.Key = func(id string) *Key {
			if id == t.Key.id {
				return t.Key
			}
			return nil
		}
	}
	for _, v := range []struct {
		to     **Verifier
		policy Policy
	}{
		{&t.whole, ResponsePolicy()},
		{&t.head, HeadPolicy(TagResponseHead)},
		{&t.only, HeadPolicy(TagResponseHeadOnly)},
		{&t.tail, TailPolicy()},
	} {
		v.policy.Algorithms = []Algorithm{HMACSHA256, Ed25519}
		if *v.to, t.fault = NewVerifier(v.policy, o); t.fault != nil {
			return
		}
	}
}

// sign returns a copy of the request with its digest and signature, and what was
// signed.
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
		// Otherwise net/http would ask for gzip and undo it, and nobody could compare
		// the content with its digest.
		signed.Header.Set("Accept-Encoding", "identity")
	}
	if signed.Header.Get("Te") == "" {
		signed.Header.Set("Te", "trailers") // the signature over a stream comes there
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

// digestBody computes the digest and leaves the content as it was.
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

// messageOf is a request of a client as net/http will send it.
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

// Header gives the fields of net/http to a [Message].
func Header(h http.Header) Fields { return header(h) }

type header http.Header

func (h header) Line(name string, n int) (string, bool) {
	lines := h[textproto.CanonicalMIMEHeaderKey(name)]
	if n >= len(lines) {
		return "", false
	}
	return lines[n], true
}

// verify checks the head of a response and has its content checked as it is read.
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

func missing(err error) bool {
	var e *Error
	return errors.As(err, &e) && e.Code == Missing
}

// verifyTail checks what the head promised: a signature in the trailers, over the
// digest of all that came between. Its digest must be sha-256 alone, the only one
// that was computed on the way.
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

// verifiedBody is content that ends in io.EOF only if it is what was signed.
type verifiedBody struct {
	io.ReadCloser
	checker  *Checker     // nil for a stream
	digester *Digester    // of a stream
	tail     func() error // of a stream
	end      error
}

// Read hands on the content.
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
