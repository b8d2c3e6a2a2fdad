package proxy

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"sallyport/auth"
	"sallyport/auth/httpsig"
	"sallyport/proxy/message"
	"sallyport/proxy/upstream"
)

// answerSigners make the signatures of answers. They are safe for concurrent use.
type answerSigners struct {
	whole, head, headOnly, tail *httpsig.Signer
	now                         func() time.Time
	published                   *auth.SigningKey // signs for callers without a key; nil: none
}

// The fields by which an answer tells which model gave it, covered by its signature.
const (
	modelField   = "x-sallyport-model"
	versionField = "x-sallyport-model-version"
)

// receipted is a profile whose signatures cover which model answered.
func receipted(p httpsig.Profile) httpsig.Profile {
	p.IfPresent = append(p.IfPresent, modelField, versionField)
	return p
}

func newAnswerSigners(published *auth.SigningKey, now func() time.Time) (*answerSigners, error) {
	s := &answerSigners{published: published, now: now}
	for _, p := range []struct {
		to      **httpsig.Signer
		profile httpsig.Profile
	}{
		{&s.whole, receipted(httpsig.ResponseProfile())},
		{&s.head, receipted(httpsig.HeadProfile(httpsig.TagResponseHead))},
		{&s.headOnly, receipted(httpsig.HeadProfile(httpsig.TagResponseHeadOnly))},
		{&s.tail, httpsig.TailProfile()},
	} {
		var err error
		if *p.to, err = httpsig.NewSigner(p.profile, now); err != nil {
			return nil, err
		}
	}
	return s, nil
}

// answerSigning is how the answer of one exchange is signed. The zero one signs
// nothing.
type answerSigning struct {
	key     *httpsig.Key // nil: not at all
	nonce   string       // echoed
	request httpsig.Message
	wanted  *httpsig.Wanted // what the caller asked for instead of the usual; nil: the usual
	digest  bool            // the caller asked for a digest alone
}

// signatureForm is where the signature of an answer stands, as records name it.
type signatureForm string

const (
	formNone    signatureForm = ""
	formHeader  signatureForm = "header"
	formTrailer signatureForm = "trailer"
	formInline  signatureForm = "inline"
	formHead    signatureForm = "head_only"
)

// vouch decides whether the answer will be signed and with which key: with the
// caller's own where that signed the request, so that a refusal is signed too, and
// with the published one for those who ask and have none. It is called once the
// signature held, and again once the caller is known.
func (x *exchange) vouch(authenticated bool) {
	if x.route.integrity.unsigned || x.signing.key != nil {
		return
	}
	s := x.proof.Signature
	published := x.g.signers.published.For(auth.SignResponse, x.g.now())
	switch {
	case s != nil:
		x.signing.key = x.g.auth.Key(s.Key.ID()).For(auth.SignResponse, x.g.now())
		if x.signing.key == nil {
			x.signing.key = published
		}
		x.signing.nonce = s.Nonce
		x.signing.request = auth.Message(x.head)
		if x.signing.key != nil && x.head.Fields.Has("accept-signature") {
			x.heed(published)
		}
	case authenticated && x.head.Fields.Has("accept-signature") && published != nil:
		x.signing.request = auth.Message(x.head)
		if x.heed(published); x.signing.wanted != nil && x.signing.wanted.Nonce != "" {
			x.signing.key, x.signing.nonce = published, x.signing.wanted.Nonce
		}
	}
	if x.signing.key == nil && authenticated {
		x.signing.digest = httpsig.WantsContentDigest(&x.head.Fields)
	}
}

