package wire

import (
	"errors"
	"fmt"
	"io"
	"strings"
	"time"

	"sallyport/proxy/message"
)

// Request is one request to a server, over either version of HTTP. It must not be
// changed until the response is closed or the exchange has failed.
type Request struct {
	Method string
	Target string // in origin form
	Host   string
	// Fields are written as they are. Names must be in lower case; fields that belong
	// to the connection or to framing are refused.
	Fields message.Fields

	// Content is the whole content if it is in memory. It is sent with the head in one write.
	// Exchange does not use it after it has returned.
	Content []byte
	// Body is content that is read while it is sent; Content must then be empty.
	Body message.Body
	// Length is the length of Body in bytes; -1 if unknown.
	Length int64
	// Interrupt makes a pending Read of Body return soon; nil if that is impossible. It is called
	// repeatedly until Read has returned.
	Interrupt func()
	// Trailers chooses which trailers of Body are sent; nil sends none. A field that may never be a
	// trailer, or that Fields already contains, is always dropped.
	Trailers func(message.Fields) message.Fields

	// Upgrade is the protocol to switch to, in lower case; "" for none. Only HTTP/1.1 supports it.
	Upgrade string
	// Inform receives interim responses other than 100 and 101; nil ignores them. If it returns an
	// error, the exchange fails.
	Inform func(*message.Response) error

	Head  time.Duration // bounds the wait for the final head once the request is sent; 0: no bound
	Idle  time.Duration // bounds each write, and each wait for content; 0: no bound
	Pause time.Duration // bounds each wait for content in place of Idle; 0: Idle applies
	Limit time.Time     // bounds the whole exchange; zero: no bound
}

var (
	// ErrBadHead refuses a method, target or Host that different parsers could read differently.
	ErrBadHead = errors.New("method, target or Host is ambiguous")
	// ErrBadLength refuses a Length below -1, or one without a Body.
	ErrBadLength = errors.New("length without content, or below -1")
	// ErrHalfBody means that Body was shorter or longer than its Length.
	ErrHalfBody = errors.New("request body is not as long as announced")
)

// Check refuses a request whose method, target or Host is ambiguous, or whose Length contradicts
// Body. It does not check the fields.
func (r *Request) Check() error {
	switch {
	case r.Length < -1 || r.Body == nil && r.Length != 0:
		return ErrBadLength
	case !message.ValidName(r.Method) || r.Method == "CONNECT" || !validTarget(r.Target) || !validHost(r.Host):
		return ErrBadHead
	}
	return nil
}

// Streams reports whether content is read from Body while it is sent.
func (r *Request) Streams() bool { return r.Body != nil && r.Length != 0 }

// ReadEnd is called once Length bytes of Body have been read. It returns io.EOF if Body ends there,
// and [ErrHalfBody] if more follows. spare must have room for a byte.
func (r *Request) ReadEnd(spare []byte) error {
	for range 100 {
		n, err := r.Body.Read(spare[:1])
		if n > 0 {
			return ErrHalfBody
		}
		if err != nil {
			return err
		}
	}
	return io.ErrNoProgress
}

// BodyError wraps an error in reading a request's body in an [*Error].
func BodyError(err error) *Error {
	var own *Error
	if errors.As(err, &own) {
		return own
	}
	return &Error{FaultBody, fmt.Errorf("reading request body: %w", err)}
}

// validTarget reports whether s is in origin form. A leading "//" is refused because libevent takes
// what follows for an authority.
func validTarget(s string) bool {
	if s == "" || s[0] != '/' || strings.HasPrefix(s, "//") {
		return false
	}
	for i := 0; i < len(s); i++ {
		if s[i] <= ' ' || s[i] >= 0x7f || s[i] == '#' {
			return false
		}
	}
	return true
}

func validHost(s string) bool {
	for i := 0; i < len(s); i++ {
		switch c := s[i]; {
		case 'a' <= c && c <= 'z', 'A' <= c && c <= 'Z', '0' <= c && c <= '9':
		case c == '.', c == '-', c == '_', c == ':', c == '[', c == ']':
		default:
			return false
		}
	}
	return s != ""
}
