package config

import (
	"slices"
	"strings"
	"time"

	"sallyport/auth"
	"sallyport/auth/clientcert"
	"sallyport/proxy/expiry"
	"sallyport/proxy/route"
	"sallyport/proxy/setting"
)

// checkClientCertificates records the faults of the section `client_certificates`.
func (c *Config) checkClientCertificates(f *setting.Faults) {
	owner := map[string]int{} // of a host; "" is all others
	for i := range c.ClientCertificates {
		e, at := &c.ClientCertificates[i], setting.Index("client_certificates", i)
		e.Check(at, f)
		if len(e.Hosts) == 0 {
			if first, taken := owner[""]; taken {
				f.Add(at, "", "serves all other hosts, as "+setting.Index("client_certificates", first)+" does", "list hosts in one of the two")
			} else {
				owner[""] = i
			}
		}
		for j, h := range e.Hosts {
			at, host := setting.Index(setting.Join(at, "hosts"), j), canonicalPattern(h)
			switch first, taken := owner[host]; {
			case taken:
				f.Add(at, h, "is served by "+setting.Index("client_certificates", first)+" already", "list it once")
			case !c.routed(host):
				f.Add(at, h, "no route has this host", "write it as a route does")
			default:
				owner[host] = i
			}
		}
	}
}

// routed reports whether a route has the host, or a wildcard that contains it.
func (c *Config) routed(host string) bool {
	_, rest, _ := strings.Cut(host, ".")
	return slices.ContainsFunc(c.Routes, func(r route.Config) bool {
		return slices.ContainsFunc(r.Host, func(h string) bool {
			h = canonicalPattern(h)
			return h == host || h == "*."+rest
		})
	})
}

// servesCertificates reports whether an entry of client_certificates serves a host of a route.
func (c *Config) servesCertificates(host string) bool {
	host = canonicalPattern(host)
	_, rest, _ := strings.Cut(host, ".")
	return slices.ContainsFunc(c.ClientCertificates, func(e clientcert.Config) bool {
		return len(e.Hosts) == 0 || slices.ContainsFunc(e.Hosts, func(h string) bool {
			h = canonicalPattern(h)
			return h == host || h == "*."+rest
		})
	})
}

// checkCertificateHosts records a caller of a route who needs a certificate, on hosts that ask for
// none.
func (c *Config) checkCertificateHosts(r *route.Config, at, caller string, f *setting.Faults) {
	issuer, _ := strings.CutPrefix(caller, "issuer/")
	if kindOfCaller(caller) != "cert" && c.Issuers[issuer].BoundTokens != auth.BoundRequire {
		return
	}
	cure := "add the host to hosts of an entry"
	if len(c.ClientCertificates) == 0 {
		cure = "add client_certificates: {ca: FILE}; sallyport ca init makes such a file"
	}
	for _, h := range r.Host {
		if !c.servesCertificates(h) {
			f.Add(at, caller, "no entry of client_certificates serves "+h+", so no client could prove a certificate there", cure)
			return
		}
	}
}

// usesCertificates reports whether a route uses the certificates of clients: it lists them, or an
// issuer whose tokens may be bound to one.
func (c *Config) usesCertificates(r *route.Config) bool {
	return slices.ContainsFunc(r.Callers.Names(), func(caller string) bool {
		issuer, isIssuer := strings.CutPrefix(caller, "issuer/")
		i := c.Issuers[issuer]
		return kindOfCaller(caller) == "cert" || isIssuer && i.TakesBoundTokens()
	})
}

// AsksForCertificates reports whether a host should ask clients for certificates: one of its routes
// uses them, or the entry that lists it requires them, whatever proves the caller. The host may be
// that of a route, wildcards included, or one that a wildcard contains. As with routes, an exact host
// precedes a wildcard.
func (c *Config) AsksForCertificates(host string) bool {
	host = canonicalPattern(host)
	_, rest, _ := strings.Cut(host, ".")
	uses, known := c.hostUsesCertificates(host)
	if !known {
		uses, _ = c.hostUsesCertificates("*." + rest)
	}
	if uses {
		return true
	}
	e := c.entryListing(host)
	if e == nil {
		e = c.entryListing("*." + rest)
	}
	return e != nil && e.Mode == clientcert.Required
}

// entryListing returns the entry of client_certificates that lists exactly this host; nil for none.
func (c *Config) entryListing(host string) *clientcert.Config {
	for i := range c.ClientCertificates {
		if slices.ContainsFunc(c.ClientCertificates[i].Hosts, func(h string) bool { return canonicalPattern(h) == host }) {
			return &c.ClientCertificates[i]
		}
	}
	return nil
}

func (c *Config) hostUsesCertificates(host string) (uses, known bool) {
	for i := range c.Routes {
		if slices.ContainsFunc(c.Routes[i].Host, func(h string) bool { return canonicalPattern(h) == host }) {
			known = true
			uses = uses || c.usesCertificates(&c.Routes[i])
		}
	}
	return uses, known
}

// warnClientCertificates records entries that no route uses, and balancers whose clients all count as
// one.
func (c *Config) warnClientCertificates(f *setting.Faults) {
	for i := range c.ClientCertificates {
		e, at := &c.ClientCertificates[i], setting.Index("client_certificates", i)
		if e.Header != nil {
			c.checkTrusted(at+".header", e.Header.From, f)
		}
		for j, h := range e.Hosts {
			if !c.AsksForCertificates(h) {
				f.Add(setting.Index(setting.Join(at, "hosts"), j), h, "no route of this host uses certificates", "list cert, or cert/NAME, under callers of one, or remove the host")
			}
		}
		if len(e.Hosts) == 0 && !slices.ContainsFunc(c.Routes, func(r route.Config) bool { return c.usesCertificates(&r) }) {
			f.Add(at, "", "no route uses it", "list cert, or cert/NAME, under callers of a route, or remove it")
		}
	}
}

// certificateEnds returns when the CAs of client certificates and the lists in files end.
func (c *Config) certificateEnds(now time.Time) (all []expiry.End) {
	for i := range c.ClientCertificates {
		at := setting.Index("client_certificates", i)
		for _, e := range c.ClientCertificates[i].Ends(now) {
			end := expiry.End{Kind: expiry.CA, Name: at + " " + e.Name, NotBefore: e.NotBefore, NotAfter: e.NotAfter, At: setting.Join(at, e.Field),
				Cure: "add the CA's next certificate to the file beside this one, before clients have certificates of it"}
			if e.Field == "crl" {
				end.Kind, end.Cure = expiry.CRL, "put the CA's next list in the place of the file: a CA whose list has ended is distrusted"
			}
			all = append(all, end)
		}
	}
	return all
}

// badCertificateName returns why no certificate could have the name.
func (c *Config) badCertificateName(name string) (problem, cure string) {
	switch {
	case len(c.ClientCertificates) == 0:
		return noCertificates()
	case !clientcert.ValidName(name):
		return "not a name that a certificate could have", "write it as the records do, such as spiffe://lab/batch, batch.lab.example, or CN=batch,O=lab"
	}
	return "", ""
}

func noCertificates() (problem, cure string) {
	return "there are no client_certificates", "add an entry with the CA of the clients"
}
