package exchange

import (
	"cmp"
	"context"
	"errors"
	"net/netip"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"sallyport/auth"
	"sallyport/proxy/message"
	"sallyport/proxy/setting"
	"sallyport/proxy/wire"
)

// ending is the error by which the gateway itself ends an exchange in progress.
type ending struct {
	reason, cause string
	grpc          grpcCode // the status of a call that ends; 0: that of the reason
}

func (e *ending) Error() string { return e.cause }

func (e *ending) refusal() *refusal { return &refusal{reason: e.reason, cause: e} }

// endingOf returns the refusal reason if the gateway itself ended the exchange, "" for other
// causes.
func endingOf(cause error) string {
	if e, ok := cause.(*ending); ok {
		return e.reason
	}
	return ""
}

// expired is the ending of an exchange that lasts longer than its credential.
func expired() *ending {
	return &ending{reason: reasonExpired, cause: "the credential expired while the stream went on"}
}

// withdrawn is the ending of an exchange that a new configuration refuses.
func withdrawn(why error) *ending {
	return &ending{reasonWithdrawn, "the new configuration refuses the stream: " + inWords(why), statusAgain(why)}
}

// statusAgain returns the status of a call that ends because a later decision refuses it. A credential that
// counts no longer is UNAUTHENTICATED, as it is at the beginning of a call.
func statusAgain(why error) grpcCode {
	if code := outcomes[asRefusal(why).reason].grpc; code == grpcUnauthenticated {
		return code
	}
	return 0
}

// inWords returns the cause of a refusal, or its reason if it has none.
func inWords(why error) string {
	r := asRefusal(why)
	if r.cause != nil {
		return r.cause.Error()
	}
	return r.reason
}

// shards is the number of registry shards, so that exchanges rarely share a lock.
const shards = 16

// registry lists the exchanges in progress. It allocates nothing: exchanges are links of its lists.
type registry struct {
	next   atomic.Uint32
	shards [shards]registryShard
}

type registryShard struct {
	mu    sync.Mutex // guards first, and the listed of every exchange in the list
	first *exchange
	_     [40]byte // padding: each lock has its own cache line
}

// listed is the registry's part of an exchange.
type listed struct {
	shard      *registryShard
	prev, next *exchange
	decided    bool // it has a grant; the inputs of the decision no longer change
	tunnel     bool // upgraded
}

func (r *registry) enter(x *exchange) {
	s := &r.shards[r.next.Add(1)%shards]
	x.listed.shard = s
	s.mu.Lock()
	defer s.mu.Unlock()
	if x.listed.next = s.first; s.first != nil {
		s.first.listed.prev = x
	}
	s.first = x
}

func (r *registry) leave(x *exchange) {
	s := x.listed.shard
	s.mu.Lock()
	defer s.mu.Unlock()
	prev, next := x.listed.prev, x.listed.next
	if prev != nil {
		prev.listed.next = next
	} else {
		s.first = next
	}
	if next != nil {
		next.listed.prev = prev
	}
	x.listed = listed{}
}

// each calls f with every exchange while it holds the lock of its shard: f must be quick.
func (r *registry) each(f func(*exchange)) {
	for i := range r.shards {
		s := &r.shards[i]
		s.mu.Lock()
		for x := s.first; x != nil; x = x.listed.next {
			f(x)
		}
		s.mu.Unlock()
	}
}

// list registers an exchange that has its grant, so that a reload decides on it again. If a reload
// happened during the decision, list decides again itself.
func (x *exchange) list() error {
	s := x.listed.shard
	s.mu.Lock()
	x.listed.decided = true
	s.mu.Unlock()
	if cause := x.stillPermitted(); cause != nil {
		return cause.refusal()
	}
	return nil
}

// stillPermitted decides again on the exchange if a reload or a revocation has happened since it
// began. It returns what ends the exchange, or nil. Call it after each change of the exchange's
// registry entry, because a concurrent reload may have missed the change.
func (x *exchange) stillPermitted() *ending {
	if x.server.current.Load() == x.snapshot && x.server.revocations.Load() == x.revocations {
		return nil
	}
	now := x.server.take()
	if now == nil {
		return &ending{reason: reasonShutdown, cause: "the gateway has stopped"}
	}
	defer now.leave()
	u := x.underWay()
	if err := now.permits(x.life, &u); err != nil {
		return withdrawn(err)
	}
	return nil
}

// noteTunnel records that the exchange has become a tunnel. It ends the exchange if a reload has
// meanwhile forbidden that.
func (x *exchange) noteTunnel() {
	s := x.listed.shard
	s.mu.Lock()
	x.listed.tunnel = true
	s.mu.Unlock()
	if cause := x.stillPermitted(); cause != nil {
		x.life.End(cause)
	}
}

