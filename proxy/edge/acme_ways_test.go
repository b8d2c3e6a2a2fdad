package edge

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rsa"
	"crypto/tls"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"sallyport/proxy/setting"
)

// ways returns the supported ways to create records in the house's DNS.
func (h *acmeHouse) ways() map[string]*DNSConfig {
	t := h.t
	t.Helper()
	hook := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		var m map[string]string
		if json.NewDecoder(r.Body).Decode(&m) != nil || r.Header.Get("Authorization") != "Bearer hook-token" {
			http.Error(w, "who are you?", http.StatusForbidden)
			return
		}
		h.dns.mu.Lock()
		defer h.dns.mu.Unlock()
		h.dns.change(m["fqdn"], m["value"], m["action"] == "present")
	}))
	t.Cleanup(hook.Close)
	u, err := url.Parse(hook.URL)
	if err != nil {
		t.Fatal(err)
	}
	script := filepath.Join(t.TempDir(), "dns")
	text := fmt.Sprintf("#!/bin/sh\n[ -z \"$SALLYPORT_SECRET\" ] || exit 3\nexec curl -sf -H 'Authorization: Bearer hook-token' -d \"{\\\"action\\\": \\\"$2\\\", \\\"fqdn\\\": \\\"$3\\\", \\\"value\\\": \\\"$4\\\"}\" %s\n", hook.URL)
	if err := os.WriteFile(script, []byte(text), 0o700); err != nil {
		t.Fatal(err)
	}
	return map[string]*DNSConfig{
		"rfc2136": {RFC2136: &RFC2136Config{Server: h.dns.addr, KeyName: testTSIG, Key: setting.Literal([]byte(testTSIGKey()))}},
		"exec":    {Exec: &ExecConfig{Command: setting.List[string]{script, "first"}}},
		"webhook": {Webhook: &WebhookConfig{URL: setting.URL{URL: u}, Token: setting.Literal([]byte("hook-token"))}},
	}
}

// dns-01 obtains a wildcard certificate with one order, and all hosts that it matches are
// served with it.
func TestACMEObtainsAWildcardByDNS(t *testing.T) {
	t.Parallel()
	h := newACMEHouse(t, acmePlan{})
	for name, way := range h.ways() {
		t.Run(name, func(t *testing.T) {
			way.Resolvers = setting.List[string]{h.dns.addr}
			c := h.config(func(c *ACMEConfig) {
				c.Domains, c.DNS, c.Storage = setting.List[string]{"*.example.com"}, way, setting.Place(filepath.Join(t.TempDir(), "acme"))
			})
			r := h.start(c, "a.example.com", "*.example.com")
			eventually(t, "the certificate is obtained", func() bool { return !r.statusOf(t, "*.example.com").NotAfter.IsZero() })
			for _, host := range []string{"a.example.com", "b.example.com"} {
				cert, err := h.leaf(host)
				if err != nil || !slices.Equal(cert.DNSNames, []string{"*.example.com"}) {
					t.Errorf("%s: %v", host, err)
				}
			}
			if n := len(r.Certificates()); n != 1 {
				t.Errorf("%d certificates, want one for all hosts", n)
			}
			if n := h.dns.left(); n != 0 {
				t.Errorf("%d records are left in the DNS", n)
			}
			r.stop()
		})
	}
}

func TestACMEReportsRefusedDNSUpdates(t *testing.T) {
	t.Parallel()
	h := newACMEHouse(t, acmePlan{})
	way := &DNSConfig{
		RFC2136:   &RFC2136Config{Server: h.dns.addr, KeyName: testTSIG, Key: setting.Literal([]byte("d3Jvbmcga2V5"))},
		Resolvers: setting.List[string]{h.dns.addr},
	}
	r := h.start(h.config(func(c *ACMEConfig) { c.DNS = way }), "a.example.com")
	eventually(t, "the failure is in the status", func() bool { return r.statusOf(t, "a.example.com").LastError != "" })
	if got := r.statusOf(t, "a.example.com").LastError; !strings.Contains(got, "record for dns-01") || !strings.Contains(got, "check tls.acme.dns") {
		t.Errorf("got %q", got)
	}
}

