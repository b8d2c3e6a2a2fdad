// Package tensorflow holds the story of rules about models before TensorFlow Serving, over REST and gRPC.
package tensorflow

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

var record = flag.Bool("record", false, "write the exchanges with TensorFlow instead of comparing with them")

func TestMain(m *testing.M) { os.Exit(story.Run(m)) }

// house is everything that runs in the story.
type house struct {
	python     string
	rest, grpc string // host:port of the servers themselves
	compute    *story.Process
	gateway    *story.Gateway
	predict    string // tokens
	read       string
}

// start starts TensorFlow with the models half_plus_two (version 123) and secret (1 and 2).
func start(t *testing.T) *house {
	t.Helper()
	h := &house{
		python: filepath.Join(story.Installed(t, "tensorflow", "tensorflow/requirements.txt", "tensorflow/requirements-nodeps.txt"), "bin", "python"),
		rest:   story.FreeAddress(t), grpc: story.FreeAddress(t),
	}
	model := filepath.Join(story.Installed(t, "models", "tensorflow/make_model.py"), "half_plus_two", "123")
	front := filepath.Join(story.Installed(t, "rest_front", "tensorflow/rest_front/rest_front.cc", "tensorflow/rest_front/Makefile"), "rest_front")
	dir := t.TempDir()
	for _, version := range []string{"half_plus_two/123", "secret/1", "secret/2"} {
		path := filepath.Join(dir, "models", version)
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.Symlink(model, path); err != nil {
			t.Fatal(err)
		}
	}
	socket := filepath.Join(dir, "rest")
	h.compute = story.Start(t, "serve.py", exec.Command(h.python, filepath.Join("..", "tensorflow", "serve.py"),
		"--models", filepath.Join(dir, "models"), "--grpc", h.grpc, "--rest-socket", socket))
	host, port, _ := net.SplitHostPort(h.rest)
	rest := story.Start(t, "rest_front", exec.Command(front, host, port, socket))
	rest.Listens(t, h.rest)
	h.compute.Listens(t, socket)
	return h
}

// guard starts the gateway before the servers, with the gateway.yaml of this folder.
func (h *house) guard(t *testing.T) {
	t.Helper()
	provider := story.StartProvider(t)
	h.gateway = story.StartGateway(t,
		"http://127.0.0.1:8501", "http://"+h.rest,
		"h2c://127.0.0.1:8500", "h2c://"+h.grpc,
		"https://localhost:9000", provider.URL,
		"../openid-provider/provider.crt", provider.CA)
	h.predict = provider.Token(t, "models.predict", "")
	h.read = provider.Token(t, "models.read", "")
}

func TestTensorFlow(t *testing.T) {
	h := start(t)
	t.Run("the server itself", func(t *testing.T) { exchanges(t, h.rest, h.grpc, h.compute.Output) })
	h.guard(t)
	t.Run("official stubs", h.stubs)
	t.Run("REST and gRPC agree", func(t *testing.T) { story.SameDecision(t, h.gateway, h.rows()) })
	t.Run("what is refused does not reach the server", h.untouched)
}

// stubs runs client.py.
func (h *house) stubs(t *testing.T) {
	before := len(h.compute.Output())
	_, port, _ := net.SplitHostPort(h.gateway.Address)
	cmd := exec.Command(h.python, "client.py", "localhost:"+port, h.gateway.CA)
	cmd.Env = append(os.Environ(), "TOKEN="+h.predict)
	var errs strings.Builder
	cmd.Stderr = &errs
	out, err := cmd.Output()
	const denied = "PERMISSION_DENIED The caller is not allowed to do this."
	want := strings.ReplaceAll(`predict: [2.5, 3.0, 4.5] by version 123
one version: [2.5, 3.0, 4.5] by version 1
a label: [2.5, 3.0, 4.5] by version 1
the other version: DENIED
the latest: DENIED
version 0: DENIED
an unknown model: DENIED
compressed: [2.5, 3.0, 4.5] by version 123
compressed, of the other version: DENIED
large: 2000000 by version 123
classify: 3.0
regress: 3.0
two tasks: 2
a task of another model: INVALID_ARGUMENT The request body does not name a model in one clear way.
metadata: 123
status: 123
status of another model: DENIED
reload: DENIED
profiler: DENIED
session: DENIED
another service: UNIMPLEMENTED The model server has no such path or method.
no token: UNAUTHENTICATED a credential is required
`, "DENIED", denied)
	if err != nil || string(out) != want {
		t.Errorf("client.py: %v\n%s\nwant\n%s\n%s", err, out, want, errs.String())
	}
	h.gateway.Process.Prints(t, `"model":"half_plus_two","version":"latest","served_version":"123"`)
	h.gateway.Process.Prints(t, `"version":"label:stable","served_version":"1"`)
	for line := range strings.Lines(h.compute.Output()[before:]) {
		switch strings.TrimSpace(line) {
		case "called HandleReloadConfigRequest", "called Profile", "of secret 2", "of nothing":
			t.Errorf("the server says: %s", line)
		}
	}
}

