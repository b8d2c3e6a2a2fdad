// Package mlserver holds the story of rules about models before MLServer, over REST and gRPC.
package mlserver

import (
	"flag"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"sallyport/examples/story"
)

var record = flag.Bool("record", false, "write the exchanges with MLServer instead of comparing with them")

func TestMain(m *testing.M) { os.Exit(story.Run(m)) }

// house is everything that runs in the story.
type house struct {
	*story.Guarded
	python     string
	rest, grpc string // host:port of MLServer itself
}

func start(t *testing.T) *house {
	t.Helper()
	h := &house{python: filepath.Join(story.Installed(t, "mlserver", "models-mlserver/requirements.txt"), "bin", "python")}
	server, at := story.Serve(t, h.python, 2)
	h.rest, h.grpc = at[0], at[1]
	server.Prints(t, "Loaded model 'idle'")
	return h
}

// guard starts the gateway before the servers, with the gateway.yaml of this folder.
func (h *house) guard(t *testing.T) {
	t.Helper()
	h.Guarded = story.Guard(t,
		"http://127.0.0.1:8080", "http://"+h.rest,
		"h2c://127.0.0.1:8081", "h2c://"+h.grpc)
}

func TestMLServer(t *testing.T) {
	h := start(t)
	t.Run("MLServer itself", h.exchanges)
	h.guard(t)
	t.Run("tritonclient", h.tritonclient)
	t.Run("REST and gRPC agree", func(t *testing.T) { story.SameDecision(t, h.Gateway, h.rows()) })
	t.Run("what is refused does not reach MLServer", h.untouched)
}

// loaded is the index of MLServer itself.
func (h *house) loaded(t *testing.T) string {
	t.Helper()
	r := story.Question{Name: "index", Request: story.Plain("POST /v2/repository/index", "{}", story.ContentJSON)}.Ask(t, h.rest)
	models := strings.SplitAfter(string(r.Body), "}")
	slices.Sort(models)
	return strings.Join(models, "")
}

// tritonclient runs client.py.
func (h *house) tritonclient(t *testing.T) {
	before := h.loaded(t)
	const lines = `live: True
ready: True
infer: [2.0, 4.0] by version v1
a version that is a word: [2.0, 4.0] by version v1
one version: [2.0, 4.0] by version 1
the other version: DENIED
no version: DENIED
an unknown model: DENIED
large: 200000 by version v1
metadata: double
metadata of another: DENIED
load: DENIED
unload: DENIED
`
	want := "-- HTTP\n" + strings.ReplaceAll(lines, "DENIED", "403 The caller is not allowed to do this.") +
		"-- gRPC\n" + strings.ReplaceAll(lines, "DENIED", "StatusCode.PERMISSION_DENIED The caller is not allowed to do this.")
	h.Client(t, h.python, want)
	if after := h.loaded(t); after != before {
		t.Errorf("MLServer was changed from %s to %s", before, after)
	}
}

// rows are calls that REST and gRPC both have.
func (h *house) rows() []story.Row {
	v2 := &story.V2Rows{Guarded: h.Guarded, Body: request, Tensor: tensor}
	v2.Infer("infer", "double", "", "predict")
	v2.Infer("infer a version that is a word", "double", "v1", "predict")
	v2.Infer("infer the allowed version", "secret", "1", "predict")
	v2.Infer("infer another version", "secret", "2")
	v2.Infer("infer without a version", "secret", "")
	v2.Infer("infer an unknown model", "nothing", "")
	v2.Infer("infer in capitals", "DOUBLE", "")
	v2.About("", "ModelMetadata")
	v2.About("/ready", "ModelReady")
	v2.Add("live", "GET /v2/health/live", "", "ServerLive", nil, "predict", "read")
	v2.Add("ready", "GET /v2/health/ready", "", "ServerReady", nil, "predict", "read")
	v2.Add("index", "POST /v2/repository/index", "{}", "RepositoryIndex", nil, "predict", "read")
	v2.Add("server", "GET /v2", "", "ServerMetadata", nil, "predict")
	v2.Add("load", "POST /v2/repository/models/idle/load", "", "RepositoryModelLoad", text(2, "idle"))
	v2.Add("unload", "POST /v2/repository/models/double/unload", "", "RepositoryModelUnload", text(2, "double"))
	return v2.Rows
}

// untouched sends what others may read otherwise: MLServer must run and change nothing that
// the rules do not allow.
func (h *house) untouched(t *testing.T) {
	before := h.loaded(t)
	for _, q := range append(rest(), calls()...) {
		t.Run(q.Name, func(t *testing.T) {
			r := q.Through(t, h.Gateway, h.Predict)
			for _, model := range served(q, r) {
				if strings.HasPrefix(model, "secret") && model != "secret 1" {
					t.Errorf("the answer is of %s: %d %s", model, r.Status, r.Body)
				}
			}
		})
	}
	if after := h.loaded(t); after != before {
		t.Errorf("MLServer was changed from %s to %s", before, after)
	}
}
