package proxy_test

import (
	"bytes"
	"cmp"
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"sallyport/auth/authtest"
	"sallyport/proxy"
)

// house is a running gateway with an issuer and a model server.
type house struct {
	t       *testing.T
	gateway *proxy.Gateway
	issuer  *authtest.Issuer
	model   *modelServer
	addrs   proxy.Addrs
	roots   *x509.CertPool
	audit   *lines
	memory  func() int64 // see plan
	stop    func() error // ends Run and returns its error; may be called twice
	file    string       // gateway.yaml
	// options are the gateway's options, except for Stdout and MemoryUsed.
	options proxy.Options
}

// modelServer records the requests that reach it.
type modelServer struct {
	*httptest.Server
	hits    atomic.Int64
	mu      sync.Mutex // guards last
	last    *http.Request
	body    []byte
	handler http.HandlerFunc // nil: answers {"predictions": [2.5]}
}

func newModelServer(t *testing.T, h http.HandlerFunc) *modelServer {
	m := &modelServer{handler: h}
	m.Server = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		m.hits.Add(1)
		if m.handler != nil {
			m.record(r, nil)
			m.handler(w, r)
			return
		}
		body, _ := io.ReadAll(r.Body)
		m.record(r, body)
		w.Header().Set("Content-Type", "application/json")
		_, _ = io.WriteString(w, `{"predictions": [2.5]}`)
	}))
	t.Cleanup(m.Close)
	return m
}

func (m *modelServer) record(r *http.Request, body []byte) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.last, m.body = r.Clone(context.Background()), body
}

// seen returns the last request, and its body if the server itself has read it.
func (m *modelServer) seen() (*http.Request, []byte) {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.last, m.body
}

// lines collects written lines.
type lines struct {
	mu  sync.Mutex // guards buf
	buf bytes.Buffer
}

func (l *lines) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.buf.Write(p)
}

// forget drops the lines so far and their memory.
func (l *lines) forget() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.buf = bytes.Buffer{}
}

// records returns the audit records so far.
func (l *lines) records(t *testing.T) []map[string]any {
	t.Helper()
	l.mu.Lock()
	defer l.mu.Unlock()
	var all []map[string]any
	for line := range strings.Lines(l.buf.String()) {
		m := map[string]any{}
		if err := json.Unmarshal([]byte(line), &m); err != nil {
			t.Fatalf("audit line %q: %v", line, err)
		}
		all = append(all, m)
	}
	return all
}

// plan configures a house. The zero plan is one route for models.test, open to tokens with the
// scope models.predict.
type plan struct {
	handler http.HandlerFunc
	// routes is the YAML of `routes:`, in which the model server's URL replaces %s.
	routes   string
	audience string // of the issuer, "models" if empty
	issuers  string // YAML for more issuers
	more     string // YAML for more top-level sections
	// listen is YAML to append to the section of that name; https is its address.
	listen, https string
	// memory returns how much memory the process uses; nil: the real number.
	memory func() int64
	// files are written beside gateway.yaml.
	files   map[string]string
	options proxy.Options
}

const oneRoute = `
  - host: models.test
    upstream: %s
    callers: issuer/corp
    rules: [{allow: "*", models: "*", who: {scope: models.predict}}]
`

func build(t *testing.T, p plan) *house {
	t.Helper()
	h := &house{t: t, audit: &lines{}, memory: p.memory, model: newModelServer(t, p.handler), options: p.options}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	if h.issuer, err = authtest.NewIssuer(authtest.IssuerConfig{URL: "http://" + l.Addr().String(), Audience: "models"}); err != nil {
		t.Fatal(err)
	}
	issuer := &httptest.Server{Listener: l, Config: &http.Server{Handler: h.issuer}}
	issuer.Start()
	t.Cleanup(issuer.Close)

	if p.routes == "" {
		p.routes = oneRoute
	}
	dir := t.TempDir()
	text := fmt.Sprintf(`listen: {https: '%s', http: '127.0.0.1:0', health: '127.0.0.1:0'%s}
tls: {local: {dir: %q}}
issuers:
  corp: {url: 'http://%s', audience: %s}
%s
%s
routes:%s`, cmp.Or(p.https, "127.0.0.1:0"), p.listen, filepath.Join(dir, "ca"), l.Addr(), cmp.Or(p.audience, "models"), p.issuers, p.more, strings.ReplaceAll(p.routes, "%s", h.model.URL))
	files := maps.Clone(p.files)
	if files == nil {
		files = map[string]string{}
	}
	files["gateway.yaml"] = text
	for name, text := range files {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	h.file = filepath.Join(dir, "gateway.yaml")
	h.restart()
	return h
}

// restart starts the gateway from its file, for the first time or after stop.
func (h *house) restart() {
	h.t.Helper()
	cfg, err := proxy.LoadConfig(h.file)
	if err != nil {
		text, _ := os.ReadFile(h.file)
		h.t.Fatalf("%v\nin\n%s", err, text)
	}
	h.run(cfg)
}

// in returns the house for a subtest.
func (h *house) in(t *testing.T) *house {
	part := *h
	part.t = t
	return &part
}

// run starts the gateway and waits for its listeners.
func (h *house) run(cfg *proxy.Config) {
	h.t.Helper()
	pem, err := os.ReadFile(h.start(cfg).RootPath())
	if err != nil {
		h.t.Fatal(err)
	}
	h.roots = x509.NewCertPool()
	h.roots.AppendCertsFromPEM(pem)
}

func (h *house) start(cfg *proxy.Config) *proxy.Gateway {
	h.t.Helper()
	o := h.options
	o.Stdout, o.MemoryUsed = h.audit, h.memory
	g, err := proxy.New(cfg, o)
	if err != nil {
		h.t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- g.Run(ctx) }()
	h.stop = sync.OnceValue(func() error { cancel(); return <-done })
	h.t.Cleanup(func() {
		if err := h.stop(); err != nil {
			h.t.Errorf("Run: %v", err)
		}
	})
	select {
	case <-g.Ready():
	case err := <-done:
		h.t.Fatalf("Run: %v", err)
	}
	h.gateway, h.addrs = g, g.Addrs()
	return g
}

// token returns a valid token of alice with these scopes; models.predict if there are none.
func (h *house) token(scopes ...string) string {
	h.t.Helper()
	if len(scopes) == 0 {
		scopes = []string{"models.predict"}
	}
	token, err := h.issuer.Sign(h.issuer.Claims("alice", scopes...))
	if err != nil {
		h.t.Fatal(err)
	}
	return token
}

// client speaks HTTP/1.1 or, with h2, HTTP/2. It connects to the house for every host.
func (h *house) client(h2 bool) *http.Client {
	protocols := new(http.Protocols)
	protocols.SetHTTP1(!h2)
	protocols.SetHTTP2(h2)
	tr := &http.Transport{
		TLSClientConfig:    &tls.Config{RootCAs: h.roots},
		Protocols:          protocols,
		DisableCompression: true,
		DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
			return new(net.Dialer).DialContext(ctx, "tcp", h.addrs.HTTPS[0].String())
		},
	}
	h.t.Cleanup(tr.CloseIdleConnections)
	return &http.Client{Transport: tr, Timeout: 2 * time.Minute, CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }}
}

