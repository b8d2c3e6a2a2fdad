package demo

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"regexp"
	"strconv"
	"strings"
	"sync/atomic"
)

// The model server serves one model in one version, which has a label.
const (
	ModelName    = "half_plus_two"
	ModelVersion = 123
	ModelLabel   = "stable"
)

// bodySize bounds the body of a request to the model server in bytes.
const bodySize = 64 << 20

// ModelServer implements TensorFlow Serving's REST API with the model of its
// documentation, y = x/2 + 2. It parses paths like the real server, with its quirks
// (letter case, authorities in targets, queries), and answers with the same bytes. So
// tests show where a gateway interprets a request differently. Like the real server, it
// has no TLS and no authentication.
//
// It is an [http.Handler], safe for concurrent use.
type ModelServer struct {
	target     *regexp.Regexp // scheme and authority that libevent cuts off
	dispatch   *regexp.Regexp
	prediction *regexp.Regexp
	status     *regexp.Regexp
	served     atomic.Int64
}

// NewModelServer returns a model server.
func NewModelServer() *ModelServer {
	return &ModelServer{
		target:   regexp.MustCompile(`^(?:[A-Za-z][A-Za-z0-9+.-]*:)?//[^/?#]*`),
		dispatch: regexp.MustCompile(`\A(?i)/v1/.*\z`),
		prediction: regexp.MustCompile(
			`\A(?i)/v1/models/([^/:]+)(?:(?:/versions/(\d+))|(?:/labels/([^/:]+)))?:(classify|regress|predict)\z`),
		status: regexp.MustCompile(
			`\A(?i)/v1/models(?:/([^/:]+))?(?:(?:/versions/(\d+))|(?:/labels/([^/:]+)))?(?:/(metadata))?\z`),
	}
}

// Served returns the number of requests that have reached the server.
func (m *ModelServer) Served() int64 { return m.served.Load() }

// ServeHTTP implements [http.Handler].
func (m *ModelServer) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	m.served.Add(1)
	target := m.target.ReplaceAllString(r.RequestURI, "")
	path, _, _ := strings.Cut(target, "?")
	if !m.dispatch.MatchString(path) {
		w.Header().Set("Content-Type", "text/html")
		w.WriteHeader(http.StatusNotFound)
		io.WriteString(w, "<HTML><HEAD>\n<TITLE>404 Not Found</TITLE>\n</HEAD><BODY>\n<H1>Not Found</H1>\n</BODY></HTML>\n")
		return
	}
	body, err := io.ReadAll(http.MaxBytesReader(w, r.Body, bodySize))
	if err != nil {
		w.Header().Set("Connection", "close")
		w.WriteHeader(http.StatusBadRequest)
		return
	}
	if r.Method == http.MethodOptions {
		if origin := r.Header.Get("Origin"); !strings.Contains(origin, "http://") && !strings.Contains(origin, "https://") {
			w.WriteHeader(http.StatusBadRequest)
		}
		return
	}
	w.Header().Set("Content-Type", "application/json")
	answer, refused := m.answer(r.Method, target, body)
	if refused != nil {
		w.WriteHeader(refused.status)
		answer = fmt.Appendf(nil, "{\n    \"error\": %s\n}", quote(refused.text))
	}
	w.Write(answer)
}

// failure is a response other than 200, with the text of the real server.
type failure struct {
	status int
	text   string
}

func invalid(format string, args ...any) *failure {
	return &failure{http.StatusBadRequest, fmt.Sprintf(format, args...)}
}

func notFound(format string, args ...any) *failure {
	return &failure{http.StatusNotFound, fmt.Sprintf(format, args...)}
}

// answer returns the body of the response. The patterns match the raw target with its
// query; name and label are decoded afterwards.
func (m *ModelServer) answer(method, target string, body []byte) ([]byte, *failure) {
	var pattern *regexp.Regexp
	switch method {
	case http.MethodPost:
		pattern = m.prediction
	case http.MethodGet:
		pattern = m.status
	default:
		return nil, malformed(method, target)
	}
	match := pattern.FindStringSubmatch(target)
	if match == nil {
		return nil, malformed(method, target)
	}
	s, refused := readSpec(match[1], match[2], match[3])
	if refused != nil {
		return nil, refused
	}
	switch verb := match[4]; {
	case method == http.MethodGet && s.name == "":
		return nil, invalid("Missing model name in request.")
	case method == http.MethodGet && verb == "metadata":
		return s.metadata()
	case method == http.MethodGet: // "/METADATA" matches too, and asks for the status
		return s.status()
	case verb == "predict":
		return s.predict(body)
	case verb == "classify":
		return s.wrongMethod("classification", verb, body)
	case verb == "regress":
		return s.wrongMethod("regression", verb, body)
	}
	return nil, malformed(method, target)
}

