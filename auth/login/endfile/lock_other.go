//go:build !unix

package endfile

import (
	"io/fs"
	"os"
	"time"
)

const openFlags = os.O_RDWR | os.O_APPEND

// lockFile is not supported on this system.
func lockFile(*os.File, time.Duration) error { return errNoLocks }

func tryLock(*os.File) error { return errNoLocks }

func unlockFile(*os.File) {}

func foreignOwner(fs.FileInfo) bool { return false }

func unsupportedSync(error) bool { return true }
