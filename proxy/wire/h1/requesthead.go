package h1

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"strconv"
	"strings"

	"sallyport/proxy/message"
	"sallyport/proxy/setting"
)

// maxRequestLine limits the request line, in bytes.
const maxRequestLine = 16 << 10

// readHead reads a head; nil means that the client left before its end. A malformed head has a
// Fault, which the handler reports to the client.
func (c *serverConn) readHead() *stream {
	s := &stream{c: c}
	s.body.s = s
	if nameByte[c.in.bytes()[0]] == 0 { // TLS on a plain port, or an empty line
		s.fault(fmt.Errorf("%w: a request cannot begin with byte 0x%02x", message.ErrSyntax, c.in.bytes()[0]))
		return s
	}
	block, err := c.in.block(c.options.HeadBytes, c.options.Fields, true)
	if err == nil {
		err = s.parse(&block)
	} else if line, _, ok := bytes.Cut(c.in.bytes(), []byte("\r\n")); ok && len(line) <= maxRequestLine {
		_ = s.parseRequestLine(string(line)) // for the audit record; the fault is in a later line
	}
	if err == nil {
		return s
	}
	var bad malformed
	switch {
	case err == tooLong && !c.hasLine():
		err = lineTooLong() // most likely the target, the longest part of the line
	case err == tooLong:
		s.tooLarge(fmt.Errorf("%w: over %s (limits.head_bytes)", message.ErrHeadTooLarge, setting.Size(c.options.HeadBytes)))
		return s
	case err == tooMany:
		s.tooLarge(fmt.Errorf("%w: over %d (limits.fields)", message.ErrTooManyLines, c.options.Fields))
		return s
	case errors.As(err, &bad):
		err = faultyLine(c.in.bytes())
	case errors.Is(err, os.ErrDeadlineExceeded):
		err = fmt.Errorf("%w: not within %s (limits.head_time)", message.ErrHeadTimeout, setting.Duration(c.options.HeadTime))
	case !knownFault(err):
		return nil
	}
	s.fault(err)
	return s
}

// tooLarge refuses a head of which a part was read. It keeps the host and what says who sees the refusal, of
// the lines that are whole.
func (s *stream) tooLarge(err error) {
	s.fault(err)
	b := s.c.in.bytes()
	_, rest, more := bytes.Cut(b[:min(len(b), s.c.options.HeadBytes)], []byte("\r\n"))
	var read message.Fields
	for n := 0; more && n < s.c.options.Fields; n++ {
		var line []byte
		if line, rest, more = bytes.Cut(rest, []byte("\r\n")); !more {
			break
		}
		name, value, _ := strings.Cut(string(line), ":")
		name, value = strings.ToLower(name), strings.Trim(value, " \t")
		switch {
		case !message.ValidName(name) || !message.ValidValue(value):
			return
		case name == "host" && s.head.Authority == "":
			s.head.Authority = value
		}
		read = append(read, message.Field{Name: name, Value: value})
	}
	s.head.Fields = read.Audience()
}

// faultyLine names the first byte of a head that no field line may have, and its place.
func faultyLine(head []byte) error {
	_, rest, more := bytes.Cut(head, []byte("\r\n"))
	for number := 2; more; number++ {
		var line []byte
		line, rest, more = bytes.Cut(rest, []byte("\r\n"))
		named := false
		for i, c := range line {
			switch {
			case c == ':' && i > 0 && !named:
				named = true
			case !named && nameByte[c] == 0, c < ' ' && c != '\t', c == 0x7f:
				return &message.FieldError{Err: message.ErrSyntax, Name: "line " + strconv.Itoa(number), Why: fmt.Sprintf("byte 0x%02x at %d", c, i)}
			}
		}
	}
	return fmt.Errorf("%w: a line is too long, or does not end in CRLF", message.ErrSyntax)
}

// hasLine reports whether the request line is complete within the head limit.
func (c *serverConn) hasLine() bool {
	b := c.in.bytes()
	return bytes.IndexByte(b[:min(len(b), c.options.HeadBytes)], '\n') >= 0
}

// lineTooLong returns the fault of a request line above maxRequestLine.
func lineTooLong() error {
	return fmt.Errorf("%w: over %s", message.ErrTargetTooLong, setting.Size(maxRequestLine))
}

// knownFault reports whether an error is one that parse returns.
func knownFault(err error) bool {
	for _, known := range [...]error{message.ErrSyntax, message.ErrFraming, message.ErrUnknownCoding, message.ErrBadVersion, message.ErrTargetTooLong, message.ErrDuplicate} {
		if errors.Is(err, known) {
			return true
		}
	}
	return false
}

// fault marks a request as refused. Nothing more is read from the connection.
func (s *stream) fault(err error) {
	if s.head.Version == 0 {
		s.head.Version = message.HTTP11 // the refusal is written in this version
	}
	s.head.Fault, s.closing = err, true
	s.head.ContentLength, s.head.Fields, s.expects = 0, nil, false
	s.body.mode, s.body.err = bodyNone, io.EOF
}

