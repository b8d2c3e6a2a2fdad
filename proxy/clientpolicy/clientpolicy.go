// Package clientpolicy answers which hosts of a configuration ask for client certificates, and which
// connections and requests may use such a host.
package clientpolicy

import (
	"crypto/x509"
	"fmt"
	"strings"

	"sallyport/auth"
	"sallyport/auth/clientcert"
	"sallyport/proxy/config"
	"sallyport/proxy/edge"
	"sallyport/proxy/exchange"
	"sallyport/proxy/message"
	"sallyport/proxy/wire"
)

// Policies are the hosts of a configuration that ask for client certificates. They are immutable, and
// safe for concurrent use.
type Policies struct {
	trusts   *clientcert.Hosts
	exact    map[string]bool // whether a host asks for certificates
	wildcard map[string]bool // the same for "example.com" of "*.example.com"
	policies map[*clientcert.Trust]*edge.ClientPolicy
}

// New returns the policies of a configuration; nil if none of its hosts asks for certificates.
func New(cfg *config.Config, trusts *clientcert.Hosts) *Policies {
	if len(cfg.ClientCertificates) == 0 {
		return nil
	}
	p := &Policies{trusts: trusts, exact: map[string]bool{}, wildcard: map[string]bool{}, policies: map[*clientcert.Trust]*edge.ClientPolicy{}}
	var hosts []string // also without a listener for TLS: balancers may end it
	for i := range cfg.Routes {
		hosts = append(hosts, cfg.Routes[i].Host...)
	}
	for i := range cfg.ClientCertificates {
		hosts = append(hosts, cfg.ClientCertificates[i].Hosts...) // may be one name of a wildcard host
	}
	for _, host := range hosts {
		asks := cfg.AsksForCertificates(host)
		if rest, ok := strings.CutPrefix(host, "*."); ok {
			p.wildcard[rest] = asks
		} else {
			p.exact[host] = asks
		}
		if t := trusts.For(host); asks && t != nil && p.policies[t] == nil {
			p.policies[t] = policyOf(t)
		}
	}
	if len(p.policies) == 0 {
		return nil
	}
	return p
}

func policyOf(t *clientcert.Trust) *edge.ClientPolicy {
	return &edge.ClientPolicy{
		ID: t.ID(), Required: t.Required(), Subjects: t.Subjects(),
		Verify: func(chain []*x509.Certificate) error {
			_, err := t.Verify(chain)
			return err
		},
		Reason: func(err error) string { return auth.CertificateError(err).Reason },
	}
}

// Of returns the policy of a host; nil if it asks for no certificate.
func (p *Policies) Of(host string) *edge.ClientPolicy {
	_, policy := p.trustOf(host)
	return policy
}

func (p *Policies) trustOf(host string) (*clientcert.Trust, *edge.ClientPolicy) {
	asks, known := p.exact[host]
	if !known {
		_, rest, _ := strings.Cut(host, ".")
		asks = p.wildcard[rest]
	}
	if !asks {
		return nil, nil
	}
	t := p.trusts.For(host)
	return t, p.policies[t]
}

// CheckConn implements [exchange.Snapshot.CheckConn].
func (p *Policies) CheckConn(host string, c *wire.Conn) error {
	trust, policy := p.trustOf(host)
	if policy == nil || c.TLS == nil { // without TLS, a balancer has ended it
		return nil
	}
	// A balancer may use one connection for all hosts: it sends each client's certificate in a field.
	if named := edge.HostOf(c.TLS.ServerName, c.Local); named != host && trust.HeaderFrom(c.Peer.Addr()) == "" {
		if other := p.Of(named); other == nil || other.ID != policy.ID {
			return &exchange.Misdirected{Cause: fmt.Sprintf("the connection was opened for %q, which does not ask for client certificates as this host does", named)}
		}
	}
	switch {
	case !policy.Required:
	case len(c.TLS.PeerCertificates) == 0:
		return &exchange.Misdirected{Cause: "the connection was opened before the host required client certificates", Outdated: true}
	default:
		if err := policy.Verify(c.TLS.PeerCertificates); err != nil {
			return auth.CertificateError(err)
		}
	}
	return nil
}

// CheckBalanced implements [exchange.Snapshot.CheckBalanced]. Where no field is configured, nobody can
// prove a certificate.
func (p *Policies) CheckBalanced(head *message.Head, c *wire.Conn) error {
	trust, policy := p.trustOf(head.Host)
	if policy == nil || !policy.Required || c.TLS != nil && trust.HeaderFrom(c.Peer.Addr()) == "" {
		return nil
	}
	return auth.CheckCertificate(p.trusts, &auth.Request{Head: head, Via: c.Peer.Addr().Unmap(), Conn: c.TLS})
}

// CertificateField implements [exchange.Snapshot.CertificateField].
func (p *Policies) CertificateField(host, name string, c *wire.Conn) bool {
	trust, policy := p.trustOf(host)
	if policy == nil {
		return false
	}
	field := trust.HeaderFrom(c.Peer.Addr())
	return field != "" && (name == field || field == clientcert.FieldClientCert && name == clientcert.FieldClientCertChain)
}

// Outdated implements [exchange.Snapshot.Outdated].
func (p *Policies) Outdated(host string, c *wire.Conn) bool {
	trust, policy := p.trustOf(host)
	return policy != nil && c.TLS != nil && c.ClientPolicy != policy.ID && trust.HeaderFrom(c.Peer.Addr()) == ""
}
