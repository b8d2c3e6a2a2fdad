// Package model reads from requests to model servers what they ask for, and of which model.
//
// Families of servers differ in how a request names the model and in the format of error
// responses. Each family is a [Dialect] in a file of its own.
package model

import "strings"

// These are values of [Call.Version] that are not versions.
const (
	// Latest is the version of a call that names none, where the server has versions and chooses.
	Latest = "latest"
	// Label stands before the label of a version, such as "label:stable".
	Label = "label:"
)

// Call is what one request asks for. Calls can be compared with ==. No policy allows the zero Call.
type Call struct {
	Dialect *Dialect // the family of the server; nil only in the zero Call
	Verb    string   // see [Dialect.Verbs]; the HTTP method in lower case where the dialect has none
	Model   string   // the name of the model, or "" if the request does not name it
	// Version is the version that the request names, Label and a label, or Latest; "" if the servers
	// have no versions, or the call is about no model.
	Version string
	// Signature is the signature of a TensorFlow model that the request names; "" if it names none.
	Signature string
	// Server means that the call is about the server and not about one model, such as a list of
	// models. Its Model is "".
	Server bool
}

// Runs reports whether a server that answers the call runs its code for verb. That is true for
// the call's own verb, and for get if the call is head: servers answer HEAD as they answer GET,
// without the content (RFC 9110, section 9.3.2). If a rule that denies get did not cover head,
// a caller could run by HEAD what the rule denies.
func (c Call) Runs(verb string) bool {
	return c.Verb == verb || c.Verb == "head" && verb == "get"
}

// Numbered returns the version if the request names one, and "" for a label or where the servers choose.
func (c Call) Numbered() string {
	if c.Version == Latest || strings.HasPrefix(c.Version, Label) {
		return ""
	}
	return c.Version
}

// Class returns the class of the verb; "" for an HTTP method, even one that is spelled like a verb, such
// as delete.
func (c Call) Class() Class {
	if c.Dialect == nil || c.Dialect.verbs == nil {
		return ""
	}
	return classOf(c.Verb)
}
