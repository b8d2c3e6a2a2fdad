package login

import (
	"net/url"
	"strings"

	"sallyport/proxy/message"
)

// Paths of the pages for browsers, on each host with a login. Nothing under Prefix is forwarded.
const (
	Prefix          = "/.sallyport/"
	SignInPath      = Prefix + "sign-in"
	callbackPrefix  = Prefix + "callback/"
	SignOutPath     = Prefix + "sign-out"
	LeavePath       = Prefix + "leave"
	SignedOutPath   = Prefix + "signed-out"
	SessionPath     = Prefix + "session"
	BackChannelPath = Prefix + "backchannel-logout"
)

// CallbackPath returns the path to which the issuer of a login sends browsers back. Each login has its
// own: an issuer that does not name itself in its answers is told by it (RFC 9700, section 4.4.2.2).
func CallbackPath(name string) string { return callbackPrefix + name }

// ReturnURL returns the page to which a browser returns from this login. It is as that of [ReturnPage], or
// the URL of a page of another host of the domain if people sign in at one host for all. The caller must
// check that authority, which is "" for pages of this host.
func (l *Login) ReturnURL(to string) (page, authority string) {
	rest, absolute := strings.CutPrefix(to, "https://")
	if l.config.SignInHost == "" || !absolute {
		return ReturnPage(to), ""
	}
	raw, page, _ := strings.Cut(rest, "/")
	authority, host, err := message.CanonicalAuthority(raw, "https")
	if err != nil || authority != raw || l.place(host) != l.domain {
		return "/", ""
	}
	whole := "https://" + authority + ReturnPage("/"+page)
	if len(whole) > maxPage {
		return "https://" + authority + "/", authority
	}
	return whole, authority
}

// maxPage is the maximum length of the page to return to, with its host if it has one. It goes into a cookie.
const maxPage = 2 << 10

// ReturnPage returns the page of this host to which a browser returns, in canonical form. It is "/" for
// everything that another reader could take for another host, scheme or header field, and for the
// gateway's own pages.
func ReturnPage(to string) string {
	if to == "" || len(to) > maxPage || to[0] != '/' {
		return "/"
	}
	for i := range len(to) {
		if c := to[i]; c <= ' ' || c >= 0x7f || c == '\\' {
			return "/"
		}
	}
	to, _, _ = strings.Cut(to, "#")
	raw, query, hasQuery := strings.Cut(to, "?")
	path, _, err := message.CanonicalPath(raw)
	if err != nil || strings.HasPrefix(path, "//") || len(path)+1 >= len(Prefix) && strings.EqualFold((path + "/")[:len(Prefix)], Prefix) {
		return "/"
	}
	if u, err := url.Parse(path); err != nil || u.Host != "" || u.Scheme != "" || u.User != nil {
		return "/"
	}
	if hasQuery {
		path += "?" + query
	}
	if len(path) > maxPage { // the canonical form may be longer
		return "/"
	}
	return path
}
