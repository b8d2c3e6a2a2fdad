// Package compose holds the story of deploy/compose.yaml: on a laptop without a
// domain, with every image built from what lies on this machine.
package compose

import (
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"sallyport/examples/story"
)

// names are those of compose/local/gateway.yaml.
var names = []string{"churn.localhost", "models.localhost", "login.localhost"}

// house is a copy of the deployment, with an engine to run it.
type house struct {
	*engine
	deploy string // folder of compose.yaml
	root   string // file with Pebble's root
	secret string // of the client batch
	serial map[string]string
}

// start starts the engine, makes the images and copies the deployment, because
// compose.yaml builds from it and its secrets lie in it.
func start(t *testing.T) *house {
	t.Helper()
	e := startEngine(t)
	tree := t.TempDir()
	for _, name := range []string{".dockerignore", "go.mod", "go.sum", "auth", "cmd", "policy", "proxy", "deploy"} {
		e.run(t, "", time.Minute, "cp", "-R", filepath.Join("..", "..", name), filepath.Join(tree, name))
	}
	h := &house{engine: e, deploy: filepath.Join(tree, "deploy"), root: filepath.Join(t.TempDir(), "root.pem")}
	if err := os.RemoveAll(filepath.Join(h.deploy, "compose", "secrets")); err != nil {
		t.Fatal(err)
	}
	h.standIns(t)
	h.run(t, h.deploy, time.Minute, "compose/secrets.sh")
	b, err := os.ReadFile(filepath.Join(h.deploy, "compose", "secrets", "client_secret"))
	if err != nil {
		t.Fatal(err)
	}
	h.secret = string(b)
	return h
}

// standIns makes the images that are pulled elsewhere.
func (h *house) standIns(t *testing.T) {
	t.Helper()
	base := story.Installed(t, "bookworm", "compose/stand-ins.list")
	packages := filepath.Join(story.Installed(t, "tensorflow", "tensorflow/requirements.txt", "tensorflow/requirements-nodeps.txt"), "lib", "python3.11", "site-packages")
	if _, err := os.Stat(packages); err != nil {
		story.Missing(t, "the image has Debian bookworm's Python 3.11, and TensorFlow was installed for another: %v", err)
	}
	// What is compiled here needs not be compiled in the image.
	gocache := filepath.Join(filepath.Dir(base), "go-build")
	build := exec.CommandContext(t.Context(), "go", "build", "-trimpath", "-ldflags=-s -w", "-o", os.DevNull, "./cmd/sallyport")
	build.Dir = filepath.Join("..", "..")
	build.Env = append(os.Environ(), "CGO_ENABLED=0", "GOCACHE="+gocache)
	if out, err := build.CombinedOutput(); err != nil {
		t.Fatalf("building sallyport: %v\n%s", err, out)
	}
	t.Log(h.run(t, "", 5*time.Minute, "./stand-ins.sh", base, gocache,
		story.Installed(t, "wheels", "../deploy/compose/flask/requirements.txt"),
		story.Installed(t, "npm", "../deploy/compose/provider/package-lock.json"),
		packages,
		story.Installed(t, "rest_front", "tensorflow/rest_front/rest_front.cc", "tensorflow/rest_front/Makefile"),
		story.Installed(t, "pebble", "compose/stand-ins.list")))
}

// compose runs docker-compose as README.md says.
func (h *house) compose(t testing.TB, args ...string) string {
	t.Helper()
	return h.run(t, h.deploy, 5*time.Minute, "docker-compose", append([]string{"--env-file", "compose/local.env"}, args...)...)
}

// service is what the engine says of a service's container.
func (h *house) service(t testing.TB, name string) container {
	t.Helper()
	return h.inspect(t, h.compose(t, "ps", "-q", name))
}

