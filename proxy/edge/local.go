package edge

import (
	"bytes"
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"maps"
	"net"
	"os"
	"path/filepath"
	"sync"
	"sync/atomic"
	"time"

	"sallyport/proxy/setting"
)

// localSource signs certificates for the configured hosts only, with an authority on disk.
// The certificates exist in memory only; each start signs new ones.
type localSource struct {
	authority *authority
	rootPath  string
	hosts     []string
	log       *slog.Logger
	now       func() time.Time

	certs atomic.Pointer[map[string]*tls.Certificate] // by host, in the form that routes use

	mu        sync.Mutex // guards lastError; held while renewing
	lastError string
}

// authority is a root certificate with its key.
type authority struct {
	root *x509.Certificate
	key  crypto.Signer
}

const (
	// The root is valid for years because people install it into trust stores by hand. Hosts
	// change, so it has no name constraints. MaxPathLen 0 and a key that only we can read limit
	// the damage instead.
	rootLife = 10 * 365 * 24 * time.Hour
	leafLife = 7 * 24 * time.Hour
	// leafRest is the remaining lifetime at which a certificate is renewed.
	leafRest = leafLife / 3
	// backdated tolerates clients whose clocks are slow.
	backdated = 24 * time.Hour

	authorityFile = "authority.pem" // certificate and key, 0600
	// RootFile is the name of the file with the root certificate alone, for clients.
	RootFile = "root.pem"
)

func newLocalSource(dir string, hosts []string, o Options) (*localSource, error) {
	dir, err := filepath.Abs(dir)
	if err != nil {
		return nil, fmt.Errorf("local certificate authority: %w", err)
	}
	var a *authority
	if o.Inspect {
		a, err = readAuthority(dir) // addLocal has seen that there is one
	} else {
		a, err = openAuthority(dir, o.Now())
	}
	if err == nil && a == nil {
		err = fmt.Errorf("the local certificate authority in %s has been removed", dir)
	}
	if err != nil {
		return nil, err
	}
	s := &localSource{authority: a, rootPath: filepath.Join(dir, RootFile), hosts: hosts, log: o.Log, now: o.Now}
	if err := s.renew(); err != nil {
		return nil, err
	}
	return s, nil
}

// openAuthority reads the authority in dir, or creates one.
func openAuthority(dir string, now time.Time) (*authority, error) {
	a, err := readAuthority(dir)
	if err != nil {
		return nil, err
	}
	if a == nil {
		if a, err = makeAuthority(dir, now); err != nil {
			return nil, fmt.Errorf("making the local certificate authority: %w", err)
		}
	}
	if err := a.checkLife(dir, now); err != nil {
		return nil, err
	}
	root := pemBlock("CERTIFICATE", a.root.Raw)
	name := filepath.Join(dir, RootFile)
	if old, err := os.ReadFile(name); err == nil && bytes.Equal(old, root) {
		return a, nil
	}
	if err := writeFile(name, root, 0o644, os.Rename); err != nil {
		return nil, fmt.Errorf("writing the local certificate authority's root: %w", err)
	}
	return a, nil
}

// checkLife returns an error if the authority in dir expires before a certificate that it signs now.
func (a *authority) checkLife(dir string, now time.Time) error {
	if a.root.NotAfter.Sub(now) < leafLife {
		return fmt.Errorf("the local certificate authority in %s expires at %s; remove the folder to create a new one", dir, a.root.NotAfter.Format(time.RFC3339))
	}
	return nil
}

// checkFolder records why no authority can be read from the folder, or created there.
func (c *LocalConfig) checkFolder(path string, f *setting.Faults) {
	dir := c.dir()
	if problem, cure := setting.NameFault(dir); problem != "" {
		f.Add(path, dir, problem, cure)
		return
	}
	a, err := readAuthority(dir)
	if err == nil && a != nil {
		err = a.checkLife(dir, time.Now())
	}
	if err != nil {
		f.Add(path, dir, err.Error(), setting.CureUnreadable(err, ""))
		return
	}
	if a != nil {
		if root, err := os.ReadFile(filepath.Join(dir, RootFile)); err == nil && bytes.Equal(root, pemBlock("CERTIFICATE", a.root.Raw)) {
			return // nothing is written
		}
	}
	if problem, cure := setting.FolderFault(dir, true); problem != "" {
		f.Add(path, dir, problem, cure)
	}
}

// readAuthority reads the authority in dir; nil if there is none.
func readAuthority(dir string) (*authority, error) {
	name := filepath.Join(dir, authorityFile)
	info, err := os.Stat(name)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("reading the local certificate authority: %w", err)
	}
	if info.Mode().Perm()&0o077 != 0 {
		return nil, fmt.Errorf("the local certificate authority's key can be accessed by other users; chmod 600 %s", name)
	}
	b, err := readPEM(name, true)
	if err != nil {
		return nil, fmt.Errorf("reading the local certificate authority: %w", err)
	}
	pair, err := tls.X509KeyPair(b, b)
	if err != nil {
		return nil, fmt.Errorf("reading the local certificate authority %s: %w; remove the folder to create a new one", name, err)
	}
	key, ok := pair.PrivateKey.(crypto.Signer)
	if !ok || !pair.Leaf.IsCA {
		return nil, fmt.Errorf("%s is not a certificate authority; remove the folder to create a new one", name)
	}
	return &authority{root: pair.Leaf, key: key}, nil
}