// parse reads a head whose field lines were checked by settleLine.
func (s *stream) parse(block *block) error {
	if block.lines == 0 {
		return noRequestLine()
	}
	text := string(block.bytes) // the one allocation for all text
	if err := s.parseRequestLine(text[:block.start]); err != nil {
		return err
	}
	h := &s.head
	h.Fields = block.fields(text, s.room[:0])
	said, kept := framing{length: -1}, 0
	for i := range h.Fields {
		f := &h.Fields[i]
		if f.Name == "host" {
			if said.host {
				return &message.FieldError{Err: message.ErrDuplicate, Name: f.Name, Why: "two readers would pick different lines", Cure: "the client must send one"}
			}
			said.host, h.Authority = true, f.Value
			continue
		}
		if err := said.read(f); err != nil {
			return err
		}
		h.Fields[kept] = *f
		kept++
	}
	clear(h.Fields[kept:])
	h.Fields = h.Fields[:kept]
	return s.frame(&said)
}

// parseRequestLine reads `METHOD SP target SP HTTP/d.d`. It checks the bytes of method and target,
// but not their meaning.
func (s *stream) parseRequestLine(line string) error {
	if len(line) > maxRequestLine {
		return lineTooLong()
	}
	method, rest, _ := strings.Cut(line, " ")
	target, version, ok := strings.Cut(rest, " ")
	if !ok || !message.ValidName(method) || target == "" {
		return noRequestLine()
	}
	for i := 0; i < len(target); i++ {
		if target[i] <= ' ' || target[i] >= 0x7f {
			return &message.TargetError{Err: message.ErrSyntax, What: target[i : i+1], At: i, Why: "a byte that no target may hold", Cure: "the client must send its escape"}
		}
	}
	h := &s.head
	h.Method, h.Target, h.Scheme = method, target, s.c.options.Scheme
	if s.c.about.TLS != nil {
		h.Scheme = "https"
	}
	switch {
	case version == "HTTP/1.1":
		h.Version = message.HTTP11
	case version == "HTTP/1.0":
		h.Version = message.HTTP10
	case len(version) == 8 && version[:5] == "HTTP/" && digit(version[5]) && version[6] == '.' && digit(version[7]):
		return fmt.Errorf("%w: %s", message.ErrBadVersion, version)
	default:
		return noRequestLine()
	}
	return nil
}

// noRequestLine returns the fault of a head without a valid request line.
func noRequestLine() error {
	return fmt.Errorf("%w: the request line is not METHOD target HTTP/1.1", message.ErrSyntax)
}

// badFraming returns the fault of a field that leaves the end of the content in doubt.
func badFraming(f *message.Field, why, cure string) error {
	return &message.FieldError{Err: message.ErrFraming, Name: f.Name, Why: why, Cure: cure}
}

func digit(c byte) bool { return '0' <= c && c <= '9' }

// framing holds what the fields say about the end of a request and of its connection.
type framing struct {
	host    bool
	length  int64 // -1: absent
	chunked bool
	close   bool
	expects bool
}

func (w *framing) read(f *message.Field) error {
	switch f.Name {
	case "content-length":
		n, ok := parseLength(f.Value)
		switch {
		case w.chunked:
			return badFraming(f, "there is Transfer-Encoding too", "the client must send one of the two")
		case !ok || w.length >= 0:
			return badFraming(f, "it is not a number, or there are two", "the client must send one")
		}
		w.length = n
	case "transfer-encoding":
		if w.length >= 0 {
			return badFraming(f, "there is Content-Length too", "the client must send one of the two")
		}
		if w.chunked || !message.EqualFold(f.Value, "chunked") {
			return &message.FieldError{Err: message.ErrUnknownCoding, Name: f.Name, Cure: "the client must send chunked, or Content-Length"}
		}
		w.chunked = true
	case "trailer":
		if inList(f.Value, "content-length") || inList(f.Value, "transfer-encoding") || inList(f.Value, "trailer") {
			return badFraming(f, "it names a field of framing", "")
		}
	case "connection":
		w.close = w.close || inList(f.Value, "close")
	case "expect":
		w.expects = message.EqualFold(f.Value, "100-continue")
	}
	return nil
}

// inList reports whether a comma-separated list holds a token, ignoring case.
func inList(list, token string) bool {
	for list != "" {
		var t string
		t, list, _ = strings.Cut(list, ",")
		if message.EqualFold(strings.Trim(t, " \t"), token) {
			return true
		}
	}
	return false
}

// frame determines where the content ends (RFC 9112, section 6.3).
func (s *stream) frame(w *framing) error {
	old := s.head.Version == message.HTTP10
	if w.chunked && old {
		return fmt.Errorf("%w: transfer-encoding in HTTP/1.0", message.ErrFraming)
	}
	b := &s.body
	switch {
	case w.chunked:
		b.mode, s.head.ContentLength = bodyChunked, -1
	case w.length > 0:
		b.mode, b.left, s.head.ContentLength = bodyLength, w.length, w.length
	default:
		b.err = io.EOF
	}
	s.expects = w.expects && !old && b.err == nil
	s.closing = w.close || old
	return nil
}
