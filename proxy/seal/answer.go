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
)

// Signers sign answers. They are immutable.
type Signers struct {
	whole, head, headOnly, tail *httpsig.Signer

	auth      *auth.Auth
	published *auth.SigningKey // signs for callers without a key; may be nil
	now       func() time.Time
}

// eventStream is the media type of event streams.
const eventStream = "text/event-stream"

// NewSigners returns the signers of a configuration. publish is the keyid of the key that signs for
// callers without a key; "" for none.
func NewSigners(a *auth.Auth, publish string, now func() time.Time) (*Signers, error) {
	s := &Signers{auth: a, published: a.Key(publish), now: now}
	for _, p := range []struct {
		to      **httpsig.Signer
		profile httpsig.Profile
	}{
		{&s.whole, httpsig.ResponseProfile()},
		{&s.head, httpsig.HeadProfile(httpsig.TagResponseHead)},
		{&s.headOnly, httpsig.HeadProfile(httpsig.TagResponseHeadOnly)},
		{&s.tail, httpsig.TailProfile()},
	} {
		var err error
		if *p.to, err = httpsig.NewSigner(p.profile, now); err != nil {
			return nil, err
		}
	}
	return s, nil
}

// Published returns the key that signs for callers without a key, and its public half. It returns
// nil if there is no such key or it is not valid now.
func (s *Signers) Published() (key *httpsig.Key, public []byte) {
	if key = s.published.For(auth.SignResponse, s.now()); key == nil {
		return nil, nil
	}
	return key, s.published.Public()
}

// Answer signs the answer to one request. The zero Answer signs nothing.
type Answer struct {
	signers *Signers
	policy  *Policy
	key     *httpsig.Key // nil: unsigned
	nonce   string       // the request's nonce, repeated in the answer
	request httpsig.Message
	wanted  *httpsig.Wanted // components the caller asked for; nil: the default ones
	digest  bool            // the caller asked only for a digest
	caller  bool            // the caller signed the request
}

// Form is where the signature of an answer is placed, in the words of the audit record.
type Form string

const (
	FormNone    Form = ""
	FormHeader  Form = "header"
	FormTrailer Form = "trailer"
	FormInline  Form = "inline"
	FormHead    Form = "head_only"
)

// ChooseKey chooses the key that signs the answer. A request signed with a caller's own key gets an
// answer signed with it, refusals included. Callers without a key may ask for the published one.
// ChooseKey is called once the signature has been verified (s, nil if there is none), and again
// with authenticated set once the caller is known.
func (a *Answer) ChooseKey(from *Signers, p *Policy, head *message.Head, s *httpsig.Signature, authenticated bool) {
	if p.unsigned || a.key != nil {
		return
	}
	a.signers, a.policy, a.caller = from, p, s != nil
	published := from.published.For(auth.SignResponse, from.now())
	asks := head.Fields.Has("accept-signature")
	switch {
	case s != nil:
		a.key = from.auth.Key(s.Key.ID()).For(auth.SignResponse, from.now())
		if a.key == nil {
			a.key = published
		}
		a.nonce = s.Nonce
		a.request = auth.Message(head)
		if a.key != nil && asks {
			a.readAcceptSignature(head, published)
		}
	case authenticated && asks && published != nil:
		a.request = auth.Message(head)
		if a.readAcceptSignature(head, published); a.wanted != nil && a.wanted.Nonce != "" {
			a.key, a.nonce = published, a.wanted.Nonce
		}
	}
	if a.key == nil && authenticated {
		a.digest = httpsig.WantsContentDigest(&head.Fields)
	}
}

// readAcceptSignature reads which signature the caller asks for. If it cannot be made, the answer
// is signed in the default way, which the caller can see.
func (a *Answer) readAcceptSignature(head *message.Head, published *httpsig.Key) {
	all, err := httpsig.ParseAcceptSignature(&head.Fields)
	if err != nil {
		return
	}
	for i := range all {
		w := &all[i]
		if w.Tag != "" && w.Tag != httpsig.TagResponse {
			continue
		}
		if published != nil && (w.KeyID == published.ID() || w.Alg == string(httpsig.Ed25519)) {
			a.key = published
		}
		if w.Nonce != "" && a.nonce == "" {
			a.nonce = w.Nonce
		}
		a.wanted = w
		return
	}
}

// Signs reports whether the answer will be signed.
func (a *Answer) Signs() bool { return a.key != nil }

// WantsDigest reports whether the caller asked only for a digest of the content.
func (a *Answer) WantsDigest() bool { return a.digest }

// Forget leaves the answer unsigned.
func (a *Answer) Forget() { *a = Answer{} }

// FormOf chooses where the signature of an answer goes. held reports whether all of its content is
// read before its head is sent.
func (a *Answer) FormOf(request *message.Head, h *message.Response, held bool) Form {
	hasBody := message.MayHaveBody(request.Method, h.Status)
	switch {
	case a.key == nil:
		return FormNone
	case !hasBody:
		return FormHead
	case held:
		return FormHeader
	case request.Version == message.HTTP10:
		return FormHead
	case a.policy.inline && mediaType(h.Fields.Get("content-type")) == eventStream && !h.Fields.Has("content-encoding"):
		return FormInline // a plain-text comment would break an encoded stream
	case request.Trailers:
		return FormTrailer
	}
	return FormHead
}

