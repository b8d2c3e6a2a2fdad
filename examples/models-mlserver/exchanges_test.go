package mlserver

import (
	"bytes"
	"encoding/json"
	"testing"

	"sallyport/examples/story"
)

const service = story.V2Service

const (
	inputs  = `"id":"1","inputs":[{"name":"x","shape":[2],"datatype":"FP32","data":[1,2]}]`
	request = `{` + inputs + `}`
)

var (
	text   = story.Text[string]
	msg    = story.Message
	post   = story.Post
	get    = story.Get
	varies = story.Varying
)

// tensor is what a ModelInferRequest has beside the model: an id, and x of two numbers.
var tensor = msg(text(3, "1"),
	story.Text(5, msg(text(1, "x"), text(2, "FP32"), story.Text(3, []byte{2}),
		story.Text(5, story.Text(6, []byte{0, 0, 0x80, 0x3f, 0, 0, 0, 0x40})))))

func infer(fields ...[]byte) []byte { return msg(append(fields, tensor)...) }

// rest are the forms of MLServer's REST API, and what other readers might take for them.
func rest() []story.Question {
	return []story.Question{
		get("server", "metadata of the server", "/v2"),
		get("server-slash", "a slash at the end is redirected", "/v2/"),
		get("live", "health", "/v2/health/live"),
		get("ready", "health", "/v2/health/ready"),
		get("model", "metadata of a model", "/v2/models/double"),
		get("model-version", "metadata of a version, which is a word", "/v2/models/double/versions/v1"),
		get("model-ready", "is a model ready", "/v2/models/double/ready"),
		get("model-version-ready", "is a version ready", "/v2/models/double/versions/v1/ready"),
		varies(get("docs", "documentation", "/v2/docs")),
		varies(get("docs-json", "documentation", "/v2/docs/dataplane.json")),
		varies(get("docs-model", "documentation of a model", "/v2/models/double/docs")),
		varies(get("docs-model-json", "documentation of a model", "/v2/models/double/versions/v1/docs/dataplane.json")),
		get("models", "no list of models", "/v2/models"),
		get("root", "nothing is there", "/"),
		get("openapi", "FastAPI's own document", "/openapi.json"),

		post("infer", "predict, no version: the first that was loaded", "/v2/models/double/infer", request),
		post("infer-version", "predict, one version", "/v2/models/secret/versions/1/infer", request),
		post("infer-latest", "predict, no version of two", "/v2/models/secret/infer", request),
		post("infer-zeros", "versions are words: zeros count", "/v2/models/secret/versions/001/infer", request),
		post("infer-word-version", "predict, a version that is a word", "/v2/models/double/versions/v1/infer", request),
		post("infer-unknown", "no such model", "/v2/models/nothing/infer", request),
		post("infer-unknown-version", "no such version", "/v2/models/secret/versions/9/infer", request),
		post("infer-model-in-body", "a name in the body counts for nothing", "/v2/models/double/infer", `{"model_name":"secret","model":"secret",`+inputs+`}`),
		post("infer-gzip", "compressed", "/v2/models/double/infer", story.Gzipped(request), "Content-Encoding: gzip"),
		get("infer-get", "the method is wrong", "/v2/models/double/infer"),
		{Name: "rest-ready-head", Note: "the method is wrong", Request: story.Plain("HEAD /v2/health/ready", "")},
		post("generate", "another name for infer", "/v2/models/double/generate", request),
		post("generate-version", "another name for infer", "/v2/models/secret/versions/1/generate", request),
		post("infer-stream", "events", "/v2/models/double/infer_stream", request),
		post("generate-stream", "events", "/v2/models/double/generate_stream", request),
		post("infer-stream-version", "events", "/v2/models/secret/versions/1/infer_stream", request),

		varies(post("index", "list of models", "/v2/repository/index", `{}`)),
		varies(post("index-ready", "list of models that are ready", "/v2/repository/index", `{"ready":true}`)),
		post("index-no-body", "list of models, without a body", "/v2/repository/index", ""),
		get("index-get", "the method is wrong", "/v2/repository/index"),
		post("unload", "unload", "/v2/repository/models/idle/unload", ""),
		post("load", "load", "/v2/repository/models/idle/load", ""),

		post("case-verb", "capitals in the verb", "/v2/models/double/INFER", request),
		post("case-fixed", "capitals in the fixed part", "/V2/models/double/infer", request),
		post("case-model", "capitals in the model", "/v2/models/DOUBLE/infer", request),
		post("escape-model", "an escape in the model is decoded", "/v2/models/%64ouble/infer", request),
		post("escape-verb", "an escape in the verb is decoded", "/v2/models/double/%69nfer", request),
		post("escape-slash", "an escaped slash is a slash", "/v2/models/double%2Finfer", request),
		post("escape-versions", "escaped slashes are slashes: one version of another model", "/v2/models/secret%2Fversions%2F1/infer", request),
		post("escape-twice", "decoded once, not twice", "/v2/models/%2564ouble/infer", request),
		post("query", "a query", "/v2/models/double/infer?x=1", request),
		post("query-model", "the name and the version in the query count for nothing", "/v2/models/double/infer?model_name=secret", request),
		post("query-version", "the version in the query counts", "/v2/models/secret/infer?model_version=1", request),
		post("query-version-two", "the version in the query against the version in the path", "/v2/models/secret/versions/2/infer?model_version=1", request),
		get("query-version-metadata", "the version in the query counts", "/v2/models/secret?model_version=1"),
		post("double-slash", "two slashes at the start", "//v2/models/double/infer", request),
		post("authority", "an authority in the path", "//x/v2/models/double/infer", request),
		post("double-slash-inside", "two slashes inside", "/v2/models//double/infer", request),
		post("dots", "dot segments", "/v2/models/x/../double/infer", request),
		post("slash-end", "a slash at the end is redirected", "/v2/models/double/infer/", request),
		post("absolute", "the absolute form", "http://x/v2/models/double/infer", request),
		post("fragment", "a fragment", "/v2/models/double/infer#x", request),
		post("semicolon", "a parameter", "/v2/models/double;x/infer", request),
		post("duplicate-inputs", "a member twice: the last one wins", "/v2/models/double/infer", `{"inputs":[],`+inputs+`}`),
		post("no-json", "no JSON", "/v2/models/double/infer", "no"),
	}
}

