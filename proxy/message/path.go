package message

import (
	"strings"
	"unicode/utf8"
)

// Forms is a set of forms in a path that servers read in different ways. They are
// data in a canonical path: none of them separates segments there.
type Forms uint8

const (
	EncodedSlash    Forms = 1 << iota // %2F, which some servers take for a slash
	EncodedPercent                    // %25, behind which a second decoding finds another escape
	EncodedQuestion                   // %3F, at which some servers begin the query
	EncodedHash                       // %23, at which some servers end the path
	Semicolon                         // ";" or %3B, behind which some servers read parameters
	DoubleSlash                       // an empty segment, which some servers drop
)

// formOf is the form that the escape of a byte is; 0 for escapes with one reading.
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

// CanonicalPath returns the one form of an absolute path that is matched,
// decided on and forwarded: escapes of characters that may stand for themselves
// in a segment are decoded, all others are written with upper-case digits
// (RFC 3986, section 6.2.2). Decoding ":" and its like matters: "m%3Apredict" is
// a model's name to one server and a call of "predict" to another. Characters that
// clients send raw though they may not, such as "[" or "|", have one reading and are
// written as their escapes.
//
// What only some servers read in one way stays byte for byte and is named in forms:
// whoever takes such a path must know that the server does.
//
// A path is refused with a [*TargetError] that wraps [ErrAmbiguousPath] if it is not
// absolute, holds a dot segment, a raw or escaped backslash, a raw "#" or "?", an
// escaped dot, a control, a broken escape, bytes that are not UTF-8, or a byte that
// no client may send. It allocates only where the form changes.
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
			return "", 0, ambiguous(raw, i, 1, "a byte that no path may hold")
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
	return normalise(raw), forms, nil
}

// normalise rewrites the escapes of a path that CanonicalPath found sound, but for
// those that are kept byte for byte.
func normalise(raw string) string {
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

// writeByte writes c as it is, or as its escape.
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

// Unescape decodes the escapes of a canonical path, or of a part of one, once: as a
// server does that takes what it decodes for data.
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

// escapable says whether the escape of a byte, which is no [Forms], has one reading.
func escapable(c byte) bool { return c >= ' ' && c != 0x7f && c != '.' && c != '\\' }

// segmentByte holds what may stand for itself in a segment: pchar of RFC 3986,
// section 3.3, without ";", which some servers cut paths at.
var segmentByte = func() (t [256]bool) {
	for _, c := range "-._~!$&'()*+,=:@0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz" {
		t[c] = true
	}
	return t
}()

// rawByte holds what clients send raw though RFC 3986 wants it escaped, and what no
// server takes for anything but itself.
var rawByte = func() (t [256]bool) {
	for _, c := range "[]|^{}\"`<>" {
		t[c] = true
	}
	return t
}()

// CanonicalQuery returns the one form of a query, without its "?", that is forwarded:
// what clients send raw and may not is written as escapes, all else stays as sent.
// A "\" is among it: no server takes one for an end of the query. What RFC 3986,
// section 3.4, forbids besides is refused with a [*TargetError] that wraps
// [ErrBadTarget], with offsets in q. It allocates only where the form changes.
func CanonicalQuery(q string) (string, error) {
	raw := 0
	for i := 0; i < len(q); i++ {
		c := q[i]
		if c <= ' ' || c >= 0x7f || c == '#' {
			return "", &TargetError{Err: ErrBadTarget, What: q[i : i+1], At: i, Why: "a byte that no query may hold"}
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
