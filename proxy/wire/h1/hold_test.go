package h1

import (
	"net"
	"testing"
	"time"

	"sallyport/proxy/wire"
)

// TestSweepsWaitForNoConnection: a connection whose mutex is held delays neither the sweep of the others nor
// the acceptance of new ones. Its own fault stays its own.
func TestSweepsWaitForNoConnection(t *testing.T) {
	s := NewServer(func(wire.Stream) {}, wire.ServerOptions{HeadTime: 40 * time.Millisecond})
	defer s.Close()
	near, far := net.Pipe()
	defer far.Close()
	held := newServerConn(s, near)
	s.Conns.Enter(held)
	defer s.Conns.Leave(held)
	held.mu.Lock()
	defer held.mu.Unlock()
	for range 3 {
		ours, theirs := net.Pipe()
		entered := make(chan struct{})
		go func() {
			s.ServeConn(ours)
			close(entered)
		}()
		select {
		case <-entered:
		case <-time.After(time.Minute):
			t.Fatal("a connection is not accepted")
		}
		_ = theirs.SetReadDeadline(time.Now().Add(time.Minute))
		if _, err := theirs.Read(make([]byte, 100)); err == nil || isTimeout(err) {
			t.Fatalf("a silent connection is not ended: %v", err)
		}
	}
}

func isTimeout(err error) bool {
	t, ok := err.(net.Error)
	return ok && t.Timeout()
}
