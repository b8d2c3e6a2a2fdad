// Package modelsflask holds the story of a Flask app whose paths name models, behind sallyport.
package modelsflask

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"sallyport/examples/story"
)

func TestMain(m *testing.M) { os.Exit(story.Run(m)) }

func TestCallsOfAFlaskApp(t *testing.T) {
	python := filepath.Join(story.Installed(t, "flask", "flask/requirements.txt"), "bin", "python")
	app := story.FreeAddress(t)
	story.Start(t, "gunicorn", exec.Command(python, "-m", "gunicorn", "--no-control-socket", "--bind", app, "app:app")).Listens(t, app)
	relay := story.StartRelay(t, app)
	keys, hashes := story.APIKeys(t, "alice")
	gateway := story.StartGateway(t, append(hashes, "http://127.0.0.1:5000", "http://"+relay.Address)...)

	for _, c := range []struct {
		method, path string
		status       int
		want         string // in the body; the app gets nothing where it is empty
	}{
		{"POST", "/predict/churn", 200, `"prediction":6`},
		{"POST", "/predict/%63hurn", 200, `"model":"churn"`},
		{"GET", "/health", 200, "ok"},
		{"POST", "/predict/fraud", 403, ""},
		{"POST", "/predict/%66raud", 403, ""},
		{"POST", "/predict/nothing", 403, ""},
		{"POST", "/predict/churn%2F..%2Ffraud", 400, ""},
		{"POST", "/predict/churn/../fraud", 400, ""},
		{"POST", "/predict//fraud", 400, ""},
		{"POST", "/predict/churn%3Ffraud", 400, ""},
		{"POST", "/predict/churn/", 404, ""},
		{"POST", "/Predict/churn", 404, ""},
		{"POST", "/retrain/churn", 404, ""},
		{"GET", "/predict/churn", 405, ""},
		{"POST", "/health", 405, ""},
	} {
		relay.Take()
		args := []string{"-X", c.method, "--path-as-is", "-H", "Authorization: Bearer " + keys[0]}
		if c.method == "POST" {
			args = append(args, "--json", "[1, 2, 3]")
		}
		a := gateway.Curl(t, c.path, args...)
		reached := len(relay.Take()) > 0
		if a.Status != c.status || !strings.Contains(a.Body, c.want) || reached != (c.want != "") {
			t.Errorf("%s %s: %d %s; the app was asked: %v", c.method, c.path, a.Status, a.Body, reached)
		}
	}
}
