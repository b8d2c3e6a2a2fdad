//go:build unix

package admin

import (
	"errors"
	"fmt"
	"os"
	"syscall"
	"time"
)

// lockTime is how long to wait for a folder that another process has locked.
const lockTime = 5 * time.Second

// LockFolder locks a folder against other callers, in this process and others. It does nothing on
// file systems without locks, which matters only if two of them act at the same moment.
func LockFolder(dir string) (unlock func(), err error) {
	f, err := os.Open(dir)
	if err != nil {
		return nil, err
	}
	for end := time.Now().Add(lockTime); ; time.Sleep(10 * time.Millisecond) {
		err = syscall.Flock(int(f.Fd()), syscall.LOCK_EX|syscall.LOCK_NB)
		switch {
		case err == nil, errors.Is(err, syscall.ENOTSUP), errors.Is(err, syscall.ENOLCK), errors.Is(err, syscall.ENOSYS), errors.Is(err, syscall.EBADF):
			return func() { _ = f.Close() }, nil // which also unlocks
		case errors.Is(err, syscall.EINTR):
		case !errors.Is(err, syscall.EWOULDBLOCK):
			_ = f.Close()
			return nil, fmt.Errorf("locking %s: %w", dir, err)
		case time.Now().After(end):
			_ = f.Close()
			return nil, fmt.Errorf("another process has locked %s for more than %v", dir, lockTime)
		}
	}
}
