package proxy_test

import (
	"bufio"
	"context"
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"strings"
	"testing"
	"time"

	"sallyport/auth/authtest"
	"sallyport/proxy/exchange"
)

// mallories are certificates that prove nobody, with the reason.
func (h *mutualHouse) mallories() map[string]struct {
	cert   *tls.Certificate
	reason string
} {
	of := func(by authtest.Cert, change func(*x509.Certificate), along ...authtest.Cert) *tls.Certificate {
		c := by.Client("mallory", func(c *x509.Certificate) {
			authtest.URIs("spiffe://lab/mallory")(c)
			if change != nil {
				change(c)
			}
		}).TLS(along...)
		return &c
	}
	revoked := h.revoked.TLS()
	self := authtest.NewCA("mallory", time.Now(), func(c *x509.Certificate) { authtest.URIs("spiffe://lab/mallory")(c); c.IsCA = false }).TLS()
	narrow := h.lab.CA("narrow", func(c *x509.Certificate) {
		c.PermittedURIDomains, c.PermittedDNSDomainsCritical = []string{"elsewhere"}, true
	})
	chain := []authtest.Cert{h.lab.CA("1", nil)}
	for _, name := range []string{"2", "3", "4"} {
		chain = append([]authtest.Cert{chain[0].CA(name, nil)}, chain...)
	}
	return map[string]struct {
		cert   *tls.Certificate
		reason string
	}{
		"no certificate": {nil, "certificate_missing"},
		"self-signed":    {&self, "certificate_unknown_ca"},
		"unknown CA":     {of(h.partners, nil), "certificate_unknown_ca"},
		"the CA's name":  {of(authtest.NewCA("lab", time.Now(), nil), nil), "certificate_unknown_ca"},
		"expired":        {of(h.lab, func(c *x509.Certificate) { c.NotAfter = time.Now().Add(-time.Minute) }), "certificate_expired"},
		"not yet valid":  {of(h.lab, func(c *x509.Certificate) { c.NotBefore = time.Now().Add(time.Hour) }), "certificate_not_yet_valid"},
		"revoked":        {&revoked, "certificate_revoked"},
		"wrong usage":    {of(h.lab, func(c *x509.Certificate) { c.ExtKeyUsage = []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth} }), "certificate_wrong_usage"},
		"two names": {of(h.lab, func(c *x509.Certificate) {
			c.URIs = append(c.URIs, &url.URL{Scheme: "spiffe", Host: "lab", Path: "/alice"})
		}), "certificate_name"},
		"name constraints": {of(narrow, nil, narrow), "certificate_name"},
		"over-deep chain":  {of(chain[0], nil, chain...), "certificate_chain"},
	}
}

// TestBadCertificatesReachNoUpstream sends bad certificates to a host that asks for certificates and
// to one that requires one, over each protocol. alice is served meanwhile.
func TestBadCertificatesReachNoUpstream(t *testing.T) {
	for name, h2 := range map[string]bool{"HTTP/1.1": false, "HTTP/2": true} {
		t.Run(name, func(t *testing.T) {
			h := newMutualHouse(t, plan{})
			alice, failed := h.certClient(h2, &h.alice, nil), map[string]int{}
			for name, c := range h.mallories() {
				t.Run(name, func(t *testing.T) {
					h := &mutualHouse{house: h.in(t), alice: h.alice}
					mallory := h.certClient(h2, c.cert, nil)
					h.model.hits.Store(0)
					r := h.certGet(mallory, "models.test/cert")
					h.refused(r, 401, c.reason)
					if r.Header.Get("Www-Authenticate") == "" {
						t.Error("no challenge")
					}
					if res, err := mallory.Get("https://strict.test/cert"); err == nil {
						res.Body.Close()
						t.Errorf("the required certificate: answered %d", res.StatusCode)
					}
					failed[c.reason]++
					h.failedHandshakes("client_"+c.reason, failed[c.reason])
					h.untouched()
					for _, host := range []string{"models.test", "strict.test"} {
						if r := h.certGet(alice, host+"/cert"); r.StatusCode != 200 {
							t.Errorf("alice at %s: %d %s", host, r.StatusCode, r.body)
						}
					}
					if up, _ := h.model.seen(); up.Header.Get("X-Sallyport-Principal") != "cert:spiffe://lab/alice" {
						t.Errorf("the upstream was told %v", up.Header)
					}
				})
			}
			serial := fmt.Sprintf("%x CN=lab", h.alice.Leaf.SerialNumber)
			if r := h.recordOf("cert:spiffe://lab/alice"); r["credential"] != "cert" || r["credential_id"] != serial || !strings.HasPrefix(fmt.Sprint(r["key_id"]), "sha256:") {
				t.Errorf("the record does not name the certificate: %v", r)
			}
			if text := h.log.text(); !strings.Contains(text, "client=127.0.0.1") || !strings.Contains(text, "certificate_expired") {
				t.Errorf("the log names no reason and address:\n%s", text)
			}
		})
	}
}

