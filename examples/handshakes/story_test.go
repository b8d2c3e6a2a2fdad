// Package handshakes compares what full handshakes with client certificates cost nginx and the gateway.
package handshakes

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"fmt"
	"io"
	"math/big"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"sallyport/examples/story"
)

func TestMain(m *testing.M) { os.Exit(story.Run(m)) }

// perRound is how many handshakes a server answers before it is the turn of the other.
const perRound = 200

// certify makes a certificate for template, signed by the parent, or by itself if parent is nil, and writes
// it with its key as NAME.pem and NAME.key.
func certify(t *testing.T, dir, name string, template *x509.Certificate, parent *tls.Certificate) *tls.Certificate {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template.SerialNumber = big.NewInt(time.Now().UnixNano())
	template.Subject = pkix.Name{CommonName: name}
	template.NotBefore, template.NotAfter = time.Now().Add(-time.Hour), time.Now().Add(time.Hour)
	issuer, signer := template, any(key)
	if parent != nil {
		issuer, signer = parent.Leaf, parent.PrivateKey
	}
	der, err := x509.CreateCertificate(rand.Reader, template, issuer, &key.PublicKey, signer)
	if err != nil {
		t.Fatal(err)
	}
	keyDER, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		t.Fatal(err)
	}
	cert, private := pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}), pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: keyDER})
	for file, text := range map[string][]byte{name + ".pem": cert, name + ".key": private} {
		if err := os.WriteFile(filepath.Join(dir, file), text, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	pair, err := tls.X509KeyPair(cert, private)
	if err != nil {
		t.Fatal(err)
	}
	return &pair
}

func TestHandshakesWithClientCertificates(t *testing.T) {
	story.Need(t, "nginx")
	rounds := 3
	if v := os.Getenv("HANDSHAKES_ROUNDS"); v != "" {
		var err error
		if rounds, err = strconv.Atoi(v); err != nil {
			t.Fatal(err)
		}
	}
	model := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { _, _ = io.WriteString(w, "ok\n") }))
	defer model.Close()
	dir := t.TempDir()
	ca := certify(t, dir, "ca", &x509.Certificate{IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign}, nil)
	certify(t, dir, "server", &x509.Certificate{DNSNames: []string{"localhost"}, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth}}, ca)
	client := certify(t, dir, "client", &x509.Certificate{DNSNames: []string{"batch.test"}, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth}}, ca)
	if err := os.Mkdir(filepath.Join(dir, "tmp"), 0o700); err != nil {
		t.Fatal(err)
	}
	upstream := strings.TrimPrefix(model.URL, "http://")
	address := story.FreeAddress(t)
	nginx := story.StartNginx(t, "nginx.conf", dir, address, "127.0.0.1:8713", address, "127.0.0.1:5000", upstream)
	g := story.StartGateway(t, "127.0.0.1:5000", upstream, "server.pem", filepath.Join(dir, "server.pem"), "server.key", filepath.Join(dir, "server.key"), "ca.pem", filepath.Join(dir, "ca.pem"))
	roots := x509.NewCertPool()
	roots.AddCert(ca.Leaf)
	config := &tls.Config{RootCAs: roots, ServerName: "localhost", Certificates: []tls.Certificate{*client}, CurvePreferences: []tls.CurveID{tls.X25519}, MinVersion: tls.VersionTLS13}
	bare := config.Clone()
	bare.Certificates = nil

	targets := []struct {
		name, address string
		process       *story.Process
		costs         []float64 // microseconds of CPU for a handshake, by round
	}{{name: "nginx", address: address, process: nginx}, {name: "sallyport", address: g.Address, process: g.Process}}
	for i := range targets {
		target := &targets[i]
		if answer, err := ask(target.address, bare); err == nil && strings.HasPrefix(answer, "HTTP/1.1 200") {
			t.Errorf("%s let a client without a certificate in: %q", target.name, answer)
		}
	}
	for range rounds {
		for i := range targets {
			target := &targets[i]
			before := target.process.CPU(t)
			for range perRound {
				if answer, err := ask(target.address, config); err != nil || !strings.HasPrefix(answer, "HTTP/1.1 200") {
					t.Fatalf("%s: %v, %q", target.name, err, answer)
				}
			}
			target.costs = append(target.costs, float64((target.process.CPU(t)-before).Microseconds())/perRound)
		}
	}
	var ratios []float64
	for i := range rounds {
		ratios = append(ratios, targets[1].costs[i]/targets[0].costs[i])
	}
	t.Logf("CPU of a handshake and a request, medians of %d rounds of %d: nginx %.0f us, sallyport %.0f us; median ratio %.2f",
		rounds, perRound, median(targets[0].costs), median(targets[1].costs), median(ratios))
}

// ask opens a connection and sends one request on it.
func ask(address string, config *tls.Config) (string, error) {
	c, err := tls.Dial("tcp", address, config)
	if err != nil {
		return "", err
	}
	defer c.Close()
	if err := c.SetDeadline(time.Now().Add(time.Minute)); err != nil {
		return "", err
	}
	if _, err := fmt.Fprint(c, "GET / HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n"); err != nil {
		return "", err
	}
	answer, err := io.ReadAll(c)
	if len(answer) > 0 {
		return string(answer), nil
	}
	return "", err
}

func median(all []float64) float64 {
	sorted := slices.Sorted(slices.Values(all))
	return sorted[len(sorted)/2]
}
