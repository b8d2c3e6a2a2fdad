package torchserve

import (
	"encoding/json"
	"fmt"
	"strings"
	"testing"

	"sallyport/examples/story"
)

const (
	serving  = "/org.pytorch.serve.grpc.inference.InferenceAPIsService/"
	managing = "/org.pytorch.serve.grpc.management.ManagementAPIsService/"
	numbers  = `[1,2]`
)

var (
	text    = story.Text[string]
	msg     = story.Message
	post    = story.Post
	get     = story.Get
	varying = story.Varying
)

// data is what a PredictionsRequest has beside the model: one input.
var data = story.Text(3, msg(text(1, "data"), text(2, numbers)))

// stream is the input with which the handler answers more than once.
var stream = story.Text(3, msg(text(1, "stream"), text(2, "yes")))

func prediction(fields ...[]byte) []byte { return msg(append(fields, data)...) }

// form is a question whose body is multipart/form-data with plain fields, each "NAME=VALUE".
func form(name, note, path string, fields ...string) story.Question {
	var body strings.Builder
	for _, f := range fields {
		key, value, _ := strings.Cut(f, "=")
		fmt.Fprintf(&body, "--b\r\nContent-Disposition: form-data; name=\"%s\"\r\n\r\n%s\r\n", key, value)
	}
	return story.Question{Name: "rest-" + name, Note: note,
		Request: story.Plain("POST "+path, body.String()+"--b--\r\n", "Content-Type: multipart/form-data; boundary=b")}
}

// encoded is a question whose body is a form in the encoding of a query.
func encoded(name, note, path, body string) story.Question {
	return story.Question{Name: "rest-" + name, Note: note, Request: story.Plain("POST "+path, body, "Content-Type: application/x-www-form-urlencoded")}
}

// other is a question whose method is not GET or POST alone.
func other(name, note, line, body string) story.Question {
	if body == "" {
		return story.Question{Name: "rest-" + name, Note: note, Request: story.Plain(line, "")}
	}
	return story.Question{Name: "rest-" + name, Note: note, Request: story.Plain(line, body, story.ContentJSON)}
}

