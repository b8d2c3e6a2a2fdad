//go:build unix

package endfile

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"syscall"
	"time"
)

// openFlags are those with which the file is opened: no link may lead elsewhere.
const openFlags = os.O_RDWR | os.O_APPEND | syscall.O_NOFOLLOW

// lockFile locks a file for this process, so that no other one writes to it. It waits for the other.
func lockFile(f *os.File, wait time.Duration) error {
	for end := time.Now().Add(wait); ; time.Sleep(lockPause) {
		if err := flock(f, syscall.LOCK_EX); err != errBusy || time.Now().After(end) {
			return err
		}
	}
}

// tryLock returns why [lockFile] could never lock a file. Its own lock lasts for a moment, and is one that
// others may share.
func tryLock(f *os.File) error {
	err := flock(f, syscall.LOCK_SH)
	if err == errBusy {
		return nil
	}
	unlockFile(f)
	return err
}

// flock takes a lock, or returns errBusy at once if another process has it.
func flock(f *os.File, how int) error {
	for {
		err := syscall.Flock(int(f.Fd()), how|syscall.LOCK_NB)
		switch {
		case err == nil:
			return nil
		case errors.Is(err, syscall.EINTR):
		case errors.Is(err, syscall.EWOULDBLOCK):
			return errBusy
		case errors.Is(err, syscall.ENOSYS), errors.Is(err, syscall.ENOTSUP), errors.Is(err, syscall.ENOLCK):
			return errNoLocks
		default:
			return fmt.Errorf("locking %s: %w", f.Name(), err)
		}
	}
}

// unlockFile ends the lock.
func unlockFile(f *os.File) { _ = syscall.Flock(int(f.Fd()), syscall.LOCK_UN) } // closing would end it too

// foreignOwner reports whether a file belongs to another user, who could have written it.
func foreignOwner(info fs.FileInfo) bool {
	stat, ok := info.Sys().(*syscall.Stat_t)
	return ok && int(stat.Uid) != os.Geteuid()
}

// unsupportedSync reports whether a file system cannot sync folders.
func unsupportedSync(err error) bool {
	return errors.Is(err, syscall.EINVAL) || errors.Is(err, errors.ErrUnsupported)
}
