package proxy

import (
	"encoding/json"
	"net/http"
	"strconv"
	"time"

	"sallyport/policy"
	"sallyport/proxy/message"
	"sallyport/proxy/setting"
)

// RespondConfig is the section `respond` of a route: an answer that the gateway
// gives itself, such as 503, or with its body as a section.
type RespondConfig struct{ RespondFields }

// RespondFields are the fields of the section `respond`.
type RespondFields struct {
	// Status is that of the answer, from 200 to 599.
	Status int `yaml:"status"`
	// Body is its text, up to 64 KiB. Default: none.
	Body string `yaml:"body"`
	// ContentType is the type of the body. Default: application/json where it is
	// JSON, else text/plain; charset=utf-8.
	ContentType string `yaml:"content_type"`
}

// Form implements [setting.Forms].
func (r *RespondConfig) Form(s setting.Shape) any {
	switch s {
	case setting.Scalar:
		return &r.Status
	case setting.Mapping:
		return &r.RespondFields
	}
	return nil
}

// Want implements [setting.Forms].
func (r *RespondConfig) Want() string { return "a status, or {status, body, content_type}" }

// everyone is the rules of routes that give a fixed answer and have no rules:
// whom callers admits gets it.
func everyone() []policy.Rule { return []policy.Rule{{Allow: setting.List[string]{"*"}}} }

// fixed is an answer that the gateway gives itself. It is immutable.
type fixed struct {
	status int
	fields message.Fields
	body   []byte
}

// newFixed is nil where the route has no fixed answer.
func newFixed(c *RespondConfig) *fixed {
	if c == nil {
		return nil
	}
	a := &fixed{status: c.Status, body: []byte(c.Body)}
	if c.Body != "" {
		contentType := c.ContentType
		switch {
		case contentType != "":
		case (c.Body[0] == '{' || c.Body[0] == '[') && json.Valid(a.body):
			contentType = "application/json"
		default:
			contentType = "text/plain; charset=utf-8"
		}
		a.fields.Add("content-type", contentType)
	}
	return a
}

// respond gives the route's fixed answer, in the place of forward: whoever gets
// it has passed all that stands before. The body of the request is not read.
func (x *exchange) respond() error {
	a := x.route.fixed
	h := message.Response{Status: a.status, Fields: append(message.Fields(nil), a.fields...), ContentLength: int64(len(a.body))}
	if !message.MayHaveBody("GET", a.status) {
		h.ContentLength = -1 // 204 and 304 say nothing about a length
	}
	x.dress(&h)
	if x.head.ContentLength != 0 {
		x.stream.CloseAfter()
	}
	x.record.Status = a.status
	return x.write(&h, a.body)
}

// write sends an answer of the gateway's own making.
func (x *exchange) write(h *message.Response, body []byte) error {
	x.sealOwn(h, body)
	x.responded = true
	if err := x.stream.SetWriteDeadline(time.Now().Add(refusalTime)); err != nil {
		return errClientGone(err)
	}
	if err := x.stream.Respond(h, false); err != nil {
		return errClientGone(err)
	}
	// The method on the wire: a decision for another proxy is about one method and
	// asked for by another.
	if len(body) > 0 && message.MayHaveBody(x.stream.Head().Method, h.Status) {
		n, err := x.stream.Write(body)
		x.record.BytesOut = int64(n)
		if err != nil {
			return errClientGone(err)
		}
	}
	if err := x.stream.Finish(nil); err != nil {
		return errClientGone(err)
	}
	return nil
}

// checkRespond records the faults of the section.
func (r *RouteConfig) checkRespond(at string, f *setting.Faults) {
	if r.Respond == nil {
		return
	}
	at += ".respond"
	c := r.Respond
	_, hasLocation := headerNamed(r.Headers.Response.Set, "location")
	switch {
	case c.Status < 200 || c.Status > 599:
		f.Add(at+".status", strconv.Itoa(c.Status), "not a status of an answer", "write one from 200 to 599, such as 503")
	case c.Body != "" && !message.MayHaveBody("GET", c.Status):
		f.Add(at+".body", "", "an answer with status "+strconv.Itoa(c.Status)+" has no body", "remove it, or write another status")
	case redirects(c.Status) && !hasLocation:
		f.Add(at+".status", strconv.Itoa(c.Status), "a redirect to nowhere", "write headers: {response: {set: {location: https://...}}} in the route")
	}
	if len(c.Body) > 64<<10 {
		f.Add(at+".body", "", "longer than 64KiB", "serve it from an upstream")
	}
	switch {
	case c.ContentType != "" && c.Body == "":
		f.Add(at+".content_type", c.ContentType, "there is no body", "remove the line, or write the body")
	case !message.ValidValue(c.ContentType):
		f.Add(at+".content_type", c.ContentType, "not a content type", "write one such as application/json")
	}
}

func redirects(status int) bool {
	switch status {
	case http.StatusMovedPermanently, http.StatusFound, http.StatusSeeOther, http.StatusTemporaryRedirect, http.StatusPermanentRedirect:
		return true
	}
	return false
}

// headerNamed finds a field whatever its letters.
func headerNamed(all map[string]string, folded string) (string, bool) {
	for name, value := range all {
		if message.Fold(name) == folded {
			return value, true
		}
	}
	return "", false
}
