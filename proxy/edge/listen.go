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
)

// Conns says whether there is room for a connection from an address. It must be
// safe for concurrent use.
type Conns interface {
	Enter(netip.Addr) bool // a connection that got in leaves when it is closed
	Leave(netip.Addr)
}

// Limits bound what a listener takes on.
type Limits struct {
	// Conns is shared by all listeners. Nil refuses every connection.
	Conns Conns
	// HandshakeTime is how long a TLS handshake may take: 10 s if zero.
	HandshakeTime time.Duration
	// CurrentHandshakeTime, if not nil, is asked for each connection in place of
	// HandshakeTime, so that a reload can change it.
	CurrentHandshakeTime func() time.Duration
	// Handshakes is how many may be under way at once: 1024 if zero. When there are more,
	// one of the client that has the most is given up, the one that has waited longest: a
	// client that means it is done within milliseconds.
	Handshakes int
	// Log gets a line for connections that are dropped; discarded if nil.
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

// Plain limits a listener without TLS. Its Accept drops connections for which
// there is no room, waits where the system has none to give, and returns only
// when the listener was closed. inner belongs to it from then on.
func Plain(inner net.Listener, l Limits) net.Listener {
	return &plainListener{Listener: inner, limits: l.withDefaults(), done: make(chan struct{})}
}

type plainListener struct {
	net.Listener
	limits Limits
	once   sync.Once
	done   chan struct{} // closed by Close

	mu    sync.Mutex // guards quiet
	quiet time.Time  // no line about dropped connections before
}

// Accept returns the next connection, or [net.ErrClosed].
func (p *plainListener) Accept() (net.Conn, error) {
	var pause time.Duration
	for {
		c, err := p.Listener.Accept()
		if err != nil {
			if p.closed() || errors.Is(err, net.ErrClosed) {
				return nil, net.ErrClosed
			}
			// Out of descriptors or memory, or the client has already gone. A
			// server would end on the error, so it must not see it.
			pause = min(max(2*pause, 5*time.Millisecond), time.Second)
			p.warn("connections cannot be accepted; trying again", "error", err)
			if !p.wait(pause) {
				return nil, net.ErrClosed
			}
			continue
		}
		pause = 0
		addr := peer(c)
		if p.limits.Conns == nil || !p.limits.Conns.Enter(addr) {
			c.Close()
			p.warn("connection dropped: there are too many", "client", addr)
			continue
		}
		return &countedConn{Conn: c, leave: func() { p.limits.Conns.Leave(addr) }}, nil
	}
}

// Close closes the listener. Connections that Accept has returned stay.
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

// wait waits for d and says whether the listener is still open.
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

// warn logs at most once in ten seconds: whoever causes these lines causes many.
func (p *plainListener) warn(msg string, args ...any) {
	p.mu.Lock()
	now := time.Now()
	due := now.After(p.quiet)
	if due {
		p.quiet = now.Add(10 * time.Second)
	}
	p.mu.Unlock()
	if due {
		p.limits.Log.Warn(msg, args...)
	}
}

// peer is the address of the client; the zero one if it has none, as on a unix
// socket.
func peer(c net.Conn) netip.Addr {
	if a, ok := c.RemoteAddr().(*net.TCPAddr); ok {
		return a.AddrPort().Addr().Unmap()
	}
	return netip.Addr{}
}

// countedConn gives its place back when it is closed.
type countedConn struct {
	net.Conn
	once  sync.Once
	leave func()
}

// NetConn is the connection beneath, for what a net.Conn cannot do.
func (c *countedConn) NetConn() net.Conn { return c.Conn }

func (c *countedConn) Close() error {
	err := c.Conn.Close()
	c.once.Do(c.leave)
	return err
}

// Listen limits a listener as [Plain] does, and shakes hands. The connections
// that its Accept returns are *tls.Conn whose handshake is done, so that a slow
// client holds up nobody. inner belongs to it from then on.
//
// Listen starts goroutines: Close ends them all and waits for them. Connections
// that Accept has not yet returned are closed then.
func (e *Edge) Listen(inner net.Listener, l Limits) net.Listener {
	l = l.withDefaults()
	t := &tlsListener{
		plain:   &plainListener{Listener: inner, limits: l, done: make(chan struct{})},
		config:  e.config,
		limits:  l,
		ready:   make(chan *tls.Conn),
		pending: map[netip.Addr]*list.List{},
		done:    make(chan struct{}),
	}
	t.ctx, t.cancel = context.WithCancel(context.Background())
	t.wg.Go(t.accept)
	return t
}

type tlsListener struct {
	plain  *plainListener
	config *tls.Config
	limits Limits

	ready  chan *tls.Conn
	done   chan struct{} // closed when no more connections come
	ctx    context.Context
	cancel context.CancelFunc
	wg     sync.WaitGroup // of all goroutines

	mu      sync.Mutex                // guards what follows
	pending map[netip.Addr]*list.List // of pendingHandshake, by client; the oldest first
	begun   uint64                    // handshakes so far
	under   int                       // handshakes under way
}

// accept starts a handshake for each connection until the listener is closed.
func (t *tlsListener) accept() {
	defer close(t.done)
	for {
		c, err := t.plain.Accept()
		if err != nil {
			return
		}
		ctx, cancel := context.WithTimeout(t.ctx, t.limits.handshakeTime())
		from := clientKey(peer(c))
		place := t.enter(from, cancel)
		t.wg.Go(func() {
			defer cancel()
			t.handshake(ctx, c, from, place)
		})
	}
}

// clientKey is what stands for a client among those that shake hands: an IPv4 address, or
// the /64 of an IPv6 one, since whoever has one address there has them all.
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

// pendingHandshake is one under way.
type pendingHandshake struct {
	number uint64 // in the order of their begin
	giveUp context.CancelFunc
}

// enter notes a handshake and gives one up if there are too many: the oldest of the client
// that has the most, so that nobody's flood ends another's handshake. Among clients that
// have as many, it is the oldest of all: one that is new and fast is done before.
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

// remove forgets a handshake, unless it was forgotten before. The caller holds mu.
func (t *tlsListener) remove(from netip.Addr, place *list.Element) {
	all := t.pending[from]
	if all == nil {
		return
	}
	n := all.Len()
	all.Remove(place) // does nothing if it is in the list no more
	t.under -= n - all.Len()
	if all.Len() == 0 {
		delete(t.pending, from)
	}
}

func (t *tlsListener) leave(from netip.Addr, place *list.Element) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.remove(from, place)
}

// handshake shakes hands and hands over the connection.
func (t *tlsListener) handshake(ctx context.Context, c net.Conn, from netip.Addr, place *list.Element) {
	conn := tls.Server(c, t.config)
	err := conn.HandshakeContext(ctx)
	t.leave(from, place)
	if err != nil {
		// Not conn: its Close may wait five seconds to send an alert.
		c.Close()
		return
	}
	if conn.ConnectionState().NegotiatedProtocol == acmez.ACMETLS1Protocol {
		c.Close() // it has seen what it came for, and no request may follow
		return
	}
	select {
	case t.ready <- conn:
	case <-t.ctx.Done():
		c.Close()
	}
}

// Accept returns the next connection that has shaken hands, or [net.ErrClosed].
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

// Addr is the address that it listens on.
func (t *tlsListener) Addr() net.Addr { return t.plain.Addr() }
