// Package exchange takes a request from a client to a model server, and the answer back.
//
// way.go lists the steps in order, and the package comment of proxy says why each
// stands where it stands. Every long step has a file of its own. A step learns
// something or refuses, by returning an error; [exchange.refuse] turns that into the
// answer, in one place and by one table (refusal.go).
package exchange

import (
	"fmt"
	"math/rand/v2"
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

// exchange is one request under way. It belongs to one goroutine
// and ends with the request; only its memory serves another.
type exchange struct {
	server   *Server
	snapshot *Snapshot
	facts
	scratch
}

// facts are what is known of the request that is under way. Another request begins
// with zero facts.
type facts struct {
	stream wire.Stream
	life   *wire.Life // of the request
	head   *message.Head
	record audit.Record

	client  netip.Addr // the other end, behind the proxies that are trusted
	trusted bool       // the peer is one of those proxies
	route   *route.Route
	asked   auth.Request // what proof is made from
	proof   auth.Proof
	caller  identity.Principal
	call    model.Call
	content content
	scanned scanned
	// provisional is the leave to send an unverified body but for its end.
	provisional policy.Provisional
	admitted
	answer  seal.Answer
	sending idleDeadline // of the answer

	grpc      bool   // the request is a gRPC call: refusals are gRPC statuses
	asker     string // the dialect of a proxy that asks for a decision; "" for requests
	responded bool   // the final head is on its way: refuse can only cut now
	listed    listed
}

// scratch is memory that serves one request after the other.
type scratch struct {
	out       message.Fields // for the upstream
	forwarded forwardedCache
	ask       upstream.Request
	sent      seal.Sent
	reply     upstream.Response
	callbacks callbacks
}

// callbacks are the methods of an exchange that upstreams call, bound once for all
// requests that use this memory.
type callbacks struct {
	inform    func(*message.Response) error
	trailers  func(message.Fields) message.Fields
	interrupt func()
}

// begin returns an exchange for a request, in memory of an earlier one if there is
// some; nil when the process has ended.
func (s *Server) begin(stream wire.Stream) *exchange {
	snapshot := s.take()
	if snapshot == nil {
		return nil
	}
	x, ok := s.ended.Get().(*exchange)
	if !ok {
		x = new(exchange)
		x.callbacks = callbacks{inform: x.inform, trailers: x.trailers, interrupt: x.interrupt}
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

// elapsed is for how long the exchange has gone on.
func (x *exchange) elapsed() time.Duration {
	if x.server.Now != nil {
		return x.server.Now().Sub(x.record.Time)
	}
	return time.Since(x.record.Time) // costs half as much as the time of day
}

// finish runs on every way out, panics included: it gives back what was taken and
// writes the one record that audit log and metrics read.
func (x *exchange) finish() {
	if p := recover(); p != nil {
		x.server.Log.Error("panic in an exchange", "request_id", x.record.RequestID, "panic", fmt.Sprint(p), "stack", string(debug.Stack()))
		x.refuse(&refusal{reason: reasonInternal, cause: fmt.Errorf("panic: %v", p)})
	}
	s, snapshot := x.server, x.snapshot
	s.live.leave(x)
	x.admitted.release()
	x.content.held.Release()
	s.inFlight.Add(-1)
	x.record.Duration = x.elapsed()
	x.record.Own = x.record.Duration - x.record.UpstreamDuration
	s.Audit.Write(&x.record)
	s.Metrics.Observe(&x.record)
	x.forget()
	snapshot.leave()
}

// forget leaves the memory of the exchange to another.
func (x *exchange) forget() {
	s := x.server
	x.server, x.snapshot, x.facts = nil, nil, facts{}
	clear(x.out)
	x.out, x.ask, x.sent = x.out[:0], upstream.Request{}, seal.Sent{}
	x.reply.Forget()
	s.ended.Put(x)
}

// newRequestID is 128 random bits in hexadecimal: an id that a client sent could be
// forged.
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
