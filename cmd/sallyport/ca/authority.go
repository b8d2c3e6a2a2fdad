package ca

import (
	"crypto"
	"crypto/rand"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"io/fs"
	"math/big"
	"os"
	"path/filepath"
	"time"

	"github.com/spf13/cobra"
)

// The authority's files, beside the index.
const (
	certFile = "ca.pem"
	keyFile  = "ca.key"
	crlFile  = "ca.crl"
)

// backdated tolerates gateways whose clocks are slow.
const backdated = 5 * time.Minute

// authority is the certificate of an authority, and its key once unlock has read it.
type authority struct {
	dir  string
	cert *x509.Certificate
	key  crypto.Signer
}

// open reads the authority's certificate. It refuses a folder in which others can replace files.
func (k *command) open() (*authority, error) {
	info, err := os.Stat(k.dir)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return nil, fmt.Errorf("there is no folder %s; make an authority with sallyport ca init --dir %[1]s, or name another", k.dir)
	case err != nil:
		return nil, err
	case !info.IsDir():
		return nil, fmt.Errorf("%s is not a folder; --dir names the folder of the authority", k.dir)
	case info.Mode().Perm()&0o022 != 0:
		return nil, fmt.Errorf("other users can write to %s; chmod 755 it", k.dir)
	}
	name := filepath.Join(k.dir, certFile)
	cert, err := readCertificate(name)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("%s has no %s; make an authority in another folder with sallyport ca init", k.dir, certFile)
	}
	if err != nil {
		return nil, err
	}
	if !cert.IsCA {
		return nil, fmt.Errorf("%s is no certificate of an authority", name)
	}
	return &authority{dir: k.dir, cert: cert}, nil
}

// readCertificate reads the first certificate of a PEM file.
func readCertificate(name string) (*x509.Certificate, error) {
	text, err := os.ReadFile(name)
	if err != nil {
		return nil, err
	}
	b, _ := pem.Decode(text)
	if b == nil || b.Type != "CERTIFICATE" {
		return nil, fmt.Errorf("%s does not begin with a certificate in PEM", name)
	}
	cert, err := x509.ParseCertificate(b.Bytes)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", name, err)
	}
	return cert, nil
}

// unlock reads the authority's key. It asks for the passphrase of a sealed one, unless a file has it.
func (k *command) unlock(c *cobra.Command, a *authority, now time.Time) error {
	if !now.Before(a.cert.NotAfter) {
		return fmt.Errorf("the authority in %s ended at %s; make another in a new folder with sallyport ca init", a.dir, stamp(a.cert.NotAfter))
	}
	name := filepath.Join(a.dir, keyFile)
	text, err := readPrivate(name)
	if err != nil {
		return err
	}
	b, _ := pem.Decode(text)
	var der []byte
	switch {
	case b == nil:
		return fmt.Errorf("%s is not PEM; restore it from a backup", name)
	case b.Type == sealedType:
		passphrase, err := k.passphrase(c, name)
		if err != nil {
			return err
		}
		if der, err = unseal(b, passphrase); err != nil {
			return fmt.Errorf("%s: %w", name, err)
		}
	case k.passphraseFile != "":
		return k.usagef("--passphrase-file: %s is not sealed", name)
	default:
		der = b.Bytes
	}
	key, err := x509.ParsePKCS8PrivateKey(der)
	if err != nil {
		return fmt.Errorf("%s: %w; restore it from a backup", name, err)
	}
	signer, ok := key.(crypto.Signer)
	if !ok || !samePublic(signer.Public(), a.cert.PublicKey) {
		return fmt.Errorf("%s is not the key of %s; restore both from one backup", name, certFile)
	}
	a.key = signer
	return nil
}

// passphrase returns the passphrase of a sealed key.
func (k *command) passphrase(c *cobra.Command, name string) (string, error) {
	if k.passphraseFile != "" {
		return readSecret(k.passphraseFile)
	}
	text, err := ask(c, "passphrase of "+name, false)
	if errors.Is(err, errNoTerminal) {
		return "", k.usagef("%s is sealed and %w; name a file with the passphrase by --passphrase-file", name, err)
	}
	return text, err
}

// samePublic reports whether two public keys are equal.
func samePublic(a, b crypto.PublicKey) bool {
	k, ok := a.(interface{ Equal(crypto.PublicKey) bool })
	return ok && k.Equal(b)
}

// newSerial returns a random number of 128 bits. It has no leading zeros, which some programs show
// and others leave out.
func newSerial() *big.Int {
	limit := new(big.Int).Lsh(big.NewInt(1), 128)
	for {
		n, err := rand.Int(rand.Reader, limit)
		if err == nil && n.BitLen() > 124 {
			return n
		}
	}
}

// sign signs a certificate for a public key, and verifies the result as the gateway will.
func (a *authority) sign(template *x509.Certificate, public crypto.PublicKey, now time.Time) (*x509.Certificate, error) {
	der, err := x509.CreateCertificate(rand.Reader, template, a.cert, public, a.key)
	if err != nil {
		return nil, fmt.Errorf("signing: %w", err)
	}
	cert, err := x509.ParseCertificate(der)
	if err != nil {
		return nil, fmt.Errorf("reading what was signed: %w", err)
	}
	roots := x509.NewCertPool()
	roots.AddCert(a.cert)
	if _, err := cert.Verify(x509.VerifyOptions{Roots: roots, CurrentTime: now, KeyUsages: template.ExtKeyUsage}); err != nil {
		return nil, fmt.Errorf("the authority may not certify this: %w", err)
	}
	return cert, nil
}

// pemOf returns certificates in PEM.
func pemOf(certs ...*x509.Certificate) []byte {
	var text []byte
	for _, c := range certs {
		text = append(text, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: c.Raw})...)
	}
	return text
}

// stamp formats a time for people.
func stamp(t time.Time) string { return t.UTC().Format("2006-01-02 15:04:05Z") }
