package model

import "errors"

// ErrBody is wrapped by the errors of scanners: the body cannot be read, or it does not name
// exactly one model where it must.
var ErrBody = errors.New("the body cannot be read")

// bodyError is an error that wraps ErrBody.
type bodyError string

func (e bodyError) Error() string { return ErrBody.Error() + ": " + string(e) }
func (e bodyError) Unwrap() error { return ErrBody }

// Named is what a body says of the model. Version is "latest" if the message could name a
// version and does not, and "" if it could not.
type Named struct {
	Model, Version, Signature string
}

// ScanOptions are the options of a scanner.
type ScanOptions struct {
	// Decide is called for each message of a gRPC request, and for each task of a
	// MultiInference, before Write returns for the piece that holds its last byte. Write
	// returns its error unchanged.
	Decide func(Named) error
	// Inflate is the largest size of a message after decompression. If it is 0, compressed
	// messages are refused.
	Inflate int64
	// Encoding is the value of grpc-encoding or content-encoding.
	Encoding string
}
