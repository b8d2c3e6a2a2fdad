package doctor

import (
	"context"
	"crypto/elliptic"
	"encoding/pem"
	"errors"
	"flag"
	"fmt"
	"io"
	"io/fs"
	"log"
	"maps"
	"net"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"sallyport/auth/authtest"
	"sallyport/proxy"
)

var update = flag.Bool("update", false, "write the golden files anew")

// world is the network and the machine that a test shows to the doctor.
type world struct {
	dir    string
	names  map[string]string // addresses by host, separated by blanks
	opens  map[string]string // from the address that is dialed to a real one
	own    string            // addresses of this machine
	ahead  time.Duration     // of the clock of this machine
	socket string
}

func newWorld(t *testing.T) *world {
	t.Helper()
	return &world{dir: t.TempDir(), names: map[string]string{}, opens: map[string]string{}, own: "127.0.0.1 192.0.2.10"}
}

func addresses(text string) (all []netip.Addr) {
	for _, a := range strings.Fields(text) {
		all = append(all, netip.MustParseAddr(a))
	}
	return all
}

func (w *world) options(config string) Options {
	return Options{
		Config: config, Socket: w.socket,
		Lookup: func(_ context.Context, host string) ([]netip.Addr, error) {
			if found := addresses(w.names[host]); len(found) > 0 {
				return found, nil
			}
			return nil, &net.DNSError{Err: "no such host", Name: host, IsNotFound: true}
		},
		Dial: func(ctx context.Context, network, addr string) (net.Conn, error) {
			host, port, _ := net.SplitHostPort(addr)
			if found := addresses(w.names[host]); len(found) > 0 {
				addr = net.JoinHostPort(found[0].String(), port)
			} else if a, err := netip.ParseAddr(host); err != nil && !reserved(host) {
				return nil, &net.DNSError{Err: "no such host", Name: host, IsNotFound: true}
			} else if err == nil && !a.IsLoopback() && w.opens[addr] == "" {
				return nil, &net.OpError{Op: "dial", Err: syscall.ECONNREFUSED}
			}
			if to, ok := w.opens[addr]; ok {
				addr = to
			}
			return new(net.Dialer).DialContext(ctx, network, addr)
		},
		Addresses: func() ([]netip.Addr, error) { return addresses(w.own), nil },
		Now:       func() time.Time { return time.Now().Add(w.ahead) },
	}
}

// file writes a file beside the configuration, and returns its path.
func (w *world) file(t *testing.T, name, text string) string {
	t.Helper()
	path := filepath.Join(w.dir, name)
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

// examine runs the doctor and returns its findings as text, without what differs between runs.
func (w *world) examine(t *testing.T, config, token, route string) string {
	t.Helper()
	o := w.options(w.file(t, "gateway.yaml", config))
	if token != "" {
		o.Token, o.Route = w.file(t, "token", token), route
	}
	r, err := Run(t.Context(), o)
	if err != nil {
		t.Fatal(err)
	}
	failed := slices.ContainsFunc(r.Findings, func(f Finding) bool { return f.State == Fail })
	if r.OK == failed {
		t.Errorf("OK is %t, and a finding fails: %t", r.OK, failed)
	}
	return w.text(r.Findings)
}

func (w *world) text(all []Finding) string {
	var b strings.Builder
	for _, f := range all {
		fmt.Fprintf(&b, "%-7s %s %s: %s\n", f.State, f.Check, f.Subject, f.Text)
		if f.Cure != "" {
			fmt.Fprintf(&b, "        > %s\n", f.Cure)
		}
		if f.State == Fail && f.Cure == "" && !strings.Contains(f.Text, "write url") && !strings.Contains(f.Text, "correct url") {
			fmt.Fprintf(&b, "        > NO CURE\n")
		}
	}
	text := strings.ReplaceAll(b.String(), w.dir, "DIR")
	for pattern, with := range map[string]string{
		`(app\.internal|app\.example|127\.0\.0\.1|localhost|192\.0\.2\.10|203\.0\.113\.7|10\.0\.0\.5|198\.51\.100\.7|\[2001:db8::1\]):\d{4,}`: "$1:PORT",
		`process \d+, version \S*`:            "process PID, version V",
		`ends in \S+`:                         "ends in TIME",
		`ended \S+ ago`:                       "ended TIME ago",
		`expired \d+ s ago`:                   "expired N s ago",
		`20\d\d-\d\d-\d\dT?[ 0-9:]*Z`:         "DATE",
		`is \d+m?\d*m?\d*s (behind|ahead of)`: "is TIME $1",
		`(kid|key) "[A-Z0-9]{26}"`:            `$1 "KID"`,
		`[A-Z0-9]{26} \(ES256\)`:              "KID (ES256)",
		`local CA of .*? 20\d\d-\d\d-\d\d`:    "local CA of HOST",
		`user \S+ `:                           "user USER ",
		`port \d{4,}`:                         "port PORT",
	} {
		text = regexp.MustCompile(pattern).ReplaceAllString(text, with)
	}
	return text
}

func golden(t *testing.T, name, got string) {
	t.Helper()
	name = filepath.Join("testdata", name)
	if *update {
		if err := errors.Join(os.MkdirAll("testdata", 0o755), os.WriteFile(name, []byte(got), 0o644)); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(name)
	if err != nil {
		t.Fatal(err)
	}
	if string(want) != got {
		t.Errorf("%s differs; -update writes it anew:\n%s", name, got)
	}
	if strings.Contains(got, "NO CURE") {
		t.Errorf("%s has a failure without a cure", name)
	}
}

// server is a model server on loopback. It returns its address.
func server(t *testing.T, h http.Handler) string {
	t.Helper()
	s := httptest.NewServer(h)
	t.Cleanup(s.Close)
	return s.Listener.Addr().String()
}

// secureIssuer serves an issuer over TLS. It returns its URL, and writes its authority to ca.pem.
func secureIssuer(t *testing.T, w *world) string {
	t.Helper()
	var handler http.Handler
	s := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { handler.ServeHTTP(w, r) }))
	s.Config.ErrorLog = log.New(io.Discard, "", 0)
	s.StartTLS()
	t.Cleanup(s.Close)
	i, err := authtest.NewIssuer(authtest.IssuerConfig{URL: s.URL, Audience: "models"})
	if err != nil {
		t.Fatal(err)
	}
	handler = i
	w.file(t, "ca.pem", string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: s.Certificate().Raw})))
	return s.URL
}

