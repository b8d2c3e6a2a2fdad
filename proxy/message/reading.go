package message

import (
	"errors"
	"strconv"
	"strings"
)

// ErrAmbiguousPath is returned for a path that two readers may interpret differently.
var ErrAmbiguousPath = errors.New("ambiguous path")

// TargetError describes the part of a request target that is refused.
type TargetError struct {
	Err  error  // ErrAmbiguousPath, ErrBadTarget or ErrSyntax
	What string // the refused bytes, as sent
	At   int    // their offset in the target, from 0
	Why  string // the reason
	Cure string // what the operator can do; "" for nothing
}

// Error returns the kind of fault, the bytes and their place, the reason and the cure.
func (e *TargetError) Error() string {
	s := e.Err.Error() + ": " + e.Place() + ": " + e.Why
	if e.Cure != "" {
		s += "; " + e.Cure
	}
	return s
}

// Place returns the bytes and their offset, in printable ASCII without special characters of JSON,
// HTML or logs.
func (e *TargetError) Place() string {
	var b strings.Builder
	for i := 0; i < len(e.What) && i < 12; i++ {
		if c := e.What[i]; c > ' ' && c < 0x7f && strings.IndexByte("\"\\<>&'", c) < 0 {
			b.WriteByte(c)
		} else {
			writeByte(&b, c, false)
		}
	}
	if b.Len() == 0 {
		b.WriteString("nothing")
	}
	return b.String() + " at byte " + strconv.Itoa(e.At) + " of the request target"
}

// Unwrap returns Err.
func (e *TargetError) Unwrap() error { return e.Err }

// ambiguous returns the error for n bytes of a path, or fewer at its end.
func ambiguous(path string, at, n int, why string) error {
	return &TargetError{Err: ErrAmbiguousPath, What: path[at:min(at+n, len(path))], At: at, Why: why}
}

// Refuse returns the error for the first of some forms in the path of a settled head.
func (h *Head) Refuse(forms Forms, why, cure string) error {
	path, _, _ := strings.Cut(h.Target, "?")
	for i := 0; i < len(path); i++ {
		n, form := 1, Forms(0)
		switch c := path[i]; {
		case c == '%':
			b, _ := unescape(path, i)
			n, form = 3, formOf(b)
		case c == ';':
			form = Semicolon
		case c == '/' && i+1 < len(path) && path[i+1] == '/':
			n, form = 2, DoubleSlash
		}
		if form&forms != 0 {
			return &TargetError{Err: ErrAmbiguousPath, What: path[i : i+n], At: i, Why: why, Cure: cure}
		}
		i += n - 1
	}
	return &TargetError{Err: ErrAmbiguousPath, Why: why, Cure: cure}
}

// MergeSlashes removes the empty segments of a canonical path, except one at its end.
func MergeSlashes(path string) string {
	var b strings.Builder
	b.Grow(len(path))
	for i := 0; i < len(path); i++ {
		if path[i] != '/' || i == 0 || path[i-1] != '/' {
			b.WriteByte(path[i])
		}
	}
	return b.String()
}

// longestRead limits the paths for which Readings works. It costs more than everything else that
// happens to a request before the caller is authenticated.
const longestRead = 4 << 10

// decodings limits how often Readings decodes a path.
const decodings = 3

// Readings returns the paths as which servers could read a canonical path with [Forms]. Such a
// server decodes up to three times, ends a path at "?", "#" or ";", drops parameters or empty
// segments, or reads an authority after "//".
//
// It returns false if the readings cannot all be known: one contains a dot segment or a control, or
// could be decoded further, or the path is longer than 4 KiB.
func Readings(path string) (all []string, ok bool) {
	if len(path) > longestRead {
		return nil, false
	}
	for range decodings {
		for i, base := range [...]string{path, strings.ReplaceAll(path, `\`, "/"), before(path, "?"), before(path, "#"), before(path, "?#;"), withoutParameters(path)} {
			if i > 0 && base == path {
				continue
			}
			if hasDots(base) {
				return nil, false
			}
			all = appendReading(all, base)
			all = appendReading(all, MergeSlashes(base))
			if rest, cut := strings.CutPrefix(base, "//"); cut {
				_, rest, _ = strings.Cut(rest, "/")
				all = appendReading(all, "/"+rest)
			}
		}
		next, sound := decode(path)
		if !sound {
			return nil, false
		}
		if next == path {
			return all, true
		}
		path = next
	}
	return nil, false
}

// appendReading appends path unless it equals the last reading.
func appendReading(all []string, path string) []string {
	if n := len(all); n > 0 && all[n-1] == path {
		return all
	}
	return append(all, path)
}

// before returns the part of path before the first of some bytes.
func before(path, bytes string) string {
	if i := strings.IndexAny(path, bytes); i >= 0 {
		return path[:i]
	}
	return path
}

// withoutParameters cuts each segment at its first ";".
func withoutParameters(path string) string {
	if strings.IndexByte(path, ';') < 0 {
		return path
	}
	var b strings.Builder
	for i, segment := range strings.Split(path, "/") {
		if i > 0 {
			b.WriteByte('/')
		}
		b.WriteString(before(segment, ";"))
	}
	return b.String()
}

// hasDots reports whether a path has a dot segment; "\" counts as a slash, as it does on Windows.
func hasDots(path string) bool {
	start := 0
	for i := 0; i < len(path); i++ {
		if path[i] == '/' || path[i] == '\\' {
			if dotted(path[start:i]) {
				return true
			}
			start = i + 1
		}
	}
	return dotted(path[start:])
}

// decode decodes a path once. Bytes that a canonical path escapes, other than [Forms], stay escaped,
// so that the result can be compared with canonical paths. It fails for controls.
func decode(path string) (decoded string, sound bool) {
	if strings.IndexByte(path, '%') < 0 {
		return path, true
	}
	var b strings.Builder
	b.Grow(len(path))
	for i := 0; i < len(path); i++ {
		c, escaped := path[i], false
		if c == '%' {
			if c, escaped = unescape(path, i); escaped {
				i += 2
			} else {
				c = '%'
			}
		}
		if escaped && (c < ' ' || c == 0x7f) {
			return "", false
		}
		writeByte(&b, c, !escaped || segmentByte[c] || formOf(c) != 0 || c == '\\')
	}
	return b.String(), true
}
