package modelsopenai

import (
	"bytes"
	"fmt"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"sallyport/examples/story"
)

// startAudio starts the double that transcribes, with a relay before it.
func (h *house) startAudio(t *testing.T) {
	t.Helper()
	h.transcribe = story.FreeAddress(t)
	host, port, _ := net.SplitHostPort(h.transcribe)
	cmd := exec.Command(filepath.Join(h.venv, "bin", "uvicorn"), "--host", host, "--port", port, "--app-dir", ".", "transcribe:app")
	cmd.Env = append(os.Environ(), "PYTHONDONTWRITEBYTECODE=1")
	story.Start(t, "transcribe.py", cmd).Listens(t, h.transcribe)
	h.audio = story.StartRelay(t, h.transcribe)
}

func (h *house) audioPython(t *testing.T, key, model string) string {
	t.Helper()
	return story.RunAs(t, key, exec.Command(filepath.Join(h.venv, "bin", "python"), "audio.py", h.gateway.URL(""), h.gateway.CA, model))
}

func (h *house) audioJavaScript(t *testing.T, key, model string) string {
	t.Helper()
	installed := story.Installed(t, "models-openai-node", "models-openai/package-lock.json")
	return story.RunAs(t, key, story.Node(t, installed, "audio.mjs", h.gateway.CA, h.gateway.URL(""), model))
}

// What the clients print for a model that the caller may use.
const (
	pythonAudio = `transcription: whisper heard 1000 bytes
with a prompt: whisper heard 1000 bytes
streamed: whisper heard 1000 bytes
30 MiB: whisper heard 31457280 bytes`
	javascriptAudio = `transcription: whisper heard 1000 bytes
the model after the file: whisper heard 1000 bytes
with a prompt: whisper heard 1000 bytes
streamed: whisper heard 1000 bytes
translation: whisper heard 1000 bytes
30 MiB: whisper heard 31457280 bytes`
)

// heard is what the double answers for a model.
var heard = regexp.MustCompile(`whisper heard \d+ bytes`)

// audioSDK makes every call of a client: to a model that the caller may use, and to one that it may not.
func (h *house) audioSDK(t *testing.T, client func(t *testing.T, key, model string) string, want string) {
	if got := client(t, h.alice, "whisper"); got != want {
		t.Errorf("a model that may be used:\n%s\nwant\n%s", got, want)
	}
	h.audio.Take()
	refused := heard.ReplaceAllString(want, "openai.PermissionDeniedError 403 forbidden")
	if got := client(t, h.alice, "whisper-large"); got != refused {
		t.Errorf("a model that may not be used:\n%s\nwant\n%s", got, refused)
	}
	h.unanswered(t, "calls to a model that may not be used")
	large := strings.ReplaceAll(want, "whisper", "whisper-large")
	if got := client(t, h.operator, "whisper-large"); got != large {
		t.Errorf("the operator:\n%s\nwant\n%s", got, large)
	}
}

// unanswered fails the test if the double has got a whole request.
func (h *house) unanswered(t *testing.T, what string) {
	t.Helper()
	for _, x := range h.audio.Take() {
		if len(x.Response) > 0 {
			t.Errorf("%s: the double answered %q", what, x.Response[:min(len(x.Response), 300)])
		}
	}
}

const (
	part      = "--b\r\nContent-Disposition: form-data; name=\"%s\"\r\n\r\n%s\r\n"
	soundPart = "--b\r\nContent-Disposition: form-data; name=\"file\"; filename=\"a.wav\"\r\nContent-Type: audio/wav\r\n\r\nRIFF\r\n"
	end       = "--b--\r\n"
)