const start = "listen: {https: \"127.0.0.1:0\", http: off, health: off, control: off}\ntls: {local: {}}\n"

func route(host, upstream, more string) string {
	return fmt.Sprintf("  - {host: %s, upstream: %q, rules: [{allow: \"*\", models: \"*\"}], %s}\n", host, upstream, more)
}

// serve runs a gateway with a configuration until the test ends.
func (w *world) serve(t *testing.T, config string) {
	t.Helper()
	dir, err := os.MkdirTemp("", "d") // the path of a socket is short
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	w.socket = filepath.Join(dir, "s")
	config = strings.Replace(config, "control: off", "control: "+w.socket, 1)
	cfg, err := proxy.LoadConfig(w.file(t, "running.yaml", config))
	if err != nil {
		t.Fatal(err)
	}
	g, err := proxy.New(cfg, proxy.Options{Stdout: io.Discard})
	if err != nil {
		t.Fatal(err)
	}
	ctx, stop := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- g.Run(ctx) }()
	t.Cleanup(func() {
		stop()
		if err := <-ended; err != nil {
			t.Error(err)
		}
	})
	select {
	case <-g.Ready():
	case err := <-ended:
		ended <- err
		t.Fatal(err)
	}
}

func TestFindings(t *testing.T) {
	models := server(t, http.NotFoundHandler())
	_, port, _ := net.SplitHostPort(models)
	good := authtest.Start(t, authtest.NewKey("k1", "ES256", authtest.EC(elliptic.P256())).JWK(), `{"kty":"oct","kid":"s"}`, authtest.NewKey("e", "RS256", authtest.RSA()).JWK(`"use":"enc"`))
	anonymous := "callers: anonymous"
	cases := []struct {
		name string
		make func(t *testing.T, w *world) string
	}{
		{"all is well", func(t *testing.T, w *world) string {
			w.names["models.example.com"] = "192.0.2.10"
			config := start + "issuers: {corp: {url: " + good.URL + ", audience: models}}\nroutes:\n" + route(`[models.example.com, "*.models.example.com", localhost]`, "http://"+models, "callers: issuer/corp")
			w.serve(t, config)
			return config
		}},
		{"no gateway runs, no issuer, no upstream, no name", func(t *testing.T, w *world) string {
			return start + "issuers: {corp: {url: \"http://127.0.0.1:1\", audience: models}}\nroutes:\n" + route("models.example.com", "http://127.0.0.1:1", "callers: issuer/corp")
		}},
		{"faults of the configuration", func(t *testing.T, w *world) string { return start + "routes:\n" + route("a.example", "app", anonymous) }},
		{"faults of the files", func(t *testing.T, w *world) string {
			return start + "api_key_file: nowhere\nroutes:\n" + route("a.localhost", "http://"+models, "callers: apikey")
		}},
		{"the root is hidden", func(t *testing.T, w *world) string {
			if err := os.Mkdir(filepath.Join(w.dir, "sallyport-ca"), 0o700); err != nil {
				t.Fatal(err)
			}
			return start + "routes:\n" + route("a.localhost", "http://"+models, anonymous)
		}},
		{"an upstream is open at an address of this machine", func(t *testing.T, w *world) string {
			w.opens["192.0.2.10:"+port] = models
			return start + "routes:\n" + route("a.localhost", "http://"+models, anonymous) + route("b.localhost", "http://localhost:"+port, "serves: ollama, "+anonymous)
		}},
		{"an upstream is open at the address of a host", func(t *testing.T, w *world) string {
			w.names["models.example.com"] = "203.0.113.7 2001:db8::1"
			w.opens["203.0.113.7:"+port], w.opens["[2001:db8::1]:"+port] = models, models
			return start + "routes:\n" + route("models.example.com", "http://"+models, "serves: openai, "+anonymous)
		}},
		{"the gateway has the port of the upstream at another address", func(t *testing.T, w *world) string {
			w.opens["192.0.2.10:"+port] = models
			return strings.Replace(start, "http: off", "http: \":"+port+"\"", 1) + "routes:\n" + route("a.localhost", "http://"+models, anonymous)
		}},
		{"an upstream without an address", func(t *testing.T, w *world) string {
			return start + "routes:\n" + route("b.localhost", "http://app.internal", anonymous)
		}},
		{"upstreams on other machines", func(t *testing.T, w *world) string {
			w.names["app.internal"], w.names["app.example"] = "10.0.0.5", "198.51.100.7"
			w.opens["10.0.0.5:"+port], w.opens["198.51.100.7:"+port] = models, models
			return start + "routes:\n" + route("a.localhost", "http://app.internal:"+port, anonymous) + route("b.localhost", "http://app.example:"+port, anonymous) +
				route("c.localhost", "http://10.0.0.5:1", anonymous)
		}},
		{"a gRPC upstream that speaks no HTTP/2, one over TLS that speaks none, one without a trusted certificate", func(t *testing.T, w *world) string {
			s := httptest.NewUnstartedServer(http.NotFoundHandler())
			s.Config.ErrorLog = log.New(io.Discard, "", 0)
			s.StartTLS()
			t.Cleanup(s.Close)
			return start + "upstreams: {g: {grpc: \"h2c://" + models + "\"}}\nroutes:\n" + route("a.localhost", "g", anonymous) +
				route("b.localhost", "https://"+models, anonymous) + route("c.localhost", s.URL, anonymous)
		}},
		{"tokens for upstreams: fetched, refused, from a server that is gone", func(t *testing.T, w *world) string {
			tokens := server(t, http.HandlerFunc(func(rw http.ResponseWriter, r *http.Request) {
				rw.Header().Set("Content-Type", "application/json")
				if id, _, _ := r.BasicAuth(); id != "gateway" {
					rw.WriteHeader(401)
					fmt.Fprint(rw, `{"error": "invalid_client"}`)
					return
				}
				fmt.Fprint(rw, `{"access_token": "t1", "token_type": "bearer", "expires_in": 600}`)
			}))
			w.file(t, "secret", "the-secret")
			config, routes := start+"upstreams:\n", "routes:\n"
			for i, client := range []string{"gateway", "stranger", "gone"} {
				at := tokens
				if client == "gone" {
					at = "127.0.0.1:1"
				}
				config += fmt.Sprintf("  u%d: {rest: \"http://%s\", credentials: {oauth2: {token_url: \"http://%s/token\", client_id: %s, client_secret: {file: secret}}}}\n", i, models, at, client)
				routes += route(fmt.Sprintf("u%d.localhost", i), fmt.Sprintf("u%d", i), anonymous)
			}
			return config + routes
		}},
	}
	var b strings.Builder
	for _, c := range cases {
		w := newWorld(t)
		config := c.make(t, w)
		fmt.Fprintf(&b, "== %s\n%s\n", c.name, w.examine(t, config, "", ""))
	}
	golden(t, "findings.txt", b.String())
}

