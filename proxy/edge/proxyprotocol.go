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
)

// Balancers says who may tell a listener whose connection it is.
type Balancers struct {
	// From are their addresses. Nobody else is asked: a PROXY header from elsewhere
	// is content, which no handshake and no request begins with.
	From []netip.Prefix
	// Optional takes connections of balancers that tell nothing for their own.
	// Otherwise they are closed: requests would go by the balancer's address.
	Optional bool
	// HeaderTime is how long the header may take to arrive: 5 s if zero.
	HeaderTime time.Duration
}

// maxHeaderless is how many connections may wait for their headers at once. Only
// balancers can fill it.
const maxHeaderless = 1024

// ReadProxyHeaders reads the PROXY protocol (version 1 or 2) from balancers in front of
// a listener. The RemoteAddr of the connections that its Accept returns is the client's;
// of those that a balancer opened for itself (LOCAL, UNKNOWN) it is the balancer's.
// balancers is asked for each connection, so that a reload can change them; the zero
// Balancers pass every connection on as it is. log may be nil. inner belongs to the
// listener from then on.
//
// It starts goroutines: Close ends them all and waits for them. Connections that Accept
// has not yet returned are closed then.
func ReadProxyHeaders(inner net.Listener, balancers func() Balancers, log *slog.Logger) net.Listener {
	t := &proxiedListener{Listener: inner, balancers: balancers, ready: make(chan accepted), waiting: make(chan struct{}, maxHeaderless), warn: newRarely(log)}
	t.ctx, t.cancel = context.WithCancel(context.Background())
	t.wg.Go(t.accept)
	return t
}

type proxiedListener struct {
	net.Listener
	balancers func() Balancers
	warn      *rarely

	ready   chan accepted
	waiting chan struct{} // a place for each connection without its header
	ctx     context.Context
	cancel  context.CancelFunc
	wg      sync.WaitGroup // of all goroutines
}

// accepted is what an Accept returns.
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
				t.warn.line("connection dropped: too many wait for their PROXY headers", "balancer", peer(c))
			}
		}
	}
}

// read reads the header of one connection and hands it over.
func (t *proxiedListener) read(c net.Conn, b Balancers) {
	stop := context.AfterFunc(t.ctx, func() { c.Close() })
	conn, err := readProxyHeader(c, b)
	if !stop() {
		return
	}
	if err != nil {
		c.Close()
		t.warn.line("connection dropped: no sound PROXY header", "balancer", peer(c), "error", err)
		return
	}
	t.deliver(accepted{conn: conn})
}

var errDatagram = errors.New("the header speaks of datagrams")

func readProxyHeader(c net.Conn, b Balancers) (net.Conn, error) {
	if b.HeaderTime <= 0 {
		b.HeaderTime = 5 * time.Second
	}
	if err := c.SetReadDeadline(time.Now().Add(b.HeaderTime)); err != nil {
		return nil, err
	}
	// Large enough for any header but those with long extensions, which are read
	// through it; small, because it stays while the client's first bytes do.
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
	conn := &proxiedConn{Conn: c, early: r, remote: c.RemoteAddr()}
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

// deliver hands over a connection, or closes it if the listener is closed.
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

// Accept returns the next connection whose client is known.
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

// proxiedConn is a connection whose client a balancer has named.
type proxiedConn struct {
	net.Conn
	early  *bufio.Reader // nil when what it read ahead is used up
	remote net.Addr
}

func (c *proxiedConn) RemoteAddr() net.Addr { return c.remote }

func (c *proxiedConn) Read(p []byte) (int, error) {
	if c.early == nil {
		return c.Conn.Read(p)
	}
	n := min(len(p), c.early.Buffered())
	if n == 0 && len(p) > 0 {
		c.early = nil
		return c.Conn.Read(p)
	}
	return c.early.Read(p[:n])
}

// AcceptFrom serves the peers from these addresses and closes the connections of all
// others at accept, before a byte is read. from is asked for each connection. inner
// belongs to the listener from then on.
func AcceptFrom(inner net.Listener, from func() []netip.Prefix, log *slog.Logger) net.Listener {
	return &listedListener{Listener: inner, from: from, warn: newRarely(log)}
}

type listedListener struct {
	net.Listener
	from func() []netip.Prefix
	warn *rarely
}

// Accept returns the next connection of a listed peer.
func (l *listedListener) Accept() (net.Conn, error) {
	for {
		c, err := l.Listener.Accept()
		if err != nil || contains(l.from(), peer(c)) {
			return c, err
		}
		c.Close()
		l.warn.line("connection dropped: the peer is not listed", "peer", peer(c), "listener", l.Addr().String())
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

// rarely logs at most once in ten seconds: whoever causes the lines causes many.
// It is safe for concurrent use.
type rarely struct {
	log   *slog.Logger
	mu    sync.Mutex // guards quiet
	quiet time.Time  // no line before
}

func newRarely(log *slog.Logger) *rarely {
	if log == nil {
		log = slog.New(slog.DiscardHandler)
	}
	return &rarely{log: log}
}

func (r *rarely) line(msg string, args ...any) {
	r.mu.Lock()
	now := time.Now()
	due := now.After(r.quiet)
	if due {
		r.quiet = now.Add(10 * time.Second)
	}
	r.mu.Unlock()
	if due {
		r.log.Warn(msg, args...)
	}
}
