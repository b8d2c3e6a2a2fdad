// Package h2 reads and writes HTTP/2. It writes only unambiguous messages and refuses to read any
// others (RFC 9113).
//
// Strict means:
//   - Pseudo fields come first; each occurs once and is known.
//   - Names are tokens in lower case.
//   - Values hold no controls and no white space at their ends.
//   - No field belongs to the connection.
//   - Content-Length equals the size of the DATA frames.
//   - The scheme is that of the connection.
//
// Everything is bounded: the decoded size of a head, its number of frames and its time. So is how
// often a peer may cause work that costs it nothing.
//
// Streams, flow control, framing and HPACK are implemented here; only the Huffman code comes from
// golang.org/x/net. Frames are read and written in place in pooled buffers, so that an idle
// connection holds none.
//
// [Server] answers requests; [Client] sends them, many at a time on one connection.
package h2

import (
	"fmt"

	"sallyport/proxy/message"
)

// preface is the start of every client connection.
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

// String returns the code's name in RFC 9113.
func (c code) String() string {
	names := [...]string{"NO_ERROR", "PROTOCOL_ERROR", "INTERNAL_ERROR", "FLOW_CONTROL_ERROR", "SETTINGS_TIMEOUT", "STREAM_CLOSED", "FRAME_SIZE_ERROR", "REFUSED_STREAM", "CANCEL", "COMPRESSION_ERROR", "CONNECT_ERROR", "ENHANCE_YOUR_CALM"}
	if int(c) < len(names) {
		return names[c]
	}
	return fmt.Sprintf("code %d", uint32(c))
}

// fault is a protocol error of the peer. On stream 0 it ends the connection, on any other only that
// stream.
type fault struct {
	stream uint32
	code   code
	why    string
	err    error // the error that the stream's user sees; may be nil
}

// Error describes the fault for the audit log.
func (f *fault) Error() string { return f.code.String() + ": " + f.why }

// Unwrap returns the error that the stream's user sees.
func (f *fault) Unwrap() error { return f.err }

// broken returns a fault that ends the connection. It is for what both sides must agree on: framing,
// SETTINGS, the windows of the connection, compression tables and the numbers of streams; and for work
// without end. What one request says is never such a fault, because a proxy in front may send the requests
// of many callers over one connection.
func broken(c code, why string) error { return &fault{code: c, why: why} }

// spoilt returns a fault that ends a stream.
func spoilt(stream uint32, c code, why string) error {
	return &fault{stream: stream, code: c, why: why}
}

// malformed returns the fault of a malformed message, which ends its stream (RFC 9113, section
// 8.1.1).
func malformed(stream uint32, why string) error {
	return &fault{stream, protocolError, why, message.ErrFraming}
}
