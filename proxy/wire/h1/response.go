package h1

import (
	"context"
	"crypto/sha1"
	"encoding/base64"
	"io"
	"net"
	"strconv"
	"strings"
	"time"

	"sallyport/proxy/message"
	"sallyport/proxy/wire"
	"sallyport/proxy/wire/socket"
)

// exchange is the current exchange of a [Client] and its [wire.Response].
type exchange struct {
	*wire.Response // the caller's, filled by this exchange

	c        *Client
	ctx      context.Context
	watching wire.Watching

	mode     bodyMode
	left     int64
	chunks   chunked
	trailers message.Fields
	err      error // of every later Read; io.EOF at the clean end

	reusable bool // the server accepts another request
	doubtful bool // an interim response announced content, which may still arrive
}

type bodyMode uint8

const (
	bodyNone bodyMode = iota
	bodyLength
	bodyChunked
	bodyToEnd // content ends with the connection
	bodyTunnel
)

// head holds what a response's head says about the connection itself.
type head struct {
	http10    bool
	length    int64 // -1: absent
	chunked   bool
	framing   error // what is wrong with the fields that announce content
	close     bool
	named     bool // Connection lists fields to remove
	upgrade   bool // Connection lists "upgrade"
	protocol  string
	protocols int // lines of Upgrade
	keepAlive time.Duration
	last      bool // the server will take no further request
}

// readHead reads heads up to and including that of the final response.
func (x *exchange) readHead(r *wire.Request) error {
	in := &x.c.in
	if in.buffered() == 0 {
		if err := in.fill(); err != nil {
			return err
		}
	}
	x.Answered = true
	for range maxInterim + 1 {
		h, err := x.parseHead(in)
		if err != nil {
			return err
		}
		if status := x.Head.Status; status >= 200 || status == 101 {
			return x.frame(r, h)
		}
		x.doubtful = x.doubtful || h.announces()
		if x.Head.Status == 100 || r.Inform == nil {
			continue
		}
		interim := x.Head
		interim.ContentLength = 0
		x.Head = message.Response{} // Inform may keep the fields
		if err := r.Inform(&interim); err != nil {
			return &wire.Error{Fault: wire.FaultInform, Err: err}
		}
	}
	return malformed("too many interim responses")
}

// parseHead reads one head.
func (x *exchange) parseHead(in *reader) (head, error) {
	h := head{length: -1}
	block, err := in.block(wire.MaxHead, wire.MaxFields, true)
	if err != nil {
		return h, err
	}
	if block.lines == 0 {
		return h, malformed("no status line")
	}
	text := string(block.bytes) // the one allocation for all text
	if x.Head.Status, h.http10, err = parseStatusLine(text[:block.start]); err != nil {
		return h, err
	}
	fields := x.Head.Fields
	if n := len(block.rows) + 12; cap(fields) < n { // the gateway adds some
		fields = make(message.Fields, 0, n)
	}
	x.Head.Fields = block.fields(text, fields[:0])
	for i := range x.Head.Fields {
		if err := h.read(&x.Head.Fields[i]); err != nil {
			return h, err
		}
	}
	switch {
	case x.Head.Status < 200 || x.Head.Status == 204: // ends at the empty line, whatever the fields say
	case h.framing != nil:
		return h, h.framing
	case h.chunked && h.length >= 0:
		return h, malformed("both Content-Length and Transfer-Encoding")
	case h.chunked && h.http10:
		return h, malformed("Transfer-Encoding on HTTP/1.0")
	}
	x.dropOfConnection(&h)
	return h, nil
}

// announces reports whether the fields announce content, rightly or not.
func (h *head) announces() bool { return h.length > 0 || h.chunked || h.framing != nil }

// parseStatusLine reads `HTTP/1.1 200 reason`. The reason is discarded. Servers leave out the space
// before an empty reason; no reader takes that for anything else.
func parseStatusLine(s string) (status int, http10 bool, err error) {
	const form = "HTTP/1.x 000"
	if len(s) < len(form) || s[:7] != form[:7] || s[7] != '0' && s[7] != '1' || s[8] != ' ' || len(s) > len(form) && s[len(form)] != ' ' {
		return 0, false, malformed("bad status line")
	}
	for i := 9; i < 12; i++ {
		if s[i] < '0' || s[i] > '9' {
			return 0, false, malformed("bad status")
		}
		status = status*10 + int(s[i]-'0')
	}
	if status < 100 || status > 599 {
		return 0, false, malformed("status out of range")
	}
	for i := len(form); i < len(s); i++ {
		if s[i] < ' ' && s[i] != '\t' || s[i] == 0x7f {
			return 0, false, malformed("bad reason phrase")
		}
	}
	return status, s[7] == '0', nil
}

