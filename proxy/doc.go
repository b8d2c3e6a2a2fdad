// Package proxy is the house: how does a request get from a client to a model
// server, and its answer back?
//
// # The way of a request
//
// Every request takes the one way that [exchange.way] lists, whatever protocol it
// came by. There is no second way to an upstream. The order is part of the
// security of the whole:
//
//   - read: the head gets its one canonical reading, or is refused. It comes first,
//     because whoever decides on another reading than the one that is forwarded
//     decides on another request. What says that it is a call of gRPC must be one.
//   - match finds the route by that reading. It comes before authentication,
//     because which credentials count is the route's to say.
//   - place refuses addresses from which the route takes nothing, before a proof is
//     looked at: from there not even a guess at a credential counts. A browser's
//     question about what a page may do (a CORS preflight) is answered here; it
//     never carries a credential and never goes further.
//   - authenticate learns who calls, from the head alone.
//   - screen refuses callers to whom no rule could allow anything, before a byte of
//     the body is read: an upload is work, and strangers must not cause any.
//   - admit takes room: rate, requests in flight, a slot in the audit log. It comes
//     after authentication, because limits count verified callers: who forges
//     another's name must not use up that one's allowance.
//   - claim uses the nonce of a signed request. It comes after admission, so that who
//     was refused for want of room may try the same request again, and before the
//     content, so that a replay uploads nothing.
//   - body takes the content: it is held or watched where a digest vouches for it, so
//     that no upstream acts on a request that was changed on the way.
//   - authorize decides on the call and gives the [policy.Grant].
//   - respond gives the fixed answer of a route that has one, in the place of:
//   - forward is the only step that can reach an upstream, and it demands the grant.
//     Each attempt is signed anew where the upstream has a key (upstreamleg.go), and
//     the answer to the client as it is sent (sign.go).
//   - finish, deferred, writes one record on every way out. Audit log and metrics
//     both read that record, so they cannot disagree.
//
// Other proxies may ask for the decision alone and forward by themselves
// (forwardauth.go): they are answered after authorize, by the same steps.
//
// A step refuses by returning an error; [exchange.refuse] turns it into the
// answer, in one place and by one table, and in the words of gRPC for its callers
// (grpc.go).
//
// The exchange has one goroutine. Content that is not at hand goes up in a second,
// which the answer of the upstream owns and its Close joins: so both sides may speak
// at once, and an early answer is seen.
//
// # The rooms
//
// gateway.go builds and runs it all; snapshot.go is what a configuration becomes;
// config.go reads gateway.yaml; guard.go keeps clients from speaking in the
// gateway's name; access.go, cors.go, respond.go, rewrite.go and headers.go hold
// what routes do to messages by their configuration; balancer.go and forwardauth.go
// are about proxies in front; admit.go, claim.go, body.go, forward.go, sign.go, upstreamleg.go,
// refusal.go and redirect.go hold the longer steps, and integrity.go what signatures
// of all routes share. Packages below: message (what a request is), wire (HTTP on
// the wire), upstream (model servers), edge (listeners and TLS), limit, audit,
// admin and setting.
package proxy
