// Package model answers what a request asks of which model.
//
// Each family of model servers has its own grammar of paths, methods and bodies,
// its dialect, and a file here that reads it.
package model

// Call is one thing asked of one model server. The zero Call asks nothing and no
// policy allows it.
type Call struct {
	Dialect string // the grammar that read the request, such as "raw"
	Verb    string // what is asked, such as "get" for raw
}
