package exchange

import (
	"encoding/base64"
	"fmt"
	"net/http"
	"strings"
	"time"

	"sallyport/auth/httpsig"
	"sallyport/policy"
	"sallyport/proxy/message"
	"sallyport/proxy/route"
	"sallyport/proxy/seal"
	"sallyport/proxy/setting"
	"sallyport/proxy/wire"
)

// answerTime is how long a client may take to read an answer made by the gateway.
const answerTime = 10 * time.Second

// skippedBytes is the longest content of a refused request that is skipped to keep the
// connection.
const skippedBytes = 64 << 10

// respondHere sends an answer made by the gateway: every refusal, fixed answer, preflight, public
// document, redirect and decision. It does not read the request's content. The engine
// skips short content, so that a refusal costs the client no handshake; after longer content the
// connection ends.
func (x *exchange) respondHere(h *message.Response, body []byte) error {
	h.Fields.Set(route.RequestIDField, x.record.RequestID)
	for _, c := range x.cookies {
		h.Fields.Add("set-cookie", c)
	}
	x.signOwn(h, body)
	x.responded = true
	x.record.Status = h.Status
	if n := x.stream.Head().ContentLength; n < 0 || n > skippedBytes {
		x.stream.CloseAfter()
	}
	x.keepEnd()
	n, err := WriteAnswer(x.stream, h, body)
	x.record.BytesOut = int64(n)
	if err != nil {
		return errClientGone(err)
	}
	x.whole = true
	return nil
}

// WriteAnswer writes a short answer made by the gateway, and returns how many bytes of the body
// were sent. The client has ten seconds to read it.
func WriteAnswer(s wire.Stream, h *message.Response, body []byte) (n int, err error) {
	if err := s.SetWriteDeadline(time.Now().Add(answerTime)); err != nil {
		return 0, err
	}
	if err := s.Respond(h, false); err != nil {
		return 0, err
	}
	// Use the method on the wire: a decision for another proxy concerns one method and is requested
	// by another.
	if len(body) > 0 && message.MayHaveBody(s.Head().Method, h.Status) {
		if n, err = s.Write(body); err != nil {
			return n, err
		}
	}
	return n, s.Finish(nil)
}

// signOwn signs an answer made by the gateway.
func (x *exchange) signOwn(h *message.Response, body []byte) {
	if !x.answer.Signs() || x.asker != "" {
		return
	}
	form := seal.FormHeader
	if !message.MayHaveBody(x.stream.Head().Method, h.Status) {
		form = seal.FormHead
	}
	if form == seal.FormHeader {
		h.Fields.Set("content-digest", httpsig.ContentDigest(body))
	}
	// All fields were made here or parsed strictly, so signing should not fail.
	if err := x.signHead(h, form); err != nil {
		x.record.Cause = strings.TrimPrefix(x.record.Cause+"; "+err.Error(), "; ")
	}
}

// respond sends the route's fixed answer instead of forwarding. The grant proves that every earlier
// step has passed.
func (x *exchange) respond(grant policy.Grant) error {
	if !grant.Valid() {
		return &refusal{reason: reasonInternal, cause: errNoGrant}
	}
	a := x.route.Fixed
	h := message.Response{Status: a.Status, Fields: append(message.Fields(nil), a.Fields...), ContentLength: int64(len(a.Body))}
	if !message.MayHaveBody("GET", a.Status) {
		h.ContentLength = -1 // 204 and 304 announce no length
	}
	x.dress(&h)
	return x.respondHere(&h, a.Body)
}

// answerPreflight tells a browser what a page may request. It needs no upstream, and no credential,
// which browsers do not send with a preflight.
func (x *exchange) answerPreflight() error {
	c := x.route.CORS
	if !c.Admits(x.head.Fields.Get("origin")) {
		return because(reasonOrigin, "cors.origins does not have "+setting.Quoted(x.head.Fields.Get("origin"), 100))
	}
	h := message.Response{Status: http.StatusNoContent, ContentLength: -1}
	c.Mark(&h.Fields, x.head.Fields)
	h.Fields.Del("access-control-expose-headers") // has no meaning in a preflight
	h.Fields = append(h.Fields, c.Preflight...)
	h.Fields.AddVary("Access-Control-Request-Method")
	h.Fields.AddVary("Access-Control-Request-Headers")
	return x.respondHere(&h, nil)
}

// publicPath is the path that the gateway itself answers on every host. No path below it is ever
// forwarded.
const (
	publicPath = "/.well-known/sallyport"
	keysPath   = publicPath + "/keys" // of signed answers
	jwksPath   = publicPath + "/jwks" // of assertions
)

// isPublic reports whether a path belongs to the gateway. It ignores case, because some servers do.
func isPublic(path string) bool {
	return len(path) >= len(publicPath) && strings.EqualFold(path[:len(publicPath)], publicPath) &&
		(len(path) == len(publicPath) || path[len(publicPath)] == '/')
}

// sendPublicDocument sends a public document, without asking for a credential.
func (x *exchange) sendPublicDocument() error {
	text := x.publicDocument()
	switch {
	case x.asker != "":
		return because(reasonUndecided, "the path is one of the gateway's own")
	case !x.snapshot.Routes.Serves(x.head.Host):
		return route.ErrNoHost
	case text == nil:
		return errNoDocument()
	case x.head.Method != http.MethodGet && x.head.Method != http.MethodHead:
		return &route.MethodError{Allow: "GET, HEAD"}
	}
	return x.respondHere(&message.Response{Status: http.StatusOK, ContentLength: int64(len(text)), Fields: message.Fields{
		{Name: "content-type", Value: "application/jwk-set+json"},
		{Name: "cache-control", Value: "public, max-age=300"},
		{Name: "access-control-allow-origin", Value: "*"},
	}}, text)
}

// publicDocument returns the JWK set (RFC 7517) under the request's path; nil if there is none.
func (x *exchange) publicDocument() []byte {
	switch x.head.Path {
	case keysPath:
		if key, public := x.snapshot.Signers.Published(); key != nil {
			return fmt.Appendf(nil, `{"keys":[{"kty":"OKP","crv":"Ed25519","use":"sig","alg":"EdDSA","kid":%q,"x":%q}]}`+"\n",
				key.ID(), base64.RawURLEncoding.EncodeToString(public))
		}
	case jwksPath:
		return x.snapshot.Assertions.Document()
	}
	return nil
}
