//go:build !unix

package local

import (
	"errors"
	"os"
)

// errHeld says that another process holds a lock.
var errHeld = errors.New("another process holds the lock")

// acquire cannot lock files here.
func acquire(string) (*os.File, error) { return nil, errors.ErrUnsupported }