func TestClock(t *testing.T) {
	var b strings.Builder
	for _, ahead := range []time.Duration{0, 45 * time.Second, -45 * time.Second, 3 * time.Minute} {
		w := newWorld(t)
		config := start + "issuers: {corp: {url: " + secureIssuer(t, w) + ", audience: models, ca: ca.pem}}\nroutes:\n" +
			route("a.localhost", "http://"+server(t, http.NotFoundHandler()), "callers: issuer/corp")
		w.ahead = ahead
		for line := range strings.SplitAfterSeq(w.examine(t, config, "", ""), "\n") {
			if strings.Contains(line, "clock") || strings.Contains(line, "timedatectl") {
				b.WriteString(line)
			}
		}
	}
	golden(t, "clock.txt", b.String())
}

func TestRunningGateway(t *testing.T) {
	s := proxy.StatusReport{PID: 7, File: "gateway.yaml"}
	s.Draining, s.Configuration.LastError = true, "tls: no certificate\nfor a.example"
	golden(t, "running.txt", newWorld(t).text(running(&s)))
}

// TestNothingChanges compares the folder of a configuration before and after, also where the gateway
// itself would write.
func TestNothingChanges(t *testing.T) {
	w := newWorld(t)
	config := start + "routes:\n" + route("models.example.com", "http://"+server(t, http.NotFoundHandler()), "callers: anonymous")
	w.serve(t, config)
	if err := os.Remove(filepath.Join(w.dir, "sallyport-ca", "root.pem")); err != nil {
		t.Fatal(err)
	}
	w.file(t, "gateway.yaml", config)
	before := snapshotOf(t, w.dir)
	w.examine(t, config, "", "")
	after := snapshotOf(t, w.dir)
	if !maps.Equal(before, after) {
		t.Errorf("the folder was %v, and is %v", before, after)
	}
}