func malformed(method, target string) *failure {
	return invalid("Malformed request: %s %s", method, target)
}

// spec is the model that a request names, as the server's ModelSpec does.
type spec struct {
	name    string
	version string // "" for the latest
	label   string
}

// readSpec decodes what the path names.
func readSpec(name, version, label string) (spec, *failure) {
	s := spec{name: unescape(name), label: unescape(label)}
	if version == "" {
		return s, nil
	}
	n, err := strconv.ParseInt(version, 10, 64)
	if err != nil {
		return s, invalid("Failed to convert version: %s to numeric.", version)
	}
	s.version = strconv.FormatInt(n, 10)
	return s, nil
}

// unescape decodes like curl_easy_unescape: invalid escapes stay unchanged.
func unescape(s string) string {
	if decoded, err := url.PathUnescape(s); err == nil {
		return decoded
	}
	return s
}

// find refuses a model that is not served, with the real server's text for predictions.
func (s spec) find() *failure {
	switch {
	case s.label != "" && (s.name != ModelName || s.label != ModelLabel):
		return invalid("Unrecognized servable version label: %s", s.label)
	case s.version != "" && (s.name != ModelName || s.version != strconv.Itoa(ModelVersion)):
		return notFound("Servable not found for request: Specific(%s, %s)", s.name, s.version)
	case s.name != ModelName:
		return notFound("Servable not found for request: Latest(%s)", s.name)
	}
	return nil
}

// status returns the model's state.
func (s spec) status() ([]byte, *failure) {
	switch {
	case s.label != "":
		if refused := s.find(); refused != nil {
			return nil, refused
		}
	case s.version != "" && s.find() != nil:
		return nil, notFound("Could not find version %s of model %s", s.version, s.name)
	case s.find() != nil:
		return nil, notFound("Could not find any versions of model %s", s.name)
	}
	return fmt.Appendf(nil, `{
 "model_version_status": [
  {
   "version": "%d",
   "state": "AVAILABLE",
   "status": {
    "error_code": "OK",
    "error_message": ""
   }
  }
 ]
}
`, ModelVersion), nil
}

// metadata returns the model's signatures.
func (s spec) metadata() ([]byte, *failure) {
	if refused := s.find(); refused != nil {
		return nil, refused
	}
	const tensor = `{
     "dtype": "DT_FLOAT",
     "tensor_shape": {
      "dim": [
       {
        "size": "-1",
        "name": ""
       }
      ],
      "unknown_rank": false
     },
     "name": "%s:0"
    }`
	return fmt.Appendf(nil, `{
"model_spec":{
 "name": "%s",
 "signature_name": "",
 "version": "%d"
}
,
"metadata": {"signature_def": {
 "signature_def": {
  "serving_default": {
   "inputs": {
    "x": %s
   },
   "outputs": {
    "y": %s
   },
   "method_name": "tensorflow/serving/predict"
  }
 }
}
}
}
`, ModelName, ModelVersion, fmt.Sprintf(tensor, "x"), fmt.Sprintf(tensor, "y")), nil
}

// wrongMethod returns the failure for a verb that the model's signature does not support.
func (s spec) wrongMethod(kind, verb string, body []byte) ([]byte, *failure) {
	if _, refused := s.open(body); refused != nil {
		return nil, refused
	}
	return nil, invalid("Expected %s signature method_name to be tensorflow/serving/%s. Was: tensorflow/serving/predict", kind, verb)
}

// quote returns a JSON string with the same escapes as the real server.
func quote(s string) string {
	var b bytes.Buffer
	e := json.NewEncoder(&b)
	e.SetEscapeHTML(false)
	if err := e.Encode(s); err != nil {
		return `""`
	}
	return strings.TrimSuffix(b.String(), "\n")
}
