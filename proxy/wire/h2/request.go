package h2

import (
	"errors"
	"fmt"
	"strconv"
	"strings"
	"time"

	"sallyport/proxy/message"
	units "sallyport/proxy/setting"
)

// takeBlock reads a frame of a header block.
func (c *serverConn) takeBlock(f *frame) error {
	if f.kind == frameHeaders {
		if f.stream%2 == 0 {
			return broken(protocolError, "a client's stream has an even number")
		}
		c.block, c.ends, c.blockAt = f.stream, f.has(flagEndStream), c.frame
		if o := c.options; f.stream > c.last { // only this goroutine writes it
			c.blocks.begin(o.HeadBytes, o.Fields+pseudos)
		} else {
			c.blocks.begin(trailerBytes, trailerRows)
		}
	}
	if err := c.blocks.add(f.payload); err != nil {
		return err
	}
	if !f.has(flagEndHeaders) {
		if f.size > 0 {
			return nil
		}
		c.mu.Lock()
		defer c.mu.Unlock()
		return c.spend() // for a frame that brings nothing
	}
	if err := c.blocks.end(); err != nil {
		return err
	}
	err := c.endBlock(c.block)
	c.block = 0
	c.blocks.release()
	return err
}

// endBlock opens a stream with the decoded block, or ends one with its trailers.
func (c *serverConn) endBlock(id uint32) error {
	if id > c.last {
		return c.open(id, c.ends)
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	s := c.streams[id]
	if s == nil {
		if c.wasReset(id) {
			return c.spend() // the client had not yet seen the reset or GOAWAY
		}
		return broken(streamClosed, "HEADERS on a closed stream")
	}
	return s.takeTrailers(c.ends)
}

// pseudos is how many pseudo fields there are.
const pseudos = 5

// open begins a stream with the decoded block.
func (c *serverConn) open(id uint32, end bool) error {
	c.mu.Lock()
	if c.stage >= closing {
		defer c.mu.Unlock()
		return c.ignore(id)
	}
	refused := c.counted >= c.options.Streams
	c.mu.Unlock()

	s := newStream(c, id)
	if !refused {
		s.readHead(end)
	}

	c.mu.Lock()
	defer c.mu.Unlock()
	if c.stage >= closing { // since the head was read
		return c.ignore(id)
	}
	c.last, c.taken, c.used = id, id, true
	if refused {
		c.reset(s, refusedStream)
		return c.spendReset()
	}
	c.earn(4)
	s.send = sending(c.grant)
	s.receive = receiving{left: c.streamWindow(), size: c.streamWindow(), most: c.options.StreamWindow}
	s.inEnded = end
	c.streams[id] = s
	s.counted = true
	c.counted++
	if c.requests++; c.requests == c.options.Requests {
		c.warn()
	}
	if s.lacking == 0 && !end {
		// No Content-Length, and the end is still to come: if content arrives after all, the
		// request must not have been forwarded.
		s.held, s.due = true, time.Now().Add(c.options.HeadTime)
		return nil
	}
	c.start(s)
	return nil
}

// ignore skips a new stream that GOAWAY refuses, or that begins after the connection's end. mu is
// held.
func (c *serverConn) ignore(id uint32) error {
	c.last = id
	c.noteReset(id)
	return c.spend()
}

// start runs the handler; mu is held.
func (c *serverConn) start(s *stream) {
	s.held, s.running = false, true
	c.serving++
	c.srv.crew.run(s)
}

// readHead makes the head from the decoded block.
func (s *stream) readHead(end bool) {
	b := s.c.blocks
	err := s.parse(b.fields, end)
	if b.excess != nil {
		err = s.c.overLimit(b.excess)
	}
	if err == nil {
		return
	}
	h := &s.head
	if errors.Is(err, message.ErrSyntax) || errors.Is(err, message.ErrFraming) {
		s.ruin = protocolError // malformed (RFC 9113, section 8.1.1)
	}
	if !message.ValidName(h.Method) {
		h.Method = "" // do not put it into the audit record
	}
	var kept message.Fields
	if b.excess != nil {
		kept = h.Fields.Audience()
	}
	h.Fault, h.Fields, h.ContentLength, h.Upgrade = err, kept, 0, ""
	s.lacking, s.expects, s.discards = -1, false, true
}

// overLimit adds to excess the limit that the head exceeds, and its setting.
func (c *serverConn) overLimit(excess error) error {
	if excess == message.ErrHeadTooLarge {
		return fmt.Errorf("%w: over %s (limits.head_bytes)", excess, units.Size(c.options.HeadBytes))
	}
	return fmt.Errorf("%w: over %d (limits.fields)", excess, c.options.Fields)
}

// parse reads a head (RFC 9113, sections 8.2 and 8.3).
func (s *stream) parse(fields message.Fields, end bool) error {
	h := &s.head
	var protocol string
	var had [pseudos]bool
	i := 0
	for ; i < len(fields) && strings.HasPrefix(fields[i].Name, ":"); i++ {
		at, to := 0, (*string)(nil)
		switch fields[i].Name {
		case ":method":
			at, to = pseudoMethod, &h.Method
		case ":scheme":
			at, to = pseudoScheme, &h.Scheme
		case ":authority":
			at, to = pseudoAuthority, &h.Authority
		case ":path":
			at, to = pseudoPath, &h.Target
		case ":protocol":
			at, to = pseudoProtocol, &protocol
		default:
			return &message.FieldError{Err: message.ErrSyntax, Name: fields[i].Name, Why: "requests have no such pseudo field"}
		}
		if had[at] || !message.ValidValue(fields[i].Value) {
			return &message.FieldError{Err: message.ErrSyntax, Name: fields[i].Name, Why: "it occurs twice, or holds a byte that no field may hold"}
		}
		had[at], *to = true, fields[i].Value
	}
	if err := s.parseFields(fields[i:], end, had[pseudoAuthority]); err != nil {
		return err
	}
	return s.parsePseudo(&had, protocol)
}

const (
	pseudoMethod = iota
	pseudoScheme
	pseudoAuthority
	pseudoPath
	pseudoProtocol
)

// parsePseudo checks the combination of pseudo fields.
func (s *stream) parsePseudo(had *[pseudos]bool, protocol string) error {
	h := &s.head
	if !message.ValidName(h.Method) {
		return fmt.Errorf("%w: :method is no method", message.ErrSyntax)
	}
	if h.Method == "CONNECT" && !had[pseudoProtocol] {
		if had[pseudoScheme] || had[pseudoPath] {
			return fmt.Errorf("%w: CONNECT with :scheme or :path, and without :protocol", message.ErrSyntax)
		}
		return fmt.Errorf("%w: CONNECT", message.ErrBadMethod) // it would open a tunnel to any address
	}
	if !had[pseudoScheme] || h.Target == "" {
		return fmt.Errorf("%w: there is no :scheme or no :path", message.ErrSyntax)
	}
	for i := 0; i < len(h.Target); i++ {
		if h.Target[i] <= ' ' || h.Target[i] >= 0x7f {
			return &message.TargetError{Err: message.ErrSyntax, What: h.Target[i : i+1], At: i, Why: "a byte that no target may hold", Cure: "the client must send its escape"}
		}
	}
	if secure := s.c.about.TLS != nil; secure && h.Scheme != "https" || !secure && h.Scheme != "http" && h.Scheme != s.c.options.Scheme {
		return fmt.Errorf("%w: :scheme is not that of the connection", message.ErrBadTarget)
	} else if !secure {
		h.Scheme = s.c.options.Scheme
	}
	if !had[pseudoProtocol] {
		return nil
	}
	switch {
	case h.Method != "CONNECT", !had[pseudoAuthority]:
		return fmt.Errorf("%w: :protocol without CONNECT or :authority", message.ErrSyntax)
	case s.said:
		return fmt.Errorf("%w: content-length in a request for a tunnel", message.ErrFraming)
	case protocol != "websocket":
		return fmt.Errorf("%w: CONNECT for another protocol than websocket", message.ErrBadMethod)
	}
	// The pipeline sees a WebSocket request as HTTP/1.1 sends it: its method is GET (RFC 8441,
	// section 5).
	h.Method, h.Upgrade, h.ContentLength, s.lacking = "GET", protocol, 0, -1
	return nil
}

// parseFields reads the fields after the pseudo fields.
func (s *stream) parseFields(fields message.Fields, end, authority bool) error {
	h := &s.head
	length := int64(-1)
	for i := range fields {
		f := &fields[i]
		if f.Name == "authorization" {
			// Clients without a token send "Bearer ". The answer should say that it is missing, as
			// over HTTP/1.1; RFC 9113, section 8.2.1, allows a more suitable status than 400.
			f.Value = strings.Trim(f.Value, " \t")
		}
		if err := checkField(f); err != nil {
			return err
		}
		switch f.Name {
		case "content-length":
			n, ok := parseLength(f.Value)
			if !ok || s.said {
				return &message.FieldError{Err: message.ErrFraming, Name: f.Name, Why: "it is not a number, or there are two", Cure: "the client must send one"}
			}
			s.said, length = true, n
		case "host":
			if !authority {
				h.Authority = f.Value // Settle refuses a second Host
			}
		case "expect":
			s.expects = strings.EqualFold(f.Value, "100-continue")
		}
	}
	switch {
	case end && length > 0:
		return &message.FieldError{Err: message.ErrFraming, Name: "content-length", Why: "the request ends without content"}
	case end:
		length = 0
	case length == 0:
		s.expects = false
	}
	h.ContentLength, s.lacking = length, length
	s.expects = s.expects && !end
	h.Fields = append(make(message.Fields, 0, len(fields)), fields...)
	return nil
}

// checkField refuses fields that HTTP/2 forbids (RFC 9113, section 8.2).
func checkField(f *message.Field) error {
	if !validName(f.Name) {
		return fmt.Errorf("%w: the name of a field holds a byte that no name may hold", message.ErrSyntax)
	}
	if !message.ValidValue(f.Value) {
		return &message.FieldError{Err: message.ErrSyntax, Name: f.Name, Why: "its value holds a byte that no value may hold, or begins or ends with a blank"}
	}
	switch f.Name {
	case "connection", "keep-alive", "proxy-connection", "transfer-encoding", "upgrade":
		return &message.FieldError{Err: message.ErrSyntax, Name: f.Name, Why: "HTTP/2 has no such field", Cure: "the client must leave it out"}
	case "te":
		if f.Value != "trailers" {
			return &message.FieldError{Err: message.ErrSyntax, Name: f.Name, Why: "HTTP/2 allows only the value trailers"}
		}
	}
	return nil
}

// parseLength reads 1*DIGIT.
func parseLength(v string) (int64, bool) {
	if v == "" || len(v) > 18 {
		return 0, false
	}
	for i := 0; i < len(v); i++ {
		if v[i] < '0' || v[i] > '9' {
			return 0, false
		}
	}
	n, err := strconv.ParseInt(v, 10, 64)
	return n, err == nil
}

// takeTrailers reads the trailer block; mu is held. With bad trailers the content is bad too: its reader
// gets an error instead of the end, so that the client gets an answer (RFC 9113, section 8.1.1).
func (s *stream) takeTrailers(end bool) error {
	b := s.c.blocks
	switch {
	case s.inEnded:
		return spoilt(s.id, streamClosed, "HEADERS after END_STREAM")
	case !end:
		return malformed(s.id, "HEADERS within the content")
	case s.head.Upgrade != "":
		return malformed(s.id, "HEADERS in a tunnel")
	}
	if b.excess != nil {
		s.inFault = errTrailers
	}
	for i := range b.fields {
		if checkField(&b.fields[i]) != nil {
			s.inFault, s.ruin = malformed(s.id, "bad trailer"), protocolError
		}
	}
	if !s.discards && s.inFault == nil {
		s.trailed = len(b.fields)
		s.trailers = append(message.Fields(nil), b.fields...) // the block reader reuses its fields
	}
	return s.endInput()
}

var errTrailers = errors.New("trailers are too large")
