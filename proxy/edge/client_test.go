package edge

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/asn1"
	"errors"
	"io"
	"net"
	"runtime"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"
	"weak"

	"sallyport/proxy/setting"
)

// certHouse is an edge for three hosts: one asks for no certificate, one asks for one, and one
// requires one that Verify accepts.
type certHouse struct {
	*Edge
	t        *testing.T
	ca       *testCA
	config   Config
	log      journal
	addr     string
	policies map[string]*ClientPolicy
	refusal  atomic.Pointer[string] // the reason why all certificates are refused; nil: none is
}

var certHosts = []string{"free.test", "optional.test", "required.test"}

func newCertHouse(t *testing.T, l Limits) *certHouse {
	ca := newTestCA(t)
	h := &certHouse{t: t, ca: ca, config: Config{MinVersion: "1.2", Files: setting.List[FileConfig]{ca.write(t, t.TempDir(), "all", forHosts(certHosts...))}}}
	h.Edge = newEdge(t, h.config, Options{Hosts: certHosts, Log: h.log.log()})
	h.policies = map[string]*ClientPolicy{"optional.test": h.policy("a", false), "required.test": h.policy("b", true)}
	h.activate()
	h.addr = listen(t, h.Edge, l)
	return h
}

func (h *certHouse) policy(id string, required bool) *ClientPolicy {
	return &ClientPolicy{
		ID: id, Required: required, Subjects: [][]byte{h.ca.cert.RawSubject},
		Verify: func(chain []*x509.Certificate) error {
			if reason := h.refusal.Load(); reason != nil {
				return errors.New(*reason)
			}
			return nil
		},
		Reason: error.Error,
	}
}

// activate makes the policies those of the active view.
func (h *certHouse) activate() {
	h.t.Helper()
	policies := map[string]*ClientPolicy{}
	for host, p := range h.policies {
		policies[host] = p
	}
	v, err := h.Prepare(h.config, certHosts, true, func(host string) *ClientPolicy { return policies[host] })
	if err != nil {
		h.t.Fatal(err)
	}
	h.Activate(v)
}

// certificate returns a client certificate, with more behind it to make the chain so long.
func (h *certHouse) certificate(key any, length int) tls.Certificate {
	h.t.Helper()
	if key == nil {
		var err error
		if key, err = ecdsa.GenerateKey(elliptic.P256(), rand.Reader); err != nil {
			h.t.Fatal(err)
		}
	}
	c := tls.Certificate{PrivateKey: key}
	for range length {
		c.Certificate = append(c.Certificate, h.ca.sign(h.t, &x509.Certificate{Subject: pkix.Name{CommonName: "alice"}}, key).Raw)
	}
	return c
}

// connect connects to a host with a certificate, if it is asked for one. asked reports whether
// the client was.
func (h *certHouse) connect(host string, version uint16, c *tls.Certificate, cache tls.ClientSessionCache) (s tls.ConnectionState, asked *tls.CertificateRequestInfo, err error) {
	s, err = connect(h.addr, &tls.Config{
		ServerName: host, RootCAs: h.ca.pool, MinVersion: version, MaxVersion: version, ClientSessionCache: cache,
		GetClientCertificate: func(i *tls.CertificateRequestInfo) (*tls.Certificate, error) {
			asked = i
			if c == nil {
				return new(tls.Certificate), nil
			}
			return c, nil
		},
	})
	return s, asked, err
}

func eachVersion(t *testing.T, f func(t *testing.T, version uint16)) {
	for _, version := range []uint16{tls.VersionTLS12, tls.VersionTLS13} {
		t.Run(tls.VersionName(version), func(t *testing.T) { f(t, version) })
	}
}

func TestOnlyHostsWithAPolicyAskForCertificates(t *testing.T) {
	eachVersion(t, func(t *testing.T, version uint16) {
		h := newCertHouse(t, Limits{})
		cert := h.certificate(nil, 1)
		for host, asks := range map[string]bool{"free.test": false, "optional.test": true, "required.test": true} {
			_, asked, err := h.connect(host, version, &cert, nil)
			if err != nil {
				t.Errorf("%s: %v", host, err)
			}
			if asks != (asked != nil) {
				t.Errorf("%s asked: %t, want %t", host, asked != nil, asks)
			}
			if asks && (len(asked.AcceptableCAs) != 1 || string(asked.AcceptableCAs[0]) != string(h.ca.cert.RawSubject)) {
				t.Errorf("%s asks for certificates of %q", host, asked.AcceptableCAs)
			}
		}
	})
}

