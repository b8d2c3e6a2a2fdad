package socket

import (
	"bytes"
	"crypto/rand"
	"errors"
	"io"
	"net"
	"os"
	"path/filepath"
	"sync"
	"syscall"
	"testing"
	"time"
)

// pair is two ends of a connection, both as Conns.
func pair(t testing.TB, network string) (a, b net.Conn) {
	t.Helper()
	addr := "127.0.0.1:0"
	if network == "unix" {
		addr = filepath.Join(t.TempDir(), "s")
	}
	inner, err := net.Listen(network, addr)
	if err != nil {
		t.Fatal(err)
	}
	l := Listen(inner)
	defer l.Close()
	accepted := make(chan net.Conn, 1)
	go func() {
		c, _ := l.Accept()
		accepted <- c
	}()
	dialed, err := net.Dial(network, l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	a, b = New(dialed), <-accepted
	t.Cleanup(func() {
		a.Close()
		b.Close()
	})
	for _, c := range []net.Conn{a, b} {
		if _, ok := c.(*Conn); ok != peeking {
			t.Fatalf("%T", c)
		}
	}
	return a, b
}

func both(t *testing.T, f func(t *testing.T, a, b net.Conn)) {
	for _, network := range []string{"tcp", "unix"} {
		t.Run(network, func(t *testing.T) {
			a, b := pair(t, network)
			f(t, a, b)
		})
	}
}

// TestBothWaysAtOnce sends more than fits into the buffers of the system, in pieces of
// all sizes, while as much comes the other way.
func TestBothWaysAtOnce(t *testing.T) {
	both(t, func(t *testing.T, a, b net.Conn) {
		text := make([]byte, 8<<20)
		_, _ = rand.Read(text)
		var all sync.WaitGroup
		for _, c := range []net.Conn{a, b} {
			all.Go(func() {
				left := text
				for size := 1; len(left) > 0; size = size*3 + 1 {
					n, err := c.Write(left[:min(size, len(left))])
					if err != nil || n != min(size, len(left)) {
						t.Errorf("wrote %d of %d: %v", n, size, err)
						return
					}
					left = left[n:]
				}
			})
			all.Go(func() {
				got := make([]byte, len(text))
				for read, size := 0, 1; read < len(got); size = size*5%70_000 + 1 {
					n, err := c.Read(got[read:min(read+size, len(got))])
					if err != nil || n == 0 {
						t.Errorf("read %d: %v", n, err)
						return
					}
					read += n
				}
				if !bytes.Equal(got, text) {
					t.Error("something else came")
				}
			})
		}
		all.Wait()
	})
}

func TestNothing(t *testing.T) {
	both(t, func(t *testing.T, a, b net.Conn) {
		if n, err := a.Write(nil); n != 0 || err != nil {
			t.Errorf("wrote %d, %v", n, err)
		}
		if n, err := b.Read(nil); n != 0 || err != nil {
			t.Errorf("read %d, %v", n, err)
		}
	})
}

func TestDeadlines(t *testing.T) {
	both(t, func(t *testing.T, a, _ net.Conn) {
		late := func(what string, err error) {
			t.Helper()
			var timeout net.Error
			if !errors.Is(err, os.ErrDeadlineExceeded) || !errors.As(err, &timeout) || !timeout.Timeout() {
				t.Errorf("%s: %v", what, err)
			}
		}
		_ = a.SetDeadline(time.Now().Add(10 * time.Millisecond))
		_, err := a.Read(make([]byte, 1))
		late("a read that waits", err)
		much := make([]byte, 64<<20) // more than the system holds
		_ = a.SetWriteDeadline(time.Now().Add(100 * time.Millisecond))
		n, err := a.Write(much)
		late("a write that waits", err)
		if n >= len(much) {
			t.Errorf("wrote %d", n)
		}
		_ = a.SetDeadline(time.Unix(1, 0))
		_, err = a.Read(make([]byte, 1))
		late("a read behind it", err)
		_, err = a.Write([]byte("x"))
		late("a write behind it", err)
		moved := make(chan error, 1)
		_ = a.SetReadDeadline(time.Time{})
		go func() {
			_, err := a.Read(make([]byte, 1))
			moved <- err
		}()
		time.Sleep(10 * time.Millisecond)
		_ = a.SetReadDeadline(time.Unix(1, 0))
		late("a read under way", <-moved)
	})
}

func TestEnds(t *testing.T) {
	both(t, func(t *testing.T, a, b net.Conn) {
		closed := make(chan error, 1)
		go func() {
			_, err := b.Read(make([]byte, 1))
			closed <- err
		}()
		_, _ = a.Write([]byte("x"))
		if err := <-closed; err != nil {
			t.Fatal(err)
		}
		_ = a.Close()
		if n, err := b.Read(make([]byte, 1)); n != 0 || err != io.EOF {
			t.Errorf("behind the end: %d, %v", n, err)
		}
		var err error
		for end := time.Now().Add(time.Minute); err == nil && time.Now().Before(end); {
			_, err = b.Write([]byte("x"))
		}
		var op *net.OpError
		if !errors.Is(err, syscall.EPIPE) && !errors.Is(err, syscall.ECONNRESET) || !errors.As(err, &op) || op.Op != "write" {
			t.Errorf("a write to nobody: %v", err)
		}
		if _, err := a.Read(make([]byte, 1)); !errors.Is(err, net.ErrClosed) {
			t.Errorf("a read of what is closed: %v", err)
		}
		if _, err := a.Write([]byte("x")); !errors.Is(err, net.ErrClosed) {
			t.Errorf("a write to what is closed: %v", err)
		}
		go func() {
			time.Sleep(10 * time.Millisecond)
			_ = b.Close()
		}()
		for err = nil; err == nil || err == io.EOF; {
			_, err = b.Read(make([]byte, 1))
		}
		if !errors.Is(err, net.ErrClosed) && !errors.Is(err, syscall.ECONNRESET) {
			t.Errorf("closed under a read: %v", err)
		}
	})
}

func TestReset(t *testing.T) {
	a, b := pair(t, "tcp")
	_ = Beneath(a).(*net.TCPConn).SetLinger(0)
	_ = a.Close()
	_, err := b.Read(make([]byte, 1))
	var op *net.OpError
	if !errors.Is(err, syscall.ECONNRESET) || !errors.As(err, &op) || op.Op != "read" || op.Net != "tcp" || op.Addr == nil {
		t.Errorf("%v", err)
	}
}

// TestCloseUnderCalls: Close ends calls that wait, in both directions.
func TestCloseUnderCalls(t *testing.T) {
	both(t, func(t *testing.T, a, _ net.Conn) {
		var ended sync.WaitGroup
		ended.Go(func() {
			if _, err := a.Read(make([]byte, 1)); !errors.Is(err, net.ErrClosed) {
				t.Errorf("read: %v", err)
			}
		})
		ended.Go(func() {
			if _, err := a.Write(make([]byte, 64<<20)); !errors.Is(err, net.ErrClosed) {
				t.Errorf("write: %v", err)
			}
		})
		time.Sleep(20 * time.Millisecond)
		_ = a.Close()
		ended.Wait()
	})
}

// wrapped is a connection in another.
type wrapped struct{ net.Conn }

func (w wrapped) NetConn() net.Conn { return w.Conn }

func TestQuiet(t *testing.T) {
	both(t, func(t *testing.T, a, b net.Conn) {
		expect := func(when string, want bool) {
			t.Helper()
			// Where sockets cannot be looked at, that is said, and nothing else.
			if quiet, known := Quiet(wrapped{wrapped{b}}); known != peeking || quiet != (want && known) {
				t.Errorf("%s: quiet %v, known %v", when, quiet, known)
			}
		}
		expect("at first", true)
		_, _ = a.Write([]byte("xy"))
		expect("with something to read", false)
		_, _ = b.Read(make([]byte, 1))
		expect("with half of it read", false)
		_, _ = b.Read(make([]byte, 1))
		expect("with all of it read", true)
		_ = a.Close()
		expect("at the end", false)
		_ = b.Close()
		expect("closed", false)
	})
	p, q := net.Pipe()
	defer p.Close()
	defer q.Close()
	if _, known := Quiet(wrapped{p}); known {
		t.Error("a pipe can be looked at")
	}
	if New(p) != p || Beneath(wrapped{p}) != p {
		t.Error("a pipe is no longer itself")
	}
}

func TestReadsAndWritesDoNotAllocate(t *testing.T) {
	a, b := pair(t, "tcp")
	buf := make([]byte, 100)
	if n := testing.AllocsPerRun(100, func() {
		_, _ = a.Write(buf)
		_, _ = b.Read(buf)
		_, _ = Quiet(b)
	}); n > 0 {
		t.Errorf("%v allocations", n)
	}
}