// read records what one field says about the connection.
func (h *head) read(f *message.Field) error {
	switch f.Name {
	case "content-length":
		n, ok := parseLength(f.Value)
		if !ok || h.length >= 0 {
			h.framing = malformed("bad or repeated Content-Length")
		}
		h.length = n
	case "transfer-encoding":
		if h.chunked || !message.EqualFold(f.Value, "chunked") {
			h.framing = malformed("Transfer-Encoding is not chunked alone")
		}
		h.chunked = true
	case "connection":
		return h.readConnection(f.Value)
	case "upgrade":
		h.protocol = f.Value
		h.protocols++
	case "keep-alive":
		h.readKeepAlive(f.Value)
	}
	return nil
}

func (h *head) readConnection(list string) error {
	for list != "" {
		var option string
		option, list, _ = strings.Cut(list, ",")
		option = strings.Trim(option, " \t")
		switch {
		case option == "":
		case message.EqualFold(option, "close"):
			h.close = true
		case message.EqualFold(option, "keep-alive"):
		case message.EqualFold(option, "upgrade"):
			h.upgrade = true
		case message.ValidName(option):
			h.named = true
		default:
			return malformed("bad Connection")
		}
	}
	return nil
}

// parseLength reads 1*DIGIT.
func parseLength(s string) (int64, bool) {
	if s == "" || len(s) > 18 {
		return 0, false
	}
	n := int64(0)
	for i := 0; i < len(s); i++ {
		if s[i] < '0' || s[i] > '9' {
			return 0, false
		}
		n = n*10 + int64(s[i]-'0')
	}
	return n, true
}

// readKeepAlive reads "timeout=5, max=100". It is a hint, so unknown parts are ignored. With timeout=0
// or max=0 the server is about to close.
func (h *head) readKeepAlive(s string) {
	for s != "" {
		var p string
		p, s, _ = strings.Cut(s, ",")
		name, v, _ := strings.Cut(strings.Trim(p, " \t"), "=")
		n, err := strconv.ParseUint(v, 10, 16)
		if err != nil {
			continue
		}
		switch {
		case message.EqualFold(name, "timeout"):
			h.keepAlive = time.Duration(n) * time.Second
			h.last = h.last || n == 0
		case message.EqualFold(name, "max"):
			h.last = h.last || n == 0
		}
	}
}

// dropOfConnection removes hop-by-hop fields, including those that Connection lists.
func (x *exchange) dropOfConnection(h *head) {
	var options message.Fields
	if h.named {
		for _, f := range x.Head.Fields {
			if f.Name == "connection" {
				options = append(options, f)
			}
		}
	}
	x.Head.Fields.DelFunc(func(f message.Field) bool {
		return message.OfConnection(f.Name) || options != nil && options.HasToken("connection", f.Name)
	})
}

// frame determines where the content ends (RFC 9112, section 6.3).
func (x *exchange) frame(r *wire.Request, h head) error {
	status := x.Head.Status
	x.KeepAlive = h.keepAlive
	x.Head.ContentLength = h.length
	x.reusable = !h.close && !h.http10 && !h.last && !x.doubtful
	switch {
	case status == 101:
		return x.switched(r, h)
	case status == 204:
		x.Head.ContentLength = 0
		x.err = io.EOF
		x.reusable = x.reusable && !h.announces() // what was announced may still come
	case !message.MayHaveBody(r.Method, status), h.length == 0:
		x.err = io.EOF
	case h.chunked:
		x.mode, x.chunks.lenient = bodyChunked, true
	case h.length > 0:
		x.mode, x.left = bodyLength, h.length
	default:
		x.mode, x.reusable = bodyToEnd, false
	}
	return nil
}