// inference are the forms of the API for inference, and what other readers might take for them.
func inference() []story.Question {
	return []story.Question{
		get("ping", "health", "/ping"),
		get("description", "the paths of this port", "/api-description"),
		other("options", "the paths of this port", "OPTIONS /", ""),
		get("metrics-elsewhere", "metrics have a port of their own", "/metrics"),
		get("models-elsewhere", "models are listed on the port for management", "/models"),
		get("root", "the method is wrong", "/"),

		post("predict", "predict, the default version", "/predictions/double", numbers),
		post("predict-version", "predict, one version", "/predictions/secret/1.0", numbers),
		post("predict-default", "predict, the default of two versions", "/predictions/secret", numbers),
		post("predict-short-version", "versions are words", "/predictions/secret/1", numbers),
		post("predict-unknown", "no such model", "/predictions/nothing", numbers),
		post("predict-unknown-version", "no such version", "/predictions/secret/9.0", numbers),
		encoded("predict-form", "predict, the input in a form that is encoded as a query", "/predictions/double", "data=%5B1%2C2%5D"),
		form("predict-multipart", "predict, the input in a form", "/predictions/double", "data="+numbers),
		get("predict-get", "any method predicts", "/predictions/double?data=%5B1%2C2%5D"),
		other("predict-put", "any method predicts", "PUT /predictions/double", numbers),
		other("predict-patch", "any method predicts", "PATCH /predictions/double", numbers),
		post("explain", "explain", "/explanations/double", numbers),
		post("explain-version", "explain, one version", "/explanations/secret/1.0", numbers),
		post("v1-predict", "KServe V1", "/v1/models/double:predict", `{"instances":[1]}`),
		post("v1-explain", "KServe V1", "/v1/models/double:explain", `{"instances":[1]}`),
		get("v1-status", "KServe V1 without its envelope", "/v1/models/double"),
		post("v1-inside", "KServe V1 behind another segment", "/x/v1/models/secret:predict", `{"instances":[1]}`),
		post("v2-infer", "KServe V2", "/v2/models/double/infer", numbers),
		post("v2-explain", "KServe V2", "/v2/models/double/explain", numbers),
		post("v2-version", "KServe V2, one version", "/v2/models/secret/versions/1.0/infer", numbers),
		post("workflow", "no such workflow", "/wfpredict/double", numbers),
		post("invocations", "the model in the query", "/invocations?model_name=double", numbers),
		post("invocations-none", "no model", "/invocations", numbers),
		post("invocations-invoke", "the other form of SageMaker", "/models/double/invoke", numbers),

		form("invocations-form", "the model in a form", "/invocations", "model_name=secret", "data="+numbers),
		encoded("invocations-encoded", "the model in a form that is encoded as a query", "/invocations", "model_name=secret&data=1"),
		form("invocations-two", "one model in the query and another in a form", "/invocations?model_name=double", "model_name=secret", "data="+numbers),
		post("invocations-twice", "the model twice in the query", "/invocations?model_name=double&model_name=secret", numbers),
		post("invocations-semicolon", "a semicolon in the query", "/invocations?model_name=double;model_name=secret", numbers),
		post("invocations-escaped-key", "an escape in the name of the parameter", "/invocations?model%5Fname=secret", numbers),
		post("invocations-case", "capitals in the name of the parameter", "/invocations?Model_Name=secret", numbers),
		post("invocations-version", "a version in the query counts for nothing", "/invocations?model_name=secret&model_version=1.0", numbers),
		post("invocations-in-body", "a name in the body counts for nothing", "/invocations?model_name=double", `{"model_name":"secret"}`),
		post("invocations-slash", "another segment behind it", "/invocations/x?model_name=secret", numbers),
		post("predict-query-model", "a model in the query beside the path counts for nothing", "/predictions/double?model_name=secret", numbers),
		form("predict-form-model", "a model in a form beside the path counts for nothing", "/predictions/double", "model_name=secret", "data="+numbers),
		post("alias-predict", "any two segments that end with predict", "/secret/predict", numbers),
		post("alias-version", "any three segments that end with predict", "/secret/2.0/predict", numbers),
		post("predict-suffix", "predict behind a version", "/predictions/secret/2.0/predict", numbers),
		post("predict-named-predict", "a model called predict: predictions is the model", "/predictions/predict", numbers),
		post("explain-suffix", "predict behind a model: secret is the version", "/explanations/secret/predict", numbers),
		post("ping-post", "the method is wrong", "/ping", numbers),

		post("case-fixed", "capitals in the fixed part", "/PREDICTIONS/double", numbers),
		post("case-model", "capitals in the model", "/predictions/DOUBLE", numbers),
		post("escape-model", "an escape in the model is decoded", "/predictions/%73ecret", numbers),
		post("escape-slash", "an escaped slash is a slash", "/predictions%2Fsecret", numbers),
		post("escape-version", "an escaped slash is a slash: a version", "/predictions/secret%2F2.0", numbers),
		post("escape-query", "an escaped question mark belongs to the name", "/predictions/secret%3Fx", numbers),
		post("escape-twice", "decoded once, not twice", "/predictions/%2573ecret", numbers),
		post("escape-nul", "an escaped NUL", "/predictions/secret%00", numbers),
		post("query", "a query", "/predictions/double?x=1", numbers),
		post("slash-end", "a slash at the end", "/predictions/secret/", numbers),
		post("slash-end-version", "a slash behind the version", "/predictions/secret/2.0/", numbers),
		post("more-segments", "a segment behind the version", "/predictions/secret/2.0/x", numbers),
		post("double-slash", "two slashes at the start", "//predictions/secret", numbers),
		post("authority", "an authority in the path", "//x/predictions/secret", numbers),
		post("double-slash-inside", "two slashes inside", "/predictions//secret", numbers),
		post("dots", "dot segments", "/predictions/x/../secret", numbers),
		post("absolute", "the absolute form", "http://x/predictions/secret", numbers),
		post("fragment", "a fragment", "/predictions/secret#x", numbers),
		post("semicolon", "a parameter", "/predictions/secret;x", numbers),
		post("backslash", "a backslash", `/predictions\secret`, numbers),
		post("plus", "a plus in the name", "/predictions/sec+ret", numbers),
		post("gzip", "compressed", "/predictions/double", story.Gzipped(numbers), "Content-Encoding: gzip"),
		post("target-header", "the header of SageMaker counts for nothing", "/invocations?model_name=double", numbers, "X-Amzn-SageMaker-Target-Model: secret"),
		post("register-elsewhere", "models are registered on the port for management", "/models?url=idle-1.0.mar", ""),
	}
}

