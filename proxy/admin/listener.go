package admin

import (
	"errors"
	"net"
	"sync"
	"time"
)

// boundedListener accepts a connection only when there is a place for it, and
// outlives errors of Accept that pass.
type boundedListener struct {
	net.Listener
	places chan struct{}
	once   sync.Once
	done   chan struct{} // closed by Close
}

func (b *boundedListener) Accept() (net.Conn, error) {
	select {
	case b.places <- struct{}{}:
	case <-b.done:
		return nil, net.ErrClosed
	}
	for {
		c, err := b.Listener.Accept()
		if err == nil {
			return &placedConn{Conn: c, places: b.places}, nil
		}
		if errors.Is(err, net.ErrClosed) {
			return nil, err
		}
		t := time.NewTimer(50 * time.Millisecond)
		select {
		case <-t.C:
		case <-b.done:
			t.Stop()
			return nil, net.ErrClosed
		}
	}
}

func (b *boundedListener) Close() error {
	err := net.ErrClosed
	b.once.Do(func() {
		close(b.done)
		err = b.Listener.Close()
	})
	return err
}

// placedConn gives its place back when it is closed.
type placedConn struct {
	net.Conn
	once   sync.Once
	places chan struct{}
}

func (c *placedConn) Close() error {
	err := c.Conn.Close()
	c.once.Do(func() { <-c.places })
	return err
}
