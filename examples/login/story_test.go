// Package login holds the story of people who sign in at Keycloak to the pages of model servers.
package login

import (
	"encoding/json"
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

// house is everything that runs in the story.
type house struct {
	story.Folder
	keycloak       string // its origin
	port           string // of the gateway
	mlflow, gradio *story.Relay
	gateway        *story.Gateway
}

// start starts what the README starts. Keycloak takes half a minute, and minutes on a busy machine.
func start(t *testing.T) *house {
	t.Helper()
	story.Need(t, "curl", "java", "chromium")
	keycloak := filepath.Join(story.Installed(t, "keycloak", "keycloak/keycloak.version", "keycloak/realm.json"), "keycloak")
	venv := story.Installed(t, "login", "login/requirements.txt")
	h := &house{Folder: story.Folder(t.TempDir())}
	h.Sallyport(t, "ca", "init", "--permit-dns", "localhost")
	h.Sallyport(t, "ca", "issue", "--server", "--dns", "localhost", "--out", "keycloak")
	h.Write(t, "session-keys", h.Sallyport(t, "keygen", "--session"))
	h.Write(t, "login-secret", "a secret of this test")

	h.startApps(t, venv)
	at := story.FreeAddress(t)
	_, port, _ := net.SplitHostPort(at)
	h.keycloak = "https://localhost:" + port
	h.gateway = story.StartGateway(t,
		"https://localhost:9000", h.keycloak, "clients-ca/", h.File("clients-ca")+"/",
		"{file: login-secret}", "{file: "+h.File("login-secret")+"}", "{file: session-keys}", "{file: "+h.File("session-keys")+"}",
		"http://127.0.0.1:5000", "http://"+h.mlflow.Address, "http://127.0.0.1:7860", "http://"+h.gradio.Address)
	_, h.port, _ = net.SplitHostPort(h.gateway.Address)
	h.startKeycloak(t, keycloak, at)
	return h
}

// startKeycloak starts Keycloak, and makes the realm. It trusts the gateway's authority, for logout by
// the back channel, and finds the gateway's names in a file: not every system knows them.
func (h *house) startKeycloak(t *testing.T, home, at string) {
	t.Helper()
	h.Write(t, "hosts", "127.0.0.1 localhost mlflow.localhost gradio.localhost\n")
	_, port, _ := net.SplitHostPort(at)
	cmd := exec.Command(filepath.Join(home, "bin", "kc.sh"), "start", "--optimized", "--cache=local", "--http-enabled=false",
		"--http-host=127.0.0.1", "--https-port="+port, "--hostname="+h.keycloak,
		"--https-certificate-file="+h.File("keycloak.pem"), "--https-certificate-key-file="+h.File("keycloak.key"),
		"--truststore-paths="+h.File("clients-ca/ca.pem")+","+h.gateway.CA)
	// The first makes the script become Java, so that a signal reaches that; TieredStopAtLevel makes it start sooner.
	cmd.Env = append(os.Environ(), "KC_RUN_IN_CONTAINER=true", "KC_BOOTSTRAP_ADMIN_USERNAME=admin", "KC_BOOTSTRAP_ADMIN_PASSWORD=admin",
		"JAVA_OPTS_APPEND=-XX:TieredStopAtLevel=1 -Djdk.net.hosts.file="+h.File("hosts"))
	story.Start(t, "keycloak", cmd).ListensWithin(t, at, 6*time.Minute)
	realm, err := os.ReadFile("realm.json")
	if err != nil {
		t.Fatal(err)
	}
	h.Write(t, "realm.json", strings.ReplaceAll(string(realm), "localhost:8443", "localhost:"+h.port))
	if a := h.admin(t, "POST", "/admin/realms", "@"+h.File("realm.json")); a.Status != 201 {
		t.Fatalf("making the realm: %d %s", a.Status, a.Body)
	}
}

// startApps starts MLflow and the Gradio app, each behind a relay that keeps what they are sent.
func (h *house) startApps(t *testing.T, venv string) {
	t.Helper()
	app, err := filepath.Abs("app.py")
	if err != nil {
		t.Fatal(err)
	}
	at := story.FreeAddress(t)
	_, port, _ := net.SplitHostPort(at)
	cmd := h.Python(t, venv, "gradio", "python", app, port)
	cmd.Env = append(cmd.Env, "GRADIO_ANALYTICS_ENABLED=False")
	gradio := story.Start(t, "gradio", cmd)
	h.gradio = story.StartRelay(t, at)

	// What `mlflow server` runs, as one process that this test can stop.
	server := story.FreeAddress(t)
	_, port, _ = net.SplitHostPort(server)
	cmd = h.Python(t, venv, "mlflow", "uvicorn", "--host", "127.0.0.1", "--port", port, "mlflow.server.fastapi_app:app")
	cmd.Env = append(cmd.Env, "_MLFLOW_SERVER_FILE_STORE=sqlite:///"+h.File("mlflow/mlflow.db"), "_MLFLOW_SERVER_ARTIFACT_ROOT=mlflow-artifacts:/",
		"_MLFLOW_SERVER_SERVE_ARTIFACTS=true", "_MLFLOW_SERVER_ARTIFACT_DESTINATION="+h.File("mlflow/artifacts"),
		"MLFLOW_SERVER_CORS_ALLOWED_ORIGINS=https://mlflow.localhost:*", "_MLFLOW_SGI_NAME=uvicorn")
	mlflow := story.Start(t, "mlflow", cmd)
	h.mlflow = story.StartRelay(t, server)
	gradio.ListensWithin(t, at, 3*time.Minute)
	mlflow.ListensWithin(t, server, 3*time.Minute)
}

// token gets an access token of Keycloak with a form.
func (h *house) token(t *testing.T, realm string, form ...string) string {
	t.Helper()
	var args []string
	for _, pair := range form {
		args = append(args, "--data-urlencode", pair)
	}
	a := story.Curl(t, h.File("clients-ca/ca.pem"), append(args, h.keycloak+"/realms/"+realm+"/protocol/openid-connect/token")...)
	var answer struct {
		Token string `json:"access_token"`
	}
	a.JSON(t, &answer)
	if answer.Token == "" {
		t.Fatalf("no token: %d %s", a.Status, a.Body)
	}
	return answer.Token
}

// admin calls Keycloak's admin API; content is as curl takes it.
func (h *house) admin(t *testing.T, method, path, content string) story.Answer {
	t.Helper()
	token := h.token(t, "master", "grant_type=password", "client_id=admin-cli", "username=admin", "password=admin")
	args := []string{"-X", method, "-H", "Authorization: Bearer " + token, "-H", "Content-Type: application/json"}
	if content != "" {
		args = append(args, "--data", content)
	}
	return story.Curl(t, h.File("clients-ca/ca.pem"), append(args, h.keycloak+path)...)
}

// at is the URL of a page of the gateway.
func (h *house) at(name, path string) string {
	return "https://" + name + ".localhost:" + h.port + path
}

// call calls the gateway as a program does.
func (h *house) call(t *testing.T, name, path string, args ...string) story.Answer {
	t.Helper()
	return story.Curl(t, h.gateway.CA, append(args, h.at(name, path))...)
}

// ready waits until the gateway has read Keycloak's discovery document.
func (h *house) ready(t *testing.T) {
	t.Helper()
	for end := time.Now().Add(2 * time.Minute); ; time.Sleep(200 * time.Millisecond) {
		a := h.call(t, "mlflow", "/.sallyport/sign-in")
		switch {
		case a.Status == 303:
			return
		case time.Now().After(end):
			t.Fatalf("sign-in: %d %s", a.Status, a.Body)
		}
	}
}

func TestPeopleSignInToPages(t *testing.T) {
	h := start(t)
	h.ready(t)
	b := browser.Start(t, "LOGIN_PICTURES")
	t.Run("a program", h.program)
	t.Run("MLflow", func(t *testing.T) { h.walk(t, b) })
	t.Run("Gradio", func(t *testing.T) { h.stream(t, b) })
	t.Run("two accounts", func(t *testing.T) { h.accounts(t, b) })
	t.Run("lifetimes", func(t *testing.T) { h.lifetimes(t, b) })
	for _, secret := range []string{"a secret of this test", "__Host-sallyport=", "eyJ"} {
		if strings.Contains(h.gateway.Process.Output(), secret) {
			t.Errorf("a log holds %q", secret)
		}
	}
}

// program: a program is never sent to a page. With a token it is served on the same route.
func (h *house) program(t *testing.T) {
	const search = "/api/2.0/mlflow/experiments/search"
	a := h.call(t, "mlflow", search, "--json", `{"max_results": 5}`)
	var refusal struct{ Reason string }
	if err := json.Unmarshal([]byte(a.Body), &refusal); err != nil || a.Status != 401 || refusal.Reason != "no_credential" || a.Header.Get("Location") != "" {
		t.Errorf("without a session: %d %v %s", a.Status, a.Header, a.Body)
	}
	bearer := "Authorization: Bearer " + h.token(t, "people", "grant_type=client_credentials", "client_id=pages", "client_secret=a secret of this test")
	a = h.call(t, "mlflow", "/api/2.0/mlflow/experiments/create", "--json", `{"name": "churn"}`, "-H", bearer)
	if a.Status != 200 || !strings.Contains(a.Body, "experiment_id") {
		t.Errorf("with a token: %d %s", a.Status, a.Body)
	}
}
