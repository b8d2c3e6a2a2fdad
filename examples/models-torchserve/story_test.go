// Package torchserve holds the story of rules about models before TorchServe, over REST and gRPC.
package torchserve

import (
	"encoding/json"
	"flag"
	"fmt"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"sallyport/examples/story"
)

var record = flag.Bool("record", false, "write the exchanges with TorchServe instead of comparing with them")

func TestMain(m *testing.M) { os.Exit(story.Run(m)) }

// house is everything that runs in the story.
type house struct {
	*story.Guarded
	python                                 string
	rest, management, grpc, grpcManagement string // host:port of TorchServe itself
	operator                               string // an API key
}

func start(t *testing.T) *house {
	t.Helper()
	story.Need(t, "java")
	h := &house{python: filepath.Join(story.Installed(t, "torchserve", "models-torchserve/requirements.txt"), "bin", "python")}
	args := []string{"serve.py", t.TempDir()}
	metrics := ""
	for _, address := range []*string{&h.rest, &h.management, &metrics, &h.grpc, &h.grpcManagement} {
		*address = story.FreeAddress(t)
		_, port, _ := net.SplitHostPort(*address)
		args = append(args, port)
	}
	server := story.Start(t, "torchserve", exec.Command(h.python, args...))
	for _, address := range []string{h.rest, h.management, h.grpc, h.grpcManagement} {
		server.Listens(t, address)
	}
	for _, worker := range []string{"double_1.0", "secret_1.0", "secret_2.0"} {
		server.Prints(t, worker+" State change WORKER_STARTED -> WORKER_MODEL_LOADED")
	}
	return h
}

// guard starts the gateway before TorchServe, with the gateway.yaml of this folder.
func (h *house) guard(t *testing.T) {
	t.Helper()
	var hash string
	h.operator, hash = story.APIKey(t, "operator")
	h.Guarded = story.Guard(t,
		"http://127.0.0.1:8080", "http://"+h.rest,
		"http://127.0.0.1:8081", "http://"+h.management,
		"h2c://127.0.0.1:7070", "h2c://"+h.grpc,
		"h2c://127.0.0.1:7071", "h2c://"+h.grpcManagement,
		"sha256:9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08", hash)
}

func TestTorchServe(t *testing.T) {
	h := start(t)
	t.Run("TorchServe itself", h.exchanges)
	h.guard(t)
	t.Run("requests and grpcio", h.client)
	t.Run("REST and gRPC agree", func(t *testing.T) { story.SameDecision(t, h.Gateway, h.rows()) })
	t.Run("what is refused does not reach TorchServe", h.untouched)
	t.Run("lists", h.lists)
	t.Run("the operator manages", h.manages)
}

// state is what TorchServe has registered: names, versions, which is the default, and how many workers.
func (h *house) state(t *testing.T) string {
	t.Helper()
	get := func(path string) []byte {
		return story.Question{Name: path, Request: story.Plain("GET "+path, "")}.Ask(t, h.management).Body
	}
	list := get("/models")
	var all struct{ Models []struct{ ModelName string } }
	if err := json.Unmarshal(list, &all); err != nil {
		t.Fatalf("%s: %v", list, err)
	}
	state := string(list)
	for _, m := range all.Models {
		for _, path := range []string{"/models/" + m.ModelName, "/models/" + m.ModelName + "/all"} {
			var versions []struct {
				ModelVersion           string
				MinWorkers, MaxWorkers int
			}
			if err := json.Unmarshal(get(path), &versions); err != nil {
				t.Fatal(err)
			}
			state += fmt.Sprintf("%s %+v\n", path, versions)
		}
	}
	return state
}

