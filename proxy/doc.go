// Package proxy runs the gateway. It builds it from a configuration, and swaps that for
// another while requests go on.
//
// # The way of a request
//
// Every request takes the one way that package exchange lists, whatever protocol it
// came by. There is no second way to an upstream. The order is part of the security of
// the whole:
//
//   - read: the head gets its one canonical reading, or is refused. It comes first,
//     because whoever decides on another reading than the one that is forwarded
//     decides on another request. What claims to be a gRPC call must be one.
//   - match finds the route by that reading. It comes before authentication,
//     because which credentials count is the route's to say.
//   - checkAddress refuses addresses from which the route takes nothing, before a
//     credential is looked at: from there not even a guess at one counts. A browser's
//     question about what a page may do (a CORS preflight) is answered here; it
//     never carries a credential and never goes further.
//   - authenticate learns who calls, from the head alone.
//   - screen refuses callers to whom no rule could allow anything, before a byte of
//     the body is read: an upload is work, and strangers must not cause any.
//   - admit takes room: rate, requests in flight, a slot in the audit log. It comes
//     after authentication, because limits count verified callers: who forges
//     another's name must not use up that one's allowance.
//   - claim uses the nonce of a signed request. It comes after admission, so that a
//     caller refused for want of room may try the same request again, and before the
//     body, so that a replay uploads nothing.
//   - takeBody holds the body, or has it verified on its way, where the caller signed
//     its digest, so that no upstream acts on a request that was changed on the way.
//   - authorize decides on the call and gives the grant ([policy.Grant]).
//   - forward is the only step that can reach an upstream, and it demands the grant, as
//     does respond, which gives the fixed answer of a route that has one. Each attempt is
//     signed anew where the upstream has a key, and the answer to the client as it is
//     sent.
//   - finish, deferred, writes one record on every way out. Audit log and metrics
//     both read that record, so they cannot disagree.
//
// Other proxies may ask for the decision alone and forward by themselves: they are
// answered after authorize, by the same steps.
//
// An exchange has one goroutine. A body that is not at hand is uploaded by a second,
// which the upstream's answer owns and its Close joins: so both sides may send at once,
// and an early answer is seen.
//
// # Two lifetimes
//
// What a configuration says is a snapshot: immutable, made by build without network or
// goroutines, swapped whole or not at all. What must survive a reload is memory: replay
// claims, counters, pools, certificates, key sets, verified tokens, audit log, metrics.
// Nothing that must survive hangs on a snapshot, nothing that a file can change hangs on
// memory. An exchange takes the current snapshot once. After a reload the exchanges that
// are under way are decided again by the new snapshot, and the old one drains for a
// bounded time.
//
// # Glossary
//
//   - exchange: one request under way, with its answer.
//   - snapshot: what one configuration says, ready for use.
//   - memory: what the process keeps, whatever the configuration says.
//   - grant: leave to make one call, without which nothing is forwarded.
//   - claim: the use of a signature's nonce, which happens once.
//   - leg: one of the connections that a message crosses (client to gateway, gateway
//     to upstream), each with keys of its own.
package proxy
