package message

import "strings"

// Field is a field line. Name is lower case.
type Field struct{ Name, Value string }

// Fields are the field lines of a message in order of arrival. Lines with the same name are kept
// apart. All methods take names in lower case.
type Fields []Field

// Get returns the value of the first line with this name; "" if there is none.
func (f Fields) Get(name string) string {
	for i := range f {
		if f[i].Name == name {
			return f[i].Value
		}
	}
	return ""
}

// Has reports whether there is a line with this name.
func (f Fields) Has(name string) bool { return f.Count(name) > 0 }

// Count returns the number of lines with this name.
func (f Fields) Count(name string) int {
	n := 0
	for i := range f {
		if f[i].Name == name {
			n++
		}
	}
	return n
}

// Line returns the value of the n-th line with this name, counted from 0, and whether it exists.
// Signatures need it.
func (f Fields) Line(name string, n int) (string, bool) {
	for i := range f {
		if f[i].Name == name {
			if n == 0 {
				return f[i].Value, true
			}
			n--
		}
	}
	return "", false
}

// Add appends a line.
func (f *Fields) Add(name, value string) { *f = append(*f, Field{name, value}) }

// Set removes every line with this name and appends one.
func (f *Fields) Set(name, value string) {
	f.Del(name)
	f.Add(name, value)
}

// Del removes every line with this name.
func (f *Fields) Del(name string) {
	f.DelFunc(func(g Field) bool { return g.Name == name })
}

// DelFunc removes the lines for which drop returns true, in place.
func (f *Fields) DelFunc(drop func(Field) bool) {
	kept := (*f)[:0]
	for _, g := range *f {
		if !drop(g) {
			kept = append(kept, g)
		}
	}
	clear((*f)[len(kept):])
	*f = kept
}

// HasToken reports whether the comma-separated lists in the lines with this name contain the
// token, ignoring case (RFC 9110, section 5.6.1).
func (f Fields) HasToken(name, token string) bool {
	for i := range f {
		if f[i].Name != name {
			continue
		}
		for rest := f[i].Value; rest != ""; {
			var t string
			t, rest, _ = strings.Cut(rest, ",")
			if EqualFold(strings.Trim(t, " \t"), token) {
				return true
			}
		}
	}
	return false
}

// EqualFold compares a and b, ignoring the case of ASCII letters only. [strings.EqualFold] also
// equates the Kelvin sign with "k" and the long s with "s", which other readers of "chunked" or
// "close" do not.
func EqualFold(a, b string) bool { return len(a) == len(b) && strings.EqualFold(a, b) }

// lower converts ASCII letters to lower case, and no others.
func lower(s string) string {
	b := []byte(s)
	for i, c := range b {
		if 'A' <= c && c <= 'Z' {
			b[i] = c + ('a' - 'A')
		}
	}
	return string(b)
}

// Fold maps a field name to the form that lenient readers see. CGI and WSGI servers turn names
// into upper-case letters with underscores, so "X_User", "x.user" and "X-User" become one
// variable. Letters become lower case, and everything but letters and digits becomes "-". Names
// that fold alike must be treated as one (CVE-2025-64484 and its incomplete fixes).
func Fold(name string) string {
	for i := 0; i < len(name); i++ {
		if c := name[i]; foldByte(c) != c {
			b := []byte(name)
			for ; i < len(b); i++ {
				b[i] = foldByte(b[i])
			}
			return string(b)
		}
	}
	return name
}

func foldByte(c byte) byte {
	switch {
	case 'A' <= c && c <= 'Z':
		return c + ('a' - 'A')
	case 'a' <= c && c <= 'z', '0' <= c && c <= '9', c == '-':
		return c
	}
	return '-'
}

// ValidName reports whether s is a field name or method: a token (RFC 9110, section 5.6.2).
func ValidName(s string) bool {
	for i := 0; i < len(s); i++ {
		if !tokenByte[s[i]] {
			return false
		}
	}
	return s != ""
}

// ValidValue reports whether s is a field value without leading or trailing white space, and
// without controls except the tab (RFC 9110, section 5.5).
func ValidValue(s string) bool {
	if s == "" {
		return true
	}
	if blank(s[0]) || blank(s[len(s)-1]) {
		return false
	}
	return !HoldsControl(s)
}

// HoldsControl reports whether a text contains a control other than the tab, which no field value may
// have. It tests 32 bytes at once, because bearer tokens and sessions are long.
func HoldsControl[T string | []byte](s T) bool {
	for len(s) >= 32 {
		if (odd(s, 0)|odd(s, 8)|odd(s, 16)|odd(s, 24)) != 0 && holdsControl(s[:32]) {
			return true
		}
		s = s[32:]
	}
	for len(s) >= 8 {
		if odd(s, 0) != 0 && holdsControl(s[:8]) {
			return true
		}
		s = s[8:]
	}
	return holdsControl(s)
}

// holdsControl is HoldsControl a byte at a time.
func holdsControl[T string | []byte](s T) bool {
	for i := 0; i < len(s); i++ {
		if c := s[i]; c < ' ' && c != '\t' || c == 0x7f {
			return true
		}
	}
	return false
}

// odd tests the eight bytes of s from i at once. It is 0 if all are printable ASCII: neither byte-' '
// nor byte+1 then has the highest bit.
func odd[T string | []byte](s T, i int) uint64 {
	const ones, highs = 0x0101010101010101, 0x8080808080808080
	s = s[i : i+8]
	x := uint64(s[0]) | uint64(s[1])<<8 | uint64(s[2])<<16 | uint64(s[3])<<24 |
		uint64(s[4])<<32 | uint64(s[5])<<40 | uint64(s[6])<<48 | uint64(s[7])<<56
	return ((x - ' '*ones) | (x + ones)) & highs
}

func blank(c byte) bool { return c == ' ' || c == '\t' }

var tokenByte = func() (t [256]bool) {
	for _, c := range "!#$%&'*+-.^_`|~0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz" {
		t[c] = true
	}
	return t
}()

// AddVary adds a request field on which the answer depends to Vary (RFC 9110, section 12.5.5).
func (f *Fields) AddVary(name string) {
	if !f.HasToken("vary", name) && !f.HasToken("vary", "*") {
		f.Add("vary", name)
	}
}

// MaxToken is the maximum length of a token in a field, in bytes. Servers take no more.
const MaxToken = 16 << 10

// ValidToken reports whether a text has the form of a bearer token (RFC 6750, section 2.1), of a length that
// a field can have.
func ValidToken(token string) bool {
	bare := strings.TrimRight(token, "=")
	return bare != "" && len(token) <= MaxToken && !strings.ContainsFunc(bare, func(r rune) bool {
		return !(r >= 'a' && r <= 'z' || r >= 'A' && r <= 'Z' || r >= '0' && r <= '9' || strings.ContainsRune("-._~+/", r))
	})
}
