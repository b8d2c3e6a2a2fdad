// Package h1 reads and writes HTTP/1.1. It writes only unambiguous messages and refuses to read any
// that parsers could read in two ways (RFC 9112).
//
// Strict means:
//   - Lines end in CRLF, and fields are not folded.
//   - Names are tokens with the colon right after them; values hold no controls.
//   - The end of the content is announced exactly once: by one Content-Length of digits,
//     or by `Transfer-Encoding: chunked` alone on HTTP/1.1.
//   - Everything is bounded: a head by [wire.MaxHead] and [wire.MaxFields], chunk lines
//     and trailers by less.
//
// [Client] sends requests, [Server] answers them.
package h1

import "errors"

const (
	maxInterim     = 8        // interim responses before the final one
	maxChunkLine   = 256      // bytes in the line of a chunk's size and extensions
	maxExtensions  = 16 << 10 // bytes in the chunk extensions of a message, besides twice its content
	maxTrailers    = 8 << 10
	maxTrailerRows = 64
)

// malformed is a grammar error in bytes that were read.
type malformed string

func (m malformed) Error() string { return "malformed: " + string(m) }

// These faults of requests have a status of their own.
const (
	tooLong = malformed("head or trailers are too long")
	tooMany = malformed("too many fields")
)

var (
	errAgain       = errors.New("connection has an exchange under way or has failed")
	errNoUpgrade   = errors.New("a request with content cannot upgrade")
	errFieldBanned = errors.New("field belongs to the connection or to framing")
	errFieldBytes  = errors.New("field has bytes outside the grammar")
)