// snapshotOf returns the files of a folder, with their modes and lengths.
func snapshotOf(t *testing.T, dir string) map[string]string {
	t.Helper()
	all := map[string]string{}
	err := filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		info, err := d.Info()
		if err == nil {
			all[path] = fmt.Sprint(info.Mode(), info.Size())
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return all
}

// A server at the address of an upstream may be hostile: it may never end a line.
func TestEndlessAnswerIsBounded(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	go func() {
		conn, err := l.Accept()
		for err == nil {
			_, err = conn.Write([]byte(strings.Repeat("a", 1000)))
		}
	}()
	w := newWorld(t)
	p := &patient{Options: w.options("")}
	if got := p.answer(t.Context(), l.Addr().String(), false); got != "accepts connections" {
		t.Errorf("got %q", got)
	}
}

// A server that accepts connections and never answers holds no check longer than its time.
func TestSilentServerIsBounded(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	w := newWorld(t)
	p := &patient{Options: w.options("")}
	got := ""
	for got == "" { // a busy machine may need longer to connect
		ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
		got = p.answer(ctx, l.Addr().String(), true)
		cancel()
	}
	if got != "accepts connections" {
		t.Errorf("got %q", got)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	if _, _, err := p.date(ctx, "https://"+l.Addr().String(), nil); err == nil {
		t.Error("a silent server has told the time")
	}
	if _, err := p.served(ctx, l.Addr().String(), "a.example"); err == nil {
		t.Error("a silent server has sent certificates")
	}
}

// A check whose time ends says so, and not that all is well.
func TestEndOfTimeIsNoGoodNews(t *testing.T) {
	w := newWorld(t)
	config, err := proxy.LoadConfig(w.file(t, "gateway.yaml", start+"routes:\n"+route("a.localhost", "http://127.0.0.1:1", "callers: anonymous")))
	if err != nil {
		t.Fatal(err)
	}
	p := &patient{Options: w.options(""), config: config, own: addresses(w.own)}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	for _, e := range p.endpoints() {
		if found := p.exposed(ctx, &e); len(found) != 1 || found[0].State != Skipped {
			t.Errorf("got %+v", found)
		}
	}
}

func TestNamesAreLookedUpOnce(t *testing.T) {
	asked := 0
	lookup := once(func(context.Context, string) ([]netip.Addr, error) {
		asked++
		return addresses("192.0.2.1"), nil
	})
	for range 3 {
		if found, err := lookup(t.Context(), "a.example"); err != nil || len(found) != 1 {
			t.Errorf("got %v, %v", found, err)
		}
	}
	if asked != 1 {
		t.Errorf("looked up %d times", asked)
	}
}
