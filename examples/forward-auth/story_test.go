// Package forwardauth holds the story of an nginx that forwards and asks sallyport
// whether it may.
package forwardauth

import (
	"encoding/json"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"sallyport/examples/story"
)

func TestMain(m *testing.M) { os.Exit(story.Run(m)) }

// house is nginx before the app, with the gateway beside it.
type house struct {
	url     string
	cert    string
	app     *story.Relay
	gateway *story.Process
	predict string // tokens
	read    string
	request string // the id of one that was admitted
}

func start(t *testing.T) *house {
	t.Helper()
	story.Need(t, "nginx", "openssl")
	h := &house{app: story.StartRelay(t, startFlask(t))}
	dir := t.TempDir()
	h.cert = makeCert(t, dir)
	provider := story.StartProvider(t)
	h.predict, h.read = provider.Token(t, "models.predict", ""), provider.Token(t, "models.read", "")
	ask := story.FreeAddress(t)
	h.startGateway(t, "127.0.0.1:9904", ask, "127.0.0.1:9902", story.FreeAddress(t),
		"https://localhost:9000", provider.URL, "../openid-provider/provider.crt", provider.CA)
	h.gateway.Listens(t, ask)
	address := story.FreeAddress(t)
	_, port, _ := net.SplitHostPort(address)
	h.url = "https://localhost:" + port
	story.StartNginx(t, "nginx.conf", dir, address, "127.0.0.1:8443", address, "127.0.0.1:5000", h.app.Address, "127.0.0.1:9904", ask)
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

func makeCert(t *testing.T, dir string) string {
	t.Helper()
	for _, d := range []string{"tls", "tmp"} {
		if err := os.Mkdir(filepath.Join(dir, d), 0o700); err != nil {
			t.Fatal(err)
		}
	}
	cmd := exec.Command("openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-days", "2",
		"-subj", "/CN=localhost", "-addext", "subjectAltName=DNS:localhost", "-keyout", "tls/key.pem", "-out", "tls/cert.pem")
	cmd.Dir = dir
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("openssl: %v: %s", err, out)
	}
	return filepath.Join(dir, "tls", "cert.pem")
}

func (h *house) startGateway(t *testing.T, replace ...string) {
	t.Helper()
	b, err := os.ReadFile("gateway.yaml")
	if err != nil {
		t.Fatal(err)
	}
	config := filepath.Join(t.TempDir(), "gateway.yaml")
	if err := os.WriteFile(config, []byte(strings.NewReplacer(replace...).Replace(string(b))), 0o600); err != nil {
		t.Fatal(err)
	}
	h.gateway = story.Start(t, "sallyport", exec.Command(os.Getenv("SALLYPORT"), "serve", "-c", config))
}

func bearer(token string) []string { return []string{"-H", "Authorization: Bearer " + token} }

func TestForwardAuth(t *testing.T) {
	h := start(t)
	t.Run("admitted", h.admitted)
	t.Run("refused", h.refused)
	t.Run("gateway away", h.away)
}

func (h *house) admitted(t *testing.T) {
	a := story.Curl(t, h.cert, append(bearer(h.predict), "--json", `{"a": 40, "b": 2}`, h.url+"/predict")...)
	if a.Status != 200 || strings.TrimSpace(a.Body) != `{"prediction":42}` {
		t.Errorf("%d %s", a.Status, a.Body)
	}
	if a := story.Curl(t, h.cert, h.url+"/health"); a.Status != 200 {
		t.Errorf("/health without a token: %d %s", a.Status, a.Body)
	}
	a = story.Curl(t, h.cert, append(bearer(h.read), "-H", "X-Original-URL: /predict", "-H", "X-Original-Method: POST", h.url+"/echo?q=%2F")...)
	var s struct {
		Path, Query string
		Headers     [][2]string
	}
	a.JSON(t, &s)
	got := map[string]string{}
	for _, f := range s.Headers {
		got[f[0]] += f[1]
	}
	if got["x-sallyport-principal"] != "issuer/lab:batch" || got["x-sallyport-scopes"] != "models.read" || got["x-sallyport-request-id"] == "" || got["authorization"] != "" {
		t.Errorf("the app was told %v", got)
	}
	if url, method := got["x-original-url"], got["x-original-method"]; url+method != "" {
		t.Errorf("the app was told another target by the client: %s %s", method, url)
	}
	h.request = got["x-sallyport-request-id"]
}

