package edge

import (
	"bytes"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"sallyport/proxy/setting"
)

// fileSource serves certificates from files and reloads them when they change.
type fileSource struct {
	hosts []string // hosts of the routes
	log   *slog.Logger
	now   func() time.Time

	index atomic.Pointer[fileIndex] // of pairs; replaced together with them

	mu    sync.Mutex // guards pairs
	pairs []*pair
}

// fileIndex maps the names in certificates, wildcards included, to the certificates.
type fileIndex map[string][]*tls.Certificate

// pair is the last valid certificate and key that the two files held.
type pair struct {
	config FileConfig
	cert   *tls.Certificate
	digest digest // of the files that cert was read from

	// For files that are invalid: the fault seen at the last poll, and the fault last logged.
	seen, logged digest
	lastError    string
}

type digest [sha256.Size]byte

// maxPEM is the maximum size of a file in bytes.
const maxPEM = 1 << 20

// newFileSource reads the files. serving is the source in use, or nil. Its valid certificates
// are not replaced by ones that have expired or are not valid yet.
func newFileSource(configs []FileConfig, o Options, serving *fileSource) (*fileSource, error) {
	s := &fileSource{hosts: slices.Clone(o.Hosts), log: o.Log, now: o.Now}
	for _, c := range configs {
		p, err := loadPair(c)
		if err == nil {
			err = p.mayReplace(serving.pairOf(c), o.Now())
		}
		if err != nil {
			return nil, err
		}
		s.pairs = append(s.pairs, p)
		if exposed(string(c.Key)) {
			o.Log.Warn("the private key can be read by every user of this machine; chmod o-r", "key", c.Key)
		}
	}
	s.index.Store(newFileIndex(s.pairs))
	return s, nil
}

// pairOf returns the loaded pair for these files, or nil.
func (s *fileSource) pairOf(c FileConfig) *pair {
	if s == nil {
		return nil
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if i := slices.IndexFunc(s.pairs, func(p *pair) bool { return p.config == c }); i >= 0 {
		return s.pairs[i]
	}
	return nil
}

// mayReplace returns an error if p has expired or is not valid yet while old is better. A nil
// old may be replaced by any pair.
func (p *pair) mayReplace(old *pair, now time.Time) error {
	if old == nil || p.digest == old.digest {
		return nil
	}
	leaf := p.cert.Leaf
	if now.After(leaf.NotAfter) && now.Before(old.cert.Leaf.NotAfter) {
		return fmt.Errorf("certificate %s expired at %s", p.config.Cert, leaf.NotAfter.Format(time.RFC3339))
	}
	if now.Before(leaf.NotBefore) {
		return fmt.Errorf("certificate %s is valid only from %s on", p.config.Cert, leaf.NotBefore.Format(time.RFC3339))
	}
	return nil
}

// loadPair reads a pair. It returns an error if the pair cannot be served.
func loadPair(c FileConfig) (*pair, error) {
	cert, err := readPEM(string(c.Cert), false)
	if err != nil {
		return nil, fmt.Errorf("reading the certificate: %w", err)
	}
	key, err := readPEM(string(c.Key), true)
	if err != nil {
		return nil, fmt.Errorf("reading the private key: %w", err)
	}
	p := &pair{config: c, digest: digestOf(cert, key)}
	k, err := tls.X509KeyPair(cert, key)
	if err != nil {
		return p, fmt.Errorf("certificate %s with key %s: %w", c.Cert, c.Key, err)
	}
	if len(hostsIn(k.Leaf)) == 0 {
		return p, fmt.Errorf("certificate %s names no host in its subjectAltName; clients ignore the common name", c.Cert)
	}
	// Self-signed certificates may have the CA flag, because openssl sets it by default. Any
	// other CA certificate is the wrong file.
	if k.Leaf.IsCA && !bytes.Equal(k.Leaf.RawIssuer, k.Leaf.RawSubject) {
		return p, fmt.Errorf("certificate %s belongs to a certificate authority; name a file that begins with the server's certificate", c.Cert)
	}
	p.cert = &k
	return p, nil
}

func digestOf(cert, key []byte) digest {
	return sha256.Sum256(bytes.Join([][]byte{cert, key}, []byte{0}))
}

func readPEM(name string, private bool) ([]byte, error) {
	f, err := os.Open(name)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return nil, err
	}
	if !info.Mode().IsRegular() {
		return nil, fmt.Errorf("%s is not a regular file", name)
	}
	if private {
		if err := setting.WrittenByOwner(name, info); err != nil {
			return nil, err
		}
	}
	b, err := io.ReadAll(io.LimitReader(f, maxPEM+1))
	if err == nil && len(b) > maxPEM {
		err = fmt.Errorf("%s is larger than %d bytes", name, maxPEM)
	}
	return b, err
}

// exposed reports whether every user can read the file. It ignores the folders where
// container platforms mount secrets that way.
func exposed(name string) bool {
	info, err := os.Stat(name)
	if err != nil || info.Mode().Perm()&0o004 == 0 {
		return false
	}
	_, err = os.Lstat(filepath.Join(filepath.Dir(name), "..data"))
	return err != nil && !strings.HasPrefix(filepath.Clean(name), "/run/secrets/") && !strings.HasPrefix(filepath.Clean(name), "/var/run/secrets/")
}

