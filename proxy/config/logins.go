package config

import (
	"maps"
	"slices"
	"strings"

	"sallyport/auth"
	"sallyport/auth/login"
	"sallyport/proxy/route"
	"sallyport/proxy/setting"
)

// checkLogins records the faults of each login.
func (c *Config) checkLogins(f *setting.Faults) {
	for _, name := range slices.Sorted(maps.Keys(c.Logins)) {
		checkName("logins", name, f)
		l, at := c.Logins[name], "logins."+name
		var issuer *auth.IssuerConfig
		if found, known := c.Issuers[l.Issuer]; known {
			issuer = &found
		} else if l.Issuer == "" {
			f.Add(at+".issuer", "", "missing", "write the name of the issuer where people sign in; "+c.cureIssuer(l.Issuer))
		} else {
			f.Add(at+".issuer", l.Issuer, "there is no such issuer", c.cureIssuer(l.Issuer))
		}
		l.Check(at, issuer, f)
		c.checkOwnFile(at+".session.state", l.Session.StateFile(), f)
	}
}

// checkOwnFile records that another section has the file with the ends of sessions too.
func (c *Config) checkOwnFile(at, file string, f *setting.Faults) {
	for of, other := range map[string]setting.Place{"integrity.state": c.Integrity.State, "audit.file": c.Audit.File} {
		if file != "" && string(other) == file {
			f.Add(at, file, "is the file of "+of+" too", "name a file of its own")
		}
	}
}

// checkLoginFiles records why files of logins and pages cannot be used.
func (c *Config) checkLoginFiles(f *setting.Faults) {
	for _, name := range slices.Sorted(maps.Keys(c.Logins)) {
		l := c.Logins[name]
		l.CheckFiles("logins."+name, f)
	}
	if _, err := c.Pages.ReadLogo(); err != nil {
		f.Add("pages.logo", string(c.Pages.Logo), err.Error(), setting.CureUnreadable(err, "name a picture"))
	}
}

// warnLogins records what is probably a mistake in logins and pages.
func (c *Config) warnLogins(f *setting.Faults) {
	for _, name := range slices.Sorted(maps.Keys(c.Logins)) {
		l := c.Logins[name]
		l.Warn("logins."+name, f)
	}
	if len(c.Logins) == 0 && (c.Pages.Title != "" || c.Pages.Logo != "") {
		f.Add("pages", "", "there are no logins, so nobody sees these pages", "add logins, or remove the section")
	}
}

// checkLoginPaths records that a route has the paths of sign-in and sign-out on a host where people
// sign in.
func (c *Config) checkLoginPaths(r *route.Config, at string, f *setting.Faults) {
	path := strings.ToLower(strings.TrimPrefix(r.Path, "="))
	if path+"/" != login.Prefix && !strings.HasPrefix(path, login.Prefix) {
		return
	}
	for i := range c.Routes {
		other := &c.Routes[i]
		if len(other.Callers.Logins()) > 0 && shareHost(r, other) {
			f.Add(at+".path", r.Path, "is of the gateway itself where people sign in, as they do by the route on "+c.where(i), "choose a path outside of "+login.Prefix)
			return
		}
	}
}

// shareHost reports whether two routes have a host in common.
func shareHost(a, b *route.Config) bool {
	return slices.ContainsFunc(a.Host, func(h string) bool {
		return slices.ContainsFunc(b.Host, func(o string) bool { return sameHost(h, o) })
	})
}

// issuerOf returns the issuer whose principals a caller proves; "" for other kinds of proof.
func (c *Config) issuerOf(caller string) string {
	kind, name, _ := strings.Cut(caller, "/")
	switch kind {
	case "issuer":
		return name
	case "login":
		return c.Logins[name].Issuer
	}
	return ""
}
