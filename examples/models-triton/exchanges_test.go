package triton

import (
	"bytes"
	"compress/zlib"
	"encoding/json"
	"fmt"
	"io"
	"strings"
	"testing"

	"sallyport/examples/story"
)

const service = story.V2Service

const (
	inputs  = `"inputs":[{"name":"x","shape":[2],"datatype":"FP32","data":[1,2]}]`
	request = `{` + inputs + `}`
)

var (
	text   = story.Text[string]
	msg    = story.Message
	post   = story.Post
	get    = story.Get
	varies = story.Varying
)

// tensor is what a ModelInferRequest has beside the model: x of two numbers.
var tensor = msg(
	story.Text(5, msg(text(1, "x"), text(2, "FP32"), story.Text(3, []byte{2}))),
	story.Text(7, []byte{0, 0, 0x80, 0x3f, 0, 0, 0, 0x40}))

func infer(fields ...[]byte) []byte { return msg(append(fields, tensor)...) }

func deflated() string {
	var b bytes.Buffer
	w := zlib.NewWriter(&b)
	_, _ = io.WriteString(w, request)
	_ = w.Close()
	return b.String()
}

// rest are the forms of Triton's REST API, and what other readers might take for them.
func rest() []story.Question {
	binary := `{"inputs":[{"name":"x","shape":[2],"datatype":"FP32","parameters":{"binary_data_size":8}}]}`
	return []story.Question{
		get("server", "metadata of the server", "/v2"),
		get("server-slash", "a slash at the end", "/v2/"),
		get("live", "health", "/v2/health/live"),
		get("ready", "health", "/v2/health/ready"),
		get("model", "metadata of a model", "/v2/models/double"),
		get("model-version", "metadata of a version", "/v2/models/double/versions/1"),
		get("model-ready", "is a model ready", "/v2/models/double/ready"),
		get("model-version-ready", "is a version ready", "/v2/models/double/versions/1/ready"),
		get("config", "configuration of a model", "/v2/models/double/config"),
		varies(get("stats", "statistics of a model", "/v2/models/double/stats")),
		varies(get("stats-all", "statistics of all models", "/v2/models/stats")),
		varies(get("stats-of-stats", "statistics of a model called stats, which there is none of", "/v2/models/stats/stats")),
		get("models", "no list of models", "/v2/models"),
		get("trace-model", "trace settings of a model", "/v2/models/double/trace/setting"),
		get("trace", "trace settings", "/v2/trace/setting"),
		get("logging", "logging settings", "/v2/logging"),
		get("shared-memory-status", "regions", "/v2/systemsharedmemory/status"),
		get("cuda-status", "regions", "/v2/cudasharedmemory/status"),
		get("region-status", "one region", "/v2/systemsharedmemory/region/r/status"),
		get("metrics-elsewhere", "metrics have a port of their own", "/metrics"),
		get("root", "nothing is there", "/"),

		post("infer", "predict, the newest version", "/v2/models/double/infer", request),
		post("infer-version", "predict, one version", "/v2/models/secret/versions/1/infer", request),
		post("infer-latest", "predict, the newest of two versions", "/v2/models/secret/infer", request),
		post("infer-zeros", "leading zeros", "/v2/models/secret/versions/001/infer", request),
		post("infer-long-version", "the version fits no int64", "/v2/models/secret/versions/99999999999999999999/infer", request),
		post("infer-word-version", "the version is no number", "/v2/models/secret/versions/one/infer", request),
		post("infer-unknown", "no such model", "/v2/models/nothing/infer", request),
		post("infer-model-in-body", "a name in the body counts for nothing", "/v2/models/double/infer", `{"model_name":"secret","model":"secret",`+inputs+`}`),
		post("infer-binary", "a tensor behind the JSON", "/v2/models/double/infer", binary+"\x00\x00\x80\x3f\x00\x00\x00\x40",
			fmt.Sprintf("Inference-Header-Content-Length: %d", len(binary))),
		post("infer-gzip", "compressed", "/v2/models/double/infer", story.Gzipped(request), "Content-Encoding: gzip"),
		post("infer-deflate", "compressed", "/v2/models/double/infer", deflated(), "Content-Encoding: deflate"),
		post("infer-br", "compressed in a way that Triton does not know", "/v2/models/double/infer", request, "Content-Encoding: br"),
		post("infer-shared-memory", "an input in a region of shared memory", "/v2/models/double/infer",
			`{"inputs":[{"name":"x","shape":[2],"datatype":"FP32","parameters":{"shared_memory_region":"r","shared_memory_byte_size":8}}]}`),
		get("infer-get", "the method is wrong", "/v2/models/double/infer"),
		{Name: "rest-infer-put", Note: "the method is wrong", Request: story.Plain("PUT /v2/models/double/infer", request)},
		{Name: "rest-ready-head", Note: "the method is wrong", Request: story.Plain("HEAD /v2/health/ready", "")},
		post("generate", "generate", "/v2/models/double/generate", `{"x":1}`),
		post("generate-version", "generate, one version", "/v2/models/double/versions/1/generate", `{"x":1}`),
		post("generate-stream", "generate_stream", "/v2/models/double/generate_stream", `{"x":1}`),

		post("index", "list of models", "/v2/repository/index", `{}`),
		post("index-no-body", "list of models", "/v2/repository/index", ""),
		post("index-ready", "list of models that are ready", "/v2/repository/index", `{"ready":true}`),
		post("index-named", "list of one repository", "/v2/repository/r/index", `{}`),
		get("index-get", "the method is wrong", "/v2/repository/index"),
		post("load", "load", "/v2/repository/models/idle/load", ""),
		post("load-named", "load, from one repository", "/v2/repository/r/models/idle/load", ""),
		post("unload", "unload", "/v2/repository/models/idle/unload", `{}`),
		post("register", "register a region that is not there", "/v2/systemsharedmemory/region/r/register", `{"key":"/nothing","offset":0,"byte_size":8}`),
		post("unregister", "unregister a region", "/v2/systemsharedmemory/region/r/unregister", ""),
		post("unregister-all", "unregister all regions", "/v2/systemsharedmemory/unregister", ""),
		post("cuda-unregister-all", "unregister all regions", "/v2/cudasharedmemory/unregister", ""),
		post("logging-set", "set the logging", "/v2/logging", `{"log_verbose_level":0}`),
		post("logging-file", "the log cannot be sent to a file", "/v2/logging", `{"log_file":"/tmp/x"}`),
		post("trace-set", "set the trace level", "/v2/trace/setting", `{"trace_level":["OFF"]}`),

		post("case-verb", "capitals in the verb", "/v2/models/double/INFER", request),
		post("case-fixed", "capitals in the fixed part", "/V2/MODELS/double/infer", request),
		post("case-model", "capitals in the model", "/v2/models/DOUBLE/infer", request),
		post("escape-model", "an escape in the model is not decoded", "/v2/models/%64ouble/infer", request),
		post("escape-verb", "an escape in the verb is not decoded", "/v2/models/double/%69nfer", request),
		post("escape-slash", "an escaped slash is no slash", "/v2/models/double%2Finfer", request),
		post("query", "a query", "/v2/models/double/infer?x=1", request),
		get("query-model", "a query behind the model", "/v2/models/double?x=1"),
		get("query-ready", "a query behind ready", "/v2/models/double/ready?x"),
		post("double-slash", "two slashes at the start", "//v2/models/double/infer", request),
		post("authority", "an authority in the path", "//x/v2/models/double/infer", request),
		post("double-slash-inside", "two slashes inside", "/v2/models//double/infer", request),
		post("dots", "dot segments", "/v2/models/x/../double/infer", request),
		post("slash-end", "a slash at the end", "/v2/models/double/infer/", request),
		post("absolute", "the absolute form", "http://x/v2/models/double/infer", request),
		post("fragment", "a fragment", "/v2/models/double/infer#x", request),
		post("semicolon", "a parameter", "/v2/models/double;x/infer", request),
		post("colon", "a colon in the name", "/v2/models/double:predict/infer", request),
		post("redirect-header", "the header of Vertex AI, which is off here", "/v2/models/double/infer", request, "X-Vertex-Ai-Triton-Redirect: v2/repository/models/idle/load"),
		post("duplicate-inputs", "a member twice", "/v2/models/double/infer", `{`+inputs+`,"inputs":[]}`),
		post("chunked-nothing", "no JSON", "/v2/models/double/infer", "no"),
	}
}

