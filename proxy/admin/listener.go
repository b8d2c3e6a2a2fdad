package admin

import (
	"errors"
	"net"
	"sync"
	"time"
)

// boundedListener limits the number of open connections, and retries after temporary errors of
// Accept.
type boundedListener struct {
	net.Listener
	slots chan struct{}
	once  sync.Once
	done  chan struct{} // closed by Close
}

func (b *boundedListener) Accept() (net.Conn, error) {
	select {
	case b.slots <- struct{}{}:
	case <-b.done:
		return nil, net.ErrClosed
	}
	for {
		c, err := b.Listener.Accept()
		if err == nil {
			return &boundedConn{Conn: c, slots: b.slots}, nil
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

// boundedConn frees its slot when it is closed.
type boundedConn struct {
	net.Conn
	once  sync.Once
	slots chan struct{}
}

func (c *boundedConn) Close() error {
	err := c.Conn.Close()
	c.once.Do(func() { <-c.slots })
	return err
}
