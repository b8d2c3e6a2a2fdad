package clients

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"io"
	"log"
	"math/big"
	"net"
	"net/http"
	"net/http/httputil"
	"net/url"
	"path/filepath"
	"strconv"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"sallyport/auth/httpsig"
	"sallyport/examples/story"
)

// between stands between clients and the gateway, with a certificate that the
// clients believe: what somebody in the middle could do where TLS ends early.
type between struct {
	address string
	ca      string // file with its certificate
	change  atomic.Pointer[func(*http.Response)]
	proxy   atomic.Pointer[httputil.ReverseProxy]
}

func startBetween(t *testing.T) *between {
	t.Helper()
	b := &between{address: story.FreeAddress(t), ca: filepath.Join(t.TempDir(), "between.pem")}
	l, err := net.Listen("tcp", b.address)
	if err != nil {
		t.Fatal(err)
	}
	server := &http.Server{
		Handler:   http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { b.proxy.Load().ServeHTTP(w, r) }),
		TLSConfig: &tls.Config{Certificates: []tls.Certificate{certificate(t, b.ca)}},
		ErrorLog:  log.New(io.Discard, "", 0),
	}
	done := make(chan struct{})
	go func() {
		defer close(done)
		_ = server.ServeTLS(l, "", "")
	}()
	t.Cleanup(func() {
		server.Close()
		<-done
	})
	return b
}

// certificate makes one for localhost, its own issuer, and writes it to a file.
func certificate(t *testing.T, file string) tls.Certificate {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), DNSNames: []string{"localhost"}, NotAfter: time.Now().Add(time.Hour),
		IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign | x509.KeyUsageDigitalSignature,
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth},
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		t.Fatal(err)
	}
	write(t, file, string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})))
	return tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key}
}

// target lets all go to the gateway.
func (b *between) target(t *testing.T, g *story.Gateway) {
	t.Helper()
	to, err := url.Parse(g.URL("/"))
	if err != nil {
		t.Fatal(err)
	}
	transport := story.Client(t, g.CA).Transport.(*http.Transport)
	transport.DisableCompression = true
	b.proxy.Store(&httputil.ReverseProxy{
		Rewrite: func(r *httputil.ProxyRequest) {
			r.SetURL(to)
			r.Out.Host = r.In.Host // what the client has signed
		},
		Transport: transport,
		ModifyResponse: func(r *http.Response) error {
			if change := b.change.Load(); change != nil {
				(*change)(r)
			}
			return nil
		},
	})
}

func (b *between) url(path string) string {
	_, port, _ := net.SplitHostPort(b.address)
	return "https://localhost:" + port + path
}

// replace puts other content in the place of an answer's.
func replace(r *http.Response, content []byte) {
	r.Body.Close()
	r.Body, r.ContentLength = io.NopCloser(bytes.NewReader(content)), int64(len(content))
	r.Header.Set("Content-Length", strconv.Itoa(len(content)))
}

// changed sees that no program takes an answer that was changed on its way, each
// in one respect, and that each takes it when nothing was.
func (h *house) changed(t *testing.T) {
	var earlier http.Header // of an answer to another call
	for _, c := range []struct {
		name   string
		change func(*http.Response)
	}{
		{"nothing", func(r *http.Response) { earlier = r.Header.Clone() }},
		{"content", func(r *http.Response) {
			b, _ := io.ReadAll(r.Body)
			replace(r, bytes.Replace(b, []byte("42"), []byte("43"), 1))
		}},
		{"content and digest", func(r *http.Response) {
			b := []byte(`{"prediction":43}`)
			r.Header.Set("Content-Digest", httpsig.ContentDigest(b))
			replace(r, b)
		}},
		{"status", func(r *http.Response) { r.StatusCode = 202 }},
		{"type", func(r *http.Response) { r.Header.Set("Content-Type", "text/plain") }},
		{"signature gone", func(r *http.Response) { r.Header.Del("Signature"); r.Header.Del("Signature-Input") }},
		{"digest not covered", func(r *http.Response) {
			in := r.Header.Get("Signature-Input")
			r.Header.Set("Signature-Input", strings.Replace(in, ` "content-digest"`, "", 1))
		}},
		{"an earlier answer", func(r *http.Response) {
			for _, name := range []string{"Signature", "Signature-Input"} {
				r.Header.Set(name, earlier.Get(name))
			}
		}},
	} {
		t.Run(c.name, func(t *testing.T) {
			h.between.change.Store(&c.change)
			for _, p := range h.all {
				out, errs, ok := h.call(t, p, h.between.ca, h.between.url("/predict"))
				if ok != (c.name == "nothing") || strings.Contains(out, "prediction") != ok {
					t.Errorf("%s printed %q and %q", p.name, out, errs)
				}
				if !ok {
					t.Logf("%s: %s", p.name, lastLine(errs))
				}
			}
		})
	}
	h.between.change.Store(nil)
}

func lastLine(s string) string { return s[strings.LastIndexByte(s, '\n')+1:] }
