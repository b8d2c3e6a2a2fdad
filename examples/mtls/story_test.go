// Package mtls holds the story of TensorFlow Serving with HTTPS and mutual authentication, over
// REST and gRPC.
package mtls

import (
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"errors"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/status"

	"sallyport/examples/story"
)

func TestMain(m *testing.M) { os.Exit(story.Run(m)) }

const (
	path      = "/v1/models/half_plus_two:predict"
	instances = `{"instances": [1.0, 2.0, 5.0]}`
	rpc       = "/tensorflow.serving.PredictionService/Predict"
)

// servers are the model server, and the folder with the authorities and certificates.
type servers struct {
	python     string
	rest, grpc string       // host:port
	relay      *story.Relay // in front of the REST API
	dir        string
}

// start starts the model server and makes the certificates.
func start(t *testing.T) *servers {
	t.Helper()
	story.Need(t, "curl", "openssl")
	s := &servers{
		python: filepath.Join(story.Installed(t, "tensorflow", "tensorflow/requirements.txt", "tensorflow/requirements-nodeps.txt"), "bin", "python"),
		rest:   story.FreeAddress(t),
		grpc:   story.FreeAddress(t),
		dir:    t.TempDir(),
	}
	models := story.Installed(t, "models", "tensorflow/make_model.py")
	front := filepath.Join(story.Installed(t, "rest_front", "tensorflow/rest_front/rest_front.cc", "tensorflow/rest_front/Makefile"), "rest_front")
	socket := filepath.Join(t.TempDir(), "rest")
	serve := exec.Command(s.python, "serve.py", "--models", models, "--grpc", s.grpc, "--rest-socket", socket)
	serve.Dir = filepath.Join("..", "tensorflow")
	compute := story.Start(t, "serve.py", serve)
	host, port, _ := net.SplitHostPort(s.rest)
	rest := story.Start(t, "rest_front", exec.Command(front, host, port, socket))

	s.ca(t, "init", "--permit-uri", "lab", "--permit-dns", "lab")
	s.ca(t, "issue", "--spiffe", "spiffe://lab/batch", "--out", "batch")
	s.ca(t, "issue", "--spiffe", "spiffe://lab/victim", "--out", "victim")
	s.ca(t, "issue", "--spiffe", "spiffe://lab/reader", "--out", "reader")
	s.ca(t, "issue", "--spiffe", "spiffe://lab/batch", "--out", "revoked")
	s.ca(t, "issue", "--spiffe", "spiffe://lab/batch", "--out", "expired", "--for", "1s")
	s.ca(t, "issue", "--server", "--dns", "tf.lab", "--out", "server")
	s.ca(t, "init", "--dir", "other-ca")
	s.ca(t, "issue", "--dir", "other-ca", "--spiffe", "spiffe://lab/batch", "--out", "other")
	s.ca(t, "revoke", "revoked.pem")

	rest.Listens(t, s.rest)
	compute.Listens(t, socket)
	s.relay = story.StartRelay(t, s.rest)
	return s
}

// ca runs sallyport ca and returns its output.
func (s *servers) ca(t *testing.T, args ...string) string {
	t.Helper()
	cmd := exec.Command(os.Getenv("SALLYPORT"), append([]string{"ca"}, args...)...)
	cmd.Dir = s.dir
	var faults bytes.Buffer
	cmd.Stderr = &faults
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("sallyport ca %s: %v: %s", strings.Join(args, " "), err, faults.Bytes())
	}
	return string(out)
}

// gateway starts a gateway with the gateway.yaml of this folder and the given mode.
func (s *servers) gateway(t *testing.T, mode string) *story.Gateway {
	t.Helper()
	return story.StartGateway(t,
		"http://127.0.0.1:8501", "http://"+s.relay.Address,
		"h2c://127.0.0.1:8500", "h2c://"+s.grpc,
		"clients-ca/", filepath.Join(s.dir, "clients-ca")+"/",
		"mode: required", "mode: "+mode)
}