// rows are calls that REST and gRPC both have.
func (h *house) rows() []story.Row {
	var all []story.Row
	add := func(name, path, body, method string, message []byte, allowed ...string) {
		for _, token := range []struct{ name, text string }{{"predict", h.predict}, {"read", h.read}} {
			line := "POST " + path
			if body == "" {
				line = "GET " + path
			}
			denied := true
			for _, a := range allowed {
				denied = denied && a != token.name
			}
			all = append(all, story.Row{
				Name: name + " with scope " + token.name, Token: token.text, Denied: denied,
				REST: story.Question{Name: name, Request: story.Plain(line, body, json_)},
				GRPC: story.Question{Name: name, Method: method, Body: story.Frames(message)},
			})
		}
	}
	regress, classify := strings.Replace(examples, "%s", "regress", 1), strings.Replace(examples, "%s", "classify", 1)
	half, secret := spec("half_plus_two"), spec("secret")
	run := func(name, path string, spec []byte, allowed ...string) {
		add(name, "/v1/models/"+path+":predict", instances, prediction+"Predict", predict(spec), allowed...)
	}
	run("predict", "half_plus_two", half, "predict")
	run("predict a version", "half_plus_two/versions/123", spec("half_plus_two", version(123)), "predict")
	run("predict the allowed version", "secret/versions/1", spec("secret", version(1)), "predict")
	run("predict the allowed label", "secret/labels/stable", spec("secret", label("stable")), "predict")
	run("predict another version", "secret/versions/2", spec("secret", version(2)))
	run("predict another label", "secret/labels/canary", spec("secret", label("canary")))
	run("predict the latest", "secret", secret)
	run("predict version 0", "secret/versions/0", spec("secret", story.Text(2, []byte{})))
	run("predict an unknown model", "nothing", spec("nothing"))
	run("predict in capitals", "SECRET", spec("SECRET"))
	add("regress", "/v1/models/half_plus_two:regress", regress, prediction+"Regress", msg(story.Text(1, half), example(2)), "predict")
	add("classify", "/v1/models/half_plus_two:classify", classify, prediction+"Classify", msg(story.Text(1, half), example(2)), "predict")
	add("classify the allowed version", "/v1/models/secret/versions/1:classify", classify, prediction+"Classify", msg(story.Text(1, spec("secret", version(1))), example(2)))
	about := func(name, path string, spec []byte, allowed ...string) {
		add("metadata of "+name, "/v1/models/"+path+"/metadata", "", prediction+"GetModelMetadata", msg(story.Text(1, spec), text(2, "signature_def")), allowed...)
		add("status of "+name, "/v1/models/"+path, "", models+"GetModelStatus", story.Text(1, spec), allowed...)
	}
	about("a model", "half_plus_two", half, "predict", "read")
	about("another model", "secret", secret)
	about("the allowed version", "secret/versions/1", spec("secret", version(1)))
	about("an unknown model", "nothing", spec("nothing"))
	return all
}

// untouched sends what others may read otherwise: the server must not hear of it, or must
// work on nothing that the rules do not allow.
func (h *house) untouched(t *testing.T) {
	for _, q := range append(rest(), calls()...) {
		t.Run(q.Name, func(t *testing.T) {
			before := len(h.compute.Output())
			q.Through(t, h.gateway, h.predict)
			said := h.compute.Output()[before:]
			for _, model := range reached(said) {
				if strings.HasPrefix(model, "secret") && (model != "secret 1" || !strings.Contains(said, "called Predict")) {
					t.Errorf("the server worked on %s: %s", model, said)
				}
			}
			if strings.Contains(said, "called Profile") || strings.Contains(said, "called HandleReload") {
				t.Errorf("the server says %s", said)
			}
		})
	}
}
