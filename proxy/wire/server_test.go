package wire_test

import (
	"context"
	"errors"
	"io"
	"net"
	"net/http"
	"sync/atomic"
	"testing"
	"time"

	"sallyport/proxy/wire"
	"sallyport/proxy/wire/h1"
	"sallyport/proxy/wire/h2"
)

// versions are the servers, for clients that know the version in advance.
var versions = []struct {
	name   string
	client func() *http.Protocols
	make   func(wire.Handler, wire.ServerOptions) (server, func(wire.ServerOptions))
}{
	{"HTTP/1.1", func() *http.Protocols { p := new(http.Protocols); p.SetHTTP1(true); return p },
		func(h wire.Handler, o wire.ServerOptions) (server, func(wire.ServerOptions)) {
			s := h1.NewServer(h, o)
			return s, s.SetOptions
		}},
	{"HTTP/2", func() *http.Protocols { p := new(http.Protocols); p.SetUnencryptedHTTP2(true); return p },
		func(h wire.Handler, o wire.ServerOptions) (server, func(wire.ServerOptions)) {
			s := h2.NewServer(h, h2.ServerOptions{ServerOptions: o})
			return s, func(o wire.ServerOptions) { s.SetOptions(h2.ServerOptions{ServerOptions: o}) }
		}},
}

// caller sends requests to a server and counts the connections it needs.
type caller struct {
	http.Client
	dialed atomic.Int32
}

func newCaller(t *testing.T, protocols *http.Protocols) *caller {
	c := &caller{}
	c.Client.Timeout = time.Minute
	c.Transport = &http.Transport{Protocols: protocols, DialContext: func(ctx context.Context, network, addr string) (net.Conn, error) {
		c.dialed.Add(1)
		return new(net.Dialer).DialContext(ctx, network, addr)
	}}
	t.Cleanup(c.CloseIdleConnections)
	return c
}

// ask returns the status of the answer to a request with this many fields.
func (c *caller) ask(addr string, fields int) (status int, err error) {
	req, err := http.NewRequest("GET", "http://"+addr, nil)
	if err != nil {
		return 0, err
	}
	for range fields {
		req.Header.Add("X-Many", "x")
	}
	res, err := c.Do(req)
	if err != nil {
		return 0, err
	}
	defer res.Body.Close()
	_, err = io.Copy(io.Discard, res.Body)
	return res.StatusCode, err
}

// serving serves a new listener, and returns it with the result of Serve.
func serving(t *testing.T, s server) (l net.Listener, done <-chan error) {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	ended := make(chan error, 1)
	go func() { ended <- s.Serve(l) }()
	return l, ended
}

// status answers 200, or 431 if the head has a fault.
func status(s wire.Stream) {
	status := 200
	if s.Head().Fault != nil {
		status = 431
	}
	answer(s, status, "")
}

// TestConnectionsOutliveTheirListener closes a listener, opens another and changes the limits while
// a client uses its connection.
func TestConnectionsOutliveTheirListener(t *testing.T) {
	for _, v := range versions {
		t.Run(v.name, func(t *testing.T) {
			s, setOptions := v.make(status, wire.ServerOptions{Fields: 80})
			defer s.Close()
			first, ended := serving(t, s)
			victim := newCaller(t, v.client())
			ask := func(who *caller, addr string, fields, want int) {
				t.Helper()
				if got, err := who.ask(addr, fields); got != want || err != nil {
					t.Errorf("answered %d, %v; want %d", got, err, want)
				}
			}
			old := first.Addr().String()
			ask(victim, old, 40, 200)

			if err := first.Close(); err != nil {
				t.Fatal(err)
			}
			if err := <-ended; err != nil {
				t.Errorf("Serve of a listener that its owner closed: %v", err)
			}
			ask(victim, old, 40, 200)
			if _, err := newCaller(t, v.client()).ask(old, 1); err == nil {
				t.Error("a closed listener takes connections")
			}

			setOptions(wire.ServerOptions{Fields: 20})
			second, ended := serving(t, s)
			ask(newCaller(t, v.client()), second.Addr().String(), 40, 431)
			ask(newCaller(t, v.client()), second.Addr().String(), 4, 200)
			ask(victim, old, 40, 200)
			if n := victim.dialed.Load(); n != 1 {
				t.Errorf("the client needed %d connections, want the one that it had", n)
			}

			if err := s.Shutdown(t.Context()); err != nil {
				t.Errorf("Shutdown: %v", err)
			}
			if err := <-ended; err != nil {
				t.Errorf("Serve: %v", err)
			}
		})
	}
}

// failing is a listener whose Accept fails.
type failing struct {
	net.Listener
	err error
}

func (l failing) Accept() (net.Conn, error) { return nil, l.err }

func TestServeTellsWhyAListenerFailed(t *testing.T) {
	broken := errors.New("broken")
	for _, v := range versions {
		t.Run(v.name, func(t *testing.T) {
			s, _ := v.make(status, wire.ServerOptions{})
			defer s.Close()
			l, err := net.Listen("tcp", "127.0.0.1:0")
			if err != nil {
				t.Fatal(err)
			}
			if err := s.Serve(failing{l, broken}); err != broken {
				t.Errorf("Serve: %v, want %v", err, broken)
			}
			if err := l.Close(); !errors.Is(err, net.ErrClosed) {
				t.Errorf("the listener was left open: %v", err)
			}
		})
	}
}
