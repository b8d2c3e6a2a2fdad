package message

import (
	"errors"
	"net/netip"
	"strings"
	"unicode/utf8"
)

// ErrAmbiguousPath is returned for a path that two readers may interpret differently.
var ErrAmbiguousPath = errors.New("ambiguous path")

// ErrBadAuthority is returned for an authority that is not a host with an optional port.
var ErrBadAuthority = errors.New("bad authority")

// CanonicalPath returns the canonical form of an absolute path, which is matched, authorized and
// forwarded. Escapes of characters that are allowed in a segment are decoded. All other escapes
// get upper-case digits (RFC 3986, section 6.2.2). Decoding ":" matters: "m%3Apredict" is a
// model's name to one server and the action "predict" to another.
//
// It refuses with [ErrAmbiguousPath] a path that is not absolute or contains one of these:
//
//   - an empty segment or a dot segment;
//   - a raw or escaped backslash, semicolon, "#" or "?", or an escaped slash, dot or "%";
//   - a control, an invalid escape, invalid UTF-8, or a byte that is not allowed in a URI.
//
// It allocates only if the form changes.
func CanonicalPath(raw string) (string, error) {
	if raw == "" || raw[0] != '/' {
		return "", ErrAmbiguousPath
	}
	plain, segment := true, 1 // segment: where the current one starts
	high := false
	for i := 1; i < len(raw); i++ {
		switch c := raw[i]; {
		case c == '/':
			if dotted(raw[segment:i]) || i == segment {
				return "", ErrAmbiguousPath
			}
			segment = i + 1
		case c == '%':
			b, ok := unescape(raw, i)
			if !ok || !escapable(b) {
				return "", ErrAmbiguousPath
			}
			high = high || b >= utf8.RuneSelf
			if segmentByte[b] || lowerHex(raw[i+1]) || lowerHex(raw[i+2]) {
				plain = false
			}
			i += 2
		case !segmentByte[c]:
			return "", ErrAmbiguousPath
		}
	}
	if dotted(raw[segment:]) {
		return "", ErrAmbiguousPath
	}
	if high && !utf8.ValidString(unescapeAll(raw)) {
		return "", ErrAmbiguousPath
	}
	if plain {
		return raw, nil
	}
	return normalize(raw), nil
}

// normalize rewrites the escapes of a path that CanonicalPath has checked.
func normalize(raw string) string {
	const hex = "0123456789ABCDEF"
	var b strings.Builder
	b.Grow(len(raw))
	for i := 0; i < len(raw); i++ {
		if raw[i] != '%' {
			b.WriteByte(raw[i])
			continue
		}
		c, _ := unescape(raw, i)
		if segmentByte[c] {
			b.WriteByte(c)
		} else {
			b.WriteByte('%')
			b.WriteByte(hex[c>>4])
			b.WriteByte(hex[c&15])
		}
		i += 2
	}
	return b.String()
}

func unescapeAll(raw string) string {
	b := make([]byte, 0, len(raw))
	for i := 0; i < len(raw); i++ {
		c := raw[i]
		if c == '%' {
			c, _ = unescape(raw, i)
			i += 2
		}
		b = append(b, c)
	}
	return string(b)
}

// unescape decodes the escape at s[i].
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

// escapable reports whether a byte may be written as an escape at all.
func escapable(c byte) bool {
	return c > ' '-1 && c != 0x7f && !strings.ContainsRune(`/\.;%?#`, rune(c))
}

// segmentByte holds the bytes allowed in a segment: pchar of RFC 3986, section 3.3, without ";",
// at which some servers cut paths.
var segmentByte = func() (t [256]bool) {
	for _, c := range "-._~!$&'()*+,=:@0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz" {
		t[c] = true
	}
	return t
}()

// ValidQuery reports whether q, without its "?", contains only bytes that RFC 3986, section 3.4,
// allows in a query, or printable bytes that real clients send unescaped: [ ] | ^ ` { } and the
// double quote, among others. No reader ends the query at those.
func ValidQuery(q string) bool {
	for i := 0; i < len(q); i++ {
		if c := q[i]; c <= ' ' || c >= 0x7f || c == '#' || c == '\\' || c == '<' || c == '>' {
			return false
		}
	}
	return true
}

// CanonicalAuthority returns the canonical form of a Host or :authority value: the host in lower
// case without a trailing dot, and the port unless it is the scheme's default (RFC 9110, section
// 4.2.3). It accepts host names, IPv4 addresses and bracketed IPv6 addresses. It refuses all
// others, such as user information, with [ErrBadAuthority].
func CanonicalAuthority(raw, scheme string) (authority, host string, err error) {
	host, port := raw, ""
	if i := strings.LastIndexByte(raw, ':'); i >= 0 && i > strings.LastIndexByte(raw, ']') {
		host, port = raw[:i], raw[i+1:]
		if !validPort(port) {
			return "", "", ErrBadAuthority
		}
	}
	if host, err = CanonicalHost(host); err != nil {
		return "", "", err
	}
	if port == "" || scheme == "https" && port == "443" || scheme == "http" && port == "80" {
		return host, host, nil
	}
	if len(host)+1+len(port) == len(raw) && raw[:len(host)] == host {
		return raw, host, nil
	}
	return host + ":" + port, host, nil
}

// CanonicalHost returns a host name or address in its canonical form: lower case, no trailing
// dot, IPv6 in brackets.
func CanonicalHost(raw string) (string, error) {
	if strings.HasPrefix(raw, "[") {
		a, err := netip.ParseAddr(strings.TrimSuffix(raw[1:], "]"))
		if err != nil || !strings.HasSuffix(raw, "]") || a.Zone() != "" || !a.Is6() {
			return "", ErrBadAuthority
		}
		return "[" + a.String() + "]", nil
	}
	host := strings.TrimSuffix(raw, ".")
	if host == "" || len(host) > 253 {
		return "", ErrBadAuthority
	}
	label := 0
	for i := 0; i < len(host); i++ {
		switch c := host[i]; {
		case c == '.':
			if label == 0 {
				return "", ErrBadAuthority
			}
			label = 0
		case 'a' <= c && c <= 'z', 'A' <= c && c <= 'Z', '0' <= c && c <= '9', c == '-', c == '_':
			label++
		default:
			return "", ErrBadAuthority
		}
	}
	if label == 0 {
		return "", ErrBadAuthority
	}
	return strings.ToLower(host), nil
}

func validPort(s string) bool {
	n := 0
	for i := 0; i < len(s); i++ {
		if s[i] < '0' || s[i] > '9' || n > 65535 {
			return false
		}
		n = n*10 + int(s[i]-'0')
	}
	return s != "" && s[0] != '0' && n <= 65535
}
