package model

import (
	"errors"

	"sallyport/proxy/message"
)

// Request is the head of a request as its server gets it, after the route has rewritten the path.
type Request struct {
	Method   string
	Path     string // canonical, with its escapes; see [message.Head.Settle]
	Query    string // without the "?"
	HasQuery bool
	GRPC     bool // a gRPC call: the path is /package.Service/Method
	Fields   message.Fields
}

// Reading is what the head of a request says.
type Reading struct {
	// Call is what the head asks for. What the body names is missing, see [Reading.NeedsBody].
	Call Call
	// Path, Query and HasQuery are the canonical form of the request, which the server must get. Reading
	// that form again gives the same Reading.
	Path, Query string
	HasQuery    bool

	fields  message.Fields
	scanner func(r *Reading, o *ScanOptions) Scanner // nil: the body names nothing, or it is a gRPC call
	method  *method                                  // of a gRPC call; nil for others
}

// Target returns the canonical path and query.
func (r *Reading) Target() string {
	if !r.HasQuery {
		return r.Path
	}
	return r.Path + "?" + r.Query
}

// NeedsBody reports whether the body says more of the call.
func (r *Reading) NeedsBody() bool {
	return r.scanner != nil || r.method != nil && r.method.shape.names()
}

// Streams reports whether the request is a gRPC stream, each message of which is a call of its own.
func (r *Reading) Streams() bool { return r.method != nil && r.method.streams }

// GRPC reports whether the request is a gRPC call of a method that the dialect knows.
func (r *Reading) GRPC() bool { return r.method != nil }

// Scanner returns a scanner of the body; nil if [Reading.NeedsBody] is false.
func (r *Reading) Scanner(o ScanOptions) Scanner {
	switch {
	case !r.NeedsBody():
		return nil
	case r.method != nil:
		if r.method.counts != 0 && o.Most != (Most{}) {
			o.count = &protoCounter{most: o.Most, message: r.method.counts}
		}
		return newFrameScanner(r.method.shape, r.method.streams, o)
	}
	return r.bodyScanner(o)
}

// bodyScanner returns a scanner of a body without gRPC. It is separate because its options are allocated.
func (r *Reading) bodyScanner(o ScanOptions) Scanner { return inflated(r.scanner(r, &o), &o) }

// Scanner reads from the body of a request what it asks for. Write takes the body in pieces, in
// order; after the last piece Check must be called once. An error of either is final. Unless it is
// an error of [ScanOptions.Decide] it is [ErrBody] and says what is wrong. A Scanner allocates
// nothing per piece, and its memory does not grow with the body. It serves one body and is not safe
// for concurrent use. It has the methods of an Inspector of package seal.
//
// Close must be called once the scan is over, also after an error, or what a compressed message needs
// is never released. It may be called again.
type Scanner interface {
	Write(p []byte) (int, error)
	Check() error
	Close()
}

// ScanOptions say how a body is scanned.
type ScanOptions struct {
	// Decide is called for each call that the body makes, once the body has named it beyond doubt, and
	// before Write returns for the piece that ends it: for a JSON object and a unary gRPC call once, for
	// each message of a stream, and for each task of a MultiInference. Its error ends the scan.
	Decide func(Named) error
	// Early, if it is set, may be called once before Decide for a long gRPC message, as soon as the
	// message has named what it names if its fields are in order. Its error ends the scan. Without an
	// error nothing is decided yet.
	Early func(Named) error
	// Encoding is the value of grpc-encoding, or of content-encoding without gRPC; "" for none.
	Encoding string
	// Inflate limits the bytes of a message or body after decompression; 0 refuses compressed ones.
	Inflate int64
	// Most limits each message of a gRPC call, beside what it names, and the body that
	// [Reading.Counter] reads.
	Most Most
	// Memory, if it is set, is used for the scanner of a gRPC call instead of new memory.
	Memory *ScanMemory

	count *protoCounter // counts messages; nil: nothing is counted
}

// ScanMemory is memory for one scanner at a time. It may be used again once the scanner is closed. It
// keeps names that the last body held, but no scanner tells them of its own body. The zero ScanMemory is
// ready for use.
type ScanMemory struct{ frames frameScanner }

// Named is what a body names. Its Version is as [Call.Version].
type Named struct{ Model, Version, Signature string }

// With returns the call with what a body names in place of what the head left open.
func (c Call) With(n Named) Call {
	c.Model, c.Version, c.Signature = n.Model, n.Version, n.Signature
	return c
}

// ErrBody is the error of a [Scanner] for a body that does not name the model in one clear way.
var ErrBody = errors.New("the body does not name the model in one clear way")

// bodyError is an error that wraps ErrBody.
type bodyError string

func (e bodyError) Error() string { return string(e) }

func (e bodyError) Unwrap() error { return ErrBody }

// UnreadEncoding is the error of a [Scanner] for a compressed gRPC message whose encoding it does not
// read. It wraps ErrBody.
type UnreadEncoding string

// Error says what is wrong.
func (e UnreadEncoding) Error() string { return string(e) }

// Unwrap returns [ErrBody].
func (e UnreadEncoding) Unwrap() error { return ErrBody }

// Accepted returns the encodings that the scanner reads, in the form of grpc-accept-encoding.
func (e UnreadEncoding) Accepted() string {
	if e == errFrameInflate {
		return "identity"
	}
	return "identity,gzip,deflate"
}

// Unread is the error for the head of a request that a dialect does not read.
type Unread struct {
	Reason Reason
	Cause  string // for the audit record only
	Allow  string // with WrongMethod: the methods that the path has
}

// Error returns the cause.
func (e *Unread) Error() string { return e.Cause }

// Reason says why a head is not read.
type Reason uint8

const (
	UnknownCall Reason = iota // the servers have no such path or gRPC method
	WrongMethod               // they have the path, for other methods
	BadName                   // the name of the model or version is one that servers read in different ways
)

func unknownPath(dialect string, r *Request) error {
	return &Unread{Reason: UnknownCall, Cause: "the gateway knows no such " + kindOf(r) + " of " + dialect + " servers"}
}

func kindOf(r *Request) string {
	if r.GRPC {
		return "gRPC method"
	}
	return "path"
}

// method is a gRPC method.
type method struct {
	verb    string
	server  bool  // it is about the server, not about one model
	shape   shape // where a message names the model
	answer  shape // where a message of the answer names the model that gave it
	streams bool  // the client may send several messages, each of which is a call of its own
	counts  counts
}

// commonMethods are gRPC methods that servers of all dialects may have.
func commonMethods(path string) *method {
	switch path {
	case "/grpc.health.v1.Health/Check", "/grpc.health.v1.Health/Watch", "/grpc.health.v1.Health/List":
		return &method{verb: "health", server: true}
	case "/grpc.reflection.v1.ServerReflection/ServerReflectionInfo", "/grpc.reflection.v1alpha.ServerReflection/ServerReflectionInfo":
		return &method{verb: "reflection", server: true}
	}
	return nil
}

// readCall reads a gRPC call by a table of the dialect's methods.
func (d *Dialect) readCall(r *Request) (Reading, error) {
	m := d.calls[r.Path]
	if m == nil {
		m = commonMethods(r.Path)
	}
	if m == nil {
		return Reading{}, unknownPath(d.name, r)
	}
	return Reading{Call: Call{Verb: m.verb, Server: m.server}, Path: r.Path, method: m}, nil
}
