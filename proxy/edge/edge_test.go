package edge

import (
	"crypto/rand"
	"crypto/rsa"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"sallyport/proxy/setting"
)

func TestCertificateIsChosenByName(t *testing.T) {
	ca, dir := newTestCA(t), t.TempDir()
	local := filepath.Join(dir, "ca")
	config := Config{
		Files: setting.List[FileConfig]{
			ca.write(t, dir, "a", forHosts("a.example.com")),
			ca.write(t, dir, "wild", forHosts("*.example.com", "other.example.org")),
		},
		Local: &LocalConfig{Dir: setting.Place(local)},
	}
	hosts := []string{"a.example.com", "*.example.com", "dev.local", "*.dev.local"}
	e := newEdge(t, config, Options{Hosts: hosts})
	addr := listen(t, e, Limits{})
	pool := ca.pool.Clone()
	root, err := os.ReadFile(e.RootPath())
	if err != nil || !pool.AppendCertsFromPEM(root) {
		t.Fatalf("root of the local authority: %v", err)
	}
	for _, tt := range []struct {
		name string
		want []string // names in the certificate; nil: refused with unrecognized_name
	}{
		{"a.example.com", []string{"a.example.com"}},
		{"A.Example.COM", []string{"a.example.com"}},
		{"a.example.com.", []string{"a.example.com"}},
		{"b.example.com", []string{"*.example.com", "other.example.org"}},
		{"dev.local", []string{"dev.local"}},
		{"x.dev.local", []string{"*.dev.local"}},
		{"x.y.dev.local", nil},
		{"x.y.example.com", nil},
		{"example.com", nil},
		{"other.example.org", nil}, // in a certificate, but no route has it
		{"nobody.test", nil},
	} {
		t.Run(tt.name, func(t *testing.T) {
			state, err := connect(addr, &tls.Config{ServerName: tt.name, RootCAs: pool})
			if tt.want == nil {
				if err == nil || !strings.Contains(err.Error(), "unrecognized name") {
					t.Errorf("got %v, want alert unrecognized_name", err)
				}
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			if got := state.PeerCertificates[0].DNSNames; !slices.Equal(got, tt.want) {
				t.Errorf("got the certificate of %v, want %v", got, tt.want)
			}
		})
	}
	for host, want := range map[string]bool{"a.example.com": false, "*.example.com": false, "dev.local": true, "*.dev.local": true, "nobody.test": false} {
		if got := e.view.Load().Local(host); got != want {
			t.Errorf("Local(%s) = %t, want %t", host, got, want)
		}
	}
}

// With several certificates for a name, the client gets one that it supports.
func TestCertificateIsChosenByKeyType(t *testing.T) {
	ca, dir := newTestCA(t), t.TempDir()
	key, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		t.Fatal(err)
	}
	e := newEdge(t, Config{MinVersion: "1.2", Files: setting.List[FileConfig]{
		ca.write(t, dir, "ec", forHosts("a.example.com")),
		ca.writeKey(t, dir, "rsa", forHosts("a.example.com"), key),
	}}, Options{Hosts: []string{"a.example.com"}})
	addr := listen(t, e, Limits{})
	for suite, want := range map[uint16]x509.PublicKeyAlgorithm{
		tls.TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256:   x509.RSA,
		tls.TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256: x509.ECDSA,
	} {
		state, err := connect(addr, &tls.Config{ServerName: "a.example.com", RootCAs: ca.pool, MaxVersion: tls.VersionTLS12, CipherSuites: []uint16{suite}})
		if err != nil {
			t.Fatalf("%s: %v", tls.CipherSuiteName(suite), err)
		}
		if got := state.PeerCertificates[0].PublicKeyAlgorithm; got != want {
			t.Errorf("%s: got a key for %s, want %s", tls.CipherSuiteName(suite), got, want)
		}
	}
}