// management are the forms of the API for management. They leave TorchServe as it was.
func management() []story.Question {
	return []story.Question{
		get("list", "the models, each with its default version", "/models"),
		get("list-limit", "the first model", "/models?limit=1"),
		get("workflows", "the workflows", "/workflows"),
		varying(get("describe", "the default version", "/models/double")),
		varying(get("describe-version", "one version", "/models/secret/1.0")),
		varying(get("describe-all", "all versions", "/models/secret/all")),
		varying(get("describe-customized", "what the handler says of itself", "/models/double?customized=true")),
		get("describe-unknown", "no such model", "/models/nothing"),
		other("register", "register an archive of the store, without workers", "POST /models?url=idle-1.0.mar", ""),
		other("register-again", "it is registered", "POST /models?url=idle-1.0.mar", ""),
		other("unregister", "unregister", "DELETE /models/idle/1.0", ""),
		post("register-json", "a url in JSON, without a file of this name", "/models", `{"url":"nothing.mar"}`),
		other("unregister-unknown", "no such model", "DELETE /models/nothing", ""),
		other("register-nothing", "no url", "POST /models", ""),
		other("register-dots", "the archive is not in the store", "POST /models?url=../store/idle-1.0.mar", ""),
		form("register-form", "a url in a form", "/models", "url=../nothing.mar"),
		other("scale", "as many workers as there are", "PUT /models/double?min_worker=1&max_worker=1", ""),
		other("scale-version", "as many workers of a version as there are", "PUT /models/secret/1.0?min_worker=1&max_worker=1", ""),
		other("set-default", "the default that it is", "PUT /models/secret/2.0/set-default", ""),
		other("set-default-unversioned", "no version", "PUT /models/secret/set-default", ""),
		get("token", "tokens are off here", "/token?type=inference"),
		other("predict-elsewhere", "predictions have another port", "POST /predictions/double", numbers),
		other("invoke-elsewhere", "predictions have another port", "POST /models/double/invoke", numbers),
		varying(get("describe-escape", "an escape in the model is decoded", "/models/%73ecret")),
		varying(get("describe-escape-slash", "an escaped slash is a slash", "/models%2Fsecret")),
		varying(get("describe-query", "a model in the query beside the path counts for nothing", "/models/double?model_name=secret")),
		get("describe-case", "capitals in the fixed part", "/MODELS/secret"),
		varying(get("describe-slash", "a slash at the end", "/models/secret/")),
		get("list-slash", "a slash at the end: a model without a name", "/models/"),
	}
}

