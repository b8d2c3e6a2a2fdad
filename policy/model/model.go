// Package model answers what a request asks of which model.
//
// Each family of model servers has its own grammar of paths, methods and bodies,
// its dialect, and a file here that reads it.
package model

import "sallyport/proxy/message"

// Call is one thing asked of one model server. The zero Call asks nothing and no
// policy allows it.
type Call struct {
	Dialect string // the grammar of the server, such as "raw"
	Verb    string // what is asked, such as "get" for raw
	Model   string // of which model, "" where the head does not tell
	Version string // of which version of it, as a number; "" where the head does not tell
}

// Read reads the head of a request to a server of a dialect; "" is raw.
func Read(dialect string, h *message.Head) Call {
	c := Raw(h)
	if dialect != "" {
		c.Dialect = dialect
	}
	if dialect == "tensorflow" {
		c.Model, c.Version = tensorFlowModel(h.Path)
	}
	return c
}

// ActsOnWhole says whether servers of a dialect act on a request only when all of
// its content has come: a request that is cut does nothing there. Of the others some
// act on the head, or read piece by piece, as WSGI and ASGI applications may.
func ActsOnWhole(dialect string) bool { return dialect == "tensorflow" || dialect == "triton" }