func TestHandshakeVersionsAndRefusals(t *testing.T) {
	ca, dir := newTestCA(t), t.TempDir()
	files := setting.List[FileConfig]{ca.write(t, dir, "a", forHosts("a.example.com"))}
	for _, tt := range []struct {
		name       string
		minVersion string
		client     *tls.Config
		nameless   bool
		version    uint16 // 0: refused
		log        string // part of the log
	}{
		{name: "modern client", version: tls.VersionTLS13},
		{name: "1.2 by default", client: &tls.Config{MaxVersion: tls.VersionTLS12},
			log: `TLS refused for \"a.example.com\": the client offers at most TLS 1.2; update it, or set tls.min_version: \"1.2\"`},
		{name: "1.2 where allowed", minVersion: "1.2", client: &tls.Config{MaxVersion: tls.VersionTLS12}, version: tls.VersionTLS12},
		{name: "1.2 without AEAD", minVersion: "1.2",
			client: &tls.Config{MaxVersion: tls.VersionTLS12, CipherSuites: []uint16{tls.TLS_ECDHE_ECDSA_WITH_AES_128_CBC_SHA, tls.TLS_RSA_WITH_AES_128_GCM_SHA256}},
			log:    `the client offers TLS 1.2 without any ECDHE suite`},
		{name: "1.1", minVersion: "1.2", client: &tls.Config{MinVersion: tls.VersionTLS10, MaxVersion: tls.VersionTLS11},
			log: `the client offers at most TLS 1.1, which is not safe; update it`},
		{name: "no name", nameless: true,
			log: `no route for \"127.0.0.1\"; hosts: a.example.com; the client sent no name (SNI), as when the URL has an address; try curl --resolve" client=127.0.0.1`},
		{name: "unknown name", client: &tls.Config{ServerName: "b.example.com"},
			log: `no route for \"b.example.com\"; hosts: a.example.com; add a route for it`},
		{name: "unknown protocol", client: &tls.Config{NextProtos: []string{"spdy/3"}}},
		{name: "P-256 only", client: &tls.Config{CurvePreferences: []tls.CurveID{tls.CurveP256}}, version: tls.VersionTLS13},
		{name: "P-521 only", client: &tls.Config{CurvePreferences: []tls.CurveID{tls.CurveP521}}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			var j journal
			e := newEdge(t, Config{Files: files, MinVersion: tt.minVersion}, Options{Hosts: []string{"a.example.com"}, Log: j.log()})
			addr := listen(t, e, Limits{})
			client := &tls.Config{}
			if tt.client != nil {
				client = tt.client.Clone()
			}
			client.RootCAs = ca.pool
			switch {
			case tt.nameless:
				client = &tls.Config{InsecureSkipVerify: true, ServerName: "127.0.0.1"} // crypto/tls sends no address as a name
			case client.ServerName == "":
				client.ServerName = "a.example.com"
			}
			state, err := connect(addr, client)
			if (err == nil) != (tt.version != 0) {
				t.Fatalf("got error %v, want version %s", err, tls.VersionName(tt.version))
			}
			if state.Version != tt.version {
				t.Errorf("got %s, want %s", tls.VersionName(state.Version), tls.VersionName(tt.version))
			}
			if tt.log == "" && j.String() != "" || !strings.Contains(j.String(), tt.log) {
				t.Errorf("got the log %s\nwant %s", j.String(), tt.log)
			}
		})
	}
}

func TestHybridKeyExchangeAndProtocols(t *testing.T) {
	ca, dir := newTestCA(t), t.TempDir()
	e := newEdge(t, Config{Files: setting.List[FileConfig]{ca.write(t, dir, "a", forHosts("a.example.com"))}}, Options{Hosts: []string{"a.example.com"}})
	addr := listen(t, e, Limits{})
	for offered, want := range map[string]string{"h2,http/1.1": "h2", "http/1.1": "http/1.1", "": ""} {
		c := &tls.Config{ServerName: "a.example.com", RootCAs: ca.pool}
		if offered != "" {
			c.NextProtos = strings.Split(offered, ",")
		}
		state, err := connect(addr, c)
		if err != nil {
			t.Fatal(err)
		}
		if state.CurveID != tls.X25519MLKEM768 {
			t.Errorf("got key exchange %s, want X25519MLKEM768", state.CurveID)
		}
		if state.NegotiatedProtocol != want {
			t.Errorf("offered %q: got %q, want %q", offered, state.NegotiatedProtocol, want)
		}
	}
}

