//go:build !unix

package local

import (
	"errors"
	"os"
)

// errLocked says that another process holds the lock.
var errLocked = errors.New("another process holds the lock")

// acquire is not supported on this system.
func acquire(string) (*os.File, error) { return nil, errors.ErrUnsupported }
