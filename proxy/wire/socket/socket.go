// Package socket reads and writes sockets by system calls that bypass the runtime's scheduler.
//
// Package net announces each call to the scheduler in case it blocks, but a call on a non-blocking
// socket never does. Under load the announcement costs little. In a mostly idle process it wakes
// the runtime's monitor thread: at 2000 requests a second that took a quarter of all CPU time.
//
// The bypass works for TCP and Unix sockets on Linux (amd64 and arm64). Package net does the work
// on other platforms and for all other connections.
package socket

import (
	"errors"
	"io"
	"net"
	"os"
	"sync"
	"syscall"
	"time"
)

// Conn is a TCP or Unix connection. It behaves like the connection it wraps, deadlines and Close
// included, and is equally safe for concurrent use. One thing differs: a write without a deadline
// fails with [os.ErrDeadlineExceeded] once the peer has taken less than 1 KiB in a minute, and then
// the connection is closed. crypto/tls writes on its own, within Read too: it answers each KeyUpdate
// that asks for an answer, and tries again at the next after a failed write. A peer that sends these
// and reads nothing would otherwise stop that Read for ever.
type Conn struct {
	net.Conn
	raw   syscall.RawConn
	stall time.Duration // how long a write without a deadline waits for the peer to take least bytes
	least int           // bytes

	reads, writes half

	mu      sync.Mutex // guards the fields below
	still   bool
	look    func(fd uintptr) // sets still
	limited bool             // the owner has set a deadline for writes
}

// half is one direction of a connection.
type half struct {
	mu    sync.Mutex // held during a call; guards the fields below
	p     []byte     // the buffer to fill, or the bytes left to write
	n     int        // bytes read
	errno syscall.Errno
	try   func(fd uintptr) (done bool) // reads or writes as much as it can without waiting
	some  func(fd uintptr) (done bool) // of writes: as try, but done once at most goal bytes are left
	goal  int
	once  func(fd uintptr) (done bool) // of writes: as try, but always done
}

// New wraps a TCP or Unix connection in a Conn and returns every other connection unchanged.
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
	k := &Conn{Conn: c, raw: raw, stall: time.Minute, least: 1 << 10}
	k.reads.try = k.reads.read
	k.writes.try, k.writes.some, k.writes.once = k.writes.write, k.writes.writeSome, k.writes.writeOnce
	k.look = func(fd uintptr) { k.still = nothingToRead(fd) }
	return k
}

// NetConn returns the wrapped connection, for operations that net.Conn does not offer.
func (k *Conn) NetConn() net.Conn { return k.Conn }

// Read reads available bytes, or waits for some.
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

// SetDeadline sets the deadlines of reads and writes.
func (k *Conn) SetDeadline(t time.Time) error {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.limited = !t.IsZero()
	return k.Conn.SetDeadline(t)
}

// SetWriteDeadline sets the deadline of writes; zero: none but that of a stalled write.
func (k *Conn) SetWriteDeadline(t time.Time) error {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.limited = !t.IsZero()
	return k.Conn.SetWriteDeadline(t)
}

// limitStall sets the deadline after which a write without one has stalled, or with zero removes
// it. It returns false if the owner has set a deadline, which then counts.
func (k *Conn) limitStall(t time.Time) bool {
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.limited {
		return false
	}
	_ = k.Conn.SetWriteDeadline(t) // fails only on a closed connection, where writes fail too
	return true
}

// endStall removes the deadline of limitStall, which set it if ours is true, after a write. A write
// that has stalled may have sent a part of a TLS record, so the connection ends.
func (k *Conn) endStall(ours bool, err error) {
	if ours && k.limitStall(time.Time{}) && errors.Is(err, os.ErrDeadlineExceeded) {
		_ = k.Conn.Close()
	}
}

// Write writes all of p.
func (k *Conn) Write(p []byte) (int, error) {
	h := &k.writes
	h.mu.Lock()
	defer h.mu.Unlock()
	if !direct {
		ours := k.limitStall(time.Now().Add(k.stall))
		n, err := k.Conn.Write(p)
		k.endStall(ours, err)
		return n, err
	}
	h.p, h.errno = p, 0
	err := k.raw.Write(h.once)
	for err == nil && h.errno == 0 && len(h.p) > 0 {
		if !k.limitStall(time.Now().Add(k.stall)) {
			err = k.raw.Write(h.try)
			break
		}
		h.goal = max(0, len(h.p)-k.least)
		err = k.raw.Write(h.some)
		k.endStall(true, err)
	}
	n := len(p) - len(h.p)
	h.p = nil
	if err == nil && h.errno != 0 {
		err = k.failed("write", h.errno)
	}
	return n, err
}

// failed returns errno as the error that package net would return.
func (k *Conn) failed(op string, errno syscall.Errno) error {
	return &net.OpError{Op: op, Net: k.LocalAddr().Network(), Source: k.LocalAddr(), Addr: k.RemoteAddr(), Err: os.NewSyscallError(op, errno)}
}

// quiet reports whether a read would block: neither bytes nor the end have arrived.
func (k *Conn) quiet() bool {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.still = false
	return k.raw.Control(k.look) == nil && k.still
}

// Quiet reports whether nothing unread, not even the end, has arrived on the innermost [Conn] of c.
// known is false if that cannot be determined.
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

// Beneath returns the innermost connection that c wraps.
func Beneath(c net.Conn) net.Conn {
	for {
		outer, ok := c.(interface{ NetConn() net.Conn })
		if !ok {
			return c
		}
		c = outer.NetConn()
	}
}

// Listen returns a listener that wraps each accepted connection as [New] does.
func Listen(l net.Listener) net.Listener { return &listener{l} }

type listener struct{ net.Listener }

func (l *listener) Accept() (net.Conn, error) {
	c, err := l.Listener.Accept()
	if err != nil {
		return nil, err
	}
	return New(c), nil
}
