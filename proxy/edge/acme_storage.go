package edge

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/caddyserver/certmagic"
)

// certStorage stores certificates, keys and accounts in a folder, in the layout of
// certmagic's file storage. Only our user can read the files.
//
// Locks use flock. The contents of lock files do not matter, so a leftover, truncated or garbage
// file blocks nobody.
type certStorage struct {
	*certmagic.FileStorage

	mu    sync.Mutex // guards locks
	locks map[string]*os.File
}

func newCertStorage(dir string) (*certStorage, error) {
	dir, err := filepath.Abs(dir)
	if err != nil {
		return nil, fmt.Errorf("storage of certificates: %w", err)
	}
	info, err := os.Stat(dir)
	switch {
	case errors.Is(err, fs.ErrNotExist):
	case err != nil:
		return nil, fmt.Errorf("storage of certificates: %w", err)
	case !info.IsDir():
		return nil, fmt.Errorf("storage of certificates: %s is not a folder", dir)
	case info.Mode().Perm()&0o002 != 0 && info.Mode()&fs.ModeSticky == 0:
		return nil, fmt.Errorf("storage of certificates: every user of this machine can write to %s; chmod 700 %[1]s", dir)
	}
	return &certStorage{FileStorage: &certmagic.FileStorage{Path: dir}, locks: map[string]*os.File{}}, nil
}

// lockName returns the name of the file of a lock.
func lockName(name string) string { return certmagic.StorageKeys.Safe(name) + ".lock" }

// lockPoll is the polling interval for a lock that another process holds.
const lockPoll = 200 * time.Millisecond

// Lock waits for the lock and takes it. The system releases it if the process dies.
func (s *certStorage) Lock(ctx context.Context, name string) error {
	path := filepath.Join(s.Path, "locks", lockName(name))
	if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
		return err
	}
	f, err := os.OpenFile(path, os.O_CREATE|os.O_RDWR, 0o600)
	if err != nil {
		return err
	}
	for {
		// flock also excludes goroutines, because each opens the file anew.
		err := syscall.Flock(int(f.Fd()), syscall.LOCK_EX|syscall.LOCK_NB)
		if err == nil {
			break
		}
		if !errors.Is(err, syscall.EWOULDBLOCK) && !errors.Is(err, syscall.EINTR) {
			f.Close()
			return fmt.Errorf("locking %s: %w", path, err)
		}
		select {
		case <-ctx.Done():
			f.Close()
			return ctx.Err()
		case <-time.After(lockPoll):
		}
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.locks[name] = f
	return nil
}

// Unlock releases a lock. It keeps the file: after a removal, two waiters could lock
// different files of the same name.
func (s *certStorage) Unlock(_ context.Context, name string) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	f := s.locks[name]
	if f == nil {
		return fmt.Errorf("lock %s was not taken", name)
	}
	delete(s.locks, name)
	return f.Close()
}

// Load reads a value, up to maxPEM bytes.
func (s *certStorage) Load(_ context.Context, key string) ([]byte, error) {
	f, err := os.Open(s.Filename(key))
	if err != nil {
		return nil, err
	}
	defer f.Close()
	b, err := io.ReadAll(io.LimitReader(f, maxPEM+1))
	if err == nil && len(b) > maxPEM {
		err = fmt.Errorf("%s is larger than %d bytes", f.Name(), maxPEM)
	}
	return b, err
}

// loadKey reads a private key. It fails if other users can write the file, and removes the
// read permission of other users.
func (s *certStorage) loadKey(ctx context.Context, key string) ([]byte, error) {
	name := s.Filename(key)
	info, err := os.Stat(name)
	if err != nil {
		return nil, err
	}
	if info.Mode().Perm()&0o002 != 0 {
		return nil, fmt.Errorf("%s can be written by every user of this machine", name)
	}
	if info.Mode().Perm()&0o077 != 0 {
		_ = os.Chmod(name, 0o600) // fails on file systems without modes
	}
	return s.Load(ctx, key)
}

// setAside renames an unreadable value, for later inspection, so that a new one can be
// stored.
func (s *certStorage) setAside(key string) error {
	name := s.Filename(key)
	return os.Rename(name, name+".broken")
}

// stamp returns the times and sizes of the files of some keys. It changes when they are
// written.
func (s *certStorage) stamp(keys ...string) string {
	var b strings.Builder
	for _, key := range keys {
		if info, err := os.Stat(s.Filename(key)); err == nil {
			fmt.Fprintf(&b, "%d %d;", info.ModTime().UnixNano(), info.Size())
		}
	}
	return b.String()
}
