// Package model reads what a request asks of which model.
//
// Model servers differ in how a request names the model and in what their clients
// can read. Each family of servers is a [Dialect], described in a file of its own.
package model

// Call is what one request asks of one model server. Calls are comparable: two are
// the same if they ask the same thing. The zero Call asks nothing, and no policy
// allows it.
type Call struct {
	Dialect *Dialect // the family of the server; nil only in the zero Call
	Verb    string   // what is asked; for every dialect today the HTTP method in lower case
	Model   string   // the name of the model, or "" if the request has not told it
	Version string   // the version of the model, in digits, or "" if the request has not told it
}

// Runs says whether answering the call runs what the server has for verb. It is so for the
// verb of the call, and for get where that is head: servers answer HEAD by what they do for
// GET, and leave the content out (RFC 9110, section 9.3.2). So a rule about get that did not
// cover head would let a caller run what it denies.
func (c Call) Runs(verb string) bool {
	return c.Verb == verb || c.Verb == "head" && verb == "get"
}
