package message

import (
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
)

// Faults of a request head. A faulty request is refused, with a status for each fault, usually
// 400.
var (
	// Found by an engine, see [Head] Fault.
	ErrSyntax        = errors.New("head breaks the grammar")
	ErrFraming       = errors.New("the end of the content is announced badly, or twice")
	ErrUnknownCoding = errors.New("transfer coding is not chunked alone")
	ErrTargetTooLong = errors.New("request target is too long")
	ErrHeadTooLarge  = errors.New("head is too large")
	ErrHeadTimeout   = errors.New("head did not arrive in time")

	ErrBadVersion   = errors.New("version is neither 1.0, 1.1 nor 2")
	ErrBadMethod    = errors.New("method is not served")
	ErrBadTarget    = errors.New("bad request target")
	ErrBadField     = errors.New("bad field")
	ErrDuplicate    = errors.New("duplicate of a field that may occur once")
	ErrLength       = errors.New("Content-Length is not the length of the content")
	ErrConnection   = errors.New("an end-to-end field is named by Connection")
	ErrExpectation  = errors.New("expectation is not 100-continue")
	ErrTooManyLines = errors.New("too many fields")
)

// MaxFields is the default maximum number of field lines in a head. mostFields is the limit for
// any configuration. All lines of cookies count as one over HTTP/2, whose clients may send each cookie in a
// line of its own (RFC 9113, section 8.2.3); the engine bounds their bytes.
const MaxFields = 128

const mostFields = 1000

// Settle computes the canonical reading of a head filled by an engine. It checks the method,
// target and fields, computes Path, Forms, Query, Authority and Host, and removes hop-by-hop fields.
//
// The engine sets Version, Method, Scheme, Authority (as sent), Target, ContentLength, and Fields
// (as sent, with names in lower case). Fields has no Host, except for an HTTP/2 host field beside
// :authority. Settle sets Upgrade, Trailers and Expect from the fields. For an extended CONNECT
// (HTTP/2), the engine sets Upgrade and the method GET.
//
// The error is one of this package's, for the audit record. On any error the request is refused
// and its connection closed.
func (h *Head) Settle() error {
	if h.Fault != nil {
		return h.Fault
	}
	switch h.Version {
	case HTTP10, HTTP11, HTTP2:
	default:
		return ErrBadVersion
	}
	if !ValidName(h.Method) {
		return fmt.Errorf("%w: there is no method", ErrBadTarget)
	}
	if !ServedMethod(h.Method) {
		return fmt.Errorf("%w: %q", ErrBadMethod, h.Method[:min(len(h.Method), 24)])
	}
	if err := h.settleTarget(); err != nil {
		return err
	}
	authority, host, err := CanonicalAuthority(h.Authority, h.Scheme)
	if err != nil {
		return badAuthority(h.Authority)
	}
	h.Authority, h.Host = authority, host
	return h.settleFields()
}

// ServedMethod reports whether requests with this method are accepted. CONNECT asks for a tunnel
// to anywhere. TRACE and similar methods would show the client the request that the gateway sends
// upstream. PRI starts the HTTP/2 preface (RFC 9113, section 3.4).
//
// Other methods must be spelled like registered ones: 3 to 20 capital letters, "-" or "_". nginx
// and gunicorn refuse others, and Werkzeug turns "delete" into DELETE.
func ServedMethod(method string) bool {
	if len(method) < 3 || len(method) > 20 {
		return false
	}
	for i := 0; i < len(method); i++ {
		if c := method[i]; (c < 'A' || c > 'Z') && c != '-' && c != '_' {
			return false
		}
	}
	for _, m := range [...]string{"CONNECT", "TRACE", "TRACK", "DEBUG", "PRI"} {
		if method == m {
			return false
		}
	}
	return true
}

func (h *Head) settleTarget() error {
	if h.Target == "" || h.Target[0] != '/' {
		if err := h.settleAbsolute(); err != nil {
			return err
		}
	}
	path := h.Target
	var err error
	if i := strings.IndexByte(path, '?'); i >= 0 {
		h.HasQuery = true
		if h.Query, err = CanonicalQuery(path[i+1:]); err != nil {
			var fault *TargetError
			if errors.As(err, &fault) {
				fault.At += i + 1
			}
			return err
		}
		path = path[:i]
	}
	h.Path, h.Forms, err = CanonicalPath(path)
	return err
}

