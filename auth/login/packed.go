package login

import (
	"encoding/base64"
	"strings"
)

// packed is a token in the form in which a session stores it; the zero one is no token. JWTs are base64url
// of JSON and of a signature, so in a cookie they would be base64 twice. Each segment between dots that is
// the base64url of some bytes is stored as these bytes, and others as they are: text always returns the
// token, character for character.
type packed struct {
	segments string // their number, and for each its kind and size, and bytes unless those are shared
	shared   string // JSON of the segments of jsonSegment
}

// Kinds of segments.
const (
	plainSegment = iota // the text
	bytesSegment        // bytes, whose base64url is the text
	quadsSegment        // the same, but for the last three characters or fewer
	jsonSegment         // JSON, whose base64url is the text

	maxSegments = 5 // of a token in JWE
)

// pack packs a token. Only the JSON of JWTs is to be compressed, and never signatures and opaque tokens:
// the length of a cookie must tell nothing about secrets.
func pack(token string) packed {
	if token == "" {
		return packed{}
	}
	var w writer
	segments := strings.SplitN(token, ".", maxSegments)
	w.number(int64(len(segments)))
	for i, text := range segments {
		if b, ok := unbase64(text); ok && len(segments) > 2 && i < 2 && len(b) > 0 && b[0] == '{' {
			w.number(int64(len(b))<<2 + jsonSegment)
			w.shared = append(w.shared, b...)
		} else if ok {
			w.number(int64(len(b))<<2 + bytesSegment)
			w.raw(b)
		} else if b, ok = unbase64(text[:len(text)&^3]); ok {
			w.number(int64(len(text))<<2 + quadsSegment)
			w.raw(b)
			w.raw([]byte(text[len(text)&^3:]))
		} else {
			w.number(int64(len(text))<<2 + plainSegment)
			w.raw([]byte(text))
		}
	}
	return packed{string(w.b), string(w.shared)}
}

// unbase64 returns the bytes whose base64url is exactly the text.
func unbase64(text string) ([]byte, bool) {
	b, err := base64.RawURLEncoding.Strict().DecodeString(text)
	return b, err == nil && base64.RawURLEncoding.EncodedLen(len(b)) == len(text) // the decoder skips line ends
}

// size returns the number of bytes that the token takes.
func (p packed) size() int { return len(p.segments) + len(p.shared) }

// text returns the token.
func (p packed) text() string {
	var b []byte
	r := reader{s: p.segments, shared: p.shared}
	r.walk(func(i int64, kind int64, stored, rest string) {
		if i > 0 {
			b = append(b, '.')
		}
		if kind == plainSegment {
			b = append(b, stored...)
		} else {
			b = base64.RawURLEncoding.AppendEncode(b, []byte(stored))
		}
		b = append(b, rest...)
	})
	return string(b)
}

// walk reads the segments of a token. rest are the last characters of a quadsSegment.
func (r *reader) walk(f func(i, kind int64, stored, rest string)) {
	n := r.number()
	if n > maxSegments {
		r.fail()
	}
	for i := int64(0); i < n && !r.bad; i++ {
		size := r.number()
		kind, stored, rest := size&3, "", ""
		size >>= 2
		switch kind {
		case jsonSegment:
			stored = r.cut(&r.shared, size)
		case quadsSegment:
			stored = r.cut(&r.s, size/4*3)
			rest = r.cut(&r.s, size%4)
		default:
			stored = r.cut(&r.s, size)
		}
		if !r.bad {
			f(i, kind, stored, rest)
		}
	}
}

// packed reads a token without unpacking it.
func (r *reader) packed() packed {
	segments, shared := r.s, r.shared
	n := 0
	r.walk(func(int64, int64, string, string) { n++ })
	if n == 0 || r.bad {
		return packed{}
	}
	return packed{segments[:len(segments)-len(r.s)], shared[:len(shared)-len(r.shared)]}
}

// packed writes a token.
func (w *writer) packed(p packed) {
	if p.segments == "" {
		w.number(0)
		return
	}
	w.raw([]byte(p.segments))
	w.shared = append(w.shared, p.shared...)
}
