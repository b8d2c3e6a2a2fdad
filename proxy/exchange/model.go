package exchange

import (
	"errors"
	"net/http"

	"sallyport/policy/model"
	"sallyport/proxy/message"
	"sallyport/proxy/seal"
)

// A scanner can also inspect content on its way, beside the digest.
var _ seal.Inspector = model.Scanner(nil)

// scanned is what the content of a request says about the model.
type scanned struct {
	scanner model.Scanner // nil: the content is not read
	named   named
	fault   *refusal // of a call that only a rule about models could allow; nil if the model is clear
}

// named is the model that content names.
type named struct {
	by    *model.Dialect // that read it; another dialect could read another model
	model string         // canonical; "" if the content does not name it
}

// call reads the call from the head, and the model from the content if the head does not name it.
func (n named) call(d *model.Dialect, h *message.Head) model.Call {
	c := d.Read(h)
	if c.Model == "" && n.by == d {
		c.Model = n.model
	}
	return c
}

var (
	errEncoded   = errors.New("the model cannot be read: the body has a content coding")
	errElsewhere = errors.New("the model cannot be read: the body stays with the proxy that asks")
)

// prepare gets the scanner for the content, if the decision needs it. A proxy that asks for a
// decision shows no content, or content that need not be what it forwards.
func (s *scanned) prepare(x *exchange) {
	if !x.route.Policy.AboutModels() || x.route.Fixed != nil {
		return
	}
	scanner := x.route.Dialect.Scanner(x.head, x.route.Dialect.Read(x.head))
	switch {
	case scanner == nil:
	case x.asker == "" && x.head.ContentLength != 0:
		s.scanner, s.named.by = scanner, x.route.Dialect
	case x.asker != "" && x.head.Method != http.MethodGet && x.head.Method != http.MethodHead:
		s.fault = &refusal{reason: reasonUndecided, cause: errElsewhere}
	}
}

// scan reads the model from held content. A fault is no refusal yet: a rule that is not
// about models may allow the call.
func (s *scanned) scan(c *content, h *message.Head) {
	switch {
	case s.scanner == nil:
		return
	case h.Fields.Has("content-encoding"):
		s.fault = &refusal{reason: reasonBadModel, cause: errEncoded}
		return
	}
	err := c.held.Each(func(piece []byte) error { _, err := s.scanner.Write(piece); return err })
	if err == nil {
		err = s.scanner.Check()
	}
	if err != nil {
		s.fault = &refusal{reason: reasonBadModel, cause: err}
		return
	}
	s.named.model = s.scanner.Model()
}

// readCall reads the call that the request makes.
func (x *exchange) readCall() model.Call { return x.scanned.named.call(x.route.Dialect, x.head) }
