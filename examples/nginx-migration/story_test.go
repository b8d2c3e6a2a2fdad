// Package nginxmigration holds the story of an nginx in front of two model
// servers, and of the gateway that replaces it: both run, and are asked the same.
package nginxmigration

import (
	"bytes"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"sallyport/examples/story"
)

func TestMain(m *testing.M) { os.Exit(story.Run(m)) }

// house is nginx and the gateway side by side, before the same two model servers.
type house struct {
	nginx, nginxPlain string // host:port
	cert              string
	gateway           *story.Gateway
	token             string
	flask, tf         *story.Relay
}

func start(t *testing.T) *house {
	t.Helper()
	story.Need(t, "nginx", "openssl")
	h := &house{flask: story.StartRelay(t, startFlask(t)), tf: story.StartRelay(t, startTensorFlow(t))}
	dir := t.TempDir()
	h.cert = filepath.Join(dir, "tls", "cert.pem")
	makeFiles(t, dir)
	provider := story.StartProvider(t)
	h.token = provider.Token(t, "models.predict models.read", "")
	h.nginx, h.nginxPlain = story.FreeAddress(t), story.FreeAddress(t)
	_, port, _ := net.SplitHostPort(h.nginx)
	story.StartNginx(t, "nginx.conf", dir, h.nginx,
		"127.0.0.1:8443", h.nginx, "$host:8443", "$host:"+port, "127.0.0.1:8080", h.nginxPlain,
		"127.0.0.1:5000", h.flask.Address, "127.0.0.1:8501", h.tf.Address)
	h.gateway = story.StartGateway(t,
		"tls/cert.pem", h.cert, "tls/key.pem", filepath.Join(dir, "tls", "key.pem"),
		"http://127.0.0.1:5000", "http://"+h.flask.Address, "http://127.0.0.1:8501", "http://"+h.tf.Address,
		"https://localhost:9000", provider.URL, "../openid-provider/provider.crt", provider.CA)
	h.gateway.CA = h.cert
	return h
}

func startFlask(t *testing.T) string {
	t.Helper()
	python := filepath.Join(story.Installed(t, "flask", "flask/requirements.txt"), "bin", "python")
	address := story.FreeAddress(t)
	cmd := exec.Command(python, "-m", "gunicorn", "--no-control-socket", "--bind", address, "app:app")
	cmd.Dir = filepath.Join("..", "flask")
	story.Start(t, "gunicorn", cmd).Listens(t, address)
	return address
}

func startTensorFlow(t *testing.T) string {
	t.Helper()
	dir := filepath.Join("..", "tensorflow")
	python := filepath.Join(story.Installed(t, "tensorflow", "tensorflow/requirements.txt", "tensorflow/requirements-nodeps.txt"), "bin", "python")
	models := story.Installed(t, "models", "tensorflow/make_model.py")
	front := filepath.Join(story.Installed(t, "rest_front", "tensorflow/rest_front/rest_front.cc", "tensorflow/rest_front/Makefile"), "rest_front")
	address, socket := story.FreeAddress(t), filepath.Join(t.TempDir(), "rest")
	cmd := exec.Command(python, "serve.py", "--models", models, "--grpc", story.FreeAddress(t), "--rest-socket", socket)
	cmd.Dir = dir
	story.Start(t, "serve.py", cmd).Listens(t, socket)
	host, port, _ := net.SplitHostPort(address)
	story.Start(t, "rest_front", exec.Command(front, host, port, socket)).Listens(t, address)
	return address
}

// makeFiles makes the certificate that both use, and the passwords of nginx.
func makeFiles(t *testing.T, dir string) {
	t.Helper()
	for _, d := range []string{"tls", "tmp"} {
		if err := os.Mkdir(filepath.Join(dir, d), 0o700); err != nil {
			t.Fatal(err)
		}
	}
	run(t, dir, "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-days", "2",
		"-subj", "/CN=localhost", "-addext", "subjectAltName=DNS:localhost", "-keyout", "tls/key.pem", "-out", "tls/cert.pem")
	hash := run(t, dir, "passwd", "-apr1", "secret")
	if err := os.WriteFile(filepath.Join(dir, "htpasswd"), []byte("alice:"+hash), 0o600); err != nil {
		t.Fatal(err)
	}
}

