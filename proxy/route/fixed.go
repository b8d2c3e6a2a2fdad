package route

import (
	"encoding/json"
	"net/http"
	"strconv"

	"sallyport/policy"
	"sallyport/proxy/message"
	"sallyport/proxy/setting"
)

// RespondConfig is the section `respond` of a route: an answer that the gateway
// gives itself, such as 503, or with its body as a section.
type RespondConfig struct{ RespondFields }

// RespondFields are the fields of the section `respond`.
type RespondFields struct {
	// Status is the status of the answer, from 200 to 599.
	Status int `yaml:"status"`
	// Body is the text of the answer, up to 64 KiB. Default: none.
	Body string `yaml:"body"`
	// ContentType is the type of the body. Default: application/json if the body is JSON, else
	// text/plain; charset=utf-8.
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

// EveryoneAllowed returns the rules of a fixed answer that has none: every caller admitted by
// callers gets it.
func EveryoneAllowed() []policy.Rule { return []policy.Rule{{Allow: setting.List[string]{"*"}}} }

// Fixed is an answer made by the gateway itself. It is immutable.
type Fixed struct {
	Status int
	Fields message.Fields
	Body   []byte
}

// NewFixed returns nil if the route has no fixed answer.
func NewFixed(c *RespondConfig) *Fixed {
	if c == nil {
		return nil
	}
	a := &Fixed{Status: c.Status, Body: []byte(c.Body)}
	if c.Body != "" {
		contentType := c.ContentType
		switch {
		case contentType != "":
		case (c.Body[0] == '{' || c.Body[0] == '[') && json.Valid(a.Body):
			contentType = "application/json"
		default:
			contentType = "text/plain; charset=utf-8"
		}
		a.Fields.Add("content-type", contentType)
	}
	return a
}

// checkRespond records the faults of the section.
func (r *Config) checkRespond(at string, f *setting.Faults) {
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

// headerNamed finds a field by its folded name.
func headerNamed(all map[string]string, folded string) (string, bool) {
	for name, value := range all {
		if message.Fold(name) == folded {
			return value, true
		}
	}
	return "", false
}
