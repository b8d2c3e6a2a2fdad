package exchange

import (
	"time"

	"sallyport/proxy/message"
)

// dropped is a set of parts of a request that were not sent on although the client may count on
// them. Each has a word in the record.
type dropped uint8

const (
	// droppedUpgrade is an Upgrade that the route does not allow, or that asks for nothing.
	droppedUpgrade dropped = 1 << iota
	// droppedTrailers are one or more trailers of the request.
	droppedTrailers
	// droppedForwarded are X-Forwarded-For and its kin from a peer that is no trusted proxy.
	droppedForwarded
)

// words are the words of each set for the record.
func (d dropped) words() string {
	return [...]string{
		"", "upgrade", "trailers", "upgrade trailers",
		"forwarded", "upgrade forwarded", "trailers forwarded", "upgrade trailers forwarded",
	}[d]
}

// upgradePause is how often a route warns that it allows no WebSocket.
const upgradePause = 10 * time.Minute

// dropUpgrade notes an Upgrade that is not sent on.
func (x *exchange) dropUpgrade() {
	x.dropped |= droppedUpgrade
	if x.head.Upgrade == "websocket" {
		x.warnUpgrade()
	}
}

// warnUpgrade tells the operator that clients ask for WebSockets which the route does not allow.
func (x *exchange) warnUpgrade() {
	if x.route.UpgradeWarned.Allow(x.server.now(), upgradePause) {
		x.server.Log.Warn("clients ask for a WebSocket, which the route does not allow", "route", x.route.Name,
			"request_id", x.record.RequestID, "cure", "write websocket: true in the route, if its clients may have one")
	}
}

// noteTrailers notes trailers of the request that were not sent on. Call it when the upload is over.
func (x *exchange) noteTrailers() {
	if x.head.ContentLength == 0 {
		return
	}
	if b, ok := x.stream.Body().(message.Trailed); ok && b.Trailed() > int(x.content.trailers.Load()) {
		x.dropped |= droppedTrailers
	}
}
