package exchange

import (
	"net/url"
	"slices"
	"strings"

	"sallyport/auth/login"
)

// signInElsewhere returns the URL at which people sign in for this host, and return to one of its pages;
// "" if they do so here.
func (x *exchange) signInElsewhere(l *login.Login, page string) string {
	at := l.SignInHost()
	if at == "" || at == x.head.Host {
		return ""
	}
	return "https://" + at + x.ownPort() + login.SignInPath + "?" + url.Values{"login": {l.Name()}, "to": {x.ownOrigin() + page}}.Encode()
}

// ownPort returns the port of the request's URL, as ":8443"; "" for the default.
func (x *exchange) ownPort() string { return strings.TrimPrefix(x.head.Authority, x.head.Host) }

// returnPage returns where a browser goes from a login. A page of another host is one where the same login
// counts, of this gateway: on its port, and at a host with a route that lists the login.
func (x *exchange) returnPage(l *login.Login, to string) string {
	page, authority := l.ReturnURL(to)
	if authority == "" {
		return page
	}
	host, ours := strings.CutSuffix(authority, x.ownPort())
	if !ours || l.SignInHost() != x.head.Host {
		return "/"
	}
	if door := x.snapshot.Routes.Door(host); door == nil || !slices.Contains(door.Logins, l.Name()) {
		return "/"
	}
	return page
}
