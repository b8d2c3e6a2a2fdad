package message

import (
	"errors"
	"strconv"
	"strings"
)

// ErrAmbiguousPath is returned for a path that two readers could resolve to
// different places.
var ErrAmbiguousPath = errors.New("ambiguous path")

// TargetError says what in a request target is refused, and where.
type TargetError struct {
	Err  error  // ErrAmbiguousPath, ErrBadTarget or ErrSyntax
	What string // the bytes, as sent
	At   int    // where they are in the target, from 0
	Why  string // what is wrong with them
	Cure string // what the operator can do; "" for nothing
}

// Error names the bytes, their place, what is wrong with them and what would do.
func (e *TargetError) Error() string {
	s := e.Err.Error() + ": " + e.Place() + ": " + e.Why
	if e.Cure != "" {
		s += "; " + e.Cure
	}
	return s
}

// Place names the bytes and where they are. It holds printable ASCII that means nothing
// in JSON, HTML or a log.
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

// ambiguous refuses n bytes of a path; fewer if it ends before.
func ambiguous(path string, at, n int, why string) error {
	return &TargetError{Err: ErrAmbiguousPath, What: path[at:min(at+n, len(path))], At: at, Why: why}
}

// Refuse makes the error that refuses the first of some forms in the path of a
// settled head.
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

// MergeSlashes drops the empty segments of a canonical path but for one at its end.
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

// longestRead bounds the paths of which readings are made: they cost more than all else
// that is done for a request before its caller is known.
const longestRead = 4 << 10

// decodings bounds how often a path is decoded to see what it could be read as.
const decodings = 3

// Readings returns the paths that some server could take a canonical path for that
// holds [Forms]: one that decodes up to three times, ends a path at "?", "#" or ";",
// leaves out parameters and empty segments, or takes what stands behind "//" for an
// authority. It is false if one of them holds a dot segment or a control, or could be
// decoded further, and for paths of more than 4 KiB: then no server's reading is known.
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

// appendReading leaves out what the last reading was too.
func appendReading(all []string, path string) []string {
	if n := len(all); n > 0 && all[n-1] == path {
		return all
	}
	return append(all, path)
}

// before is what stands before the first of some bytes.
func before(path, bytes string) string {
	if i := strings.IndexAny(path, bytes); i >= 0 {
		return path[:i]
	}
	return path
}

// withoutParameters leaves out what stands behind ";" in each segment.
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

// hasDots says whether a path has a dot segment, "\" being a slash to some.
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

// decode decodes a path once. What a canonical path writes as an escape besides
// [Forms] stays one, so that results compare with canonical paths; controls are not sound.
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