// mediaType returns a content type without parameters, in lower case.
func mediaType(contentType string) string {
	media, _, _ := strings.Cut(contentType, ";")
	return strings.ToLower(strings.TrimSpace(media))
}

// message returns the form of the answer that is signed.
func (a *Answer) message(h *message.Response) *httpsig.Message {
	return &httpsig.Message{Status: h.Status, Fields: &h.Fields, Request: &a.request}
}

// SignHead signs the head of an answer; it does nothing for [FormNone].
func (a *Answer) SignHead(h *message.Response, form Form) error {
	if form == FormNone {
		return nil
	}
	signer := a.signers.headOnly
	switch form {
	case FormHeader:
		signer = a.signers.whole
	case FormTrailer, FormInline:
		signer = a.signers.head
	}
	if !a.caller {
		h.Fields.AddVary("Accept-Signature")
	}
	m := a.message(h)
	signed, ok := httpsig.Signed{}, false
	if form == FormHeader {
		signed, ok = a.signAsWanted(m)
	}
	if !ok {
		var err error
		if signed, err = signer.Sign(a.key, m, a.nonce); err != nil {
			return fmt.Errorf("signing the answer: %w", err)
		}
	}
	h.Fields.Add("signature-input", signed.Input)
	h.Fields.Add("signature", signed.Signature)
	return nil
}

// signAsWanted makes the signature that Accept-Signature describes. ok is false if that is the
// default one or covers fields the answer lacks. An attacker gains nothing by changing
// Accept-Signature: the client decides by its own policy which signatures it trusts.
func (a *Answer) signAsWanted(m *httpsig.Message) (signed httpsig.Signed, ok bool) {
	w := a.wanted
	if w == nil || len(w.Components) == 0 {
		return signed, false
	}
	p := httpsig.ResponseProfile()
	p.Label, p.Cover, p.IfPresent, p.Alg = w.Label, w.Components, nil, w.Alg != ""
	if !slices.Contains(p.Cover, "@status") {
		p.Cover = append([]string{"@status"}, p.Cover...)
	}
	if !slices.Contains(p.Cover, "content-digest") {
		p.Cover = append(p.Cover, "content-digest")
	}
	signer, err := httpsig.NewSigner(p, a.signers.now)
	if err != nil {
		return signed, false
	}
	signed, err = signer.Sign(a.key, m, a.nonce)
	return signed, err == nil
}

// Sink receives the content of an answer.
type Sink interface {
	io.Writer
	Flush() error
}

// Tail passes content to a sink and computes the digest that is signed at the end.
type Tail struct {
	Sink
	digester *httpsig.Digester
	last     [4]byte // the last bytes written, to detect the end of an event
	n        int64
}

// NewTail returns a Tail that writes to a sink.
func NewTail(to Sink) *Tail { return &Tail{Sink: to, digester: httpsig.NewDigester()} }

func (t *Tail) Write(p []byte) (int, error) {
	_, _ = t.digester.Write(p)
	t.n += int64(len(p))
	for _, c := range p[max(0, len(p)-len(t.last)):] {
		copy(t.last[:], t.last[1:])
		t.last[len(t.last)-1] = c
	}
	return t.Sink.Write(p)
}

// endsEvent reports whether an event stream ended after an event, not within one.
func (t *Tail) endsEvent() bool {
	end := string(t.last[:])
	return t.n == 0 || strings.HasSuffix(end, "\n\n") || strings.HasSuffix(end, "\r\r") || strings.HasSuffix(end, "\n\r\n")
}

// errMidEvent prevents an inline signature within an event.
var errMidEvent = errors.New("the stream ended within an event")

// SignTail signs the content that was written, and the gRPC status. It returns the trailers to send
// and, for [FormInline], the text to write after the content.
func (a *Answer) SignTail(t *Tail, form Form, h *message.Response, trailers message.Fields) (message.Fields, string, error) {
	if form == FormInline && !t.endsEvent() {
		return nil, "", errMidEvent
	}
	fields := append(slices.Clip(trailers), message.Field{Name: "content-digest", Value: t.digester.Value()})
	m := a.message(h)
	m.Trailers = &fields
	signed, err := a.signers.tail.Sign(a.key, m, a.nonce)
	if err != nil {
		return nil, "", fmt.Errorf("signing the end of the answer: %w", err)
	}
	fields.Add("signature-input", signed.Input)
	fields.Add("signature", signed.Signature)
	if form == FormInline {
		return trailers, eventTail(fields), nil
	}
	return fields, "", nil
}

// eventTail returns the comment that ends a signed event stream. Parsers skip comments.
func eventTail(f message.Fields) string {
	return ": sallyport-sig " + f.Get("signature-input") + " " + f.Get("signature") + " " + f.Get("content-digest") + "\n\n"
}
