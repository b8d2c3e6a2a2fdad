// Package reload holds the story of an operator who changes the configuration of a
// gateway while clients go on.
package reload

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/base64"
	"encoding/pem"
	"io"
	"math/big"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"sallyport/examples/story"
)

func TestMain(m *testing.M) { os.Exit(story.Run(m)) }

// house is everything that runs in the story.
type house struct {
	dir      string // of gateway.yaml and what it names
	address  string // host:port of the gateway
	roots    string // file with the authority of its certificates
	ca       *authority
	flask    string // the Python of each
	grpc     string
	provider *story.Provider
	gateway  *story.Process
}

// start starts the servers as their READMEs say, and the gateway with the gateway.yaml of
// this folder.
func start(t *testing.T) *house {
	t.Helper()
	h := &house{
		dir: t.TempDir(), address: story.FreeAddress(t), ca: newAuthority(t),
		flask: filepath.Join(story.Installed(t, "flask", "flask/requirements.txt"), "bin", "python"),
		grpc:  filepath.Join(story.Installed(t, "grpc", "grpc/requirements.txt"), "bin", "python"),
	}
	app, server := story.FreeAddress(t), story.FreeAddress(t)
	gunicorn := exec.Command(h.flask, "-m", "gunicorn", "--no-control-socket", "--workers", "2", "--bind", app, "app:app")
	gunicorn.Dir = filepath.Join("..", "flask")
	story.Start(t, "gunicorn", gunicorn).Listens(t, app)
	serve := exec.Command(h.grpc, "serve.py", server)
	serve.Dir = filepath.Join("..", "grpc")
	story.Start(t, "serve.py", serve).Prints(t, "serves")
	h.provider = story.StartProvider(t)

	h.roots = h.write(t, "roots.pem", pemOf("CERTIFICATE", h.ca.cert.Raw))
	h.rotate(t)
	h.write(t, "acme-1.secret", secret())
	text, err := os.ReadFile("gateway.yaml")
	if err != nil {
		t.Fatal(err)
	}
	h.write(t, "gateway.yaml", []byte(strings.NewReplacer(
		"127.0.0.1:8443", h.address, "127.0.0.1:8080", story.FreeAddress(t), "127.0.0.1:9902", story.FreeAddress(t),
		"127.0.0.1:5000", app, "127.0.0.1:8500", server,
		"https://localhost:9000", h.provider.URL, "../openid-provider/provider.crt", h.provider.CA,
	).Replace(string(text))))
	h.write(t, "sallyport-nonces", nil) // no signature was used before
	h.gateway = story.Start(t, "sallyport", exec.Command(os.Getenv("SALLYPORT"), "serve", "-c", h.file()))
	h.gateway.Listens(t, h.address)
	return h
}

func (h *house) file() string { return filepath.Join(h.dir, "gateway.yaml") }

// url is the address of a path, by the name that the certificate has.
func (h *house) url(path string) string {
	_, port, _ := net.SplitHostPort(h.address)
	return "https://localhost:" + port + path
}