// calls are the methods of Triton's gRPC service, and messages that others may read otherwise.
func calls() []story.Question {
	call := func(name, note, method string, messages ...[]byte) story.Question {
		return story.Question{Name: "grpc-" + name, Note: note, Method: service + method, Body: story.Frames(messages...)}
	}
	double, secret := text(1, "double"), text(1, "secret")
	return []story.Question{
		call("live", "health", "ServerLive", nil),
		call("ready", "health", "ServerReady", nil),
		call("server", "metadata of the server", "ServerMetadata", nil),
		call("model-ready", "is a model ready", "ModelReady", double),
		call("model", "metadata of a model", "ModelMetadata", msg(double, text(2, "1"))),
		varies(call("config", "configuration of a model", "ModelConfig", double)),
		varies(call("stats", "statistics of a model", "ModelStatistics", double)),
		varies(call("stats-all", "an empty name asks for all models", "ModelStatistics", nil)),
		call("index", "list of models that are ready", "RepositoryIndex", story.Number(2, 1)),
		call("load", "load", "RepositoryModelLoad", text(2, "idle")),
		call("unload", "unload", "RepositoryModelUnload", text(2, "idle")),
		call("shared-memory-status", "regions", "SystemSharedMemoryStatus", nil),
		call("shared-memory-register", "register a region that is not there", "SystemSharedMemoryRegister", msg(text(1, "r"), text(2, "/nothing"), story.Number(4, 8))),
		call("shared-memory-unregister", "unregister all regions", "SystemSharedMemoryUnregister", nil),
		call("cuda-status", "regions", "CudaSharedMemoryStatus", nil),
		call("cuda-unregister", "unregister all regions", "CudaSharedMemoryUnregister", nil),
		varies(call("trace", "trace settings", "TraceSetting", nil)),
		varies(call("trace-model", "trace settings of a model", "TraceSetting", text(2, "double"))),
		varies(call("logging", "logging settings", "LogSettings", nil)),

		call("infer", "predict, the newest version", "ModelInfer", infer(double)),
		call("infer-version", "predict, one version", "ModelInfer", infer(secret, text(2, "1"))),
		call("infer-zeros", "leading zeros", "ModelInfer", infer(secret, text(2, "001"))),
		call("infer-plus", "a sign", "ModelInfer", infer(secret, text(2, "+1"))),
		call("infer-space", "a space before the digits", "ModelInfer", infer(secret, text(2, " 1"))),
		call("infer-after-digits", "letters behind the digits", "ModelInfer", infer(secret, text(2, "1x"))),
		call("infer-long-version", "the version fits no int64", "ModelInfer", infer(secret, text(2, "99999999999999999999"))),
		call("infer-word-version", "the version is no number", "ModelInfer", infer(secret, text(2, "one"))),
		call("infer-minus-one", "minus one is the newest version", "ModelInfer", infer(secret, text(2, "-1"))),
		call("infer-unknown", "no such model", "ModelInfer", infer(text(1, "nothing"))),
		call("infer-no-name", "no name", "ModelInfer", infer()),
		call("infer-case", "capitals in the model", "ModelInfer", infer(text(1, "DOUBLE"))),
		call("infer-escape", "escapes mean nothing here", "ModelInfer", infer(text(1, "%64ouble"))),
		call("infer-nul", "a NUL behind the name", "ModelInfer", infer(text(1, "double\x00x"))),
		call("infer-last", "the name stands last", "ModelInfer", msg(tensor, secret)),
		call("infer-twice", "the name twice: the last one wins", "ModelInfer", infer(double, secret)),
		call("infer-version-twice", "the version twice: the last one wins", "ModelInfer", infer(secret, text(2, "1"), text(2, "2"))),
		call("infer-wrong-type", "the name as a number is an unknown field", "ModelInfer", infer(double, story.Number(1, 7))),
		call("infer-wrong-type-alone", "the name as a number only", "ModelInfer", infer(story.Number(1, 7))),
		call("infer-bad-utf8", "the name is no UTF-8", "ModelInfer", infer(text(1, "double\xff"))),
		call("infer-unknown-field", "an unknown field", "ModelInfer", infer(double, text(99, "x"))),
		call("infer-group", "an unknown group that holds a name", "ModelInfer", infer(double, []byte{0x9b, 0x06}, secret, []byte{0x9c, 0x06})),
		call("infer-long-tag", "the tag of the name has more bytes than it needs", "ModelInfer", infer(double, []byte{0x8a, 0x00, 6}, []byte("secret"))),
		call("infer-truncated", "the message ends within a field", "ModelInfer", append(infer(double), 0x0a, 0x40, 's')),
		call("infer-no-message", "no message", "ModelInfer"),
		call("infer-two-messages", "two messages in a unary call", "ModelInfer", infer(double), infer(secret)),
		{Name: "grpc-infer-gzip", Note: "compressed", Method: service + "ModelInfer", Encoding: "gzip", Body: story.Squeezed(infer(double))},
		{Name: "grpc-infer-gzip-unsaid", Note: "compressed, and no grpc-encoding says so", Method: service + "ModelInfer", Body: story.Squeezed(infer(double))},
		call("infer-shared-memory", "an input in a region of shared memory", "ModelInfer", msg(double, story.Text(5, msg(text(1, "x"), text(2, "FP32"), story.Text(3, []byte{2}),
			story.Text(4, msg(text(1, "shared_memory_region"), story.Text(2, text(3, "r")))),
			story.Text(4, msg(text(1, "shared_memory_byte_size"), story.Text(2, story.Number(2, 8)))))))),
		call("stream", "one stream, two models", "ModelStreamInfer", infer(double), infer(secret)),
		call("stream-versions", "one stream, two versions", "ModelStreamInfer", infer(secret, text(2, "1")), infer(secret, text(2, "2"))),
		call("stream-unknown", "one stream, one model that is not there: the stream goes on", "ModelStreamInfer", infer(text(1, "nothing")), infer(double)),
		call("stream-empty", "a stream without messages", "ModelStreamInfer"),

		call("case-method", "capitals in the method", "MODELINFER", infer(double)),
		call("unknown-method", "no such method", "Nothing", nil),
		{Name: "grpc-case-service", Note: "capitals in the service", Method: "/inference.GRPCINFERENCESERVICE/ModelInfer", Body: story.Frames(infer(double))},
		{Name: "grpc-escape", Note: "an escape in the method", Method: "/inference.GRPCInferenceService/ModelInfe%72", Body: story.Frames(infer(double))},
		{Name: "grpc-double-slash", Note: "two slashes at the start", Method: "//inference.GRPCInferenceService/ModelInfer", Body: story.Frames(infer(double))},
		{Name: "grpc-slash-end", Note: "a slash at the end", Method: service + "ModelInfer/", Body: story.Frames(infer(double))},
		{Name: "grpc-query", Note: "a query", Method: service + "ModelInfer?x=1", Body: story.Frames(infer(double))},
		{Name: "grpc-health", Note: "gRPC's own health service", Method: "/grpc.health.v1.Health/Check", Body: story.Frames(nil)},
		{Name: "grpc-reflection", Note: "no reflection", Method: "/grpc.reflection.v1.ServerReflection/ServerReflectionInfo", Body: story.Frames(text(7, ""))},
		{Name: "grpc-vllm", Note: "no other service", Method: "/tensorflow.serving.PredictionService/Predict", Body: story.Frames(double)},
	}
}