// client runs client.py.
func (h *house) client(t *testing.T) {
	before := h.state(t)
	const denied = "403 GatewayException The caller is not allowed to do this."
	rest := strings.ReplaceAll(`-- REST
ping: 200 Healthy
predict: 200 [2.0, 4.0] by double 1.0
explain: 200 [2.0, 4.0] by double 1.0
as a form: 200 [2.0, 4.0] by double 1.0
KServe V1: 200 double
SageMaker: 200 [2.0, 4.0] by double 1.0
large: 200 200000 by double 1.0
one version: 200 [2.0, 4.0] by secret 1.0
the other version: DENIED
the default version: DENIED
SageMaker, of another: DENIED
an alias: 404 GatewayException The model server has no such path or method.
an unknown model: DENIED
list: 200 ['double', 'secret']
describe: 200 double
describe another: DENIED
register: DENIED
register from elsewhere: DENIED
scale: DENIED
set default: DENIED
unregister: DENIED
`, "DENIED", denied)
	grpc := strings.ReplaceAll(`-- gRPC
ping: Healthy
predict: [2.0, 4.0] by double 1.0
gzip: [2.0, 4.0] by double 1.0
stream: ['[2.0] by double 1.0', '[4.0] by double 1.0', '[2.0, 4.0] by double 1.0']
large: 200000 by double 1.0
one version: [2.0, 4.0] by secret 1.0
the other version: DENIED
the default version: DENIED
gzip, of the other version: DENIED
stream of another: DENIED
an unknown model: DENIED
list: ['double', 'secret']
describe: double
describe another: DENIED
register: DENIED
scale: DENIED
set default: DENIED
unregister: DENIED
`, "DENIED", "PERMISSION_DENIED The caller is not allowed to do this.")
	h.Client(t, h.python, rest+grpc)
	if after := h.state(t); after != before {
		t.Errorf("TorchServe was changed from %s to %s", before, after)
	}
}

// rows are calls that REST and gRPC both have.
func (h *house) rows() []story.Row {
	var all []story.Row
	add := func(name, line, body, method string, message []byte, allowed ...string) {
		all = append(all, h.Rows(name, story.Question{Request: story.Plain(line, body, story.ContentJSON)},
			story.Question{Method: method, Body: story.Frames(message)}, allowed...)...)
	}
	run := func(name, model, version string, allowed ...string) {
		path, fields := "POST /predictions/"+model, [][]byte{text(1, model)}
		if version != "" {
			path += "/" + version
			fields = append(fields, text(2, version))
		}
		add(name, path, numbers, serving+"Predictions", prediction(fields...), allowed...)
	}
	run("predict", "double", "", "predict")
	run("predict a version", "double", "1.0", "predict")
	run("predict the allowed version", "secret", "1.0", "predict")
	run("predict another version", "secret", "2.0")
	run("predict the default version", "secret", "")
	run("predict an unknown model", "nothing", "")
	run("predict in capitals", "SECRET", "1.0")
	add("ping", "GET /ping", "", serving+"Ping", nil, "predict", "read")
	add("list", "GET /models", "", managing+"ListModels", nil, "predict", "read")
	for name, allowed := range map[string][]string{"double": {"predict"}, "secret": nil, "nothing": nil} {
		add("describe "+name, "GET /models/"+name, "", managing+"DescribeModel", text(1, name), allowed...)
	}
	add("describe all versions", "GET /models/secret/all", "", managing+"DescribeModel", msg(text(1, "secret"), text(2, "all")))
	add("register", "POST /models?url=idle-1.0.mar", "", managing+"RegisterModel", text(9, "idle-1.0.mar"))
	add("scale", "PUT /models/double?min_worker=2", "", managing+"ScaleWorker", msg(text(1, "double"), story.Number(4, 2)))
	add("set default", "PUT /models/secret/1.0/set-default", "", managing+"SetDefault", msg(text(1, "secret"), text(2, "1.0")))
	add("unregister", "DELETE /models/double", "", managing+"UnregisterModel", text(1, "double"))
	return all
}

