package httpsig

import (
	"encoding/base64"
	"strconv"
)

// Kind is a top-level type of a structured field (RFC 9651, section 3), for the
// parameter sf.
type Kind uint8

// The types of structured fields. The zero Kind is not a type.
const (
	Item Kind = iota + 1
	List
	Dictionary
)

// bareKind is the type of a bare item. Dates and display strings are not supported, since
// none of our fields uses them.
type bareKind uint8

const (
	bareInteger bareKind = iota + 1
	bareDecimal
	bareString
	bareToken
	bareBytes
	bareBoolean
)

// bare is a bare item. raw is its text, without enclosing quotes or colons.
type bare struct {
	kind bareKind
	raw  string
}

// isTrue reports whether the item is the boolean true, the value of a key without "=".
func (b bare) isTrue() bool { return b.kind == bareBoolean && b.raw == "?1" }

// Bounds for application fields (parameters sf and key).
const (
	maxMembers    = 64
	maxParameters = 16
)

// parser parses structured fields more strictly than RFC 9651: it refuses duplicate
// keys, of which RFC 9651 uses the last, since two receivers could interpret them
// differently.
type parser struct {
	s string
	i int
}

func (p *parser) end() bool { return p.i == len(p.s) }

// take skips the next byte if it is c, and reports whether it was.
func (p *parser) take(c byte) bool {
	if p.i < len(p.s) && p.s[p.i] == c {
		p.i++
		return true
	}
	return false
}

func (p *parser) peek() byte {
	if p.i < len(p.s) {
		return p.s[p.i]
	}
	return 0
}

// spaces skips spaces and returns their number.
func (p *parser) spaces() int {
	from := p.i
	for p.take(' ') {
	}
	return p.i - from
}

// comma skips OWS "," OWS between members. done reports the end of the text; ok is false
// if neither the end nor another member follows.
func (p *parser) comma() (done, ok bool) {
	p.blanks()
	if p.end() {
		return true, true
	}
	if !p.take(',') {
		return false, false
	}
	p.blanks()
	return false, !p.end()
}

func (p *parser) blanks() {
	for p.peek() == ' ' || p.peek() == '\t' {
		p.i++
	}
}

// key parses the key of a member or parameter.
func (p *parser) key() (string, bool) {
	from := p.i
	for p.i < len(p.s) {
		c := p.s[p.i]
		first := 'a' <= c && c <= 'z' || c == '*'
		if !first && (p.i == from || !('0' <= c && c <= '9' || c == '_' || c == '-' || c == '.')) {
			break
		}
		p.i++
	}
	return p.s[from:p.i], p.i > from
}

// param parses the next parameter. more is false if there is none.
func (p *parser) param() (key string, value bare, more, ok bool) {
	if !p.take(';') {
		return "", bare{}, false, true
	}
	p.spaces()
	if key, ok = p.key(); !ok {
		return "", bare{}, false, false
	}
	if !p.take('=') {
		return key, bare{bareBoolean, "?1"}, true, true
	}
	value, ok = p.bare()
	return key, value, true, ok
}

// bare parses a bare item.
func (p *parser) bare() (bare, bool) {
	switch c := p.peek(); {
	case c == '"':
		return p.string()
	case c == ':':
		return p.bytes()
	case c == '?':
		from := p.i
		p.i++
		ok := p.take('0') || p.take('1')
		return bare{bareBoolean, p.s[from:p.i]}, ok
	case c == '-' || '0' <= c && c <= '9':
		return p.number()
	case c == '*' || 'a' <= c && c <= 'z' || 'A' <= c && c <= 'Z':
		from := p.i
		for p.i < len(p.s) && (tokenByte(p.s[p.i]) || p.s[p.i] == ':' || p.s[p.i] == '/') {
			p.i++
		}
		return bare{bareToken, p.s[from:p.i]}, true
	}
	return bare{}, false
}

