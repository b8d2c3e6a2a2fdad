package edge

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"io"
	"log/slog"
	"math/big"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"sallyport/proxy/setting"
)

// testCA is a private certificate authority.
type testCA struct {
	cert *x509.Certificate
	key  *ecdsa.PrivateKey
	pool *x509.CertPool
}

func newTestCA(t testing.TB) *testCA {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	ca := &testCA{key: key, pool: x509.NewCertPool()}
	ca.cert = ca.sign(t, &x509.Certificate{Subject: pkix.Name{CommonName: "test CA"}, IsCA: true, KeyUsage: x509.KeyUsageCertSign}, key)
	ca.pool.AddCert(ca.cert)
	return ca
}

// sign signs a template; self-signed if there is no CA certificate yet.
func (ca *testCA) sign(t testing.TB, c *x509.Certificate, key any) *x509.Certificate {
	t.Helper()
	c.SerialNumber, c.BasicConstraintsValid = big.NewInt(time.Now().UnixNano()), true
	if c.NotBefore.IsZero() {
		c.NotBefore = time.Now().Add(-time.Hour)
	}
	if c.NotAfter.IsZero() {
		c.NotAfter = time.Now().Add(24 * time.Hour)
	}
	parent, public := ca.cert, any(&ca.key.PublicKey)
	if parent == nil {
		parent = c
	}
	switch k := key.(type) {
	case *ecdsa.PrivateKey:
		public = &k.PublicKey
	case *rsa.PrivateKey:
		public = &k.PublicKey
	}
	der, err := x509.CreateCertificate(rand.Reader, c, parent, public, ca.key)
	if err != nil {
		t.Fatal(err)
	}
	cert, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	return cert
}

// write signs a template and writes certificate and key to dir.
func (ca *testCA) write(t testing.TB, dir, name string, template *x509.Certificate) FileConfig {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	return ca.writeKey(t, dir, name, template, key)
}

func (ca *testCA) writeKey(t testing.TB, dir, name string, template *x509.Certificate, key any) FileConfig {
	t.Helper()
	cert := ca.sign(t, template, key)
	der, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		t.Fatal(err)
	}
	c := FileConfig{Cert: setting.Path(filepath.Join(dir, name+".pem")), Key: setting.Path(filepath.Join(dir, name+".key"))}
	writeTest(t, string(c.Cert), pemBlock("CERTIFICATE", cert.Raw))
	writeTest(t, string(c.Key), pemBlock("PRIVATE KEY", der))
	return c
}

func writeTest(t testing.TB, name string, b []byte) {
	t.Helper()
	if err := os.WriteFile(name, b, 0o600); err != nil {
		t.Fatal(err)
	}
}

func forHosts(hosts ...string) *x509.Certificate { return &x509.Certificate{DNSNames: hosts} }

// journal is a log that tests can read.
type journal struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (j *journal) Write(p []byte) (int, error) {
	j.mu.Lock()
	defer j.mu.Unlock()
	return j.b.Write(p)
}

func (j *journal) String() string {
	j.mu.Lock()
	defer j.mu.Unlock()
	return j.b.String()
}

func (j *journal) log() *slog.Logger { return slog.New(slog.NewTextHandler(j, nil)) }

// connCounter limits and counts connections.
type connCounter struct {
	mu   sync.Mutex
	max  int
	here int
	left chan struct{} // receives one value for each Leave
}

func newConnCounter(max int) *connCounter {
	return &connCounter{max: max, left: make(chan struct{}, 1000)}
}

func (r *connCounter) Enter(netip.Addr) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.here >= r.max {
		return false
	}
	r.here++
	return true
}

func (r *connCounter) Leave(netip.Addr) {
	r.mu.Lock()
	r.here--
	r.mu.Unlock()
	r.left <- struct{}{}
}

// listen serves e on a new listener and greets each connection with hello.
func listen(t testing.TB, e *Edge, l Limits) string {
	t.Helper()
	inner, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	return serveOn(t, e, inner, l)
}

func serveOn(t testing.TB, e *Edge, inner net.Listener, l Limits) string {
	t.Helper()
	if l.Conns == nil {
		l.Conns = newConnCounter(1000)
	}
	lis := e.Listen(inner, l)
	var wg sync.WaitGroup
	wg.Go(func() {
		for {
			c, err := lis.Accept()
			if err != nil {
				return
			}
			wg.Go(func() {
				defer c.Close()
				_, _ = io.WriteString(c, "hello")
				_, _ = io.Copy(io.Discard, c)
			})
		}
	})
	t.Cleanup(func() {
		lis.Close()
		wg.Wait()
	})
	return inner.Addr().String()
}

// connect completes a handshake and reads the greeting.
func connect(addr string, c *tls.Config) (tls.ConnectionState, error) {
	d := tls.Dialer{NetDialer: &net.Dialer{Timeout: time.Minute}, Config: c}
	conn, err := d.Dial("tcp", addr)
	if err != nil {
		return tls.ConnectionState{}, err
	}
	defer conn.Close()
	// A TLS 1.3 client completes before the server has verified it.
	if _, err := io.ReadFull(conn, make([]byte, 5)); err != nil {
		return tls.ConnectionState{}, err
	}
	return conn.(*tls.Conn).ConnectionState(), nil
}

func newEdge(t testing.TB, c Config, o Options) *Edge {
	t.Helper()
	e, err := New(c, o)
	if err != nil {
		t.Fatal(err)
	}
	return e
}
