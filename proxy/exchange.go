package proxy

import (
	"fmt"
	"math/rand/v2"
	"net/netip"
	"runtime/debug"
	"sync"
	"time"

	"sallyport/auth"
	"sallyport/auth/identity"
	"sallyport/policy"
	"sallyport/policy/model"
	"sallyport/proxy/audit"
	"sallyport/proxy/message"
	"sallyport/proxy/upstream"
	"sallyport/proxy/wire"
)

// exchange is the way of one request through the house. It belongs to one
// goroutine and dies with the request; only its memory serves another.
type exchange struct {
	g      *Gateway
	s      *snapshot
	stream wire.Stream
	life   *wire.Life // of the request
	head   *message.Head
	record audit.Record

	client  netip.Addr // who is at the other end, behind proxies that are trusted
	trusted bool       // the peer is one of those proxies
	route   *route
	proof   auth.Proof
	caller  identity.Principal
	content requestContent
	call    model.Call
	held    admission // what admit took, given back by finish
	ask     upstream.Request
	out     message.Fields // for the upstream
	told    told           // the last value of Forwarded, and what of
	sent    sentRequest
	reply   upstream.Response
	signing answerSigning
	sending untilIdle // of the answer
	bound   bound

	grant       policy.Grant
	provisional policy.Provisional // set instead of grant while the body is still unverified

	grpc      bool   // the request is a call of gRPC: refusals are its own
	public    bool   // a document of the gateway's own is asked for
	preflight bool   // a browser asks what a page may do: answered without a caller
	asker     string // the dialect of a proxy that only asks; "" for requests
	responded bool   // the final head is on its way: refuse can only cut now
}

// serve is the handler of every request on the listeners for HTTPS.
func (g *Gateway) serve(s wire.Stream) {
	x := g.exchange(s)
	defer x.finish()
	if err := x.way(); err != nil {
		x.refuse(err)
	}
}

// way is the whole way of a request, in order: the decision, then what follows
// from it. Answers are signed as they are sent (sign.go).
func (x *exchange) way() error {
	if err := x.decide(); err != nil {
		return err
	}
	switch {
	case x.public:
		return x.answerPublic()
	case x.preflight:
		return x.answerPreflight()
	case x.route.fixed != nil:
		return x.respond()
	}
	return x.forward(x.grant, x.provisional)
}

// decide is the one decision on a request, whoever is going to forward it. Each
// step learns something or refuses; doc.go says why it stands where it stands. A
// preflight is decided without a caller, and gets no grant.
func (x *exchange) decide() error {
	if err := x.read(); err != nil {
		return err
	}
	if x.public = public(x.head.Path); x.public {
		return nil
	}
	if err := x.match(); err != nil {
		return err
	}
	if err := x.place(); err != nil {
		return err
	}
	if x.preflight {
		return nil
	}
	if err := x.authenticate(); err != nil {
		return err
	}
	if err := x.screen(); err != nil {
		return err
	}
	if err := x.admit(); err != nil {
		return err
	}
	if err := x.claim(); err != nil {
		return err
	}
	if err := x.body(); err != nil {
		return err
	}
	return x.authorize()
}

// exchange begins one, in the memory of one that has ended if there is some: whatever
// that held is gone but for what is the same for every request.
func (g *Gateway) exchange(s wire.Stream) *exchange {
	x, ok := g.ended.Get().(*exchange)
	if !ok {
		x = new(exchange)
		x.bound = x.bind()
	}
	x.g, x.s, x.stream, x.head, x.life = g, g.snapshot, s, s.Head(), s.Life()
	x.begin()
	return x
}

// forget leaves the memory of the exchange to another.
func (x *exchange) forget() {
	g, out, told := x.g, x.out, x.told
	clear(out)
	x.reply.Forget()
	*x = exchange{bound: x.bound, out: out[:0], reply: x.reply, told: told}
	g.ended.Put(x)
}

// begin opens the record.
func (x *exchange) begin() {
	x.g.exchanges.Add(1)
	x.g.inFlight.Add(1)
	x.record.Time = x.g.now()
	x.record.RequestID = newRequestID()
	x.record.Client = x.stream.Conn().Peer.Addr().Unmap()
	x.record.Method = x.head.Method
	x.record.Protocol = x.head.Version.String()
	x.client = x.record.Client
}

// elapsed is for how long the exchange goes on.
func (x *exchange) elapsed() time.Duration {
	if x.g.ownClock {
		return x.g.now().Sub(x.record.Time)
	}
	return time.Since(x.record.Time) // half the price
}

