// Package h1 says what bytes HTTP/1.1 is on a connection: it writes messages that
// have one reading only, and refuses to read any that could have two (RFC 9112).
//
// Strict means: lines end in CRLF, fields are not folded, names are tokens with
// the colon right behind them, values hold no controls, and the end of the
// content is announced exactly once, by one Content-Length of digits or by
// `Transfer-Encoding: chunked` alone on HTTP/1.1. Everything is bounded: a head
// by [wire.MaxHead] and [wire.MaxFields], the line of a chunk and the trailers by less.
//
// [Client] is the side that asks, [Server] the side that answers.
package h1

import "errors"

const (
	maxInterim     = 8   // interim responses before the final one
	maxChunkLine   = 256 // bytes of a chunk's size and extensions
	maxTrailers    = 8 << 10
	maxTrailerRows = 64
)

// malformed is what is wrong with bytes that were read.
type malformed string

func (m malformed) Error() string { return "malformed: " + string(m) }

// Faults that have a status of their own in answers to requests.
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
