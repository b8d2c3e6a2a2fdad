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
		if host := l.Session.SignInHost; host != "" && (strings.HasPrefix(host, "*.") || !slices.ContainsFunc(c.hostsOf(name), func(h string) bool { return sameHost(h, host) })) {
			f.Add(at+".session.sign_in_host", host, "no route of this host lists login/"+name, "list it under callers of a route of the host, such as one with respond: 204")
		}
		c.checkOwnFile(at+".session.state", l.Session.StateFile(), f)
	}
}

// ReadLogins reads the files of the logins, and returns them with what their routes need.
func (c *Config) ReadLogins() (map[string]login.Config, error) {
	all, err := auth.ReadLogins(c.Logins)
	for i := range c.Routes {
		for _, name := range c.Routes[i].Callers.Logins() {
			if l, found := all[name]; found {
				l.Passed = l.Passed.And(passedBy(&c.Routes[i]))
				all[name] = l
			}
		}
	}
	return all, err
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
		c.warnCookieDomain(name, f)
	}
	c.warnAskAs(f)
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

// checkCookieDomains records which sessions the hosts of route i cannot have: those of another domain, and
// two kinds side by side, so that signing out of one would leave the other.
func (c *Config) checkCookieDomains(i int, f *setting.Faults) {
	r, at := &c.Routes[i], setting.Index("routes", i)
	for n, name := range r.Callers.Logins() {
		l, known := c.Logins[name]
		domain, good := l.Session.Domain()
		if !known || !good {
			continue
		}
		for k, host := range r.Host {
			if domain != "" && !inDomain(host, domain) {
				f.Add(setting.Index(at+".host", k), host, "is not in "+domain+", the cookie_domain of login/"+name, "choose a host in it, a wider cookie_domain, or another login for this host")
			}
		}
		if other, j := c.otherDomain(i, n, domain); other != "" {
			f.Add(at+".callers", "login/"+name, "its sessions and those of login/"+other+", which the route on "+c.where(j)+" lists for the same host, are for different cookie_domains, so that a person could have two at once", "write the same cookie_domain at both, or list one of the two")
		}
	}
}

// otherDomain returns a login before the nth one of route i, on a host of the route, whose sessions are for
// another domain, and its route; "" for none.
func (c *Config) otherDomain(i, n int, domain string) (name string, at int) {
	for j := range i + 1 {
		other := &c.Routes[j]
		names := other.Callers.Logins()
		if j == i {
			names = names[:n]
		}
		for _, name := range names {
			l, known := c.Logins[name]
			if d, good := l.Session.Domain(); known && good && d != domain && shareHost(&c.Routes[i], other) {
				return name, j
			}
		}
	}
	return "", 0
}

// inDomain reports whether all hosts that the host of a route means are in a domain.
func inDomain(host, domain string) bool {
	host = strings.ToLower(strings.TrimSuffix(strings.TrimPrefix(host, "*."), "."))
	return host == domain || strings.HasSuffix(host, "."+domain)
}

// warnCookieDomain records that a smaller domain has all hosts of a login, or that there is one host alone.
func (c *Config) warnCookieDomain(name string, f *setting.Faults) {
	l, at := c.Logins[name], "logins."+name+".session.cookie_domain"
	domain, _ := l.Session.Domain()
	hosts := c.hostsOf(name)
	if domain == "" || len(hosts) == 0 {
		return
	}
	if len(hosts) == 1 && !strings.HasPrefix(hosts[0], "*.") {
		f.Add(at, domain, "only "+hosts[0]+" has routes with this login, and all servers of the domain get its sessions", "remove the line")
		return
	}
	least := strings.TrimPrefix(hosts[0], "*.")
	for _, host := range hosts {
		for least != "" && !inDomain(host, least) {
			_, least, _ = strings.Cut(least, ".")
		}
	}
	if least != domain {
		f.Add(at, domain, "all hosts of its routes are in "+least+", and the other servers of the domain get its sessions too", "write "+least)
	}
}

// hostsOf returns the hosts of the routes that list a login.
func (c *Config) hostsOf(login string) []string {
	all := map[string]bool{}
	for i := range c.Routes {
		if r := &c.Routes[i]; slices.Contains(r.Callers.Logins(), login) {
			for _, host := range r.Host {
				all[strings.ToLower(strings.TrimSuffix(host, "."))] = true
			}
		}
	}
	return slices.Sorted(maps.Keys(all))
}

// checkStepUp records logins none of whose sessions could satisfy the step_up of a route.
func (c *Config) checkStepUp(r *route.Config, at string, f *setting.Faults) {
	d := r.StepUpDemand()
	if d == nil || len(d.ACR) == 0 {
		return
	}
	for _, name := range r.Callers.Logins() {
		own := login.StepUp{ACR: c.Logins[name].ACRValues}
		if len(own.Shared(d.ACR)) == 0 {
			f.Add(at+".step_up.acr_values", strings.Join(d.ACR, ", "), "no session of login/"+name+" has one of these: its acr_values are "+strings.Join(own.ACR, ", "),
				"list a value here that logins."+name+".acr_values has too, or add one of these there")
		}
	}
}

// warnAskAs records words of ask_as that no acr_values of a route or login lists, so that nobody is asked for them.
func (c *Config) warnAskAs(f *setting.Faults) {
	listed := map[string]bool{}
	for _, l := range c.Logins {
		for _, value := range l.ACRValues {
			listed[value] = true
		}
	}
	for i := range c.Routes {
		if s := c.Routes[i].StepUp; s != nil {
			for _, value := range s.ACRValues {
				listed[value] = true
			}
		}
	}
	for _, name := range slices.Sorted(maps.Keys(c.Issuers)) {
		acr := c.Issuers[name].ACR
		if acr == nil {
			continue
		}
		for _, value := range slices.Sorted(maps.Keys(acr.AskAs)) {
			if !listed[value] {
				f.Add(setting.Join("issuers."+name+".acr.ask_as", value), acr.AskAs[value], "no acr_values list "+value, "write "+value+" under acr_values of a login, or of step_up of a route, or remove it")
			}
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
