package exchange

import (
	"context"
	"errors"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"time"

	"sallyport/auth"
	"sallyport/auth/login"
	"sallyport/policy"
	"sallyport/policy/model"
	"sallyport/proxy/message"
	"sallyport/proxy/wire"
)

// refuse turns an error of any step into an answer in the caller's protocol and the dialect's
// shape. An answer that has begun is cut.
func (x *exchange) refuse(err error) {
	r := x.ownCut(asRefusal(err), err)
	o, ok := outcomes[r.reason]
	if !ok {
		r = &refusal{reason: reasonInternal, cause: err}
		o = outcomes[reasonInternal]
	}
	if r.text != "" {
		o.text = r.text
	}
	if e, ended := r.cause.(*ending); ended && e.grpc != 0 {
		o.grpc = e.grpc
	}
	x.record.Reason = r.reason
	x.record.Cause = x.causeOf(r)
	if r.reason == reasonShutdown {
		x.server.stopped.Add(1)
	}
	if r.keyID != "" {
		x.record.KeyID = r.keyID
	}
	if x.responded {
		x.cut(o, r, err)
		return
	}
	x.responded = true
	x.record.Status = o.status
	if r.reason == reasonClientGone {
		return
	}
	if x.head.Upgrade != "" || unsettled(o.status) {
		// Bytes after an ambiguous request, or after an attempted upgrade, must not be parsed as
		// HTTP.
		x.stream.CloseAfter()
	}
	if r.hangUp || r.reason == auth.CertificateMissing && x.snapshot.Outdated != nil && x.snapshot.Outdated(x.head.Host, x.stream.Conn()) {
		x.hangUp()
	}
	if x.leadsToSignIn(err) {
		x.sendToSignIn()
		return
	}
	if x.isLate(err) {
		_ = x.goTo(login.Redirect{Location: x.back, Cookies: x.cookies}) // an error means that the client has left
		return
	}
	x.sendRefusal(o, r, err)
}

// hangUp makes the client use another connection for its next request.
func (x *exchange) hangUp() {
	x.stream.CloseAfter()
	if s, ok := x.stream.(wire.Drainer); ok {
		s.DrainAfter()
	}
}

// ownCut returns the refusal for an exchange that the gateway itself has ended, and r otherwise. To
// the failed step, such an end looks as if the client had left.
func (x *exchange) ownCut(r *refusal, err error) *refusal {
	if r.reason != reasonClientGone && !errors.Is(err, context.Canceled) {
		return r
	}
	if cause := x.life.Cause(); endingOf(cause) != "" {
		return &refusal{reason: endingOf(cause), cause: cause}
	}
	if e := x.server.cut.Load(); e != nil {
		return e.refusal()
	}
	return r
}

// unsettled reports whether a status is that of an unparsable head.
func unsettled(status int) bool {
	switch status {
	case http.StatusBadRequest, http.StatusRequestURITooLong, http.StatusExpectationFailed, http.StatusRequestHeaderFieldsTooLarge, http.StatusNotImplemented, http.StatusHTTPVersionNotSupported:
		return true
	}
	return false
}

// sendRefusal sends a refusal.
func (x *exchange) sendRefusal(o outcome, r *refusal, err error) {
	dialect := x.dialectBefore()
	if x.route != nil {
		dialect = x.route.Dialect
	}
	contentType, text := dialect.Refusal(o.status, o.text, r.reason, x.record.RequestID)
	if x.grpc {
		contentType, text = callType, nil
	}
	h := message.Response{Status: o.status, ContentLength: int64(len(text)), Fields: message.Fields{
		{Name: "content-type", Value: contentType},
		{Name: "cache-control", Value: "no-store"},
	}}
	switch page := x.refusalPage(o, r); {
	case page != nil:
		text, h.ContentLength, h.Fields = page, int64(len(page)), x.pageFields(x.isFramed())
		x.dressOwn(&h)
	case x.door != nil:
		x.dressOwn(&h)
	case x.route != nil:
		x.route.Security.Dress(&h, x.scheme() == "https")
	}
	if r.allow != "" {
		h.Fields.Add("allow", r.allow)
	}
	if r.accept != "" {
		h.Fields.Add("grpc-accept-encoding", r.accept)
	}
	if r.retryAfter > 0 {
		h.Fields.Add("retry-after", strconv.FormatInt(int64((r.retryAfter+time.Second-1)/time.Second), 10))
	}
	x.tellQuota(r.quota, &h.Fields)
	if x.route != nil {
		for _, c := range x.challenges(o.status, err) {
			h.Fields.Add("www-authenticate", c)
		}
		if accept := x.route.Chain.AcceptSignature(); accept != "" && o.status == http.StatusUnauthorized {
			h.Fields.Add("accept-signature", accept)
		}
	}
	x.tellProxy(o, r.reason, &h)
	status := h.Status
	if x.grpc {
		x.asCall(o, r, &h)
	}
	if x.route != nil && x.route.CORS != nil {
		x.route.CORS.Mark(&h.Fields, x.head.Fields)
	}
	_ = x.respondHere(&h, text) // the error only means that the client has left
	x.record.Status = status    // for gRPC too, the HTTP status
}

// dialectBefore returns the dialect for a refusal before there is a route: the one that all routes
// of the host share or, if the head names no host, all routes.
func (x *exchange) dialectBefore() *model.Dialect {
	return x.snapshot.Routes.Dialect(x.hostBefore())
}

// hostBefore returns the host of a request whose head may be unsettled; "" if it cannot be read.
func (x *exchange) hostBefore() string {
	if x.head.Host != "" {
		return x.head.Host
	}
	_, host, _ := message.CanonicalAuthority(x.head.Authority, x.head.Scheme)
	return host
}

// challenges returns the values of WWW-Authenticate for a refusal, each for a line of its own.
func (x *exchange) challenges(status int, err error) (all []string) {
	var denied *policy.Refusal
	switch {
	case x.route.Chain.Anonymous():
		return nil
	case errors.As(err, &denied) && denied.Reason == policy.ReasonInsufficientScope:
		all = []string{auth.InsufficientScope(x.head.Host, denied.Scopes)}
	case status == http.StatusUnauthorized:
		all = x.route.Chain.Challenges(x.head.Host, err)
	}
	if len(x.route.Logins) > 0 && (x.wantsPage() || x.head.Fields.Has("sec-fetch-mode")) {
		// A browser would ask for a password, in the middle of a page whose session has ended.
		all = slices.DeleteFunc(all, auth.IsBasic)
	}
	if len(all) > 0 { // a Bearer comes first
		all[0] = auth.WithMetadata(all[0], x.head.Host, x.metadataURL())
	}
	if x.asker != "" && len(all) > 1 { // older releases of nginx pass on one line alone
		all = []string{strings.Join(all, ", ")}
	}
	return all
}