// switched validates a 101 response. Without a matching request, it would turn the connection into
// a tunnel that bypasses every check.
func (x *exchange) switched(r *wire.Request, h head) error {
	switch {
	case r.Upgrade == "", h.http10, !h.upgrade, h.protocols != 1, !message.EqualFold(h.protocol, r.Upgrade):
		return malformed("switch to a protocol that was not asked for")
	case h.announces(): // it could be the answer of a server that did not switch
		return malformed("switch of protocols with content")
	}
	if key := r.Fields.Get("sec-websocket-key"); r.Upgrade == "websocket" && key != "" {
		if f := x.Head.Fields; f.Count("sec-websocket-accept") != 1 || f.Get("sec-websocket-accept") != acceptOf(key) {
			return malformed("Sec-WebSocket-Accept does not answer the key")
		}
	}
	x.mode, x.reusable, x.err = bodyTunnel, false, io.EOF
	x.Head.ContentLength = 0
	return nil
}

// acceptOf computes Sec-WebSocket-Accept, which proves that the server understood a WebSocket
// handshake (RFC 6455, section 4.2.2).
func acceptOf(key string) string {
	sum := sha1.Sum([]byte(key + "258EAFA5-E914-47DA-95CA-C5AB0DC85B11"))
	return base64.StdEncoding.EncodeToString(sum[:])
}

// Read reads content.
func (x *exchange) Read(p []byte) (int, error) {
	if x.err != nil || len(p) == 0 {
		return 0, x.err
	}
	n, err := x.read(p)
	if err != nil && err != io.EOF {
		err = x.blame(err)
	}
	x.err = err
	return n, err
}

func (x *exchange) read(p []byte) (n int, err error) {
	in := &x.c.in
	switch x.mode {
	case bodyLength:
		n, err = in.read(p[:min(int64(len(p)), x.left)])
		if x.left -= int64(n); x.left == 0 {
			return n, io.EOF
		}
		return n, cut(err)
	case bodyChunked:
		n, err = x.chunks.read(in, p)
		if err == io.EOF {
			x.trailers = message.KeptTrailers(x.chunks.trailers, x.Head.Fields)
		}
		return n, err
	}
	n, err = in.read(p)
	if err == io.EOF && x.c.sock.ended {
		return n, io.ErrUnexpectedEOF // no close_notify: an attacker may have truncated it
	}
	return n, err
}

// Trailers returns the trailers that may be passed on, once Read has returned io.EOF.
func (x *exchange) Trailers() message.Fields { return x.trailers }

// Close ends the exchange. It closes the connection unless it can be reused.
func (x *exchange) Close() (reusable bool) {
	c := x.c
	whole := c.up == nil || c.up.join()
	atEnd := x.err == io.EOF && x.mode != bodyTunnel
	ended := !x.watching.Stop()
	reusable = atEnd && x.reusable && whole && !ended && c.in.buffered() == 0
	if x.mode != bodyTunnel {
		c.in.release()
	}
	c.up, c.x = nil, exchange{}
	switch {
	case reusable:
		c.busy = false
	case !whole:
		c.sock.reset()
	case atEnd:
		_ = c.Close() // nobody waits for it
	default:
		_ = c.sock.Close() // closed beneath TLS, because sending close_notify could block
	}
	return reusable
}

// Upgraded implements [wire.Response.Upgraded].
func (x *exchange) Upgraded() net.Conn {
	if x.mode != bodyTunnel {
		return nil
	}
	c := x.c
	c.upgraded.Store(true)
	_ = c.conn.SetDeadline(time.Time{}) // fails only on a closed connection
	if c.interrupted() != nil {
		_ = c.conn.Close()
	}
	return &tunnel{Conn: c.conn, in: &c.in}
}

// tunnel is an upgraded connection; it first returns the bytes that were read ahead.
type tunnel struct {
	net.Conn
	in *reader
}

func (t *tunnel) Read(p []byte) (int, error) {
	if t.in.buffered() == 0 || len(p) == 0 {
		return t.Conn.Read(p)
	}
	n := copy(p, t.in.bytes())
	if t.in.r += n; t.in.buffered() == 0 {
		t.in.release()
	}
	return n, nil
}

// Coming implements [message.Coming].
func (x *exchange) Coming() bool {
	if x.err != nil || x.c.in.buffered() > 0 {
		return true
	}
	quiet, known := socket.Quiet(x.c.conn)
	return known && !quiet
}
