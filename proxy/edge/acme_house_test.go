package edge

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/base64"
	"flag"
	"fmt"
	"io"
	"log"
	"net"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/letsencrypt/pebble/v2/ca"
	"github.com/letsencrypt/pebble/v2/db"
	"github.com/letsencrypt/pebble/v2/va"
	"github.com/letsencrypt/pebble/v2/wfe"
	"github.com/miekg/dns"

	"sallyport/proxy/setting"
)

// acmeHouse is an ACME server (Pebble) with its own DNS, and the listeners that it connects
// to for challenges.
type acmeHouse struct {
	t         testing.TB
	https     net.Listener
	http      net.Listener
	dns       *testDNS
	server    *httptest.Server
	directory string
	bundle    string // PEM file with the root of the server's certificate
	ca        *ca.CAImpl
	db        *db.MemoryStore
	requests  atomic.Int64
	broken    atomic.Pointer[http.HandlerFunc] // replaces the server's handler
	storage   string
}

// acmePlan holds the deviations of an acmeHouse from the default.
type acmePlan struct {
	life    time.Duration // validity of certificates; 0: 90 days
	nonces  int           // percentage of good nonces that the server refuses
	account bool          // whether an external account is required
	silent  bool          // whether it offers no renewal information
}

// setenv guards the environment, from which Pebble reads some settings.
var setenv sync.Mutex

func TestMain(m *testing.M) {
	for name, value := range map[string]string{"PEBBLE_VA_NOSLEEP": "1", "PEBBLE_AUTHZREUSE": "0", "SALLYPORT_SECRET": "not for programs"} {
		os.Setenv(name, value)
	}
	// These tests mostly wait, so run more of them in parallel than there are CPUs.
	flag.Parse()
	if err := flag.Set("test.parallel", "16"); err != nil {
		panic(err)
	}
	os.Exit(m.Run())
}

const (
	testKeyID  = "kid-1"
	testMACKey = "zWNDZM6eQGHWpSRTPal5eIUYFTu7EajVIoguysqZ9wG44nMEtx3MUAsUDkMTQ12W"
)

func newACMEHouse(t testing.TB, p acmePlan) *acmeHouse {
	t.Helper()
	h := &acmeHouse{t: t, https: listenTCP(t), http: listenTCP(t), dns: newTestDNS(t), storage: filepath.Join(t.TempDir(), "acme")}
	quiet := log.New(io.Discard, "", 0)
	if os.Getenv("SALLYPORT_TEST_PEBBLE_LOG") != "" {
		quiet = log.New(t.Output(), "pebble ", 0)
	}
	h.db = db.NewMemoryStore()
	if p.account {
		if err := h.db.AddExternalAccountKeyByID(testKeyID, testMACKey); err != nil {
			t.Fatal(err)
		}
	}
	// Pebble assigns a random profile to orders without one.
	profiles := map[string]ca.Profile{"default": {ValidityPeriod: uint64(p.life.Seconds())}}
	if p.life == 0 {
		profiles = map[string]ca.Profile{"default": {ValidityPeriod: 90 * 24 * 3600}, "shortlived": {ValidityPeriod: 6 * 24 * 3600}}
	}
	h.ca = ca.New(quiet, h.db, "", "ecdsa", 0, 1, profiles)
	setenv.Lock()
	os.Setenv("PEBBLE_WFE_NONCEREJECT", fmt.Sprint(p.nonces))
	front := wfe.New(quiet, h.db, va.New(quiet, port(h.http), port(h.https), false, h.dns.addr, h.db), h.ca, []string{"pebble.test"}, false, p.account, 0, 0)
	setenv.Unlock()
	inner := front.Handler()
	h.server = httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		h.requests.Add(1)
		if f := h.broken.Load(); f != nil {
			(*f)(w, r)
			return
		}
		if p.silent && r.URL.Path == "/dir" {
			record := httptest.NewRecorder()
			inner.ServeHTTP(record, r)
			w.Header().Set("Content-Type", "application/json")
			_, _ = io.WriteString(w, strings.Replace(record.Body.String(), `"renewalInfo"`, `"none"`, 1))
			return
		}
		inner.ServeHTTP(w, r)
	}))
	h.server.Config.ErrorLog = quiet
	h.server.StartTLS()
	t.Cleanup(h.server.Close)
	h.directory = h.server.URL + "/dir"
	h.bundle = filepath.Join(t.TempDir(), "bundle.pem")
	writeTest(t, h.bundle, pemBlock("CERTIFICATE", h.server.Certificate().Raw))
	return h
}

func listenTCP(t testing.TB) net.Listener {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	return l
}

func port(l net.Listener) int { return l.Addr().(*net.TCPAddr).Port }

