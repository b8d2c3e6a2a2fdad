package proxy_test

import (
	"bufio"
	"crypto/tls"
	"crypto/x509"
	"io"
	"net/http"
	"strings"
	"testing"
	"time"

	"sallyport/auth/authtest"
	"sallyport/proxy"
)

// mallories are certificates that prove nobody, with the reason.
// TestReloadThatRemovesACAEndsWhatItProved removes a CA while connections and streams live.
func TestReloadThatRemovesACAEndsWhatItProved(t *testing.T) {
	for name, h2 := range map[string]bool{"HTTP/1.1": false, "HTTP/2": true} {
		t.Run(name, func(t *testing.T) {
			h := newMutualHouse(t, plan{more: unwatched, handler: ticking})
			h.write("lab.pem", authtest.PEM(h.lab, h.partners))
			h.reload("changed")
			bob := h.partners.Client("bob", authtest.URIs("spiffe://lab/bob")).TLS()
			kept, refused := h.certClient(h2, &h.alice, nil), h.certClient(h2, &bob, nil)
			stream := func(c *http.Client, host string) *bufio.Reader {
				req, _ := http.NewRequest("GET", "https://"+host+"/cert", nil)
				return h.streamOf(c, req)
			}
			var cut, live []*bufio.Reader
			for _, host := range []string{"models.test", "strict.test"} {
				cut, live = append(cut, stream(refused, host)), append(live, stream(kept, host))
			}
			h.write("lab.pem", []byte("broken"))
			h.reload("refused")
			for _, s := range append(cut, live...) {
				if _, err := s.ReadString('\n'); err != nil {
					t.Fatalf("after a reload that was refused: %v", err)
				}
			}
			h.write("lab.pem", authtest.PEM(h.lab))
			h.reload("changed")
			for i, s := range cut {
				if _, err := io.Copy(io.Discard, s); err == nil {
					t.Errorf("stream %d of the removed CA ended cleanly; want it cut", i)
				}
			}
			for i, s := range live {
				for range 10 {
					if _, err := s.ReadString('\n'); err != nil {
						t.Fatalf("stream %d of the other CA: %v", i, err)
					}
				}
			}
			if r := h.recordOf("cert:spiffe://lab/bob"); r["reason"] != "withdrawn_in_stream" {
				t.Errorf("record %v", r)
			}
			if r := h.certGet(refused, "models.test/cert"); r.StatusCode != 401 || r.reason() != "certificate_unknown_ca" {
				t.Errorf("the next request: %d %s", r.StatusCode, r.body)
			}
		})
	}
}

// TestReloadThatAddsAPolicyNeedsNewConnections adds client certificates to a host with open
// connections, which cannot carry a certificate any more. The client's next request opens another.
func TestReloadThatAddsAPolicyNeedsNewConnections(t *testing.T) {
	for name, h2 := range map[string]bool{"HTTP/1.1": false, "HTTP/2": true} {
		for mode, first := range map[string]int{"required": 421, "optional": 401} {
			t.Run(name+" "+mode, func(t *testing.T) {
				h := newMutualHouse(t, plan{more: unwatched + "client_certificates: [{hosts: other.test, ca: partners.pem}, {hosts: [models.test, strict.test], ca: lab.pem}]\n",
					routes: mutualRoutes + "  - {host: late.test, upstream: '%s', callers: anonymous, rules: [{allow: \"*\"}]}\n"})
				c := h.certClient(h2, &h.alice, nil)
				if r := h.certGet(c, "late.test/"); r.StatusCode != 200 {
					t.Fatalf("before: %d %s", r.StatusCode, r.body)
				}
				h.edit("callers: anonymous", "callers: cert", "client_certificates: [", "client_certificates: [{hosts: late.test, mode: "+mode+", ca: lab.pem}, ")
				h.reload("changed")
				h.model.hits.Store(0)
				h.refused(h.certGet(c, "late.test/"), first, map[int]string{421: "misdirected", 401: "certificate_missing"}[first])
				if r := h.certGet(c, "late.test/"); r.StatusCode != 200 {
					t.Errorf("the next request: %d %s", r.StatusCode, r.body)
				}
			})
		}
	}
}

// TestRequiredCertificateIsCheckedOnEveryRoute removes the CA of an open connection to a host that
// requires certificates. A token is not enough there.
func TestRequiredCertificateIsCheckedOnEveryRoute(t *testing.T) {
	h := newMutualHouse(t, plan{more: unwatched})
	c, token := h.certClient(true, &h.alice, nil), []string{"Authorization", "Bearer " + h.token()}
	if r := h.certGet(c, "strict.test/tokens", token...); r.StatusCode != 200 {
		t.Fatalf("before: %d %s", r.StatusCode, r.body)
	}
	h.edit("{hosts: strict.test, ca: lab.pem, crl: lab.crl", "{hosts: strict.test, ca: partners.pem")
	h.reload("changed")
	h.model.hits.Store(0)
	r := h.certGet(c, "strict.test/tokens", token...)
	h.refused(r, 401, "certificate_unknown_ca")
	if r.Header.Get("Www-Authenticate") == "" {
		t.Error("no challenge")
	}
	if res, err := c.Get("https://strict.test/tokens"); err == nil {
		res.Body.Close()
		t.Errorf("the connection was not closed: %d", res.StatusCode)
	}
}

