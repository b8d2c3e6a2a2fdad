// Package triton holds the story of rules about models before NVIDIA Triton, over REST and gRPC.
package triton

import (
	"encoding/json"
	"flag"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"sallyport/examples/story"
)

var record = flag.Bool("record", false, "write the exchanges with Triton instead of comparing with them")

func TestMain(m *testing.M) { os.Exit(story.Run(m)) }

// house is everything that runs in the story.
type house struct {
	python     string
	rest, grpc string // host:port of Triton itself
	gateway    *story.Gateway
	predict    string // tokens
	read       string
}

func start(t *testing.T) *house {
	t.Helper()
	h := &house{
		python: filepath.Join(story.Installed(t, "triton", "models-triton/requirements.txt"), "bin", "python"),
		rest:   story.FreeAddress(t), grpc: story.FreeAddress(t),
	}
	_, rest, _ := net.SplitHostPort(h.rest)
	_, grpc, _ := net.SplitHostPort(h.grpc)
	triton := story.Start(t, "triton", exec.Command(h.python, "serve.py", t.TempDir(), rest, grpc))
	triton.Listens(t, h.grpc)
	triton.Listens(t, h.rest)
	return h
}

// guard starts the gateway before the servers, with the gateway.yaml of this folder.
func (h *house) guard(t *testing.T) {
	t.Helper()
	provider := story.StartProvider(t)
	h.gateway = story.StartGateway(t,
		"http://127.0.0.1:8000", "http://"+h.rest,
		"h2c://127.0.0.1:8001", "h2c://"+h.grpc,
		"https://localhost:9000", provider.URL,
		"../openid-provider/provider.crt", provider.CA)
	h.predict = provider.Token(t, "models.predict", "")
	h.read = provider.Token(t, "models.read", "")
}

func TestTriton(t *testing.T) {
	h := start(t)
	t.Run("Triton itself", func(t *testing.T) { exchanges(t, h.rest, h.grpc) })
	h.guard(t)
	t.Run("tritonclient", h.tritonclient)
	t.Run("REST and gRPC agree", func(t *testing.T) { story.SameDecision(t, h.gateway, h.rows()) })
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
	_, port, _ := net.SplitHostPort(h.gateway.Address)
	cmd := exec.Command(h.python, "client.py", "localhost:"+port, h.gateway.CA)
	cmd.Env = append(os.Environ(), "TOKEN="+h.predict)
	var errs strings.Builder
	cmd.Stderr = &errs
	out, err := cmd.Output()
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
	if err != nil || string(out) != want {
		t.Errorf("client.py: %v\n%s\nwant\n%s\n%s", err, out, want, errs.String())
	}
	h.state(t).same(t, before)
	h.served(t)
}

// served checks that the records name the version that Triton chose: over REST for the binary, the JSON and
// the large answers, and over gRPC for the binary and the large one.
func (h *house) served(t *testing.T) {
	h.gateway.Process.Prints(t, `/ModelStreamInfer"`) // the last record
	rest, grpc := 0, 0
	for line := range strings.Lines(h.gateway.Process.Output()) {
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
	var all []story.Row
	add := func(name, line, body, method string, message []byte, allowed ...string) {
		for _, token := range []struct{ name, text string }{{"predict", h.predict}, {"read", h.read}} {
			all = append(all, story.Row{
				Name: name + " with scope " + token.name, Token: token.text, Denied: !slices.Contains(allowed, token.name),
				REST: story.Question{Name: name, Request: story.Plain(line, body, json_)},
				GRPC: story.Question{Name: name, Method: service + method, Body: story.Frames(message)},
			})
		}
	}
	run := func(name, model, version string, allowed ...string) {
		path := "POST /v2/models/" + model
		fields := [][]byte{text(1, model)}
		if version != "" {
			path += "/versions/" + version
			fields = append(fields, text(2, version))
		}
		add(name, path+"/infer", request, "ModelInfer", infer(fields...), allowed...)
	}
	run("infer", "double", "", "predict")
	run("infer a version", "double", "1", "predict")
	run("infer the allowed version", "secret", "1", "predict")
	run("infer another version", "secret", "2")
	run("infer the latest", "secret", "")
	run("infer an unknown model", "nothing", "")
	run("infer in capitals", "DOUBLE", "")
	for _, verb := range []struct{ path, method string }{{"", "ModelMetadata"}, {"/config", "ModelConfig"}, {"/stats", "ModelStatistics"}, {"/ready", "ModelReady"}} {
		add(verb.method, "GET /v2/models/double"+verb.path, "", verb.method, text(1, "double"), "predict")
		add(verb.method+" of another model", "GET /v2/models/secret"+verb.path, "", verb.method, text(1, "secret"))
		add(verb.method+" of an unknown model", "GET /v2/models/nothing"+verb.path, "", verb.method, text(1, "nothing"))
	}
	add("live", "GET /v2/health/live", "", "ServerLive", nil, "predict", "read")
	add("ready", "GET /v2/health/ready", "", "ServerReady", nil, "predict", "read")
	add("index", "POST /v2/repository/index", "{}", "RepositoryIndex", nil, "predict", "read")
	add("server", "GET /v2", "", "ServerMetadata", nil, "predict")
	add("load", "POST /v2/repository/models/idle/load", "{}", "RepositoryModelLoad", text(2, "idle"))
	add("unload", "POST /v2/repository/models/double/unload", "{}", "RepositoryModelUnload", text(2, "double"))
	add("register", "POST /v2/systemsharedmemory/region/r/register", `{"key":"/r","offset":0,"byte_size":8}`, "SystemSharedMemoryRegister", msg(text(1, "r"), text(2, "/r"), story.Number(4, 8)))
	add("regions", "GET /v2/systemsharedmemory/status", "", "SystemSharedMemoryStatus", nil)
	add("CUDA regions", "GET /v2/cudasharedmemory/status", "", "CudaSharedMemoryStatus", nil)
	add("logging", "GET /v2/logging", "", "LogSettings", nil)
	add("trace", "GET /v2/trace/setting", "", "TraceSetting", nil)
	add("trace of a model", "GET /v2/models/double/trace/setting", "", "TraceSetting", text(2, "double"))
	return all
}

// untouched sends what others may read otherwise: Triton must run and change nothing that
// the rules do not allow.
func (h *house) untouched(t *testing.T) {
	for _, q := range append(rest(), calls()...) {
		t.Run(q.Name, func(t *testing.T) {
			before := h.state(t)
			r := q.Through(t, h.gateway, h.predict)
			for _, model := range served(q, r) {
				if strings.HasPrefix(model, "secret") && model != "secret 1" {
					t.Errorf("the answer is of %s: %d %s", model, r.Status, r.Body)
				}
			}
			h.state(t).same(t, before)
		})
	}
}
