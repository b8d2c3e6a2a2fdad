package upstream

import (
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"net"
	"strings"
	"sync/atomic"

	"sallyport/proxy/message"
	"sallyport/proxy/setting"
)

// checkTLS records faults of the settings for TLS. secure reports whether any endpoint uses it.
func (c *Config) checkTLS(path string, secure bool, f *setting.Faults) {
	if c.ServerName != "" && !isHostName(c.ServerName) {
		f.Add(setting.Join(path, "server_name"), c.ServerName, "not a host name", "write the name in the server's certificate, without a port")
	}
	if c.ClientCertificate != nil {
		c.ClientCertificate.Check(setting.Join(path, "client_certificate"), f)
	}
	c.checkServerID(setting.Join(path, "server_id"), f)
	if !secure {
		for _, s := range []struct {
			name, value string
			given       bool
		}{
			{"ca", string(c.CA), c.CA != ""},
			{"server_name", c.ServerName, c.ServerName != ""},
			{"server_id", c.ServerID, c.ServerID != ""},
			{"client_certificate", "", c.ClientCertificate != nil},
			{"insecure_skip_verify", "true", c.InsecureSkipVerify},
		} {
			if s.given {
				f.Add(setting.Join(path, s.name), s.value, "no endpoint uses TLS", "remove the line, or write https:// or h2:// for the endpoints")
			}
		}
		return
	}
	if c.InsecureSkipVerify && (c.CA != "" || c.ServerID != "") {
		other := "ca"
		if c.CA == "" {
			other = "server_id"
		}
		f.Add(setting.Join(path, "insecure_skip_verify"), "true", "contradicts "+other, "remove one of the two")
	}
}

func isHostName(name string) bool {
	_, host, err := message.CanonicalAuthority(name, "https")
	return err == nil && strings.EqualFold(host, name)
}

// spiffe is the scheme of the identities of SPIFFE.
const spiffe = "spiffe://"

func (c *Config) checkServerID(at string, f *setting.Faults) {
	switch id := c.ServerID; {
	case id == "":
	case strings.HasPrefix(id, spiffe) && !validSPIFFE(id):
		f.Add(at, id, "not a SPIFFE id", "write trust domain and path in their plain form, such as spiffe://lab/tf")
	case strings.HasPrefix(id, spiffe) && c.CA == "":
		f.Add(at, id, "the system's authorities issue no SPIFFE ids", "write ca: too, with the bundle of the trust domain")
	case !strings.HasPrefix(id, spiffe) && !isHostName(id):
		f.Add(at, id, "neither a SPIFFE id nor a DNS name", "write one such as spiffe://lab/tf or tf.internal")
	}
}

// validSPIFFE reports whether id is a SPIFFE id with a path in its one form. Servers' certificates
// are compared with it byte for byte.
func validSPIFFE(id string) bool {
	domain, path, found := strings.Cut(strings.TrimPrefix(id, spiffe), "/")
	plain := func(s, more string) bool {
		return s != "" && !strings.ContainsFunc(s, func(r rune) bool {
			return !(r >= 'a' && r <= 'z' || r >= '0' && r <= '9' || strings.ContainsRune("._-"+more, r))
		})
	}
	if !found || len(id) > 2048 || !plain(domain, "") {
		return false
	}
	for part := range strings.SplitSeq(path, "/") {
		if part == "." || part == ".." || !plain(part, "ABCDEFGHIJKLMNOPQRSTUVWXYZ") {
			return false
		}
	}
	return true
}

// tlsFiles is what the files of a configuration hold.
type tlsFiles struct {
	roots *x509.CertPool   // nil: the system's
	cert  *tls.Certificate // nil: none
}

// readTLS reads the files that the settings for TLS name.
func (c *Config) readTLS() (*tlsFiles, error) {
	files := &tlsFiles{}
	if c.CA != "" {
		text, err := setting.ReadPEM(string(c.CA), false)
		if err != nil {
			return nil, fmt.Errorf("reading ca: %w", err)
		}
		files.roots = x509.NewCertPool()
		if !files.roots.AppendCertsFromPEM(text) {
			return nil, fmt.Errorf("reading ca %s: %w", c.CA, errNoCertificate)
		}
	}
	if c.ClientCertificate != nil {
		var err error
		if files.cert, err = c.ClientCertificate.Read(); err != nil {
			return nil, fmt.Errorf("client_certificate: %w", err)
		}
	}
	return files, nil
}

var errNoCertificate = errors.New("no PEM certificate in the file")