// recorded reports whether there is a record as told.
func (h *house) recorded(id, path, reason string, status int) bool {
	for line := range strings.Lines(h.gateway.Output()) {
		var r struct {
			ID, Path, Reason, Upstream string
			Status                     int
		}
		if json.Unmarshal([]byte(line), &r) == nil && r.ID == id {
			return r.Path == path && r.Reason == reason && r.Status == status && r.Upstream == "forward_auth"
		}
	}
	return false
}

// refused makes calls that nginx must not forward, and sees that it does not.
func (h *house) refused(t *testing.T) {
	h.app.Take()
	body := []string{"--json", `{"a": 1}`}
	for _, c := range []struct {
		name, path string
		args       []string
		status     int
		reason     string
	}{
		{"no token", "/predict", body, 401, "no_credential"},
		{"a bad one", "/predict", append(bearer("hello"), body...), 401, "bad_credential"},
		{"no scope", "/predict", append(bearer(h.read), body...), 403, "insufficient_scope"},
		{"another verb", "/predict", append(bearer(h.predict), "-X", "DELETE"), 403, "forbidden"},
		{"another host", "/predict", append(append(bearer(h.predict), "-H", "Host: other.example"), body...), 403, "no_route"},
		{"who calls, written by the client", "/predict", append(append(bearer(h.predict), "-H", "X-Sallyport-Principal: root"), body...), 403, "protected_field"},
		{"another method, told by the client", "/predict", append(body, "-H", "X-Original-Method: GET", "-H", "X-Original-URL: https://localhost/health"), 401, "no_credential"},
		{"another request line, told by the client", "/predict", append(body, "-H", "X-Forwarded-Uri: /health", "-H", "X-Forwarded-Method: GET"), 401, "no_credential"},
		{"another path, for servers that take it from a field", "/predict", append(append(bearer(h.predict), "-H", "X-Rewrite-URL: /admin"), body...), 403, "not_for_another_proxy"},
		{"dot segments", "/health/../predict", append(body, "--path-as-is"), 403, "ambiguous_path"},
		{"escaped dot segments", "/health/%2e%2e/predict", append(body, "--path-as-is"), 403, "ambiguous_path"},
		{"an escaped slash", "/x%2fpredict", append(bearer(h.predict), body...), 403, "ambiguous_path"},
		{"two slashes", "//predict", append(bearer(h.predict), append(body, "--path-as-is")...), 403, "ambiguous_path"},
		{"escaped letters", "/%70redict", append(bearer(h.predict), body...), 403, "ambiguous_path"},
		{"the way of nginx to the gateway", "/_sallyport", bearer(h.predict), 404, ""},
	} {
		t.Run(c.name, func(t *testing.T) {
			a := story.Curl(t, h.cert, append(c.args, h.url+c.path)...)
			if a.Status != c.status || a.Header.Get("X-Sallyport-Reason") != c.reason {
				t.Errorf("%d for %q; want %d for %q", a.Status, a.Header.Get("X-Sallyport-Reason"), c.status, c.reason)
			}
			if c.status == 401 && !strings.HasPrefix(a.Header.Get("WWW-Authenticate"), "Bearer ") {
				t.Errorf("challenge %q", a.Header.Get("WWW-Authenticate"))
			}
			if x := h.app.Take(); len(x) > 0 {
				t.Errorf("the app was asked: %q", x[0].Request)
			}
		})
	}
}

// away stops the gateway: nginx forwards nothing then.
func (h *house) away(t *testing.T) {
	h.gateway.Stop(t)
	if !h.recorded(h.request, "/echo", "", 200) {
		t.Errorf("no record of request %s:\n%s", h.request, h.gateway.Output())
	}
	if a := story.Curl(t, h.cert, append(bearer(h.read), h.url+"/echo")...); a.Status != 500 {
		t.Errorf("%d; want 500", a.Status)
	}
	if x := h.app.Take(); len(x) > 0 {
		t.Errorf("the app was asked: %q", x[0].Request)
	}
}
