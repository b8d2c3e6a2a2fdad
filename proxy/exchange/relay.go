package exchange

import (
	"io"
	"slices"
	"strings"

	"sallyport/auth/httpsig"
	"sallyport/proxy/limit"
	"sallyport/proxy/message"
	"sallyport/proxy/route"
	"sallyport/proxy/seal"
	"sallyport/proxy/upstream"
)

// relay sends the upstream's answer to the client as it arrives. An answer that is signed as a
// whole is sent once all of it has arrived.
func (x *exchange) relay(answer *upstream.Response) error {
	h := &answer.Head
	x.served = x.reading.ServedScanner(h)
	x.rewriteLocation(h, answer.Host)
	x.dress(h)
	if x.grpc {
		x.shapeCall(h)
	}
	hasBody := message.MayHaveBody(x.head.Method, h.Status)
	held := x.holdsAnswer(h)
	form := x.answer.FormOf(x.head, h, held)
	if hasBody && held && (form == seal.FormHeader || x.answer.WantsDigest() || x.route.Leg.Verifies()) {
		return x.relayHeld(answer, form)
	}
	if form == seal.FormTrailer || form == seal.FormInline {
		h.ContentLength = -1
		h.Fields.Del("content-digest")
	}
	streams := hasBody && h.ContentLength < 0
	length := h.ContentLength
	var compressed *route.Compressor
	if form == seal.FormNone {
		compressed = x.route.Compression.Begin(h, x.head, x.stream, x.server.Compressors)
	}
	if compressed != nil {
		defer func() {
			x.record.BytesOut = compressed.Sent
			compressed.Release()
		}()
	}
	if err := x.signHead(h, form); err != nil {
		return err
	}
	err := x.sendHead(h, streams && x.head.Trailers)
	if err == nil && streams {
		err = x.flushHead(answer.Body)
	}
	if err != nil {
		return err
	}
	var tail *seal.Tail
	if form == seal.FormTrailer || form == seal.FormInline {
		tail = seal.NewTail(x.stream)
	}
	if x.grpc && streams {
		x.noteOpen(h, form, tail)
	}
	switch {
	case compressed != nil:
		if err = x.pump(answer.Body, length, compressed); err == nil {
			if gerr := compressed.Close(); gerr != nil {
				err = errClientGone(gerr)
			}
		}
	case tail != nil:
		err = x.pump(answer.Body, length, tail)
	case hasBody:
		err = x.pump(answer.Body, length, x.stream)
	}
	if err != nil {
		return err
	}
	var trailers message.Fields
	if streams && x.head.Trailers {
		trailers = x.trailersOf(answer)
	}
	return x.end(h, form, tail, trailers)
}

// signHead signs the head of an answer. It blames the upstream if a field cannot be covered by a
// signature.
func (x *exchange) signHead(h *message.Response, form seal.Form) error {
	if err := x.answer.SignHead(h, form); err != nil {
		return &refusal{reason: reasonGarbage, cause: err}
	}
	x.record.Signed = string(form)
	return nil
}

// holdsAnswer reports whether an answer is held, to be signed or verified as a whole. Callers who
// did not sign may use only half of the memory.
func (x *exchange) holdsAnswer(h *message.Response) bool {
	return h.ContentLength >= 0 && h.ContentLength <= x.route.Integrity.ResponseBuffer &&
		(x.proof.Signature != nil || x.route.Leg.Verifies() || x.server.Held.Used() < x.server.Held.Total()/2)
}

// relayHeld reads the whole answer, signs its head, and sends both. If the answer breaks off,
// nothing of it is sent.
func (x *exchange) relayHeld(answer *upstream.Response, form seal.Form) error {
	h := &answer.Head
	var held seal.Buffer
	defer held.Release()
	if h.ContentLength != 0 {
		if err := held.Fill(x.server.Held, answer.Body, h.ContentLength); err != nil {
			return err
		}
	}
	if x.life.Err() != nil {
		return x.life.Cause()
	}
	if form == seal.FormHeader || x.answer.WantsDigest() {
		h.Fields.Set("content-digest", held.Digest())
	}
	if err := x.signHead(h, form); err != nil {
		return err
	}
	if err := x.sendHead(h, false); err != nil {
		return err
	}
	if err := held.Each(x.send); err != nil {
		return err
	}
	x.noteCall(h.Fields, nil)
	return x.finishAnswer(nil)
}

// send sends one piece of held content.
func (x *exchange) send(p []byte) error {
	if err := x.sending.extend(); err != nil {
		return errClientGone(err)
	}
	if _, err := x.stream.Write(p); err != nil {
		return errClientGone(err)
	}
	x.record.BytesOut += int64(len(p))
	x.readServed(p)
	return nil
}

// sendHead sends the head of an upstream's answer. After it, a fault can only cut the answer;
// x.sending limits the rest.
func (x *exchange) sendHead(h *message.Response, trailers bool) error {
	x.responded = true
	if err := x.boundSending(); err != nil {
		return err
	}
	x.keepEnd()
	if err := x.stream.Respond(h, trailers); err != nil {
		return errClientGone(err)
	}
	return nil
}

// boundSending sets the time limit of the next writes to the client. Call it before the first write,
// which may be an interim response, and before each write that may follow a long silence.
func (x *exchange) boundSending() error {
	x.sending.idle, x.sending.stream, x.sending.clock, x.sending.writes = x.timeouts.Idle, x.stream, x.server.Clock, true
	if err := x.sending.extend(); err != nil {
		return errClientGone(err)
	}
	return nil
}

