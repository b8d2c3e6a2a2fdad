package model

import (
	"strings"
	"time"

	"sallyport/proxy/message"
)

// Dialect is one family of model servers: what distinguishes it from the others on
// the way of a request. [ByName] and [Raw] are the only sources of dialects. There is
// one value of each, so that two dialects are the same if their pointers are. A
// Dialect is immutable and safe for concurrent use.
//
// A dialect reads the head of a request only. One that reads the model from the body
// will carry its scanner here: the exchange will feed it the body before it decides,
// or, where [Dialect.ActsOnWhole] holds, while it sends the body on, and will hand
// the completed Call to policy.Provisional.Complete before it sends the last byte.
type Dialect struct {
	name        string
	read        func(h *message.Head) Call // without Call.Dialect, which Read sets
	checkVerb   func(verb string) (problem, cure string)
	refusal     func(status int, text, reason, requestID string) (contentType string, body []byte)
	actsOnWhole bool
	slashedIDs  bool // see KeepsSlashes
	localhost   bool
	head, idle  time.Duration
}

// dialects are all that there are, raw first, in the order in which they are listed
// to users.
var dialects = [...]*Dialect{raw(), flask(), tensorFlow(), triton(), openAI(), ollama()}

// ByName returns the dialect with a name of the configuration (the key `serves`), and
// whether there is one. "" stands for raw; letter case counts.
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

// Raw returns the dialect of servers about which nothing is known.
func Raw() *Dialect { return dialects[0] }

// Name is the dialect's name in the configuration and in the audit log.
func (d *Dialect) Name() string { return d.name }

// Read reads the call from the head of a request, which must have been settled
// ([message.Head.Settle]): only the canonical path is read. It does not allocate for
// the common HTTP methods.
func (d *Dialect) Read(h *message.Head) Call {
	c := d.read(h)
	c.Dialect = d
	return c
}

// CheckVerb checks a verb that a rule names, other than "*". If no request to these
// servers can have it, it returns the problem and what to write instead; if some can,
// both are "".
func (d *Dialect) CheckVerb(verb string) (problem, cure string) { return d.checkVerb(verb) }

// ActsOnWhole says whether these servers act on a request only once its whole body
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

// NeedsLocalhost says whether these servers, while bound to a loopback address, refuse
// requests whose Host is not localhost.
func (d *Dialect) NeedsLocalhost() bool { return d.localhost }

// KeepsSlashes says whether these servers take every encoded slash (%2F) of a canonical
// path, as they are asked for it, for a slash in the id of a model: each of them stands
// behind /v1/models/.
func (d *Dialect) KeepsSlashes(path string) bool {
	return d.slashedIDs && strings.HasPrefix(path, modelsPrefix)
}
