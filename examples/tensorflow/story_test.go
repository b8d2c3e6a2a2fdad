// Package tensorflow holds the story of TensorFlow Serving's REST API behind sallyport.
package tensorflow

import (
	"bytes"
	"flag"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"sallyport/examples/story"
)

var record = flag.Bool("record", false, "write the golden exchanges instead of comparing with them")

func TestMain(m *testing.M) { os.Exit(story.Run(m)) }

// house is everything that runs in the story.
type house struct {
	front   string // host:port of the REST API itself
	relay   *story.Relay
	gateway *story.Gateway
	predict string // tokens
	read    string
	other   string
}

func start(t *testing.T) *house {
	t.Helper()
	python := filepath.Join(story.Installed(t, "tensorflow", "tensorflow/requirements.txt", "tensorflow/requirements-nodeps.txt"), "bin", "python")
	models := story.Installed(t, "models", "tensorflow/make_model.py")
	front := filepath.Join(story.Installed(t, "rest_front", "tensorflow/rest_front/rest_front.cc", "tensorflow/rest_front/Makefile"), "rest_front")
	h := &house{front: story.FreeAddress(t)}
	socket := filepath.Join(t.TempDir(), "rest")
	compute := story.Start(t, "serve.py", exec.Command(python, "serve.py", "--models", models, "--grpc", story.FreeAddress(t), "--rest-socket", socket))
	host, port, _ := net.SplitHostPort(h.front)
	rest := story.Start(t, "rest_front", exec.Command(front, host, port, socket))
	provider := story.StartProvider(t, "TOKEN_ALG=ES256")
	rest.Listens(t, h.front)
	compute.Listens(t, socket)
	h.relay = story.StartRelay(t, h.front)
	h.gateway = story.StartGateway(t,
		"http://127.0.0.1:8501", "http://"+h.relay.Address,
		"https://localhost:9000", provider.URL,
		"../openid-provider/provider.crt", provider.CA)
	h.predict = provider.Token(t, "models.predict", "")
	h.read = provider.Token(t, "models.read", "")
	h.other = provider.Token(t, "models.predict", "https://other.example")
	return h
}

func bearer(token string) []string { return []string{"-H", "Authorization: Bearer " + token} }

func TestTensorFlow(t *testing.T) {
	h := start(t)
	t.Run("forms", h.forms)
	t.Run("refused", h.refused)
	t.Run("large", h.large)
	t.Run("at once", h.atOnce)
	t.Run("golden", h.golden)
}

const instances = `{"instances": [1.0, 2.0, 5.0]}`

