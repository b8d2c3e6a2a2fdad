// Package modelsmlflow holds the story of `mlflow models serve` behind sallyport.
package modelsmlflow

import (
	"flag"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"sallyport/examples/story"
)

var record = flag.Bool("record", false, "write what the server answers to the recorded requests instead of comparing")

func TestMain(m *testing.M) { os.Exit(story.Run(m)) }

// house is everything that runs in the story.
type house struct {
	venv           string
	server         string // host:port of MLflow
	relay          *story.Relay
	gateway        *story.Gateway
	alice, monitor string // their keys
}

func start(t *testing.T) *house {
	t.Helper()
	h := &house{venv: story.Installed(t, "models-mlflow", "models-mlflow/requirements.txt"), server: story.FreeAddress(t)}
	model := filepath.Join(story.Installed(t, "mlflow-model", "models-mlflow/make_model.py", "models-mlflow/wine.py"), "wine")
	host, port, _ := net.SplitHostPort(h.server)
	// What `mlflow models serve --env-manager local` runs, as a process that this test can stop.
	cmd := exec.Command(filepath.Join(h.venv, "bin", "uvicorn"), "--host", host, "--port", port, "mlflow.pyfunc.scoring_server.app:app")
	cmd.Env = append(os.Environ(), "__pyfunc_model_path__="+model, "MLFLOW_DISABLE_TELEMETRY=true", "PYTHONDONTWRITEBYTECODE=1",
		"PYTHONHASHSEED=0") // else the order of names in its errors changes
	cmd.Dir = t.TempDir()
	story.Start(t, "mlflow", cmd).Listens(t, h.server)
	h.relay = story.StartRelay(t, h.server)
	var aliceHash, monitorHash string
	h.alice, aliceHash = story.APIKey(t, "alice")
	h.monitor, monitorHash = story.APIKey(t, "monitor")
	h.gateway = story.StartGateway(t,
		"http://127.0.0.1:5000", "http://"+h.relay.Address,
		"sha256:9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08", aliceHash,
		"sha256:60303ae22b998861bce3b28f33eec1be758a213c86c93c076dbe9f558c11c752", monitorHash)
	return h
}

func TestMLflow(t *testing.T) {
	h := start(t)
	t.Run("recorded", func(t *testing.T) {
		story.Recorded(t, *record, "mlflow", h.server, func(string) string { return "" })
	})
	t.Run("client", h.client)
	t.Run("refused", h.refused)
}

// client runs client.py: as alice the tables are answered, and as the monitor the health alone. Content
// that carries code is refused to both, and neither it nor what the monitor asks reaches MLflow.
func (h *house) client(t *testing.T) {
	const table = `200 {"predictions": [{"0": 1.5}, {"0": 4.0}]}`
	for _, c := range []struct{ key, table string }{{h.alice, table}, {h.monitor, "403 forbidden"}} {
		h.relay.Take()
		out := story.RunAs(t, c.key, exec.Command(filepath.Join(h.venv, "bin", "python"), "client.py", h.gateway.URL(""), h.gateway.CA))
		want := strings.ReplaceAll("split: TABLE\nrecords: TABLE\ninstances: TABLE\ncsv: TABLE\n", "TABLE", c.table) +
			"pickle: 415 code_in_body\njoblib: 415 code_in_body\nping: 200"
		if out != want {
			t.Errorf("client.py prints\n%s\nwant\n%s", out, want)
		}
		for _, x := range h.relay.Take() {
			if c.key == h.monitor && !strings.HasPrefix(string(x.Request), "GET /ping ") || strings.Contains(string(x.Request), "DataFrame") {
				t.Errorf("the server got %q", x.Request)
			}
		}
	}
}

// refused makes calls that the gateway does not let through, and sees that none reaches the server.
func (h *house) refused(t *testing.T) {
	h.relay.Take()
	const table = `{"inputs":{"a":[1],"b":[2]}}`
	for _, c := range []struct{ method, path, kind string }{
		{"GET", "/invocations", ""}, {"PUT", "/invocations", "application/json"}, {"POST", "/invocations/", "application/json"},
		{"POST", "//invocations", "application/json"}, {"POST", "/Invocations", "application/json"},
		{"POST", "/x/../invocations", "application/json"}, {"POST", "/%2Finvocations", "application/json"},
		{"GET", "/docs", ""}, {"GET", "/openapi.json", ""}, {"GET", "/version", ""}, {"POST", "/ping", "application/json"}, {"DELETE", "/ping", ""}, {"GET", "/unknown", ""},
	} {
		args := []string{"-X", c.method, "--path-as-is", "-H", "Authorization: Bearer " + h.alice}
		if c.kind != "" {
			args = append(args, "--data-binary", table, "-H", "Content-Type: "+c.kind)
		}
		a := h.gateway.Curl(t, c.path, args...)
		if a.Status < 400 || a.Status > 415 || a.Status == 401 {
			t.Errorf("%s %s as %s: %d %s", c.method, c.path, c.kind, a.Status, a.Body)
		}
		for _, x := range h.relay.Take() {
			t.Errorf("%s %s as %s: the server got %q", c.method, c.path, c.kind, x.Request)
		}
	}
}
