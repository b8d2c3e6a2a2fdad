package proxy

import (
	"time"

	"sallyport/auth"
	"sallyport/proxy/admin"
	"sallyport/proxy/config"
	"sallyport/proxy/expiry"
)

// EndWarnings returns a warning for each key and certificate of a configuration that has expired, or
// expires within the last tenth of its lifetime. offline leaves out those that are in files.
func EndWarnings(cfg *Config, offline bool, now time.Time) Faults {
	ends := cfg.Ends(!offline, now)
	if !offline {
		// A fault of the files is reported by [Config.CheckFiles].
		if certs, err := OpenCertificates(cfg, Options{}); err == nil {
			ends = append(ends, config.CertificateEnds(certs.List())...)
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
	all := append(config.CertificateEnds(g.memory.edge.Certificates()), s.ends...)
	all = append(all, config.ListEnds(g.memory.certs.Status())...)
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

// endsOf converts ends for a report.
func endsOf(all []expiry.End, now time.Time) []admin.End {
	var ends []admin.End
	for i := range all {
		e := &all[i]
		ends = append(ends, admin.End{Kind: e.Kind, Name: e.Name, NotAfter: e.NotAfter.UTC(), Left: string(e.Left(now))})
	}
	return ends
}
