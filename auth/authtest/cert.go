package authtest

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"math/big"
	"net/url"
	"sync/atomic"
	"time"
)

// Cert is a certificate with its private key.
type Cert struct {
	*x509.Certificate
	Private *ecdsa.PrivateKey
}

// serial is the last serial number given out by any CA of the process.
var serial atomic.Int64

// NewCA returns a self-signed CA that is valid for a day around now. change may alter the template;
// nil leaves it as it is.
func NewCA(name string, now time.Time, change func(*x509.Certificate)) Cert {
	template := caTemplate(name, now)
	if change != nil {
		change(template)
	}
	return sign(template, nil)
}

// CA returns a CA below c.
func (c Cert) CA(name string, change func(*x509.Certificate)) Cert {
	template := caTemplate(name, c.NotBefore.Add(time.Hour))
	if change != nil {
		change(template)
	}
	return sign(template, &c)
}

// Cross returns the CA once more, with the same name and key, as another CA has certified it.
func (c Cert) Cross(by Cert) Cert {
	template := caTemplate(c.Subject.CommonName, c.NotBefore.Add(time.Hour))
	template.SerialNumber = big.NewInt(1000 + serial.Add(1))
	der := must(x509.CreateCertificate(rand.Reader, template, by.Certificate, c.Private.Public(), by.Private))
	return Cert{must(x509.ParseCertificate(der)), c.Private}
}

// Client returns a certificate for clients that c issues. Its subject has the common name; SPIFFE
// IDs and other names come from change, which may be nil.
func (c Cert) Client(name string, change func(*x509.Certificate)) Cert {
	template := &x509.Certificate{
		Subject: pkix.Name{CommonName: name}, NotBefore: c.NotBefore, NotAfter: c.NotAfter,
		KeyUsage: x509.KeyUsageDigitalSignature, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth},
		BasicConstraintsValid: true,
	}
	if change != nil {
		change(template)
	}
	return sign(template, &c)
}

// URIs returns a change of a template that adds URI names.
func URIs(all ...string) func(*x509.Certificate) {
	return func(t *x509.Certificate) {
		for _, text := range all {
			t.URIs = append(t.URIs, must(url.Parse(text)))
		}
	}
}

func caTemplate(name string, now time.Time) *x509.Certificate {
	return &x509.Certificate{
		Subject: pkix.Name{CommonName: name}, NotBefore: now.Add(-time.Hour), NotAfter: now.Add(24 * time.Hour),
		KeyUsage: x509.KeyUsageCertSign | x509.KeyUsageCRLSign, BasicConstraintsValid: true, IsCA: true, MaxPathLen: -1,
	}
}

// sign signs a template with the issuer's key; nil signs it with its own.
func sign(template *x509.Certificate, issuer *Cert) Cert {
	key := must(ecdsa.GenerateKey(elliptic.P256(), rand.Reader))
	if template.SerialNumber == nil {
		template.SerialNumber = big.NewInt(1000 + serial.Add(1))
	}
	parent, by := template, key
	if issuer != nil {
		parent, by = issuer.Certificate, issuer.Private
	}
	der := must(x509.CreateCertificate(rand.Reader, template, parent, key.Public(), by))
	return Cert{must(x509.ParseCertificate(der)), key}
}

// Revoke returns a revocation list of c in DER, current for an hour from now on. change may alter
// the template; nil leaves it as it is.
func (c Cert) Revoke(now time.Time, change func(*x509.RevocationList), revoked ...Cert) []byte {
	template := &x509.RevocationList{Number: big.NewInt(now.Unix()), ThisUpdate: now, NextUpdate: now.Add(time.Hour)}
	for _, r := range revoked {
		template.RevokedCertificateEntries = append(template.RevokedCertificateEntries, x509.RevocationListEntry{SerialNumber: r.SerialNumber, RevocationTime: now})
	}
	if change != nil {
		change(template)
	}
	return must(x509.CreateRevocationList(rand.Reader, template, c.Certificate, c.Private))
}

// PEM returns the certificates in PEM.
func PEM(all ...Cert) []byte {
	var text []byte
	for _, c := range all {
		text = append(text, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: c.Raw})...)
	}
	return text
}

// TLS returns the certificate for a client, with those of CAs that it sends along.
func (c Cert) TLS(along ...Cert) tls.Certificate {
	t := tls.Certificate{Certificate: [][]byte{c.Raw}, PrivateKey: c.Private, Leaf: c.Certificate}
	for _, ca := range along {
		t.Certificate = append(t.Certificate, ca.Raw)
	}
	return t
}

// ChainOf returns certificates as a handshake has them.
func ChainOf(all ...Cert) []*x509.Certificate {
	var chain []*x509.Certificate
	for _, c := range all {
		chain = append(chain, c.Certificate)
	}
	return chain
}
