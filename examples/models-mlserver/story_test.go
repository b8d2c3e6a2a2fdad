// Package mlserver holds the story of rules about models before MLServer, over REST and gRPC.
package mlserver

import (
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

var record = flag.Bool("record", false, "write the exchanges with MLServer instead of comparing with them")

func TestMain(m *testing.M) { os.Exit(story.Run(m)) }

// house is everything that runs in the story.
type house struct {
	python     string
	rest, grpc string // host:port of MLServer itself
	gateway    *story.Gateway
	predict    string // tokens
	read       string
}

func start(t *testing.T) *house {
	t.Helper()
	h := &house{
		python: filepath.Join(story.Installed(t, "mlserver", "models-mlserver/requirements.txt"), "bin", "python"),
		rest:   story.FreeAddress(t), grpc: story.FreeAddress(t),
	}
	_, rest, _ := net.SplitHostPort(h.rest)
	_, grpc, _ := net.SplitHostPort(h.grpc)
	server := story.Start(t, "mlserver", exec.Command(h.python, "serve.py", t.TempDir(), rest, grpc))
	server.Listens(t, h.grpc)
	server.Listens(t, h.rest)
	server.Prints(t, "Loaded model 'idle'")
	return h
}

// guard starts the gateway before the servers, with the gateway.yaml of this folder.
func (h *house) guard(t *testing.T) {
	t.Helper()
	provider := story.StartProvider(t)
	h.gateway = story.StartGateway(t,
		"http://127.0.0.1:8080", "http://"+h.rest,
		"h2c://127.0.0.1:8081", "h2c://"+h.grpc,
		"https://localhost:9000", provider.URL,
		"../openid-provider/provider.crt", provider.CA)
	h.predict = provider.Token(t, "models.predict", "")
	h.read = provider.Token(t, "models.read", "")
}

func TestMLServer(t *testing.T) {
	h := start(t)
	t.Run("MLServer itself", func(t *testing.T) { exchanges(t, h.rest, h.grpc) })
	h.guard(t)
	t.Run("tritonclient", h.tritonclient)
	t.Run("REST and gRPC agree", func(t *testing.T) { story.SameDecision(t, h.gateway, h.rows()) })
	t.Run("what is refused does not reach MLServer", h.untouched)
}

// loaded is the index of MLServer itself.
func (h *house) loaded(t *testing.T) string {
	t.Helper()
	r := story.Question{Name: "index", Request: story.Plain("POST /v2/repository/index", "{}", json_)}.Ask(t, h.rest)
	models := strings.SplitAfter(string(r.Body), "}")
	slices.Sort(models)
	return strings.Join(models, "")
}

// tritonclient runs client.py.
func (h *house) tritonclient(t *testing.T) {
	before := h.loaded(t)
	_, port, _ := net.SplitHostPort(h.gateway.Address)
	cmd := exec.Command(h.python, "client.py", "localhost:"+port, h.gateway.CA)
	cmd.Env = append(os.Environ(), "TOKEN="+h.predict)
	var errs strings.Builder
	cmd.Stderr = &errs
	out, err := cmd.Output()
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
	if err != nil || string(out) != want {
		t.Errorf("client.py: %v\n%s\nwant\n%s\n%s", err, out, want, errs.String())
	}
	if after := h.loaded(t); after != before {
		t.Errorf("MLServer was changed from %s to %s", before, after)
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
	run("infer a version that is a word", "double", "v1", "predict")
	run("infer the allowed version", "secret", "1", "predict")
	run("infer another version", "secret", "2")
	run("infer without a version", "secret", "")
	run("infer an unknown model", "nothing", "")
	run("infer in capitals", "DOUBLE", "")
	for _, verb := range []struct{ path, method string }{{"", "ModelMetadata"}, {"/ready", "ModelReady"}} {
		add(verb.method, "GET /v2/models/double"+verb.path, "", verb.method, text(1, "double"), "predict")
		add(verb.method+" of another model", "GET /v2/models/secret"+verb.path, "", verb.method, text(1, "secret"))
		add(verb.method+" of an unknown model", "GET /v2/models/nothing"+verb.path, "", verb.method, text(1, "nothing"))
	}
	add("live", "GET /v2/health/live", "", "ServerLive", nil, "predict", "read")
	add("ready", "GET /v2/health/ready", "", "ServerReady", nil, "predict", "read")
	add("index", "POST /v2/repository/index", "{}", "RepositoryIndex", nil, "predict", "read")
	add("server", "GET /v2", "", "ServerMetadata", nil, "predict")
	add("load", "POST /v2/repository/models/idle/load", "", "RepositoryModelLoad", text(2, "idle"))
	add("unload", "POST /v2/repository/models/double/unload", "", "RepositoryModelUnload", text(2, "double"))
	return all
}

// untouched sends what others may read otherwise: MLServer must run and change nothing that
// the rules do not allow.
func (h *house) untouched(t *testing.T) {
	before := h.loaded(t)
	for _, q := range append(rest(), calls()...) {
		t.Run(q.Name, func(t *testing.T) {
			r := q.Through(t, h.gateway, h.predict)
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