// A session of a host must not be resumable for a name without a route.
func TestSessionIsNotResumedForAnUnknownName(t *testing.T) {
	ca, dir := newTestCA(t), t.TempDir()
	e := newEdge(t, Config{Files: setting.List[FileConfig]{ca.write(t, dir, "a", forHosts("a.example.com", "b.example.com"))}}, Options{Hosts: []string{"a.example.com"}})
	addr := listen(t, e, Limits{})
	cache := tls.NewLRUClientSessionCache(4)
	for i, want := range []bool{false, true} {
		state, err := connect(addr, &tls.Config{ServerName: "a.example.com", RootCAs: ca.pool, ClientSessionCache: cache})
		if err != nil {
			t.Fatal(err)
		}
		if state.DidResume != want {
			t.Errorf("connection %d resumed: %t, want %t", i, state.DidResume, want)
		}
	}
	session, ok := cache.Get("a.example.com")
	if !ok {
		t.Fatal("no session to test with")
	}
	cache.Put("b.example.com", session)
	if _, err := connect(addr, &tls.Config{ServerName: "b.example.com", RootCAs: ca.pool, ClientSessionCache: cache}); err == nil {
		t.Error("the session of a.example.com opened b.example.com, which no route has")
	}
}

// A session is not resumed for another host, nor after a day.
func TestSessionsAreBoundToHostAndDay(t *testing.T) {
	ca, dir := newTestCA(t), t.TempDir()
	var later time.Duration
	var mu sync.Mutex
	clock := func() time.Time { mu.Lock(); defer mu.Unlock(); return time.Now().Add(later) }
	template := forHosts("a.example.com", "b.example.com")
	template.NotAfter = time.Now().Add(30 * 24 * time.Hour)
	e := newEdge(t, Config{MinVersion: "1.2", Files: setting.List[FileConfig]{ca.write(t, dir, "a", template)}},
		Options{Hosts: []string{"a.example.com", "b.example.com"}, Now: clock})
	addr := listen(t, e, Limits{})
	for _, version := range []uint16{tls.VersionTLS12, tls.VersionTLS13} {
		mu.Lock()
		later = 0
		mu.Unlock()
		cache := tls.NewLRUClientSessionCache(4)
		resumed := func(name string) bool {
			t.Helper()
			state, err := connect(addr, &tls.Config{ServerName: name, RootCAs: ca.pool, ClientSessionCache: cache, MaxVersion: version})
			if err != nil {
				t.Fatal(err)
			}
			return state.DidResume
		}
		for i, want := range []bool{false, true, true} {
			if got := resumed("a.example.com"); got != want {
				t.Errorf("%s: connection %d resumed: %t, want %t", tls.VersionName(version), i, got, want)
			}
		}
		session, _ := cache.Get("a.example.com")
		cache.Put("b.example.com", session)
		if resumed("b.example.com") {
			t.Errorf("%s: the session of a.example.com was resumed for b.example.com", tls.VersionName(version))
		}
		mu.Lock()
		later = ticketLife + time.Minute
		mu.Unlock()
		if resumed("a.example.com") {
			t.Errorf("%s: a session was resumed after a day", tls.VersionName(version))
		}
	}
}

// A scanner must not fill the disk with log lines.
func TestRefusalLogIsBounded(t *testing.T) {
	ca, dir := newTestCA(t), t.TempDir()
	var j journal
	var mu sync.Mutex
	now := time.Now()
	clock := func() time.Time { mu.Lock(); defer mu.Unlock(); return now }
	e := newEdge(t, Config{Files: setting.List[FileConfig]{ca.write(t, dir, "a", forHosts("a.example.com"))}},
		Options{Hosts: []string{"a.example.com"}, Log: j.log(), Now: clock})
	addr := listen(t, e, Limits{})
	scan := func(n int) {
		for range n {
			if _, err := connect(addr, &tls.Config{ServerName: strings.Repeat("x", 60) + ".test"}); err == nil {
				t.Fatal("an unknown name was accepted")
			}
		}
	}
	scan(linesPerMinute + 15)
	if got := strings.Count(j.String(), "no route for"); got != linesPerMinute {
		t.Errorf("%d lines, want %d", got, linesPerMinute)
	}
	mu.Lock()
	now = now.Add(time.Minute)
	mu.Unlock()
	scan(1)
	if got := j.String(); !strings.Contains(got, "refusals=15") || strings.Count(got, "no route for") != linesPerMinute+1 {
		t.Errorf("after a minute, want one more line and the number of suppressed lines:\n%s", got)
	}
}