// healthy waits until the services say so themselves.
func (h *house) healthy(t testing.TB, services ...string) {
	t.Helper()
	for _, name := range services {
		id := h.compose(t, "ps", "-q", name)
		for end := time.Now().Add(2 * time.Minute); ; time.Sleep(500 * time.Millisecond) {
			c := h.inspect(t, id)
			if c.State.Health != nil && c.State.Health.Status == "healthy" {
				break
			}
			if time.Now().After(end) {
				t.Fatalf("%s is not healthy:\n%s", name, tail(h.compose(t, "logs", "--no-color", name)))
			}
		}
	}
}

func TestCompose(t *testing.T) {
	h := start(t)
	t.Cleanup(func() { h.compose(t, "down", "--volumes", "--timeout", "5") })
	for _, step := range []struct {
		name string
		run  func(*testing.T)
	}{
		{"up", h.up},
		{"certificates from Pebble", h.certificates},
		{"routes", h.routes},
		{"hardening", h.hardening},
		{"model servers cannot be reached", h.unreachable},
		{"a replaced configuration is seen", h.configuration},
		{"restart keeps the certificates", h.restart},
		{"replacement keeps the certificates", h.replacement},
		{"down", h.down},
	} {
		if !t.Run(step.name, step.run) {
			t.Logf("sallyport said:\n%s", tail(h.compose(t, "logs", "--no-color", "sallyport")))
			return
		}
	}
}

func (h *house) up(t *testing.T) {
	h.run(t, h.deploy, time.Minute, "docker-compose", "config", "-q") // the deployment with a domain
	h.compose(t, "up", "-d", "--build")
	h.healthy(t, "sallyport", "churn", "provider", "tensorflow")
	var size int64
	if _, err := fmt.Sscan(h.docker(t, "image", "inspect", "--format", "{{.Size}}", "sallyport"), &size); err != nil || size > 40<<20 {
		t.Errorf("sallyport's image has %d bytes, want at most 40 MiB (%v)", size, err)
	}
	t.Logf("sallyport's image: %.1f MiB", float64(size)/(1<<20))
}

// certificates waits for a certificate of each name that Pebble's root vouches for.
func (h *house) certificates(t *testing.T) {
	ca := filepath.Join(h.deploy, "compose", "secrets", "internal_ca.crt")
	a := story.Curl(t, ca, "https://localhost:15000/roots/0")
	if err := os.WriteFile(h.root, []byte(a.Body), 0o600); err != nil {
		t.Fatal(err)
	}
	h.serial = make(map[string]string)
	for end := time.Now().Add(time.Minute); ; time.Sleep(250 * time.Millisecond) {
		var err error
		if h.serial, err = h.serials(); err == nil {
			break
		}
		if time.Now().After(end) {
			t.Fatalf("no certificate: %v", err)
		}
	}
}

// serials are the serial numbers of the certificates that are served now.
func (h *house) serials() (map[string]string, error) {
	pem, err := os.ReadFile(h.root)
	if err != nil {
		return nil, err
	}
	roots := x509.NewCertPool()
	roots.AppendCertsFromPEM(pem)
	all := make(map[string]string)
	for _, name := range names {
		d := tls.Dialer{NetDialer: &net.Dialer{Timeout: time.Minute}, Config: &tls.Config{RootCAs: roots, ServerName: name}}
		c, err := d.Dial("tcp", "127.0.0.1:443")
		if err != nil {
			return nil, fmt.Errorf("%s: %w", name, err)
		}
		all[name] = c.(*tls.Conn).ConnectionState().PeerCertificates[0].SerialNumber.String()
		c.Close()
	}
	return all, nil
}

// kept sees that the certificates are those of the beginning.
func (h *house) kept(t *testing.T) {
	t.Helper()
	now, err := h.serials()
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range names {
		if now[name] != h.serial[name] {
			t.Errorf("%s has another certificate: %s, and had %s", name, now[name], h.serial[name])
		}
	}
}