// underWay is a copy of the data that [Server.Recheck] needs of an exchange. It stays valid when
// the exchange's memory is reused.
type underWay struct {
	life   *wire.Life
	head   *message.Head
	conn   *wire.Conn
	client netip.Addr
	proof  auth.Proof
	named  named
	read   bool   // the content is, or was, read for what it names
	chosen string // see facts
	grpc   bool
	tunnel bool
}

// underWay is called with the lock of the exchange's shard held, or by the exchange's goroutine.
func (x *exchange) underWay() underWay {
	return underWay{x.life, x.head, x.stream.Conn(), x.client, x.proof, x.scanned.get(), x.scanned.scanner != nil, x.chosen, x.grpc, x.listed.tunnel}
}

// Recheck applies the current snapshot to exchanges that run with older ones, and ends those that
// it refuses: a caller who loses a right loses its streams. It does not check rates, places in
// flight and nonces again. It returns how many exchanges it ended; those of revoked callers end
// first. ctx limits the wait for issuers; an exchange whose credential cannot be checked in time
// ends, unless its issuer is the one that admitted it.
func (s *Server) Recheck(ctx context.Context) (ended int) {
	return s.recheck(ctx, func(x *exchange, now *Snapshot) bool { return x.snapshot != now })
}

// RecheckAll is Recheck for all exchanges, after the revocations of the current snapshot have changed.
func (s *Server) RecheckAll(ctx context.Context) (ended int) {
	s.revocations.Add(1) // for those that are being decided
	return s.recheck(ctx, func(*exchange, *Snapshot) bool { return true })
}

// decided returns the exchanges under way that were admitted, of those that concerns selects.
func (s *Server) decided(concerns func(*exchange) bool) (all []underWay) {
	s.live.each(func(x *exchange) {
		if x.listed.decided && concerns(x) {
			all = append(all, x.underWay())
		}
	})
	return all
}

func (s *Server) recheck(ctx context.Context, concerns func(*exchange, *Snapshot) bool) (ended int) {
	now := s.takeToCheck()
	if now == nil {
		return 0
	}
	defer now.leave()
	all := s.decided(func(x *exchange) bool { return concerns(x, now) })
	ended = checkAgain(all, func(u *underWay) *ending {
		r, err := now.Routes.Match(u.head)
		if err == nil {
			err = r.Chain.Revokes(&u.proof.Caller)
		}
		if err != nil {
			return withdrawn(err)
		}
		return nil
	})
	// Those whose issuer may have to be asked come last, so that nobody waits for it in vain.
	slices.SortStableFunc(all, func(a, b underWay) int { return cmp.Compare(asks(&a), asks(&b)) })
	return ended + checkAgain(all, func(u *underWay) *ending {
		if err := now.permits(ctx, u); err != nil {
			return withdrawn(err)
		}
		return nil
	})
}

// asks returns 1 if the issuer of the credential may have to be asked about it, otherwise 0.
func asks(u *underWay) int {
	if u.proof.AsksIssuer {
		return 1
	}
	return 0
}

// permits returns nil if the snapshot permits an exchange that an older one has permitted. Otherwise
// it returns the reason.
func (s *Snapshot) permits(ctx context.Context, u *underWay) error {
	if err := s.checkConn(u.head.Host, u.conn); err != nil {
		return err
	}
	if err := s.checkBalanced(u.head, u.conn); err != nil {
		return err
	}
	r, err := s.Routes.Match(u.head)
	if err != nil {
		return err
	}
	if !r.Access.Admits(u.client) {
		return errors.New(r.Access.Refusal(u.client))
	}
	proof, err := r.Chain.Recheck(ctx, &auth.Request{Head: u.head, Peer: u.client, Via: u.conn.Peer.Addr().Unmap(), Conn: u.conn.TLS}, u.proof)
	if err != nil {
		return err
	}
	if u.tunnel && !r.WebSocket {
		return errNoTunnels
	}
	return permitsNamed(r, u, &proof.Caller)
}

// errNoTunnels is the cause if a client asks for a WebSocket that the route does not allow.
var errNoTunnels = errors.New("the route has no websocket: true")

// Cut ends the exchanges that still use a snapshot whose grace period is over. A nil snapshot, at
// the end of the process, means all exchanges. grace is that period; zero if it was cut short.
func (s *Server) Cut(of *Snapshot, grace time.Duration) (ended int) {
	within := "its grace period was cut short"
	if grace > 0 {
		within = "it was not done within " + setting.Duration(grace).String() + " (drain)"
	}
	cause := &ending{reason: reasonReplaced, cause: "the configuration was replaced, and " + within}
	if of == nil {
		cause = &ending{reason: reasonShutdown, cause: "the gateway stops, and " + within}
		s.cut.Store(cause)
	}
	var lives []*wire.Life
	s.live.each(func(x *exchange) {
		if of == nil || x.snapshot == of {
			lives = append(lives, x.life)
		}
	})
	for _, l := range lives {
		if l.Err() == nil {
			l.End(cause)
			ended++
		}
	}
	return ended
}
