package proxy

import (
	"strings"
	"time"

	"sallyport/auth"
	"sallyport/auth/clientcert"
	"sallyport/proxy/admin"
	"sallyport/proxy/expiry"
)

// EndWarnings returns a warning for each key and certificate of a configuration that has expired, or
// expires within the last tenth of its lifetime. offline leaves out those that are in files.
func EndWarnings(cfg *Config, offline bool, now time.Time) Faults {
	ends := cfg.Ends(!offline, now)
	if !offline {
		// A fault of the files is reported by [Config.CheckFiles].
		if certs, err := OpenCertificates(cfg, Options{}); err == nil {
			ends = append(ends, certificateEnds(certs.List())...)
		}
		if keys, err := auth.ReadAPIKeys(nil, cfg.APIKeyFile); err == nil {
			ends = appendFileEnd(ends, cfg, keys, now)
		}
	}
	return cfg.EndWarnings(expiry.Sort(ends), now)
}

// ends returns when the keys and certificates in use expire, the earliest first.
func (g *Gateway) ends() []expiry.End {
	s := g.now()
	all := append(certificateEnds(g.memory.edge.Certificates()), s.ends...)
	all = append(all, listEnds(g.memory.certs.Status())...)
	return expiry.Sort(appendFileEnd(all, s.config, s.apiKeys, g.memory.options.Now()))
}

// appendFileEnd appends the next end of a key in the file of API keys. It is another one once that
// has passed.
func appendFileEnd(all []expiry.End, cfg *Config, keys *auth.APIKeys, now time.Time) []expiry.End {
	if e, ok := cfg.APIKeyFileEnd(keys, now); ok {
		all = append(all, e)
	}
	return all
}

// listEnds returns when the revocation lists that were fetched end.
func listEnds(all []clientcert.ListStatus) []expiry.End {
	ends := make([]expiry.End, 0, len(all))
	for _, l := range all {
		ends = append(ends, expiry.End{
			Kind: expiry.CRL, Name: l.URL, NotBefore: l.ThisUpdate, NotAfter: l.NextUpdate, At: "client_certificates.crl",
			Renewing: l.LastError == "",
			Cure:     "the gateway fetches the next one itself, and logs what hinders it; crl_grace lets an ended one count for longer",
		})
	}
	return ends
}

// certificateEnds returns when the gateway's own certificates expire.
func certificateEnds(all []Certificate) []expiry.End {
	ends := make([]expiry.End, 0, len(all))
	for _, c := range all {
		e := expiry.End{
			Kind: expiry.Certificate, Name: strings.Join(c.Hosts, ","), NotBefore: c.NotBefore, NotAfter: c.NotAfter, At: "tls." + c.Source,
			Renewing: c.Source != "files" && c.LastError == "",
		}
		switch c.Source {
		case "files":
			e.Cure = "put the renewed certificate and its key in the place of the files; the gateway loads them within seconds"
		default:
			e.Cure = "the gateway renews it itself; sallyport status and sallyport cert list say what hinders it"
		}
		ends = append(ends, e)
	}
	return ends
}

// endsOf converts ends for a report.
func endsOf(all []expiry.End, now time.Time) []admin.End {
	var ends []admin.End
	for i := range all {
		e := &all[i]
		ends = append(ends, admin.End{Kind: e.Kind, Name: e.Name, NotAfter: e.NotAfter.UTC(), Left: string(e.Left(now))})
	}
	return ends
}