func TestBadCertificatesReachNoGRPCServer(t *testing.T) {
	h := newMutualHouse(t, plan{})
	alice := h.certClient(true, &h.alice, nil)
	for name, c := range h.mallories() {
		calls := h.calls.calls.Load()
		if status := h.certCall(h.certClient(true, c.cert, nil)); status != "16" {
			t.Errorf("%s: status %s, want 16", name, status)
		}
		if got := h.calls.calls.Load(); got != calls {
			t.Errorf("%s: the call reached the server", name)
		}
		if status := h.certCall(alice); status != "0" {
			t.Errorf("alice after %s: status %s", name, status)
		}
	}
}

// TestCertificateIsOneProofOfSeveral checks who is believed where a route takes tokens too, and that a
// bad certificate is not excused by a good token.
func TestCertificateIsOneProofOfSeveral(t *testing.T) {
	h := newMutualHouse(t, plan{})
	bob := h.lab.Client("bob", authtest.URIs("spiffe://lab/bob")).TLS()
	bad := h.partners.Client("mallory", authtest.URIs("spiffe://lab/alice")).TLS()
	token := []string{"Authorization", "Bearer " + h.token()}
	for _, c := range []struct {
		path   string
		cert   *tls.Certificate
		fields []string
		status int
		told   string // the principal or the reason
	}{
		{"/either", &h.alice, nil, 200, "cert:spiffe://lab/alice"},
		{"/either", nil, token, 200, "issuer/corp:alice"},
		{"/either", &h.alice, token, 200, "issuer/corp:alice"},
		{"/either", &bad, token, 401, "certificate_unknown_ca"},
		{"/tokens", &bad, token, 200, "issuer/corp:alice"},
		{"/alice", &h.alice, nil, 200, "cert:spiffe://lab/alice"},
		{"/alice", &bob, nil, 401, "certificate_name"},
		{"/cert", &bob, nil, 200, "cert:spiffe://lab/bob"},
	} {
		r := h.certGet(h.certClient(true, c.cert, nil), "models.test"+c.path, c.fields...)
		told := r.reason()
		if r.StatusCode == 200 {
			up, _ := h.model.seen()
			told = up.Header.Get("X-Sallyport-Principal")
		}
		if r.StatusCode != c.status || told != c.told {
			t.Errorf("%s: %d %s, want %d %s", c.path, r.StatusCode, told, c.status, c.told)
		}
	}
}

