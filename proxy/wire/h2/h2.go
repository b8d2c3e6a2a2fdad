// Package h2 says what bytes HTTP/2 is on a connection: it reads messages that have
// one reading only, and writes no others (RFC 9113).
//
// Strict means: pseudo fields come first, each once and none that is unknown; names
// are tokens in lower case; values hold no controls and no white space at their
// ends; no field belongs to the connection; Content-Length is what the DATA frames
// bring; and the scheme is that of the connection. Everything is bounded: what a
// head decodes to, how many frames it comes in, how long it takes, and how often a
// peer may do what costs us work and it nothing.
//
// Streams, flow control, framing and HPACK are our own; of golang.org/x/net only the
// Huffman code is used. Frames are read in place from a lent buffer and written into one,
// so that a connection that waits holds none.
//
// [Server] is the side that answers; [Client] the side that asks, many exchanges on one
// connection.
package h2

import (
	"fmt"

	"sallyport/proxy/message"
)

// preface is what a client sends first.
const preface = "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"

const (
	maxFrame     = 16 << 10  // of a frame's payload, both ways: what every peer takes
	maxWindow    = 1<<31 - 1 // of a flow-control window
	maxStream    = 1<<31 - 1 // of a stream's number
	startWindow  = 64<<10 - 1
	trailerBytes = 8 << 10
	trailerRows  = 64
)

// code is an error code (RFC 9113, section 7).
type code uint32

const (
	noError code = iota
	protocolError
	internalError
	flowControlError
	settingsTimeout
	streamClosed
	frameSizeError
	refusedStream
	cancel
	compressionError
	connectError
	enhanceYourCalm
)

// String names the code as the standard does.
func (c code) String() string {
	names := [...]string{"NO_ERROR", "PROTOCOL_ERROR", "INTERNAL_ERROR", "FLOW_CONTROL_ERROR", "SETTINGS_TIMEOUT", "STREAM_CLOSED", "FRAME_SIZE_ERROR", "REFUSED_STREAM", "CANCEL", "COMPRESSION_ERROR", "CONNECT_ERROR", "ENHANCE_YOUR_CALM"}
	if int(c) < len(names) {
		return names[c]
	}
	return fmt.Sprintf("code %d", uint32(c))
}

// fault is what is wrong with what a peer sent. On stream 0 it ends the connection,
// on any other that stream alone.
type fault struct {
	stream uint32
	code   code
	why    string
	err    error // what it is to whoever serves the stream; nil: nothing of its own
}

// Error describes the fault for the audit log.
func (f *fault) Error() string { return f.code.String() + ": " + f.why }

// Unwrap gives what it is to whoever serves the stream.
func (f *fault) Unwrap() error { return f.err }

// broken is a fault that ends the connection.
func broken(c code, why string) error { return &fault{code: c, why: why} }

// spoilt is a fault that ends a stream.
func spoilt(stream uint32, c code, why string) error {
	return &fault{stream: stream, code: c, why: why}
}

// malformed is a fault of a message, which ends its stream (RFC 9113, section 8.1.1).
func malformed(stream uint32, why string) error {
	return &fault{stream, protocolError, why, message.ErrFraming}
}