// heed reads Accept-Signature. What it asks for that cannot be had is no fault: the
// answer is signed as usual, and who asked sees it.
func (x *exchange) heed(published *httpsig.Key) {
	all, err := httpsig.ParseAcceptSignature(&x.head.Fields)
	if err != nil {
		return
	}
	for i := range all {
		w := &all[i]
		if w.Tag != "" && w.Tag != httpsig.TagResponse {
			continue
		}
		if published != nil && (w.KeyID == published.ID() || w.Alg == string(httpsig.Ed25519)) {
			x.signing.key = published
		}
		if w.Nonce != "" && x.signing.nonce == "" {
			x.signing.nonce = w.Nonce
		}
		x.signing.wanted = w
		return
	}
}

// formOf decides where the signature of an answer will stand.
func (x *exchange) formOf(h *message.Response) signatureForm {
	hasBody := message.MayHaveBody(x.head.Method, h.Status)
	switch {
	case x.signing.key == nil:
		return formNone
	case !hasBody:
		return formHead
	case x.holdsAnswer(h):
		return formHeader
	case x.head.Version == message.HTTP10:
		return formHead
	case x.route.integrity.inline && mediaType(h.Fields.Get("content-type")) == eventStream && !h.Fields.Has("content-encoding"):
		return formInline // a comment in plain text would break what is encoded
	case x.head.Trailers:
		return formTrailer
	}
	return formHead
}

// holdsAnswer says whether an answer is held, to be signed or compared as a whole. Callers
// who have signed nothing leave half of the memory to those who have.
func (x *exchange) holdsAnswer(h *message.Response) bool {
	return h.ContentLength >= 0 && h.ContentLength <= x.route.integrity.responseBuffer &&
		(x.proof.Signature != nil || x.route.upstreamLeg.verifies() || x.g.memory.Used() < x.g.memory.Total()/2)
}

// mediaType is a content type without its parameters, in lower case.
func mediaType(contentType string) string {
	media, _, _ := strings.Cut(contentType, ";")
	return strings.ToLower(strings.TrimSpace(media))
}

// response is the answer as it is signed.
func (x *exchange) response(h *message.Response) *httpsig.Message {
	return &httpsig.Message{Status: h.Status, Fields: &h.Fields, Request: &x.signing.request}
}

// sealHead signs the head of an answer.
func (x *exchange) sealHead(h *message.Response, form signatureForm) error {
	signer := x.g.signers.headOnly
	switch form {
	case formNone:
		return nil
	case formHeader:
		signer = x.g.signers.whole
	case formTrailer, formInline:
		signer = x.g.signers.head
	}
	if x.proof.Signature == nil {
		addVary(&h.Fields, "Accept-Signature")
	}
	m := x.response(h)
	signed, ok := httpsig.Signed{}, false
	if form == formHeader {
		signed, ok = x.signAsWanted(m)
	}
	if !ok {
		var err error
		if signed, err = signer.Sign(x.signing.key, m, x.signing.nonce); err != nil {
			return fmt.Errorf("signing the answer: %w", err)
		}
	}
	h.Fields.Add("signature-input", signed.Input)
	h.Fields.Add("signature", signed.Signature)
	x.record.Signed = string(form)
	return nil
}

// signAsWanted makes the signature that Accept-Signature describes. It is not ok where
// that is the usual one, or names what the answer does not have. The client's own
// policy decides what it believes, so that whoever changed the field on the way
// gained nothing.
func (x *exchange) signAsWanted(m *httpsig.Message) (signed httpsig.Signed, ok bool) {
	w := x.signing.wanted
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
	signer, err := httpsig.NewSigner(p, x.g.now)
	if err != nil {
		return signed, false
	}
	signed, err = signer.Sign(x.signing.key, m, x.signing.nonce)
	return signed, err == nil
}

