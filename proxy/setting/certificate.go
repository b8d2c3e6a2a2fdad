package setting

import (
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"os"
	"slices"
	"time"
)

// Certificate is a certificate by which the gateway proves itself as a client, in files.
type Certificate struct {
	// Cert is the PEM file with the certificate and, after it, the intermediate ones.
	Cert Path `yaml:"cert"`
	// Key is the PEM file with the private key. Others must not be able to write it.
	Key Path `yaml:"key"`
}

// Check records the faults that the section itself shows.
func (c *Certificate) Check(path string, f *Faults) {
	if c.Cert == "" {
		f.Add(Join(path, "cert"), "", "a certificate without its file", "name the PEM file with the certificate")
	}
	if c.Key == "" {
		f.Add(Join(path, "key"), "", "a certificate without its key", "name the PEM file with the private key")
	}
}

// CheckFiles records why the files cannot be used.
func (c *Certificate) CheckFiles(path string, f *Faults) {
	if _, err := c.Read(); err != nil {
		at, name := Join(path, "cert"), string(c.Cert)
		if errors.As(err, new(*keyFileError)) {
			at, name = Join(path, "key"), string(c.Key)
		}
		f.Add(at, name, err.Error(), CureUnreadable(err, ""))
	}
}

// keyFileError is a fault of the file with the key.
type keyFileError struct{ error }

func (e *keyFileError) Unwrap() error { return e.error }

// Read reads the certificate. Errors never contain the key.
func (c *Certificate) Read() (*tls.Certificate, error) {
	cert, err := ReadPEM(string(c.Cert), false)
	if err != nil {
		return nil, fmt.Errorf("reading the certificate: %w", err)
	}
	key, err := ReadPEM(string(c.Key), true)
	if err != nil {
		return nil, &keyFileError{fmt.Errorf("reading the private key: %w", err)}
	}
	pair, err := tls.X509KeyPair(cert, key)
	if err != nil {
		return nil, fmt.Errorf("with key %s: %w", c.Key, err)
	}
	if use := pair.Leaf.ExtKeyUsage; len(use) > 0 && !slices.Contains(use, x509.ExtKeyUsageClientAuth) && !slices.Contains(use, x509.ExtKeyUsageAny) {
		return nil, errors.New("the certificate is not for clients: its extended key usage lacks clientAuth")
	}
	return &pair, nil
}

// Validity returns when the certificate begins and ends; ok is false if it cannot be read.
func (c *Certificate) Validity() (notBefore, notAfter time.Time, ok bool) {
	pair, err := c.Read()
	if err != nil {
		return time.Time{}, time.Time{}, false
	}
	return pair.Leaf.NotBefore, pair.Leaf.NotAfter, true
}

// ReadPEM reads a regular file of at most [MaxFile] bytes. Others than the owner must not be able to
// write a private one.
func ReadPEM(name string, private bool) ([]byte, error) {
	info, err := os.Stat(name) // opening a named pipe would block
	if err != nil {
		return nil, err
	}
	if !info.Mode().IsRegular() {
		return nil, fmt.Errorf("%s is not a regular file", name)
	}
	if private {
		if err := WrittenByOwner(name, info); err != nil {
			return nil, err
		}
	}
	file, err := os.Open(name)
	if err != nil {
		return nil, err
	}
	defer file.Close()
	text, err := io.ReadAll(io.LimitReader(file, MaxFile+1))
	if err == nil && len(text) > MaxFile { // Digest reads no more
		err = fmt.Errorf("%s is larger than %d bytes", name, MaxFile)
	}
	return text, err
}
