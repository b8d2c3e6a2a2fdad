package proxy

import (
	"sallyport/proxy/edge"
	"sallyport/proxy/obtain"
)

type (
	// Certificate is the status of one certificate of a configuration.
	Certificate = edge.CertificateStatus
	// Certificates manages the certificates of a configuration for commands.
	Certificates = obtain.Certificates
)

// OpenCertificates opens the certificates of a configuration from [LoadConfig]. It uses no network
// and changes nothing.
func OpenCertificates(cfg *Config, o Options) (*Certificates, error) {
	o = o.withDefaults()
	return obtain.Open(cfg, obtain.Options{Log: o.Log, Now: o.Now, Listen: o.Listen})
}

// announcedCertificates limits how many certificates are logged at the start.
const announcedCertificates = 100

// announceCertificates logs at the start which certificates exist and which are still to be
// obtained. Later changes are logged where they happen.
func (g *Gateway) announceCertificates() {
	for i, c := range g.memory.edge.Certificates() {
		if i == announcedCertificates {
			g.memory.Log.Info("there are more certificates; see /readyz, or sallyport cert list")
			return
		}
		if c.NotAfter.IsZero() {
			g.memory.Log.Info("certificate missing; it is being obtained", "hosts", c.Hosts, "source", c.Source)
			continue
		}
		facts := []any{"hosts", c.Hosts, "source", c.Source, "issuer", c.Issuer, "not_after", c.NotAfter}
		if !c.NextRenewal.IsZero() {
			facts = append(facts, "next_renewal", c.NextRenewal)
		}
		g.memory.Log.Info("certificate", facts...)
	}
}
