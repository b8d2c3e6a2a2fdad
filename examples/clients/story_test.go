// Package clients holds the story of signed messages: clients in several languages,
// and libraries that are not ours, before a real gateway and real servers.
package clients

import (
	"crypto/ed25519"
	"crypto/rand"
	"crypto/x509"
	"encoding/base64"
	"encoding/pem"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"sallyport/examples/story"
)

func TestMain(m *testing.M) { os.Exit(story.Run(m)) }

// house is everything that runs in the story.
type house struct {
	python  string // the interpreter
	keys    string // folder with the keys of gateway.yaml
	relay   *story.Relay
	between *between
	gateway *story.Gateway
	all     []program
}

// start starts all of it: the apps as the README says, and the gateway with the
// gateway.yaml of this folder. A relay stands before the Flask app, to see what
// reaches it; a party in the middle can stand before the gateway.
func start(t *testing.T) *house {
	t.Helper()
	venv := story.Installed(t, "clients", "clients/python/requirements.txt", "clients/interop/requirements.txt")
	h := &house{python: filepath.Join(venv, "bin", "python"), keys: filepath.Join(t.TempDir(), "keys")}
	writeKeys(t, h.keys)
	app, asgi := story.FreeAddress(t), story.FreeAddress(t)
	h.relay = story.StartRelay(t, app)
	h.serve(t, app, h.relay.Address, "gunicorn", "--no-control-socket", "--workers", "1", "--threads", "4", "--bind", app, "app:app")
	_, port, _ := net.SplitHostPort(asgi)
	h.serve(t, asgi, asgi, "uvicorn", "--host", "127.0.0.1", "--port", port, "asgi:app")
	h.between = startBetween(t)
	_, port, _ = net.SplitHostPort(h.between.address)
	nonces := filepath.Join(t.TempDir(), "nonces")
	write(t, nonces, "")
	h.gateway = story.StartGateway(t,
		"keys/", h.keys+"/",
		"state: sallyport-nonces", "state: "+nonces,
		"http://127.0.0.1:5000", "http://"+h.relay.Address,
		"http://127.0.0.1:5001", "http://"+asgi,
		"listen: {", "public_https: "+port+"\nlisten: {") // also for those who come by way of between
	h.between.target(t, h.gateway)
	h.all = h.programs(t)
	return h
}

// serve starts a server of the folder python.
func (h *house) serve(t *testing.T, address, authority string, module string, args ...string) {
	t.Helper()
	cmd := exec.Command(h.python, append([]string{"-m", module}, args...)...)
	cmd.Dir = "python"
	cmd.Env = append(h.environment(t), "AUTHORITY="+authority, "GATEWAY_KEY="+h.key("gw-app"), "OWN_KEY="+h.key("app"))
	story.Start(t, module, cmd).Listens(t, address)
}

// environment lets Python find sallyport_client.py where it is, and leave nothing behind.
func (h *house) environment(t *testing.T) []string {
	t.Helper()
	module, err := filepath.Abs("../../cmd/sallyport/handover")
	if err != nil {
		t.Fatal(err)
	}
	return append(os.Environ(), "PYTHONPATH="+module, "PYTHONDONTWRITEBYTECODE=1")
}

func (h *house) key(name string) string { return filepath.Join(h.keys, name) }

func write(t *testing.T, name, content string) {
	t.Helper()
	if err := os.WriteFile(name, []byte(content), 0o600); err != nil {
		t.Fatal(err)
	}
}

// writeKeys makes the keys of gateway.yaml.
func writeKeys(t *testing.T, dir string) {
	t.Helper()
	if err := os.Mkdir(dir, 0o700); err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"python", "go", "bash", "node", "interop", "gw-app", "app"} {
		secret := make([]byte, 64)
		if _, err := rand.Read(secret); err != nil {
			t.Fatal(err)
		}
		write(t, filepath.Join(dir, name), base64.StdEncoding.EncodeToString(secret)+"\n")
	}
	for _, name := range []string{"gateway", "partner"} {
		public, private, err := ed25519.GenerateKey(nil)
		if err != nil {
			t.Fatal(err)
		}
		for _, half := range []struct {
			file, kind string
			der        func() ([]byte, error)
		}{
			{name + ".pem", "PRIVATE KEY", func() ([]byte, error) { return x509.MarshalPKCS8PrivateKey(private) }},
			{name + ".pub.pem", "PUBLIC KEY", func() ([]byte, error) { return x509.MarshalPKIXPublicKey(public) }},
		} {
			der, err := half.der()
			if err != nil {
				t.Fatal(err)
			}
			write(t, filepath.Join(dir, half.file), string(pem.EncodeToMemory(&pem.Block{Type: half.kind, Bytes: der})))
		}
	}
}

func TestClients(t *testing.T) {
	h := start(t)
	t.Run("alone", h.alone)
	t.Run("signed both ways", h.signed)
	t.Run("changed on the way back", h.changed)
	t.Run("refused", h.refused)
	t.Run("bash", h.bash)
	t.Run("python", h.libraries)
	t.Run("streams", h.streams)
	t.Run("upstream", h.upstream)
	t.Run("quirks", h.quirks)
}

// alone runs what needs no gateway.
func (h *house) alone(t *testing.T) {
	cmd := exec.Command(h.python, "test_sallyport_client.py")
	cmd.Dir, cmd.Env = "python", h.environment(t)
	out, err := cmd.CombinedOutput()
	if err != nil || strings.Contains(string(out), "skipped") {
		t.Errorf("test_sallyport_client.py: %v\n%s", err, out)
	}
}

// libraries runs what the Python libraries do at this gateway.
func (h *house) libraries(t *testing.T) {
	cmd := exec.Command(h.python, "test_gateway.py")
	cmd.Dir = "python"
	cmd.Env = append(h.environment(t), "SALLYPORT_URL="+h.gateway.URL(""), "SALLYPORT_KEYS="+h.keys,
		"REQUESTS_CA_BUNDLE="+h.gateway.CA, "SSL_CERT_FILE="+h.gateway.CA)
	out, err := cmd.CombinedOutput()
	if err != nil || strings.Contains(string(out), "skipped") {
		t.Errorf("test_gateway.py: %v\n%s", err, out)
	}
}
