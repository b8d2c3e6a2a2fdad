// Package socket reads and writes sockets by system calls of which the runtime's
// scheduler is not told.
//
// Package net tells it of each call, in case that it blocks; one on a socket in
// non-blocking mode never does. While there is much to do that costs little. Between
// requests a process is idle, and then each of these calls wakes the runtime's monitor,
// a thread of its own: at 2000 requests a second that was a quarter of all CPU time.
//
// On Linux (amd64 and arm64) this is done for TCP and Unix sockets; elsewhere, and for
// all other connections, package net does the work.
package socket

import (
	"io"
	"net"
	"os"
	"sync"
	"syscall"
)

// Conn is a connection of the system's. It is what the connection in it is, deadlines
// and Close included, and safe for concurrent use like that.
type Conn struct {
	net.Conn
	raw syscall.RawConn

	reads, writes half

	mu    sync.Mutex // guards what follows
	still bool
	look  func(fd uintptr) // sets still
}

// half is one direction of a connection.
type half struct {
	mu    sync.Mutex // held through a call; it guards what follows
	p     []byte     // to be filled, or what is left to be written
	n     int        // what was read
	errno syscall.Errno
	try   func(fd uintptr) (done bool) // does what can be done without waiting
}

// New makes a Conn of a TCP or Unix connection, and returns every other as it is.
func New(c net.Conn) net.Conn {
	var s syscall.Conn
	switch c := c.(type) {
	case *net.TCPConn:
		s = c
	case *net.UnixConn:
		s = c
	}
	if s == nil || !peeking {
		return c
	}
	raw, err := s.SyscallConn()
	if err != nil {
		return c
	}
	k := &Conn{Conn: c, raw: raw}
	k.reads.try, k.writes.try = k.reads.read, k.writes.write
	k.look = func(fd uintptr) { k.still = nothingToRead(fd) }
	return k
}

// NetConn is the connection beneath, for what a net.Conn cannot do.
func (k *Conn) NetConn() net.Conn { return k.Conn }

// Read reads what is there, or waits for some.
func (k *Conn) Read(p []byte) (int, error) {
	if !direct {
		return k.Conn.Read(p)
	}
	if len(p) == 0 {
		return 0, nil
	}
	h := &k.reads
	h.mu.Lock()
	defer h.mu.Unlock()
	h.p, h.n, h.errno = p, 0, 0
	err := k.raw.Read(h.try)
	h.p = nil
	switch {
	case err != nil:
		return 0, err
	case h.errno != 0:
		return 0, k.failed("read", h.errno)
	case h.n == 0:
		return 0, io.EOF
	}
	return h.n, nil
}

// Write writes all of p.
func (k *Conn) Write(p []byte) (int, error) {
	if !direct {
		return k.Conn.Write(p)
	}
	h := &k.writes
	h.mu.Lock()
	defer h.mu.Unlock()
	h.p, h.errno = p, 0
	err := k.raw.Write(h.try)
	n := len(p) - len(h.p)
	h.p = nil
	if err == nil && h.errno != 0 {
		err = k.failed("write", h.errno)
	}
	return n, err
}

// failed is the error that package net gives.
func (k *Conn) failed(op string, errno syscall.Errno) error {
	return &net.OpError{Op: op, Net: k.LocalAddr().Network(), Source: k.LocalAddr(), Addr: k.RemoteAddr(), Err: os.NewSyscallError(op, errno)}
}

// quiet says whether nothing can be read, not even the end.
func (k *Conn) quiet() bool {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.still = false
	return k.raw.Control(k.look) == nil && k.still
}

// Quiet says of the innermost [Conn] of a connection that wraps it whether nothing has
// arrived that was not read, not even the end. known says whether that can be told.
func Quiet(c net.Conn) (quiet, known bool) {
	for {
		if k, ok := c.(*Conn); ok {
			return k.quiet(), true
		}
		outer, ok := c.(interface{ NetConn() net.Conn })
		if !ok {
			return false, false
		}
		c = outer.NetConn()
	}
}

// Beneath is the innermost connection that can be reached.
func Beneath(c net.Conn) net.Conn {
	for {
		outer, ok := c.(interface{ NetConn() net.Conn })
		if !ok {
			return c
		}
		c = outer.NetConn()
	}
}

// Listen has the connections that a listener accepts be Conns where they can.
func Listen(l net.Listener) net.Listener { return &listener{l} }

type listener struct{ net.Listener }

func (l *listener) Accept() (net.Conn, error) {
	c, err := l.Listener.Accept()
	if err != nil {
		return nil, err
	}
	return New(c), nil
}
