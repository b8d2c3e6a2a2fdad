// Package exchange forwards a request from a client to a model server, and returns the answer.
//
// way.go lists the steps in order; the package comment of proxy gives the reason for that order.
// Every long step has a file of its own. A step refuses by returning an error. [exchange.refuse]
// turns every error into an answer, by the one table in refusal.go.
package exchange

import (
	"fmt"
	"math/rand/v2"
	"net"
	"net/netip"
	"runtime/debug"
	"time"

	"sallyport/auth"
	"sallyport/auth/identity"
	"sallyport/policy"
	"sallyport/policy/model"
	"sallyport/proxy/audit"
	"sallyport/proxy/message"
	"sallyport/proxy/route"
	"sallyport/proxy/seal"
	"sallyport/proxy/upstream"
	"sallyport/proxy/wire"
)

// exchange is one request being served. It belongs to one goroutine and ends with the request; only
// its memory is reused.
type exchange struct {
	server   *Server
	snapshot *Snapshot
	facts
	scratch
}

// facts hold the state of the current request. Each request begins with zero facts.
type facts struct {
	stream wire.Stream
	life   *wire.Life // of the request
	head   *message.Head
	record audit.Record

	client      netip.Addr // the client's address, seen through trusted proxies
	trusted     bool       // the peer is a trusted proxy
	route       *route.Route
	backend     *route.Backend    // the route's, or that of a split once it is chosen
	door        *route.Door       // whose page is asked for; nil for other requests
	cookies     []string          // values of Set-Cookie for an answer made by the gateway
	leaves      bool              // the answer is to a sign-out, so the browser is to forget the person's pages
	back        string            // the page to which sign-in leads back; "" as long as that is not known
	signedIn    bool              // the browser came with a session, although signing in failed
	timeouts    upstream.Timeouts // the route's; with gRPC, the caller may set those that the route does not
	asked       auth.Request      // the input of authentication
	revocations uint64            // Server.revocations before that
	proof       auth.Proof
	caller      identity.Principal
	reading     model.Reading // of the head
	interpreted form          // what it was read from
	call        model.Call
	chosen      string // the version that the route wrote into the path; "" for none
	content     content
	scanned     scanned
	about       *policy.Facts // what conditions of rules may ask; nil if there are none
	// provisional permits sending an unverified body except for its end.
	provisional policy.Provisional
	admitted
	answer  seal.Answer
	sending idleDeadline // of the answer

	dropped   dropped
	grpc      bool                 // the request is a gRPC call: refusals are gRPC statuses
	asker     string               // the dialect of a proxy that asks for a decision; "" for other requests
	responded bool                 // the final head has been sent: refuse can only cut the answer
	open      openCall             // the answer to a gRPC call, once responded
	served    *model.ServedScanner // of the upstream's answer; nil if it says nothing of its model
	whole     bool                 // the answer is complete, though its end may still be held back
	ending    *time.Timer          // see endWithCredential; nil: none
	kept      net.Conn             // a tunnel's connection to the client, closed after the record is written; nil if none
	listed    listed
}

// scratch holds memory that is reused from request to request.
type scratch struct {
	limited   limited
	out       message.Fields // fields for the upstream
	forwarded forwardedCache
	modelAsk  model.Request // input of the dialect
	scanning  model.ScanMemory
	verifying seal.Verified
	ask       upstream.Request
	sent      seal.Sent
	reply     upstream.Response
	callbacks callbacks
}

// callbacks are methods of an exchange that upstreams, and inspectors of content, call. They are bound
// once, for all requests that use this memory.
type callbacks struct {
	inform      func(*message.Response) error
	trailers    func(message.Fields) message.Fields
	interrupt   func()
	decideNamed func(model.Named) error
	decideEarly func(model.Named) error
	complete    seal.AtEnd
}

// begin returns a reset exchange, reusing a pooled one; nil once the process has ended.
func (s *Server) begin(stream wire.Stream) *exchange {
	snapshot := s.take()
	if snapshot == nil {
		return nil
	}
	x, ok := s.ended.Get().(*exchange)
	if !ok {
		x = new(exchange)
		x.callbacks = callbacks{x.inform, x.trailers, x.interrupt, x.decideNamed, x.decideEarly, x.complete}
	}
	x.server, x.snapshot = s, snapshot
	x.stream, x.head, x.life = stream, stream.Head(), stream.Life()
	s.inFlight.Add(1)
	x.record.Time = s.now()
	x.record.RequestID = newRequestID()
	x.record.Client = stream.Conn().Peer.Addr().Unmap()
	x.record.Method = x.head.Method
	x.record.Protocol = x.head.Version.String()
	x.client = x.record.Client
	s.live.enter(x)
	return x
}

// elapsed returns the duration of the exchange.
func (x *exchange) elapsed() time.Duration {
	if x.server.Now != nil {
		return x.server.Now().Sub(x.record.Time)
	}
	return time.Since(x.record.Time) // costs half as much as the time of day
}

// finish runs on every exit, panics included. It releases resources and writes the one record that
// audit log and metrics read.
func (x *exchange) finish() {
	if p := recover(); p != nil {
		x.server.Log.Error("panic in an exchange", "request_id", x.record.RequestID, "panic", fmt.Sprint(p), "stack", string(debug.Stack()))
		x.open = openCall{} // its state is unknown
		x.refuse(&refusal{reason: reasonInternal, cause: fmt.Errorf("panic: %v", p)})
	}
	s, snapshot := x.server, x.snapshot
	x.record.Duration = x.elapsed()
	x.record.Own = x.record.Duration - x.record.UpstreamDuration
	x.record.Dropped = x.dropped.words()
	x.recordCall()
	x.writeRecord()
	s.live.leave(x)
	x.admitted.release()
	x.limited.release()
	x.scanned.close()
	x.content.held.Release()
	s.inFlight.Add(-1)
	s.Metrics.Observe(&x.record)
	x.forget()
	snapshot.leave()
}

// forget returns the memory of the exchange to the pool.
func (x *exchange) forget() {
	s := x.server
	x.server, x.snapshot, x.facts = nil, nil, facts{}
	clear(x.out)
	x.out, x.ask, x.sent = x.out[:0], upstream.Request{}, seal.Sent{}
	x.verifying.Renew(nil)
	x.reply.Forget()
	s.ended.Put(x)
}

// newRequestID returns 128 random bits in hexadecimal. An id from the client could be forged.
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
