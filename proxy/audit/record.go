package audit

import (
	"net/netip"
	"strconv"
	"time"
	"unicode"
	"unicode/utf8"
)

// Record is what the audit log says of one request. The zero value of a field means that
// it was not reached or does not apply, and is left out of the line where that
// shortens it. It never holds a token, a body or a header's value.
type Record struct {
	Time      time.Time  // when the head had been read
	RequestID string     // ours, as the client was told it
	Client    netip.Addr // the client, behind trusted proxies where there are any
	Protocol  string     // "HTTP/1.1", "HTTP/2"
	Host      string
	Method    string
	Path      string // canonical, without the query: queries carry secrets
	Route     string // the route's name, "" where none matched
	Upstream  string // the endpoint that answered or was tried last

	Principal  string // qualified, such as "issuer/corp:alice"
	Credential string // its kind, such as "bearer"
	KeyID      string // the key that the credential was checked with

	Model string // that the request asks for, where the dialect reads it

	Signed string // where the answer's signature stands, such as "header"; "" for none

	Reason string // why it was refused, "" where it was forwarded and answered
	Cause  string // the same in words, for the operator only
	Status int    // of the final answer, 0 where none was sent; of a refused gRPC call what others get
	GRPC   string // the status of a gRPC call, as a number; "" where it has none

	BytesIn  int64 // content received from the client
	BytesOut int64 // content sent to the client

	Duration         time.Duration // from the head to the end of the answer
	UpstreamDuration time.Duration // of that, waiting for the upstream
	Own              time.Duration // of that, spent by ourselves

	// Reserved says that [Log.Reserve] took a place for this record, which
	// [Log.Write] gives back.
	Reserved bool
}

// Longest forms of a string in a line, in bytes as written. What is longer is
// cut and ends with an ellipsis, so that no client decides how much disk a
// request costs.
const (
	maxPath   = 1024
	maxString = 256
	// maxLine follows: two long strings, thirteen others, and 430 bytes of our own.
	maxLine = 2*maxPath + 13*maxString + 430
)

const hexDigits = "0123456789abcdef"

// appendLine appends the record as one line of JSON with its newline.
func (r *Record) appendLine(b []byte, s *stamp) []byte {
	b = append(b, `{"time":"`...)
	b = s.append(b, r.Time)
	b = append(b, '"')
	b = appendField(b, `,"id":"`, r.RequestID, maxString)
	if r.Client.IsValid() {
		b = append(b, `,"client":"`...)
		// A zone is the client's words only where it is link-local; it may hold
		// anything that names an interface, and nobody needs it.
		b = r.Client.WithZone("").AppendTo(b)
		b = append(b, '"')
	}
	b = appendField(b, `,"protocol":"`, r.Protocol, maxString)
	b = appendField(b, `,"host":"`, r.Host, maxString)
	b = appendField(b, `,"method":"`, r.Method, maxString)
	b = appendField(b, `,"path":"`, r.Path, maxPath)
	b = appendField(b, `,"route":"`, r.Route, maxString)
	b = appendField(b, `,"upstream":"`, r.Upstream, maxString)
	b = appendField(b, `,"principal":"`, r.Principal, maxString)
	b = appendField(b, `,"credential":"`, r.Credential, maxString)
	b = appendField(b, `,"key_id":"`, r.KeyID, maxString)
	b = appendField(b, `,"model":"`, r.Model, maxString)
	b = appendField(b, `,"signed":"`, r.Signed, maxString)
	b = appendField(b, `,"reason":"`, r.Reason, maxString)
	b = appendField(b, `,"cause":"`, r.Cause, maxPath)
	b = appendNumber(b, `,"status":`, int64(r.Status))
	b = appendField(b, `,"grpc_status":"`, r.GRPC, maxString)
	b = appendNumber(b, `,"bytes_in":`, r.BytesIn)
	b = appendNumber(b, `,"bytes_out":`, r.BytesOut)
	b = appendNumber(b, `,"duration_us":`, r.Duration.Microseconds())
	b = appendNumber(b, `,"upstream_us":`, r.UpstreamDuration.Microseconds())
	b = appendNumber(b, `,"own_us":`, r.Own.Microseconds())
	return append(b, '}', '\n')
}

// stamp writes times, and makes what they share with the last one only once. The zero
// stamp is ready for use.
type stamp struct {
	second int64 // since 1970, of text
	text   [len("2006-01-02T15:04:05.")]byte
}

// append appends RFC 3339 in UTC with microseconds, always 27 bytes, so that lines sort
// as text.
func (s *stamp) append(b []byte, t time.Time) []byte {
	if second := t.Unix(); second != s.second || s.text[0] == 0 {
		s.second = second
		t.UTC().AppendFormat(s.text[:0], "2006-01-02T15:04:05.")
	}
	b = append(b, s.text[:]...)
	micros := t.Nanosecond() / 1000
	for unit := 100_000; unit > 0; unit /= 10 {
		b = append(b, byte('0'+micros/unit%10))
	}
	return append(b, 'Z')
}

// appendNumber appends a number behind its name, which is written out.
func appendNumber(b []byte, name string, n int64) []byte {
	return strconv.AppendInt(append(b, name...), n, 10)
}

// appendField appends a value of anybody's behind its name, which is written out;
// nothing if the value is empty.
func appendField(b []byte, name, value string, limit int) []byte {
	if value == "" {
		return b
	}
	return append(appendString(append(b, name...), value, limit), '"')
}

// plain says whether s stands in a JSON string as it is.
func plain(s string) bool {
	for i := 0; i < len(s); i++ {
		if c := s[i]; c < ' ' || c >= 0x7f || c == '"' || c == '\\' {
			return false
		}
	}
	return true
}

// appendString appends s as the inside of a JSON string of at most limit bytes.
// Whatever is not printable is escaped, so that a line stays one line and shows
// in a terminal what it holds: control characters, and the marks that turn the
// direction of writing.
func appendString(b []byte, s string, limit int) []byte {
	if len(s) <= limit && plain(s) {
		return append(b, s...)
	}
	end := len(b) + limit
	cut := len(b) // the last place where an ellipsis still fits
	for i := 0; i < len(s); {
		c := s[i]
		if c < utf8.RuneSelf {
			i++
			switch {
			case c == '"' || c == '\\':
				b = append(b, '\\', c)
			case c < ' ' || c == 0x7f:
				b = appendEscape(b, rune(c))
			default:
				b = append(b, c)
			}
		} else {
			r, size := utf8.DecodeRuneInString(s[i:])
			i += size
			switch {
			case r == utf8.RuneError && size == 1:
				b = append(b, `\ufffd`...)
			case !unicode.IsPrint(r):
				b = appendEscape(b, r)
			default:
				b = utf8.AppendRune(b, r)
			}
		}
		if len(b) > end {
			return append(b[:cut], "…"...)
		}
		if len(b) <= end-len("…") {
			cut = len(b)
		}
	}
	return b
}

// appendEscape appends r as JSON escapes: one, or a surrogate pair.
func appendEscape(b []byte, r rune) []byte {
	if r > 0xffff {
		r -= 0x10000
		b = appendEscape(b, 0xd800+r>>10)
		r = 0xdc00 + r&0x3ff
	}
	return append(b, '\\', 'u', hexDigits[r>>12&15], hexDigits[r>>8&15], hexDigits[r>>4&15], hexDigits[r&15])
}