// calls are the methods of the service for inference, and messages that others may read otherwise.
func calls() []story.Question {
	call := func(name, note, method string, messages ...[]byte) story.Question {
		return story.Question{Name: "grpc-" + name, Note: note, Method: serving + method, Body: story.Frames(messages...)}
	}
	double, secret := text(1, "double"), text(1, "secret")
	return []story.Question{
		call("ping", "health", "Ping", nil),
		call("predict", "predict, the default version", "Predictions", prediction(double)),
		call("predict-version", "predict, one version", "Predictions", prediction(secret, text(2, "1.0"))),
		call("predict-default", "predict, the default of two versions", "Predictions", prediction(secret)),
		call("predict-empty-version", "an empty version is the default", "Predictions", prediction(secret, text(2, ""))),
		call("predict-unknown", "no such model", "Predictions", prediction(text(1, "nothing"))),
		call("predict-unknown-version", "no such version", "Predictions", prediction(secret, text(2, "9.0"))),
		call("predict-no-name", "no name", "Predictions", prediction()),
		call("predict-slash", "a slash in the name", "Predictions", prediction(text(1, "secret/2.0"))),
		call("predict-escape", "escapes mean nothing here", "Predictions", prediction(text(1, "%73ecret"))),
		call("predict-case", "capitals in the name", "Predictions", prediction(text(1, "SECRET"))),
		call("predict-nul", "a NUL behind the name", "Predictions", prediction(text(1, "secret\x00x"))),
		call("predict-space", "a space behind the name", "Predictions", prediction(text(1, "secret "))),
		call("predict-last", "the name stands last", "Predictions", msg(data, secret)),
		call("predict-twice", "the name twice: the last one wins", "Predictions", prediction(double, secret)),
		call("predict-version-twice", "the version twice: the last one wins", "Predictions", prediction(secret, text(2, "1.0"), text(2, "2.0"))),
		call("predict-wrong-type", "the name as a number is an unknown field", "Predictions", prediction(double, story.Number(1, 7))),
		call("predict-bad-utf8", "the name is no UTF-8", "Predictions", prediction(text(1, "double\xff"))),
		call("predict-unknown-field", "an unknown field", "Predictions", prediction(double, text(99, "x"))),
		call("predict-group", "an unknown group that holds a name", "Predictions", prediction(double, []byte{0x9b, 0x06}, secret, []byte{0x9c, 0x06})),
		call("predict-long-tag", "the tag of the name has more bytes than it needs", "Predictions", prediction(double, []byte{0x8a, 0x00, 6}, []byte("secret"))),
		call("predict-truncated", "the message ends within a field", "Predictions", append(prediction(double), 0x0a, 0x40, 's')),
		call("predict-input-model", "an input called model_name counts for nothing", "Predictions", prediction(double, story.Text(3, msg(text(1, "model_name"), text(2, "secret"))))),
		call("predict-no-message", "no message", "Predictions"),
		call("predict-two-messages", "two messages in a unary call", "Predictions", prediction(double), prediction(secret)),
		{Name: "grpc-predict-gzip", Note: "compressed", Method: serving + "Predictions", Encoding: "gzip", Body: story.Squeezed(prediction(double))},
		call("stream", "an answer for each number", "StreamPredictions", prediction(double, stream)),
		call("stream-secret", "the default of two versions", "StreamPredictions", prediction(secret, stream)),
		call("stream-version", "one version", "StreamPredictions", prediction(secret, text(2, "1.0"), stream)),
		call("stream-two-messages", "two messages where one is expected", "StreamPredictions", prediction(double, stream), prediction(secret, stream)),
		call("stream2", "a stream both ways, of models without sequences", "StreamPredictions2", prediction(double, text(4, "s")), prediction(double, text(4, "s"))),
		call("stream2-two-models", "a stream both ways, two models", "StreamPredictions2", prediction(double, text(4, "s")), prediction(secret, text(4, "s"))),
		call("stream2-empty", "a stream both ways, without messages", "StreamPredictions2"),

		call("case-method", "capitals in the method", "PREDICTIONS", prediction(double)),
		call("unknown-method", "no such method", "Nothing", nil),
		{Name: "grpc-escape", Note: "an escape in the method", Method: serving + "Prediction%73", Body: story.Frames(prediction(double))},
		{Name: "grpc-double-slash", Note: "two slashes at the start", Method: "/" + serving + "Predictions", Body: story.Frames(prediction(double))},
		{Name: "grpc-query", Note: "a query", Method: serving + "Predictions?x=1", Body: story.Frames(prediction(double))},
		{Name: "grpc-health", Note: "gRPC's own health service", Method: "/grpc.health.v1.Health/Check", Body: story.Frames(nil)},
		{Name: "grpc-reflection", Note: "reflection", Method: "/grpc.reflection.v1alpha.ServerReflection/ServerReflectionInfo", Body: story.Frames(text(7, ""))},
		{Name: "grpc-v2", Note: "the Open Inference Protocol is off here", Method: "/org.pytorch.serve.grpc.openinference.GRPCInferenceService/ServerLive", Body: story.Frames(nil)},
		{Name: "grpc-list-elsewhere", Note: "management has another port", Method: managing + "ListModels", Body: story.Frames(nil)},
	}
}