// write puts a file in its place as deployments do: whole, by a rename.
func (h *house) write(t *testing.T, name string, content []byte) string {
	t.Helper()
	path := filepath.Join(h.dir, name)
	if err := os.WriteFile(path+".new", content, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Rename(path+".new", path); err != nil {
		t.Fatal(err)
	}
	return path
}

// edit changes gateway.yaml in one place.
func (h *house) edit(t *testing.T, old, new string) {
	t.Helper()
	text, err := os.ReadFile(h.file())
	if err != nil || !bytes.Contains(text, []byte(old)) {
		t.Fatalf("gateway.yaml has no %q: %v", old, err)
	}
	h.write(t, "gateway.yaml", bytes.Replace(text, []byte(old), []byte(new), 1))
}

// sallyport runs a command and returns what it printed, both ways, and its exit status.
func (h *house) sallyport(args ...string) (string, int) {
	cmd := exec.Command(os.Getenv("SALLYPORT"), args...)
	out, err := cmd.CombinedOutput()
	if err != nil && cmd.ProcessState == nil {
		return err.Error(), -1
	}
	return string(out), cmd.ProcessState.ExitCode()
}

// reload asks for a reload and wants its exit status and a part of what it prints. A
// change that the gateway has seen by itself is as good.
func (h *house) reload(t *testing.T, status int, want string) {
	t.Helper()
	out, got := h.sallyport("reload", "-c", h.file())
	seen := status == 0 && strings.Contains(out, "already loaded this content") && strings.Contains(h.gateway.Output(), want)
	if got != status || !strings.Contains(out, want) && !seen {
		t.Errorf("sallyport reload: exit status %d\n%s\nwant %d and %q", got, out, status, want)
	}
}

// until waits for something to become true.
func until(t *testing.T, what string, f func() bool) {
	t.Helper()
	for end := time.Now().Add(time.Minute); time.Now().Before(end); time.Sleep(50 * time.Millisecond) {
		if f() {
			return
		}
	}
	t.Errorf("not within half a minute: %s", what)
}

func TestReload(t *testing.T) {
	h := start(t)
	token := h.provider.Token(t, "models.predict", "")
	clients := []*client{
		ask(t, h.flask, token, "asks", "client_flask.py", h.url("/predict"), h.roots),
		ask(t, h.grpc, token, "streams", "client_grpc.py", strings.TrimPrefix(h.url(""), "https://"), h.roots),
	}
	t.Run("edited", h.edited)
	t.Run("broken and mended", h.broken)
	t.Run("a certificate rotated", h.certificate)
	t.Run("a key rotated", h.key)
	t.Run("by SIGHUP", h.hangUp)
	for _, c := range clients {
		if out := c.end(t); !strings.Contains(out, "asked some, 0 failed") || strings.Contains(out, "the stream ended") && !strings.Contains(out, "the stream ended OK") {
			t.Errorf("%s:\n%s", c.name, out)
		}
	}
	t.Run("a right withdrawn", func(t *testing.T) { h.withdrawn(t, token) })
	h.gateway.Signal(syscall.SIGTERM)
	if status := h.gateway.Wait(t, 40*time.Second); status != 0 {
		t.Errorf("the gateway ended with exit status %d", status)
	}
}

func bearer(token string) []string { return []string{"-H", "Authorization: Bearer " + token} }

// edited adds a route.
func (h *house) edited(t *testing.T) {
	health := func() int { return story.Curl(t, h.roots, h.url("/health")).Status }
	if got := health(); got != 401 {
		t.Errorf("before: %d", got)
	}
	h.edit(t, "  - name: model\n", `  - name: health
    host: localhost
    path: =/health
    callers: anonymous
    rules: [{allow: get}]
    respond: 204

  - name: model
`)
	h.reload(t, 0, "1 route added")
	if got := health(); got != 204 {
		t.Errorf("after: %d", got)
	}
}

// broken makes faults that must change nothing.
func (h *house) broken(t *testing.T) {
	good, err := os.ReadFile(h.file())
	if err != nil {
		t.Fatal(err)
	}
	h.edit(t, "rules: [{allow: [get, post]}]", "rules: [{allw: [get, post]}]")
	h.reload(t, 1, "did you mean allow?")
	out, _ := h.sallyport("status", "-c", h.file())
	if !strings.Contains(out, `"last_error"`) || !strings.Contains(out, `"ready": true`) {
		t.Errorf("sallyport status:\n%s", out)
	}
	h.write(t, "gateway.yaml", good[:len(good)/3])
	h.reload(t, 1, "gateway.yaml:")
	h.write(t, "gateway.yaml", good)
	until(t, "the mended file is taken without being asked for", func() bool {
		out, _ := h.sallyport("status", "-c", h.file())
		return !strings.Contains(out, `"last_error"`)
	})
}

// certificate puts another certificate in the place of the old, with another key.
func (h *house) certificate(t *testing.T) {
	before := h.serial(t)
	h.rotate(t)
	until(t, "the new certificate is served", func() bool { return h.serial(t) != before })
}

// key puts another secret in the place of the old: the partner's old one is refused.
func (h *house) key(t *testing.T) {
	call := func(secret string) (string, int) {
		return h.sallyport("curl", "--key-id", "acme-1", "--secret", secret, "--cacert", h.roots, "--fail", "-d", `{"a": 1}`, "-H", "Content-Type: application/json", h.url("/predict"))
	}
	old := filepath.Join(t.TempDir(), "old")
	text, err := os.ReadFile(filepath.Join(h.dir, "acme-1.secret"))
	if err == nil {
		err = os.WriteFile(old, text, 0o600)
	}
	if err != nil {
		t.Fatal(err)
	}
	if out, status := call(old); status != 0 || !strings.Contains(out, `"prediction":1`) {
		t.Errorf("with the key: exit status %d\n%s", status, out)
	}
	h.write(t, "acme-1.secret", secret())
	h.reload(t, 0, "signing key")
	if out, status := call(old); status != 1 {
		t.Errorf("with the old key: exit status %d\n%s", status, out)
	}
	if out, status := call(filepath.Join(h.dir, "acme-1.secret")); status != 0 {
		t.Errorf("with the new key: exit status %d\n%s", status, out)
	}
}

// hangUp reloads as logrotate and systemd do.
func (h *house) hangUp(t *testing.T) {
	h.edit(t, "drain: 5m", "drain: 4m\nreload: {watch: false}")
	h.gateway.Signal(syscall.SIGHUP)
	h.gateway.Prints(t, "reload, drain changed")
}

// withdrawn takes the right away from a caller whose stream is open.
func (h *house) withdrawn(t *testing.T, token string) {
	c := ask(t, h.grpc, token, "streams", "client_grpc.py", strings.TrimPrefix(h.url(""), "https://"), h.roots)
	h.edit(t, "who: {scope: models.predict}", "who: {scope: models.nothing}")
	h.reload(t, 0, "1 route changed")
	if got := story.Curl(t, h.roots, append(bearer(token), h.url("/tensorflow.serving.PredictionService/Predict"), "-X", "POST")...).Status; got != 403 {
		t.Errorf("a new request: %d", got)
	}
	if out := c.end(t); !strings.Contains(out, "failed: PERMISSION_DENIED") || strings.Contains(out, "the stream ended OK") {
		t.Errorf("%s", out)
	}
}

// client is a program that asks until it is told to end.
type client struct {
	name  string
	p     *story.Process
	stdin io.WriteCloser
}

// ask starts a client and waits until it has begun.
func ask(t *testing.T, python, token, begun string, args ...string) *client {
	t.Helper()
	cmd := exec.Command(python, args...)
	cmd.Env = append(os.Environ(), "TOKEN="+token)
	stdin, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	c := &client{name: args[0], stdin: stdin, p: story.Start(t, args[0], cmd)}
	c.p.Prints(t, begun)
	return c
}

// end ends the client and returns what it printed.
func (c *client) end(t *testing.T) string {
	t.Helper()
	c.stdin.Close()
	if status := c.p.Wait(t, 60*time.Second); status != 0 {
		t.Errorf("%s ended with exit status %d", c.name, status)
	}
	return c.p.Output()
}

func secret() []byte {
	b := make([]byte, 64)
	_, _ = rand.Read(b) // never fails
	return []byte(base64.StdEncoding.EncodeToString(b))
}

// authority signs the certificates of the gateway.
type authority struct {
	cert *x509.Certificate
	key  *ecdsa.PrivateKey
	next int64
}

func newAuthority(t *testing.T) *authority {
	t.Helper()
	a := &authority{next: 1}
	cert, key := a.sign(t, &x509.Certificate{Subject: pkix.Name{CommonName: "the operator's CA"}, IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign})
	a.cert, a.key = cert, key
	return a
}

func (a *authority) sign(t *testing.T, c *x509.Certificate) (*x509.Certificate, *ecdsa.PrivateKey) {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	c.SerialNumber, c.NotBefore, c.NotAfter = big.NewInt(a.next), time.Now().Add(-time.Hour), time.Now().Add(24*time.Hour)
	a.next++
	parent, signer := a.cert, a.key
	if parent == nil {
		parent, signer = c, key
	}
	der, err := x509.CreateCertificate(rand.Reader, c, parent, &key.PublicKey, signer)
	if err != nil {
		t.Fatal(err)
	}
	cert, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	return cert, key
}

// rotate puts a new certificate and its key in their places, the key first: until the
// certificate is there, the two do not fit, and what was served before goes on.
func (h *house) rotate(t *testing.T) {
	t.Helper()
	cert, key := h.ca.sign(t, &x509.Certificate{DNSNames: []string{"localhost"}})
	der, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		t.Fatal(err)
	}
	h.write(t, "tls.key", pemOf("PRIVATE KEY", der))
	h.write(t, "tls.crt", pemOf("CERTIFICATE", cert.Raw))
}

func pemOf(kind string, der []byte) []byte {
	return pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: der})
}

// serial is that of the certificate that a new client is shown.
func (h *house) serial(t *testing.T) string {
	t.Helper()
	roots := x509.NewCertPool()
	roots.AddCert(h.ca.cert)
	c, err := tls.Dial("tcp", h.address, &tls.Config{RootCAs: roots, ServerName: "localhost"})
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	return c.ConnectionState().PeerCertificates[0].SerialNumber.String()
}
