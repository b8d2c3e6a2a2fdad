package upstream

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"io"
	"log"
	"math/big"
	"net"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"sallyport/proxy/setting"
)

// authority issues certificates for tests.
type authority struct {
	cert *x509.Certificate
	key  *ecdsa.PrivateKey
	dir  string
}

func newAuthority(t *testing.T) *authority {
	t.Helper()
	a := &authority{dir: t.TempDir()}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "test"}, NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour),
		IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign,
	}
	a.cert, a.key = a.sign(t, template)
	a.write(t, "ca.pem", "CERTIFICATE", a.cert.Raw)
	return a
}

// sign signs a template with the authority's key, or with a key of its own if there is none yet.
func (a *authority) sign(t *testing.T, template *x509.Certificate) (*x509.Certificate, *ecdsa.PrivateKey) {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	parent, signer := a.cert, a.key
	if parent == nil {
		parent, signer = template, key
	}
	der, err := x509.CreateCertificate(rand.Reader, template, parent, key.Public(), signer)
	if err != nil {
		t.Fatal(err)
	}
	cert, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	return cert, key
}

func (a *authority) write(t *testing.T, name, kind string, der []byte) setting.Path {
	t.Helper()
	file := filepath.Join(a.dir, name)
	if err := os.WriteFile(file, pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: der}), 0o600); err != nil {
		t.Fatal(err)
	}
	return setting.Path(file)
}

// issue returns a certificate with names; those with a scheme are URIs.
func (a *authority) issue(t *testing.T, use x509.ExtKeyUsage, names ...string) tls.Certificate {
	t.Helper()
	template := &x509.Certificate{
		SerialNumber: big.NewInt(time.Now().UnixNano()), NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour),
		KeyUsage: x509.KeyUsageDigitalSignature, ExtKeyUsage: []x509.ExtKeyUsage{use},
	}
	for _, name := range names {
		if u, err := url.Parse(name); err == nil && u.Scheme != "" {
			template.URIs = append(template.URIs, u)
		} else {
			template.DNSNames = append(template.DNSNames, name)
		}
	}
	cert, key := a.sign(t, template)
	return tls.Certificate{Certificate: [][]byte{cert.Raw}, PrivateKey: key, Leaf: cert}
}

// files writes a certificate and its key, and returns them as a configuration.
func (a *authority) files(t *testing.T, cert tls.Certificate) *setting.Certificate {
	t.Helper()
	der, err := x509.MarshalPKCS8PrivateKey(cert.PrivateKey)
	if err != nil {
		t.Fatal(err)
	}
	return &setting.Certificate{Cert: a.write(t, "client.pem", "CERTIFICATE", cert.Certificate[0]), Key: a.write(t, "client.key.pem", "PRIVATE KEY", der)}
}

// verifies starts a server that demands a certificate of clients, and answers with its names.
func verifies(t *testing.T, clients *authority, cert tls.Certificate) *httptest.Server {
	t.Helper()
	srv := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		_, _ = io.WriteString(w, strings.Join(r.TLS.PeerCertificates[0].DNSNames, " "))
	}))
	pool := x509.NewCertPool()
	pool.AddCert(clients.cert)
	srv.TLS = &tls.Config{Certificates: []tls.Certificate{cert}, ClientAuth: tls.RequireAndVerifyClientCert, ClientCAs: pool}
	srv.EnableHTTP2 = true
	srv.Config.ErrorLog = log.New(io.Discard, "", 0)
	srv.StartTLS()
	t.Cleanup(srv.Close)
	return srv
}

func TestServerThatDemandsACertificateGetsOurs(t *testing.T) {
	a, stranger := newAuthority(t), newAuthority(t)
	srv := verifies(t, a, a.issue(t, x509.ExtKeyUsageServerAuth, "tf.internal"))
	for _, scheme := range []string{"https", "h2"} {
		for _, c := range []struct {
			name       string
			cert       *setting.Certificate
			want, hint string
		}{
			{"ours", a.files(t, a.issue(t, x509.ExtKeyUsageClientAuth, "gateway.internal")), "gateway.internal", ""},
			{"none", nil, "", "client_certificate: of the upstream names it"},
			{"a stranger's", stranger.files(t, stranger.issue(t, x509.ExtKeyUsageClientAuth, "gateway.internal")), "", "client_certificate: of the upstream names it"},
		} {
			u := configured(t, Config{
				Rest: setting.List[setting.URL]{endpointURL(t, scheme+strings.TrimPrefix(srv.URL, "https"))},
				CA:   setting.Path(filepath.Join(a.dir, "ca.pem")), ServerID: "tf.internal", ClientCertificate: c.cert,
			}, still)
			_, body, err := outcome(u, get())
			if body != c.want || (err != nil) != (c.hint != "") || err != nil && !strings.Contains(err.Error(), c.hint) {
				t.Errorf("%s, %s: got %q, %v", scheme, c.name, body, err)
			}
		}
	}
}

