package exchange

import (
	"net/http"
	"strings"
	"time"

	"sallyport/proxy/message"
	"sallyport/proxy/upstream"
)

// dropped is the set of request parts that were not forwarded although the client may rely on them.
// The audit record has a word for each part.
type dropped uint8

const (
	// droppedUpgrade is an Upgrade that the route does not allow, or that would have no effect.
	droppedUpgrade dropped = 1 << iota
	// droppedTrailers are one or more trailers of the request.
	droppedTrailers
	// droppedForwarded are X-Forwarded-For and related fields from a peer that is not a trusted proxy.
	droppedForwarded
	// droppedIdentity are fields by which servers behind other proxies learn who calls.
	droppedIdentity
	// droppedSteering are fields by which a client could make the servers do something else than what the
	// gateway decided on; see [model.Dialect.Dropped].
	droppedSteering
	// droppedToken are subprotocols of a WebSocket with a token that did not count.
	droppedToken
	// droppedAuthorization is an Authorization that did not count, because the session of a page did. Pages
	// of servers with accounts of their own send their tokens there.
	droppedAuthorization
)

// words returns the words of the set for the record, separated by blanks; "" for the empty set.
func (d dropped) words() string { return droppedWords[d] }

var droppedWords = func() (all [1 << 7]string) {
	for d := range all {
		var words []string
		for i, word := range [...]string{"upgrade", "trailers", "forwarded", "identity", "steering", "token", "authorization"} {
			if d>>i&1 != 0 {
				words = append(words, word)
			}
		}
		all[d] = strings.Join(words, " ")
	}
	return all
}()

// upgradePause is the shortest time between two warnings of a route that it allows no WebSocket.
const upgradePause = 10 * time.Minute

// dropUpgrade records an Upgrade that is not forwarded.
func (x *exchange) dropUpgrade() {
	x.dropped |= droppedUpgrade
	if x.head.Upgrade == "websocket" {
		x.warnUpgrade()
	}
}

// warnUpgrade logs that clients ask for WebSockets although the route does not allow them.
func (x *exchange) warnUpgrade() {
	if x.route.UpgradeWarned.Allow(x.server.now(), upgradePause) {
		x.server.Log.Warn("clients ask for a WebSocket, which the route does not allow", "route", x.route.Name,
			"request_id", x.record.RequestID, "cure", "write websocket: true in the route, if its clients may have one")
	}
}

// noteOrigin records and logs that the server refused the WebSocket of one of its own pages while it saw
// another Host. Such servers compare Origin with Host.
func (x *exchange) noteOrigin(answer *upstream.Response) {
	if x.head.Upgrade != "websocket" || answer.Head.Status != http.StatusForbidden || answer.Host == x.head.Authority ||
		x.head.Fields.Get("origin") != x.scheme()+"://"+x.head.Authority {
		return
	}
	x.record.Cause = "the server answered the WebSocket of its own page with 403; it may compare Origin with Host, which it sees as " + answer.Host +
		" (host: client in its upstream)"
	if x.route.UpgradeWarned.Allow(x.server.now(), upgradePause) {
		x.server.Log.Warn("the server refuses WebSockets of its own pages; it may compare Origin with Host", "route", x.route.Name,
			"request_id", x.record.RequestID, "host_seen", answer.Host, "cure", "write host: client in its upstream")
	}
}

// noteTrailers records that trailers of the request were not forwarded. Call it after the upload.
func (x *exchange) noteTrailers() {
	if x.head.ContentLength == 0 {
		return
	}
	if b, ok := x.stream.Body().(message.Trailed); ok && b.Trailed() > int(x.content.trailers.Load()) {
		x.dropped |= droppedTrailers
	}
}
