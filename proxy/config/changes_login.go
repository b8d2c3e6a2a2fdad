package config

import (
	"bytes"
	"slices"
	"strings"
	"time"

	"sallyport/auth"
	"sallyport/auth/login"
	"sallyport/proxy/setting"
)

// sessionOutline is what decides whether a login takes sessions that began under another configuration.
type sessionOutline struct {
	issuer, client, kind, domain string
	acr, keys                    []string // keys by digest; nil for one of the process
	absolute                     time.Duration
}

func (c *Config) sessionOutlineOf(l *auth.LoginConfig) *sessionOutline {
	o := &sessionOutline{
		issuer: c.Issuers[l.Issuer].URL, client: l.ClientID, kind: auth.SessionInCookie, acr: l.ACRValues,
		absolute: l.Session.Absolute.Or(login.DefaultAbsolute),
	}
	o.domain, _ = l.Session.Domain()
	if l.Session.Kind == auth.SessionInMemory {
		o.kind = auth.SessionInMemory
	}
	if l.Session.Outlives() {
		text, _ := l.Session.Keys.Read() // one that cannot be read is a fault, and nothing is loaded
		for line := range bytes.Lines(text) {
			if line = bytes.TrimSpace(line); len(line) > 0 {
				o.keys = append(o.keys, setting.Digest(line))
			}
		}
	}
	return o
}

// lost says who signs in again when the next configuration is in use, and why, such as "people sign in again
// (client_id)"; "" for nobody.
func (o *sessionOutline) lost(next *sessionOutline) string {
	var all, some []string
	for _, s := range []struct{ name, was, is string }{
		{"issuer", o.issuer, next.issuer}, {"client_id", o.client, next.client},
		{"session.kind", o.kind, next.kind}, {"session.cookie_domain", o.domain, next.domain},
	} {
		if s.was != s.is {
			all = append(all, s.name)
		}
	}
	gone := func(key string) bool { return !slices.Contains(next.keys, key) }
	switch {
	case o.kind != next.kind:
	case len(o.keys) == 0 && len(next.keys) > 0, len(o.keys) > 0 && !slices.ContainsFunc(o.keys, func(key string) bool { return !gone(key) }):
		all = append(all, "session.keys")
	case slices.ContainsFunc(o.keys, gone):
		some = append(some, "session.keys")
	}
	refused := func(value string) bool { return !slices.Contains(next.acr, value) }
	if len(next.acr) > 0 && (len(o.acr) == 0 || slices.ContainsFunc(o.acr, refused)) {
		some = append(some, "acr_values")
	}
	if next.absolute < o.absolute {
		some = append(some, "session.absolute")
	}
	switch {
	case len(all) > 0:
		return "people sign in again (" + strings.Join(all, ", ") + ")"
	case len(some) > 0:
		return "some people sign in again (" + strings.Join(some, ", ") + ")"
	}
	return ""
}