// calls are the methods of MLServer's gRPC services, and messages that others may read otherwise.
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
		call("model", "metadata of a model", "ModelMetadata", msg(double, text(2, "v1"))),
		varies(call("index", "list of models", "RepositoryIndex", nil)),
		call("unload", "unload", "RepositoryModelUnload", text(2, "idle")),
		call("load", "load", "RepositoryModelLoad", text(2, "idle")),
		{Name: "grpc-other-index", Note: "the list of models from a service of its own", Method: "/inference.model_repository.ModelRepositoryService/RepositoryIndex", Body: story.Frames(nil), Varies: true},
		{Name: "grpc-other-unload", Note: "unload by the other service", Method: "/inference.model_repository.ModelRepositoryService/RepositoryModelUnload", Body: story.Frames(text(2, "idle"))},
		{Name: "grpc-other-load", Note: "load by the other service", Method: "/inference.model_repository.ModelRepositoryService/RepositoryModelLoad", Body: story.Frames(text(2, "idle"))},

		call("infer", "predict, no version", "ModelInfer", infer(double)),
		call("infer-version", "predict, one version", "ModelInfer", infer(secret, text(2, "1"))),
		call("infer-latest", "predict, no version of two", "ModelInfer", infer(secret)),
		call("infer-zeros", "versions are words: zeros count", "ModelInfer", infer(secret, text(2, "001"))),
		call("infer-unknown", "no such model", "ModelInfer", infer(text(1, "nothing"))),
		call("infer-no-name", "no name", "ModelInfer", infer()),
		call("infer-case", "capitals in the model", "ModelInfer", infer(text(1, "DOUBLE"))),
		call("infer-escape", "escapes mean nothing here", "ModelInfer", infer(text(1, "%64ouble"))),
		call("infer-nul", "a NUL behind the name", "ModelInfer", infer(text(1, "double\x00x"))),
		call("infer-last", "the name stands last", "ModelInfer", msg(tensor, secret)),
		call("infer-twice", "the name twice: the last one wins", "ModelInfer", infer(double, secret)),
		call("infer-version-twice", "the version twice: the last one wins", "ModelInfer", infer(secret, text(2, "2"), text(2, "1"))),
		call("infer-wrong-type", "the name as a number is an unknown field", "ModelInfer", infer(double, story.Number(1, 7))),
		call("infer-bad-utf8", "the name is no UTF-8", "ModelInfer", infer(text(1, "double\xff"))),
		call("infer-group", "an unknown group that holds a name", "ModelInfer", infer(double, []byte{0x9b, 0x06}, secret, []byte{0x9c, 0x06})),
		call("infer-long-tag", "the tag of the name has more bytes than it needs", "ModelInfer", infer(double, []byte{0x8a, 0x00, 6}, []byte("secret"))),
		call("infer-truncated", "the message ends within a field", "ModelInfer", append(infer(double), 0x0a, 0x40, 's')),
		call("infer-two-messages", "two messages in a unary call", "ModelInfer", infer(double), infer(secret)),
		{Name: "grpc-infer-gzip", Note: "compressed", Method: service + "ModelInfer", Encoding: "gzip", Body: story.Squeezed(infer(double))},
		{Name: "grpc-infer-gzip-unsaid", Note: "compressed, and no grpc-encoding says so", Method: service + "ModelInfer", Body: story.Squeezed(infer(double))},
		call("stream", "one stream: the first message names the model of all", "ModelStreamInfer", infer(double), infer(secret)),
		call("stream-version", "one stream, one version", "ModelStreamInfer", infer(secret, text(2, "1"))),

		call("case-method", "capitals in the method", "MODELINFER", infer(double)),
		call("config", "a method of Triton's", "ModelConfig", double),
		{Name: "grpc-escape", Note: "an escape in the method", Method: service + "ModelInfe%72", Body: story.Frames(infer(double))},
		{Name: "grpc-double-slash", Note: "two slashes at the start", Method: "/" + service + "ModelInfer", Body: story.Frames(infer(double))},
		{Name: "grpc-query", Note: "a query", Method: service + "ModelInfer?x=1", Body: story.Frames(infer(double))},
		{Name: "grpc-health", Note: "gRPC's own health service", Method: "/grpc.health.v1.Health/Check", Body: story.Frames(nil)},
		{Name: "grpc-reflection", Note: "reflection", Method: "/grpc.reflection.v1alpha.ServerReflection/ServerReflectionInfo", Body: story.Frames(text(7, ""))},
	}
}