// makeAuthority creates an authority in dir. If several processes do so at the same time,
// one wins and all use its authority.
func makeAuthority(dir string, now time.Time) (*authority, error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, err
	}
	host, err := os.Hostname()
	if err != nil {
		host = "this machine"
	}
	template := &x509.Certificate{
		Subject: pkix.Name{
			Organization: []string{"sallyport local development"},
			CommonName:   short("sallyport local CA of "+host, 60) + " " + now.Format("2006-01-02"),
		},
		NotBefore:             now.Add(-backdated),
		NotAfter:              now.Add(rootLife),
		KeyUsage:              x509.KeyUsageCertSign,
		BasicConstraintsValid: true,
		IsCA:                  true,
		MaxPathLenZero:        true,
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		return nil, err
	}
	keyDER, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		return nil, err
	}
	if err := makeReadable(dir); err != nil {
		return nil, err
	}
	text := append(pemBlock("CERTIFICATE", der), pemBlock("PRIVATE KEY", keyDER)...)
	if err := writeFile(filepath.Join(dir, authorityFile), text, 0o600, linkOrRename); err != nil {
		return nil, err
	}
	a, err := readAuthority(dir)
	if err == nil && a == nil {
		err = fmt.Errorf("%s has been removed", filepath.Join(dir, authorityFile))
	}
	return a, err
}

// makeReadable creates a folder that every user may read, whatever the umask: clients read the root
// there. The key in it has a mode of its own. A folder that exists keeps its mode.
func makeReadable(dir string) error {
	if err := os.MkdirAll(filepath.Dir(dir), 0o755); err != nil {
		return err
	}
	err := os.Mkdir(dir, 0o755)
	if errors.Is(err, fs.ErrExist) {
		return nil // a file is noticed when the key is written
	}
	if err != nil {
		return err
	}
	return os.Chmod(dir, 0o755)
}

// linkOrRename renames a file unless the target exists already. On file systems without
// links, it overwrites the target.
func linkOrRename(from, to string) error {
	if err := os.Link(from, to); err == nil || errors.Is(err, fs.ErrExist) {
		return nil
	}
	return os.Rename(from, to)
}

// writeFile writes a file atomically: readers see all of it or nothing. rename moves the
// temporary file to its name.
func writeFile(name string, b []byte, mode fs.FileMode, rename func(from, to string) error) error {
	f, err := os.CreateTemp(filepath.Dir(name), ".new-*") // made with mode 0600
	if err != nil {
		return err
	}
	defer os.Remove(f.Name())
	_, err = f.Write(b)
	if err == nil {
		err = f.Chmod(mode)
	}
	if err == nil {
		err = f.Sync()
	}
	if err = errors.Join(err, f.Close()); err != nil {
		return err
	}
	return rename(f.Name(), name)
}

func pemBlock(kind string, der []byte) []byte {
	return pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: der})
}

// issue signs a certificate for a host, which may begin with "*.".
func (a *authority) issue(host string, now time.Time) (*tls.Certificate, error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, err
	}
	end := now.Add(leafLife)
	if end.After(a.root.NotAfter) {
		end = a.root.NotAfter
	}
	template := &x509.Certificate{
		Subject:               pkix.Name{Organization: []string{"sallyport local development"}},
		DNSNames:              []string{host},
		NotBefore:             now.Add(-backdated),
		NotAfter:              end,
		KeyUsage:              x509.KeyUsageDigitalSignature,
		ExtKeyUsage:           []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth},
		BasicConstraintsValid: true,
	}
	if ip := hostAddress(host); ip != nil {
		template.DNSNames, template.IPAddresses = nil, []net.IP{ip}
	}
	der, err := x509.CreateCertificate(rand.Reader, template, a.root, key.Public(), a.key)
	if err != nil {
		return nil, err
	}
	leaf, err := x509.ParseCertificate(der)
	if err != nil {
		return nil, err
	}
	return &tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key, Leaf: leaf}, nil
}

// renew signs certificates that are missing or expire soon.
func (s *localSource) renew() error {
	now := s.now()
	var old map[string]*tls.Certificate
	if p := s.certs.Load(); p != nil {
		old = *p
	}
	next := maps.Clone(old)
	if next == nil {
		next = make(map[string]*tls.Certificate, len(s.hosts))
	}
	for _, host := range s.hosts {
		if c := old[host]; c != nil && c.Leaf.NotAfter.Sub(now) > leafRest {
			continue
		}
		c, err := s.authority.issue(host, now)
		if err != nil {
			return fmt.Errorf("signing a local certificate for %s: %w", host, err)
		}
		next[host] = c
	}
	s.certs.Store(&next)
	return nil
}

func (s *localSource) look() {
	s.mu.Lock()
	defer s.mu.Unlock()
	err := s.renew()
	if err != nil && s.lastError == "" {
		s.log.Error("local certificates are not renewed", "error", err)
	}
	s.lastError = ""
	if err != nil {
		s.lastError = err.Error()
	}
}

func (s *localSource) covers(host string) bool { return (*s.certs.Load())[host] != nil }

func (s *localSource) certificate(name string, _ *tls.ClientHelloInfo) *tls.Certificate {
	certs := *s.certs.Load()
	if c := certs[name]; c != nil {
		return c
	}
	return certs[wildcard(name)]
}

func (s *localSource) status() []CertificateStatus {
	s.mu.Lock()
	defer s.mu.Unlock()
	certs := *s.certs.Load()
	var all []CertificateStatus
	for _, host := range s.hosts {
		all = append(all, CertificateStatus{
			Hosts:       []string{host},
			Source:      "local",
			Issuer:      s.authority.root.Subject.CommonName,
			NotBefore:   certs[host].Leaf.NotBefore,
			NotAfter:    certs[host].Leaf.NotAfter,
			NextRenewal: certs[host].Leaf.NotAfter.Add(-leafRest),
			LastError:   s.lastError,
		})
	}
	return all
}