func run(t *testing.T, dir string, args ...string) string {
	t.Helper()
	cmd := exec.Command("openssl", args...)
	cmd.Dir = dir
	var errs bytes.Buffer
	cmd.Stderr = &errs
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("openssl %s: %v: %s", args[0], err, errs.String())
	}
	return string(out)
}

// ask asks both with the credential that each of them takes.
func (h *house) ask(t *testing.T, path string, known bool, args ...string) (nginx, gateway story.Answer) {
	t.Helper()
	_, port, _ := net.SplitHostPort(h.nginx)
	basic, bearer := []string{}, []string{}
	if known {
		basic, bearer = []string{"-u", "alice:secret"}, []string{"-H", "Authorization: Bearer " + h.token}
	}
	args = append(args, "--path-as-is")
	nginx = story.Curl(t, h.cert, append(append(basic, args...), "https://localhost:"+port+path)...)
	gateway = h.gateway.Curl(t, path, append(bearer, args...)...)
	return nginx, gateway
}

const instances = `{"instances": [1.0, 2.0, 5.0]}`

func TestMigration(t *testing.T) {
	h := start(t)
	t.Run("the same", h.same)
	t.Run("what the model servers see", h.seen)
	t.Run("bodies", h.bodies)
	t.Run("gzip", h.gzip)
	t.Run("plain http", h.plain)
	t.Run("other than nginx", h.other)
}

// same asks what both must answer alike.
func (h *house) same(t *testing.T) {
	for _, c := range []struct {
		name, path string
		known      bool
		args       []string
		status     int
		body       string // in both answers
	}{
		{"health", "/health", false, nil, 200, `"status":"ok"`},
		{"predict by Flask", "/churn/predict", true, []string{"--json", `{"a": 40, "b": 2}`}, 200, `{"prediction":42}`},
		{"predict by TensorFlow", "/tf/v1/models/half_plus_two:predict", true, []string{"--json", instances}, 200, "[2.5, 3.0, 4.5"},
		{"another prefix", "/v2/models/half_plus_two:predict", true, []string{"--json", instances}, 200, "[2.5, 3.0, 4.5"},
		{"status of a model", "/tf/v1/models/half_plus_two", true, nil, 200, "AVAILABLE"},
		{"a model that is not there", "/tf/v1/models/none", true, nil, 404, "error"},
		{"nobody", "/churn/predict", false, []string{"--json", `{"a": 1}`}, 401, ""},
		{"nobody at TensorFlow", "/tf/v1/models/half_plus_two", false, nil, 401, ""},
		{"the end of the prefix", "/churn/", true, nil, 404, ""},
		{"a longer name", "/churnx", true, nil, 404, ""},
		{"nothing there", "/other", true, nil, 404, ""},
		{"maintenance", "/batch/x", false, nil, 503, `{"error": "back at noon"}`},
		{"out of the prefix", "/churn/../../etc/passwd", true, nil, 400, ""},
	} {
		t.Run(c.name, func(t *testing.T) {
			nginx, gateway := h.ask(t, c.path, c.known, c.args...)
			for who, a := range map[string]story.Answer{"nginx": nginx, "the gateway": gateway} {
				if a.Status != c.status || !strings.Contains(a.Body, c.body) {
					t.Errorf("%s: %d %s; want %d with %s", who, a.Status, a.Body, c.status, c.body)
				}
			}
			if c.status == 401 && (nginx.Header.Get("WWW-Authenticate") == "" || gateway.Header.Get("WWW-Authenticate") == "") {
				t.Error("no challenge")
			}
			if c.status == 200 && strings.HasPrefix(c.path, "/churn") && (nginx.Header.Get("X-Frame-Options") != "DENY" || gateway.Header.Get("X-Frame-Options") != "DENY") {
				t.Errorf("X-Frame-Options: %s and %s", nginx.Header.Get("X-Frame-Options"), gateway.Header.Get("X-Frame-Options"))
			}
		})
	}
}

