package signedgrpc

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"fmt"
	"io"
	"log"
	"math/big"
	"net"
	"net/http"
	"net/http/httputil"
	"net/url"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"sallyport/examples/story"
)

// attacker stands between clients and the gateway, with a certificate that the clients believe: what
// somebody in the middle could do where TLS ends early.
type attacker struct {
	target string // host:port, for clients
	ca     string // file with its certificate
	attack atomic.Pointer[attack]
}

// attack is what is done to one call.
type attack struct {
	name     string
	request  func(*http.Request)
	response func(*http.Response)
	method   string // the call that is made; Predict if empty

	// How the clients see it: grpcio's line, and a part of the error of grpc-go.
	python, golang string
}

func startAttacker(t *testing.T, g *story.Gateway) *attacker {
	t.Helper()
	at := story.FreeAddress(t)
	_, port, _ := net.SplitHostPort(at)
	a := &attacker{target: "localhost:" + port, ca: filepath.Join(t.TempDir(), "attacker.pem")}
	to, err := url.Parse(g.URL("/"))
	if err != nil {
		t.Fatal(err)
	}
	transport := story.Client(t, g.CA).Transport.(*http.Transport)
	transport.DisableCompression, transport.ForceAttemptHTTP2 = true, true
	l, err := net.Listen("tcp", at)
	if err != nil {
		t.Fatal(err)
	}
	server := &http.Server{
		Handler: &httputil.ReverseProxy{
			Rewrite: func(r *httputil.ProxyRequest) {
				r.SetURL(to)
				r.Out.Host = r.In.Host // what the client has signed
				r.Out.Header.Set("Te", "trailers")
				if change := a.attack.Load().request; change != nil {
					change(r.Out)
				}
			},
			Transport: transport,
			ModifyResponse: func(r *http.Response) error {
				if change := a.attack.Load().response; change != nil {
					change(r)
				}
				return nil
			},
			ErrorLog: log.New(io.Discard, "", 0),
		},
		TLSConfig: &tls.Config{Certificates: []tls.Certificate{certificate(t, a.ca)}},
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
	return a
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
	(&house{keys: filepath.Dir(file)}).write(t, filepath.Base(file), string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})))
	return tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key}
}

// replacing is content that is changed on its way. It is read late, since the trailers come after it.
type replacing struct {
	io.ReadCloser
	old, with string
	changed   io.Reader
}

func replaceText(body io.ReadCloser, old, with string) io.ReadCloser {
	return &replacing{ReadCloser: body, old: old, with: with}
}

func (r *replacing) Read(p []byte) (int, error) {
	if r.changed == nil {
		b, err := io.ReadAll(r.ReadCloser)
		if err != nil {
			return 0, err
		}
		r.changed = bytes.NewReader(bytes.ReplaceAll(b, []byte(r.old), []byte(r.with)))
	}
	return r.changed.Read(p)
}

// endWith puts a status in the place of an answer.
func endWith(r *http.Response, code string) {
	_, _ = io.Copy(io.Discard, r.Body)
	r.Body.Close()
	r.Body = http.NoBody
	r.Trailer = http.Header{"Grpc-Status": {code}}
}

// attacks sees that the gateway refuses calls that were changed on their way to it, and that clients
// refuse answers that were changed on their way back.
func (h *house) attacks(t *testing.T) {
	a := startAttacker(t, h.gateway)
	var earlier http.Header // of a call of grpcio
	replays := 0
	for _, c := range []attack{
		{name: "nothing", python: "OK \n\x03\n\x01m\x1a\x015"},
		{name: "message", request: func(r *http.Request) {
			r.Body = replaceText(r.Body, "5", "6")
		}, python: "INVALID_ARGUMENT The content does not match its digest.", golang: "InvalidArgument"},
		{name: "method", method: "Count", request: func(r *http.Request) {
			r.URL.Path = service + "Fail"
		}, python: "Refused unauthenticated", golang: "Unauthenticated"},
		{name: "signature gone", request: func(r *http.Request) {
			r.Header.Del("Signature")
			r.Header.Del("Signature-Input")
		}, python: "Refused unauthenticated", golang: "Unauthenticated"},
		{name: "a first call", request: func(r *http.Request) {
			if earlier == nil {
				earlier = r.Header.Clone()
			}
		}, python: "OK \n\x03\n\x01m\x1a\x015"},
		{name: "the same call again", request: func(r *http.Request) {
			replays++
			r.Header = earlier.Clone()
		}, python: "NotVerified unbound", golang: "the key is unknown"}, // of the refusal, which answers the first call
		{name: "answer", response: func(r *http.Response) {
			r.Body = replaceText(r.Body, "5", "6")
		}, python: "DigestMismatch digest_mismatch", golang: "does not match its digest"},
		{name: "an answer less", method: "Count", response: func(r *http.Response) {
			r.Body = replaceText(r.Body, "\x00\x00\x00\x00\x014", "")
		}, python: "DigestMismatch digest_mismatch", golang: "does not match its digest"},
		{name: "status", response: func(r *http.Response) {
			endWith(r, "5")
		}, python: "Refused not_found", golang: "no signature for this service was found"},
		{name: "signature of the answer gone", response: func(r *http.Response) {
			r.Body = io.NopCloser(io.MultiReader(r.Body, clearing{r}))
		}, python: "SignatureMissing signature_missing", golang: "no signature for this service was found"},
	} {
		t.Run(c.name, func(t *testing.T) {
			a.attack.Store(&c)
			method := c.method
			if method == "" {
				method = "Predict"
			}
			if got := strings.TrimSuffix(h.callPython(t, a.target, a.ca, "--authority", h.authority(), "--one", method), "\n"); got != c.python {
				t.Errorf("grpcio: %q; want %q", got, c.python)
			}
			conn := h.dial(t, a.target, a.ca)
			err := error(nil)
			if method == "Count" {
				_, err = count(conn)
			} else {
				_, err = invoke(conn, service+"Predict", predictRequest("5"))
			}
			if c.golang == "" && err != nil || c.golang != "" && !strings.Contains(fmt.Sprint(err), c.golang) {
				t.Errorf("grpc-go: %v; want %s", err, c.golang)
			}
		})
	}
	if refused := strings.Count(h.gateway.Process.Output(), `"reason":"replayed"`); replays != 2 || refused != replays {
		t.Errorf("%d calls were repeated, and %d refused for it", replays, refused)
	}
}

// clearing is the end of an answer's content: it drops the signature from the trailers that have come.
type clearing struct{ r *http.Response }

func (c clearing) Read([]byte) (int, error) {
	c.r.Trailer.Del("Signature")
	c.r.Trailer.Del("Signature-Input")
	return 0, io.EOF
}