// audioForms sends forms that parsers read in different ways, to the double itself and through the gateway,
// which refuses them, or the double works on the model that the caller may use.
func (h *house) audioForms(t *testing.T) {
	model, large := fmt.Sprintf(part, "model", "whisper"), fmt.Sprintf(part, "model", "whisper-large")
	file := strings.Replace(large, `name="model"`, `name="model"; filename="m"`, 1)
	for _, c := range []struct {
		name, body, kind string
		served           string // the model of which the double itself answers
		status           int    // of the gateway
	}{
		{"the model first", model + soundPart + end, "", "whisper", 200},
		{"the model last", soundPart + model + end, "", "whisper", 200},
		{"the other model last", soundPart + large + end, "", "whisper-large", 403},
		{"no model", soundPart + end, "", "", 400},
		{"two models", model + soundPart + large + end, "", "whisper-large", 400},
		{"two models, the other way round", large + soundPart + model + end, "", "whisper", 400},
		{"a model as a file", model + soundPart + file + end, "", "", 400},
		{"a model in capitals", model + soundPart + fmt.Sprintf(part, "Model", "whisper-large") + end, "", "whisper", 400},
		{"a name without quotes", soundPart + strings.Replace(large, `"model"`, "model", 1) + end, "", "whisper-large", 403},
		{"a name with an escape", model + strings.Replace(large, `"model"`, `"mod\el"`, 1) + soundPart + end, "", "whisper", 400},
		{"a name in another charset", model + strings.Replace(large, `name="model"`, `name="x"; name*=utf-8''model`, 1) + soundPart + end, "", "whisper", 400},
		{"a folded header", model + strings.Replace(large, "; name", ";\r\n name", 1) + soundPart + end, "", "", 400},
		{"bare line feeds", model + soundPart + strings.ReplaceAll(large, "\r\n", "\n") + end, "", "", 400},
		{"a form behind the form", model + soundPart + end + large + end, "", "whisper", 400},
		{"a form before the form", "x\r\n" + model + soundPart + end, "", "", 400},
		{"two boundaries", model + soundPart + end, "multipart/form-data; boundary=b; boundary=c", "", 400},
		{"a form that is encoded as a query", "model=whisper-large&file=x", "application/x-www-form-urlencoded", "", 400},
		{"JSON", `{"model":"whisper-large","file":"x"}`, "application/json", "", 400},
	} {
		t.Run(c.name, func(t *testing.T) {
			kind := c.kind
			if kind == "" {
				kind = "multipart/form-data; boundary=b"
			}
			q := story.Question{Name: c.name, Request: story.Plain("POST /v1/audio/transcriptions", c.body, "Content-Type: "+kind)}
			served := ""
			if m := regexp.MustCompile(`"(whisper\S*) heard`).FindSubmatch(q.Ask(t, h.transcribe).Body); m != nil {
				served = string(m[1])
			}
			if served != c.served {
				t.Errorf("the double itself works on %q, want %q", served, c.served)
			}
			h.audio.Take()
			r := q.Through(t, h.gateway, h.alice)
			if r.Status != c.status {
				t.Errorf("%d %s, want %d", r.Status, r.Body, c.status)
			}
			if r.Status == http.StatusOK && !bytes.Contains(r.Body, []byte(`"whisper heard 4 bytes"`)) {
				t.Errorf("the double answers %s", r.Body)
			}
			if r.Status != http.StatusOK {
				h.unanswered(t, c.name)
			}
		})
	}
}

// audioLate names a model that alice may not use behind 30 MiB, and a second one behind the first: much of
// the form is under way by then, and the double does not get the rest.
func (h *house) audioLate(t *testing.T) {
	sound := filepath.Join(t.TempDir(), "a.wav")
	if err := os.WriteFile(sound, make([]byte, 30<<20), 0o600); err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		fields []string
		status int
	}{
		{[]string{"model=whisper-large"}, 403}, {[]string{"model=whisper", "model=whisper-large"}, 400}, {nil, 400}, {[]string{"model=whisper"}, 200},
	} {
		h.audio.Take()
		args := []string{"-H", "Authorization: Bearer " + h.alice, "-F", "file=@" + sound}
		for _, f := range c.fields {
			args = append(args, "-F", f)
		}
		a := h.gateway.Curl(t, "/v1/audio/transcriptions", args...)
		if a.Status != c.status {
			t.Errorf("%v: %d %s, want %d", c.fields, a.Status, a.Body, c.status)
		}
		if c.status != 200 {
			h.unanswered(t, fmt.Sprint(c.fields))
		}
	}
}
