package tensorflow

import (
	"encoding/binary"
	"math"
	"slices"
	"strings"
	"testing"

	"sallyport/examples/story"
)

const (
	prediction = "/tensorflow.serving.PredictionService/"
	models     = "/tensorflow.serving.ModelService/"
	instances  = `{"instances": [1.0, 2.0, 5.0]}`
	examples   = `{"signature_name": "%s_x_to_y", "examples": [{"x": 1.0}]}`
)

var (
	text = story.Text[string]
	msg  = story.Message
	post = story.Post
	get  = story.Get
)

// spec is a ModelSpec: a name, and further fields.
func spec(name string, fields ...[]byte) []byte {
	return msg(append([][]byte{text(1, name)}, fields...)...)
}

// version is the field of a ModelSpec with a version.
func version(v uint64) []byte { return story.Text(2, story.Number(1, v)) }

func label(l string) []byte { return text(4, l) }

// x is the input of a PredictRequest: one number.
var x = story.Text(2, msg(text(1, "x"), story.Text(2, msg(story.Number(1, 1),
	story.Text(2, story.Text(2, story.Number(1, 1))),
	story.Text(5, binary.LittleEndian.AppendUint32(nil, math.Float32bits(3)))))))

// example is the field of a request with one Example, in which x is a number.
func example(field story.FieldNumber) []byte {
	value := story.Text(1, binary.LittleEndian.AppendUint32(nil, math.Float32bits(3)))
	features := story.Text(1, msg(text(1, "x"), story.Text(2, story.Text(2, value))))
	return story.Text(field, story.Text(1, story.Text(1, story.Text(1, features))))
}

func predict(spec []byte) []byte { return msg(story.Text(1, spec), x) }

func task(method string, spec []byte) []byte {
	return story.Text(1, msg(story.Text(1, spec), text(2, "tensorflow/serving/"+method)))
}