// untouched sends what others may read otherwise: TorchServe must run and change nothing that the rules
// do not allow.
func (h *house) untouched(t *testing.T) {
	before := h.state(t)
	for _, questions := range [][]story.Question{inference(), management(), calls(), managingCalls()} {
		for _, q := range questions {
			t.Run(q.Name, func(t *testing.T) {
				r := q.Through(t, h.Gateway, h.Predict)
				for _, model := range served(q, r) {
					if strings.HasPrefix(model, "secret") && model != "secret 1.0" {
						t.Errorf("the answer is of %s: %d %s", model, r.Status, r.Body)
					}
				}
			})
		}
	}
	if after := h.state(t); after != before {
		t.Errorf("TorchServe was changed from %s to %s", before, after)
	}
}

// lists shows each caller the models that it may use.
func (h *house) lists(t *testing.T) {
	for _, c := range []struct{ token, want string }{{h.Predict, "double secret"}, {h.Read, ""}, {h.operator, ""}} {
		rest := get("list", "", "/models").Through(t, h.Gateway, c.token)
		grpc := story.Question{Method: managing + "ListModels", Body: story.Frames(story.Number(1, 100))}.Through(t, h.Gateway, c.token)
		if c.token == h.operator {
			if rest.Status != http.StatusForbidden || grpc.Status != 7 {
				t.Errorf("the operator, whom no rule lets list: %d and %d", rest.Status, grpc.Status)
			}
			continue
		}
		bodies := [][]byte{rest.Body}
		for _, m := range story.Messages(grpc.Body) {
			bodies = append(bodies, story.Fields(m, 1)...)
		}
		if len(bodies) != 2 {
			t.Fatalf("gRPC answers %d %s", grpc.Status, grpc.Message)
		}
		for _, body := range bodies {
			var all struct{ Models []struct{ ModelName string } }
			if err := json.Unmarshal(body, &all); err != nil {
				t.Fatalf("%s: %v", body, err)
			}
			var names []string
			for _, m := range all.Models {
				names = append(names, m.ModelName)
			}
			if got := strings.Join(names, " "); got != c.want {
				t.Errorf("the list has %q, want %q: %s", got, c.want, body)
			}
		}
	}
}

// manages makes the calls of management that a rule names, with the operator's key.
func (h *house) manages(t *testing.T) {
	before := h.state(t)
	for _, q := range []story.Question{
		other("register", "", "POST /models?url=idle-1.0.mar", ""),
		other("scale", "", "PUT /models/double?min_worker=1&max_worker=1", ""),
		other("set-default", "", "PUT /models/secret/2.0/set-default", ""),
		{Name: "unregister", Method: managing + "UnregisterModel", Body: story.Frames(text(1, "idle"))},
		{Name: "register over gRPC", Method: managing + "RegisterModel", Body: story.Frames(text(9, "idle-1.0.mar"))},
		{Name: "scale over gRPC", Method: managing + "ScaleWorker", Body: story.Frames(msg(text(1, "double"), story.Number(3, 1), story.Number(4, 1)))},
		other("unregister over REST", "", "DELETE /models/idle", ""),
	} {
		r := q.Through(t, h.Gateway, h.operator)
		if done := r.Status == http.StatusOK || r.Status == http.StatusAccepted || q.Method != "" && r.Status == 0; !done {
			t.Errorf("%s: %d %s %s", q.Name, r.Status, r.Message, r.Body)
		}
	}
	for _, q := range []story.Question{
		post("predict", "", "/predictions/double", numbers), get("describe", "", "/models/double"),
		{Name: "predict over gRPC", Method: serving + "Predictions", Body: story.Frames(prediction(text(1, "double")))},
	} {
		if r := q.Through(t, h.Gateway, h.operator); !q.Denied(r) {
			t.Errorf("%s, which no rule names for the operator: %d %s", q.Name, r.Status, r.Body)
		}
	}
	if after := h.state(t); after != before {
		t.Errorf("TorchServe was changed from %s to %s", before, after)
	}
}
