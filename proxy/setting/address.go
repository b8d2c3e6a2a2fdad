package setting

import (
	"errors"
	"net/netip"
	"net/url"
	"strconv"
	"strings"
)

// URL is an absolute URL with a scheme and a host, or with the scheme unix and
// a path (unix:///run/app.sock). It has no user information and no fragment.
// The zero URL means that none was given.
type URL struct{ *url.URL }

// ParseURL reads a URL. Its errors never repeat the text, which may hold a password.
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

// UnmarshalText reads a URL.
func (u *URL) UnmarshalText(text []byte) error {
	v, err := ParseURL(string(text))
	*u = v
	return err
}

// MarshalText writes the URL as it is read.
func (u URL) MarshalText() ([]byte, error) { return []byte(u.String()), nil }

// String is the URL, "" for none.
func (u URL) String() string {
	if u.URL == nil {
		return ""
	}
	return u.URL.String()
}

// IsZero says whether no URL was given.
func (u URL) IsZero() bool { return u.URL == nil }

// CIDR is a range of addresses such as 10.0.0.0/8, or a single address. The zero
// CIDR holds no address.
type CIDR struct{ netip.Prefix }

// UnmarshalText reads a range or an address.
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

// MarshalText writes the range as it is read.
func (c CIDR) MarshalText() ([]byte, error) { return []byte(c.String()), nil }

// String is the range, "" for none.
func (c CIDR) String() string {
	if !c.IsValid() {
		return ""
	}
	return c.Prefix.String()
}

// Contains says whether the address lies in the range; an IPv4 address may be in IPv6 form.
func (c CIDR) Contains(a netip.Addr) bool { return c.Prefix.Contains(a.Unmap()) }