// relayHeld holds the answer, signs it in its head, and sends both: nothing of an
// answer that breaks in the middle is sent.
func (x *exchange) relayHeld(answer *upstream.Response, form signatureForm) error {
	h := &answer.Head
	var content held
	defer content.release()
	if h.ContentLength != 0 {
		if err := x.keep(content.fill(x.g.memory, answer.Body, h.ContentLength)); err != nil {
			return err
		}
	}
	if x.life.Err() != nil {
		return x.life.Cause()
	}
	if form == formHeader || x.signing.digest {
		h.Fields.Set("content-digest", content.contentDigest())
	}
	if err := x.sealHead(h, form); err != nil {
		return &refusal{reason: reasonGarbage, cause: err}
	}
	if err := x.open(h, false); err != nil {
		return err
	}
	left := content.size
	for _, b := range content.blocks {
		if err := x.sending.extend(); err != nil {
			return errClientGone(err)
		}
		n := min(left, blockBytes)
		if _, err := x.stream.Write((*b)[:n]); err != nil {
			return errClientGone(err)
		}
		x.record.BytesOut += n
		left -= n
	}
	x.noteCall(h.Fields, nil)
	if err := x.stream.Finish(nil); err != nil {
		return errClientGone(err)
	}
	return nil
}

// tailed is the way of an answer's content to a client that gets the signature over
// it at its end.
type tailed struct {
	sink
	digester *httpsig.Digester
	last     [4]byte // the last of what was written, to see where events end
	n        int64
}

func (t *tailed) Write(p []byte) (int, error) {
	_, _ = t.digester.Write(p)
	t.n += int64(len(p))
	for _, c := range p[max(0, len(p)-len(t.last)):] {
		copy(t.last[:], t.last[1:])
		t.last[len(t.last)-1] = c
	}
	return t.sink.Write(p)
}

// endsEvent says whether an event stream ended behind an event, and not within one.
func (t *tailed) endsEvent() bool {
	end := string(t.last[:])
	return t.n == 0 || strings.HasSuffix(end, "\n\n") || strings.HasSuffix(end, "\r\r") || strings.HasSuffix(end, "\n\r\n")
}

// seal signs the content that went through, and with it the status of gRPC, and
// returns the trailers with the fields that tell so.
func (x *exchange) seal(t *tailed, h *message.Response, trailers message.Fields) (message.Fields, error) {
	fields := append(slices.Clip(trailers), message.Field{Name: "content-digest", Value: t.digester.Value()})
	m := x.response(h)
	m.Trailers = &fields
	signed, err := x.g.signers.tail.Sign(x.signing.key, m, x.signing.nonce)
	if err != nil {
		return nil, fmt.Errorf("signing the end of the answer: %w", err)
	}
	fields.Add("signature-input", signed.Input)
	fields.Add("signature", signed.Signature)
	return fields, nil
}

// eventTail is the comment that ends a signed event stream. Parsers skip comments.
func eventTail(f message.Fields) string {
	return ": sallyport-sig " + f.Get("signature-input") + " " + f.Get("signature") + " " + f.Get("content-digest") + "\n\n"
}

// errMidEvent is why a stream of events is not signed inline.
var errMidEvent = errors.New("the stream ended within an event")

// sealOwn signs an answer of the gateway's own making.
func (x *exchange) sealOwn(h *message.Response, body []byte) {
	form := formHeader
	if !message.MayHaveBody(x.stream.Head().Method, h.Status) {
		form = formHead
	}
	if x.signing.key == nil || x.asker != "" {
		return
	}
	if form == formHeader {
		h.Fields.Set("content-digest", httpsig.ContentDigest(body))
	}
	// All of it is ours or was read strictly: what cannot be signed was refused.
	if err := x.sealHead(h, form); err != nil {
		x.record.Cause = strings.TrimPrefix(x.record.Cause+"; "+err.Error(), "; ")
	}
}

// receipt tells which model answered, for the signature to cover.
func (x *exchange) receipt(h *message.Response) {
	if x.signing.key == nil || h.Status >= 300 {
		return
	}
	if x.call.Model != "" {
		h.Fields.Add(modelField, x.call.Model)
	}
	if x.call.Version != "" {
		h.Fields.Add(versionField, x.call.Version)
	}
}