// TestConnectionOfAnotherHostIsMisdirected sends requests for hosts with a policy over connections of
// others. The owner of the connection goes on.
func TestConnectionOfAnotherHostIsMisdirected(t *testing.T) {
	for name, h2 := range map[string]bool{"HTTP/1.1": false, "HTTP/2": true} {
		t.Run(name, func(t *testing.T) {
			h := newMutualHouse(t, plan{})
			token := []string{"Authorization", "Bearer " + h.token()}
			for _, c := range []struct {
				named, url string
				status     int
				reason     string
			}{
				{"models.test", "models.test/cert", 200, ""},
				{"plain.test", "models.test/cert", 421, "misdirected"},
				{"plain.test", "models.test/tokens", 421, "misdirected"},
				{"plain.test", "models.test/nowhere", 421, "misdirected"},
				{"models.test", "other.test/cert", 421, "misdirected"},
				{"models.test", "strict.test/cert", 421, "misdirected"},
				{"strict.test", "models.test/cert", 421, "misdirected"},
				{"models.test", "plain.test/tokens", 200, ""},
			} {
				client := h.certClient(h2, &h.alice, nil)
				h.namedDial(client, c.named, h2)
				h.model.hits.Store(0)
				r := h.certGet(client, c.url, token...)
				if r.StatusCode != c.status || r.reason() != c.reason {
					t.Errorf("%s over a connection for %s: %d %s, want %d %s", c.url, c.named, r.StatusCode, r.reason(), c.status, c.reason)
				}
				if c.status != 200 {
					h.untouched()
				}
				own := map[string]string{"models.test": "models.test/cert", "strict.test": "strict.test/cert", "plain.test": "plain.test/tokens"}[c.named]
				if r := h.certGet(client, own, token...); r.StatusCode != 200 {
					t.Errorf("the connection's own host %s after that: %d %s", own, r.StatusCode, r.body)
				}
			}
		})
	}
}

// TestConnectionWithoutANameIsMisdirected uses a client that dials an address, which has a policy too.
func TestConnectionWithoutANameIsMisdirected(t *testing.T) {
	h := newMutualHouse(t, plan{routes: strings.Replace(mutualRoutes, "host: plain.test", "host: [plain.test, 127.0.0.1]", 1)})
	c := h.certClient(false, &h.alice, nil)
	h.namedDial(c, "127.0.0.1", false) // crypto/tls sends no address
	h.refused(h.certGet(c, "models.test/cert"), 421, "misdirected")
	if r := h.certGet(c, "127.0.0.1/tokens", "Authorization", "Bearer "+h.token()); r.StatusCode != 200 {
		t.Errorf("the address itself: %d %s", r.StatusCode, r.body)
	}
}

func TestMisdirectedCallMayBeRetried(t *testing.T) {
	h := newMutualHouse(t, plan{})
	c := h.certClient(true, &h.alice, nil)
	h.namedDial(c, "plain.test", true)
	if status := h.certCall(c); status != "14" || h.calls.calls.Load() != 0 {
		t.Errorf("status %s after %d calls of the server, want 14 and none", status, h.calls.calls.Load())
	}
}

// TestSessionKeepsTheCertificateThatOpenedIt resumes the session of one certificate with a client that
// has another. The caller is the one who proved the possession of a key.
func TestSessionKeepsTheCertificateThatOpenedIt(t *testing.T) {
	for _, version := range []uint16{tls.VersionTLS12, tls.VersionTLS13} {
		h := newMutualHouse(t, plan{})
		h.edit("tls: {", "tls: {min_version: '1.2', ")
		h.reload("changed")
		bob := h.lab.Client("bob", authtest.URIs("spiffe://lab/bob")).TLS()
		cache := tls.NewLRUClientSessionCache(4)
		with := func(c *tls.Certificate) (caller string, resumed bool) {
			client := h.certClient(false, c, func(t *tls.Config) { t.ClientSessionCache, t.MaxVersion = cache, version })
			r := h.certGet(client, "models.test/cert")
			client.CloseIdleConnections()
			up, _ := h.model.seen()
			return up.Header.Get("X-Sallyport-Principal"), r.TLS.DidResume
		}
		with(&h.alice)
		if caller, resumed := with(&bob); !resumed || caller != "cert:spiffe://lab/alice" {
			t.Errorf("%s: the caller is %s, resumed: %t", tls.VersionName(version), caller, resumed)
		}
		h.edit("hosts: models.test, ca: lab.pem, crl: lab.crl", "hosts: models.test, ca: lab.pem, crl: lab.crl, max_depth: 2")
		h.reload("changed")
		if caller, resumed := with(&bob); resumed || caller != "cert:spiffe://lab/bob" {
			t.Errorf("%s: after a change of the policy the caller is %s, resumed: %t", tls.VersionName(version), caller, resumed)
		}
	}
}