// read settles the one reading of the head that every later step uses, and
// refuses what two readers could take for different requests.
func (x *exchange) read() error {
	if err := x.head.Settle(); err != nil {
		x.record.Host, x.record.Path = withoutSecrets(x.head.Authority), withoutSecrets(x.head.Target)
		return err
	}
	x.record.Host, x.record.Path = x.head.Host, x.head.Path
	if message.IsGRPC(x.head.Fields.Get("content-type")) && x.asker == "" {
		x.grpc = x.head.Version == message.HTTP2
		if err := x.wellCalled(); err != nil {
			return err
		}
	}
	if err := x.s.guard.check(x.head.Fields); err != nil {
		return err
	}
	x.client, x.trusted = x.s.clientOf(x.client, x.head.Fields)
	x.record.Client = x.client
	return nil
}

// match finds the route.
func (x *exchange) match() error {
	r, err := x.s.routes.match(x.head)
	if err != nil {
		return err
	}
	x.route = r
	x.record.Route = r.name
	x.preflight = r.cors != nil && preflightMethod(x.head) != ""
	if x.tunnels() && !r.websocket {
		return message.ErrBadMethod // over HTTP/1.1 the wish is left out; here it is the request
	}
	return nil
}

// authenticate learns who the caller is from all that the head proves.
func (x *exchange) authenticate() error {
	var err error
	x.proof, err = x.route.chain.Authenticate(x.life, x.head, x.client)
	if x.proof.Signature != nil {
		x.vouch(false)
	}
	if err != nil {
		return err
	}
	x.caller = x.proof.Caller
	x.record.Principal = x.caller.String()
	x.record.Credential = x.caller.Kind()
	x.record.KeyID = x.caller.KeyID
	x.vouch(true)
	return x.spelledOtherwise()
}

// screen refuses a caller to whom no rule of the route could allow anything,
// before a byte of the body is read.
func (x *exchange) screen() error { return x.route.policy.Screen(&x.caller) }

// authorize decides on the call and gets the grant without which forward moves
// nothing.
func (x *exchange) authorize() error {
	var err error
	x.call = x.route.dialect.Read(x.head)
	if x.content.unverified {
		x.provisional, err = x.route.policy.Provide(&x.caller, x.call)
		return err
	}
	x.grant, err = x.route.policy.Decide(&x.caller, x.call)
	return err
}

// finish runs on every way out, panics included: it gives back what was
// taken and writes the one record that audit log and metrics read.
func (x *exchange) finish() {
	if p := recover(); p != nil {
		x.g.log.Error("panic in an exchange", "request_id", x.record.RequestID, "panic", fmt.Sprint(p), "stack", string(debug.Stack()))
		x.refuse(&refusal{reason: reasonInternal, cause: fmt.Errorf("panic: %v", p)})
	}
	x.held.release()
	x.content.held.release()
	x.g.inFlight.Add(-1)
	x.record.Duration = x.elapsed()
	x.record.Own = x.record.Duration - x.record.UpstreamDuration
	x.g.audit.Write(&x.record)
	x.g.metrics.Observe(&x.record)
	x.g.exchanges.Done()
	x.forget()
}

// untilIdle is a deadline that many reads or writes share: moving it costs a
// timer, so it moves once a second at most.
//
// It is safe for concurrent use.
type untilIdle struct {
	idle   time.Duration // zero: no bound
	stream wire.Stream
	clock  *wire.Clock
	writes bool // of writes, else of reads

	mu     sync.Mutex // guards what follows
	last   time.Time
	lifted bool
}

func (u *untilIdle) set(t time.Time) error {
	if u.writes {
		return u.stream.SetWriteDeadline(t)
	}
	return u.stream.SetReadDeadline(t)
}

// extend moves the deadline to at least idle from now.
func (u *untilIdle) extend() error {
	if u.idle <= 0 {
		return nil
	}
	now := u.clock.Now()
	u.mu.Lock()
	defer u.mu.Unlock()
	if u.lifted || now.Sub(u.last) < time.Second {
		return nil
	}
	u.last = now
	return u.set(now.Add(u.idle + time.Second + wire.Lag))
}

// lift removes the deadline for good. On some engines a deadline for reading that
// passes after the body has ended would look as if the client had left.
func (u *untilIdle) lift() {
	u.mu.Lock()
	defer u.mu.Unlock()
	u.lifted = true
	if !u.last.IsZero() {
		_ = u.set(time.Time{})
	}
}

// newRequestID is 128 random bits in hexadecimal: an id that a client sent could
// be forged.
func newRequestID() string {
	const hex = "0123456789abcdef"
	var b [32]byte
	for i, n := 0, uint64(0); i < len(b); i++ {
		if i%16 == 0 {
			n = rand.Uint64()
		}
		b[i] = hex[n&15]
		n >>= 4
	}
	return string(b[:])
}
