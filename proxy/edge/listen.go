package edge

import (
	"container/list"
	"context"
	"crypto/tls"
	"errors"
	"log/slog"
	"net"
	"net/netip"
	"sync"
	"time"

	"github.com/mholt/acmez/v3"

	"sallyport/proxy/ratelog"
)

// Conns limits connections by client address. It must be safe for concurrent use.
type Conns interface {
	Enter(netip.Addr) bool // reports whether the connection is admitted; the listener then calls Leave when it closes
	Leave(netip.Addr)
}

// Limits bound the connections of a listener.
type Limits struct {
	// Conns is shared by all listeners. A nil Conns refuses every connection.
	Conns Conns
	// HandshakeTime is the maximum time of a TLS handshake: 10 s if zero.
	HandshakeTime time.Duration
	// CurrentHandshakeTime, if not nil, replaces HandshakeTime. It is called for each
	// connection, so that a reload can change the value.
	CurrentHandshakeTime func() time.Duration
	// Handshakes is the maximum number of concurrent handshakes: 1024 if zero. At the limit, the
	// oldest handshake of the client with the most handshakes is canceled. An honest client
	// finishes within milliseconds.
	Handshakes int
	// Log reports dropped connections; discarded if nil.
	Log *slog.Logger
}

func (l Limits) withDefaults() Limits {
	if l.HandshakeTime <= 0 {
		l.HandshakeTime = 10 * time.Second
	}
	if l.Handshakes <= 0 {
		l.Handshakes = 1024
	}
	if l.Log == nil {
		l.Log = slog.New(slog.DiscardHandler)
	}
	return l
}

func (l *Limits) handshakeTime() time.Duration {
	if l.CurrentHandshakeTime != nil {
		return l.CurrentHandshakeTime()
	}
	return l.HandshakeTime
}

// Plain limits a listener without TLS and takes ownership of inner. Its Accept drops
// connections above the limit. It retries when the system is out of resources, and returns an
// error only after Close.
func Plain(inner net.Listener, l Limits) net.Listener {
	return newPlain(inner, l.withDefaults())
}

type plainListener struct {
	net.Listener
	limits Limits
	lines  *ratelog.Log
	once   sync.Once
	done   chan struct{} // closed by Close
}

func newPlain(inner net.Listener, l Limits) *plainListener {
	return &plainListener{Listener: inner, limits: l, lines: ratelog.New(l.Log, nil), done: make(chan struct{})}
}

// Accept returns the next connection, or [net.ErrClosed].
func (p *plainListener) Accept() (net.Conn, error) {
	c, err := p.accept()
	if err != nil {
		return nil, err
	}
	return c, nil
}

func (p *plainListener) accept() (*countedConn, error) {
	var pause time.Duration
	for {
		c, err := p.Listener.Accept()
		if err != nil {
			if p.closed() || errors.Is(err, net.ErrClosed) {
				return nil, net.ErrClosed
			}
			// The system is out of descriptors or memory, or the client has gone. Retry here,
			// because http.Server stops on an Accept error.
			pause = min(max(2*pause, 5*time.Millisecond), time.Second)
			p.lines.Warn("accept", "accepting connections failed; retrying", "error", err)
			if !p.wait(pause) {
				return nil, net.ErrClosed
			}
			continue
		}
		pause = 0
		addr := peer(c)
		if p.limits.Conns == nil || !p.limits.Conns.Enter(addr) {
			c.Close()
			p.lines.Warn("connections", "connection dropped: too many connections", "client", addr)
			continue
		}
		return &countedConn{Conn: c, leave: func() { p.limits.Conns.Leave(addr) }}, nil
	}
}

// Close closes the listener. Accepted connections stay open.
func (p *plainListener) Close() error {
	err := net.ErrClosed
	p.once.Do(func() {
		close(p.done)
		err = p.Listener.Close()
	})
	return err
}

func (p *plainListener) closed() bool {
	select {
	case <-p.done:
		return true
	default:
		return false
	}
}

// wait sleeps for d. It reports whether the listener is still open.
func (p *plainListener) wait(d time.Duration) bool {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return true
	case <-p.done:
		return false
	}
}

// peer returns the client's address; the zero Addr if it has none, as on a unix socket.
func peer(c net.Conn) netip.Addr {
	if a, ok := c.RemoteAddr().(*net.TCPAddr); ok {
		return a.AddrPort().Addr().Unmap()
	}
	return netip.Addr{}
}

// countedConn calls leave once when it is closed.
type countedConn struct {
	net.Conn
	once     sync.Once
	leave    func()
	findings findings // about its TLS handshake, during which alone they change
}

// Read notes an alert that is not encrypted; see alertOf. It ends a handshake in which the client
// sends too much.
func (c *countedConn) Read(b []byte) (int, error) {
	n, err := c.Conn.Read(b)
	if left := &c.findings.left; *left != 0 {
		if *left -= n; *left <= 0 {
			*left = -1
			return 0, errClientChain
		}
	}
	if a := plainAlert(b[:n]); a != 0 {
		c.findings.plain = a
	}
	return n, err
}

// ClientPolicy implements the interface of wire.ClientPolicyOf, once the handshake is complete.
func (c *countedConn) ClientPolicy() string { return c.findings.policy }

// NetConn returns the underlying connection, for operations that net.Conn lacks.
func (c *countedConn) NetConn() net.Conn { return c.Conn }

