package wire

import (
	"errors"
	"net"
	"sync"
)

// Listeners are those on which a server accepts connections. Any of them may be opened
// or closed while the server goes on serving the connections that it has. The zero
// value is ready for use. It is safe for concurrent use.
type Listeners struct {
	mu     sync.Mutex // guards what follows
	open   map[net.Listener]struct{}
	closed bool
}

// Serve hands every connection that l accepts to take, one at a time, until l is closed,
// by its owner or by Close: then it returns nil. If Accept fails for any other reason, it
// closes l and returns the error.
func (s *Listeners) Serve(l net.Listener, take func(net.Conn)) error {
	defer l.Close()
	if !s.enter(l) {
		return nil
	}
	defer s.leave(l)
	for {
		conn, err := l.Accept()
		switch {
		case err == nil:
			take(conn)
		case errors.Is(err, net.ErrClosed) || s.isClosed():
			return nil
		default:
			return err
		}
	}
}

// Close closes all listeners; later calls of Serve close theirs and return nil.
func (s *Listeners) Close() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.closed = true
	var errs []error
	for l := range s.open {
		if err := l.Close(); !errors.Is(err, net.ErrClosed) {
			errs = append(errs, err)
		}
	}
	s.open = nil
	return errors.Join(errs...)
}

func (s *Listeners) enter(l net.Listener) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed {
		return false
	}
	if s.open == nil {
		s.open = map[net.Listener]struct{}{}
	}
	s.open[l] = struct{}{}
	return true
}

func (s *Listeners) leave(l net.Listener) {
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.open, l)
}

func (s *Listeners) isClosed() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.closed
}
