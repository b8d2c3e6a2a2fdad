package message

import (
	"errors"
	"net/netip"
	"strings"
)

// ErrBadAuthority is returned for an authority that is not a host with an optional port.
var ErrBadAuthority = errors.New("bad authority")

// CanonicalAuthority returns the canonical form of a Host or :authority value: the host in lower
// case without a trailing dot, and the port unless it is the scheme's default (RFC 9110, section
// 4.2.3). It accepts host names, IPv4 addresses and bracketed IPv6 addresses. It refuses all
// others, such as user information, with [ErrBadAuthority]. An empty port is the scheme's default.
func CanonicalAuthority(raw, scheme string) (authority, host string, err error) {
	host, port := raw, ""
	if i := strings.LastIndexByte(raw, ':'); i >= 0 && i > strings.LastIndexByte(raw, ']') {
		host, port = raw[:i], raw[i+1:]
		if port != "" && !validPort(port) { // "host:" is the scheme's own port (RFC 3986, section 6.2.3)
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

// validPort reports whether s, which is not empty, is a port in decimal.
func validPort(s string) bool {
	n := 0
	for i := 0; i < len(s); i++ {
		if s[i] < '0' || s[i] > '9' || n > 65535 {
			return false
		}
		n = n*10 + int(s[i]-'0')
	}
	return s[0] != '0' && n <= 65535
}
