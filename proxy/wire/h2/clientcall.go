package h2

import (
	"cmp"
	"context"
	"io"
	"net"
	"strings"
	"sync"
	"time"

	"sallyport/proxy/message"
	"sallyport/proxy/wire"
)

// maxInterim limits the interim responses before the final one.
const maxInterim = 8

// exchange is one exchange on a [Client]; it serves the content of a [wire.Response].
type exchange struct {
	c        *Client
	ctx      context.Context
	watching wire.Watching
	trailers message.Fields
	err      error // of every later Read; io.EOF at the clean end
	call     call
}

// call is the connection's state of one request and its answer. The connection's mu guards all of
// it.
type call struct {
	c      *Client
	id     uint32
	method string
	inform bool

	begun   time.Time   // when the head was queued
	err     *wire.Error // why the call failed
	reset   bool        // RST_STREAM was sent or received
	lingers bool        // the caller has left, and the reset is delayed
	resetBy code        // the code of the delayed reset

	unprocessed bool
	answered    bool
	marked      bool // in c.ready

	interim  []message.Response
	interims int
	headed   bool // the final head has arrived
	head     message.Response
	lacking  int64 // announced content still to come; -1: no Content-Length
	inEnded  bool  // END_STREAM was received
	inbox    inbox
	receive  receiving
	trailers message.Fields
	readable sync.Cond
	reading  bool
	idle     time.Duration
	limit    time.Time // deadline of the whole exchange; zero: none
	readBy   time.Time // deadline of the current wait; zero: none

	content  []byte // content for up to send
	up       *upload
	outEnded bool // END_STREAM is queued, or sending has stopped
	send     sending
	writable sync.Cond
	stuck    bool // waits for a window or for the output of other streams
	stuckBy  time.Time
}

func (k *call) begin(c *Client, r *wire.Request) {
	k.c, k.method, k.inform = c, r.Method, r.Inform != nil
	k.idle, k.limit = cmp.Or(r.Pause, r.Idle), r.Limit
	k.lacking = -1
	k.inbox.parts = k.inbox.one[:0]
	k.readable.L, k.writable.L = &c.mu, &c.mu
}

// mark has waiters on the call woken once the reader has handled all buffered frames; mu is held.
func (k *call) mark() {
	if !k.marked {
		k.marked = true
		k.c.ready = append(k.c.ready, k)
	}
}

// fail ends the call; mu is held.
func (k *call) fail(why *wire.Error) {
	if k.err == nil {
		k.err = why
	}
	k.readable.Broadcast()
	k.writable.Broadcast()
}

// contextEnded runs in a goroutine of its own when the context ends.
func (k *call) contextEnded() {
	k.c.mu.Lock()
	defer k.c.mu.Unlock()
	k.abort(&wire.Error{Fault: wire.FaultContext, Err: errContextEnded})
}

// abort ends the call from the client's side; mu is held.
func (k *call) abort(why *wire.Error) {
	if k.err != nil {
		return
	}
	k.fail(why)
	k.c.end(k, cancel)
	k.c.kick()
}

// look wakes waiters whose deadline has passed; mu is held.
func (k *call) look(now time.Time) {
	if k.reading {
		if passed(k.readBy, now) {
			k.readable.Broadcast()
		} else {
			k.c.remind(k.readBy)
		}
	}
	if k.stuck {
		if passed(k.stuckBy, now) {
			k.writable.Broadcast()
			k.c.changed.Broadcast()
		} else {
			k.c.remind(k.stuckBy)
		}
	}
}

// due returns the earlier of the limit and d from now; zero if neither is set.
func (k *call) due(d time.Duration) time.Time {
	if d <= 0 {
		return k.limit
	}
	by := k.c.options.Clock.After(d)
	if !k.limit.IsZero() && k.limit.Before(by) {
		return k.limit
	}
	return by
}

// wait waits for the server until readBy; it releases mu while it waits.
func (k *call) wait() error {
	if passed(k.readBy, time.Now()) {
		k.c.ping() // tell a slow request from a dead server
		k.c.kick()
		if !k.headed {
			return wire.LateHead.Or(k.limit)
		}
		return wire.LateContent.Or(k.limit)
	}
	k.c.remind(k.readBy)
	k.reading = true
	k.readable.Wait()
	k.reading = false
	return nil
}