// token gets an access token at the provider, through sallyport.
func (h *house) token(t testing.TB, scope string) string {
	t.Helper()
	a := story.Curl(t, h.root, "-d", "grant_type=client_credentials", "-d", "client_id=batch", "-d", "client_secret="+h.secret,
		"-d", "scope="+scope, "https://login.localhost/token")
	var answer struct {
		Token string `json:"access_token"`
	}
	a.JSON(t, &answer)
	if answer.Token == "" {
		t.Fatalf("no token: %d %s", a.Status, a.Body)
	}
	return answer.Token
}

const (
	churnURL = "https://churn.localhost/predict"
	modelURL = "https://models.localhost/v1/models/half_plus_two:predict"
)

func (h *house) routes(t *testing.T) {
	predict, read := h.token(t, "models.predict"), h.token(t, "models.read")
	for _, c := range []struct {
		name, token, url, body string
		status                 int
		want                   string
	}{
		{"flask", predict, churnURL, `{"a": 1, "b": 2}`, 200, `{"caller":"issuer/login:batch","prediction":3}`},
		{"tensorflow", predict, modelURL, `{"instances": [1.0, 2.0, 5.0]}`, 200, "[2.5, 3.0, 4.5"},
		{"status", read, "https://models.localhost/v1/models/half_plus_two", "", 200, `"state": "AVAILABLE"`},
		{"provider", "", "https://login.localhost/.well-known/openid-configuration", "", 200, `"token_endpoint":"https://login.localhost/token"`},
		{"flask without a token", "", churnURL, `{"a": 1}`, 401, "no_credential"},
		{"tensorflow without a token", "", modelURL, `{"instances": [1.0]}`, 401, "no_credential"},
		{"flask, scope too small", read, churnURL, `{"a": 1}`, 403, ""},
		{"tensorflow, scope too small", read, modelURL, `{"instances": [1.0]}`, 403, ""},
		{"what no rule allows", predict, "https://churn.localhost/health", "", 403, ""},
		{"outside the route", predict, "https://models.localhost/monitoring/prometheus/metrics", "", 404, ""},
		{"a forged token", predict[:len(predict)-8] + "AAAAAAAA", churnURL, `{"a": 1}`, 401, ""},
	} {
		t.Run(c.name, func(t *testing.T) {
			var args []string
			if c.token != "" {
				args = append(args, "-H", "Authorization: Bearer "+c.token)
			}
			if c.body != "" {
				args = append(args, "--json", c.body)
			}
			a := story.Curl(t, h.root, append(args, c.url)...)
			if a.Status != c.status || !strings.Contains(a.Body, c.want) {
				t.Errorf("%d %s, want %d with %q", a.Status, a.Body, c.status, c.want)
			}
		})
	}
	a := story.Curl(t, "", "http://churn.localhost/predict")
	if got := a.Header.Get("Location"); a.Status != 308 || got != churnURL {
		t.Errorf("plain HTTP: %d to %q, want 308 to %s", a.Status, got, churnURL)
	}
}

// hardening looks at what the containers may do.
func (h *house) hardening(t *testing.T) {
	published := map[string][]string{ // by service, all that may be
		"sallyport": {"8080/tcp", "8443/tcp"},
		"pebble":    {"15000/tcp"},
	}
	for _, name := range []string{"sallyport", "churn", "tensorflow", "provider", "pebble"} {
		t.Run(name, func(t *testing.T) {
			c := h.service(t, name)
			o := c.HostConfig
			if !o.ReadonlyRootfs || o.Privileged || !slices.Equal(o.CapDrop, []string{"ALL"}) || len(o.CapAdd) > 0 ||
				!slices.Contains(o.SecurityOpt, "no-new-privileges:true") || o.RestartPolicy.Name != "unless-stopped" || o.PidsLimit <= 0 || o.Memory <= 0 {
				t.Errorf("its bounds are %+v", o)
			}
			if c.Config.User == "" || strings.HasPrefix(c.Config.User, "0") || c.Config.User == "root" {
				t.Errorf("it runs as %q", c.Config.User)
			}
			status, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", c.State.Pid))
			if err != nil {
				t.Fatal(err)
			}
			for _, want := range []string{"CapEff:\t0000000000000000\n", "CapBnd:\t0000000000000000\n", "NoNewPrivs:\t1\n"} {
				if !strings.Contains(string(status), want) {
					t.Errorf("its process lacks %q", want)
				}
			}
			var ports []string
			for port := range o.PortBindings {
				ports = append(ports, port)
			}
			slices.Sort(ports)
			if !slices.Equal(ports, published[name]) {
				t.Errorf("it publishes %v, want %v", ports, published[name])
			}
		})
	}
}

