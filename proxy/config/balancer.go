package config

import (
	"maps"
	"net/netip"
	"slices"

	"sallyport/auth"
	"sallyport/auth/login"
	"sallyport/proxy/edge"
	"sallyport/proxy/setting"
)

// ProxyProtocolConfig is the section `listen.proxy_protocol`: balancers that pass
// TCP on and tell by a header in front of it who the client is.
type ProxyProtocolConfig struct {
	// From are their addresses. From elsewhere the header is refused.
	From setting.List[setting.CIDR] `yaml:"from"`
	// Optional takes their connections without a header too, for health checks that
	// send none; such requests then go by the balancer's own address.
	Optional bool `yaml:"optional"`
}

// PlainConfig is the section `listen.insecure_plain`.
type PlainConfig struct {
	// Addr is the address HOST:PORT.
	Addr string `yaml:"addr"`
	// From are the addresses of the balancers; all other connections are closed.
	From setting.List[setting.CIDR] `yaml:"from"`
	// H2C takes HTTP/2 besides HTTP/1.1, from balancers that know that it is spoken
	// here (prior knowledge); nothing is upgraded to it.
	H2C bool `yaml:"h2c"`
}

// Prefixes are the ranges of a list.
func Prefixes(list []setting.CIDR) []netip.Prefix {
	all := make([]netip.Prefix, 0, len(list))
	for _, c := range list {
		all = append(all, c.Prefix)
	}
	return all
}

// checkBehind records the faults of what the gateway does behind others.
func (c *Config) checkBehind(f *setting.Faults) {
	l := &c.Listen
	if p := l.ProxyProtocol; p != nil {
		checkPeers("listen.proxy_protocol", p.From, f)
	}
	if p := l.InsecurePlain; p != nil {
		checkPeers("listen.insecure_plain", p.From, f)
		c.checkTrusted("listen.insecure_plain", p.From, f)
	}
	if p := l.ForwardAuth; p != nil {
		checkPeers("listen.forward_auth", p.From, f)
		c.checkTrusted("listen.forward_auth", p.From, f)
		p.Check("listen.forward_auth", f)
		c.checkSessionsBehind(f)
	}
}

// checkSessionsBehind records why people could not sign in, or not stay signed in, behind a proxy that
// asks.
func (c *Config) checkSessionsBehind(f *setting.Faults) {
	l := &c.Listen
	for _, name := range slices.Sorted(maps.Keys(c.Logins)) {
		used := c.Logins[name]
		if len(c.hostsOf(name)) == 0 {
			continue
		}
		if len(l.HTTPSAddrs()) == 0 && l.InsecurePlain == nil {
			f.Add("logins."+name, "", "nobody could sign in: listen.forward_auth only decides, and no listener serves the pages under "+login.Prefix,
				"add listen.insecure_plain, to which the proxy that asks forwards "+login.Prefix+" of each host, or list no login under callers")
		}
		if kind := used.Session.Kind; l.ForwardAuth.ReplacesCookie && kind != auth.SessionInMemory {
			f.Add("logins."+name+".session.kind", kind, "the gateway renews a session in a cookie by Set-Cookie, which a proxy that asks (listen.forward_auth.replaces_cookie) does not pass on to the browser",
				"write kind: memory, and remove keys and state")
		}
	}
}

// checkPeers records lists of peers that are none.
func checkPeers(at string, from []setting.CIDR, f *setting.Faults) {
	at += ".from"
	if len(from) == 0 {
		f.Add(at, "", "nobody is listed, so nobody would be served", "list the addresses of your balancers, such as 10.0.0.5")
	}
	for i, p := range from {
		if tooWide(p.Prefix) {
			f.Add(setting.Index(at, i), p.String(), "lets strangers say who they are", "list the addresses of your balancers")
		}
	}
}

// checkTrusted records peers whose statement of the client's address is not believed. The
// gateway would take such a peer for the client in limits, allow_from and the records.
// listen.forward_auth does not read the PROXY protocol.
func (c *Config) checkTrusted(at string, from []setting.CIDR, f *setting.Faults) {
	believed, cure := slices.Clone(c.TrustedProxies), "add it to trusted_proxies"
	problem := "is not among trusted_proxies, so its clients would all have its address"
	if p := c.Listen.ProxyProtocol; p != nil && at != "listen.forward_auth" {
		believed = append(believed, p.From...)
		problem = "is neither among trusted_proxies nor in listen.proxy_protocol.from, so its clients would all have its address"
		cure += ", or to listen.proxy_protocol.from if it sends that header"
	}
	for i, p := range from {
		if !p.IsValid() || tooWide(p.Prefix) {
			continue
		}
		if !coveredBy(p.Prefix, believed) {
			f.Add(setting.Index(at+".from", i), p.String(), problem, cure)
		}
	}
}

func coveredBy(p netip.Prefix, all []setting.CIDR) bool {
	for _, t := range all {
		if t.IsValid() && t.Bits() <= p.Bits() && t.Overlaps(p) {
			return true
		}
	}
	return false
}

// tooWide reports whether a range holds more than is anybody's own: 10.0.0.0/8 and
// fc00::/7 are the widest that are.
func tooWide(p netip.Prefix) bool {
	return p.IsValid() && (p.Addr().Is4() && p.Bits() < 8 || p.Addr().Is6() && p.Bits() < 7)
}

// PlainAddr is the address of insecure_plain as written, if it is there.
func (c *ListenConfig) PlainAddr() []string {
	if c.InsecurePlain == nil {
		return nil
	}
	return []string{c.InsecurePlain.Addr}
}

// ForwardAuthAddr is the address of forward_auth as written, if it is there.
func (c *ListenConfig) ForwardAuthAddr() []string {
	if c.ForwardAuth == nil {
		return nil
	}
	return []string{c.ForwardAuth.Addr}
}

// tlsGiven reports whether anything stands in the section tls.
func tlsGiven(c *edge.Config) bool {
	return len(c.Files) > 0 || c.Local != nil || c.ACME != nil || c.MinVersion != ""
}

// TLSHosts are the hosts that need a certificate, each once: none where no listener has
// TLS.
func (c *Config) TLSHosts() []string {
	if len(c.Listen.HTTPSAddrs()) == 0 {
		return nil
	}
	var hosts []string
	for i := range c.Routes {
		hosts = append(hosts, c.Routes[i].Host...)
	}
	slices.Sort(hosts)
	return slices.Compact(hosts)
}
