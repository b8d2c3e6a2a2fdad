package exchange

import (
	"context"
	"errors"
	"net/netip"
	"sync"
	"sync/atomic"

	"sallyport/auth"
	"sallyport/proxy/message"
	"sallyport/proxy/wire"
)

// These errors say why the gateway ends an exchange in progress.
var (
	errExpired   = errors.New("the credential expired while the stream went on")
	errWithdrawn = errors.New("the new configuration refuses the stream")
	errReplaced  = errors.New("the configuration was replaced, and its grace period (drain) is over")
	errShutdown  = errors.New("the gateway stops, and its grace period (drain) is over")
)

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
		return &refusal{reason: endingOf(cause), cause: cause}
	}
	return nil
}

// stillPermitted decides again on the exchange if a reload has happened since it began. It returns
// the cause that ends the exchange, or nil. It is called after each change of the exchange's
// registry entry. A reload that missed the change is thus noticed here.
func (x *exchange) stillPermitted() error {
	if x.server.current.Load() == x.snapshot {
		return nil
	}
	now := x.server.take()
	if now == nil {
		return errShutdown
	}
	defer now.leave()
	if u := x.underWay(); !now.permits(x.life, &u) {
		return errWithdrawn
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
	tunnel bool
}

// underWay is called with the lock of the exchange's shard held, or by the exchange's goroutine.
func (x *exchange) underWay() underWay {
	return underWay{x.life, x.head, x.stream.Conn(), x.client, x.proof, x.scanned.named, x.listed.tunnel}
}

// Recheck applies the current snapshot to exchanges that run with older ones, and ends those that
// it refuses: a caller who loses a right loses its streams. It does not check rates, places in
// flight and nonces again. It returns how many exchanges it ended. ctx limits the wait for keys of
// new issuers; an exchange whose credential cannot be checked in time ends.
func (s *Server) Recheck(ctx context.Context) (ended int) {
	now := s.take()
	if now == nil {
		return 0
	}
	defer now.leave()
	var all []underWay
	s.live.each(func(x *exchange) {
		if x.snapshot != now && x.listed.decided {
			all = append(all, x.underWay())
		}
	})
	for i := range all {
		if u := &all[i]; u.life.Err() == nil && !now.permits(ctx, u) {
			u.life.End(errWithdrawn)
			ended++
		}
	}
	return ended
}

// permits reports whether the snapshot permits an exchange that an older one has permitted.
func (s *Snapshot) permits(ctx context.Context, u *underWay) bool {
	r, err := s.Routes.Match(u.head)
	if err != nil || !r.Access.Admits(u.client) {
		return false
	}
	proof, err := r.Chain.Recheck(ctx, &auth.Request{Head: u.head, Peer: u.client, Conn: u.conn.TLS}, u.proof)
	if err != nil {
		return false
	}
	if u.tunnel && !r.WebSocket {
		return false
	}
	_, err = r.Policy.Decide(&proof.Caller, u.named.call(r.Dialect, u.head))
	return err == nil
}

// Cut ends the exchanges that still use a snapshot whose grace period is over. A nil snapshot, at
// the end of the process, means all exchanges.
func (s *Server) Cut(of *Snapshot) (ended int) {
	cause := errReplaced
	if of == nil {
		cause = errShutdown
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