// grpcio closes a connection whose certificate it does not like, and sends no alert. The error must
// not leave the operator with an end of file.
func TestServerThatRefusesACertificateWithoutAnAlert(t *testing.T) {
	a := newAuthority(t)
	cert := a.issue(t, x509.ExtKeyUsageServerAuth, "tf.internal")
	for _, scheme := range []string{"https", "h2"} {
		for demand, want := range map[tls.ClientAuthType]bool{tls.RequestClientCert: true, tls.NoClientCert: false} {
			l, err := net.Listen("tcp", "127.0.0.1:0")
			if err != nil {
				t.Fatal(err)
			}
			t.Cleanup(func() { l.Close() })
			go func() {
				for c, err := l.Accept(); err == nil; c, err = l.Accept() {
					s := tls.Server(c, &tls.Config{Certificates: []tls.Certificate{cert}, ClientAuth: demand, NextProtos: []string{"h2", "http/1.1"}})
					_ = s.Handshake()
					_ = c.(*net.TCPConn).CloseWrite()
					_, _ = io.Copy(io.Discard, c) // else unread bytes make a reset of the end
					_ = c.Close()
				}
			}()
			u := configured(t, Config{
				Rest: setting.List[setting.URL]{endpointURL(t, scheme+"://"+l.Addr().String())},
				CA:   setting.Path(filepath.Join(a.dir, "ca.pem")), ServerID: "tf.internal",
			}, still)
			if _, _, err := outcome(u, get()); err == nil || strings.Contains(err.Error(), namesCertificate) != want {
				t.Errorf("%s: got %v; want a word about certificates: %t", scheme, err, want)
			}
		}
	}
}

// A renewed certificate serves new connections, while requests under way keep the old one. The
// configuration that is open stays so if the new files are broken.
func TestRenewedCertificateIsForNewConnections(t *testing.T) {
	a := newAuthority(t)
	srv := verifies(t, a, a.issue(t, x509.ExtKeyUsageServerAuth, "tf.internal"))
	c := Config{
		Rest: setting.List[setting.URL]{endpointURL(t, srv.URL)}, CA: setting.Path(filepath.Join(a.dir, "ca.pem")), ServerID: "tf.internal",
		ClientCertificate: a.files(t, a.issue(t, x509.ExtKeyUsageClientAuth, "first.internal")),
	}
	pools := NewPools(still)
	first, err := pools.Open("test", c, false)
	if err != nil {
		t.Fatal(err)
	}
	defer first.Close()
	a.write(t, "client.pem", "CERTIFICATE", a.issue(t, x509.ExtKeyUsageClientAuth, "half.internal").Certificate[0])
	if _, err := pools.Open("test", c, false); err == nil || !strings.Contains(err.Error(), "private key does not match") {
		t.Errorf("a certificate with another key: %v", err)
	}
	a.files(t, a.issue(t, x509.ExtKeyUsageClientAuth, "second.internal"))
	second, err := pools.Open("test", c, false)
	if err != nil {
		t.Fatal(err)
	}
	defer second.Close()
	for u, want := range map[*Upstream]string{first: "first.internal", second: "second.internal"} {
		if _, body, err := outcome(u, get()); body != want || err != nil {
			t.Errorf("got %q, %v; want %q", body, err, want)
		}
	}
}

