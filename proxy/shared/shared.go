// Package shared defines the state that the replicas of a gateway must agree on: which
// signatures have been used.
//
// Each engine is a package. Package local uses the memory of one process, and a state file over
// planned stops.
package shared

import (
	"context"
	"errors"
	"fmt"
	"time"
)

// Replay remembers used signatures, so that each is accepted once. It must be safe for
// concurrent use, by many exchanges of many replicas.
//
// An engine must guarantee:
//
//   - Of all calls of Claim with the same key and claim, on all replicas, at most one returns nil
//     while the signature could be accepted. Restarts, lost connections, changed clocks and full
//     stores make no difference.
//   - It never drops a claim that is still needed. A full store returns [ErrFull].
//   - It refuses in doubt. After a loss of its memory, every signature that may have been used before
//     is a [WindowError]. A store that cannot be reached is another error, which refuses the request
//     with 503; it is not [ErrReplayed].
//   - Every wait ends with ctx. A claim whose ctx ended may or may not have been made.
type Replay interface {
	// Claim marks a signature as used. claim identifies it among the signatures of its key,
	// created is the signed creation time, and until is the last second at which it is valid. The
	// caller has verified the signature, so keyID is a configured key.
	//
	// The error is [ErrReplayed], [ErrFull], a [KeyFullError], a [WindowError], [ErrStopped], or
	// the reason why the store could not be reached.
	Claim(ctx context.Context, keyID string, claim [16]byte, created, until time.Time) error
}

// Reasons to refuse a claim.
var (
	// ErrReplayed means that the signature was used before.
	ErrReplayed = errors.New("the signature was used before")
	// ErrFull means that the store is full. If only the share of one key is full, the error is
	// a [KeyFullError].
	ErrFull = errors.New("no room to remember another signature")
	// ErrStopped means that the store has stopped or has not started; a claim would be lost.
	ErrStopped = errors.New("signatures are not remembered: the process stops")
)

// KeyFullError means that the share of one key is full. It wraps [ErrFull].
type KeyFullError struct {
	KeyID string
}

func (e *KeyFullError) Error() string {
	return fmt.Sprintf("no room to remember another signature of key %q", e.KeyID)
}

func (e *KeyFullError) Unwrap() error { return ErrFull }

// WindowError means that the signature may have been used before: by a process whose claims
// are lost, or before the clock was set back.
type WindowError struct {
	Until time.Time // signatures created at or after this time are accepted
}

func (e *WindowError) Error() string {
	return "signatures created before " + e.Until.UTC().Format(time.RFC3339) + " may have been used"
}
