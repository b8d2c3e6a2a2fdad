package message

import (
	"strings"
	"unicode/utf8"
)

// Forms is a set of spellings in a path that servers interpret differently. In a canonical path they
// are data: none of them separates segments.
type Forms uint8

const (
	EncodedSlash    Forms = 1 << iota // %2F, which some servers take for a slash
	EncodedPercent                    // %25, which a second decoding turns into the start of another escape
	EncodedQuestion                   // %3F, where some servers begin the query
	EncodedHash                       // %23, where some servers end the path
	Semicolon                         // ";" or %3B, after which some servers read parameters
	DoubleSlash                       // an empty segment, which some servers drop
)

// formOf returns the form of an escaped byte; 0 if all servers read the escape alike.
func formOf(c byte) Forms {
	switch c {
	case '/':
		return EncodedSlash
	case '%':
		return EncodedPercent
	case '?':
		return EncodedQuestion
	case '#':
		return EncodedHash
	case ';':
		return Semicolon
	}
	return 0
}

// CanonicalPath returns the canonical form of an absolute path, which is matched, authorized and
// forwarded. Escapes of characters that are allowed in a segment are decoded. All other escapes get
// upper-case digits (RFC 3986, section 6.2.2). Decoding ":" matters: "m%3Apredict" is a model's name
// to one server and the action "predict" to another. Characters such as "[" or "|", which clients
// send raw although they must not, are escaped, because all servers read them alike.
//
// Spellings that servers interpret differently stay byte for byte and are reported in forms. The
// caller may accept such a path only if it knows how the server reads them.
//
// It refuses a path with a [*TargetError] that wraps [ErrAmbiguousPath] if the path is not absolute
// or contains one of these:
//
//   - a dot segment or an escaped dot;
//   - a raw or escaped backslash, or a raw "#" or "?";
//   - a control, an invalid escape, invalid UTF-8, or a byte that no client may send.
//
// It allocates only if the form changes.
func CanonicalPath(raw string) (path string, forms Forms, err error) {
	if raw == "" || raw[0] != '/' {
		return "", 0, ambiguous(raw, 0, 1, "a path begins with a slash")
	}
	plain, segment := true, 1 // segment: where the current one starts
	high := false
	for i := 1; i < len(raw); i++ {
		switch c := raw[i]; {
		case segmentByte[c]:
		case c == '/':
			if i == segment {
				forms |= DoubleSlash
			} else if dotted(raw[segment:i]) {
				return "", 0, ambiguous(raw, segment, i-segment, "a dot segment")
			}
			segment = i + 1
		case c == '%':
			b, ok := unescape(raw, i)
			if !ok {
				return "", 0, ambiguous(raw, i, 3, "not an escape")
			}
			if form := formOf(b); form != 0 {
				forms |= form
			} else {
				if !escapable(b) {
					return "", 0, ambiguous(raw, i, 3, "an escape that servers read in different ways")
				}
				high = high || b >= utf8.RuneSelf
				if segmentByte[b] || lowerHex(raw[i+1]) || lowerHex(raw[i+2]) {
					plain = false
				}
			}
			i += 2
		case c == ';':
			forms |= Semicolon
		case rawByte[c]:
			plain = false
		default:
			return "", 0, ambiguous(raw, i, 1, "a byte that is not allowed in a path")
		}
	}
	if dotted(raw[segment:]) {
		return "", 0, ambiguous(raw, segment, len(raw)-segment, "a dot segment")
	}
	if high && !utf8.ValidString(unescapeAll(raw)) {
		return "", 0, ambiguous(raw, strings.IndexByte(raw, '%'), 3, "escapes that are not UTF-8")
	}
	if plain {
		return raw, forms, nil
	}
	return normalize(raw), forms, nil
}

