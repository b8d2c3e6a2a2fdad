package config

import (
	"cmp"
	"maps"
	"net"
	"slices"
	"strconv"

	"sallyport/auth/login"
)

// Registration is what the issuer of a login must know of the gateway.
type Registration struct {
	Login    string `json:"login"`
	Issuer   string `json:"issuer"` // its name in the configuration
	ClientID string `json:"client_id"`
	// Redirects and SignedOut are the redirect URIs, and the pages after sign-out, of all hosts without a
	// star.
	Redirects []string `json:"redirect_uris"`
	SignedOut []string `json:"post_logout_redirect_uris"`
	// BackChannel is where the issuer may tell that it ended sessions, at any of the hosts; "" if all
	// have a star.
	BackChannel string `json:"backchannel_logout_uri,omitempty"`
	// Wildcards are the hosts with a star. Issuers do not register those.
	Wildcards []string `json:"wildcard_hosts,omitempty"`
}

// Registrations returns those of all logins that routes list, by their names. It is not nil. Ports are those
// of public_https or of the first address for HTTPS: a container may publish others.
func (c *Config) Registrations() []Registration {
	port := ""
	if addrs := c.Listen.HTTPSAddrs(); len(addrs) > 0 {
		_, port, _ = net.SplitHostPort(addrs[0])
	}
	if c.PublicHTTPS != 0 {
		port = strconv.Itoa(c.PublicHTTPS)
	}
	if port = cmp.Or(port, "443"); port == "443" {
		port = ""
	} else {
		port = ":" + port
	}
	all := []Registration{}
	for _, name := range slices.Sorted(maps.Keys(c.Logins)) {
		l := c.Logins[name]
		hosts := c.hostsOf(name)
		if l.Session.SignInHost != "" {
			hosts = []string{l.Session.SignInHost}
		}
		if len(hosts) == 0 {
			continue
		}
		r := Registration{Login: name, Issuer: l.Issuer, ClientID: l.ClientID, Redirects: []string{}, SignedOut: []string{}}
		for _, host := range hosts {
			if host[0] == '*' {
				r.Wildcards = append(r.Wildcards, host)
				continue
			}
			base := "https://" + host + port
			r.Redirects = append(r.Redirects, base+login.CallbackPath(name))
			r.SignedOut = append(r.SignedOut, base+login.SignedOutPath)
			r.BackChannel = cmp.Or(r.BackChannel, base+login.BackChannelPath)
		}
		all = append(all, r)
	}
	return all
}