func (p *parser) string() (bare, bool) {
	p.i++
	from := p.i
	for p.i < len(p.s) {
		switch c := p.s[p.i]; {
		case c == '"':
			p.i++
			return bare{bareString, p.s[from : p.i-1]}, true
		case c == '\\':
			p.i++
			if next := p.peek(); next != '"' && next != '\\' {
				return bare{}, false
			}
		case c < ' ' || c > '~':
			return bare{}, false
		}
		p.i++
	}
	return bare{}, false
}

func (p *parser) bytes() (bare, bool) {
	p.i++
	from := p.i
	for p.i < len(p.s) {
		c := p.s[p.i]
		p.i++
		switch {
		case c == ':':
			return bare{bareBytes, p.s[from : p.i-1]}, true
		case 'a' <= c && c <= 'z', 'A' <= c && c <= 'Z', '0' <= c && c <= '9', c == '+', c == '/', c == '=':
		default:
			return bare{}, false
		}
	}
	return bare{}, false
}

// number parses an integer of at most 15 digits, or a decimal of at most 12 and 3.
func (p *parser) number() (bare, bool) {
	from := p.i
	p.take('-')
	whole := p.digits()
	if p.peek() != '.' {
		return bare{bareInteger, p.s[from:p.i]}, 1 <= whole && whole <= 15
	}
	p.i++
	part := p.digits()
	return bare{bareDecimal, p.s[from:p.i]}, 1 <= whole && whole <= 12 && 1 <= part && part <= 3
}

func (p *parser) digits() int {
	from := p.i
	for c := p.peek(); '0' <= c && c <= '9'; c = p.peek() {
		p.i++
	}
	return p.i - from
}

// integer returns the value of an integer.
func (b bare) integer() (int64, bool) {
	if b.kind != bareInteger {
		return 0, false
	}
	n, err := strconv.ParseInt(b.raw, 10, 64)
	return n, err == nil
}

// appendBare appends an item in canonical form (RFC 9651, section 4.1).
func appendBare(dst []byte, b bare) []byte {
	switch b.kind {
	case bareString:
		return append(append(append(dst, '"'), b.raw...), '"') // the two escapes have one form
	case bareBytes:
		return append(append(append(dst, ':'), b.raw...), ':')
	case bareInteger:
		n, _ := b.integer() // at most 15 digits
		return strconv.AppendInt(dst, n, 10)
	case bareDecimal:
		return appendDecimal(dst, b.raw)
	default:
		return append(dst, b.raw...)
	}
}

func appendDecimal(dst []byte, raw string) []byte {
	f, _ := strconv.ParseFloat(raw, 64) // 15 digits are exact
	if f == 0 {
		f = 0 // drop the sign of -0.0
	}
	from := len(dst)
	dst = strconv.AppendFloat(dst, f, 'f', -1, 64)
	for _, c := range dst[from:] {
		if c == '.' {
			return dst
		}
	}
	return append(dst, ".0"...)
}

// appendParams parses parameters and appends them in canonical form.
func (p *parser) appendParams(dst []byte) ([]byte, bool) {
	var seen [maxParameters]string
	for n := 0; ; n++ {
		key, value, more, ok := p.param()
		if !more || !ok {
			return dst, ok
		}
		if n == len(seen) || contains(seen[:n], key) {
			return dst, false
		}
		seen[n] = key
		dst = append(append(dst, ';'), key...)
		if !value.isTrue() {
			if dst, ok = appendChecked(append(dst, '='), value); !ok {
				return dst, false
			}
		}
	}
}

// appendChecked appends an item and refuses base64 that is not canonical.
func appendChecked(dst []byte, b bare) ([]byte, bool) {
	if b.kind == bareBytes {
		if _, ok := decode(nil, b.raw); !ok {
			return dst, false
		}
	}
	return appendBare(dst, b), true
}

// appendValue parses an item or an inner list with its parameters and appends it in
// canonical form.
func (p *parser) appendValue(dst []byte) (_ []byte, ok bool) {
	if !p.take('(') {
		return p.appendItem(dst)
	}
	dst = append(dst, '(')
	for n := 0; ; n++ {
		gap := p.spaces()
		if p.take(')') {
			return p.appendParams(append(dst, ')'))
		}
		if n == maxMembers || n > 0 && gap == 0 {
			return dst, false
		}
		if n > 0 {
			dst = append(dst, ' ')
		}
		if dst, ok = p.appendItem(dst); !ok {
			return dst, false
		}
	}
}

