package config

import (
	"fmt"
	"maps"
	"net"
	"net/netip"
	"slices"
	"strconv"
	"strings"
	"time"

	"sallyport/policy/model"
	"sallyport/proxy/setting"
	"sallyport/proxy/upstream"
)

// check records every fault of the file that its own text shows: those of each
// section, and those between sections. It looks at no other file.
func (c *Config) check(f *setting.Faults) {
	c.Listen.check(f)
	c.checkControl(f)
	if c.PublicHTTPS < 0 || c.PublicHTTPS > 65535 {
		f.Add("public_https", strconv.Itoa(c.PublicHTTPS), "not a port", "write one from 1 to 65535")
	}
	if len(c.Listen.HTTPSAddrs()) > 0 || tlsGiven(&c.TLS) {
		c.TLS.Check("tls", f)
	}
	c.checkBehind(f)
	c.TLS.CheckHosts("tls", c.TLSHosts(), len(c.Listen.HTTPAddrs()) > 0, f)
	c.checkIssuers(f)
	c.checkLogins(f)
	c.Pages.Check("pages", f)
	for _, name := range slices.Sorted(maps.Keys(c.Upstreams)) {
		checkName("upstreams", name, f)
		u := c.Upstreams[name]
		u.Check("upstreams."+name, f)
		checkDialect("upstreams."+name, &u, f)
	}
	for _, name := range slices.Sorted(maps.Keys(c.Policies)) {
		checkName("policies", name, f)
		c.checkPolicy("policies."+name, c.Policies[name], f)
	}
	c.checkClientCertificates(f)
	c.checkIntegrity(f)
	c.checkTrustedProxies(f)
	c.Audit.Check("audit", f)
	c.Metrics.Check("metrics", f)
	c.Limits.check(f)
	if d := c.Drain.D(); d > time.Hour {
		f.Add("drain", c.Drain.String(), "longer than any supervisor waits", "write an hour or less")
	}
	if d := c.DrainDelay.D(); d > time.Hour {
		f.Add("drain_delay", c.DrainDelay.String(), "longer than any supervisor waits", "write an hour or less")
	}
	c.checkRoutes(f)
}

// checkName keeps names of our own to what reads well in paths, records and
// metrics.
func checkName(section, name string, f *setting.Faults) {
	ok := name != "" && len(name) <= 64
	for _, r := range name {
		ok = ok && (r >= 'a' && r <= 'z' || r >= 'A' && r <= 'Z' || r >= '0' && r <= '9' || r == '-' || r == '_')
	}
	if !ok {
		f.Add(section+"."+name, "", "a name may have letters, digits, - and _, up to 64", "choose such a name")
	}
}

// maxListeners bounds the addresses of one kind.
const maxListeners = 64

func (c *ListenConfig) check(f *setting.Faults) {
	var taken []string
	for _, l := range []struct {
		path   string
		addrs  []string
		mayOff bool
	}{
		{"listen.https", c.HTTPS, c.servesPlain()},
		{"listen.http", c.HTTP, true},
		{"listen.health", []string{c.Health}, true},
		{"listen.insecure_plain.addr", c.PlainAddr(), false},
		{"listen.forward_auth.addr", c.ForwardAuthAddr(), false},
	} {
		if len(l.addrs) > maxListeners {
			f.Add(l.path, "", fmt.Sprintf("more than %d addresses", maxListeners), `write ":443" for all of this machine's`)
			continue
		}
		for _, addr := range l.addrs {
			switch {
			case addr == "" && l.path == "listen.health":
				addr = defaultHealth
			case addr == off && !l.mayOff:
				f.Add(l.path, addr, "the listener for requests cannot be switched off", `write an address such as ":443"`)
				continue
			case addr == off && len(l.addrs) > 1:
				f.Add(l.path, addr, "stands beside addresses", "write off alone, or remove it")
				continue
			case addr == off:
				continue
			}
			if cure := badListenAddr(addr); cure != "" {
				f.Add(l.path, addr, "not an address to listen on", cure)
				continue
			}
			for _, other := range taken {
				if sameListener(addr, other) {
					f.Add(l.path, addr, "the same address as "+other, "choose another port")
					break
				}
			}
			taken = append(taken, addr)
		}
		switch {
		case l.path == "listen.https" && len(l.addrs) == 0:
			taken = append(taken, defaultHTTPS)
		case l.path == "listen.http" && len(l.addrs) == 0:
			taken = append(taken, defaultHTTP)
		}
	}
}

