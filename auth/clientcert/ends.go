package clientcert

import (
	"time"
)

// End says when a CA certificate or a revocation list in a file ends.
type End struct {
	Field               string // of the entry: ca or crl
	Name                string // of the CA
	NotBefore, NotAfter time.Time
}

// Ends returns the ends of the CA certificates and of the lists in files. It leaves out what cannot
// be read, which CheckFiles reports, and CAs that have ended while another of the same name has not.
func (c *Config) Ends(now time.Time) (all []End) {
	b, err := readBundle(c.CA)
	if err != nil {
		return nil
	}
	lasting := map[string]bool{}
	for _, ca := range b.all {
		lasting[string(ca.RawSubject)] = lasting[string(ca.RawSubject)] || now.Before(ca.NotAfter)
	}
	for _, ca := range b.all {
		if now.Before(ca.NotAfter) || !lasting[string(ca.RawSubject)] {
			all = append(all, End{"ca", ca.Subject.String(), ca.NotBefore, ca.NotAfter})
		}
	}
	for _, s := range c.CRL {
		if s.File == "" {
			continue
		}
		lists, err := readListFile(string(s.File), b.all)
		if err != nil {
			continue
		}
		for _, l := range lists {
			all = append(all, End{"crl", l.name, l.thisUpdate, l.nextUpdate.Add(c.CRLGrace.D())})
		}
	}
	return all
}