// served are the models that an answer of MLServer names.
func served(q story.Question, r story.Reply) []string {
	var all []string
	if q.Method == "" {
		var one struct {
			Model   string `json:"model_name"`
			Version string `json:"model_version"`
			Name    string
		}
		_ = json.Unmarshal(bytes.TrimPrefix(r.Body, []byte("data: ")), &one)
		switch {
		case one.Model != "":
			all = append(all, one.Model+" "+one.Version)
		case one.Name != "" && one.Name != "mlserver":
			all = append(all, one.Name)
		}
		return all
	}
	for _, m := range story.Messages(r.Body) {
		names, versions := story.Fields(m, 1), story.Fields(m, 2)
		switch q.Method {
		case service + "ModelStreamInfer", service + "ModelInfer":
			if len(names)*len(versions) > 0 {
				all = append(all, string(names[0])+" "+string(versions[0]))
			}
		case service + "ModelMetadata":
			all = append(all, string(names[0]))
		}
	}
	return all
}

// exchanges asks MLServer itself, without the gateway.
func (h *house) exchanges(t *testing.T) {
	const server = "MLServer 1.7.1"
	story.Exchanges(t, *record, "mlserver", server, h.rest, rest(), served)
	story.Exchanges(t, *record, "mlserver", server, h.grpc, calls(), served)
}
