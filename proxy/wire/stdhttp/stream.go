package stdhttp

import (
	"bufio"
	"context"
	"errors"
	"io"
	"net"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"sync/atomic"
	"time"

	"sallyport/proxy/message"
	"sallyport/proxy/wire"
)

// lingering is how long to read the rest of a refused request before closing. It must suffice for
// the client to read the answer before it sees a reset.
const lingering = time.Second

// soon is the content length in bytes up to which content is read before the stream's context is
// used.
const soon = 64 << 10

// stream adapts a net/http request and its answer to [wire.Stream].
type stream struct {
	w    http.ResponseWriter
	r    *http.Request
	rc   *http.ResponseController
	head message.Head
	conn wire.Conn
	body body

	life   wire.Life
	readBy atomic.Int64 // the read deadline, in Unix nanoseconds; 0: none

	closing            bool // CloseAfter was called
	finished, upgraded bool

	keepsEnd bool
	left     int64  // announced content still to come
	kept     []byte // the last byte until Finish, which leaves it in the buffer of net/http
}

func (s *stream) Head() *message.Head { return &s.head }
func (s *stream) Conn() *wire.Conn    { return &s.conn }
func (s *stream) Life() *wire.Life    { return &s.life }
func (s *stream) Body() message.Body  { return &s.body }

func (s *stream) SetReadDeadline(t time.Time) error {
	by := int64(0)
	if !t.IsZero() {
		by = t.UnixNano()
	}
	s.readBy.Store(by)
	return s.rc.SetReadDeadline(t)
}

func (s *stream) SetWriteDeadline(t time.Time) error { return s.rc.SetWriteDeadline(t) }

// ends waits for the end of an HTTP/2 request that announced no content, and reports whether it
// came. net/http calls the handler before it knows; content that followed would arrive after the
// request was forwarded without any.
func (s *stream) ends() bool {
	_ = s.rc.SetReadDeadline(time.Now().Add(lingering))
	n, err := s.r.Body.Read(make([]byte, 1))
	_ = s.rc.SetReadDeadline(time.Time{})
	return n == 0 && err == io.EOF
}

// follow ends the stream's life when the request's context ends. With outlive, a read deadline does
// not end it: over HTTP/1.1 net/http takes one for the client's departure, and a client that is
// still there would get no answer. Calling end ends the life.
func (s *stream) follow(outlive bool) (end func()) {
	stop := context.AfterFunc(s.r.Context(), func() {
		if by := s.readBy.Load(); !outlive || by == 0 || time.Now().UnixNano() < by {
			s.life.End(nil)
		}
	})
	return func() { stop(); s.life.End(nil) }
}

// version returns the request's version. It returns the zero Version for a request that claims
// HTTP/2 on an HTTP/1 connection ("PRI * HTTP/2.0").
func version(r *http.Request) message.Version {
	if r.ProtoMajor == 2 && (r.TLS == nil || r.TLS.NegotiatedProtocol != "h2") {
		return 0
	}
	return message.Version(r.ProtoMajor*10 + r.ProtoMinor)
}

// readHead fills the head as the client sent it; [message.Head.Settle] interprets it.
func (s *stream) readHead(scheme string) {
	r, h := s.r, &s.head
	h.Method, h.Target, h.Authority = r.Method, r.RequestURI, r.Host
	h.Version = version(r)
	h.Scheme = scheme
	if r.TLS != nil {
		h.Scheme = "https"
	}
	h.ContentLength = r.ContentLength
	h.Fields = make(message.Fields, 0, len(r.Header)+8) // room for what the gateway adds
	for name, values := range r.Header {
		lower := lowerName(name)
		for _, v := range values {
			h.Fields = append(h.Fields, message.Field{Name: lower, Value: v})
		}
	}
	if len(h.Fields) > message.MaxFields {
		h.Fault = message.ErrTooManyLines
	}
	// A map has no order; sorting keeps equal requests equal upstream.
	slices.SortStableFunc(h.Fields, func(a, b message.Field) int { return strings.Compare(a.Name, b.Name) })
}

func (s *stream) Inform(m *message.Response) error {
	if s.head.Version == message.HTTP10 {
		return nil
	}
	h := s.w.Header()
	setFields(h, m.Fields)
	s.w.WriteHeader(m.Status)
	clear(h)
	return nil
}