// normalize rewrites the escapes of a path that CanonicalPath accepts, except those of [Forms].
func normalize(raw string) string {
	var b strings.Builder
	b.Grow(len(raw) + 16)
	for i := 0; i < len(raw); i++ {
		if raw[i] != '%' {
			writeByte(&b, raw[i], !rawByte[raw[i]])
			continue
		}
		if c, _ := unescape(raw, i); formOf(c) != 0 {
			b.WriteString(raw[i : i+3])
		} else {
			writeByte(&b, c, segmentByte[c])
		}
		i += 2
	}
	return b.String()
}

// writeByte writes c itself if plain, or else its escape.
func writeByte(b *strings.Builder, c byte, plain bool) {
	const hex = "0123456789ABCDEF"
	if plain {
		b.WriteByte(c)
		return
	}
	b.WriteByte('%')
	b.WriteByte(hex[c>>4])
	b.WriteByte(hex[c&15])
}

func unescapeAll(raw string) string {
	b := make([]byte, 0, len(raw))
	for i := 0; i < len(raw); i++ {
		c := raw[i]
		if c == '%' {
			if d, ok := unescape(raw, i); ok {
				c, i = d, i+2
			}
		}
		b = append(b, c)
	}
	return string(b)
}

// Unescape decodes the escapes of a canonical path, or a part of one, once, as a server does that
// takes the result for data.
func Unescape(part string) string {
	if strings.IndexByte(part, '%') < 0 {
		return part
	}
	return unescapeAll(part)
}

// unescape reads the escape at s[i].
func unescape(s string, i int) (byte, bool) {
	if i+2 >= len(s) {
		return 0, false
	}
	hi, lo := hexValue(s[i+1]), hexValue(s[i+2])
	return hi<<4 | lo&15, hi < 16 && lo < 16
}

func hexValue(c byte) byte {
	switch {
	case '0' <= c && c <= '9':
		return c - '0'
	case 'a' <= c && c <= 'f':
		return c - 'a' + 10
	case 'A' <= c && c <= 'F':
		return c - 'A' + 10
	}
	return 16
}

func lowerHex(c byte) bool { return 'a' <= c && c <= 'f' }

func dotted(segment string) bool { return segment == "." || segment == ".." }

// escapable reports whether all servers read the escape of a byte outside [Forms] alike.
func escapable(c byte) bool { return c >= ' ' && c != 0x7f && c != '.' && c != '\\' }

// segmentByte holds the bytes allowed in a segment: pchar of RFC 3986, section 3.3, without ";",
// where some servers cut paths.
var segmentByte = func() (t [256]bool) {
	for _, c := range "-._~!$&'()*+,=:@0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz" {
		t[c] = true
	}
	return t
}()

// rawByte holds the bytes that clients send raw although RFC 3986 requires an escape, and that all
// servers read alike.
var rawByte = func() (t [256]bool) {
	for _, c := range "[]|^{}\"`<>" {
		t[c] = true
	}
	return t
}()

// CanonicalQuery returns the form of a query, without its "?", that is forwarded. Bytes that clients
// send raw although they must not, such as "[" and "\", are escaped; all others stay as sent. It
// refuses controls, space, "#" and non-ASCII bytes with a [*TargetError] that wraps [ErrBadTarget],
// with offsets in q. It allocates only if the form changes.
func CanonicalQuery(q string) (string, error) {
	raw := 0
	for i := 0; i < len(q); i++ {
		c := q[i]
		if c <= ' ' || c >= 0x7f || c == '#' {
			return "", &TargetError{Err: ErrBadTarget, What: q[i : i+1], At: i, Why: "a byte that is not allowed in a query"}
		}
		if rawByte[c] || c == '\\' {
			raw++
		}
	}
	if raw == 0 {
		return q, nil
	}
	var b strings.Builder
	b.Grow(len(q) + 2*raw)
	for i := 0; i < len(q); i++ {
		writeByte(&b, q[i], !rawByte[q[i]] && q[i] != '\\')
	}
	return b.String(), nil
}
