package admin

import (
	"crypto/rand"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"sync"
	"syscall"
	"time"
)

// maxSocketPath is the maximum length of a unix socket's path: sun_path without the final zero,
// 107 bytes on Linux.
const maxSocketPath = len(syscall.RawSockaddrUnix{}.Path) - 1

// bindName is the form of a socket's temporary name: a random folder and a file in it.
const bindName = ".xxxxxx/s"

// SocketPathExcess returns by how many bytes path is too long for the control socket, 0 if it is
// not, and the maximum length.
func SocketPathExcess(path string) (excess, most int) {
	longest := max(len(path), len(filepath.Join(filepath.Dir(path), bindName)))
	return max(0, longest-maxSocketPath), maxSocketPath
}

// socketPathFits returns an error if path is too long.
func socketPathFits(path string) error {
	if excess, most := SocketPathExcess(path); excess > 0 {
		return fmt.Errorf("%s: %d bytes too long for a unix socket, which may have %d; set listen.control to a shorter path such as /run/sallyport/control.sock",
			path, excess, most)
	}
	return nil
}

// listenSocket creates a socket of mode 0600 at path. It binds the socket in a folder that other
// users cannot enter, sets the mode there and then renames it. So other users can never connect.
//
// It locks the folder meanwhile. If two gateways start at once, the second sees the socket of the
// first.
func listenSocket(path string) (net.Listener, error) {
	if err := socketPathFits(path); err != nil {
		return nil, err
	}
	unlock, err := LockFolder(filepath.Dir(path))
	if err != nil {
		return nil, fmt.Errorf("the folder of the control socket: %w", err)
	}
	defer unlock()
	if err := socketIsFree(path); err != nil {
		return nil, err
	}
	letters := rand.Text()[:len(".xxxxxx")-1]
	private := filepath.Join(filepath.Dir(path), "."+letters)
	if err := os.Mkdir(private, 0o700); err != nil {
		return nil, fmt.Errorf("creating the control socket: %w", err)
	}
	defer os.Remove(private)
	bound := filepath.Join(private, "s")
	l, err := net.ListenUnix("unix", &net.UnixAddr{Name: bound, Net: "unix"})
	if err != nil {
		return nil, fmt.Errorf("creating the control socket: %w", err)
	}
	l.SetUnlinkOnClose(false)
	err = os.Chmod(bound, 0o600)
	if err == nil {
		err = os.Rename(bound, path)
	}
	var info fs.FileInfo
	if err == nil {
		info, err = os.Lstat(path)
	}
	if err != nil {
		_ = l.Close()
		_ = os.Remove(bound)
		return nil, fmt.Errorf("creating the control socket: %w", err)
	}
	return &namedSocket{Listener: l, path: path, info: info}, nil
}

// socketIsFree returns an error unless path is unused, or is a socket that nobody answers. The
// caller holds the lock of the folder.
func socketIsFree(path string) error {
	info, err := os.Lstat(path)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return nil
	case err != nil:
		return fmt.Errorf("the control socket: %w", err)
	case info.Mode()&fs.ModeSocket == 0:
		return fmt.Errorf("%s: a file that is not a socket is in the way; remove it, or set listen.control to another path", path)
	}
	c, err := net.DialTimeout("unix", path, 5*time.Second)
	switch {
	case err == nil:
		_ = c.Close()
		return fmt.Errorf("%s: another process answers at this socket; stop it, or set listen.control to another path", path)
	case errors.Is(err, syscall.ECONNREFUSED), errors.Is(err, fs.ErrNotExist):
		return nil
	}
	return fmt.Errorf("%s: cannot determine whether another process answers at this socket: %w", path, err)
}

// namedSocket removes its own file on Close, but not a file that has replaced it.
type namedSocket struct {
	net.Listener
	path string
	info fs.FileInfo
	once sync.Once
}

// Close implements [net.Listener].
func (s *namedSocket) Close() error {
	s.once.Do(func() {
		unlock, err := LockFolder(filepath.Dir(s.path))
		if err != nil {
			return // the next gateway finds that nobody answers and replaces it
		}
		defer unlock()
		if info, err := os.Lstat(s.path); err == nil && os.SameFile(info, s.info) {
			_ = os.Remove(s.path)
		}
	})
	return s.Listener.Close()
}
