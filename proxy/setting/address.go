package setting

import (
	"errors"
	"net/netip"
	"net/url"
	"strconv"
	"strings"
)

// URL is an absolute URL with a scheme and a host, or a unix URL with a path
// (unix:///run/app.sock). It has no user information and no fragment. The zero URL means none.
type URL struct{ *url.URL }

// ParseURL parses a URL. Its errors never contain the text, which may hold a password.
func ParseURL(s string) (URL, error) {
	u, err := url.Parse(s)
	switch {
	case err != nil || s == "":
		return URL{}, errors.New("not a URL; write one such as https://host.example or http://host:8000")
	case u.User != nil:
		return URL{}, errors.New("a URL with a user name or password; take them out")
	case u.Scheme == "unix" && u.Host == "" && strings.HasPrefix(u.Path, "/"):
	case u.Scheme == "unix":
		return URL{}, errors.New("a unix URL without an absolute path; write unix:///path/to.sock")
	case u.Host == "" || u.Scheme == "" || u.Hostname() == "":
		return URL{}, errors.New("not a URL with scheme and host; write one such as https://host.example or http://host:8000")
	}
	if strings.Contains(s, "#") {
		return URL{}, errors.New("a URL with a fragment; remove # and what follows it")
	}
	if p := u.Port(); p != "" || strings.HasSuffix(u.Host, ":") {
		if n, err := strconv.ParseUint(p, 10, 16); err != nil || n == 0 {
			return URL{}, errors.New("a URL with a bad port; ports are 1 to 65535")
		}
	}
	return URL{u}, nil
}

// UnmarshalText parses a URL.
func (u *URL) UnmarshalText(text []byte) error {
	v, err := ParseURL(string(text))
	*u = v
	return err
}

// MarshalText returns the text of the URL.
func (u URL) MarshalText() ([]byte, error) { return []byte(u.String()), nil }

// String returns the URL; "" for none.
func (u URL) String() string {
	if u.URL == nil {
		return ""
	}
	return u.URL.String()
}

// IsZero reports whether no URL was given.
func (u URL) IsZero() bool { return u.URL == nil }

// CIDR is an address range such as 10.0.0.0/8, or a single address. The zero CIDR contains no
// address.
type CIDR struct{ netip.Prefix }

// UnmarshalText parses a range or an address.
func (c *CIDR) UnmarshalText(text []byte) error {
	s := string(text)
	if a, err := netip.ParseAddr(s); err == nil && a.Zone() == "" {
		a = a.Unmap()
		c.Prefix = netip.PrefixFrom(a, a.BitLen())
		return nil
	}
	p, err := netip.ParsePrefix(s)
	switch {
	case err != nil:
		return errors.New("not a range of addresses; write one such as 10.0.0.0/8, or a single address")
	case p.Addr().Is4In6():
		return errors.New("an IPv4 range in IPv6 form; write it as IPv4, such as 10.0.0.0/8")
	case p.Masked() != p:
		return errors.New("bits are set after the prefix; write " + p.Masked().String() + ", or the single address")
	}
	c.Prefix = p
	return nil
}

// MarshalText returns the text of the range.
func (c CIDR) MarshalText() ([]byte, error) { return []byte(c.String()), nil }

// String returns the range; "" for none.
func (c CIDR) String() string {
	if !c.IsValid() {
		return ""
	}
	return c.Prefix.String()
}

// Contains reports whether the range contains the address, which may be IPv4-mapped.
func (c CIDR) Contains(a netip.Addr) bool { return c.Prefix.Contains(a.Unmap()) }
