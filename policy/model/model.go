// Package model reads the verb and the model from requests to model servers.
//
// Families of servers differ in how a request names the model and in the format of error
// responses. Each family is a [Dialect] in a file of its own.
package model

// Call is the verb and the model of one request. Calls can be compared with ==. No policy
// allows the zero Call.
type Call struct {
	Dialect *Dialect // the family of the server; nil only in the zero Call
	Verb    string   // the HTTP method in lower case, for every dialect today
	Model   string   // the name of the model, or "" if the request does not name it
	Version string   // the version of the model, in digits, or "" if the request does not name it
}

// Runs reports whether a server that answers the call runs its code for verb. That is true for
// the call's own verb, and for get if the call is head: servers answer HEAD as they answer GET,
// without the content (RFC 9110, section 9.3.2). If a rule that denies get did not cover head,
// a caller could run by HEAD what the rule denies.
func (c Call) Runs(verb string) bool {
	return c.Verb == verb || c.Verb == "head" && verb == "get"
}