// settleAbsolute brings a target in absolute form into origin form (RFC 9112, section
// 3.2.2). It must name the scheme of the connection and the authority of Host: one that
// names another asks for a proxy. HTTP/1.0 may leave Host out, HTTP/2 has no such form.
func (h *Head) settleAbsolute() error {
	scheme, rest, absolute := strings.Cut(h.Target, "://")
	if !absolute || h.Version == HTTP2 || !EqualFold(scheme, h.Scheme) {
		return fmt.Errorf("%w: neither a path nor an absolute URL of this connection's scheme", ErrBadTarget)
	}
	end := strings.IndexAny(rest, "/?")
	if end < 0 {
		end = len(rest)
	}
	named, _, err := CanonicalAuthority(rest[:end], h.Scheme)
	if err != nil {
		return fmt.Errorf("%w: an absolute URL without a valid host", ErrBadTarget)
	}
	if h.Authority == "" && h.Version == HTTP10 {
		h.Authority = named
	}
	if host, _, err := CanonicalAuthority(h.Authority, h.Scheme); err != nil {
		return badAuthority(h.Authority)
	} else if host != named {
		return fmt.Errorf("%w: it names another host than the field Host", ErrBadTarget)
	}
	switch target := rest[end:]; {
	case target != "" && target[0] == '/':
		h.Target = target
	case h.Method == "OPTIONS":
		return fmt.Errorf("%w: OPTIONS of the whole server", ErrBadTarget) // it means "*" (section 3.2.4)
	default:
		h.Target = "/" + target
	}
	return nil
}

func (h *Head) settleFields() error {
	if n := len(h.Fields); n > mostFields && n-max(h.Fields.Count("cookie")-1, 0) > mostFields {
		return fmt.Errorf("%w: over %d", ErrTooManyLines, mostFields)
	}
	cookies, seen, twice := 0, uint32(0), ""
	te, connection := false, false
	for i := range h.Fields {
		f := &h.Fields[i]
		if !ValidName(f.Name) || !ValidValue(f.Value) {
			return badField(f)
		}
		if bit := single(f.Name); bit != 0 {
			if seen&bit != 0 {
				twice = f.Name
			}
			seen |= bit
		}
		switch f.Name {
		case "content-length":
			if !isLength(f.Value, h.ContentLength) {
				return &FieldError{Err: ErrLength, Name: f.Name}
			}
		case "host": // beside :authority, of which it must be a copy
			if a, _, err := CanonicalAuthority(f.Value, h.Scheme); err != nil || a != h.Authority {
				return &FieldError{Err: ErrBadAuthority, Name: f.Name, Why: "it differs from :authority"}
			}
		case "cookie":
			cookies++
		case "te":
			te = true
		case "connection":
			connection = true
			if at := endToEnd(f.Value); at >= 0 {
				return &FieldError{Err: ErrConnection, Name: f.Name, Why: "the option at byte " + strconv.Itoa(at) + " of its value names a field that the next proxy would have to remove", Cure: "the client must leave it out"}
			}
		case "expect":
			if h.Expect = EqualFold(f.Value, "100-continue"); !h.Expect {
				return &FieldError{Err: ErrExpectation, Name: f.Name, Cure: "the client must leave it out"}
			}
		}
	}
	if twice != "" {
		return &FieldError{Err: ErrDuplicate, Name: twice, Why: "two readers would pick different lines", Cure: "the client must send one"}
	}
	if connection && h.Version == HTTP11 && h.Fields.HasToken("connection", "upgrade") {
		h.Upgrade = lower(h.Fields.Get("upgrade"))
	}
	h.VainUpgrade = seen&upgradeBit != 0 && h.Upgrade == ""
	h.Trailers = te && h.Fields.HasToken("te", "trailers")
	if cookies > 1 && !h.joinCookies() {
		return &FieldError{Err: ErrBadField, Name: "cookie", Why: "one of several lines is empty"}
	}
	h.Fields.DelFunc(func(f Field) bool { return OfConnection(f.Name) })
	return nil
}

// upgradeBit is the bit of [single] for Upgrade.
const upgradeBit = 1 << 12

// single returns a bit for each field that must not occur twice, because readers would pick
// different lines; 0 for all others.
func single(name string) (bit uint32) {
	switch name {
	case "authorization":
		return 1 << 0
	case "host":
		return 1 << 1
	case "content-length":
		return 1 << 2
	case "content-type":
		return 1 << 3
	case "content-encoding":
		return 1 << 4
	case "content-digest":
		return 1 << 5
	case "signature":
		return 1 << 6
	case "signature-input":
		return 1 << 7
	case "dpop":
		return 1 << 8
	case "x-api-key":
		return 1 << 9
	case "api-key":
		return 1 << 17
	case "range":
		return 1 << 10
	case "expect":
		return 1 << 11
	case "upgrade":
		return upgradeBit
	case "from":
		return 1 << 13
	case "user-agent":
		return 1 << 14
	case "if-modified-since":
		return 1 << 15
	case "if-unmodified-since":
		return 1 << 16
	}
	return 0
}

