package clientcert

import (
	"bytes"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"os"

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
	return b, nil
}

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
		if o != c && bytes.Equal(o.RawSubject, c.RawIssuer) && c.CheckSignatureFrom(o) == nil {
			return true
		}
	}
	return false
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