// seen compares what the Flask app receives.
func (h *house) seen(t *testing.T) {
	nginx, gateway := h.ask(t, "/churn/echo?q=1", true, "--json", "{}", "-H", "X-Tenant: admin", "-H", "X-Forwarded-For: 10.9.9.9")
	for who, c := range map[string]struct {
		answer story.Answer
		user   string
	}{"nginx": {nginx, "alice"}, "the gateway": {gateway, "issuer/lab:batch"}} {
		var s struct {
			Path, Query string
			Headers     [][2]string
		}
		c.answer.JSON(t, &s)
		got := map[string]string{}
		for _, f := range s.Headers {
			got[f[0]] += f[1]
		}
		want := map[string]string{"x-remote-user": c.user, "x-tenant": "research", "x-forwarded-for": "127.0.0.1", "authorization": ""}
		for name, value := range want {
			if got[name] != value {
				t.Errorf("%s told the app %s: %q; want %q", who, name, got[name], value)
			}
		}
		if s.Path != "/echo" || s.Query != "q=1" {
			t.Errorf("%s asked the app for %s?%s", who, s.Path, s.Query)
		}
	}
}

func (h *house) bodies(t *testing.T) {
	big := filepath.Join(t.TempDir(), "big")
	if err := os.WriteFile(big, make([]byte, 2<<20), 0o600); err != nil {
		t.Fatal(err)
	}
	nginx, gateway := h.ask(t, "/churn/echo", true, "-H", "Content-Type: application/octet-stream", "--data-binary", "@"+big)
	if nginx.Status != 413 || gateway.Status != 413 {
		t.Errorf("2 MiB: %d and %d; want 413", nginx.Status, gateway.Status)
	}
}

func (h *house) gzip(t *testing.T) {
	long := fmt.Sprintf(`{"instances": [%s1.0]}`, strings.Repeat("1.0, ", 500))
	nginx, gateway := h.ask(t, "/tf/v1/models/half_plus_two:predict", true, "--json", long, "--compressed")
	if nginx.Header.Get("Content-Encoding") != "gzip" || gateway.Header.Get("Content-Encoding") != "gzip" {
		t.Errorf("encoding %q and %q; want gzip", nginx.Header.Get("Content-Encoding"), gateway.Header.Get("Content-Encoding"))
	}
	if nginx.Body != gateway.Body || !strings.Contains(gateway.Body, "2.5") {
		t.Errorf("%d and %d bytes", len(nginx.Body), len(gateway.Body))
	}
}

func (h *house) plain(t *testing.T) {
	for who, c := range map[string]struct{ plain, secure string }{
		"nginx": {h.nginxPlain, h.nginx}, "the gateway": {h.gateway.Plain, h.gateway.Address},
	} {
		_, port, _ := net.SplitHostPort(c.plain)
		_, securePort, _ := net.SplitHostPort(c.secure)
		a := story.Curl(t, "", "http://localhost:"+port+"/churn/predict?x=1")
		if want := "https://localhost:" + securePort + "/churn/predict?x=1"; a.Status != 308 || a.Header.Get("Location") != want {
			t.Errorf("%s: %d to %s; want 308 to %s", who, a.Status, a.Header.Get("Location"), want)
		}
	}
}

// other shows where the gateway answers otherwise, as the README says.
func (h *house) other(t *testing.T) {
	for _, c := range []struct {
		name, path     string
		args           []string
		nginx, gateway int
	}{
		{"a method that is not listed", "/tf/v1/models/half_plus_two", []string{"-X", "DELETE"}, 403, 405},
		{"a path that leads out of its prefix", "/churn/../tf/v1/models/half_plus_two", nil, 200, 400},
		{"an escaped slash", "/churn%2fhealth", nil, 200, 400},
		{"two slashes", "/churn//health", nil, 200, 400},
		{"letter case", "/Churn/health", nil, 404, 400},
		{"the prefix without its slash", "/churn", nil, 301, 404},
		{"a field of the gateway's", "/churn/echo", []string{"-H", "X-Sallyport-Principal: root"}, 200, 400},
		{"the user, written by the client", "/churn/echo", []string{"-H", "X_Remote_User: root"}, 200, 400},
	} {
		t.Run(c.name, func(t *testing.T) {
			nginx, gateway := h.ask(t, c.path, true, c.args...)
			if nginx.Status != c.nginx || gateway.Status != c.gateway {
				t.Errorf("nginx %d, the gateway %d; want %d and %d: %s", nginx.Status, gateway.Status, c.nginx, c.gateway, gateway.Body)
			}
		})
	}
}
