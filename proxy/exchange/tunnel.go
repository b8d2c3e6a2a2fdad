package exchange

import (
	"context"
	"encoding/base64"
	"encoding/binary"
	"errors"
	"math/rand/v2"
	"net"
	"slices"
	"sync/atomic"
	"time"

	"sallyport/auth"
	"sallyport/proxy/message"
	"sallyport/proxy/seal"
	"sallyport/proxy/setting"
	"sallyport/proxy/upstream"
)

// websocketKey is the field by which a WebSocket upstream proves that it understands. HTTP/2 does
// not use it.
const websocketKey = "sec-websocket-key"

func newWebsocketKey() string {
	var b [16]byte
	binary.NativeEndian.PutUint64(b[:], rand.Uint64())
	binary.NativeEndian.PutUint64(b[8:], rand.Uint64())
	return base64.StdEncoding.EncodeToString(b[:])
}

// wantsTunnel reports whether the request is an extended CONNECT (RFC 8441), for which any 2xx
// opens a tunnel.
func (x *exchange) wantsTunnel() bool {
	return x.head.Version == message.HTTP2 && x.head.Upgrade != ""
}

// tunnel connects client and upstream after a protocol switch. It ends when either side closes,
// both are silent for the idle time, or the credential expires.
func (x *exchange) tunnel(answer *upstream.Response) error {
	if x.choosesToken(answer.Head.Fields) {
		return &refusal{reason: reasonGarbage, cause: errTokenChosen}
	}
	if x.proof.Subprotocol && !answer.Head.Fields.Has(auth.SubprotocolField) {
		if implied := auth.ImpliedSubprotocol(x.head); implied != "" {
			answer.Head.Fields.Add(auth.SubprotocolField, implied)
		}
	}
	x.dress(&answer.Head)
	x.responded = true
	if err := x.boundSending(); err != nil {
		return err
	}
	conn, err := x.stream.Upgrade(&answer.Head)
	if err != nil {
		return errClientGone(err)
	}
	client, server := conn, answer.Upgraded()
	if x.durability().Waits() {
		x.kept, client = conn, &closedLater{Conn: conn}
	}
	// An expired credential, lost rights and the end of the grace period close the connections.
	life := x.life
	stop := context.AfterFunc(life, func() {
		if endingOf(life.Cause()) != "" {
			conn.Close()
		}
	})
	defer stop()
	x.noteTunnel()

	heard := &activity{idle: x.timeouts.Idle}
	up := make(chan int64, 1)
	go func() { up <- splice(server, client, heard) }()
	x.record.BytesOut = splice(client, server, heard)
	x.record.BytesIn = <-up
	if heard.silent.Load() {
		x.record.Cause = "both sides were silent for " + setting.Duration(heard.idle).String() + " (timeouts.idle)"
	}
	if cause := life.Cause(); endingOf(cause) != "" {
		return &refusal{reason: endingOf(cause), cause: cause}
	}
	x.whole = true
	return nil
}

// errTokenChosen is the cause if an upstream switches protocols with a subprotocol that holds a token.
var errTokenChosen = errors.New("Sec-WebSocket-Protocol chooses a subprotocol with a token, which the upstream was not offered")

// choosesToken reports whether an answer chooses a subprotocol with a token that no upstream gets: nothing
// may repeat it. Any other choice is the client's to judge, as behind nginx and Envoy: many clients take a
// subprotocol that they did not offer.
func (x *exchange) choosesToken(fields message.Fields) bool {
	return slices.ContainsFunc(fields, func(f message.Field) bool {
		return f.Name == auth.SubprotocolField && x.stripsToken(f.Value)
	})
}

// activity records when either side of a tunnel last sent data. A side that only listens is not
// idle.
type activity struct {
	idle   time.Duration // zero: no limit
	last   atomic.Int64  // Unix nanoseconds
	silent atomic.Bool   // reports whether the idle time ended the tunnel
}

// deadline returns when the next byte must arrive from either side; zero means no limit.
func (a *activity) deadline() time.Time {
	if a.idle <= 0 {
		return time.Time{}
	}
	return time.Unix(0, a.last.Load()).Add(a.idle)
}

// splice copies from src to dst until either ends. It then closes both, so that the other direction
// ends too. It returns the number of bytes copied.
func splice(dst, src net.Conn, heard *activity) (total int64) {
	defer dst.Close()
	defer src.Close()
	buf := seal.Blocks.Get().(*[]byte)
	defer seal.Blocks.Put(buf)
	heard.last.Store(time.Now().UnixNano())
	for {
		limit := heard.deadline()
		if src.SetReadDeadline(limit) != nil {
			return total
		}
		n, err := src.Read(*buf)
		if n > 0 {
			heard.last.Store(time.Now().UnixNano())
			if dst.SetWriteDeadline(heard.deadline()) != nil {
				return total
			}
			if _, werr := dst.Write((*buf)[:n]); werr != nil {
				return total
			}
			total += int64(n)
		}
		if timedOut(err) && heard.deadline().After(limit) {
			continue // the other side has sent data meanwhile
		}
		if err != nil {
			if timedOut(err) {
				heard.silent.Store(true)
			}
			return total
		}
	}
}