// managingCalls are the methods of the service for management. They leave TorchServe as it was.
func managingCalls() []story.Question {
	call := func(name, note, method string, messages ...[]byte) story.Question {
		return story.Question{Name: "grpc-" + name, Note: note, Method: managing + method, Body: story.Frames(messages...)}
	}
	double, secret := text(1, "double"), text(1, "secret")
	return []story.Question{
		call("list", "without a limit the list is empty", "ListModels", nil),
		call("list-limit", "the models, each with its default version", "ListModels", story.Number(1, 100)),
		varying(call("describe", "the default version", "DescribeModel", double)),
		varying(call("describe-version", "one version", "DescribeModel", msg(secret, text(2, "1.0")))),
		varying(call("describe-all", "all versions", "DescribeModel", msg(secret, text(2, "all")))),
		call("describe-unknown", "no such model", "DescribeModel", text(1, "nothing")),
		varying(call("describe-twice", "the name twice: the last one wins", "DescribeModel", msg(double, secret))),
		call("register", "register an archive of the store, without workers", "RegisterModel", text(9, "idle-1.0.mar")),
		call("register-again", "it is registered", "RegisterModel", text(9, "idle-1.0.mar")),
		call("unregister", "unregister", "UnregisterModel", msg(text(1, "idle"), text(2, "1.0"))),
		call("unregister-unknown", "no such model", "UnregisterModel", text(1, "nothing")),
		call("register-dots", "the archive is not in the store", "RegisterModel", text(9, "../store/idle-1.0.mar")),
		call("scale", "as many workers as there are", "ScaleWorker", msg(double, story.Number(3, 1), story.Number(4, 1))),
		call("set-default", "the default that it is", "SetDefault", msg(secret, text(2, "2.0"))),
		{Name: "grpc-predict-elsewhere", Note: "predictions have another port", Method: serving + "Predictions", Body: story.Frames(prediction(double))},
	}
}

// served are the models that an answer of TorchServe is of. The handler says which model it is; a
// description has all that TorchServe knows of a version.
func served(q story.Question, r story.Reply) []string {
	bodies := [][]byte{r.Body}
	if q.Method != "" {
		bodies = nil
		for _, m := range story.Messages(r.Body) {
			bodies = append(bodies, story.Fields(m, 1)...)
		}
	}
	var all []string
	for _, body := range bodies {
		var one struct{ Model, Version string }
		if json.Unmarshal(body, &one) == nil && one.Model != "" {
			all = append(all, one.Model+" "+one.Version)
		}
		var described []struct{ ModelName string }
		if json.Unmarshal(body, &described) == nil && len(described) > 0 {
			all = append(all, described[0].ModelName)
		}
	}
	return all
}

// exchanges asks TorchServe itself, without the gateway.
func (h *house) exchanges(t *testing.T) {
	for _, port := range []struct {
		address   string
		questions []story.Question
	}{{h.rest, inference()}, {h.management, management()}, {h.grpc, calls()}, {h.grpcManagement, managingCalls()}} {
		story.Exchanges(t, *record, "torchserve", "TorchServe 0.12.0", port.address, port.questions, served)
	}
}
