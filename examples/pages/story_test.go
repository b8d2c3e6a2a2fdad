// Package pages holds the story of people who use the pages of TensorBoard, Streamlit, JupyterLab,
// FastAPI and MLflow after sign-in at an OpenID provider.
package pages

import (
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"sallyport/examples/story"
	"sallyport/examples/story/browser"
)

func TestMain(m *testing.M) { os.Exit(story.Run(m)) }

const secret = "a secret of this test"

// house is everything that runs in the story.
type house struct {
	story.Folder
	venv        string
	issuer      string
	port        string // of the gateway
	api, boards *story.Relay
	provider    *story.Process
	gateway     *story.Gateway
}

// start starts what the README starts.
func start(t *testing.T) *house {
	t.Helper()
	story.Need(t, "curl", "node", "chromium")
	node := story.Installed(t, "openid-provider", "openid-provider/package-lock.json")
	h := &house{Folder: story.Folder(t.TempDir()), venv: story.Installed(t, "pages", "pages/requirements.txt")}
	h.Sallyport(t, "ca", "init", "--permit-dns", "localhost")
	h.Sallyport(t, "ca", "issue", "--server", "--dns", "localhost", "--out", "provider")
	h.Write(t, "session-keys", h.Sallyport(t, "keygen", "--session"))
	h.Write(t, "login-secret", secret)
	at := story.FreeAddress(t)
	_, port, _ := net.SplitHostPort(at)
	h.issuer = "https://localhost:" + port

	h.gateway = story.StartGateway(t, append(h.startApps(t),
		"https://localhost:9000", h.issuer, "clients-ca/", h.File("clients-ca")+"/",
		"{file: login-secret}", "{file: "+h.File("login-secret")+"}", "{file: session-keys}", "{file: "+h.File("session-keys")+"}", "idle: 1h", "idle: 1m")...)
	_, h.port, _ = net.SplitHostPort(h.gateway.Address)
	cmd := story.Node(t, node, "provider.js", h.gateway.CA)
	cmd.Env = append(cmd.Env, "PORT="+port, "GATEWAY_PORT="+h.port, "CLIENT_SECRET="+secret, "TLS_DIR="+string(h.Folder))
	h.provider = story.Start(t, "provider", cmd)
	h.provider.Listens(t, at)
	return h
}

// startApps starts the five servers at once, waits until they listen, and returns what to replace in
// gateway.yaml. Relays keep what two of them are sent.
func (h *house) startApps(t *testing.T) []string {
	t.Helper()
	here, err := os.Getwd()
	if err != nil {
		t.Fatal(err)
	}
	if out, err := h.Python(t, h.venv, "tensorboard", "python", filepath.Join(here, "board.py"), "runs/churn").CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	var replace []string
	listens := map[string]*story.Process{}
	serve := func(written string, cmd func(port string) *exec.Cmd) string {
		at := story.FreeAddress(t)
		_, port, _ := net.SplitHostPort(at)
		c := cmd(port)
		listens[at] = story.Start(t, filepath.Base(c.Dir), c)
		replace = append(replace, written, at)
		return at
	}
	serve("127.0.0.1:5000", func(port string) *exec.Cmd {
		// What `mlflow server --app-name basic-auth` runs, as one process that this test can stop.
		c := h.Python(t, h.venv, "mlflow", "uvicorn", "--host", "127.0.0.1", "--port", port, "--factory", "mlflow.server.auth:create_app")
		c.Env = append(c.Env, "_MLFLOW_SERVER_FILE_STORE=sqlite:///"+h.File("mlflow/mlflow.db"), "_MLFLOW_SERVER_ARTIFACT_ROOT="+h.File("mlflow/artifacts"),
			"_MLFLOW_SGI_NAME=uvicorn", "MLFLOW_SERVER_CORS_ALLOWED_ORIGINS=https://mlflow.localhost:*", "PYTHONPATH="+here,
			"MLFLOW_AUTH_CONFIG_PATH="+filepath.Join(here, "mlflow_auth.ini"), "MLFLOW_FLASK_SERVER_SECRET_KEY="+secret, "MLFLOW_AUTH_ADMIN_PASSWORD="+secret)
		return c
	})
	serve("127.0.0.1:8888", func(port string) *exec.Cmd {
		return h.Python(t, h.venv, "jupyter", "jupyter-lab", "--allow-root", "--no-browser", "--ip", "127.0.0.1", "--port", port,
			"--config", filepath.Join(here, "jupyter_server_config.py"))
	})
	serve("127.0.0.1:8501", func(port string) *exec.Cmd {
		return h.Python(t, h.venv, "streamlit", "streamlit", "run", filepath.Join(here, "counter.py"), "--server.headless", "true",
			"--server.address", "127.0.0.1", "--server.port", port, "--browser.gatherUsageStats", "false")
	})
	boards := serve("127.0.0.1:6006", func(port string) *exec.Cmd {
		return h.Python(t, h.venv, "tensorboard", "tensorboard", "--logdir", "runs", "--host", "127.0.0.1", "--port", port, "--load_fast=false")
	})
	api := serve("127.0.0.1:8000", func(port string) *exec.Cmd {
		c := h.Python(t, h.venv, "api", "uvicorn", "--app-dir", here, "--host", "127.0.0.1", "--port", port, "api:app")
		c.Env = append(c.Env, "ISSUER="+h.issuer)
		return c
	})
	for at, server := range listens {
		server.ListensWithin(t, at, 3*time.Minute)
	}
	h.boards, h.api = story.StartRelay(t, boards), story.StartRelay(t, api)
	for i := 1; i < len(replace); i += 2 {
		replace[i] = strings.NewReplacer(boards, h.boards.Address, api, h.api.Address).Replace(replace[i])
	}
	return replace
}

// at is the URL of a page of the gateway.
func (h *house) at(name, path string) string {
	return "https://" + name + ".localhost:" + h.port + path
}

// ready waits until the gateway has read the provider's discovery document, which says that answers name
// the issuer (RFC 9207): the gateway takes none that does not.
func (h *house) ready(t *testing.T) {
	t.Helper()
	a := story.Curl(t, h.File("clients-ca/ca.pem"), h.issuer+"/.well-known/openid-configuration")
	if !strings.Contains(a.Body, `"authorization_response_iss_parameter_supported":true`) {
		t.Errorf("the provider says %s", a.Body)
	}
	browser.Eventually(t, "the gateway knows the provider", func() bool {
		return story.Curl(t, h.gateway.CA, h.at("streamlit", "/.sallyport/sign-in")).Status == 303
	})
}

func TestPeopleUsePages(t *testing.T) {
	h := start(t)
	b := browser.Start(t, "PAGES_PICTURES")
	h.ready(t)
	idle, left := h.leave(t, b)
	t.Run("TensorBoard", func(t *testing.T) { h.tensorboard(t, b) })
	t.Run("Streamlit", func(t *testing.T) { h.streamlit(t, b) })
	t.Run("JupyterLab", func(t *testing.T) { h.jupyter(t, b) })
	t.Run("docs", func(t *testing.T) { h.docs(t, b) })
	t.Run("MLflow", func(t *testing.T) { h.mlflow(t, b) })
	t.Run("nobody used it", func(t *testing.T) { h.comeBack(t, idle, left) })
	for _, text := range []string{secret, "__Host-sallyport=", "eyJ"} {
		if strings.Contains(h.gateway.Process.Output(), text) {
			t.Errorf("a log holds %q", text)
		}
	}
}