// forms are the forms of URL and body of the REST API. Each is asked of the
// server itself and through the gateway: the answers must be equal.
var forms = []struct {
	name, method, path, body string
	status                   int
	want                     string // in the answer
}{
	{"predict", "POST", "/v1/models/half_plus_two:predict", instances, 200, "[2.5, 3.0, 4.5"},
	{"predict-version", "POST", "/v1/models/half_plus_two/versions/123:predict", instances, 200, "[2.5, 3.0, 4.5"},
	{"predict-label", "POST", "/v1/models/half_plus_two/labels/stable:predict", instances, 200, "[2.5, 3.0, 4.5"},
	{"predict-columns", "POST", "/v1/models/half_plus_two:predict", `{"inputs": {"x": [1.0, 2.0]}}`, 200, `"outputs": [2.5, 3.0]`},
	{"predict-signature", "POST", "/v1/models/half_plus_two:predict", `{"signature_name": "serving_default", "instances": [{"x": 1.0}]}`, 200, "[2.5"},
	{"predict-nan", "POST", "/v1/models/half_plus_two:predict", `{"instances": [NaN, Infinity, -Infinity]}`, 200, "[NaN, Infinity, -Infinity"},
	{"predict-bad-body", "POST", "/v1/models/half_plus_two:predict", `{"instances": ["one"]}`, 400, "not of expected type: float"},
	{"predict-no-body", "POST", "/v1/models/half_plus_two:predict", "", 400, "Missing 'inputs' or 'instances' key"},
	{"predict-unknown-model", "POST", "/v1/models/nobody:predict", instances, 404, "Servable not found for request: Latest(nobody)"},
	{"predict-unknown-version", "POST", "/v1/models/half_plus_two/versions/5:predict", instances, 404, "Specific(half_plus_two, 5)"},
	{"predict-unknown-label", "POST", "/v1/models/half_plus_two/labels/canary:predict", instances, 400, "Unrecognized servable version label: canary"},
	{"classify", "POST", "/v1/models/half_plus_two:classify", `{"examples": [{"x": 1.0}, {"x": 2.0}]}`, 200, `[["", 2.5]], [["", 3.0]]`},
	{"classify-label", "POST", "/v1/models/half_plus_two/labels/stable:classify", `{"examples": [{"x": 1.0}]}`, 200, `["", 2.5]`},
	{"regress", "POST", "/v1/models/half_plus_two:regress", `{"examples": [{"x": 1.0}, {"x": 2.0}]}`, 200, "[2.5, 3.0"},
	{"regress-version", "POST", "/v1/models/half_plus_two/versions/123:regress", `{"signature_name": "regress_x_to_y", "context": {"x": 2.0}, "examples": [{}]}`, 200, "[3.0"},
	{"status", "GET", "/v1/models/half_plus_two", "", 200, `"state": "AVAILABLE"`},
	{"status-version", "GET", "/v1/models/half_plus_two/versions/123", "", 200, `"version": "123"`},
	{"status-label", "GET", "/v1/models/half_plus_two/labels/stable", "", 200, `"version": "123"`},
	{"status-unknown-model", "GET", "/v1/models/nobody", "", 404, "Could not find any versions of model nobody"},
	{"metadata", "GET", "/v1/models/half_plus_two/metadata", "", 200, `"tensorflow/serving/predict"`},
	{"metadata-version", "GET", "/v1/models/half_plus_two/versions/123/metadata", "", 200, "serving_default"},
	{"metadata-label", "GET", "/v1/models/half_plus_two/labels/stable/metadata", "", 200, "serving_default"},
}

func arguments(method, body string) []string {
	if method == "GET" {
		return []string{"--path-as-is"}
	}
	return []string{"--path-as-is", "--json", body}
}

func (h *house) forms(t *testing.T) {
	for _, f := range forms {
		t.Run(f.name, func(t *testing.T) {
			direct := story.Curl(t, "", append(arguments(f.method, f.body), "http://"+h.front+f.path)...)
			for _, version := range []string{"--http1.1", "--http2"} {
				a := h.gateway.Curl(t, f.path, append(append(arguments(f.method, f.body), version), bearer(h.predict)...)...)
				if a.Status != f.status || !strings.Contains(a.Body, f.want) {
					t.Errorf("%s: %d %s, want %d and %s", version, a.Status, a.Body, f.status, f.want)
				}
				if a.Status != direct.Status || a.Body != direct.Body || a.Header.Get("Content-Type") != direct.Header.Get("Content-Type") {
					t.Errorf("%s: %d %q, the server itself says %d %q", version, a.Status, a.Body, direct.Status, direct.Body)
				}
			}
		})
	}
}

// refused are calls that must not reach the model server. Several of them it
// would serve, by its own reading of the path.
func (h *house) refused(t *testing.T) {
	h.relay.Take()
	for _, c := range []struct {
		name, token, path string
		status            int
	}{
		{"no token", "", "/v1/models/half_plus_two:predict", 401},
		{"token for another audience", h.other, "/v1/models/half_plus_two:predict", 401},
		{"scope too small", h.read, "/v1/models/half_plus_two:predict", 403},
		{"authority in the path", h.predict, "//x/v1/models/half_plus_two:predict", 400},
		{"three slashes", h.predict, "///v1/models/half_plus_two:predict", 400},
		{"slashes inside", h.predict, "/v1//models/half_plus_two:predict", 400},
		{"encoded slash", h.predict, "/v1/models%2Fhalf_plus_two:predict", 400},
		{"dot segments", h.predict, "/v1/models/x/../half_plus_two:predict", 400},
		{"encoded dots", h.predict, "/v1/models/%2e%2e/models/half_plus_two:predict", 400},
		{"back slash", h.predict, `/v1/models\half_plus_two:predict`, 400},
		{"NUL", h.predict, "/v1/models/half_plus_two%00:predict", 400},
		{"version too long", h.predict, "/v1/models/half_plus_two/versions/99999999999999999999:predict", 400},
		{"verb in capitals", h.predict, "/v1/models/half_plus_two:PREDICT", 404},
		{"no model", h.predict, "/v1/models", 404},
		{"outside the route", h.predict, "/monitoring/prometheus/metrics", 404},
	} {
		t.Run(c.name, func(t *testing.T) {
			args := arguments("POST", instances)
			if c.token != "" {
				args = append(args, bearer(c.token)...)
			}
			a := h.gateway.Curl(t, c.path, args...)
			if a.Status != c.status {
				t.Errorf("%d %s, want %d", a.Status, a.Body, c.status)
			}
			if x := h.relay.Take(); len(x) > 0 {
				t.Errorf("the model server was asked: %q", x[0].Request)
			}
		})
	}
	a := h.gateway.Curl(t, "/v1/models/half_plus_two:predict", arguments("POST", instances)...)
	var refusal struct{ Error, Reason string }
	a.JSON(t, &refusal)
	if refusal.Error == "" || refusal.Reason != "no_credential" {
		t.Errorf("the refusal is not of the shape that TensorFlow Serving's clients read: %s", a.Body)
	}
}