func newFileIndex(pairs []*pair) *fileIndex {
	index := fileIndex{}
	for _, p := range pairs {
		for _, host := range hostsIn(p.cert.Leaf) {
			index[host] = append(index[host], p.cert)
		}
	}
	return &index
}

// hostsIn returns the hosts in a certificate, in the form that routes use.
func hostsIn(leaf *x509.Certificate) []string {
	var hosts []string
	for _, name := range leaf.DNSNames {
		hosts = append(hosts, strings.ToLower(name))
	}
	for _, ip := range leaf.IPAddresses {
		if a, ok := netip.AddrFromSlice(ip); ok {
			hosts = append(hosts, addressHost(a))
		}
	}
	return hosts
}

// covers reports whether a certificate covers all of host: "*.example.com" needs a certificate
// with that very name.
func (x *fileIndex) covers(host string) bool {
	return len((*x)[host]) > 0 || !strings.HasPrefix(host, "*.") && len((*x)[wildcard(host)]) > 0
}

// wildcard returns the wildcard name that matches name, such as "*.example.com"; "" if there
// is none, as for an address.
func wildcard(name string) string {
	_, rest, ok := strings.Cut(name, ".")
	if !ok || rest == "" || hostAddress(name) != nil {
		return ""
	}
	return "*." + rest
}

func (s *fileSource) covers(host string) bool { return s.index.Load().covers(host) }

// certificate prefers an exact name to a wildcard. If several certificates match, such as one
// RSA and one ECDSA, it returns the first that the client supports.
func (s *fileSource) certificate(name string, hello *tls.ClientHelloInfo) *tls.Certificate {
	index := *s.index.Load()
	all := index[name]
	if len(all) == 0 {
		all = index[wildcard(name)]
	}
	for _, c := range all {
		if len(all) == 1 || hello.SupportsCertificate(c) == nil {
			return c
		}
	}
	if len(all) > 0 {
		return all[0]
	}
	return nil
}

func (s *fileSource) status() []CertificateStatus {
	s.mu.Lock()
	defer s.mu.Unlock()
	var all []CertificateStatus
	for _, p := range s.pairs {
		all = append(all, CertificateStatus{
			Hosts:     hostsIn(p.cert.Leaf),
			Source:    "files",
			Issuer:    p.cert.Leaf.Issuer.CommonName,
			NotBefore: p.cert.Leaf.NotBefore,
			NotAfter:  p.cert.Leaf.NotAfter,
			LastError: p.lastError,
		})
	}
	return all
}

// look reads all files again. It compares contents, not times: a restored or mounted file may
// be new but have an old time, and a symbolic link may point elsewhere.
func (s *fileSource) look() {
	s.mu.Lock()
	defer s.mu.Unlock()
	for i, old := range s.pairs {
		p, err := loadPair(old.config)
		if err == nil && p.digest == old.digest {
			old.seen, old.logged, old.lastError = digest{}, digest{}, ""
			continue
		}
		if err == nil {
			err = s.fits(i, p)
		}
		if err != nil {
			s.noteFault(old, p, err)
			continue
		}
		s.pairs[i] = p
		s.index.Store(newFileIndex(s.pairs))
		s.log.Info("the certificate was replaced", "cert", p.config.Cert, "hosts", hostsIn(p.cert.Leaf), "not_after", p.cert.Leaf.NotAfter)
	}
}

// fits returns an error if p must not replace the pair at index i. The caller holds mu.
func (s *fileSource) fits(i int, p *pair) error {
	if err := p.mayReplace(s.pairs[i], s.now()); err != nil {
		return err
	}
	next := slices.Clone(s.pairs)
	next[i] = p
	index := newFileIndex(next)
	for _, host := range s.hosts {
		if s.covers(host) && !index.covers(host) {
			return fmt.Errorf("certificate %s no longer names host %s", p.config.Cert, host)
		}
	}
	return nil
}

// noteFault records why the served pair is not replaced, and logs it once. It ignores a fault
// seen at only one poll: the certificate and its key are rarely written at the same instant.
func (s *fileSource) noteFault(old, broken *pair, err error) {
	d := sha256.Sum256([]byte(err.Error()))
	if broken != nil {
		d = sha256.Sum256(append(d[:], broken.digest[:]...))
	}
	if d != old.seen {
		old.seen = d
		return
	}
	old.lastError = withoutPath(err).Error()
	if d != old.logged {
		old.logged = d
		s.log.Error("the new certificate cannot be used; the old one stays in use", "cert", old.config.Cert, "error", err)
	}
}

// withoutPath shortens the path in a file error to its base name, for the status page.
func withoutPath(err error) error {
	var p *os.PathError
	if errors.As(err, &p) {
		return fmt.Errorf("%s: %w", filepath.Base(p.Path), p.Err)
	}
	return err
}
