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

// certStorage keeps certificates, keys and accounts in a folder. Its layout is
// that of certmagic's file storage; files are readable by us alone.
//
// The locks are the system's (flock), on files that mean nothing by themselves:
// one that was left behind, cut short or filled with garbage locks nobody out.
type certStorage struct {
	*certmagic.FileStorage

	mu   sync.Mutex // guards held
	held map[string]*os.File
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
	return &certStorage{FileStorage: &certmagic.FileStorage{Path: dir}, held: map[string]*os.File{}}, nil
}

// lockPoll is how often a lock that somebody else holds is tried.
const lockPoll = 200 * time.Millisecond

// Lock waits for the lock and takes it; the system gives it back if we die.
func (s *certStorage) Lock(ctx context.Context, name string) error {
	path := filepath.Join(s.Path, "locks", certmagic.StorageKeys.Safe(name)+".lock")
	if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
		return err
	}
	f, err := os.OpenFile(path, os.O_CREATE|os.O_RDWR, 0o600)
	if err != nil {
		return err
	}
	for {
		// Processes and goroutines alike: each has an open file of its own.
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
	s.held[name] = f
	return nil
}

// Unlock gives a lock back. The file stays: removing it could part two others
// that wait for it.
func (s *certStorage) Unlock(_ context.Context, name string) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	f := s.held[name]
	if f == nil {
		return fmt.Errorf("lock %s is not held", name)
	}
	delete(s.held, name)
	return f.Close()
}

// Load reads a value of bounded size.
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

// loadKey reads a private key's file, which others must not be able to write, and
// closes it to other readers where that is still to be done.
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
		_ = os.Chmod(name, 0o600) // on a file system without modes it stays as it is
	}
	return s.Load(ctx, key)
}

// setAside keeps a value that cannot be read, for people to look at, and makes
// room for a new one.
func (s *certStorage) setAside(key string) error {
	name := s.Filename(key)
	return os.Rename(name, name+".broken")
}

// stamp is how the files of some keys look from outside. It changes when they are
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