// A hanging program is killed with its children, and only the start of its output is kept.
func TestExecIsBoundedInTimeAndOutput(t *testing.T) {
	t.Parallel()
	script := filepath.Join(t.TempDir(), "dns")
	if err := os.WriteFile(script, []byte("#!/bin/sh\nyes no | head -c 200000\nsleep 600 & sleep 600\n"), 0o700); err != nil {
		t.Fatal(err)
	}
	p := &execProvider{ExecConfig{Command: setting.List[string]{script}, Timeout: setting.Duration(300 * time.Millisecond)}}
	began := time.Now()
	err := p.run(t.Context(), actionPresent, "_acme-challenge.example.com.", "text")
	if err == nil || len(err.Error()) > 4*maxOutput || time.Since(began) > time.Minute {
		t.Errorf("after %s: %.80v", time.Since(began), err)
	}
}

func TestACMEKeyTypesAndProfiles(t *testing.T) {
	t.Parallel()
	h := newACMEHouse(t, acmePlan{})
	for _, tt := range []struct {
		name   string
		change func(*ACMEConfig)
		right  func(key any, life time.Duration) bool
	}{
		{"p384", func(c *ACMEConfig) { c.KeyType = "p384" }, func(key any, _ time.Duration) bool {
			k, ok := key.(*ecdsa.PublicKey)
			return ok && k.Curve == elliptic.P384()
		}},
		{"rsa2048", func(c *ACMEConfig) { c.KeyType = "rsa2048" }, func(key any, _ time.Duration) bool {
			k, ok := key.(*rsa.PublicKey)
			return ok && k.N.BitLen() == 2048
		}},
		{"shortlived", func(c *ACMEConfig) { c.Profile = "shortlived" }, func(_ any, life time.Duration) bool { return life < 7*24*time.Hour }},
	} {
		t.Run(tt.name, func(t *testing.T) {
			r := h.start(h.config(func(c *ACMEConfig) { tt.change(c); c.Storage = setting.Place(filepath.Join(t.TempDir(), "acme")) }), "a.example.com")
			cert := h.obtained(r, "a.example.com")
			if life := cert.NotAfter.Sub(cert.NotBefore); !tt.right(cert.PublicKey, life) {
				t.Errorf("got a certificate with %T for %s", cert.PublicKey, life)
			}
			r.stop()
		})
	}
}

// The status says that an external account is required, and orders succeed with one.
func TestACMEExternalAccount(t *testing.T) {
	t.Parallel()
	h := newACMEHouse(t, acmePlan{account: true})
	r := h.start(h.config(nil), "a.example.com")
	eventually(t, "the failure is in the status", func() bool { return r.statusOf(t, "a.example.com").LastError != "" })
	if got := r.statusOf(t, "a.example.com").LastError; !strings.Contains(got, "write tls.acme.eab") {
		t.Errorf("got %q", got)
	}
	r.stop()
	bound := h.start(h.config(func(c *ACMEConfig) { c.EAB = &EABConfig{KeyID: testKeyID, Key: setting.Literal([]byte(testMACKey))} }), "a.example.com")
	h.obtained(bound, "a.example.com")
}