// probe says of each address whether a connection is accepted.
const probe = `import socket, sys
from concurrent.futures import ThreadPoolExecutor
def ask(a):
    host, port = a.split(":")
    try:
        socket.create_connection((host, int(port)), 3).close()
        return "open"
    except OSError:
        return "closed"
with ThreadPoolExecutor(8) as pool:
    print(" ".join(pool.map(ask, sys.argv[1:])))`

// unreachable tries the ports of the model servers and of the provider from where
// nobody should reach them.
func (h *house) unreachable(t *testing.T) {
	at := func(service, network, port string) string {
		for name, n := range h.service(t, service).NetworkSettings.Networks {
			if strings.HasSuffix(name, "_"+network) {
				return net.JoinHostPort(n.IPAddress, port)
			}
		}
		t.Fatalf("%s is not in the network %s", service, network)
		return ""
	}
	churn, rest, grpc := at("churn", "churn", "8000"), at("tensorflow", "tensorflow", "8501"), at("tensorflow", "tensorflow", "8500")
	provider := at("provider", "login", "9000")
	from := func(network string, addresses ...string) string {
		return h.docker(t, append([]string{"run", "--rm", "--network", "deploy_" + network, "debian:bookworm-slim", "python3", "-c", probe}, addresses...)...)
	}
	all := []string{churn, rest, grpc, provider}
	for _, c := range []struct {
		network string
		want    string
	}{
		{"churn", "open closed closed closed"}, // each network sees that the probe works
		{"tensorflow", "closed open open closed"},
		{"login", "closed closed closed open"},
		{"edge", "closed closed closed closed"},
	} {
		if got := from(c.network, all...); got != c.want {
			t.Errorf("from the network %s: %s, want %s (%v)", c.network, got, c.want, all)
		}
	}
	for _, port := range []string{"8000", "8500", "8501", "9000", "9902", "14000"} {
		if c, err := net.DialTimeout("tcp", "127.0.0.1:"+port, time.Second); err == nil {
			c.Close()
			t.Errorf("port %s is published", port)
		}
	}
	for _, network := range []string{"churn", "tensorflow", "login"} {
		if got := h.docker(t, "network", "inspect", "--format", "{{.Internal}}", "deploy_"+network); got != "true" {
			t.Errorf("the network %s is not internal: %s", network, got)
		}
	}
	// Health and metrics are for monitoring in other containers, too, which get no detail.
	if got := from("churn", at("sallyport", "churn", "9902"), at("sallyport", "churn", "8443")); got != "open open" {
		t.Errorf("sallyport's health and https from a model server's network: %s", got)
	}
}

// configuration replaces gateway.yaml as editors do: a new file takes its name. The gateway
// that runs takes it.
func (h *house) configuration(t *testing.T) {
	file := filepath.Join(h.deploy, "compose", "local", "gateway.yaml")
	b, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	text := strings.Replace(string(b), "name: churn\n", "name: churn-renamed\n", 1)
	if err := os.WriteFile(file+".new", []byte(text), 0o644); err != nil {
		t.Fatal(err)
	}
	if err := os.Rename(file+".new", file); err != nil {
		t.Fatal(err)
	}
	if got := h.compose(t, "exec", "-T", "sallyport", "sallyport", "check"); !strings.Contains(got, `"churn-renamed"`) {
		t.Errorf("the container sees the old configuration:\n%s", tail(got))
	}
	before := h.service(t, "sallyport").State.Pid
	if got := h.compose(t, "exec", "-T", "sallyport", "sallyport", "reload"); !strings.Contains(got, "route") && !strings.Contains(got, "already loaded this content") {
		t.Errorf("sallyport reload:\n%s", tail(got))
	}
	h.ask(t)
	if log := h.compose(t, "logs", "--no-color", "sallyport"); !strings.Contains(log, `"route":"churn-renamed"`) {
		t.Errorf("the gateway goes by the old configuration:\n%s", tail(log))
	}
	if h.service(t, "sallyport").State.Pid != before {
		t.Error("it was restarted")
	}
}