// badListenAddr returns what would do in place of addr, "" if it is sound.
func badListenAddr(addr string) string {
	if n, err := strconv.ParseUint(addr, 10, 16); err == nil {
		return fmt.Sprintf(`write ":%d"`, n)
	}
	host, port, err := net.SplitHostPort(addr)
	if err != nil {
		return `write HOST:PORT, such as ":443" or "127.0.0.1:8443"`
	}
	if _, err := strconv.ParseUint(port, 10, 16); err != nil {
		return "write the port as a number from 1 to 65535"
	}
	if _, err := netip.ParseAddr(host); host != "" && host != "localhost" && err != nil {
		return "write an address of this machine, or nothing before the colon for all of them"
	}
	return ""
}

// sameListener reports whether two sound addresses cannot both be listened on. Port
// 0 is any free one.
func sameListener(a, b string) bool {
	aHost, aPort, _ := net.SplitHostPort(a)
	bHost, bPort, _ := net.SplitHostPort(b)
	everywhere := func(host string) bool { return host == "" || host == "0.0.0.0" || host == "::" }
	return aPort == bPort && aPort != "0" && (aHost == bHost || everywhere(aHost) || everywhere(bHost))
}

func (c *Config) checkTrustedProxies(f *setting.Faults) {
	if c.TrustAllProxies && len(c.TrustedProxies) == 0 {
		f.Add("insecure_trust_all_proxies", "true", "there are no trusted_proxies", "remove the line")
	}
	for i, p := range c.TrustedProxies {
		if tooWide(p.Prefix) && !c.TrustAllProxies {
			f.Add(setting.Index("trusted_proxies", i), p.String(), "trusts strangers to say whose address they have",
				"list the addresses of your balancers; insecure_trust_all_proxies: true takes it as it is")
		}
	}
}

func (l *ServerLimits) check(f *setting.Faults) {
	for _, n := range []struct {
		name      string
		value     int
		low, high int
	}{
		{"connections", l.Connections, 1, 10_000_000},
		{"connections_per_address", l.ConnectionsPerAddress, 1, 10_000_000},
		{"streams", l.Streams, 1, 10_000},
		{"requests", l.Requests, 1, 1_000_000_000},
		{"fields", l.Fields, 16, 1000},
		{"resets", l.Resets, 1, 1_000_000},
		{"frames", l.Frames, 100, 1_000_000},
	} {
		if n.value != 0 && (n.value < n.low || n.value > n.high) {
			f.Add("limits."+n.name, strconv.Itoa(n.value), "out of bounds", fmt.Sprintf("write a number from %d to %d", n.low, n.high))
		}
	}
	if b := l.HeadBytes; b != 0 && (b < 4<<10 || b > 1<<20) {
		f.Add("limits.head_bytes", b.String(), "out of bounds", "write a size from 4KiB to 1MiB")
	}
	if w := l.Window; w != 0 && (w < 64<<10 || w > 256<<20) {
		f.Add("limits.window", w.String(), "out of bounds", "write a size from 64KiB to 256MiB")
	}
	if m := l.Memory; m != 0 && m < 64<<20 {
		f.Add("limits.memory", m.String(), "less than the gateway itself takes", "write 64MiB or more")
	}
	for _, d := range []struct {
		name  string
		value setting.Duration
		high  time.Duration
	}{{"head_time", l.HeadTime, 2 * time.Minute}, {"keep_alive", l.KeepAlive, time.Hour}, {"linger", l.Linger, time.Minute}} {
		if d.value.D() > d.high {
			f.Add("limits."+d.name, d.value.String(), "so long that idle clients could fill the gateway", "write "+setting.Duration(d.high).String()+" or less")
		}
	}
}

// checkDialect records the faults of what an upstream says of its dialect.
func checkDialect(path string, u *upstream.Config, f *setting.Faults) {
	_, faults := model.New(modelConfig(u))
	for _, fault := range faults {
		f.Add(setting.Join(path, fault.Key), fault.Value, fault.Problem, fault.Cure)
	}
}

// cureIssuer names the issuers that there are.
func (c *Config) cureIssuer(name string) string {
	return cureName("issuers", name, slices.Sorted(maps.Keys(c.Issuers)))
}

// cureName says which name may have been meant, or which there are.
func cureName(section, name string, known []string) string {
	if near := setting.Nearest(name, known); near != "" {
		return "did you mean " + near + "?"
	}
	if len(known) == 0 {
		return "add it under " + section
	}
	if len(known) > 12 {
		known = append(slices.Clone(known[:12]), "...")
	}
	return "there are: " + strings.Join(known, ", ")
}