// served are the models that an answer of Triton names.
func served(q story.Question, r story.Reply) []string {
	var all []string
	if q.Method == "" {
		var one struct {
			Model   string `json:"model_name"`
			Version string `json:"model_version"`
			Name    string
			Stats   []struct{ Name, Version string } `json:"model_stats"`
			Inputs  []any
		}
		body := r.Body
		if n := r.Fields.Get("Inference-Header-Content-Length"); n != "" {
			var size int
			_, _ = fmt.Sscan(n, &size)
			body = body[:size]
		}
		if json.Unmarshal(bytes.TrimPrefix(body, []byte("data: ")), &one) != nil {
			return nil
		}
		if one.Model != "" {
			all = append(all, one.Model+" "+one.Version)
		} else if one.Name != "" && one.Name != "triton" {
			all = append(all, one.Name)
		}
		for _, s := range one.Stats {
			all = append(all, s.Name+" "+s.Version)
		}
		return all
	}
	for _, m := range story.Messages(r.Body) {
		switch method := strings.TrimPrefix(q.Method, service); method {
		case "ModelStreamInfer":
			for _, inner := range story.Fields(m, 2) {
				m = inner
			}
			fallthrough
		case "ModelInfer":
			for _, name := range story.Fields(m, 1) {
				for _, version := range story.Fields(m, 2) {
					all = append(all, string(name)+" "+string(version))
				}
			}
		case "ModelMetadata":
			for _, name := range story.Fields(m, 1) {
				all = append(all, string(name))
			}
		case "ModelStatistics":
			for _, s := range story.Fields(m, 1) {
				all = append(all, fmt.Sprintf("%s %s", story.Fields(s, 1)[0], story.Fields(s, 2)[0]))
			}
		case "ModelConfig":
			for _, c := range story.Fields(m, 1) {
				all = append(all, string(story.Fields(c, 1)[0]))
			}
		}
	}
	return all
}

// exchanges asks Triton itself, without the gateway.
func (h *house) exchanges(t *testing.T) {
	const server = "Triton 2.51.0 (nvidia-pytriton 0.7.0)"
	story.Exchanges(t, *record, "triton", server, h.rest, rest(), served)
	story.Exchanges(t, *record, "triton", server, h.grpc, calls(), served)
}
