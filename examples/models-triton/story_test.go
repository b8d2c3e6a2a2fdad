// Package triton holds the story of rules about models before NVIDIA Triton, over REST and gRPC.
package triton

import (
	"encoding/json"
	"flag"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"sallyport/examples/story"
)

var record = flag.Bool("record", false, "write the exchanges with Triton instead of comparing with them")

func TestMain(m *testing.M) { os.Exit(story.Run(m)) }

// house is everything that runs in the story.
type house struct {
	*story.Guarded
	python     string
	rest, grpc string // host:port of Triton itself
}

func start(t *testing.T) *house {
	t.Helper()
	h := &house{python: filepath.Join(story.Installed(t, "triton", "models-triton/requirements.txt"), "bin", "python")}
	_, at := story.Serve(t, h.python, 2)
	h.rest, h.grpc = at[0], at[1]
	return h
}

// guard starts the gateway before the servers, with the gateway.yaml of this folder.
func (h *house) guard(t *testing.T) {
	t.Helper()
	h.Guarded = story.Guard(t,
		"http://127.0.0.1:8000", "http://"+h.rest,
		"h2c://127.0.0.1:8001", "h2c://"+h.grpc)
}

func TestTriton(t *testing.T) {
	h := start(t)
	t.Run("Triton itself", h.exchanges)
	h.guard(t)
	t.Run("tritonclient", h.tritonclient)
	t.Run("REST and gRPC agree", func(t *testing.T) { story.SameDecision(t, h.Gateway, h.rows()) })
	t.Run("what is refused does not reach Triton", h.untouched)
}

// state is what Triton has loaded, has run and has registered.
type state struct {
	Index, Regions, Logging string
	Runs                    map[string]int // "MODEL VERSION": how many requests it has had
}

func (h *house) state(t *testing.T) state {
	t.Helper()
	get := func(line, body string) string {
		return string(story.Question{Name: line, Request: story.Plain(line, body)}.Ask(t, h.rest).Body)
	}
	s := state{
		Index:   get("POST /v2/repository/index", `{"ready":true}`),
		Regions: get("GET /v2/systemsharedmemory/status", ""), Logging: get("GET /v2/logging", ""),
		Runs: map[string]int{},
	}
	var stats struct {
		Models []struct {
			Name, Version string
			Stats         struct {
				Success, Fail struct{ Count int }
			} `json:"inference_stats"`
		} `json:"model_stats"`
	}
	if err := json.Unmarshal([]byte(get("GET /v2/models/stats", "")), &stats); err != nil {
		t.Fatal(err)
	}
	for _, m := range stats.Models {
		s.Runs[m.Name+" "+m.Version] = m.Stats.Success.Count + m.Stats.Fail.Count
	}
	return s
}

// same compares all that no call of the story may change.
func (s state) same(t *testing.T, before state) {
	t.Helper()
	if s.Index != before.Index || s.Regions != before.Regions || s.Logging != before.Logging {
		t.Errorf("Triton was changed:\n%+v\n%+v", before, s)
	}
	if s.Runs["secret 2"] != before.Runs["secret 2"] {
		t.Errorf("version 2 of secret has run: %v, before %v", s.Runs, before.Runs)
	}
}

// tritonclient runs client.py.
func (h *house) tritonclient(t *testing.T) {
	before := h.state(t)
	common := func(denied, nameless string, own ...string) string {
		lines := []string{"live: True", "ready: True", "binary tensor: [2.0, 4.0] by version 1"}
		lines = append(lines, own...)
		lines = append(lines, "gzip: [2.0, 4.0] by version 1", "deflate: [2.0, 4.0] by version 1", "large: 4000000 by version 1",
			"one version: [2.0, 4.0] by version 1", "the other version: DENIED", "the latest: DENIED", "gzip, of the other version: DENIED",
			"an unknown model: DENIED", "metadata: double", "config: double", "statistics: double", "statistics of all: NAMELESS",
			"metadata of another: DENIED", "load: DENIED", "load with files: DENIED", "unload: DENIED", "register shared memory: DENIED",
			"shared memory: DENIED", "unregister CUDA memory: DENIED", "trace: DENIED", "logging: DENIED")
		return strings.NewReplacer("DENIED", denied, "NAMELESS", nameless).Replace(strings.Join(lines, "\n") + "\n")
	}
	const byHTTP, byGRPC = "403 The caller is not allowed to do this.", "StatusCode.PERMISSION_DENIED The caller is not allowed to do this."
	want := "-- HTTP\n" + common(byHTTP, "404 The model server has no such path or method.", "JSON tensor: [2.0, 4.0] by version 1", "JSON answer: [2.0, 4.0] by version 1") +
		"-- gRPC\n" + common(byGRPC, "StatusCode.INVALID_ARGUMENT The request body does not name a model in one clear way.") +
		"stream: [2.0, 4.0] by version 1\nstream, one version: [2.0, 4.0] by version 1\nstream, the other version: " + byGRPC + "\n"
	h.Client(t, h.python, want)
	h.state(t).same(t, before)
	h.served(t)
}

