package demo

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"io"
	"math/big"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// TestCheckDetectsFaultyGateways replaces the gateway by faulty ones; the check must fail.
func TestCheckDetectsFaultyGateways(t *testing.T) {
	const predictions = `{"predictions": [2.5, 3.0, 4.5]}`
	for _, c := range []struct {
		name  string
		serve func(d *demo, w http.ResponseWriter, r *http.Request)
		want  []string
	}{
		{"admits everyone", func(d *demo, w http.ResponseWriter, r *http.Request) {
			d.models.served.Add(1)
			io.WriteString(w, predictions)
		}, []string{"no token", "a token of a forger", "a signed request", "the same signed request again", "a signed request with another body", "calls that reached the model server"}},
		{"refuses everyone", func(d *demo, w http.ResponseWriter, r *http.Request) {
			w.Header().Set("WWW-Authenticate", `Bearer error="invalid_token"`)
			w.WriteHeader(http.StatusUnauthorized)
		}, []string{"a fresh token", "a token without the scope"}},
		{"says no reason", func(d *demo, w http.ResponseWriter, r *http.Request) {
			w.WriteHeader(http.StatusUnauthorized)
		}, []string{"no token", "an expired token"}},
		{"answers something else", func(d *demo, w http.ResponseWriter, r *http.Request) {
			io.WriteString(w, "{}")
		}, []string{"a fresh token"}},
	} {
		t.Run(c.name, func(t *testing.T) {
			var out bytes.Buffer
			dir := t.TempDir()
			d := &demo{out: &out, models: NewModelServer(), secret: "s3cret", dir: dir, root: filepath.Join(dir, "root.pem")}
			certificate := newCertificate(t)
			front := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { c.serve(d, w, r) }))
			front.TLS = &tls.Config{Certificates: []tls.Certificate{certificate}}
			front.StartTLS()
			defer front.Close()
			d.front = front.Listener
			issuer := httptest.NewUnstartedServer(nil)
			d.issuerAt = issuer.Listener
			if err := errors.Join(d.newIssuer(), d.newKey()); err != nil {
				t.Fatal(err)
			}
			issuer.Config.Handler = d.issuer
			issuer.Start()
			defer issuer.Close()
			root := pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: certificate.Certificate[0]})
			if err := os.WriteFile(d.root, root, 0o600); err != nil {
				t.Fatal(err)
			}
			err := d.callAll(t.Context())
			if err == nil || !strings.Contains(err.Error(), "surprise") {
				t.Errorf("got %v, want an error that counts surprises", err)
			}
			for line := range strings.Lines(out.String()) {
				for i, name := range c.want {
					if strings.HasPrefix(line, name+"  ") && strings.Contains(line, "surprise") {
						c.want = append(c.want[:i:i], c.want[i+1:]...)
						break
					}
				}
			}
			if len(c.want) > 0 {
				t.Errorf("not marked as surprises: %q\n%s", c.want, out.String())
			}
		})
	}
}

// newCertificate makes a self-signed certificate for the host of the demonstration.
func newCertificate(t *testing.T) tls.Certificate {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), DNSNames: []string{host}, IsCA: true, BasicConstraintsValid: true,
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour),
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, &key.PublicKey, key)
	if err != nil {
		t.Fatal(err)
	}
	return tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key}
}

func TestShellQuotesWords(t *testing.T) {
	for word, want := range map[string]string{
		"/tmp/a-b_c.pem": "/tmp/a-b_c.pem",
		"":               "''",
		"a b":            "'a b'",
		"it's":           `'it'\''s'`,
		"$(x)":           "'$(x)'",
	} {
		if got := shell(word); got != want {
			t.Errorf("shell(%q): got %s, want %s", word, got, want)
		}
	}
}
