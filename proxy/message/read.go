package message

import (
	"errors"
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
	ErrBadTarget    = errors.New("request target is not in origin form")
	ErrBadField     = errors.New("bad field")
	ErrDuplicate    = errors.New("duplicate of a field that may occur once")
	ErrLength       = errors.New("Content-Length is not the length of the content")
	ErrConnection   = errors.New("an end-to-end field is named by Connection")
	ErrExpectation  = errors.New("expectation is not 100-continue")
	ErrTooManyLines = errors.New("too many fields")
)

// MaxFields is the default maximum number of field lines in a head. mostFields is the limit for
// any configuration.
const MaxFields = 128

const mostFields = 1000

// Settle computes the canonical reading of a head filled by an engine. It checks the method,
// target and fields, computes Path, Query, Authority and Host, and removes hop-by-hop fields.
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
		return ErrBadTarget
	}
	if !ServedMethod(h.Method) {
		return ErrBadMethod
	}
	if err := h.settleTarget(); err != nil {
		return err
	}
	var err error
	if h.Authority, h.Host, err = CanonicalAuthority(h.Authority, h.Scheme); err != nil {
		return err
	}
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
		return ErrBadTarget
	}
	path := h.Target
	if i := strings.IndexByte(path, '?'); i >= 0 {
		path, h.Query, h.HasQuery = path[:i], path[i+1:], true
		if !ValidQuery(h.Query) {
			return ErrBadTarget
		}
	}
	var err error
	h.Path, err = CanonicalPath(path)
	return err
}

func (h *Head) settleFields() error {
	if len(h.Fields) > mostFields {
		return ErrTooManyLines
	}
	cookies, seen, twice := 0, uint32(0), false
	te, connection := false, false
	for i := range h.Fields {
		f := &h.Fields[i]
		if !ValidName(f.Name) || !ValidValue(f.Value) {
			return ErrBadField
		}
		if bit := single(f.Name); bit != 0 {
			twice = twice || seen&bit != 0
			seen |= bit
		}
		switch f.Name {
		case "content-length":
			if !isLength(f.Value, h.ContentLength) {
				return ErrLength
			}
		case "host": // beside :authority, of which it must be a copy
			if a, _, err := CanonicalAuthority(f.Value, h.Scheme); err != nil || a != h.Authority {
				return ErrBadAuthority
			}
		case "cookie":
			cookies++
		case "te":
			te = true
		case "connection":
			connection = true
			if !plainConnection(f.Value) {
				return ErrConnection
			}
		case "expect":
			if h.Expect = EqualFold(f.Value, "100-continue"); !h.Expect {
				return ErrExpectation
			}
		}
	}
	if twice {
		return ErrDuplicate
	}
	if connection && h.Version == HTTP11 && h.Fields.HasToken("connection", "upgrade") {
		h.Upgrade = lower(h.Fields.Get("upgrade"))
	}
	h.Trailers = te && h.Fields.HasToken("te", "trailers")
	if cookies > 1 && !h.joinCookies() {
		return ErrBadField
	}
	h.Fields.DelFunc(func(f Field) bool { return OfConnection(f.Name) })
	return nil
}

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
	case "range":
		return 1 << 10
	case "expect":
		return 1 << 11
	case "upgrade":
		return 1 << 12
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

// plainConnection reports whether a Connection value names no end-to-end field. Attackers send
// "Connection: X-Auth-User" to make a proxy remove identity fields.
func plainConnection(v string) bool {
	for rest := v; rest != ""; {
		var t string
		t, rest, _ = strings.Cut(rest, ",")
		t = lower(strings.Trim(t, " \t"))
		if t != "" && t != "close" && !OfConnection(t) {
			return false
		}
	}
	return true
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
