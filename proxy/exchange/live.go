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

// Why the gateway itself ends an exchange that is under way.
var (
	errExpired   = errors.New("the credential expired while the stream went on")
	errWithdrawn = errors.New("the new configuration refuses the stream")
	errReplaced  = errors.New("the configuration was replaced, and its grace period (drain) is over")
	errShutdown  = errors.New("the gateway stops, and its grace period (drain) is over")
)

// shards of the registry: exchanges of different connections rarely share a lock.
const shards = 16

// registry knows the exchanges that are under way. It costs no allocation: exchanges
// are links of lists.
type registry struct {
	next   atomic.Uint32
	shards [shards]registryShard
}

type registryShard struct {
	mu    sync.Mutex // guards first, and the listed of every exchange in the list
	first *exchange
	_     [40]byte // other shards' locks on other cache lines
}

// listed is an exchange's place in the registry.
type listed struct {
	shard      *registryShard
	prev, next *exchange
	decided    bool // it has a grant; what was decided on does not change any more
	tunnel     bool // it was upgraded
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

// each calls f with every exchange, with the lock of its shard held: f must be quick.
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

// list notes that the exchange has its grant, so that a reload decides on it again. A
// reload that came while this decision was made has not seen it: then it is made again
// here.
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

// stillPermitted decides again on the exchange if a reload has come since it began, and
// returns the cause for which it ends, nil if it goes on. It is
// asked after each change of what the registry knows of the exchange: a reload has seen
// it either before the change, and then this one sees the reload, or after it.
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

// noteTunnel notes that the exchange has become a tunnel, and ends it if a reload that
// came meanwhile allows none.
func (x *exchange) noteTunnel() {
	s := x.listed.shard
	s.mu.Lock()
	x.listed.tunnel = true
	s.mu.Unlock()
	if cause := x.stillPermitted(); cause != nil {
		x.life.End(cause)
	}
}

// underWay is what [Server.Recheck] needs of an exchange. The memory of the exchange
// may serve another request meanwhile; all of this stays what it was.
type underWay struct {
	life   *wire.Life
	head   *message.Head
	conn   *wire.Conn
	client netip.Addr
	proof  auth.Proof
	tunnel bool
}

// underWay is called with the lock of the exchange's shard held, or by its goroutine.
func (x *exchange) underWay() underWay {
	return underWay{x.life, x.head, x.stream.Conn(), x.client, x.proof, x.listed.tunnel}
}

// Recheck decides again on the exchanges that are under way with older snapshots, by
// the current one, and ends those that it refuses: whoever lost a right loses its
// streams too. Rates, places in flight and nonces are not asked for again. It returns
// how many it ended. ctx bounds how long keys of new issuers may be waited for; an
// exchange whose credential cannot be checked by then ends.
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

// permits says whether the snapshot would let an exchange pass that another let pass.
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
	_, err = r.Policy.Decide(&proof.Caller, r.Dialect.Read(u.head))
	return err == nil
}

// Cut ends the exchanges that still use a snapshot whose grace period is over, of all
// snapshots if of is nil, as at the end of the process.
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