// An optional policy passes every certificate; the request then says why it is refused. The
// handshakes for a required one fail, and the client of another host notices nothing.
func TestRequiredCertificatesAreVerifiedInTheHandshake(t *testing.T) {
	for _, reason := range []string{
		"certificate_unknown_ca", "certificate_expired", "certificate_not_yet_valid", "certificate_wrong_usage", "certificate_revoked",
		"certificate_revocation_unknown", "certificate_name", "certificate_chain",
	} {
		eachVersion(t, func(t *testing.T, version uint16) {
			h := newCertHouse(t, Limits{})
			cert := h.certificate(nil, 1)
			h.refusal.Store(&reason)
			for _, host := range []string{"free.test", "optional.test"} {
				if _, _, err := h.connect(host, version, &cert, nil); err != nil {
					t.Errorf("%s: %v", host, err)
				}
			}
			_, _, err := h.connect("required.test", version, &cert, nil)
			if err == nil || !strings.Contains(err.Error(), "bad certificate") {
				t.Errorf("the client saw %v, want the alert bad_certificate", err)
			}
			failuresBecome(t, h.Edge, map[string]uint64{"client_" + reason: 1})
			if got, want := h.log.String(), `the client certificate for \"required.test\" is refused: `+reason+`" client=127.0.0.1`; !strings.Contains(got, want) {
				t.Errorf("logged %q, want %q", got, want)
			}
		})
	}
}

func TestRequiredCertificateIsMissing(t *testing.T) {
	for version, alert := range map[uint16]string{tls.VersionTLS12: "handshake failure", tls.VersionTLS13: "certificate required"} {
		h := newCertHouse(t, Limits{})
		if _, _, err := h.connect("optional.test", version, nil, nil); err != nil {
			t.Errorf("optional: %v", err)
		}
		if _, _, err := h.connect("required.test", version, nil, nil); err == nil || !strings.Contains(err.Error(), alert) {
			t.Errorf("the client saw %v, want the alert %s", err, alert)
		}
		failuresBecome(t, h.Edge, map[string]uint64{"client_certificate_missing": 1})
		if got, want := h.log.String(), `a client has no certificate for \"required.test\", which requires one`; !strings.Contains(got, want) || !strings.Contains(got, "client=127.0.0.1") {
			t.Errorf("logged %q, want %q", got, want)
		}
	}
}

// A certificate is public. Only who holds its key may use it.
func TestCertificateWithoutItsKeyIsRefused(t *testing.T) {
	eachVersion(t, func(t *testing.T, version uint16) {
		h := newCertHouse(t, Limits{})
		stolen := h.certificate(nil, 1)
		stolen.PrivateKey = h.certificate(nil, 1).PrivateKey
		for i, host := range []string{"optional.test", "required.test"} {
			if _, _, err := h.connect(host, version, &stolen, nil); err == nil {
				t.Errorf("%s: the certificate was accepted", host)
			}
			failuresBecome(t, h.Edge, map[string]uint64{"client_certificate_key": uint64(i + 1)})
		}
	})
}

// With TLS 1.3 a client takes the handshake for complete before the gateway refuses its
// certificate. It must still read the alert, although it has sent a request by then.
func TestRefusedClientReadsTheAlertAfterItsRequest(t *testing.T) {
	h := newCertHouse(t, Limits{})
	c, err := tls.Dial("tcp", h.addr, &tls.Config{ServerName: "required.test", RootCAs: h.ca.pool})
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	_ = c.SetDeadline(time.Now().Add(time.Minute))
	if _, err := io.WriteString(c, strings.Repeat("x", 1<<20)); err != nil {
		t.Fatalf("sending the request: %v", err)
	}
	if _, err := c.Read(make([]byte, 1)); err == nil || !strings.Contains(err.Error(), "certificate required") {
		t.Errorf("the client read %v, want the alert certificate_required", err)
	}
}

func TestSessionsAreBoundToTheClientPolicy(t *testing.T) {
	eachVersion(t, func(t *testing.T, version uint16) {
		h := newCertHouse(t, Limits{})
		cert := h.certificate(nil, 1)
		for _, host := range []string{"optional.test", "required.test"} {
			cache := tls.NewLRUClientSessionCache(4)
			resumed := func() bool {
				t.Helper()
				s, _, err := h.connect(host, version, &cert, cache)
				if err != nil {
					t.Fatal(err)
				}
				return s.DidResume
			}
			resumed()
			h.activate()
			if !resumed() {
				t.Errorf("%s: the session was not resumed although the policy is the same", host)
			}
			required := h.policies[host].Required
			h.policies[host] = h.policy("next", required)
			h.activate()
			if resumed() {
				t.Errorf("%s: a session of another policy was resumed", host)
			}
			if !resumed() {
				t.Errorf("%s: a session of the new policy was not resumed", host)
			}
			delete(h.policies, host)
			h.activate()
			if resumed() {
				t.Errorf("%s: the session of a policy was resumed without it", host)
			}
			h.policies[host] = h.policy("next", required)
			h.activate()
			if resumed() {
				t.Errorf("%s: a session without a policy was resumed with it", host)
			}
		}
	})
}