func TestServerMustHaveTheExpectedIdentity(t *testing.T) {
	a, stranger := newAuthority(t), newAuthority(t)
	const host = "127.0.0.1" // none of the certificates is for it
	for _, c := range []struct {
		name, id string
		by       *authority
		names    []string
		fault    string
	}{
		{"the SPIFFE id", "spiffe://lab/tf", a, []string{"spiffe://lab/tf", "other.internal"}, ""},
		{"another", "spiffe://lab/tf", a, []string{"spiffe://lab/tf2"}, `is for "spiffe://lab/tf2", not for spiffe://lab/tf`},
		{"two", "spiffe://lab/tf", a, []string{"spiffe://lab/tf", "spiffe://lab/other"}, "not for spiffe://lab/tf"},
		{"none", "spiffe://lab/tf", a, []string{"tf.internal"}, `is for "tf.internal"`},
		{"of an authority that is not trusted", "spiffe://lab/tf", stranger, []string{"spiffe://lab/tf"}, "ca: of the upstream names the authority"},
		{"the DNS name", "tf.internal", a, []string{"tf.internal"}, ""},
		{"another DNS name", "tf.internal", a, []string{"x.internal"}, `is for "x.internal"`},
		{"the host alone", "tf.internal", a, []string{host}, "not for tf.internal"},
	} {
		srv := httptest.NewUnstartedServer(http.NotFoundHandler())
		srv.TLS = &tls.Config{Certificates: []tls.Certificate{c.by.issue(t, x509.ExtKeyUsageServerAuth, c.names...)}}
		srv.Config.ErrorLog = log.New(io.Discard, "", 0)
		srv.StartTLS()
		u := configured(t, Config{Rest: setting.List[setting.URL]{endpointURL(t, srv.URL)}, CA: setting.Path(filepath.Join(a.dir, "ca.pem")), ServerID: c.id}, still)
		status, _, err := outcome(u, get())
		if c.fault == "" && (err != nil || status != 404) || c.fault != "" && (err == nil || !strings.Contains(err.Error(), c.fault)) {
			t.Errorf("%s: got %d, %v", c.name, status, err)
		}
		srv.Close()
	}
	// A certificate for clients is none for servers, whatever its name.
	srv := verifies(t, a, a.issue(t, x509.ExtKeyUsageClientAuth, "spiffe://lab/tf"))
	u := configured(t, Config{Rest: setting.List[setting.URL]{endpointURL(t, srv.URL)}, CA: setting.Path(filepath.Join(a.dir, "ca.pem")), ServerID: "spiffe://lab/tf"}, still)
	if _, _, err := outcome(u, get()); err == nil {
		t.Error("a certificate for clients was taken from a server")
	}
}

func TestFormsOfServerIDs(t *testing.T) {
	for id, want := range map[string]bool{
		"spiffe://lab/tf": true, "spiffe://a.b-c_d/x/Y.z": true,
		"spiffe://lab": false, "spiffe://lab/": false, "spiffe:///tf": false, "spiffe://Lab/tf": false, "spiffe://lab/a//b": false, "spiffe://lab/../tf": false,
		"spiffe://lab:8443/tf": false, "spiffe://u@lab/tf": false, "spiffe://lab/tf?x": false, "spiffe://lab/%74f": false,
	} {
		if got := validSPIFFE(id); got != want {
			t.Errorf("%s: %t; want %t", id, got, want)
		}
	}
}

// A certificate that no server can take from a client is a fault before any connection is tried.
func TestCertificatesThatAreNotForClientsAreFaults(t *testing.T) {
	a := newAuthority(t)
	own := a.files(t, a.issue(t, x509.ExtKeyUsageServerAuth, "gateway.internal"))
	var f setting.Faults
	own.CheckFiles("upstreams.tf.client_certificate", &f)
	if err := f.Err(); err == nil || !strings.Contains(err.Error(), "client_certificate.cert") || !strings.Contains(err.Error(), "lacks clientAuth") {
		t.Errorf("got %v", err)
	}
	own = a.files(t, a.issue(t, x509.ExtKeyUsageClientAuth, "gateway.internal"))
	if err := os.Chmod(string(own.Key), 0o622); err != nil {
		t.Fatal(err)
	}
	f = nil
	own.CheckFiles("upstreams.tf.client_certificate", &f)
	if err := f.Err(); err == nil || !strings.Contains(err.Error(), "client_certificate.key") || !strings.Contains(err.Error(), "can be written by others") {
		t.Errorf("got %v", err)
	}
}
