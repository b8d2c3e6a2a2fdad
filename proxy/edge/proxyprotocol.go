package edge

import (
	"bufio"
	"context"
	"errors"
	"log/slog"
	"net"
	"net/netip"
	"sync"
	"time"

	"github.com/pires/go-proxyproto"

	"sallyport/proxy/ratelog"
)

// Balancers configures which peers may send PROXY headers.
type Balancers struct {
	// From are the addresses of the balancers. Bytes from other peers are never read as a PROXY
	// header: the handshake or request then fails on them.
	From []netip.Prefix
	// Optional accepts balancer connections without a header, under the balancer's address. If
	// false, such connections are closed: limits by address would count all clients as one.
	Optional bool
	// HeaderTime is the maximum time until the header arrives: 5 s if zero.
	HeaderTime time.Duration
}

// maxHeaderless is the maximum number of connections that wait for their headers. Only
// balancers can reach it.
const maxHeaderless = 1024

// ReadProxyHeaders reads PROXY protocol headers (version 1 or 2) from balancers in front of a
// listener, and takes ownership of inner. RemoteAddr of its connections is the client's address.
// For connections that a balancer opened for itself (LOCAL, UNKNOWN) it is the balancer's.
// balancers is called for each connection, so that a reload can change the result. The zero
// Balancers reads no headers. log may be nil.
//
// It starts goroutines. Close ends them, waits for them, and closes connections that Accept has
// not returned.
func ReadProxyHeaders(inner net.Listener, balancers func() Balancers, log *slog.Logger) net.Listener {
	t := &proxiedListener{Listener: inner, balancers: balancers, ready: make(chan accepted), waiting: make(chan struct{}, maxHeaderless), lines: ratelog.New(log, nil)}
	t.ctx, t.cancel = context.WithCancel(context.Background())
	t.wg.Go(t.accept)
	return t
}

type proxiedListener struct {
	net.Listener
	balancers func() Balancers
	lines     *ratelog.Log

	ready   chan accepted
	waiting chan struct{} // semaphore: one token for each connection that waits for its header
	ctx     context.Context
	cancel  context.CancelFunc
	wg      sync.WaitGroup // waits for all goroutines
}

// accepted is a result for Accept.
type accepted struct {
	conn net.Conn
	err  error
}

func (t *proxiedListener) accept() {
	for {
		c, err := t.Listener.Accept()
		if err != nil {
			if !t.deliver(accepted{err: err}) || errors.Is(err, net.ErrClosed) {
				return
			}
			continue
		}
		switch b := t.balancers(); {
		case !contains(b.From, peer(c)):
			t.deliver(accepted{conn: c})
		default:
			select {
			case t.waiting <- struct{}{}:
				t.wg.Go(func() {
					defer func() { <-t.waiting }()
					t.read(c, b)
				})
			default:
				c.Close()
				t.lines.Warn("headerless", "connection dropped: too many connections wait for their PROXY headers", "balancer", peer(c))
			}
		}
	}
}

// read reads the header of one connection and passes the connection to Accept.
func (t *proxiedListener) read(c net.Conn, b Balancers) {
	stop := context.AfterFunc(t.ctx, func() { c.Close() })
	conn, err := readProxyHeader(c, b)
	if !stop() {
		return
	}
	if err != nil {
		c.Close()
		t.lines.Warn("header", "connection dropped: no valid PROXY header", "balancer", peer(c), "error", err)
		return
	}
	t.deliver(accepted{conn: conn})
}

var errDatagram = errors.New("the header describes a UDP connection, not TCP")

func readProxyHeader(c net.Conn, b Balancers) (net.Conn, error) {
	if b.HeaderTime <= 0 {
		b.HeaderTime = 5 * time.Second
	}
	if err := c.SetReadDeadline(time.Now().Add(b.HeaderTime)); err != nil {
		return nil, err
	}
	// Large enough for common headers; longer extensions are read in several steps. Small,
	// because the buffer lives until the client's first bytes have been read.
	r := bufio.NewReaderSize(c, 512)
	header, err := proxyproto.Read(r)
	switch {
	case errors.Is(err, proxyproto.ErrNoProxyProtocol) && b.Optional:
		header = &proxyproto.Header{Command: proxyproto.LOCAL}
	case err != nil:
		return nil, err
	}
	if err := c.SetReadDeadline(time.Time{}); err != nil {
		return nil, err
	}
	conn := &proxiedConn{Conn: c, buffered: r, remote: c.RemoteAddr()}
	if header.Command.IsProxy() {
		switch a := header.SourceAddr.(type) {
		case *net.TCPAddr:
			conn.remote = a
		case *net.UDPAddr:
			return nil, errDatagram
		}
	}
	return conn, nil
}

// deliver passes a result to Accept, or closes the connection if the listener is closed.
func (t *proxiedListener) deliver(a accepted) bool {
	select {
	case t.ready <- a:
		return true
	case <-t.ctx.Done():
		if a.conn != nil {
			a.conn.Close()
		}
		return false
	}
}

// Accept returns the next connection, once its client address is known.
func (t *proxiedListener) Accept() (net.Conn, error) {
	select {
	case a := <-t.ready:
		return a.conn, a.err
	case <-t.ctx.Done():
		return nil, net.ErrClosed
	}
}

// Close closes the listener and waits for its goroutines.
func (t *proxiedListener) Close() error {
	err := t.Listener.Close()
	t.cancel()
	t.wg.Wait()
	return err
}

// proxiedConn is a connection whose client address came from a balancer.
type proxiedConn struct {
	net.Conn
	buffered *bufio.Reader // bytes read beyond the header; nil once they are consumed
	remote   net.Addr
}

func (c *proxiedConn) RemoteAddr() net.Addr { return c.remote }

func (c *proxiedConn) Read(p []byte) (int, error) {
	if c.buffered == nil {
		return c.Conn.Read(p)
	}
	n := min(len(p), c.buffered.Buffered())
	if n == 0 && len(p) > 0 {
		c.buffered = nil
		return c.Conn.Read(p)
	}
	return c.buffered.Read(p[:n])
}

// AcceptFrom accepts connections from these addresses only. It closes all others before it
// reads a byte. from is called for each connection. It takes ownership of inner.
func AcceptFrom(inner net.Listener, from func() []netip.Prefix, log *slog.Logger) net.Listener {
	return &listedListener{Listener: inner, from: from, lines: ratelog.New(log, nil)}
}

type listedListener struct {
	net.Listener
	from  func() []netip.Prefix
	lines *ratelog.Log
}

// Accept returns the next connection of a listed peer.
func (l *listedListener) Accept() (net.Conn, error) {
	for {
		c, err := l.Listener.Accept()
		if err != nil || contains(l.from(), peer(c)) {
			return c, err
		}
		c.Close()
		l.lines.Warn("peer", "connection dropped: the peer is not listed", "peer", peer(c), "listener", l.Addr().String())
	}
}

func contains(all []netip.Prefix, a netip.Addr) bool {
	for _, p := range all {
		if p.Contains(a) {
			return true
		}
	}
	return false
}
