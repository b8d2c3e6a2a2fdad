package proxy_test

import (
	"context"
	"fmt"
	"net"
	"strings"
	"sync"
	"testing"
	"time"

	"sallyport/proxy"
)

// A gateway stays alive whatever its clients do: at its limit of connections, and while it drains.
func TestClientsCannotMakeAGatewayLookDead(t *testing.T) {
	h := build(t, plan{more: unwatched + "limits: {connections: 1, connections_per_address: 1}\ndrain_delay: 1h\n"})
	alive := func(when string) {
		t.Helper()
		if err := h.gateway.Alive(t.Context()); err != nil {
			t.Errorf("%s: %v", when, err)
		}
	}
	alive("at the start")
	h.dial("models.test", "http/1.1")
	for range 20 {
		if c, err := net.Dial("tcp", h.addrs.HTTPS[0].String()); err == nil {
			t.Cleanup(func() { c.Close() })
		}
		alive("at the limit of connections")
	}
	ended := make(chan error, 1)
	go func() { ended <- h.stop() }()
	for h.gateway.Reload(t.Context()).Summary != "the gateway is stopping" {
	}
	alive("while it drains")
	h.gateway.Kill()
	if err := <-ended; err != nil {
		t.Error(err)
	}
}

// stuck is a listener whose Accept hangs, as it would behind a lock that nobody releases.
type stuck struct {
	*net.TCPListener
	asked   chan struct{} // gets a value each time a deadline is set, by which Alive asks
	release chan struct{}
	once    sync.Once
}

func (s *stuck) SetDeadline(at time.Time) error {
	if !at.IsZero() {
		s.asked <- struct{}{}
	}
	return s.TCPListener.SetDeadline(at)
}

func (s *stuck) Accept() (net.Conn, error) {
	<-s.release
	return nil, net.ErrClosed
}

func (s *stuck) Close() error {
	s.once.Do(func() { close(s.release) })
	return s.TCPListener.Close()
}

// One listener no longer accepts, and the others work. The error must name it.
func TestGatewayWithAStuckListenerIsNotAlive(t *testing.T) {
	var addr string
	asked := make(chan struct{})
	listen := func(network, want string) (net.Listener, error) {
		l, err := net.Listen(network, want)
		if err != nil || addr != "" {
			return l, err
		}
		addr = l.Addr().String() // https is opened first
		return &stuck{TCPListener: l.(*net.TCPListener), asked: asked, release: make(chan struct{})}, nil
	}
	h := build(t, plan{options: proxy.Options{Listen: listen}})
	for range 3 {
		ctx, cancel := context.WithCancel(t.Context())
		go func() {
			<-asked
			cancel()
		}()
		err := h.gateway.Alive(ctx)
		if err == nil || !strings.Contains(err.Error(), addr) {
			t.Errorf("got %v, want an error that names %s", err, addr)
		}
	}
}

// manager records the calls of a gateway to its service manager.
type manager struct{ calls lines }

func (m *manager) Ready(status string) { fmt.Fprintln(&m.calls, "ready:", status) }
func (m *manager) Reloading()          { fmt.Fprintln(&m.calls, "reloading") }
func (m *manager) Stopping(status string, within time.Duration) {
	fmt.Fprintln(&m.calls, "stopping:", status, within)
}

// The service manager learns of the start, of each reload and its result, and of the end.
func TestManagerGetsTheState(t *testing.T) {
	m := &manager{}
	h := build(t, plan{more: unwatched + "drain: 7s\ndrain_delay: 1ms\n", options: proxy.Options{Manager: m}})
	h.reload("unchanged")
	h.edit("drain: 7s", "drain: seven")
	h.reload("refused")
	h.edit("drain: seven", "drain: 8s")
	h.reload("changed")
	if err := h.stop(); err != nil {
		t.Fatal(err)
	}
	h.gateway.Reload(t.Context()) // after the end, nothing is reported
	serving := fmt.Sprintf("serving on https %s, http %s, health %s", h.addrs.HTTPS[0], h.addrs.HTTP[0], h.addrs.Health)
	want := []string{
		"ready: " + serving,
		"reloading", "ready: " + serving,
		"reloading", "ready: " + serving + "; the last reload was refused: the configuration has a fault",
		"reloading", "ready: " + serving,
		"stopping: draining 0 requests 8.001s",
	}
	if got := strings.TrimSpace(m.calls.buf.String()); got != strings.Join(want, "\n") {
		t.Errorf("got\n%s\nwant\n%s", got, strings.Join(want, "\n"))
	}
}
