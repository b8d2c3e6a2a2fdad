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

// lingering is how long the rest of a refused request may take to arrive before
// the connection closes: long enough that a client reads the answer before it
// sees a reset, too short to be worth holding.
const lingering = time.Second

// soon is the length in bytes up to which content is read before anything depends
// on the stream's context.
const soon = 64 << 10

// stream is a request of net/http with its answer, as the pipeline sees them.
type stream struct {
	w    http.ResponseWriter
	r    *http.Request
	rc   *http.ResponseController
	head message.Head
	conn wire.Conn
	body body

	life   wire.Life
	readBy atomic.Int64 // the deadline for reading, in nanoseconds of Unix time; 0: none

	closing            bool // CloseAfter was called
	finished, upgraded bool
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

// ends waits for the end of a request over HTTP/2 that has announced no content, and
// says whether it came. net/http calls the handler before it knows: content that
// follows would come when the request has long been forwarded without any.
func (s *stream) ends() bool {
	_ = s.rc.SetReadDeadline(time.Now().Add(lingering))
	n, err := s.r.Body.Read(make([]byte, 1))
	_ = s.rc.SetReadDeadline(time.Time{})
	return n == 0 && err == io.EOF
}

// follow ends the stream's life with the request's context, but, with outlive, not when
// a deadline for reading passes. Over HTTP/1.1 net/http takes that for the client's
// departure, and the client, which is there, would get no answer. The function that it
// returns ends the life.
func (s *stream) follow(outlive bool) (end func()) {
	stop := context.AfterFunc(s.r.Context(), func() {
		if by := s.readBy.Load(); !outlive || by == 0 || time.Now().UnixNano() < by {
			s.life.End(nil)
		}
	})
	return func() { stop(); s.life.End(nil) }
}

// version is that of the request. What claims to be HTTP/2 on a connection that
// is not ("PRI * HTTP/2.0") has none.
func version(r *http.Request) message.Version {
	if r.ProtoMajor == 2 && (r.TLS == nil || r.TLS.NegotiatedProtocol != "h2") {
		return 0
	}
	return message.Version(r.ProtoMajor*10 + r.ProtoMinor)
}

// readHead fills the head as the client sent it; [message.Head.Settle] makes sense of it.
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
	// A map has no order; a stable one keeps equal requests equal upstream.
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
	if m.ContentLength >= 0 {
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

func (s *stream) Write(p []byte) (int, error) { return s.w.Write(p) }
func (s *stream) Flush() error                { return s.rc.Flush() }

func (s *stream) Finish(trailers message.Fields) error {
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

// bufferedConn reads what the server had read ahead first.
type bufferedConn struct {
	net.Conn
	r *bufio.Reader
}

func (c *bufferedConn) Read(p []byte) (int, error) {
	if n := c.r.Buffered(); n > 0 {
		return c.r.Read(p[:min(n, len(p))])
	}
	// Not through the reader: net/http takes its errors, a deadline's too, for the
	// client's departure.
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
					return n, errBadTrailer // net/http looks at those of the head only
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
