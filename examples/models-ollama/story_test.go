// Package modelsollama holds the story of Ollama behind sallyport: names that are one model, the
// calls that use it, and those that change what the server has.
package modelsollama

import (
	"crypto/sha256"
	"encoding/hex"
	"flag"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"sallyport/examples/story"
)

var record = flag.Bool("record", false, "write what the server answers to the recorded requests instead of comparing")

func TestMain(m *testing.M) { os.Exit(story.Run(m)) }

// house is everything that runs in the story.
type house struct {
	server          string // host:port of Ollama
	models          string // its folder
	relay           *story.Relay
	gateway         *story.Gateway
	alice, operator string // their keys
}

func start(t *testing.T) *house {
	t.Helper()
	h := &house{server: story.FreeAddress(t), models: t.TempDir()}
	cmd := exec.Command(filepath.Join(story.Installed(t, "ollama", "models-ollama/versions.list"), "ollama"), "serve")
	// The proxy that nobody serves keeps it from asking its registry.
	cmd.Env = append(os.Environ(), "OLLAMA_HOST="+h.server, "OLLAMA_MODELS="+h.models, "HOME="+t.TempDir(), "OLLAMA_KEEP_ALIVE=10m",
		"HTTPS_PROXY=http://127.0.0.1:9", "OLLAMA_NOPRUNE=1")
	story.Start(t, "ollama", cmd).Listens(t, h.server)
	h.relay = story.StartRelay(t, h.server)
	keys, hashes := story.APIKeys(t, "alice", "operator")
	h.alice, h.operator = keys[0], keys[1]
	h.gateway = story.StartGateway(t, append(hashes,
		"http://127.0.0.1:11434", "http://"+h.relay.Address)...)
	return h
}

func TestOllama(t *testing.T) {
	h := start(t)
	t.Run("operator creates the models", h.create)
	t.Run("recorded", func(t *testing.T) { story.Recorded(t, *record, "ollama", h.server, story.Spoke) })
	t.Run("clients", h.clients)
	t.Run("one model by all its names", h.names)
	t.Run("lists", h.lists)
	t.Run("management", h.management)
	t.Run("two models in one body", h.ambiguous)
}

func (h *house) ask(t *testing.T, key, method, path, body string, args ...string) story.Answer {
	t.Helper()
	args = append(args, "-X", method, "--path-as-is", "-H", "Authorization: Bearer "+key)
	if body != "" {
		args = append(args, "--data-binary", body, "-H", "Content-Type: application/json")
	}
	return h.gateway.Curl(t, path, args...)
}

// untouched fails the test if a request has reached the server.
func (h *house) untouched(t *testing.T, what string) {
	t.Helper()
	for _, x := range h.relay.Take() {
		t.Errorf("%s: the server got %q", what, x.Request)
	}
}

// create makes both models through the gateway, as the operator may. Ollama lists the one that was
// changed last first, by the second, so tiny gets an older time.
func (h *house) create(t *testing.T) {
	files := story.Installed(t, "gguf", "models-openai/make_model.py")
	for _, name := range []string{"tiny", "secret"} {
		file := filepath.Join(files, name+".gguf")
		content, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		sum := sha256.Sum256(content)
		digest := "sha256:" + hex.EncodeToString(sum[:])
		if a := h.ask(t, h.alice, "POST", "/api/blobs/"+digest, "@"+file); a.Status != 403 {
			t.Errorf("alice brings a file: %d %s", a.Status, a.Body)
		}
		h.untouched(t, "a file of alice")
		if a := h.ask(t, h.operator, "POST", "/api/blobs/"+digest, "@"+file); a.Status != 201 {
			t.Fatalf("the file of %s: %d %s", name, a.Status, a.Body)
		}
		a := h.ask(t, h.operator, "POST", "/api/create", `{"model":"`+name+`","stream":false,"parameters":{"num_thread":1},"files":{"m.gguf":"`+digest+`"}}`)
		if a.Status != 200 || !strings.Contains(a.Body, "success") {
			t.Fatalf("creating %s: %d %s", name, a.Status, a.Body)
		}
		h.relay.Take()
	}
	old := time.Now().Add(-time.Hour)
	if err := os.Chtimes(filepath.Join(h.models, "manifests", "registry.ollama.ai", "library", "tiny", "latest"), old, old); err != nil {
		t.Fatal(err)
	}
}

// answered are the forms of what the client prints for a call that a model answers.
var answered = regexp.MustCompile(`^[a-z ]+: (?:[tiny]{4}|32|llama|model)$`)

// clients makes all calls of client.py: to a model that alice may use, and to one that she may not.
func (h *house) clients(t *testing.T) {
	python := filepath.Join(story.Installed(t, "models-ollama", "models-ollama/requirements.txt"), "bin", "python")
	for _, model := range []string{"tiny", "secret"} {
		h.relay.Take()
		out := story.RunAs(t, h.alice, exec.Command(python, "client.py", h.gateway.URL(""), h.gateway.CA, model))
		for line := range strings.Lines(out + "\n") {
			line = strings.TrimSuffix(line, "\n")
			call, result, _ := strings.Cut(line, ": ")
			refused := strings.HasPrefix(result, "ollama.ResponseError 403: ") || result == "openai.PermissionDeniedError 403"
			switch call {
			case "pull", "push", "copy", "create", "delete":
				if !refused {
					t.Errorf("%s is not refused: %s", call, line)
				}
			default:
				if model == "tiny" && !answered.MatchString(line) || model == "secret" && !refused {
					t.Errorf("%s: %s", model, line)
				}
			}
		}
		if model == "secret" {
			h.untouched(t, "calls to a model that may not be used")
		}
	}
}

