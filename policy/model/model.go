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

// Runs says whether answering the call runs what the server has for verb. It is so for the
// verb of the call, and for get where that is head: servers answer HEAD by what they do for
// GET, and leave the content out (RFC 9110, section 9.3.2). So a rule about get that did not
// cover head would let a caller run what it denies.
func (c Call) Runs(verb string) bool {
	return c.Verb == verb || c.Verb == "head" && verb == "get"
}