// flushHead sends the head of a stream at once if no content has arrived with it. The client
// may wait for the head before it sends more, or limit how long it waits for the head alone.
func (x *exchange) flushHead(body message.Body) error {
	if followed(body) {
		return nil
	}
	if c, ok := body.(message.Coming); ok && c.Coming() {
		return nil
	}
	if err := x.stream.Flush(); err != nil {
		return errClientGone(err)
	}
	return nil
}

// trailersOf returns the upstream's trailers that are forwarded.
func (x *exchange) trailersOf(answer *upstream.Response) message.Fields {
	trailers := slices.Clone(answer.Body.Trailers())
	x.dropOwnFields(&trailers)
	if x.answer.Signs() {
		trailers.Del("content-digest") // the gateway writes its own
	}
	return trailers
}

// end completes the answer, with the signature over a stream.
func (x *exchange) end(h *message.Response, form seal.Form, tail *seal.Tail, trailers message.Fields) error {
	x.noteCall(h.Fields, trailers)
	if err := x.boundSending(); err != nil {
		return err
	}
	if tail != nil {
		signed, behind, err := x.answer.SignTail(tail, form, h, trailers)
		if err != nil {
			return &refusal{reason: reasonGarbage, cause: err}
		}
		trailers = signed
		if behind != "" {
			if _, err := x.stream.Write([]byte(behind)); err != nil {
				return errClientGone(err)
			}
		}
	}
	return x.finishAnswer(trailers)
}

// finishAnswer completes the upstream's answer.
func (x *exchange) finishAnswer(trailers message.Fields) error {
	if err := x.stream.Finish(trailers); err != nil {
		return errClientGone(err)
	}
	x.whole = true
	return nil
}

// dress adds the gateway's own fields to an answer.
func (x *exchange) dress(h *message.Response) {
	r, https := x.route, x.scheme() == "https"
	x.dropOwnFields(&h.Fields)
	r.Security.Screen(h, https)
	x.nameModel(h)
	x.tellQuota(limit.Quota{}, &h.Fields)
	r.ToClient.Apply(&h.Fields)
	r.Security.Dress(h, https)
	h.Fields.Set(route.RequestIDField, x.record.RequestID)
	if r.CORS != nil {
		r.CORS.Mark(&h.Fields, x.head.Fields)
	}
}

// nameModel adds the fields that name the model, so that the signature covers them.
func (x *exchange) nameModel(h *message.Response) {
	if !x.answer.Signs() || h.Status >= 300 {
		return
	}
	if x.call.Model != "" {
		h.Fields.Add(httpsig.ModelField, printable(x.call.Model))
	}
	if v := x.call.Numbered(); v != "" {
		h.Fields.Add(httpsig.VersionField, v)
	}
}

// rewriteLocation maps an absolute Location on the upstream's host to the client's URL, like
// nginx's proxy_redirect: clients cannot reach the upstream and should not learn its name. Relative
// ones stay: an upstream that heeds X-Forwarded-Prefix has made them for the client.
func (x *exchange) rewriteLocation(h *message.Response, host string) {
	for i := range h.Fields {
		f := &h.Fields[i]
		if f.Name != "location" {
			continue
		}
		rest, ok := strings.CutPrefix(f.Value, "http://")
		if !ok {
			if rest, ok = strings.CutPrefix(f.Value, "https://"); !ok {
				continue
			}
		}
		end := strings.IndexAny(rest, "/?#")
		if end < 0 {
			end = len(rest)
		}
		if !strings.EqualFold(rest[:end], host) {
			continue
		}
		path := rest[end:]
		if path == "" || path[0] != '/' {
			path = "/" + path
		}
		f.Value = x.head.Scheme + "://" + x.head.Authority + x.route.Rewriting.Location(path)
	}
}

// pump copies the content; left is the number of bytes to come, negative if unknown. It forwards
// data as it arrives: an event must not wait for the next.
func (x *exchange) pump(body message.Body, left int64, to seal.Sink) error {
	buf := seal.Blocks.Get().(*[]byte)
	defer seal.Blocks.Put(buf)
	for {
		n, err := body.Read(*buf)
		if n > 0 {
			if werr := x.sending.extend(); werr != nil {
				return errClientGone(werr)
			}
			if _, werr := to.Write((*buf)[:n]); werr != nil {
				return errClientGone(werr)
			}
			x.record.BytesOut += int64(n)
			if x.grpc {
				// A caller that only listens is not idle.
				_ = x.content.counted.wait.extend()
			}
			if left -= int64(n); left != 0 && err == nil && !followed(body) {
				if werr := to.Flush(); werr != nil {
					return errClientGone(werr)
				}
			}
			x.readServed((*buf)[:n])
		}
		if err == io.EOF {
			return nil
		}
		if err != nil {
			return err
		}
		if left < 0 && x.life.Err() != nil {
			return x.life.Cause()
		}
	}
}

// followed reports whether more of a body, or its end, can be read without waiting. Earlier bytes
// can then be sent in the same write.
func followed(body message.Body) bool {
	n, whole := message.ArrivedOf(body)
	return n > 0 || whole
}

// errClientGone turns a write error into the refusal for a client that has left.
func errClientGone(err error) error { return &refusal{reason: reasonClientGone, cause: err} }