// arm limits the wait to d from now, or from the end of a pending upload: the server may be silent
// until then, and writes have their own limit. mu is held.
func (k *call) arm(d time.Duration) {
	if k.up != nil && !k.up.over && !k.up.stop {
		k.up.patience, d = d, 0
	}
	k.readBy = k.due(d)
}

// awaitHead waits for the final head; it releases mu while it waits.
func (k *call) awaitHead(r *wire.Request) error {
	k.arm(r.Head)
	for {
		for len(k.interim) > 0 {
			m := k.interim[0]
			k.interim = k.interim[1:]
			k.c.mu.Unlock()
			err := r.Inform(&m)
			k.c.mu.Lock()
			if err != nil {
				return &wire.Error{Fault: wire.FaultInform, Err: err}
			}
		}
		switch {
		case k.lingers:
			return k.err
		case k.headed:
			if k.up != nil {
				k.up.answered(k.head.Status)
			}
			return nil
		case k.err != nil:
			return k.err
		}
		if err := k.wait(); err != nil {
			return err
		}
	}
}

// takeBlock reads a header block of the call; mu is held.
func (k *call) takeBlock(b *blockReader, end bool) error {
	switch {
	case k.inEnded:
		return spoilt(k.id, streamClosed, "HEADERS after END_STREAM")
	case b.excess != nil:
		return spoilt(k.id, enhanceYourCalm, b.excess.Error())
	case k.headed:
		return k.takeTrailers(b.fields, end)
	}
	k.answered = true
	return k.takeHead(b.fields, end)
}

// takeHead reads a head (RFC 9113, section 8.3.2).
func (k *call) takeHead(fields message.Fields, end bool) error {
	status, ok := statusOf(fields)
	if !ok {
		return spoilt(k.id, protocolError, "no status, or a bad one")
	}
	h, length, why := readFields(fields[1:])
	if why != "" {
		return spoilt(k.id, protocolError, why)
	}
	h.Status = status
	if status < 200 {
		k.interims++
		switch {
		case end, status == 101:
			return spoilt(k.id, protocolError, "interim response that ends or switches protocols")
		case k.interims > maxInterim:
			return spoilt(k.id, enhanceYourCalm, "too many interim responses")
		case status != 100 && k.inform:
			k.interim = append(k.interim, h)
		}
		return nil
	}
	switch hasBody := message.MayHaveBody(k.method, status); {
	case status == 204: // a length says nothing here (RFC 9113, section 8.1.1)
		k.lacking, length = 0, 0
	case !hasBody:
		k.lacking = 0
	case end && length > 0:
		return spoilt(k.id, protocolError, "less content than announced")
	case end:
		k.lacking, length = 0, 0
	default:
		k.lacking = length
	}
	h.ContentLength = length
	k.head, k.headed, k.inEnded = h, true, end
	return nil
}

// statusOf returns :status, the only pseudo field of an answer, which must come first.
func statusOf(fields message.Fields) (status int, ok bool) {
	if len(fields) == 0 || fields[0].Name != ":status" || len(fields[0].Value) != 3 {
		return 0, false
	}
	n, ok := parseLength(fields[0].Value)
	return int(n), ok && n >= 100 && n <= 599
}

// readFields reads the regular fields of an answer. A further pseudo field fails the name check.
func readFields(fields message.Fields) (h message.Response, length int64, why string) {
	length = -1
	h.Fields = make(message.Fields, 0, len(fields)+4) // room for what the gateway adds
	for i := range fields {
		f := &fields[i]
		if checkField(f) != nil {
			return h, 0, "bad field"
		}
		if f.Name == "content-length" {
			n, ok := parseLength(f.Value)
			if !ok || length >= 0 {
				return h, 0, "bad or repeated Content-Length"
			}
			length = n
		}
		if !message.OfConnection(f.Name) {
			h.Fields = append(h.Fields, *f)
		}
	}
	return h, length, ""
}

// takeTrailers reads the trailer block.
func (k *call) takeTrailers(fields message.Fields, end bool) error {
	if !end {
		return spoilt(k.id, protocolError, "HEADERS within the content")
	}
	for i := range fields {
		if checkField(&fields[i]) != nil {
			return spoilt(k.id, protocolError, "bad trailer")
		}
	}
	k.trailers = append(message.Fields(nil), fields...)
	return k.endInput()
}

