package exchange

import (
	"errors"

	"sallyport/policy/model"
	"sallyport/proxy/message"
	"sallyport/proxy/seal"
)

// A scanner can also inspect content on its way, beside the digest.
var _ seal.Inspector = model.Scanner(nil)

// scanned is what the content of a request says about the model.
type scanned struct {
	scanner model.Scanner // nil: the content is not read
	model   string        // canonical; "" if the content does not name it
	fault   error         // why the content does not name a model in one clear way
}

var errEncoded = errors.New("the model cannot be read: the body has a content coding")

// modelScanner returns the scanner for the content, nil if the decision does not need it.
func (x *exchange) modelScanner() model.Scanner {
	if !x.route.Policy.AboutModels() || x.route.Fixed != nil || x.head.ContentLength == 0 {
		return nil
	}
	return x.route.Dialect.Scanner(x.head, x.route.Dialect.Read(x.head))
}

// scan reads the model from held content. A fault is no refusal yet: a rule that is not
// about models may allow the call.
func (s *scanned) scan(c *content, h *message.Head) {
	switch {
	case s.scanner == nil:
		return
	case h.Fields.Has("content-encoding"):
		s.fault = errEncoded
		return
	}
	s.fault = c.held.Each(func(piece []byte) error { _, err := s.scanner.Write(piece); return err })
	if s.fault == nil {
		s.fault = s.scanner.Check()
	}
	if s.fault == nil {
		s.model = s.scanner.Model()
	}
}

// readCall reads the call from the head, and the model from the content where the head
// does not name it.
func (x *exchange) readCall() model.Call {
	c := x.route.Dialect.Read(x.head)
	if c.Model == "" {
		c.Model = x.scanned.model
	}
	return c
}