// TestCertificatesNeedTLS asks over listeners without TLS, where a connection proves nothing.
func TestCertificatesNeedTLS(t *testing.T) {
	h := newMutualHouse(t, plan{listen: ", insecure_plain: {addr: '127.0.0.1:0', from: 127.0.0.1}, forward_auth: {addr: '127.0.0.1:0', from: 127.0.0.1, dialect: nginx}", more: "trusted_proxies: 127.0.0.1\n"})
	for _, host := range []string{"models.test", "strict.test"} {
		h.refused(h.askAs(told("nginx", "GET", host, "/cert")...), 401, "certificate_missing")
		c := h.connect(h.addrs.Plain, "GET /cert HTTP/1.1\r\nHost: "+host+"\r\nX-Forwarded-Proto: https\r\nConnection: close\r\n\r\n")
		if answer, _ := io.ReadAll(c); !strings.HasPrefix(string(answer), "HTTP/1.1 401 ") || !strings.Contains(string(answer), "certificate_missing") {
			t.Errorf("%s: %s", host, answer)
		}
	}
	h.untouched()
}

// TestRequiredCertificateIsNeededBehindBalancers asks for a route that takes tokens, on a host that
// requires certificates, where a balancer has ended TLS.
func TestRequiredCertificateIsNeededBehindBalancers(t *testing.T) {
	h := newMutualHouse(t, plan{
		listen: ", insecure_plain: {addr: '127.0.0.1:0', from: 127.0.0.1}, forward_auth: {addr: '127.0.0.1:0', from: 127.0.0.1, dialect: nginx}",
		more:   unwatched + "trusted_proxies: 127.0.0.1\n" + mutualEntries,
	})
	alice, _ := x509.ParseCertificate(h.alice.Certificate[0])
	good, bad := sfBytes(authtest.Cert{Certificate: alice}), sfBytes(h.revoked)
	token := "Authorization: Bearer " + h.token() + "\r\n"
	c := h.connect(h.addrs.Plain, "")
	answers := bufio.NewReader(c)
	ask := func(when, host, fields, want string) {
		t.Helper()
		if _, err := io.WriteString(c, "GET /tokens HTTP/1.1\r\nHost: "+host+"\r\nX-Forwarded-Proto: https\r\n"+token+fields+"\r\n"); err != nil {
			t.Fatal(err)
		}
		res, err := http.ReadResponse(answers, nil) // of one connection: refusals must not end it
		if err != nil {
			t.Fatalf("%s: %v", when, err)
		}
		body, _ := io.ReadAll(res.Body)
		if !strings.HasPrefix(res.Status, want[:3]) || !strings.Contains(string(body), want[4:]) {
			t.Errorf("%s: %s %s, want %s", when, res.Status, body, want)
		}
	}
	ask("no field is configured", "strict.test", "Client-Cert: "+good+"\r\n", "401 certificate_missing")
	h.refused(h.askAs(append(told("nginx", "GET", "strict.test", "/tokens"), "Authorization: Bearer TOKEN")...), 401, "certificate_missing")
	h.untouched()
	ask("a host that requires none", "models.test", "", "200 ")
	h.edit("mode: required", "mode: required, header: {name: Client-Cert, from: 127.0.0.1}")
	h.reload("changed")
	ask("no certificate", "strict.test", "", "401 certificate_missing")
	ask("a revoked one", "strict.test", "Client-Cert: "+bad+"\r\n", "401 certificate_revoked")
	ask("a good one", "strict.test", "Client-Cert: "+good+"\r\n", "200 ")
	for _, path := range []string{"/cert", "/tokens"} {
		fields := append(told("nginx", "GET", "strict.test", path), "Client-Cert: "+good, "Client-Cert-Chain: "+sfBytes(h.lab))
		if path == "/tokens" {
			fields = append(fields, "Authorization: Bearer TOKEN")
		}
		if r := h.askAs(fields...); r.StatusCode != 200 {
			t.Errorf("forward-auth for %s: %d %s", path, r.StatusCode, r.Header)
		}
	}
	if r := h.askAs(append(told("nginx", "GET", "models.test", "/tokens"), "Client-Cert: "+good, "Authorization: Bearer TOKEN")...); r.StatusCode != 403 {
		t.Errorf("forward-auth, a field that nobody may send: %d", r.StatusCode)
	}
}