// tlsConfig returns the client TLS config for an endpoint at host with one ALPN protocol. asked becomes
// true when the server asks for a certificate.
func (c *Config) tlsConfig(host, protocol string, files *tlsFiles, asked *atomic.Bool) *tls.Config {
	name := c.ServerName
	if name == "" {
		name = strings.TrimSuffix(host, ".")
	}
	t := &tls.Config{
		MinVersion:         tls.VersionTLS12,
		ServerName:         name,
		RootCAs:            files.roots,
		InsecureSkipVerify: c.InsecureSkipVerify,
		NextProtos:         []string{protocol},
		ClientSessionCache: tls.NewLRUClientSessionCache(16),
	}
	cert := files.cert
	if cert == nil {
		cert = &tls.Certificate{} // none is sent
	}
	// The certificate is sent whatever authorities the server lists: lists are often incomplete,
	// and the refusal of a certificate says more than that of none.
	t.GetClientCertificate = func(*tls.CertificateRequestInfo) (*tls.Certificate, error) {
		asked.Store(true)
		return cert, nil
	}
	if id := c.ServerID; id != "" {
		// VerifyConnection verifies the chain in place of crypto/tls, which would check the host. It
		// also runs when a session is resumed.
		t.InsecureSkipVerify = true
		t.VerifyConnection = func(s tls.ConnectionState) error { return verifyID(s.PeerCertificates, files.roots, id) }
	}
	return t
}

// verifyID verifies a server's chain and that its certificate is for an identity.
func verifyID(chain []*x509.Certificate, roots *x509.CertPool, id string) error {
	if len(chain) == 0 {
		return errors.New("the server has sent no certificate")
	}
	o := x509.VerifyOptions{Roots: roots, Intermediates: x509.NewCertPool()}
	for _, c := range chain[1:] {
		o.Intermediates.AddCert(c)
	}
	leaf := chain[0]
	if _, err := leaf.Verify(o); err != nil {
		return err
	}
	if !strings.HasPrefix(id, spiffe) {
		if err := leaf.VerifyHostname(id); err != nil {
			return &otherID{id, leaf}
		}
		return nil
	}
	// An SVID has exactly one URI, and is no authority.
	if len(leaf.URIs) != 1 || leaf.URIs[0].String() != id || leaf.IsCA {
		return &otherID{id, leaf}
	}
	return nil
}

// otherID means that a server's certificate is for another identity than server_id.
type otherID struct {
	want string
	leaf *x509.Certificate
}

func (e *otherID) Error() string {
	var names []string
	for _, u := range e.leaf.URIs {
		names = append(names, u.String())
	}
	names = append(names, e.leaf.DNSNames...)
	shown := "none"
	if len(names) > 0 {
		shown = setting.Quoted(strings.Join(names, ", "), 200)
	}
	return "the server's certificate is for " + shown + ", not for " + e.want + " (server_id of the upstream)"
}

// trust returns a digest of the verification settings for server certificates.
func (c *Config) trust() string {
	return setting.Digest(struct {
		CA                   setting.Path
		ServerName, ServerID string
		Insecure             bool
		Certificate          *setting.Certificate
	}{c.CA, c.ServerName, c.ServerID, c.InsecureSkipVerify, c.ClientCertificate})
}

// errSpeaksNoTLS replaces the error of a server that answers a TLS handshake with something else.
var errSpeaksNoTLS = errors.New("the server speaks no TLS: write http:// for https://, h2c:// for h2://")

const namesCertificate = "client_certificate: of the upstream names it"

// plainer returns the error of a TLS handshake with the setting that helps; errSpeaksNoTLS if the
// server speaks no TLS.
func plainer(err error) error {
	switch {
	case errors.As(err, new(tls.RecordHeaderError)):
		return errSpeaksNoTLS
	case errors.As(err, new(x509.UnknownAuthorityError)):
		return fmt.Errorf("%w; ca: of the upstream names the authority to trust", err)
	case errors.As(err, new(x509.HostnameError)):
		return fmt.Errorf("%w; server_name: of the upstream is the name to expect, server_id: the identity", err)
	case aboutCertificate(err):
		return fmt.Errorf("%w; the server wants another certificate: %s", err, namesCertificate)
	}
	return err
}

// aboutCertificate reports whether the server ended a connection because of the gateway's
// certificate, or because there was none. In TLS 1.3 it does so after the handshake.
func aboutCertificate(err error) bool {
	var remote *net.OpError
	if !errors.As(err, &remote) || remote.Op != "remote error" {
		return false
	}
	text := remote.Err.Error()
	return strings.Contains(text, "certificate")
}