// pair are the files of a certificate and its key.
func (s *servers) pair(name string) (cert, key string) {
	return filepath.Join(s.dir, name+".pem"), filepath.Join(s.dir, name+".key")
}

func (s *servers) curl(name string) []string {
	cert, key := s.pair(name)
	return []string{"--cert", cert, "--key", key, "--json", instances}
}

func TestMutualTLS(t *testing.T) {
	s := start(t)
	required, optional := s.gateway(t, "required"), s.gateway(t, "optional")
	t.Run("clients", func(t *testing.T) { s.clients(t, required) })
	t.Run("rules", func(t *testing.T) { s.rules(t, required) })
	t.Run("handshakes refused", func(t *testing.T) { s.handshakes(t, required) })
	t.Run("requests refused", func(t *testing.T) { s.refused(t, optional) })
	t.Run("revoked while connected", func(t *testing.T) { s.revokedAlive(t, required) })
}

// clients makes the calls of the README.
func (s *servers) clients(t *testing.T, g *story.Gateway) {
	_, port, _ := net.SplitHostPort(g.Address)
	cert, key := s.pair("batch")
	for _, version := range []string{"--http1.1", "--http2"} {
		a := g.Curl(t, path, append(s.curl("batch"), version)...)
		if a.Status != 200 || !strings.Contains(a.Body, "[2.5, 3.0, 4.5") {
			t.Errorf("curl %s: %d %s", version, a.Status, a.Body)
		}
	}
	for _, x := range s.relay.Take() {
		if bytes.Contains(bytes.ToLower(x.Request), []byte("client-cert")) || !bytes.Contains(x.Request, []byte("cert:spiffe://lab/batch")) {
			t.Errorf("the model server was told: %q", x.Request)
		}
	}
	var made struct {
		Password string `json:"pkcs12_password"`
	}
	if err := json.Unmarshal([]byte(s.ca(t, "issue", "--dns", "java.lab", "--pkcs12", "java.p12")), &made); err != nil {
		t.Fatal(err)
	}
	password := filepath.Join(s.dir, "password")
	if err := os.WriteFile(password, []byte(made.Password+"\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		name string
		args []string
		want string
	}{
		{"requests", []string{s.python, "python/rest.py", g.URL(path), g.CA, cert, key}, "200 [2.5, 3.0, 4.5]"},
		{"grpcio", []string{s.python, "python/grpc_client.py", "localhost:" + port, g.CA, cert, key}, "[2.5, 3.0, 4.5]"},
		{"Go", []string{"go", "run", "./go", g.URL(path), g.CA, cert, key}, "[2.5, 3.0, 4.5"},
		{"Java", []string{"java", "java/Call.java", g.URL(path), g.CA, filepath.Join(s.dir, "java.p12"), password}, "[2.5, 3.0, 4.5"},
	} {
		t.Run(c.name, func(t *testing.T) {
			if c.name == "Java" {
				story.Need(t, "java")
			}
			ctx, cancel := context.WithTimeout(t.Context(), 3*time.Minute)
			defer cancel()
			cmd := exec.CommandContext(ctx, c.args[0], c.args[1:]...)
			cmd.Env = append(os.Environ(), "PYTHONDONTWRITEBYTECODE=1")
			if out, err := cmd.CombinedOutput(); err != nil || !strings.Contains(string(out), c.want) {
				t.Errorf("%v\n%s\nwant %s", err, out, c.want)
			}
		})
	}
}

// rules: who proved themselves may still do only what the rules say.
func (s *servers) rules(t *testing.T, g *story.Gateway) {
	s.relay.Take()
	if a := g.Curl(t, path, s.curl("reader")...); a.Status != 403 {
		t.Errorf("POST by a reader: %d %s", a.Status, a.Body)
	}
	if x := s.relay.Take(); len(x) > 0 {
		t.Errorf("the model server was asked: %q", x[0].Request)
	}
	cert, key := s.pair("reader")
	if a := g.Curl(t, "/v1/models/half_plus_two", "--cert", cert, "--key", key); a.Status != 200 {
		t.Errorf("GET by a reader: %d %s", a.Status, a.Body)
	}
	if err := s.dial(t, g, "reader"); status.Code(err) != codes.PermissionDenied {
		t.Errorf("gRPC by a reader: %v", err)
	}
}

// strangers are certificates that prove nothing, and the reason for it. "" is no certificate.
var strangers = []struct{ name, reason string }{
	{"", "certificate_missing"},
	{"revoked", "certificate_revoked"},
	{"expired", "certificate_expired"},
	{"other", "certificate_unknown_ca"},
	{"server", "certificate_wrong_usage"},
}

// handshakes are refused by TLS where the mode is required. The victim's connection stays.
func (s *servers) handshakes(t *testing.T, g *story.Gateway) {
	victim := s.client(t, g, "victim")
	for _, c := range strangers {
		t.Run(c.reason, func(t *testing.T) {
			s.relay.Take()
			args := []string{"s_client", "-connect", g.Address, "-servername", "localhost", "-CAfile", g.CA, "-verify_return_error", "-ign_eof"}
			if c.name != "" {
				cert, key := s.pair(c.name)
				args = append(args, "-cert", cert, "-key", key)
			}
			ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
			defer cancel()
			cmd := exec.CommandContext(ctx, "openssl", args...)
			cmd.Stdin = strings.NewReader("GET " + path + " HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")
			out, err := cmd.CombinedOutput()
			if err == nil || !strings.Contains(string(out), " alert ") || strings.Contains(string(out), "HTTP/1.1 ") {
				t.Errorf("openssl s_client: %v, want an alert\n%s", err, out)
			}
			counted(t, g, "client_"+c.reason)
			if x := s.relay.Take(); len(x) > 0 {
				t.Errorf("the model server was asked: %q", x[0].Request)
			}
			if code, body := post(t, victim, g); code != 200 {
				t.Errorf("the victim beside: %d %s", code, body)
			}
		})
	}
	g.Process.Prints(t, `a client has no certificate for \"localhost\"`)
	g.Process.Prints(t, `the client certificate for \"localhost\" is refused: `)
}

// counted waits until the metrics count one handshake that failed for a reason. The log says it in
// words, with the address.
func counted(t *testing.T, g *story.Gateway, reason string) {
	t.Helper()
	want := `sallyport_tls_handshake_failures_total{reason="` + reason + `"} 1`
	var metrics string
	for end := time.Now().Add(time.Minute); time.Now().Before(end); time.Sleep(50 * time.Millisecond) {
		res, err := http.Get("http://" + g.Health + "/metrics")
		if err != nil {
			t.Fatal(err)
		}
		text, err := io.ReadAll(res.Body)
		res.Body.Close()
		if err != nil {
			t.Fatal(err)
		}
		if metrics = string(text); strings.Contains(metrics, want+"\n") {
			return
		}
	}
	t.Errorf("no %s in the metrics:\n%s", want, metrics)
}

// refused are requests over connections that the mode optional has let in.
func (s *servers) refused(t *testing.T, g *story.Gateway) {
	victim := s.client(t, g, "victim")
	for _, c := range strangers {
		t.Run(c.reason, func(t *testing.T) {
			s.relay.Take()
			args := []string{"--json", instances}
			if c.name != "" {
				args = s.curl(c.name)
			}
			a := g.Curl(t, path, args...)
			var refusal struct{ Reason string }
			a.JSON(t, &refusal)
			if a.Status != 401 || refusal.Reason != c.reason {
				t.Errorf("%d %s, want 401 and %s", a.Status, a.Body, c.reason)
			}
			if err := s.dial(t, g, c.name); status.Code(err) != codes.Unauthenticated {
				t.Errorf("gRPC: %v", err)
			}
			if x := s.relay.Take(); len(x) > 0 {
				t.Errorf("the model server was asked: %q", x[0].Request)
			}
			if code, body := post(t, victim, g); code != 200 {
				t.Errorf("the victim beside: %d %s", code, body)
			}
		})
	}
}

// revokedAlive revokes a certificate whose connection is open.
func (s *servers) revokedAlive(t *testing.T, g *story.Gateway) {
	s.ca(t, "issue", "--spiffe", "spiffe://lab/batch", "--out", "leaked")
	leaked, victim := s.client(t, g, "leaked"), s.client(t, g, "victim")
	for name, c := range map[string]*http.Client{"leaked": leaked, "victim": victim} {
		if code, body := post(t, c, g); code != 200 {
			t.Fatalf("%s: %d %s", name, code, body)
		}
	}
	s.ca(t, "revoke", "leaked.pem")
	var code int
	var body string
	for end := time.Now().Add(time.Minute); time.Now().Before(end); time.Sleep(100 * time.Millisecond) {
		if code, body = post(t, leaked, g); code != 200 {
			break
		}
	}
	if code != 401 || !strings.Contains(body, "certificate_revoked") {
		t.Errorf("after the certificate was revoked: %d %s", code, body)
	}
	if code, body := post(t, victim, g); code != 200 {
		t.Errorf("the victim beside: %d %s", code, body)
	}
}

// tlsConfig is that of a client with a certificate; "" is none.
func (s *servers) tlsConfig(t *testing.T, g *story.Gateway, name string) *tls.Config {
	t.Helper()
	pem, err := os.ReadFile(g.CA)
	if err != nil {
		t.Fatal(err)
	}
	roots := x509.NewCertPool()
	roots.AppendCertsFromPEM(pem)
	config := &tls.Config{RootCAs: roots, ServerName: "localhost"}
	if name != "" {
		cert, err := tls.LoadX509KeyPair(s.pair(name))
		if err != nil {
			t.Fatal(err)
		}
		// Whatever CAs the server names.
		config.GetClientCertificate = func(*tls.CertificateRequestInfo) (*tls.Certificate, error) { return &cert, nil }
	}
	return config
}

// client is an HTTP client that keeps its connection.
func (s *servers) client(t *testing.T, g *story.Gateway, name string) *http.Client {
	t.Helper()
	transport := &http.Transport{TLSClientConfig: s.tlsConfig(t, g, name), ForceAttemptHTTP2: true}
	t.Cleanup(transport.CloseIdleConnections)
	return &http.Client{Transport: transport, Timeout: time.Minute}
}

func post(t *testing.T, c *http.Client, g *story.Gateway) (int, string) {
	t.Helper()
	res, err := c.Post(g.URL(path), "application/json", strings.NewReader(instances))
	if err != nil {
		t.Error(err)
		return 0, ""
	}
	defer res.Body.Close()
	body, err := io.ReadAll(res.Body)
	if err != nil {
		t.Error(err)
	}
	return res.StatusCode, string(body)
}

// dial makes one call by gRPC, of an empty message, and returns its error.
func (s *servers) dial(t *testing.T, g *story.Gateway, name string) error {
	t.Helper()
	_, port, _ := net.SplitHostPort(g.Address)
	c, err := grpc.NewClient("localhost:"+port, grpc.WithTransportCredentials(credentials.NewTLS(s.tlsConfig(t, g, name))),
		grpc.WithDefaultCallOptions(grpc.ForceCodec(raw{})))
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	var in, out []byte
	return errors.Join(c.Invoke(ctx, rpc, &in, &out), c.Close())
}

// raw is messages as bytes.
type raw struct{}

func (raw) Marshal(v any) ([]byte, error)      { return *v.(*[]byte), nil }
func (raw) Unmarshal(data []byte, v any) error { *v.(*[]byte) = bytes.Clone(data); return nil }
func (raw) Name() string                       { return "proto" }