// refusedConnections are requests over connections that were opened for another host, or before the
// host required certificates.
func refusedConnections(t *testing.T) *refusals {
	h := newMutualHouse(t, plan{more: unwatched})
	r := &refusals{house: h.house}
	c := h.certClient(false, &h.alice, nil)
	h.namedDial(c, "plain.test", false)
	r.expect("misdirected", 421, `the connection was opened for "plain.test", which does not ask for client certificates as this host does`, h.certGet(c, "models.test/cert").body)
	c = h.certClient(true, nil, nil)
	h.certGet(c, "models.test/tokens", "Authorization", "Bearer "+r.bearer(nil))
	h.edit("hosts: models.test, ca: lab.pem, crl: lab.crl", "hosts: models.test, ca: lab.pem, crl: lab.crl, mode: required")
	h.reload("changed")
	r.expect("misdirected", 421, "the connection was opened before the host required client certificates", h.certGet(c, "models.test/tokens").body)
	return r
}

// TestEveryReasonOfACertificateIsCounted compares the reasons of requests with those of handshakes.
func TestEveryReasonOfACertificateIsCounted(t *testing.T) {
	h := newMutualHouse(t, plan{})
	metrics := h.get("/metrics")
	for _, reason := range exchange.Reasons() {
		if strings.HasPrefix(reason, "certificate_") && !strings.Contains(metrics, `sallyport_tls_handshake_failures_total{reason="client_`+reason+`"} 0`) {
			t.Errorf("no handshake can fail for %s", reason)
		}
	}
}

// TestBalancersFieldNeedsNoConnectionOfItsHost sends a certificate in a field, over a connection that
// a balancer opened for another host.
func TestBalancersFieldNeedsNoConnectionOfItsHost(t *testing.T) {
	h := newMutualHouse(t, plan{})
	for from, want := range map[string]int{"127.0.0.1": 200, "10.0.0.7": 421} {
		h.edit("{hosts: models.test, ca: lab.pem, crl: lab.crl", "{hosts: models.test, header: {name: Client-Cert, from: "+from+"}, ca: lab.pem, crl: lab.crl")
		h.reload("changed")
		c := h.client(true)
		h.namedDial(c, "plain.test", true)
		alice, _ := x509.ParseCertificate(h.alice.Certificate[0])
		if r := h.certGet(c, "models.test/cert", "Client-Cert", sfBytes(authtest.Cert{Certificate: alice})); r.StatusCode != want {
			t.Errorf("from %s: %d %s, want %d", from, r.StatusCode, r.body, want)
		}
		h.edit("header: {name: Client-Cert, from: "+from+"}, ", "")
	}
}

// TestClientWithoutACertificateKeepsItsConnection: a client that was asked for one and has none would
// only open the next connection in vain.
func TestClientWithoutACertificateKeepsItsConnection(t *testing.T) {
	for name, h2 := range map[string]bool{"HTTP/1.1": false, "HTTP/2": true} {
		t.Run(name, func(t *testing.T) {
			h := newMutualHouse(t, plan{})
			c, opened := h.certClient(h2, nil, nil), 0
			tr := c.Transport.(*http.Transport)
			dial := tr.DialContext
			tr.DialContext = func(ctx context.Context, network, addr string) (net.Conn, error) {
				opened++
				return dial(ctx, network, addr)
			}
			for range 3 {
				h.refused(h.certGet(c, "models.test/cert"), 401, "certificate_missing")
			}
			if opened != 1 {
				t.Errorf("%d connections, want 1", opened)
			}
		})
	}
}