// names asks for both models by the names that Ollama takes for them.
func (h *house) names(t *testing.T) {
	for _, form := range []string{"%s", "%s:latest", "library/%s", "registry.ollama.ai/library/%s:latest", "LIBRARY/%s:Latest"} {
		for model, status := range map[string]int{"tiny": 200, "secret": 403, "TINY": 200, "Secret": 403} {
			name := strings.ReplaceAll(form, "%s", model)
			h.relay.Take()
			a := h.ask(t, h.alice, "POST", "/api/chat", `{"model":"`+name+`","stream":false,"messages":[{"role":"user","content":"hi"}],"options":{"num_predict":2}}`)
			if a.Status != status || status == 200 && story.Spoke(a.Body) != "tiny" {
				t.Errorf("%s: %d %s, want %d", name, a.Status, a.Body, status)
			}
			if status != 200 {
				h.untouched(t, name)
			}
		}
	}
	h.relay.Take()
	for _, name := range []string{"tiny:other", "user/tiny", "example.test/library/tiny", "tiny2"} {
		if a := h.ask(t, h.alice, "POST", "/api/show", `{"model":"`+name+`"}`); a.Status != 403 {
			t.Errorf("%s is another model: %d %s", name, a.Status, a.Body)
		}
	}
	for _, name := range []string{"https://registry.ollama.ai/library/tiny:latest", "tiny@sha256:00", "a/b/c/tiny", "library//tiny", ":tiny"} {
		if a := h.ask(t, h.alice, "POST", "/api/show", `{"model":"`+name+`"}`); a.Status != 400 {
			t.Errorf("%s is refused as no clear name: %d %s", name, a.Status, a.Body)
		}
	}
	h.untouched(t, "names of other models")
}

// lists asks for the models: each caller sees those that it may use.
func (h *house) lists(t *testing.T) {
	for _, path := range []string{"/api/tags", "/api/ps", "/v1/models"} {
		a := h.ask(t, h.alice, "GET", path, "")
		if a.Status != 200 || strings.Contains(a.Body, "secret") {
			t.Errorf("%s as alice: %d %s", path, a.Status, a.Body)
		}
		a = h.ask(t, h.operator, "GET", path, "")
		if a.Status != 200 || path != "/api/ps" && !strings.Contains(a.Body, "secret:latest") {
			t.Errorf("%s as the operator: %d %s", path, a.Status, a.Body)
		}
	}
}

// management makes the calls that change the server, as who may not make them.
func (h *house) management(t *testing.T) {
	h.relay.Take()
	for _, c := range []struct{ key, method, path, body string }{
		{h.alice, "POST", "/api/pull", `{"model":"tiny"}`}, {h.alice, "POST", "/api/push", `{"model":"tiny"}`},
		{h.alice, "POST", "/api/create", `{"model":"mine","from":"secret"}`}, {h.alice, "POST", "/api/copy", `{"source":"secret","destination":"tiny"}`},
		{h.alice, "DELETE", "/api/delete", `{"model":"tiny"}`}, {h.alice, "DELETE", "/api/delete", `{"name":"tiny"}`},
		{h.alice, "POST", "/api/me", ""}, {h.alice, "POST", "/api/signout", ""},
		{h.operator, "POST", "/api/pull", `{"model":"tiny"}`}, {h.operator, "POST", "/api/push", `{"model":"tiny"}`},
		{h.operator, "POST", "/api/copy", `{"source":"tiny","destination":"new"}`}, {h.operator, "POST", "/api/signout", ""},
		{h.operator, "POST", "/api/unknown", `{"model":"tiny"}`}, {h.operator, "POST", "/api%2Fchat", `{"model":"tiny"}`},
	} {
		a := h.ask(t, c.key, c.method, c.path, c.body)
		if a.Status < 400 || a.Status > 405 || a.Status == 401 {
			t.Errorf("%s %s: %d %s", c.method, c.path, a.Status, a.Body)
		}
		h.untouched(t, c.method+" "+c.path)
	}
	if a := h.ask(t, h.operator, "DELETE", "/api/delete", `{"model":"missing"}`); a.Status != 404 {
		t.Errorf("the operator deletes a model that is not there: %d %s, want Ollama's 404", a.Status, a.Body)
	}
}

// ambiguous sends bodies from which Ollama reads another model than a reader who takes keys as they are.
func (h *house) ambiguous(t *testing.T) {
	h.relay.Take()
	for _, body := range []string{
		`{"model":"tiny","model":"secret"}`, `{"model":"tiny","MODEL":"secret"}`, `{"Model":"tiny"}`, `{"model":"secret","model":null}`,
		`{"model":"tiny","name":"secret"}`, `{"mo\u0064el":"secret","model":"tiny"}`, `{"model":"tiny"}{"model":"secret"}`, `{}`, `[]`,
	} {
		for _, path := range []string{"/api/chat", "/api/generate", "/api/embed", "/api/show", "/v1/chat/completions", "/v1/messages"} {
			if a := h.ask(t, h.alice, "POST", path, body); a.Status != 400 {
				t.Errorf("%s %s: %d %s, want 400", path, body, a.Status, a.Body)
			}
		}
		h.untouched(t, body)
	}
}