// rest are the forms of TensorFlow Serving's REST API, and what other readers might take for them.
func rest() []story.Question {
	regress, classify := strings.Replace(examples, "%s", "regress", 1), strings.Replace(examples, "%s", "classify", 1)
	return []story.Question{
		post("predict", "predict, the newest version", "/v1/models/half_plus_two:predict", instances),
		post("predict-version", "predict, one version", "/v1/models/secret/versions/1:predict", instances),
		post("predict-latest", "predict, the newest of two versions", "/v1/models/secret:predict", instances),
		post("predict-label", "predict, by a label", "/v1/models/secret/labels/stable:predict", instances),
		post("predict-zeros", "leading zeros", "/v1/models/secret/versions/001:predict", instances),
		post("predict-long-version", "the version fits no int64", "/v1/models/secret/versions/99999999999999999999:predict", instances),
		post("predict-word-version", "the version is no number", "/v1/models/secret/versions/one:predict", instances),
		post("predict-unknown", "no such model", "/v1/models/nothing:predict", instances),
		post("predict-unknown-version", "no such version", "/v1/models/secret/versions/9:predict", instances),
		post("predict-unknown-label", "no such label", "/v1/models/secret/labels/none:predict", instances),
		post("predict-gzip", "compressed", "/v1/models/half_plus_two:predict", story.Gzipped(instances), "Content-Encoding: gzip"),
		post("predict-nan", "NaN in the body is no JSON", "/v1/models/half_plus_two:predict", `{"instances": [NaN, 1.0]}`),
		post("predict-model-in-body", "a name in the body counts for nothing", "/v1/models/half_plus_two:predict", `{"model": "secret", "model_spec": {"name": "secret"}, "instances": [1.0]}`),
		post("regress", "regress", "/v1/models/half_plus_two:regress", regress),
		post("classify", "classify", "/v1/models/half_plus_two/versions/123:classify", classify),
		get("status", "status of a model", "/v1/models/half_plus_two"),
		get("status-version", "status of a version", "/v1/models/secret/versions/1"),
		get("status-label", "status by a label", "/v1/models/secret/labels/stable"),
		get("status-unknown", "no such model", "/v1/models/nothing"),
		get("metadata", "metadata of a model", "/v1/models/half_plus_two/metadata"),
		get("metadata-version", "metadata of a version", "/v1/models/secret/versions/1/metadata"),
		get("models", "there is no list", "/v1/models"),
		get("models-slash", "a slash at the end", "/v1/models/"),
		get("metrics", "metrics are off here", "/monitoring/prometheus/metrics"),
		get("root", "nothing is there", "/"),
		get("predict-get", "the method is wrong", "/v1/models/half_plus_two:predict"),
		{Name: "rest-head", Note: "HEAD is refused", Request: story.Plain("HEAD /v1/models/half_plus_two", "")},
		{Name: "rest-put", Note: "PUT is refused", Request: story.Plain("PUT /v1/models/half_plus_two:predict", instances)},
		{Name: "rest-options", Note: "OPTIONS with an Origin", Request: story.Plain("OPTIONS /v1/models/half_plus_two", "", "Origin: https://x.example")},

		post("case-verb", "capitals in the verb", "/v1/models/half_plus_two:PREDICT", instances),
		post("case-fixed", "capitals in the fixed part", "/V1/MODELS/half_plus_two:predict", instances),
		post("case-versions", "capitals in the fixed part", "/v1/models/secret/VERSIONS/1:predict", instances),
		post("case-model", "capitals in the model", "/v1/models/SECRET:predict", instances),
		get("case-metadata", "capitals in metadata: this is the status", "/v1/models/half_plus_two/METADATA"),
		post("escape-model", "an escape in the model is decoded after the match", "/v1/models/%73ecret:predict", instances),
		post("escape-label", "an escape in the label is decoded", "/v1/models/secret/labels/%73table:predict", instances),
		post("escape-colon", "an escaped colon belongs to the name, and no verb is left", "/v1/models/secret%3Apredict", instances),
		get("escape-colon-status", "an escaped colon belongs to the name", "/v1/models/secret%3Apredict"),
		post("escape-slash", "an escaped slash belongs to the name", "/v1/models/secret%2Fversions%2F1:predict", instances),
		post("escape-verb", "an escape in the verb", "/v1/models/secret:%70redict", instances),
		post("escape-twice", "decoded once, not twice", "/v1/models/%2573ecret:predict", instances),
		post("escape-nul", "an escaped NUL", "/v1/models/secret%00x:predict", instances),
		post("query", "a query", "/v1/models/secret:predict?x=1", instances),
		get("query-status", "a query belongs to the name", "/v1/models/secret?x=1"),
		get("query-bare", "a question mark alone", "/v1/models/secret?"),
		post("fragment", "a fragment", "/v1/models/secret:predict#x", instances),
		post("double-slash", "an authority without a name: the model is served", "///v1/models/secret:predict", instances),
		post("authority", "x is an authority: the model is served", "//x/v1/models/secret:predict", instances),
		post("authority-user", "an authority with a user", "//u@x:1/v1/models/secret:predict", instances),
		post("absolute", "the absolute form", "http://x/v1/models/secret:predict", instances),
		post("absolute-ftp", "the absolute form, of another scheme", "ftp://x/v1/models/secret:predict", instances),
		post("double-slash-inside", "two slashes inside", "/v1/models//secret:predict", instances),
		post("double-slash-first", "two slashes inside", "/v1//models/secret:predict", instances),
		post("dots", "dot segments", "/v1/models/x/../secret:predict", instances),
		post("slash-end", "a slash at the end", "/v1/models/secret:predict/", instances),
		post("semicolon", "a parameter belongs to the name", "/v1/models/secret;x:predict", instances),
		post("backslash", "a backslash", `/v1/models\secret:predict`, instances),
		post("two-verbs", "two verbs", "/v1/models/half_plus_two:predict/models/secret:predict", instances),
		post("label-and-version", "a label and a version", "/v1/models/secret/versions/1/labels/stable:predict", instances),
		post("duplicate-member", "a member twice: the first one counts", "/v1/models/half_plus_two:predict", `{"instances": [1.0], "instances": [2.0]}`),
		post("no-json", "no JSON", "/v1/models/half_plus_two:predict", "no"),
	}
}

