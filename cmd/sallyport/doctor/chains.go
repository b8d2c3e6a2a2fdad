package doctor

import (
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"net"
	"strings"
	"time"
)

// chains checks the certificates that clients of each host get: from the running gateway, or from
// the files that it would use.
func (p *patient) chains() []check {
	if len(p.config.Listen.HTTPSAddrs()) == 0 {
		return nil
	}
	var all []check
	for _, host := range p.hosts() {
		all = append(all, func(ctx context.Context) []Finding { return []Finding{p.chain(ctx, host)} })
	}
	return all
}

// listener returns the address of the running gateway's HTTPS listener; "" if it cannot be asked.
func (p *patient) listener() string {
	if p.status == nil || p.config.Listen.ProxyProtocol != nil { // which wants to hear of the client first
		return ""
	}
	for _, l := range p.status.Listeners {
		if l.For != "https" {
			continue
		}
		host, port, err := net.SplitHostPort(l.Addr)
		if err != nil {
			continue
		}
		if a := address(host); !a.IsValid() || a.IsUnspecified() {
			host = "127.0.0.1"
		}
		return net.JoinHostPort(host, port)
	}
	return ""
}

func (p *patient) chain(ctx context.Context, host string) Finding {
	chain, root := p.exam.Chain(host)
	from := "in the files of the gateway"
	at := p.listener()
	if at != "" && !address(host).IsValid() { // who dials an address sends no name
		var err error
		if chain, err = p.served(ctx, at, strings.Replace(host, "*", "any", 1)); err != nil {
			return Finding{"tls", host, Fail, "the handshake with the running gateway at " + at + " fails: " + err.Error(), "its log has the reason; sallyport cert list shows the certificates"}
		}
		from = "served by the running gateway"
	}
	if len(chain) == 0 {
		state, cure := Skipped, "the gateway makes one at its start"
		if p.config.TLS.Local == nil {
			state, cure = Fail, "sallyport cert list says what hinders it; sallyport cert obtain --dry-run tries it"
		}
		return Finding{"tls", host, state, "there is no certificate yet", cure}
	}
	roots, err := p.rootsOf(root)
	if err != nil {
		return Finding{"tls", host, Fail, err.Error(), ""}
	}
	f := p.judgeChain(host, chain, roots)
	f.Text += ", " + from
	if root != "" && f.State == OK {
		f.Text += "; clients must trust " + root
	}
	return f
}

// served returns the certificates that a server sends for a name. It verifies nothing itself.
func (p *patient) served(ctx context.Context, at, name string) ([][]byte, error) {
	conn, err := p.Dial(ctx, "tcp", at)
	if err != nil {
		return nil, err
	}
	defer conn.Close()
	t := tls.Client(conn, &tls.Config{ServerName: name, InsecureSkipVerify: true, NextProtos: []string{"h2", "http/1.1"}})
	if err := t.HandshakeContext(ctx); err != nil {
		return nil, err
	}
	var chain [][]byte
	for _, c := range t.ConnectionState().PeerCertificates {
		chain = append(chain, c.Raw)
	}
	return chain, nil
}

// judgeChain verifies a chain as a client of the host would.
func (p *patient) judgeChain(host string, chain [][]byte, roots *x509.CertPool) Finding {
	leaf, err := x509.ParseCertificate(chain[0])
	if err != nil {
		return Finding{"tls", host, Fail, "the certificate cannot be read: " + err.Error(), "make it anew"}
	}
	others := x509.NewCertPool()
	for _, der := range chain[1:] {
		if c, err := x509.ParseCertificate(der); err == nil {
			others.AddCert(c)
		}
	}
	now := p.Now()
	name := strings.Replace(host, "*", "any", 1)
	_, err = leaf.Verify(x509.VerifyOptions{DNSName: name, Roots: roots, Intermediates: others, CurrentTime: now})
	ends := "until " + leaf.NotAfter.UTC().Format("2006-01-02 15:04Z")
	var invalid x509.CertificateInvalidError
	switch {
	case err == nil && leaf.NotAfter.Sub(now) < leaf.NotAfter.Sub(leaf.NotBefore)/10:
		return Finding{"tls", host, Warn, "a certificate of " + issuerOf(leaf) + ", " + ends + ": less than a tenth of its life is left", "renew it; sallyport cert list says when the gateway does so itself"}
	case err == nil:
		return Finding{"tls", host, OK, "a certificate of " + issuerOf(leaf) + ", " + ends, ""}
	case errors.As(err, &invalid) && invalid.Reason == x509.Expired && now.Before(leaf.NotBefore):
		return Finding{"tls", host, Fail, "the certificate is valid from " + leaf.NotBefore.UTC().Format(time.RFC3339) + " on", "wait, or correct the clock of this machine"}
	case errors.As(err, &invalid) && invalid.Reason == x509.Expired:
		return Finding{"tls", host, Fail, "the certificate, or one of its chain, has ended: " + ends, "renew it; put the new one in the place of the files"}
	case errors.As(err, new(x509.HostnameError)):
		return Finding{"tls", host, Fail, "the certificate is for " + strings.Join(leaf.DNSNames, ", ") + " and not for this host", "obtain one with this name"}
	case errors.As(err, new(x509.UnknownAuthorityError)) && len(chain) == 1 && !bytes.Equal(leaf.RawIssuer, leaf.RawSubject):
		return Finding{"tls", host, Fail, "its issuer " + issuerOf(leaf) + " is not trusted here, and no other certificate is sent", "put the intermediate certificates behind the first in the file (fullchain.pem); for an authority of your own, clients need its root"}
	case errors.As(err, new(x509.UnknownAuthorityError)):
		return Finding{"tls", host, Warn, "a certificate of " + issuerOf(leaf) + ", " + ends + ", which this machine does not trust", "clients need the root certificate of its authority"}
	}
	return Finding{"tls", host, Fail, "the certificate does not verify: " + err.Error(), "obtain another one"}
}

func issuerOf(c *x509.Certificate) string {
	if bytes.Equal(c.RawIssuer, c.RawSubject) {
		return "itself"
	}
	if c.Issuer.CommonName != "" {
		return fmt.Sprintf("%q", c.Issuer.CommonName)
	}
	return fmt.Sprintf("%q", c.Issuer.String())
}