// reply is a complete answer.
type reply struct {
	*http.Response
	body string
}

// reason is the reason code in a refusal's body.
func (r *reply) reason() string {
	var m struct{ Reason string }
	_ = json.Unmarshal([]byte(r.body), &m)
	return m.Reason
}

// do sends one request to https://models.test with a valid token, unless header overrides it
// ("Authorization": "" for none).
func (h *house) do(method, target, body string, header map[string]string) *reply {
	h.t.Helper()
	req, err := http.NewRequest(method, "https://models.test"+target, strings.NewReader(body))
	if err != nil {
		h.t.Fatal(err)
	}
	req.Header.Set("Authorization", "Bearer "+h.token())
	for k, v := range header {
		req.Header[k] = []string{v}
		if v == "" {
			delete(req.Header, k)
		}
	}
	return h.send(h.client(false), req)
}

func (h *house) send(c *http.Client, req *http.Request) *reply {
	h.t.Helper()
	res, err := c.Do(req)
	if err != nil {
		h.t.Fatal(err)
	}
	defer res.Body.Close()
	all, err := io.ReadAll(res.Body)
	if err != nil {
		h.t.Fatal(err)
	}
	return &reply{res, string(all)}
}

// tlsDial opens a TLS connection for a host.
func tlsDial(h *house, host string, alpn ...string) (*tls.Conn, error) {
	return tls.Dial("tcp", h.addrs.HTTPS[0].String(), &tls.Config{RootCAs: h.roots, ServerName: host, NextProtos: alpn})
}

// dial is tlsDial that must succeed.
func (h *house) dial(host string, alpn ...string) *tls.Conn {
	h.t.Helper()
	c, err := tlsDial(h, host, alpn...)
	if err != nil {
		h.t.Fatal(err)
	}
	h.t.Cleanup(func() { c.Close() })
	_ = c.SetDeadline(time.Now().Add(time.Minute))
	return c
}

// raw sends raw bytes to models.test, with a valid token for "TOKEN". It returns everything
// received until the gateway closes.
func (h *house) raw(request string) string {
	h.t.Helper()
	c := h.dial("models.test")
	defer c.Close()
	if _, err := io.WriteString(c, strings.ReplaceAll(request, "TOKEN", h.token())); err != nil {
		h.t.Fatal(err)
	}
	all, _ := io.ReadAll(c)
	return string(all)
}

// untouched fails the test if the model server saw a request.
func (h *house) untouched() {
	h.t.Helper()
	if n := h.model.hits.Load(); n != 0 {
		r, _ := h.model.seen()
		h.t.Errorf("the upstream saw %d requests, the last %s %s; want none", n, r.Method, r.RequestURI)
	}
}

// refused checks the status and reason of a refusal, and that the model server saw nothing.
func (h *house) refused(r *reply, status int, reason string) {
	h.t.Helper()
	if r.StatusCode != status || r.reason() != reason {
		h.t.Errorf("got %d %s; want %d with reason %q", r.StatusCode, r.body, status, reason)
	}
	if r.Header.Get("X-Request-Id") == "" {
		h.t.Error("no X-Request-Id")
	}
	h.untouched()
}

// ended stops the gateway and returns its last record.
func (h *house) ended() map[string]any {
	h.t.Helper()
	if err := h.stop(); err != nil {
		h.t.Fatal(err)
	}
	all := h.audit.records(h.t)
	if len(all) == 0 {
		h.t.Fatal("no record")
	}
	return all[len(all)-1]
}

// metrics returns the text of /metrics.
func (h *house) metrics() string {
	h.t.Helper()
	res, err := http.Get("http://" + h.addrs.Health.String() + "/metrics")
	if err != nil {
		h.t.Fatal(err)
	}
	defer res.Body.Close()
	text, err := io.ReadAll(res.Body)
	if err != nil {
		h.t.Fatal(err)
	}
	return string(text)
}