// isLength reports whether the value of Content-Length is n. An HTTP/2 engine may count frames
// only, but a later reader may use the field.
func isLength(value string, n int64) bool {
	if value == "" || len(value) > 18 || strings.Trim(value, "0123456789") != "" {
		return false
	}
	said, err := strconv.ParseInt(value, 10, 64)
	return err == nil && said == n
}

// OfConnection reports whether a field, named in lower case, is hop-by-hop (RFC 9110, section
// 7.6.1) or for framing, which the engine has processed. Such fields are never forwarded.
func OfConnection(name string) bool {
	switch name {
	case "connection", "keep-alive", "proxy-connection", "proxy-authorization", "proxy-authenticate", "te", "trailer",
		"transfer-encoding", "upgrade", "http2-settings", "content-length", "host", "expect":
		return true
	}
	return false
}

// endToEnd returns where the first option of a Connection value is that names an end-to-end field;
// -1 for none. Attackers send "Connection: X-Auth-User" to make a proxy remove identity fields.
func endToEnd(v string) int {
	for at := 0; at < len(v); {
		option, _, _ := strings.Cut(v[at:], ",")
		blanks := len(option) - len(strings.TrimLeft(option, " \t"))
		t := lower(strings.Trim(option, " \t"))
		if t != "" && t != "close" && !OfConnection(t) {
			return at + blanks
		}
		at += len(option) + 1
	}
	return -1
}

// FieldError says which field of a head is refused, and why. It repeats no value: those
// of any field may be secrets.
type FieldError struct {
	Err  error // what kind of fault it is
	Name string
	Why  string // what is wrong with it; "" where Err says all
	Cure string // what would do; "" for nothing
}

// shownField is the longest name of a field in an error, in bytes. Clients choose the names.
const shownField = 64

// Error names the field, what is wrong with it and what would do.
func (e *FieldError) Error() string {
	s := e.Err.Error() + ": " + e.Name[:min(len(e.Name), shownField)]
	if len(e.Name) > shownField {
		s += "…"
	}
	if e.Why != "" {
		s += ": " + e.Why
	}
	if e.Cure != "" {
		s += "; " + e.Cure
	}
	return s
}

// Unwrap returns Err.
func (e *FieldError) Unwrap() error { return e.Err }

// badField names the first byte of a field that no field may hold, and its place.
func badField(f *Field) error {
	for i := 0; i < len(f.Name); i++ {
		if !tokenByte[f.Name[i]] {
			return &FieldError{Err: ErrBadField, Name: "a field", Why: "byte " + byteName(f.Name[i]) + " at " + strconv.Itoa(i) + " of its name"}
		}
	}
	for i := 0; i < len(f.Value); i++ {
		if holdsControl(f.Value[i : i+1]) {
			return &FieldError{Err: ErrBadField, Name: f.Name, Why: "byte " + byteName(f.Value[i]) + " at " + strconv.Itoa(i) + " of its value"}
		}
	}
	return &FieldError{Err: ErrBadField, Name: "a field", Why: "no name, or blanks around its value"}
}

// badAuthority names the first byte of a Host that none may hold, and its place.
func badAuthority(raw string) error {
	e := &FieldError{Err: ErrBadAuthority, Name: "host", Why: "not a name or address with an optional port"}
	if raw == "" {
		e.Why = "there is none"
	}
	for i := 0; i < len(raw); i++ {
		if c := raw[i]; !segmentByte[c] && c != '[' && c != ']' || c == '@' {
			e.Why = "byte " + byteName(c) + " at " + strconv.Itoa(i) + " of its value"
			break
		}
	}
	return e
}

// byteName is a byte in hexadecimal, such as 0x0a.
func byteName(c byte) string {
	const hex = "0123456789abcdef"
	return "0x" + string([]byte{hex[c>>4], hex[c&15]})
}

// joinCookies joins the cookie lines, as RFC 9113, section 8.2.3 requires before a request
// leaves HTTP/2. It fails if one is empty, because readers parse the result differently.
func (h *Head) joinCookies() (ok bool) {
	var all []string
	for i := range h.Fields {
		if h.Fields[i].Name == "cookie" {
			all = append(all, h.Fields[i].Value)
		}
	}
	h.Fields.Set("cookie", strings.Join(all, "; "))
	return !slices.Contains(all, "")
}
