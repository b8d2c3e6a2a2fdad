// Package proxy runs the gateway: it builds it from a configuration, and replaces the configuration
// while requests are served.
//
// # The steps of a request
//
// Every request takes the same steps, listed in package exchange, whatever its protocol. There is
// no other path to an upstream. The order of the steps is part of the gateway's security:
//
//   - read parses the head into its one canonical form, or refuses it. It comes first: a
//     decision on any other form would be a decision on another request. A request that
//     claims to be a gRPC call must be one.
//   - match finds the route for that form. It precedes authentication, because the route
//     says which credentials count. It refuses connections whose handshake did not ask for
//     client certificates as the request's host does.
//   - checkAddress refuses addresses that the route does not admit, before it looks at a
//     credential: other addresses cannot even guess one. A CORS preflight is answered
//     here; it carries no credential and is never forwarded.
//   - authenticate identifies the caller, from the head alone, and holds it to step_up.
//   - interpret reads what the request asks for, and writes the version that the route chooses
//     (rewrite) into a path that names none. It precedes every decision, so that rules, limits
//     and the record see the version that is sent. In gRPC messages takeBody does the same.
//   - screen refuses callers whom no rule could allow anything, before any of the body is
//     read: strangers must not cause the work of an upload.
//   - admit checks rate, requests in flight and space in the audit queue. It follows
//     authentication, because limits count verified callers: a forger must not use up the
//     allowance of the caller whose name it forges.
//   - claim uses up the nonce of a signed request. It follows admission, so that a caller
//     refused for lack of capacity may send the same request again. It precedes the body,
//     so that a replay uploads nothing.
//   - takeBody holds the body, or verifies it while it is forwarded, if the caller signed
//     its digest. So no upstream acts on a request that was changed in transit.
//   - authorize decides on the call and returns the grant ([policy.Grant]).
//   - countDecided counts the call in limits that need the model from the body, or that callers
//     share: a caller without the right must not use them up.
//   - forward is the only step that can reach an upstream. It requires the grant, and so
//     does respond, which sends a route's fixed answer. Each attempt is signed anew if the
//     upstream has a key, and gets the gateway's own credential last of all. The answer to the client is signed as it is sent.
//   - finish, deferred, writes one record on every exit. Audit log and metrics both read
//     that record, so they cannot disagree. With audit.durable, the end of the answer waits for
//     the record. If the record is late, the answer is cut, and a second record reports that.
//
// Other proxies may ask only for the decision and forward the request themselves. They are answered
// after authorize, by the same steps.
//
// An exchange has one goroutine. A second one uploads a body that is not in memory. The upstream's
// answer owns it, and its Close waits for it. So both sides may send at once, and an early answer
// is noticed.
//
// # Two lifetimes
//
// A snapshot holds one configuration in ready form. It is immutable, built without network or
// goroutines, and replaced as a whole. The memory of the process survives a reload: replay claims,
// counters, pools, certificates, key sets, verified tokens, audit log, metrics. Nothing in a
// snapshot must survive a reload, and no file can change the memory. An exchange takes the current
// snapshot once. After a reload, exchanges in progress are decided again by the new snapshot, and
// the old one drains for a bounded time.
//
// # Glossary
//
//   - exchange: one request in progress, with its answer.
//   - snapshot: one configuration, compiled for use.
//   - memory: the state of the process that survives reloads.
//   - grant: permission for one call, without which nothing is forwarded.
//   - claim: the one permitted use of a signature's nonce.
//   - leg: one of the connections that a message crosses (client to gateway, gateway
//     to upstream), each with keys of its own.
package proxy
