package model

import (
	"strings"
	"time"

	"sallyport/proxy/message"
)

// Dialect describes one family of model servers. Only [ByName] and [Raw] return dialects.
// They return the same pointer for the same dialect, so dialects can be compared with ==.
// A Dialect is immutable and safe for concurrent use.
//
// A dialect reads the model from the head, or from the body by its [Scanner]. The
// exchange feeds a scanner before it decides, with the content that it holds.
type Dialect struct {
	name        string
	read        func(h *message.Head) Call // without Call.Dialect, which Read sets
	checkVerb   func(verb string) (problem, cure string)
	refusal     func(status int, text, reason, requestID string) (contentType string, body []byte)
	namesModels bool
	scanner     func(h *message.Head) Scanner     // nil: no body names a model
	canonical   func(name string) (string, error) // nil: names are compared as they are
	actsOnWhole bool
	slashedIDs  bool // see KeepsSlashes
	localhost   bool
	head, idle  time.Duration
}

// dialects lists all dialects, raw first, in the order in which they are shown to users.
var dialects = [...]*Dialect{raw(), flask(), tensorFlow(), triton(), openAI(), ollama()}

// ByName returns the dialect with this name, a value of the key `serves`, and whether
// there is one. "" means raw; letter case counts.
func ByName(name string) (*Dialect, bool) {
	if name == "" {
		return Raw(), true
	}
	for _, d := range dialects {
		if d.name == name {
			return d, true
		}
	}
	return nil, false
}

// Names lists the names that [ByName] knows, without "".
func Names() []string {
	var all []string
	for _, d := range dialects {
		all = append(all, d.name)
	}
	return all
}

// Raw returns the dialect of unknown servers.
func Raw() *Dialect { return dialects[0] }

// Name is the dialect's name in the configuration and in the audit log.
func (d *Dialect) Name() string { return d.name }

// Read reads the call from the head of a request. The head must have its canonical path
// ([message.Head.Settle]). Read does not allocate for the common HTTP methods.
func (d *Dialect) Read(h *message.Head) Call {
	c := d.read(h)
	c.Dialect = d
	return c
}

// CheckVerb checks a verb of a rule, other than "*". If no request to these servers can
// have it, it returns the problem and what to write instead; otherwise both are "".
func (d *Dialect) CheckVerb(verb string) (problem, cure string) { return d.checkVerb(verb) }

// NamesModels reports whether requests to these servers name a model, so that rules may be
// about models.
func (d *Dialect) NamesModels() bool { return d.namesModels }

// CanonicalModel returns the canonical form of a model's name, which [Call.Model] has, or
// of a pattern in which stars stand for parts of a name. It returns an error for what no
// model of these servers can be called.
func (d *Dialect) CanonicalModel(name string) (string, error) {
	if d.canonical == nil {
		return name, nil
	}
	return d.canonical(name)
}

// ModelInBody reports whether the body of a request can name the model.
func (d *Dialect) ModelInBody() bool { return d.scanner != nil }

// Scanner returns a scanner for the body of a request of which [Dialect.Read] made the
// call. It returns nil if the body names no model: the head named it, or it never does.
func (d *Dialect) Scanner(h *message.Head, c Call) Scanner {
	if d.scanner == nil || c.Model != "" {
		return nil
	}
	return d.scanner(h)
}

// ActsOnWhole reports whether these servers act on a request only once its whole body
// has arrived, so that a request cut short has no effect. Other servers may act on the
// head alone or read the body piece by piece, as WSGI and ASGI applications do.
func (d *Dialect) ActsOnWhole() bool { return d.actsOnWhole }

// Refusal writes the body of the gateway's own refusal, in the shape in which clients
// of these servers expect errors, and returns its media type. The texts are put
// between quotes as they are: they must come from the gateway, never from a request.
func (d *Dialect) Refusal(status int, text, reason, requestID string) (contentType string, body []byte) {
	return d.refusal(status, text, reason, requestID)
}

// Timeouts are how long these servers may take before an answer begins, and how long
// they may pause within one, where the configuration does not say. Zero means that
// the dialect has no need of its own, and the gateway's default applies.
func (d *Dialect) Timeouts() (head, idle time.Duration) { return d.head, d.idle }

// NeedsLocalhost reports whether these servers, while bound to a loopback address, refuse
// requests whose Host is not localhost.
func (d *Dialect) NeedsLocalhost() bool { return d.localhost }

// KeepsSlashes reports whether these servers take every encoded slash (%2F) of a canonical
// path, as they are asked for it, for a slash in the id of a model: each of them stands
// behind /v1/models/.
func (d *Dialect) KeepsSlashes(path string) bool {
	return d.slashedIDs && strings.HasPrefix(path, modelsPrefix)
}