func (s *stream) Respond(m *message.Response, trailers bool) error {
	h := s.w.Header()
	setFields(h, m.Fields)
	if !m.Fields.Has("content-type") {
		h["Content-Type"] = nil // or net/http guesses one from the content
	}
	if s.left = m.ContentLength; m.ContentLength >= 0 {
		h["Content-Length"] = []string{strconv.FormatInt(m.ContentLength, 10)}
	}
	if s.closing && s.head.Version != message.HTTP2 {
		h["Connection"] = []string{"close"}
	}
	s.w.WriteHeader(m.Status)
	if trailers {
		return s.rc.Flush() // so that net/http chunks, which trailers need
	}
	return nil
}

func (s *stream) Write(p []byte) (int, error) {
	if s.keepsEnd && s.head.Method == http.MethodHead {
		return len(p), nil // net/http would send the head
	}
	if s.left -= int64(len(p)); s.left != 0 || !s.keepsEnd || len(p) == 0 {
		return s.w.Write(p)
	}
	last := len(p) - 1
	s.kept = []byte{p[last]}
	if n, err := s.w.Write(p[:last]); err != nil {
		return n, err
	}
	return len(p), nil
}

func (s *stream) Flush() error { return s.rc.Flush() }

func (s *stream) KeepEnd() { s.keepsEnd = true }
func (s *stream) Abort()   { s.finished = false }

func (s *stream) Finish(trailers message.Fields) error {
	if len(s.kept) > 0 {
		if _, err := s.w.Write(s.kept); err != nil {
			return err
		}
	}
	h := s.w.Header()
	for _, f := range trailers {
		key := http.TrailerPrefix + http.CanonicalHeaderKey(f.Name)
		h[key] = append(h[key], f.Value)
	}
	s.finished = true
	if s.closing {
		return s.rc.SetReadDeadline(time.Now().Add(lingering))
	}
	return nil
}

func (s *stream) CloseAfter() { s.closing = true }

func (s *stream) Upgrade(m *message.Response) (net.Conn, error) {
	c, rw, err := s.rc.Hijack()
	if err != nil {
		return nil, err
	}
	s.upgraded = true
	head := []byte("HTTP/1.1 101 Switching Protocols\r\n")
	for _, f := range m.Fields {
		head = append(append(append(append(head, f.Name...), ": "...), f.Value...), "\r\n"...)
	}
	head = append(head, "connection: Upgrade\r\nupgrade: "+s.head.Upgrade+"\r\n\r\n"...)
	_ = c.SetDeadline(time.Time{})
	if _, err := c.Write(head); err != nil {
		return nil, errors.Join(err, c.Close())
	}
	if rw.Reader.Buffered() == 0 {
		return c, nil
	}
	return &bufferedConn{c, rw.Reader}, nil
}

// bufferedConn first returns bytes that the server has read ahead.
type bufferedConn struct {
	net.Conn
	r *bufio.Reader
}

func (c *bufferedConn) Read(p []byte) (int, error) {
	if n := c.r.Buffered(); n > 0 {
		return c.r.Read(p[:min(n, len(p))])
	}
	// Bypass the reader: net/http takes its errors, even a deadline's, for the client's departure.
	return c.Conn.Read(p)
}

// body is the request's content.
type body struct {
	s        *stream
	src      io.Reader
	trailers message.Fields
}

func (b *body) Read(p []byte) (int, error) {
	n, err := b.src.Read(p)
	if err == io.EOF && b.trailers == nil {
		for name, values := range b.s.r.Trailer {
			for _, v := range values {
				if !message.ValidName(name) || !message.ValidValue(v) {
					return n, errBadTrailer // net/http checks only the fields of the head
				}
				b.trailers.Add(lowerName(name), v)
			}
		}
	}
	return n, err
}

var errBadTrailer = errors.New("bad trailer")

func (b *body) Trailers() message.Fields { return b.trailers }

func setFields(h http.Header, fields message.Fields) {
	for _, f := range fields {
		key := canonicalName(f.Name)
		h[key] = append(h[key], f.Value)
	}
}