// large sends a tensor of two million numbers, about 10 MB of JSON, and gets as
// many back.
func (h *house) large(t *testing.T) {
	const n = 2_000_000
	body := filepath.Join(t.TempDir(), "body")
	if err := os.WriteFile(body, []byte(`{"instances": [1.0`+strings.Repeat(", 1.0", n-1)+"]}"), 0o600); err != nil {
		t.Fatal(err)
	}
	for _, version := range []string{"--http1.1", "--http2"} {
		a := h.gateway.Curl(t, "/v1/models/half_plus_two:predict", append(bearer(h.predict), version, "--data-binary", "@"+body)...)
		if got := strings.Count(a.Body, "2.5"); a.Status != 200 || got != n {
			t.Errorf("%s: %d with %d predictions, want %d", version, a.Status, got, n)
		}
	}
	h.relay.Take()
}

// atOnce makes calls side by side, each with its own number, so that an answer
// which went to the wrong caller shows.
func (h *house) atOnce(t *testing.T) {
	client := story.Client(t, h.gateway.CA)
	var all sync.WaitGroup
	for caller := range 8 {
		all.Go(func() {
			for i := range 20 {
				x := float64(caller*100 + i)
				if got, want := ask(client, h, x), fmt.Sprintf("[%.1f", x/2+2); !strings.Contains(got, want) {
					t.Errorf("caller %d asked for %v and got %s", caller, x, got)
				}
			}
		})
	}
	all.Wait()
	for _, x := range h.relay.Take() {
		if bytes.Contains(bytes.ToLower(x.Request), []byte("authorization")) || !bytes.Contains(x.Request, []byte("issuer/lab:batch")) {
			t.Fatalf("the model server was told: %q", x.Request)
		}
	}
}

func ask(client *http.Client, h *house, x float64) string {
	req, err := http.NewRequest("POST", h.gateway.URL("/v1/models/half_plus_two:predict"), strings.NewReader(fmt.Sprintf(`{"instances": [%.1f]}`, x)))
	if err != nil {
		return err.Error()
	}
	req.Header.Set("Authorization", "Bearer "+h.predict)
	res, err := client.Do(req)
	if err != nil {
		return err.Error()
	}
	defer res.Body.Close()
	b, err := io.ReadAll(res.Body)
	if err != nil {
		return err.Error()
	}
	return string(b)
}

// golden sends raw requests and compares what the gateway and the server said to
// each other with what is recorded; the gateway's own tests replay that.
func (h *house) golden(t *testing.T) {
	for _, f := range forms {
		t.Run(f.name, func(t *testing.T) {
			client := f.method + " " + f.path + " HTTP/1.1\r\nHost: localhost\r\n"
			if f.method == "POST" {
				client += fmt.Sprintf("Content-Type: application/json\r\nContent-Length: %d\r\n", len(f.body))
			}
			client += "\r\n" + f.body
			h.relay.Take()
			res, _ := h.gateway.Raw(t, []byte(strings.Replace(client, "\r\n", "\r\nAuthorization: Bearer "+h.predict+"\r\n", 1)))
			x := h.relay.Take()
			if len(x) != 1 {
				t.Fatalf("%d exchanges with the server, status %d", len(x), res.StatusCode)
			}
			story.Golden(t, *record, f.name, []byte(client), x[0])
		})
	}
}