// calls are the methods of the gRPC services, and messages that others may read otherwise.
func calls() []story.Question {
	call := func(name, note, method string, messages ...[]byte) story.Question {
		return story.Question{Name: "grpc-" + name, Note: note, Method: method, Body: story.Frames(messages...)}
	}
	half, secret := spec("half_plus_two"), spec("secret")
	const predicts = prediction + "Predict"
	return []story.Question{
		call("predict", "predict, the newest version", predicts, predict(half)),
		call("predict-version", "predict, one version", predicts, predict(spec("secret", version(1)))),
		call("predict-latest", "predict, the newest of two versions", predicts, predict(secret)),
		call("predict-label", "predict, by a label", predicts, predict(spec("secret", label("stable")))),
		call("predict-signature", "predict, by a signature", predicts, predict(spec("half_plus_two", text(3, "serving_default")))),
		call("predict-unknown", "no such model", predicts, predict(spec("nothing"))),
		call("predict-unknown-version", "no such version", predicts, predict(spec("secret", version(9)))),
		call("predict-unknown-label", "no such label", predicts, predict(spec("secret", label("none")))),
		call("predict-no-spec", "no model_spec", predicts, x),
		call("classify", "classify", prediction+"Classify", msg(story.Text(1, half), example(2))),
		call("regress", "regress", prediction+"Regress", msg(story.Text(1, half), example(2))),
		call("multi", "two tasks of one model", prediction+"MultiInference", msg(task("classify", half), task("regress", half), example(2))),
		call("multi-two-models", "two tasks, two models: refused", prediction+"MultiInference", msg(task("classify", half), task("regress", secret), example(2))),
		call("multi-versions", "two tasks, two versions", prediction+"MultiInference", msg(task("classify", spec("secret", version(1))), task("regress", spec("secret", version(2))), example(2))),
		{Name: "grpc-metadata", Note: "metadata", Method: prediction + "GetModelMetadata", Body: story.Frames(msg(story.Text(1, half), text(2, "signature_def"))), Varies: true},
		call("status", "status", models+"GetModelStatus", story.Text(1, half)),
		call("status-version", "status of a version", models+"GetModelStatus", story.Text(1, spec("secret", version(1)))),
		call("status-no-spec", "no model_spec", models+"GetModelStatus", nil),
		call("profile", "the profiler is on the same port (here: a double of it)", "/tensorflow.ProfilerService/Profile", nil),
		call("session", "not registered", "/tensorflow.serving.SessionService/SessionRun", story.Text(1, half)),
		call("health", "off here", "/grpc.health.v1.Health/Check", nil),

		call("version-zero", "version {} is version 0", predicts, predict(spec("secret", story.Text(2, []byte{})))),
		call("version-negative", "a negative version", predicts, predict(spec("secret", version(1<<64-1)))),
		call("version-wrong-type", "a version as a number is an unknown field: the newest", predicts, predict(spec("secret", story.Number(2, 1)))),
		call("version-value-twice", "the value of the version twice: the last one wins", predicts, predict(spec("secret", story.Text(2, msg(story.Number(1, 2), story.Number(1, 1)))))),
		call("version-twice", "the version twice: merged, the last one wins", predicts, predict(spec("secret", version(2), version(1)))),
		call("version-twice-empty", "the version twice, the second time without a value: merged, the first one stays", predicts, predict(spec("secret", version(1), story.Text(2, []byte{})))),
		call("version-then-label", "a version and a label: the last one of a oneof wins", predicts, predict(spec("secret", version(2), label("stable")))),
		call("label-then-version", "a label and a version: the last one of a oneof wins", predicts, predict(spec("secret", label("stable"), version(2)))),
		call("label-empty", "an empty label", predicts, predict(spec("secret", label("")))),
		call("spec-twice", "model_spec twice: merged, the last name wins", predicts, msg(story.Text(1, half), x, story.Text(1, secret))),
		call("spec-merged", "model_spec twice: the name of the first, the version of the second", predicts, msg(story.Text(1, secret), x, story.Text(1, version(1)))),
		call("spec-last", "model_spec stands last", predicts, msg(x, story.Text(1, secret))),
		call("spec-wrong-type", "model_spec as a number is an unknown field", predicts, msg(predict(half), story.Number(1, 7))),
		call("name-twice", "the name twice: the last one wins", predicts, predict(spec("half_plus_two", text(1, "secret")))),
		call("name-wrong-type", "the name as a number is an unknown field", predicts, predict(spec("half_plus_two", story.Number(1, 7)))),
		call("name-bad-utf8", "the name is no UTF-8", predicts, predict(spec("half_plus_two\xff"))),
		call("name-nul", "a NUL behind the name", predicts, predict(spec("half_plus_two\x00x"))),
		call("name-escape", "escapes mean nothing here", predicts, predict(spec("%73ecret"))),
		call("name-case", "capitals in the name", predicts, predict(spec("SECRET"))),
		call("name-empty", "an empty name", predicts, predict(spec(""))),
		call("long-tag", "the tag of the name has more bytes than it needs", predicts, predict(msg(text(1, "half_plus_two"), []byte{0x8a, 0x00, 6}, []byte("secret")))),
		call("group", "an unknown group that holds a model_spec", predicts, msg(predict(half), []byte{0x9b, 0x06}, story.Text(1, secret), []byte{0x9c, 0x06})),
		call("truncated", "the message ends within a field", predicts, slices.Concat(predict(half), []byte{0x0a, 0x40, 's'})),
		call("no-message", "no message", predicts),
		call("two-messages", "two messages in a unary call", predicts, predict(half), predict(secret)),
		{Name: "grpc-gzip", Note: "compressed", Method: predicts, Encoding: "gzip", Body: story.Squeezed(predict(half))},
		{Name: "grpc-gzip-unsaid", Note: "compressed, and no grpc-encoding says so", Method: predicts, Body: story.Squeezed(predict(half))},
		call("case-method", "capitals in the method", prediction+"PREDICT", predict(half)),
		call("escape", "an escape in the method", prediction+"Predic%74", predict(half)),
		call("double-slash", "two slashes at the start", "/"+predicts, predict(half)),
		call("slash-end", "a slash at the end", predicts+"/", predict(half)),
		call("query", "a query", predicts+"?x=1", predict(half)),
	}
}

// exchanges asks TensorFlow itself, without the gateway. Serve.py prints the models that it works on.
func (h *house) exchanges(t *testing.T) {
	seen := len(h.compute.Output())
	served := func(story.Question, story.Reply) []string {
		said := h.compute.Output()[seen:]
		seen += len(said)
		return reached(said)
	}
	story.Exchanges(t, *record, "tensorflow", "TensorFlow 2.21.0 behind the double of TensorFlow Serving's HTTP front (libevent 2.1, RE2)",
		h.rest, rest(), served)
	story.Exchanges(t, *record, "tensorflow", "TensorFlow 2.21.0 behind the servicer of tensorflow-serving-api 2.21.0 (grpcio 1.85)",
		h.grpc, calls(), served)
}

// reached lists the models that serve.py says it has worked on.
func reached(said string) []string {
	var all []string
	for line := range strings.Lines(said) {
		if of, ok := strings.CutPrefix(strings.TrimSpace(line), "of "); ok {
			all = append(all, of)
		}
	}
	return all
}