func (c *countedConn) Close() error {
	err := c.Conn.Close()
	c.once.Do(c.leave)
	return err
}

// Listen limits a listener as [Plain] does, and terminates TLS. It takes ownership of inner.
// Accept returns *tls.Conn values whose handshakes are complete, so a slow client delays nobody
// else.
//
// Listen starts goroutines. Close ends them, waits for them, and closes connections that Accept
// has not returned.
func (e *Edge) Listen(inner net.Listener, l Limits) net.Listener {
	l = l.withDefaults()
	t := &tlsListener{
		plain:    newPlain(inner, l),
		config:   e.config,
		limits:   l,
		failures: e.failures,
		ready:    make(chan *tls.Conn),
		pending:  map[netip.Addr]*list.List{},
		done:     make(chan struct{}),
	}
	t.ctx, t.cancel = context.WithCancel(context.Background())
	t.wg.Go(t.accept)
	return t
}

type tlsListener struct {
	plain    *plainListener
	config   *tls.Config
	limits   Limits
	failures *failures

	ready  chan *tls.Conn
	done   chan struct{} // closed when accept returns
	ctx    context.Context
	cancel context.CancelFunc
	wg     sync.WaitGroup // waits for all goroutines

	mu      sync.Mutex                // guards the fields below
	pending map[netip.Addr]*list.List // of pendingHandshake, by client; oldest first
	begun   uint64                    // handshakes started so far
	under   int                       // handshakes in progress
}

// accept starts a handshake for each connection until the listener is closed.
func (t *tlsListener) accept() {
	defer close(t.done)
	for {
		c, err := t.plain.accept()
		if err != nil {
			return
		}
		ctx, cancel := context.WithTimeout(t.ctx, t.limits.handshakeTime())
		from := clientKey(peer(c))
		entry := t.enter(from, cancel)
		t.wg.Go(func() {
			defer cancel()
			t.handshake(ctx, c, from, entry)
		})
	}
}

// clientKey identifies a client for the handshake limit: its IPv4 address, or the /64 of its
// IPv6 address, because one client usually controls a whole /64.
func clientKey(a netip.Addr) netip.Addr {
	if !a.Is6() {
		return a
	}
	p, err := a.WithZone("").Prefix(64)
	if err != nil {
		return netip.Addr{}
	}
	return p.Addr()
}

// pendingHandshake is a handshake in progress.
type pendingHandshake struct {
	number uint64 // sequence number, to find the oldest
	giveUp context.CancelFunc
}

// enter registers a handshake. At the limit it cancels the oldest handshake of the client with
// the most, so that one client's flood does not end another's handshakes. Ties go to the oldest
// handshake, which is the least likely to finish.
func (t *tlsListener) enter(from netip.Addr, giveUp context.CancelFunc) *list.Element {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.under >= t.limits.Handshakes {
		var most netip.Addr
		for client, all := range t.pending {
			busiest := t.pending[most]
			if busiest == nil || all.Len() > busiest.Len() || all.Len() == busiest.Len() && oldestOf(all).number < oldestOf(busiest).number {
				most = client
			}
		}
		oldest := t.pending[most].Front()
		oldest.Value.(pendingHandshake).giveUp()
		t.remove(most, oldest)
	}
	all := t.pending[from]
	if all == nil {
		all = list.New()
		t.pending[from] = all
	}
	t.under++
	t.begun++
	return all.PushBack(pendingHandshake{t.begun, giveUp})
}

func oldestOf(all *list.List) pendingHandshake { return all.Front().Value.(pendingHandshake) }

// remove unregisters a handshake, unless that has been done. The caller holds mu.
func (t *tlsListener) remove(from netip.Addr, entry *list.Element) {
	all := t.pending[from]
	if all == nil {
		return
	}
	n := all.Len()
	all.Remove(entry) // a no-op if entry has left the list
	t.under -= n - all.Len()
	if all.Len() == 0 {
		delete(t.pending, from)
	}
}

func (t *tlsListener) leave(from netip.Addr, entry *list.Element) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.remove(from, entry)
}

// handshake completes the handshake and passes the connection to Accept.
func (t *tlsListener) handshake(ctx context.Context, c *countedConn, from netip.Addr, entry *list.Element) {
	defer t.leave(from, entry)
	conn := tls.Server(c, t.config)
	if err := conn.HandshakeContext(ctx); err != nil {
		if t.ctx.Err() == nil {
			t.failures.failed(ctx, c, err)
		}
		// Close c, not conn: tls.Conn.Close may wait five seconds to send an alert.
		c.Close()
		return
	}
	t.leave(from, entry)
	c.findings.left = 0 // requests have bounds of their own
	if conn.ConnectionState().NegotiatedProtocol == acmez.ACMETLS1Protocol {
		c.Close() // the validator has seen the certificate; no request may follow
		return
	}
	select {
	case t.ready <- conn:
	case <-t.ctx.Done():
		c.Close()
	}
}

// Accept returns the next connection with a complete handshake, or [net.ErrClosed].
func (t *tlsListener) Accept() (net.Conn, error) {
	select {
	case c := <-t.ready:
		return c, nil
	case <-t.done:
		return nil, net.ErrClosed
	}
}

// Close closes the listener and waits for its goroutines.
func (t *tlsListener) Close() error {
	err := t.plain.Close()
	t.cancel()
	t.wg.Wait()
	return err
}

// Addr returns the address of the listener.
func (t *tlsListener) Addr() net.Addr { return t.plain.Addr() }
