package wire

import (
	"errors"
	"net"
	"sync"
)

// Listeners is the set of listeners of a server. A listener may be added or closed while the server
// keeps serving its connections. The zero value is ready for use. It is safe for concurrent use.
type Listeners struct {
	mu     sync.Mutex // guards the fields below
	open   map[net.Listener]struct{}
	closed bool
}

// Serve passes every connection that l accepts to take, one at a time. It returns nil once l's
// owner or Close has closed l. If Accept fails for any other reason, it closes l and returns the
// error.
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

// Close closes all listeners. Later calls of Serve close their listener and return nil.
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
