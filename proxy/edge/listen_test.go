package edge

import (
	"crypto/tls"
	"errors"
	"io"
	"net"
	"os"
	"path/filepath"
	"sync"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"sallyport/proxy/setting"
)

func anyEdge(t testing.TB) (*Edge, *tls.Config) {
	t.Helper()
	e, err := New(Config{Local: &LocalConfig{Dir: setting.Place(filepath.Join(t.TempDir(), "ca"))}}, Options{Hosts: []string{"localhost"}})
	if err != nil {
		t.Fatal(err)
	}
	return e, &tls.Config{ServerName: "localhost", InsecureSkipVerify: true}
}

// dial opens a connection that sends nothing.
func dial(t *testing.T, addr string) net.Conn {
	t.Helper()
	c, err := net.Dial("tcp", addr)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	return c
}

// closed waits until the peer has closed c.
func closed(t *testing.T, c net.Conn) {
	t.Helper()
	c.SetReadDeadline(time.Now().Add(time.Minute))
	if _, err := io.Copy(io.Discard, c); errors.Is(err, os.ErrDeadlineExceeded) {
		t.Fatal("the connection is still open")
	}
}

func TestSilentClientsDelayNoOthers(t *testing.T) {
	e, client := anyEdge(t)
	addr := listen(t, e, Limits{HandshakeTime: time.Minute})
	for range 50 {
		dial(t, addr)
	}
	if _, err := connect(addr, client); err != nil {
		t.Errorf("behind 50 silent clients: %v", err)
	}
}

func TestHandshakeTimeout(t *testing.T) {
	e, _ := anyEdge(t)
	r := newConnCounter(10)
	addr := listen(t, e, Limits{Conns: r, HandshakeTime: 50 * time.Millisecond})
	for name, first := range map[string][]byte{
		"silent":         nil,
		"garbage":        []byte("GET / HTTP/1.1\r\nHost: localhost\r\n\r\n"),
		"half a message": {22, 3, 1, 2, 0, 1, 0, 1, 252, 3, 3},
		"endless record": append([]byte{22, 3, 1, 0x40, 0}, make([]byte, 100)...),
	} {
		t.Run(name, func(t *testing.T) {
			c := dial(t, addr)
			if _, err := c.Write(first); err != nil {
				t.Fatal(err)
			}
			closed(t, c)
			<-r.left
		})
	}
}

func TestOldestHandshakeIsDroppedAtTheLimit(t *testing.T) {
	e, client := anyEdge(t)
	r := newConnCounter(10)
	addr := listen(t, e, Limits{Conns: r, HandshakeTime: time.Hour, Handshakes: 2})
	first, _ := dial(t, addr), dial(t, addr)
	if _, err := connect(addr, client); err != nil {
		t.Fatalf("at the limit of handshakes: %v", err)
	}
	closed(t, first)
}

func TestConnectionLimit(t *testing.T) {
	e, client := anyEdge(t)
	r := newConnCounter(2)
	addr := listen(t, e, Limits{Conns: r})
	a, err := tls.Dial("tcp", addr, client)
	if err != nil {
		t.Fatal(err)
	}
	b, err := tls.Dial("tcp", addr, client)
	if err != nil {
		t.Fatal(err)
	}
	defer b.Close()
	if _, err := connect(addr, client); err == nil {
		t.Error("a third connection was served, want two at most")
	}
	a.Close()
	<-r.left
	if _, err := connect(addr, client); err != nil {
		t.Errorf("after one has closed: %v", err)
	}
}

func TestPlainConnectionLimit(t *testing.T) {
	inner, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	var j journal
	r := newConnCounter(1)
	l := Plain(inner, Limits{Conns: r, Log: j.log()})
	accepted := make(chan net.Conn)
	done := make(chan error, 1)
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				done <- err
				return
			}
			accepted <- c
		}
	}()
	dial(t, inner.Addr().String())
	first := <-accepted
	closed(t, dial(t, inner.Addr().String()))
	first.Close()
	first.Close() // must be counted once
	dial(t, inner.Addr().String())
	(<-accepted).Close()
	if err := l.Close(); err != nil {
		t.Error(err)
	}
	if err := <-done; !errors.Is(err, net.ErrClosed) {
		t.Errorf("Accept of a closed listener: %v, want net.ErrClosed", err)
	}
	if r.here != 0 {
		t.Errorf("%d connections are counted, want none", r.here)
	}
}

func TestLimitsWithoutConnsRefuseAll(t *testing.T) {
	e, client := anyEdge(t)
	inner, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	l := e.Listen(inner, Limits{})
	defer l.Close()
	if _, err := connect(inner.Addr().String(), client); err == nil {
		t.Error("limits without Conns let a connection in")
	}
}

// sickListener fails a number of times, as when the system is out of descriptors.
type sickListener struct {
	net.Listener
	mu    sync.Mutex
	times int
	conns chan net.Conn
	done  chan struct{}
}

func (s *sickListener) Accept() (net.Conn, error) {
	s.mu.Lock()
	sick := s.times > 0
	s.times--
	s.mu.Unlock()
	if sick {
		return nil, &net.OpError{Op: "accept", Err: syscall.EMFILE}
	}
	select {
	case c := <-s.conns:
		return c, nil
	case <-s.done:
		return nil, errors.New("some error of a closed listener")
	}
}

func (s *sickListener) Close() error { close(s.done); return nil }

func TestAcceptRetriesAfterErrors(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var j journal
		s := &sickListener{times: 20, conns: make(chan net.Conn), done: make(chan struct{})}
		l := Plain(s, Limits{Conns: newConnCounter(10), Log: j.log()})
		got := make(chan error, 1)
		go func() { _, err := l.Accept(); got <- err }()
		ours, theirs := net.Pipe()
		defer ours.Close()
		s.conns <- theirs
		if err := <-got; err != nil {
			t.Errorf("after 20 errors Accept returned %v, want a connection", err)
		}
		if j.String() == "" {
			t.Error("the errors were not logged")
		}
		go func() { _, err := l.Accept(); got <- err }()
		synctest.Wait()
		l.Close()
		if err := <-got; !errors.Is(err, net.ErrClosed) {
			t.Errorf("Accept of a closed listener: %v, want net.ErrClosed", err)
		}
		if err := l.Close(); !errors.Is(err, net.ErrClosed) {
			t.Errorf("closing twice: %v, want net.ErrClosed", err)
		}
	})
}

// Close ends pending handshakes and connections that were not accepted, and waits for them.
func TestCloseEndsPendingConnections(t *testing.T) {
	e, client := anyEdge(t)
	inner, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	r := newConnCounter(10)
	l := e.Listen(inner, Limits{Conns: r, HandshakeTime: time.Hour})
	silent := dial(t, inner.Addr().String())
	waiting, err := tls.Dial("tcp", inner.Addr().String(), client)
	if err != nil {
		t.Fatal(err)
	}
	defer waiting.Close()
	if err := l.Close(); err != nil {
		t.Error(err)
	}
	if r.here != 0 {
		t.Errorf("%d connections are left, want none", r.here)
	}
	closed(t, silent)
	closed(t, waiting)
	if _, err := l.Accept(); !errors.Is(err, net.ErrClosed) {
		t.Errorf("Accept of a closed listener: %v, want net.ErrClosed", err)
	}
}

func BenchmarkHandshake(b *testing.B) {
	e, client := anyEdge(b)
	addr := listen(b, e, Limits{})
	b.ReportAllocs()
	for b.Loop() {
		if _, err := connect(addr, client); err != nil {
			b.Fatal(err)
		}
	}
}