// TestStreamEndsWithItsCertificate opens a stream with a certificate that ends soon.
func TestStreamEndsWithItsCertificate(t *testing.T) {
	t.Parallel()
	now, _ := stopped()
	h := newMutualHouse(t, plan{handler: ticking, options: proxy.Options{Now: now}})
	soon := h.lab.Client("soon", func(c *x509.Certificate) {
		authtest.URIs("spiffe://lab/soon")(c)
		c.NotAfter = now().Add(2 * time.Second) // from the request on
	}).TLS()
	req, _ := http.NewRequest("GET", "https://models.test/cert", nil)
	if _, err := io.Copy(io.Discard, h.streamOf(h.certClient(true, &soon, nil), req)); err == nil {
		t.Error("the stream ended cleanly; want it cut")
	}
	if r := h.recordOf("cert:spiffe://lab/soon"); r["reason"] != "credential_expired_in_stream" {
		t.Errorf("record %v", r)
	}
}

// TestRevocationEndsStreams revokes alice's certificate while her streams live, and lets the list of
// her CA end without a new one.
func TestRevocationEndsStreams(t *testing.T) {
	t.Parallel()
	for name, revoke := range map[string]func(*mutualHouse){
		"by a new list": func(h *mutualHouse) {
			alice, _ := x509.ParseCertificate(h.alice.Certificate[0])
			h.write("lab.crl", h.lab.Revoke(time.Now(), nil, authtest.Cert{Certificate: alice}))
			h.reload("changed")
		},
		"by the end of the list": func(h *mutualHouse) {
			h.write("lab.crl", h.lab.Revoke(time.Now(), func(l *x509.RevocationList) { l.NextUpdate = time.Now().Add(5 * time.Second) }))
			h.reload("changed")
		},
	} {
		t.Run(name, func(t *testing.T) {
			h := newMutualHouse(t, plan{more: unwatched, handler: ticking})
			req, _ := http.NewRequest("GET", "https://models.test/cert", nil)
			stream := h.streamOf(h.certClient(true, &h.alice, nil), req)
			token := h.stream(h.client(true), "/tokens", h.token())
			revoke(h)
			if _, err := io.Copy(io.Discard, stream); err == nil {
				t.Error("the stream ended cleanly; want it cut")
			}
			if r := h.recordOf("cert:spiffe://lab/alice"); r["reason"] != "withdrawn_in_stream" {
				t.Errorf("record %v", r)
			}
			for range 10 {
				if _, err := token.ReadString('\n'); err != nil {
					t.Fatalf("the stream of another caller: %v", err)
				}
			}
		})
	}
}

// TestTunnelEndsWhenItsCertificateIsRefused opens WebSockets over both versions of HTTP.
func TestTunnelEndsWhenItsCertificateIsRefused(t *testing.T) {
	h := newMutualHouse(t, plan{more: unwatched, handler: socket, routes: mutualRoutes + "  - {host: models.test, path: /ws, upstream: '%s', callers: cert, websocket: true, rules: [{allow: \"*\"}]}\n"})
	dial := func(alpn string) *tls.Conn {
		c, err := tls.Dial("tcp", h.addrs.HTTPS[0].String(), &tls.Config{RootCAs: h.roots, ServerName: "models.test", NextProtos: []string{alpn}, Certificates: []tls.Certificate{h.alice}})
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { c.Close() })
		_ = c.SetDeadline(time.Now().Add(time.Minute))
		return c
	}
	one := dial("http/1.1")
	_, _ = io.WriteString(one, "GET /ws HTTP/1.1\r\nHost: models.test\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\n"+wsKey+"\r\n\r\n")
	r := bufio.NewReader(one)
	for line := ""; line != "hello\n"; {
		var err error
		if line, err = r.ReadString('\n'); err != nil {
			t.Fatalf("over HTTP/1.1: %v", err)
		}
	}
	two := h.framesOn(dial("h2"))
	two.headers(1, false, ":protocol: websocket", ":method: CONNECT", ":scheme: https", ":authority: models.test", ":path: /ws", "sec-websocket-version: 13", "sec-websocket-protocol: chat")
	for two.next() && (two.got[1] == nil || two.got[1].body != "hello\n") {
	}
	if up, _ := h.model.seen(); up == nil || up.Header.Get("X-Sallyport-Principal") != "cert:spiffe://lab/alice" {
		t.Errorf("the upstream was told %v", up)
	}
	h.write("lab.pem", authtest.PEM(h.partners))
	h.write("lab.crl", h.partners.Revoke(time.Now(), nil))
	h.reload("changed")
	_, _ = io.Copy(io.Discard, r)
	two.wait(1)
	h.until("both records", func() bool { return strings.Count(h.audit.text(), `"withdrawn_in_stream"`) == 2 })
}