func (p *parser) appendItem(dst []byte) ([]byte, bool) {
	b, ok := p.bare()
	if !ok {
		return dst, false
	}
	if dst, ok = appendChecked(dst, b); !ok {
		return dst, false
	}
	return p.appendParams(dst)
}

// appendStructured appends a whole field in canonical form.
func appendStructured(dst []byte, s string, kind Kind) (_ []byte, ok bool) {
	p := parser{s: s}
	p.spaces()
	switch kind {
	case Item:
		dst, ok = p.appendItem(dst)
		p.spaces()
		return dst, ok && p.end()
	case List:
		for n := 0; n < maxMembers; n++ {
			if n > 0 {
				dst = append(dst, ", "...)
			}
			if dst, ok = p.appendValue(dst); !ok {
				return dst, false
			}
			if done, ok := p.comma(); done || !ok {
				return dst, ok
			}
		}
	case Dictionary:
		return appendMembers(dst, &p, "")
	}
	return dst, false
}

// appendMembers appends a dictionary in canonical form or, if only is not empty, the
// value of that member. ok is false if that member is missing.
func appendMembers(dst []byte, p *parser, only string) (_ []byte, ok bool) {
	var seen [maxMembers]string
	from, value := len(dst), []byte(nil)
	for n := range seen {
		key, ok := p.key()
		if !ok || contains(seen[:n], key) {
			return dst, false
		}
		seen[n] = key
		if only != "" {
			dst = dst[:from]
		} else if n > 0 {
			dst = append(dst, ", "...)
		}
		if only == "" {
			dst = append(dst, key...)
		}
		switch {
		case p.take('='):
			begin := len(dst)
			if only == "" {
				dst = append(dst, '=')
				begin++
			}
			if dst, ok = p.appendValue(dst); !ok {
				return dst, false
			}
			// In canonical form a true member is its key alone.
			if only == "" && len(dst) >= begin+2 && string(dst[begin:begin+2]) == "?1" {
				dst = append(dst[:begin-1], dst[begin+2:]...)
			}
		default:
			if only != "" {
				dst = append(dst, "?1"...)
			}
			if dst, ok = p.appendParams(dst); !ok {
				return dst, false
			}
		}
		if key == only {
			value = append([]byte{}, dst[from:]...)
		}
		done, ok := p.comma()
		switch {
		case !ok:
			return dst, false
		case done && only != "":
			return append(dst[:from], value...), value != nil
		case done:
			return dst, true
		}
	}
	return dst, false
}

func contains(all []string, s string) bool {
	for i := range all {
		if all[i] == s {
			return true
		}
	}
	return false
}

// tokenByte reports whether a token may contain c (RFC 9110, section 5.6.2).
func tokenByte(c byte) bool {
	switch {
	case 'a' <= c && c <= 'z', 'A' <= c && c <= 'Z', '0' <= c && c <= '9':
		return true
	}
	switch c {
	case '!', '#', '$', '%', '&', '\'', '*', '+', '-', '.', '^', '_', '`', '|', '~':
		return true
	}
	return false
}

// decode decodes base64 and appends the bytes. It refuses text that is not canonical,
// that is, padded and without stray bits: one value must have only one text.
func decode(dst []byte, s string) ([]byte, bool) {
	var text, again [128]byte
	if len(s) > len(text) {
		return decodeLong(dst, s)
	}
	n := copy(text[:], s)
	from := len(dst)
	dst, err := base64.StdEncoding.AppendDecode(dst, text[:n])
	if err != nil {
		return dst, false
	}
	return dst, string(base64.StdEncoding.AppendEncode(again[:0], dst[from:])) == s
}

func decodeLong(dst []byte, s string) ([]byte, bool) {
	value, err := base64.StdEncoding.DecodeString(s)
	return append(dst, value...), err == nil && base64.StdEncoding.EncodeToString(value) == s
}