// A session holds the certificate of its first handshake, whatever the client would send now.
// The certificate is verified again.
func TestResumedSessionsAreVerifiedAgain(t *testing.T) {
	eachVersion(t, func(t *testing.T, version uint16) {
		h := newCertHouse(t, Limits{})
		first, other := h.certificate(nil, 1), h.certificate(nil, 1)
		var seen [][]byte
		p := h.policy("b", true)
		verify := p.Verify
		p.Verify = func(chain []*x509.Certificate) error { seen = append(seen, chain[0].Raw); return verify(chain) }
		h.policies["required.test"] = p
		h.activate()
		cache := tls.NewLRUClientSessionCache(4)
		for _, cert := range []*tls.Certificate{&first, &other} {
			if _, _, err := h.connect("required.test", version, cert, cache); err != nil {
				t.Fatal(err)
			}
		}
		revoked := "certificate_revoked"
		h.refusal.Store(&revoked)
		if _, _, err := h.connect("required.test", version, &other, cache); err == nil {
			t.Error("the session of a revoked certificate was resumed")
		}
		failuresBecome(t, h.Edge, map[string]uint64{"client_certificate_revoked": 1})
		for i, raw := range seen {
			if string(raw) != string(first.Certificate[0]) {
				t.Errorf("handshake %d: another certificate was verified than that of the session", i)
			}
		}
		if len(seen) != 3 {
			t.Errorf("%d certificates were verified, want 3", len(seen))
		}
	})
}

// Tickets carry the client's chain. Long ones are not sent, because some clients could not read
// them; then every handshake is a full one.
func TestLongChainsResumeOrFallBack(t *testing.T) {
	key, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		t.Fatal(err)
	}
	eachVersion(t, func(t *testing.T, version uint16) {
		h := newCertHouse(t, Limits{})
		for length, resumes := range map[int]bool{10: true, 30: false} {
			cert, cache := h.certificate(key, length), tls.NewLRUClientSessionCache(4)
			for i := range 3 {
				s, _, err := h.connect("required.test", version, &cert, cache)
				if err != nil {
					t.Fatalf("%d certificates: %v", length, err)
				}
				if want := resumes && i > 0; s.DidResume != want {
					t.Errorf("%d certificates, connection %d resumed: %t, want %t", length, i, s.DidResume, want)
				}
			}
		}
	})
}

func TestHugeChainsAreRefused(t *testing.T) {
	eachVersion(t, func(t *testing.T, version uint16) {
		h := newCertHouse(t, Limits{})
		huge, small := h.certificate(nil, 1), h.certificate(nil, 1)
		for len(huge.Certificate)*len(huge.Certificate[0]) < maxClientChain+10_000 {
			huge.Certificate = append(huge.Certificate, huge.Certificate[0])
		}
		if _, _, err := h.connect("optional.test", version, &huge, nil); err == nil {
			t.Error("a chain of more than 32 KiB was accepted")
		}
		failuresBecome(t, h.Edge, map[string]uint64{"client_certificate_chain": 1})
		many := &x509.Certificate{}
		for i := range 257 {
			many.DNSNames = append(many.DNSNames, strconv.Itoa(i)+".test")
		}
		key := small.PrivateKey
		if _, _, err := h.connect("optional.test", version, &tls.Certificate{PrivateKey: key, Certificate: [][]byte{h.ca.sign(h.t, many, key).Raw}}, nil); err == nil {
			t.Error("a certificate with 257 names was accepted")
		}
		failuresBecome(t, h.Edge, map[string]uint64{"client_certificate_chain": 2})
		if _, _, err := h.connect("optional.test", version, &small, nil); err != nil {
			t.Errorf("another client: %v", err)
		}
	})
}

// The bound is for handshakes. A request may be longer.
func TestRequestsMayBeLongerThanChains(t *testing.T) {
	h := newCertHouse(t, Limits{})
	cert := h.certificate(nil, 1)
	c, err := tls.Dial("tcp", h.addr, &tls.Config{ServerName: "required.test", RootCAs: h.ca.pool, Certificates: []tls.Certificate{cert}})
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	_ = c.SetDeadline(time.Now().Add(time.Minute))
	if _, err := io.WriteString(c, strings.Repeat("x", 4*maxClientChain)); err != nil {
		t.Fatal(err)
	}
	if _, err := io.ReadFull(c, make([]byte, 5)); err != nil {
		t.Error(err)
	}
}