// config returns a configuration that uses the house's authority.
func (h *acmeHouse) config(change func(*ACMEConfig)) Config {
	c := &ACMEConfig{Email: "ops@example.com", Directory: h.directory, CA: setting.Path(h.bundle), Storage: setting.Place(h.storage)}
	if change != nil {
		change(c)
	}
	return Config{ACME: c}
}

// only returns a configuration change that allows just one challenge.
func only(challenge string) func(*ACMEConfig) {
	return func(c *ACMEConfig) { c.Challenges = setting.List[string]{challenge} }
}

// fast returns a rhythm for tests.
func fast() rhythm {
	m := time.Millisecond
	return rhythm{look: 50 * m, refused: []time.Duration{200 * m}, away: []time.Duration{100 * m}, burst: 1000, apart: m}
}

// running is an edge that serves and runs.
type running struct {
	*Edge
	addr string
	log  *journal
	stop func() // stops it; may be called twice
}

// start runs an edge on the house's listeners. Only one may run at a time.
func (h *acmeHouse) start(c Config, hosts ...string) *running {
	h.t.Helper()
	r := &running{log: &journal{}, addr: h.https.Addr().String()}
	r.Edge = newEdge(h.t, c, Options{Hosts: hosts, Log: r.log.log(), PlainHTTP: true})
	r.view.Load().acme.rhythm = fast()
	ctx, cancel := context.WithCancel(context.Background())
	var wg sync.WaitGroup
	plain := &http.Server{Handler: http.HandlerFunc(func(w http.ResponseWriter, q *http.Request) {
		host, _, _ := net.SplitHostPort(q.Host)
		if text, ok := r.ChallengeAnswer(host, q.URL.Path); ok {
			_, _ = io.WriteString(w, text)
			return
		}
		http.NotFound(w, q)
	})}
	secure := &http.Server{Handler: http.HandlerFunc(func(w http.ResponseWriter, q *http.Request) { _, _ = io.WriteString(w, "hello") })}
	secure.Protocols = new(http.Protocols)
	secure.Protocols.SetHTTP1(true)
	secure.Protocols.SetHTTP2(true)
	lis := r.Listen(sharedListener(h.t, h.https), Limits{Conns: everybody{}})
	wg.Go(func() { _ = plain.Serve(sharedListener(h.t, h.http)) })
	wg.Go(func() { _ = secure.Serve(lis) })
	wg.Go(func() { _ = r.Run(ctx) })
	r.stop = sync.OnceFunc(func() {
		cancel()
		_ = plain.Close()
		_ = secure.Close()
		_ = lis.Close()
		wg.Wait()
	})
	h.t.Cleanup(r.stop)
	return r
}

// everybody admits every connection.
type everybody struct{}

func (everybody) Enter(netip.Addr) bool { return true }
func (everybody) Leave(netip.Addr)      {}

// sharedListener returns a second listener on the same socket. Closing it keeps the port open
// for the next.
func sharedListener(t testing.TB, l net.Listener) net.Listener {
	t.Helper()
	f, err := l.(*net.TCPListener).File()
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	second, err := net.FileListener(f)
	if err != nil {
		t.Fatal(err)
	}
	return second
}

// roots returns the roots of the certificates that the house issues.
func (h *acmeHouse) roots() *x509.CertPool {
	pool := x509.NewCertPool()
	pool.AppendCertsFromPEM(h.ca.GetRootCert(0).PEM())
	return pool
}

// leaf completes a handshake and returns the server's certificate.
func (h *acmeHouse) leaf(name string) (*x509.Certificate, error) {
	d := tls.Dialer{NetDialer: &net.Dialer{Timeout: time.Minute}, Config: &tls.Config{ServerName: name, RootCAs: h.roots(), NextProtos: []string{"http/1.1"}}}
	c, err := d.Dial("tcp", h.https.Addr().String())
	if err != nil {
		return nil, err
	}
	defer c.Close()
	return c.(*tls.Conn).ConnectionState().PeerCertificates[0], nil
}

// eventually waits until a condition holds.
func eventually(t testing.TB, what string, holds func() bool) {
	t.Helper()
	for end := time.Now().Add(time.Minute); time.Now().Before(end); time.Sleep(10 * time.Millisecond) {
		if holds() {
			return
		}
	}
	t.Fatalf("timeout while waiting until: %s", what)
}

// obtained waits until the name is served, and returns its certificate.
func (h *acmeHouse) obtained(r *running, name string) *x509.Certificate {
	h.t.Helper()
	var cert *x509.Certificate
	defer func() {
		if cert == nil {
			h.t.Logf("the log: %s", r.log)
		}
	}()
	eventually(h.t, name+" has a certificate", func() bool {
		if r.statusOf(h.t, name).NotAfter.IsZero() {
			return false
		}
		c, err := h.leaf(name)
		cert = c
		return err == nil
	})
	return cert
}