// served checks that the records name the version that Triton chose: over REST for the binary, the JSON and
// the large answers, and over gRPC for the binary and the large one.
func (h *house) served(t *testing.T) {
	h.Gateway.Process.Prints(t, `/ModelStreamInfer"`) // the last record
	rest, grpc := 0, 0
	for line := range strings.Lines(h.Gateway.Process.Output()) {
		if !strings.Contains(line, `"model":"double","version":"latest","served_version":"1"`) {
			continue
		}
		if rest++; strings.Contains(line, `/ModelInfer"`) {
			rest, grpc = rest-1, grpc+1
		}
	}
	if rest < 4 || grpc < 2 {
		t.Errorf("%d records over REST and %d over gRPC name the version that served", rest, grpc)
	}
}

// rows are calls that REST and gRPC both have.
func (h *house) rows() []story.Row {
	v2 := &story.V2Rows{Guarded: h.Guarded, Body: request, Tensor: tensor}
	v2.Infer("infer", "double", "", "predict")
	v2.Infer("infer a version", "double", "1", "predict")
	v2.Infer("infer the allowed version", "secret", "1", "predict")
	v2.Infer("infer another version", "secret", "2")
	v2.Infer("infer the latest", "secret", "")
	v2.Infer("infer an unknown model", "nothing", "")
	v2.Infer("infer in capitals", "DOUBLE", "")
	v2.About("", "ModelMetadata")
	v2.About("/config", "ModelConfig")
	v2.About("/stats", "ModelStatistics")
	v2.About("/ready", "ModelReady")
	v2.Add("live", "GET /v2/health/live", "", "ServerLive", nil, "predict", "read")
	v2.Add("ready", "GET /v2/health/ready", "", "ServerReady", nil, "predict", "read")
	v2.Add("index", "POST /v2/repository/index", "{}", "RepositoryIndex", nil, "predict", "read")
	v2.Add("server", "GET /v2", "", "ServerMetadata", nil, "predict")
	v2.Add("load", "POST /v2/repository/models/idle/load", "{}", "RepositoryModelLoad", text(2, "idle"))
	v2.Add("unload", "POST /v2/repository/models/double/unload", "{}", "RepositoryModelUnload", text(2, "double"))
	v2.Add("register", "POST /v2/systemsharedmemory/region/r/register", `{"key":"/r","offset":0,"byte_size":8}`, "SystemSharedMemoryRegister", msg(text(1, "r"), text(2, "/r"), story.Number(4, 8)))
	v2.Add("regions", "GET /v2/systemsharedmemory/status", "", "SystemSharedMemoryStatus", nil)
	v2.Add("CUDA regions", "GET /v2/cudasharedmemory/status", "", "CudaSharedMemoryStatus", nil)
	v2.Add("logging", "GET /v2/logging", "", "LogSettings", nil)
	v2.Add("trace", "GET /v2/trace/setting", "", "TraceSetting", nil)
	v2.Add("trace of a model", "GET /v2/models/double/trace/setting", "", "TraceSetting", text(2, "double"))
	return v2.Rows
}

// untouched sends what others may read otherwise: Triton must run and change nothing that
// the rules do not allow.
func (h *house) untouched(t *testing.T) {
	for _, q := range append(rest(), calls()...) {
		t.Run(q.Name, func(t *testing.T) {
			before := h.state(t)
			r := q.Through(t, h.Gateway, h.Predict)
			for _, model := range served(q, r) {
				if strings.HasPrefix(model, "secret") && model != "secret 1" {
					t.Errorf("the answer is of %s: %d %s", model, r.Status, r.Body)
				}
			}
			h.state(t).same(t, before)
		})
	}
}
