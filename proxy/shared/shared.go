// Package shared is the contract of what the replicas of a gateway must agree on: has
// this signature been used before? Later: rates and certificates.
//
// Each engine has a package of its own. Package local keeps everything in the memory of
// one process, with a file that a planned stop leaves to the next.
package shared

import (
	"context"
	"errors"
	"fmt"
	"time"
)

// Replay remembers which signatures were used, so that each is used once. It must be
// safe for concurrent use, by many exchanges of many replicas at once.
//
// An engine must keep to this:
//
//   - Of all calls of Claim with the same key and claim, on all replicas together, at most
//     one returns nil while the signature could be accepted, whatever else happens:
//     restarts, lost connections, clocks that are set, and stores that are full.
//   - It never makes room by forgetting a claim that still counts. Without room it
//     returns [ErrFull].
//   - What it cannot know it refuses: after a loss of its memory every signature that may
//     have been used before is a [WindowError], and a store that cannot be asked is an
//     error of its own, which refuses the request for now (503) and is no [ErrReplayed].
//   - Every wait ends with ctx. A claim whose ctx ended may or may not have been made.
type Replay interface {
	// Claim uses a signature. claim identifies it among those of its key, created is what
	// the signer wrote, and until the last second at which the signature counts. The caller
	// has verified the signature: keyID is of the configuration.
	//
	// The error is [ErrReplayed], [ErrFull] or a [KeyFullError], a [WindowError],
	// [ErrStopped], or why the store could not be asked.
	Claim(ctx context.Context, keyID string, claim [16]byte, created, until time.Time) error
}

// Why a claim is refused.
var (
	// ErrReplayed: the claim was made before.
	ErrReplayed = errors.New("the signature was used before")
	// ErrFull: there is no room to remember another claim, and none is forgotten before its
	// time. Where one key's share is used up it is a [KeyFullError].
	ErrFull = errors.New("no room to remember another signature")
	// ErrStopped: the store does not remember any more, or not yet; a claim would be lost.
	ErrStopped = errors.New("signatures are not remembered: the process stops")
)

// KeyFullError says that the share of one key is used up. It is an [ErrFull].
type KeyFullError struct {
	KeyID string
}

func (e *KeyFullError) Error() string {
	return fmt.Sprintf("no room to remember another signature of key %q", e.KeyID)
}

func (e *KeyFullError) Unwrap() error { return ErrFull }

// WindowError says that the signature may have been used before: by a process that left
// nothing behind, or before the clock was set back.
type WindowError struct {
	Until time.Time // signatures created from then on are not refused so
}

func (e *WindowError) Error() string {
	return "signatures created before " + e.Until.UTC().Format(time.RFC3339) + " may have been used"
}
