//go:build unix

package local

import (
	"errors"
	"fmt"
	"os"
	"syscall"
)

// errLocked says that another process holds the lock.
var errLocked = errors.New("another process holds the lock")

// acquire locks a file without waiting, and creates it if it is missing. The lock ends when the
// file is closed or the process ends. It returns errLocked if the lock is taken, and
// [errors.ErrUnsupported] if the file system has no locks.
func acquire(name string) (*os.File, error) {
	f, err := os.OpenFile(name, os.O_RDWR|os.O_CREATE|syscall.O_NOFOLLOW, 0o600)
	if err != nil {
		return nil, err
	}
	for {
		switch err = syscall.Flock(int(f.Fd()), syscall.LOCK_EX|syscall.LOCK_NB); {
		case err == nil:
			return f, nil
		case errors.Is(err, syscall.EINTR):
			continue
		case errors.Is(err, syscall.EWOULDBLOCK):
			err = errLocked
		case errors.Is(err, syscall.ENOSYS), errors.Is(err, syscall.ENOTSUP):
			err = errors.ErrUnsupported
		default:
			err = fmt.Errorf("locking %s: %w", name, err)
		}
		f.Close()
		return nil, err
	}
}