func TestNewRefuses(t *testing.T) {
	ca, dir := newTestCA(t), t.TempDir()
	a := ca.write(t, dir, "a", forHosts("a.example.com"))
	b := ca.write(t, dir, "b", forHosts("b.example.com"))
	open := ca.write(t, dir, "open", forHosts("a.example.com"))
	if err := os.Chmod(string(open.Key), 0o660); err != nil {
		t.Fatal(err)
	}
	garbage := filepath.Join(dir, "garbage.pem")
	writeTest(t, garbage, []byte("not PEM"))
	for _, tt := range []struct {
		name   string
		config Config
		host   string
		want   string
	}{
		{"missing certificate", Config{Files: setting.List[FileConfig]{{Cert: setting.Path(filepath.Join(dir, "none.pem")), Key: a.Key}}}, "a.example.com", "none.pem: no such file"},
		{"missing key", Config{Files: setting.List[FileConfig]{{Cert: a.Cert, Key: setting.Path(filepath.Join(dir, "none.key"))}}}, "a.example.com", "none.key: no such file"},
		{"another's key", Config{Files: setting.List[FileConfig]{{Cert: a.Cert, Key: b.Key}}}, "a.example.com", "private key does not match"},
		{"garbage", Config{Files: setting.List[FileConfig]{{Cert: setting.Path(garbage), Key: a.Key}}}, "a.example.com", "garbage.pem"},
		{"folder", Config{Files: setting.List[FileConfig]{{Cert: setting.Path(dir), Key: a.Key}}}, "a.example.com", "not a regular file"},
		{"key writable by others", Config{Files: setting.List[FileConfig]{open}}, "a.example.com", "can be written by others than its owner; chmod go-w"},
		{"CA certificate", Config{Files: setting.List[FileConfig]{ca.write(t, dir, "sub", &x509.Certificate{DNSNames: []string{"a.example.com"}, IsCA: true})}}, "a.example.com", "belongs to a certificate authority"},
		{"no names", Config{Files: setting.List[FileConfig]{ca.write(t, dir, "cn", &x509.Certificate{Subject: pkix.Name{CommonName: "a.example.com"}})}}, "a.example.com", "names no host"},
		{"host without certificate", Config{Files: setting.List[FileConfig]{a}}, "b.example.com", "no certificate for host b.example.com"},
		{"wildcard host, one name", Config{Files: setting.List[FileConfig]{a}}, "*.example.com", "no certificate for host *.example.com"},
		{"host that ACME cannot prove", Config{Files: setting.List[FileConfig]{a}, ACME: &ACMEConfig{Email: "ops@example.com", Storage: setting.Place(filepath.Join(dir, "acme"))}}, "*.b.example.com", noWildcard},
		{"no source", Config{}, "a.example.com", "no certificate for host a.example.com"},
		{"TLS 1.1", Config{Files: setting.List[FileConfig]{a}, MinVersion: "1.1"}, "a.example.com", "is not served"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			_, err := New(tt.config, Options{Hosts: []string{tt.host}})
			if err == nil || !strings.Contains(err.Error(), tt.want) {
				t.Errorf("New: got %v, want %q", err, tt.want)
			}
			if tt.config.MinVersion != "" || len(tt.config.Files) == 0 {
				return // found by Check
			}
			var f setting.Faults
			tt.config.CheckFiles("tls", []string{tt.host}, true, &f)
			if len(f) != 1 || !strings.Contains(f.Error(), tt.want) {
				t.Errorf("CheckFiles: got %q, want %q", f.Error(), tt.want)
			}
		})
	}
}
