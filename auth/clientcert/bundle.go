package clientcert

import (
	"bytes"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"os"
	"slices"

	"sallyport/proxy/setting"
)

// bundle is the CAs of an entry. It is immutable.
type bundle struct {
	all           []*x509.Certificate
	roots         *x509.CertPool
	intermediates []*x509.Certificate // those of all that another one has issued
	subjects      [][]byte
}

// readBundle reads the CA files of an entry.
//
// A certificate that another one of them has issued is no root: otherwise neither the constraints
// of its issuer nor the issuer's revocation list would bind it.
func readBundle(files []setting.Path) (*bundle, error) {
	b := &bundle{roots: x509.NewCertPool()}
	for _, name := range files {
		some, err := readCAs(string(name))
		if err != nil {
			return nil, fmt.Errorf("ca %s: %w", name, err)
		}
		for _, c := range some {
			if !contains(b.all, c) {
				b.all = append(b.all, c)
			}
		}
	}
	for _, c := range b.all {
		if issuedByOther(c, b.all) {
			b.intermediates = append(b.intermediates, c)
		} else {
			b.roots.AddCert(c)
		}
		b.subjects = append(b.subjects, c.RawSubject)
	}
	if c := b.rootless(); c != nil {
		return nil, &rootless{c}
	}
	return b, nil
}

// rootless returns a CA of the bundle from which no chain leads to a root, nil if there is none. CAs that
// have signed each other's certificates are such. All their clients would be refused.
func (b *bundle) rootless() *x509.Certificate {
	reached, left := []*x509.Certificate{}, slices.Clone(b.intermediates)
	for _, c := range b.all {
		if !slices.Contains(left, c) {
			reached = append(reached, c)
		}
	}
	for i := 0; i < len(reached); i++ {
		left = slices.DeleteFunc(left, func(c *x509.Certificate) bool {
			found := issued(reached[i], c)
			if found {
				reached = append(reached, c)
			}
			return found
		})
	}
	if len(left) > 0 {
		return left[0]
	}
	return nil
}

// rootless is the error of a bundle with such a CA.
type rootless struct{ ca *x509.Certificate }

func (e *rootless) Error() string {
	return showName(e.ca) + " is signed by " + setting.Quoted(e.ca.Issuer.String(), 64) + ", and no chain of ca leads to a root, so all its clients would be refused"
}

const cureRootless = "add the self-signed certificate of one of the two to ca, or leave out the one that the other has signed"

func contains(all []*x509.Certificate, c *x509.Certificate) bool {
	for _, o := range all {
		if o.Equal(c) {
			return true
		}
	}
	return false
}

// issuedByOther reports whether another CA than the holder of c has signed c.
func issuedByOther(c *x509.Certificate, all []*x509.Certificate) bool {
	if bytes.Equal(c.RawIssuer, c.RawSubject) && c.CheckSignatureFrom(c) == nil {
		return false
	}
	for _, o := range all {
		if o != c && issued(o, c) {
			return true
		}
	}
	return false
}

// issued reports whether the holder of ca has signed c.
func issued(ca, c *x509.Certificate) bool {
	return bytes.Equal(ca.RawSubject, c.RawIssuer) && c.CheckSignatureFrom(ca) == nil
}

var (
	errNoCertificate = errors.New("holds no certificate in PEM")
	errNotCA         = errors.New("is not the certificate of a CA")
)

// readCAs reads a PEM file of CA certificates. Every certificate in it must be usable, since a
// skipped one would refuse clients without a word.
func readCAs(name string) ([]*x509.Certificate, error) {
	text, err := readRegular(name, setting.MaxFile)
	if err != nil {
		return nil, err
	}
	var all []*x509.Certificate
	for n := 1; ; n++ {
		var block *pem.Block
		if block, text = pem.Decode(text); block == nil {
			break
		}
		if block.Type != "CERTIFICATE" {
			return nil, fmt.Errorf("block %d is a %s and not a certificate", n, setting.Quoted(block.Type, 32))
		}
		c, err := x509.ParseCertificate(block.Bytes)
		if err != nil {
			return nil, fmt.Errorf("certificate %d is malformed: %w", n, err)
		}
		if !c.BasicConstraintsValid || !c.IsCA {
			return nil, fmt.Errorf("certificate %d, %s, %w", n, showName(c), errNotCA)
		}
		all = append(all, c)
	}
	if len(all) == 0 {
		return nil, errNoCertificate
	}
	return all, nil
}

// readRegular reads a file of at most most bytes. Opening a named pipe would block.
func readRegular(name string, most int64) ([]byte, error) {
	info, err := os.Stat(name)
	switch {
	case err != nil:
		return nil, err
	case !info.Mode().IsRegular():
		return nil, errors.New("is not a regular file")
	}
	file, err := os.Open(name)
	if err != nil {
		return nil, err
	}
	defer file.Close()
	text, err := io.ReadAll(io.LimitReader(file, most+1))
	if err == nil && int64(len(text)) > most {
		err = fmt.Errorf("is larger than %s", setting.Size(most))
	}
	return text, err
}

// showName returns the subject of a certificate for messages.
func showName(c *x509.Certificate) string { return setting.Quoted(c.Subject.String(), 64) }