// Each host uses its own source.
func TestEachHostUsesItsOwnSource(t *testing.T) {
	t.Parallel()
	h := newACMEHouse(t, acmePlan{})
	ca, dir := newTestCA(t), t.TempDir()
	c := h.config(nil)
	c.Files = setting.List[FileConfig]{ca.write(t, dir, "file", forHosts("file.example.com"))}
	c.Local = &LocalConfig{Dir: setting.Place(filepath.Join(dir, "ca")), Hosts: setting.List[string]{"dev.example.com"}}
	hosts := []string{"file.example.com", "acme.example.com", "dev.example.com", "localhost", "127.0.0.1"}
	r := h.start(c, hosts...)
	h.obtained(r, "acme.example.com")
	for host, want := range map[string]string{"file.example.com": "files", "acme.example.com": "acme", "dev.example.com": "local", "localhost": "local", "127.0.0.1": "local"} {
		if got := r.statusOf(t, host).Source; got != want {
			t.Errorf("%s is served by %s, want %s", host, got, want)
		}
		if got := r.view.Load().Local(host); got != (want == "local") {
			t.Errorf("Local(%s) = %t", host, got)
		}
		c, err := tls.Dial("tcp", r.addr, &tls.Config{ServerName: host, InsecureSkipVerify: true})
		if err != nil {
			t.Errorf("%s: %v", host, err)
			continue
		}
		if got := hostsIn(c.ConnectionState().PeerCertificates[0]); !slices.Contains(got, host) {
			t.Errorf("%s: got a certificate for %v", host, got)
		}
		c.Close()
	}
}

// Renewal of certificates that expire within seconds loses no request.
func TestACMERenewalLosesNoRequest(t *testing.T) {
	t.Parallel()
	h := newACMEHouse(t, acmePlan{life: 45 * time.Second, silent: true}) // renewed at 30 s, so 15 s are left for a slow machine
	r := h.start(h.config(nil), "a.example.com")
	h.obtained(r, "a.example.com")
	stop := make(chan struct{})
	var wg sync.WaitGroup
	for _, kind := range []string{"HTTP/1.1", "HTTP/1.1, new connections", "HTTP/2"} {
		transport := &http.Transport{TLSClientConfig: &tls.Config{RootCAs: h.roots(), ServerName: "a.example.com"}, Protocols: new(http.Protocols)}
		transport.Protocols.SetHTTP1(kind != "HTTP/2")
		transport.Protocols.SetHTTP2(kind == "HTTP/2")
		transport.DisableKeepAlives = strings.HasSuffix(kind, "new connections")
		client := &http.Client{Transport: transport, Timeout: time.Minute}
		wg.Go(func() {
			defer transport.CloseIdleConnections()
			n := 0
			for ; ; n++ {
				select {
				case <-stop:
					if n == 0 {
						t.Errorf("%s: no request was made", kind)
					}
					return
				default:
				}
				res, err := client.Get("https://" + r.addr)
				if err != nil {
					t.Errorf("%s: request %d: %v", kind, n, err)
					return
				}
				if b, err := io.ReadAll(res.Body); err != nil || string(b) != "hello" {
					t.Errorf("%s: request %d: %q, %v", kind, n, b, err)
				}
				res.Body.Close()
				time.Sleep(time.Millisecond)
			}
		})
	}
	seen := map[string]bool{}
	eventually(t, "the certificate is renewed", func() bool {
		if c, err := h.leaf("a.example.com"); err == nil {
			seen[c.SerialNumber.String()] = true
		}
		return len(seen) >= 2
	})
	close(stop)
	wg.Wait()
	if !strings.Contains(r.log.String(), "renewal=true") {
		t.Errorf("the log has no renewal: %s", r.log)
	}
}

// BenchmarkSNI looks up the certificate of one of ten thousand names.
func BenchmarkSNI(b *testing.B) {
	s := &acmeSource{}
	certs := map[string]*tls.Certificate{}
	var hosts []string
	for i := range 10_000 {
		name := fmt.Sprintf("host-%d.example.com", i)
		hosts = append(hosts, name)
		certs[name] = &tls.Certificate{}
	}
	s.certs.Store(&certs)
	v := &View{hosts: newHostSet(hosts), sources: []source{s}, acme: s, config: &tls.Config{}}
	e := &Edge{}
	e.view.Store(v)
	hello := &tls.ClientHelloInfo{ServerName: "host-7777.example.com", SupportedProtos: []string{"h2"}, SupportedVersions: []uint16{tls.VersionTLS13}}
	b.ReportAllocs()
	for b.Loop() {
		if c, err := e.configFor(hello); c != v.config || err != nil {
			b.Fatal(c, err)
		}
		if c, err := v.certificateFor(hello, e.failures); c == nil || err != nil {
			b.Fatal("no certificate", err)
		}
	}
}