func TestClientThatNeverSendsItsCertificateTimesOut(t *testing.T) {
	h := newCertHouse(t, Limits{HandshakeTime: 100 * time.Millisecond})
	raw := dial(t, h.addr)
	release := make(chan struct{})
	defer close(release)
	go func() {
		_ = tls.Client(raw, &tls.Config{ServerName: "required.test", RootCAs: h.ca.pool, GetClientCertificate: func(*tls.CertificateRequestInfo) (*tls.Certificate, error) {
			<-release
			return new(tls.Certificate), nil
		}}).Handshake()
	}()
	failuresBecome(t, h.Edge, map[string]uint64{"timeout": 1})
}

// Too many names would not fit into the request for a certificate.
func TestManyAuthoritiesAreNotListed(t *testing.T) {
	h := newCertHouse(t, Limits{})
	p := h.policy("many", true)
	for i := range 600 {
		name, err := pkixName(strings.Repeat("x", 100), i)
		if err != nil {
			t.Fatal(err)
		}
		p.Subjects = append(p.Subjects, name)
	}
	h.policies["required.test"] = p
	h.activate()
	cert := h.certificate(nil, 1)
	_, asked, err := h.connect("required.test", tls.VersionTLS13, &cert, nil)
	if err != nil || asked == nil || len(asked.AcceptableCAs) != 0 {
		t.Errorf("got %v, %v", asked, err)
	}
}

// A client that dials an address sends no name. The host is the address then.
func TestClientPolicyOfAnAddress(t *testing.T) {
	ca := newTestCA(t)
	c := Config{Files: setting.List[FileConfig]{ca.write(t, t.TempDir(), "ip", &x509.Certificate{IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)}})}}
	e := newEdge(t, c, Options{Hosts: []string{"127.0.0.1"}})
	p := &ClientPolicy{ID: "a", Required: true, Verify: func([]*x509.Certificate) error { return errors.New("no") }, Reason: error.Error}
	v, err := e.Prepare(c, []string{"127.0.0.1"}, true, func(host string) *ClientPolicy {
		if host == "127.0.0.1" {
			return p
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	e.Activate(v)
	key, _ := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	cert := tls.Certificate{PrivateKey: key, Certificate: [][]byte{ca.sign(t, &x509.Certificate{}, key).Raw}}
	if _, err := connect(listen(t, e, Limits{}), &tls.Config{ServerName: "127.0.0.1", RootCAs: ca.pool, Certificates: []tls.Certificate{cert}}); err == nil {
		t.Error("a refused certificate was accepted")
	}
	failuresBecome(t, e, map[string]uint64{"client_certificate_chain": 1}) // for a reason that is unknown here
}

// pkixName returns the encoded name of an authority.
func pkixName(organization string, i int) ([]byte, error) {
	return asn1.Marshal(pkix.Name{Organization: []string{organization}, CommonName: strconv.Itoa(i)}.ToRDNSequence())
}

// A connection keeps its TLS config for its whole life. That must not retain what reloads replaced.
func TestConnectionsRetainNoReplacedPolicies(t *testing.T) {
	h := newCertHouse(t, Limits{})
	cert := h.certificate(nil, 1)
	c, err := tls.Dial("tcp", h.addr, &tls.Config{ServerName: "required.test", RootCAs: h.ca.pool, Certificates: []tls.Certificate{cert}})
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	if _, err := io.ReadFull(c, make([]byte, 5)); err != nil {
		t.Fatal(err)
	}
	view, policy := weak.Make(h.view.Load()), weak.Make(h.policies["required.test"])
	h.policies = map[string]*ClientPolicy{"required.test": h.policy("next", true)}
	h.activate()
	for end := time.Now().Add(time.Minute); time.Now().Before(end); {
		runtime.GC()
		if view.Value() == nil && policy.Value() == nil {
			return
		}
		time.Sleep(10 * time.Millisecond)
	}
	t.Errorf("retained: view %t, policy %t", view.Value() != nil, policy.Value() != nil)
}

// While policies change, clients with a certificate connect all the same.
func TestHandshakesSucceedWhilePoliciesChange(t *testing.T) {
	h := newCertHouse(t, Limits{})
	cert := h.certificate(nil, 1)
	var clients sync.WaitGroup
	done := make(chan struct{})
	for range 4 {
		clients.Go(func() {
			cache := tls.NewLRUClientSessionCache(4)
			for {
				select {
				case <-done:
					return
				default:
				}
				if _, _, err := h.connect("required.test", tls.VersionTLS13, &cert, cache); err != nil {
					t.Errorf("a handshake: %v", err)
					return
				}
			}
		})
	}
	for i := range 100 {
		h.policies["required.test"] = h.policy(strconv.Itoa(i%3), i%2 == 0)
		h.activate()
	}
	close(done)
	clients.Wait()
}
