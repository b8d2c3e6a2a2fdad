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