// restart restarts sallyport while there is no authority to ask.
func (h *house) restart(t *testing.T) {
	h.compose(t, "stop", "--timeout", "5", "pebble")
	before := h.service(t, "sallyport").State.Pid
	h.compose(t, "restart", "sallyport")
	h.healthy(t, "sallyport")
	if h.service(t, "sallyport").State.Pid == before {
		t.Error("it was not restarted")
	}
	h.kept(t)
	h.ask(t)
}

// replacement replaces the container, as a new image does.
func (h *house) replacement(t *testing.T) {
	before := h.service(t, "sallyport").ID
	h.compose(t, "up", "-d", "--no-deps", "--force-recreate", "sallyport")
	h.healthy(t, "sallyport")
	if h.service(t, "sallyport").ID == before {
		t.Error("it was not replaced")
	}
	h.kept(t)
	h.ask(t)
}

// ask makes one call that must succeed, once the keys of the provider are there.
func (h *house) ask(t *testing.T) {
	t.Helper()
	bearer := "Authorization: Bearer " + h.token(t, "models.predict")
	var a story.Answer
	for end := time.Now().Add(time.Minute); time.Now().Before(end); time.Sleep(250 * time.Millisecond) {
		if a = story.Curl(t, h.root, "-H", bearer, "--json", `{"a": 1}`, churnURL); a.Status != 503 {
			break
		}
	}
	if a.Status != 200 {
		t.Errorf("a call: %d %s", a.Status, a.Body)
	}
}

// down ends everything but the volume, and then that.
func (h *house) down(t *testing.T) {
	h.compose(t, "down", "--timeout", "5")
	if got := h.docker(t, "ps", "-aq"); got != "" {
		t.Errorf("containers are left: %s", got)
	}
	if got := h.docker(t, "network", "ls", "-q", "--filter", "name=deploy_"); got != "" {
		t.Errorf("networks are left: %s", got)
	}
	if got := h.docker(t, "volume", "ls", "-q", "--filter", "name=deploy_certificates"); got != "deploy_certificates" {
		t.Errorf("the certificates are gone: %q", got)
	}
	h.compose(t, "down", "--volumes")
	if got := h.docker(t, "volume", "ls", "-q", "--filter", "name=deploy_"); got != "" {
		t.Errorf("volumes are left: %s", got)
	}
}

// TestConfigurations sees that the configuration of the laptop is that of the
// domain but for names and the authority, so that what the story shows holds for
// both. It needs no engine.
func TestConfigurations(t *testing.T) {
	read := func(name string) (rest []string) {
		b, err := os.ReadFile(filepath.Join("..", "..", "deploy", "compose", name, "gateway.yaml"))
		if err != nil {
			t.Fatal(err)
		}
		_, text, _ := strings.Cut(string(b), "\nlisten:")
		before, after, ok := strings.Cut(text, "  acme:\n")
		if !ok {
			t.Fatalf("%s has no acme", name)
		}
		_, after, _ = strings.Cut(after, "    storage:")
		return strings.Split(before+after, "\n")
	}
	domain, laptop := read("gateway"), read("local")
	for i := range domain {
		domain[i] = strings.ReplaceAll(domain[i], ".example.com", ".localhost")
	}
	if !slices.Equal(domain, laptop) {
		t.Errorf("they differ:\n%q\n%q", domain, laptop)
	}
}