// takeData reads DATA; mu is held.
func (k *call) takeData(f *frame) error {
	n := len(f.payload)
	switch {
	case k.inEnded:
		return spoilt(k.id, streamClosed, "DATA after END_STREAM")
	case !k.headed:
		return spoilt(k.id, protocolError, "DATA before the head")
	case !k.receive.arrive(f.size):
		return spoilt(k.id, flowControlError, "more content than the window holds")
	case k.lacking >= 0 && int64(n) > k.lacking:
		return spoilt(k.id, protocolError, "more content than announced")
	}
	if k.lacking > 0 {
		k.lacking -= int64(n)
	}
	k.receive.owed += f.size - n
	if !k.lingers {
		k.inbox.put(k.c.bufs, f.payload)
	}
	if f.has(flagEndStream) {
		return k.endInput()
	}
	return nil
}

func (k *call) endInput() error {
	if k.lacking > 0 {
		return spoilt(k.id, protocolError, "less content than announced")
	}
	k.inEnded = true
	return nil
}

// Read reads content.
func (x *exchange) Read(p []byte) (int, error) {
	if x.err != nil || len(p) == 0 {
		return 0, x.err
	}
	x.c.mu.Lock()
	n, err := x.call.read(p)
	x.c.mu.Unlock()
	switch {
	case err == io.EOF:
		x.keepTrailers()
	case err != nil:
		err = x.blame(err)
	}
	x.err = err
	return n, err
}

// keepTrailers drops the trailers that may not be passed on. gRPC trailers may repeat fields of the
// head, so those are kept.
func (x *exchange) keepTrailers() {
	head := x.call.head.Fields
	if message.IsGRPC(head.Get("content-type")) {
		head = nil
	}
	x.trailers = message.KeptTrailers(x.call.trailers, head)
}

// read reads content, or waits for it; it releases mu while it waits.
func (k *call) read(p []byte) (int, error) {
	k.arm(k.idle)
	for {
		switch {
		case k.lingers:
			return 0, k.err
		case k.inbox.size > 0:
			n := k.inbox.take(k.c.bufs, p)
			if k.inEnded && k.inbox.size == 0 {
				return n, io.EOF
			}
			k.widen(n)
			return n, nil
		case k.inEnded:
			return 0, io.EOF
		case k.err != nil:
			return 0, k.err
		}
		if err := k.wait(); err != nil {
			return 0, err
		}
	}
}

// widen grants the server the bytes that were read. It grows the window if the reader has emptied
// the inbox and the connection's memory allows; mu is held.
func (k *call) widen(n int) {
	c, w := k.c, &k.receive
	if k.inEnded || k.err != nil {
		return
	}
	before := w.size
	w.most = min(c.options.StreamWindow, w.size+c.spare)
	more := w.read(n, k.inbox.size == 0)
	c.spare -= w.size - before
	if more > 0 {
		b := c.control()
		b.B = appendWindow(b.B, k.id, more)
		c.kick()
	}
}

// Arrived implements [message.Arrived]; trailers may still follow.
func (x *exchange) Arrived() (n int, whole bool) {
	x.c.mu.Lock()
	defer x.c.mu.Unlock()
	return x.call.inbox.size, x.call.inEnded
}

// Trailers returns the trailers that may be passed on, once Read has returned io.EOF.
func (x *exchange) Trailers() message.Fields { return x.trailers }

// Upgraded returns nil: this client does not open tunnels.
func (x *exchange) Upgraded() net.Conn { return nil }

// Close ends the exchange, and resets the stream if it is not complete. It returns whether the
// connection accepts more exchanges.
func (x *exchange) Close() (reusable bool) {
	c, k := x.c, &x.call
	if k.up != nil {
		k.up.join()
	}
	x.watching.Stop()
	c.mu.Lock()
	defer c.mu.Unlock()
	c.end(k, cancel)
	k.inbox.drop(c.bufs)
	c.taken--
	c.rest()
	c.kick()
	return c.good()
}

// appendPseudo writes the pseudo fields of a request.
func appendPseudo(b []byte, method, scheme, authority, path string) []byte {
	switch method {
	case "GET":
		b = append(b, 0x80|2)
	case "POST":
		b = append(b, 0x80|3)
	default:
		b = appendField(b, ":method", method)
	}
	if strings.EqualFold(scheme, "https") {
		b = append(b, 0x80|7)
	} else {
		b = append(b, 0x80|6)
	}
	return appendField(appendField(b, ":authority", authority), ":path", path)
}