// statusOf returns the status of a name.
func (r *running) statusOf(t testing.TB, name string) CertificateStatus {
	t.Helper()
	all := r.Certificates()
	i := slices.IndexFunc(all, func(c CertificateStatus) bool { return slices.Contains(c.Hosts, name) })
	if i < 0 {
		t.Fatalf("no status of %s among %v", name, all)
	}
	return all[i]
}

// testDNS is the DNS server of example.com, with dynamic updates (RFC 2136).
type testDNS struct {
	addr string

	mu      sync.Mutex // guards the fields below
	absent  []string   // names without an address
	txt     map[string][]string
	updates int
}

const testTSIG = "update-key."

func testTSIGKey() string {
	return base64.StdEncoding.EncodeToString([]byte("0123456789abcdef0123456789abcdef"))
}

func newTestDNS(t testing.TB) *testDNS {
	t.Helper()
	d := &testDNS{txt: map[string][]string{}}
	tcp := listenTCP(t)
	d.addr = tcp.Addr().String()
	udp, err := net.ListenPacket("udp", d.addr)
	if err != nil {
		t.Fatal(err)
	}
	secrets := map[string]string{testTSIG: testTSIGKey()}
	accept := func(h dns.Header) dns.MsgAcceptAction {
		if opcode := int(h.Bits>>11) & 0xF; opcode == dns.OpcodeUpdate {
			return dns.MsgAccept
		}
		return dns.DefaultMsgAcceptFunc(h)
	}
	for _, s := range []*dns.Server{{Listener: tcp}, {PacketConn: udp}} {
		s.Handler, s.TsigSecret, s.MsgAcceptFunc = d, secrets, accept
		started := make(chan struct{})
		s.NotifyStartedFunc = func() { close(started) }
		done := make(chan struct{})
		go func() { defer close(done); _ = s.ActivateAndServe() }()
		<-started
		t.Cleanup(func() { _ = s.Shutdown(); <-done })
	}
	return d
}

// ServeDNS answers a query or applies an update.
func (d *testDNS) ServeDNS(w dns.ResponseWriter, q *dns.Msg) {
	a := new(dns.Msg)
	a.SetReply(q)
	a.Authoritative = true
	d.mu.Lock()
	defer d.mu.Unlock()
	if q.Opcode == dns.OpcodeUpdate {
		d.update(w, q, a)
		_ = w.WriteMsg(a)
		return
	}
	name := strings.ToLower(q.Question[0].Name)
	head := func(kind uint16) dns.RR_Header {
		return dns.RR_Header{Name: name, Rrtype: kind, Class: dns.ClassINET, Ttl: 1}
	}
	switch q.Question[0].Qtype {
	case dns.TypeA:
		if slices.Contains(d.absent, strings.TrimSuffix(name, ".")) {
			a.Rcode = dns.RcodeNameError
			break
		}
		a.Answer = append(a.Answer, &dns.A{Hdr: head(dns.TypeA), A: net.IPv4(127, 0, 0, 1)})
	case dns.TypeTXT:
		for _, text := range d.txt[name] {
			a.Answer = append(a.Answer, &dns.TXT{Hdr: head(dns.TypeTXT), Txt: []string{text}})
		}
	case dns.TypeSOA:
		if name == "example.com." {
			a.Answer = append(a.Answer, &dns.SOA{Hdr: head(dns.TypeSOA), Ns: "ns.example.com.", Mbox: "ops.example.com.", Refresh: 60})
		}
	}
	_ = w.WriteMsg(a)
}

func (d *testDNS) update(w dns.ResponseWriter, q, a *dns.Msg) {
	if q.IsTsig() == nil || w.TsigStatus() != nil {
		a.Rcode = dns.RcodeRefused
		return
	}
	d.updates++
	for _, rr := range q.Ns {
		t, ok := rr.(*dns.TXT)
		if !ok {
			continue
		}
		d.change(t.Hdr.Name, strings.Join(t.Txt, ""), t.Hdr.Class == dns.ClassINET)
	}
	a.SetTsig(testTSIG, dns.HmacSHA256, 300, time.Now().Unix())
}

// change adds or removes a record. The caller holds mu.
func (d *testDNS) change(name, text string, add bool) {
	name = strings.ToLower(name)
	if add {
		d.txt[name] = append(d.txt[name], text)
		return
	}
	d.txt[name] = slices.DeleteFunc(d.txt[name], func(t string) bool { return t == text })
}

// left returns the number of records.
func (d *testDNS) left() (n int) {
	d.mu.Lock()
	defer d.mu.Unlock()
	for _, all := range d.txt {
		n += len(all)
	}
	return n
}
