package clientcert

import (
	"bytes"
	"crypto/rsa"
	"crypto/sha256"
	"crypto/x509"
	"encoding/hex"
	"errors"
	"fmt"
	"time"

	"sallyport/auth/identity"
	"sallyport/proxy/setting"
)

// verify builds a chain from the client's certificate to a root and checks it.
func (t *Trust) verify(sent []*x509.Certificate, now time.Time) (*verdict, *Error) {
	leaf := sent[0]
	for _, c := range sent {
		if key, ok := c.PublicKey.(*rsa.PublicKey); ok && key.N.BitLen() > maxRSA {
			return nil, refuse(Chain, "the RSA key of %s has %d bits, at most %d are used", unproven(c), key.N.BitLen(), maxRSA)
		}
	}
	if leaf.IsCA {
		return nil, refuse(WrongUsage, "%s is that of a CA, which is no caller", unproven(leaf))
	}
	intermediates := x509.NewCertPool()
	for _, c := range t.bundle.intermediates {
		intermediates.AddCert(c)
	}
	for _, c := range sent[1:] {
		intermediates.AddCert(c)
	}
	chains, err := leaf.Verify(x509.VerifyOptions{
		Roots: t.bundle.roots, Intermediates: intermediates, CurrentTime: now,
		KeyUsages: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth},
	})
	if err != nil {
		return nil, reasonOf(leaf, err, now)
	}
	var failed *Error
	for _, chain := range chains {
		v, err := t.judge(chain, now)
		if err == nil {
			return v, nil
		}
		if failed == nil {
			failed = err
		}
	}
	return nil, failed
}

// reasonOf returns the reason for an error of crypto/x509.
func reasonOf(leaf *x509.Certificate, err error, now time.Time) *Error {
	var invalid x509.CertificateInvalidError
	var unknown x509.UnknownAuthorityError
	var critical x509.UnhandledCriticalExtension
	switch {
	case errors.As(err, &invalid):
		subject := leaf
		if invalid.Cert != nil {
			subject = invalid.Cert
		}
		switch invalid.Reason {
		case x509.Expired:
			if now.Before(subject.NotBefore) {
				return refuse(NotYetValid, "%s is not valid before %s", unproven(subject), stamp(subject.NotBefore))
			}
			return refuse(Expired, "%s ended at %s", unproven(subject), stamp(subject.NotAfter))
		case x509.IncompatibleUsage, x509.CANotAuthorizedForExtKeyUsage:
			return refuse(WrongUsage, "%s, or a CA above it, is not for clients: its extended key usage lacks clientAuth", unproven(leaf))
		case x509.CANotAuthorizedForThisName, x509.UnconstrainedName, x509.TooManyConstraints, x509.NameConstraintsWithoutSANs:
			return refuse(Name, "a CA may not issue for the names of %s: %s", unproven(leaf), setting.Quoted(invalid.Detail, maxDetail))
		}
		return refuse(Chain, "%s: %s", unproven(leaf), setting.Quoted(invalid.Error(), maxDetail))
	case errors.As(err, &critical):
		return refuse(Chain, "%s, or a CA above it, has a critical extension that the gateway does not know", unproven(leaf))
	case errors.As(err, &unknown) && bytes.Equal(leaf.RawIssuer, leaf.RawSubject):
		return refuse(UnknownCA, "%s is self-signed", unproven(leaf))
	case errors.As(err, &unknown):
		return refuse(UnknownCA, "no CA in ca, and none that the client sent, has issued %s; its issuer is %s", unproven(leaf), quotedName(leaf.Issuer.String()))
	}
	return refuse(Chain, "%s: %s", unproven(leaf), setting.Quoted(err.Error(), maxDetail))
}

// maxDetail is the longest text of crypto/x509 that a cause repeats, in bytes.
const maxDetail = 120

// unproven returns what a cause calls a certificate whose chain is not verified. It does not repeat
// the subject: a stranger could make a record name somebody else.
func unproven(c *x509.Certificate) string {
	sum := sha256.Sum256(c.Raw)
	return fmt.Sprintf("the certificate with the fingerprint sha256:%x…", sum[:8])
}

// judge checks a chain that crypto/x509 has verified: the client's certificate first, the root last.
func (t *Trust) judge(chain []*x509.Certificate, now time.Time) (*verdict, *Error) {
	leaf := chain[0]
	if between := len(chain) - 2; between > t.maxDepth {
		return nil, refuse(Chain, "%d CA certificates stand between %s and the root, max_depth is %d", between, showName(leaf), t.maxDepth)
	}
	v := &verdict{fingerprint: sha256.Sum256(leaf.Raw), notBefore: leaf.NotBefore, notAfter: leaf.NotAfter}
	for _, c := range chain {
		if v.notBefore.Before(c.NotBefore) {
			v.notBefore = c.NotBefore
		}
		if c.NotAfter.Before(v.notAfter) {
			v.notAfter = c.NotAfter
		}
		if t.denied != nil && t.denied[sha256.Sum256(c.Raw)] {
			return nil, refuse(Name, "deny_fingerprints lists %s", showName(c))
		}
	}
	until, failed := t.revoked.check(chain, now)
	if failed != nil {
		return nil, failed
	}
	v.listsUntil = until
	if t.allowed != nil && !t.allowed[v.fingerprint] {
		return nil, refuse(Name, "allow_fingerprints does not list %s, which is %s%s", showName(leaf), fingerprintPrefix, hex.EncodeToString(v.fingerprint[:]))
	}
	v.principal = identity.Principal{
		Source: "cert", KeyID: fingerprintPrefix + hex.EncodeToString(v.fingerprint[:]), ID: leaf.SerialNumber.Text(16) + " " + leaf.Issuer.String(),
		IssuedAt: leaf.NotBefore, Expires: v.notAfter,
	}
	if v.principal.Name, v.unnamed = t.nameOf(chain); v.unnamed == nil {
		v.principal.Groups, v.unnamed = t.groupsOf(chain)
	}
	v.principal.Qualify()
	return v, nil
}
