package doctor

import (
	"context"
	"errors"
	"net"
	"net/netip"
	"net/url"
	"slices"
	"strconv"
	"strings"
)

// hosts returns the hosts of all routes.
func (p *patient) hosts() []string {
	var all []string
	for _, r := range p.config.Table() {
		all = append(all, r.Host...)
	}
	slices.Sort(all)
	return slices.Compact(all)
}

// address returns the address that a host is; invalid if it is a name.
func address(host string) netip.Addr {
	a, _ := netip.ParseAddr(strings.Trim(host, "[]"))
	return a.Unmap()
}

// reserved reports whether a name is this machine without DNS (RFC 6761, section 6.3).
func reserved(host string) bool {
	host = strings.ToLower(strings.TrimSuffix(host, "."))
	return host == "localhost" || strings.HasSuffix(host, ".localhost")
}

// names checks that the names of the configuration have addresses.
func (p *patient) names() []check {
	var all []check
	for _, host := range p.hosts() {
		if address(host).IsValid() || reserved(host) || strings.HasPrefix(host, "*.") {
			continue
		}
		all = append(all, func(ctx context.Context) []Finding { return []Finding{p.host(ctx, host)} })
	}
	type named struct{ at, host string }
	var others []named
	for _, name := range issuerNames(p.config) {
		c := p.config.Issuers[name]
		asked := []string{c.Discovery.String(), c.JWKS.String()}
		switch {
		case !c.Proxy.URL.IsZero(): // which resolves the others
			asked = []string{c.Proxy.URL.String()}
		case c.JWKSFile == "" && c.JWKS.IsZero() && c.Discovery.IsZero():
			asked = []string{c.URL}
		}
		if c.Introspection != nil && c.Proxy.URL.IsZero() {
			asked = append(asked, c.Introspection.URL.String())
		}
		for _, u := range asked {
			if parsed, err := url.Parse(u); err == nil && parsed.Host != "" {
				others = append(others, named{"issuers." + name, parsed.Hostname()})
			}
		}
	}
	for _, e := range p.endpoints() {
		others = append(others, named{"upstream " + e.upstream, e.url.Hostname()})
	}
	var seen []string
	for _, n := range others {
		if n.host == "" || address(n.host).IsValid() || reserved(n.host) || slices.Contains(seen, n.host) {
			continue
		}
		seen = append(seen, n.host)
		all = append(all, func(ctx context.Context) []Finding {
			found, err := p.Lookup(ctx, n.host)
			if err != nil {
				return []Finding{{"dns", n.host, Fail, "no address is found, for " + n.at + ": " + lookupFault(err), "correct the name, or add it to DNS or /etc/hosts of this machine"}}
			}
			return []Finding{{"dns", n.host, OK, listed(found), ""}}
		})
	}
	return all
}

// host checks the name of a route, which clients resolve.
func (p *patient) host(ctx context.Context, host string) Finding {
	found, err := p.Lookup(ctx, host)
	switch {
	case err != nil && len(p.exam.ChallengePorts(host)) > 0:
		return Finding{"dns", host, Fail, "no address is found, so no authority can prove the name: " + lookupFault(err), "give it an A or AAAA record that leads to this gateway"}
	case err != nil:
		return Finding{"dns", host, Warn, "no address is found here: " + lookupFault(err), "give it an A or AAAA record; until then clients need the address, as curl --resolve " + net.JoinHostPort(host, p.clientPort()) + ":ADDRESS"}
	case slices.ContainsFunc(found, func(a netip.Addr) bool { return slices.Contains(p.own, a.Unmap()) }):
		return Finding{"dns", host, OK, listed(found) + ", this machine", ""}
	}
	return Finding{"dns", host, OK, listed(found) + ", not this machine: right behind a balancer or NAT", ""}
}

// clientPort returns the port at which clients call routes: of HTTPS, else of plain HTTP. A port that the
// system chooses is not known here.
func (p *patient) clientPort() string {
	if n := p.config.PublicHTTPS; n != 0 {
		return strconv.Itoa(n)
	}
	c := &p.config.Listen
	for _, addr := range slices.Concat(c.HTTPSAddrs(), c.PlainAddr(), c.HTTPAddrs()) {
		if _, port, err := net.SplitHostPort(addr); err == nil && port != "0" {
			return port
		}
	}
	return "PORT"
}

// lookupFault returns the cause of a failed lookup.
func lookupFault(err error) string {
	var dns *net.DNSError
	if errors.As(err, &dns) {
		return dns.Err
	}
	if errors.Is(err, context.DeadlineExceeded) {
		return "the resolver does not answer"
	}
	return err.Error()
}

func listed(all []netip.Addr) string {
	var words []string
	for _, a := range all {
		words = append(words, a.Unmap().String())
	}
	slices.Sort(words)
	return strings.Join(slices.Compact(words), ", ")
}
