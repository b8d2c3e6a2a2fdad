package model

import (
	"math"
	"strconv"
	"strings"
)

// tensorFlow is the dialect of TensorFlow Serving, over REST and gRPC. The server hands a request to
// its handler once the whole body has arrived.
func tensorFlow() *Dialect {
	return &Dialect{
		name: "tensorflow", rest: readTensorFlow, calls: tensorFlowCalls(), refusal: errorText, namesModels: true, versions: numbersAndLabels, actsOnWhole: true,
		verbs: []string{"predict", "classify", "regress", "multi_inference", "metadata", "status", "health", "metrics", "reload", "session", "profile", "reflection"},
		drops: steering[:], plan: planTensorFlow, tensors: true,
	}
}

// readTensorFlow reads a request by the patterns of tensorflow_serving/model_servers/http_rest_api_handler.cc:
// /v1/models/NAME[/versions/N|/labels/L][:VERB|/metadata]. The server matches the path without regard
// to letter case, and then compares the verb with it. It takes the query for a part of the name, so
// the query is dropped.
func readTensorFlow(r *Request) (Reading, error) {
	rest, found := cutFold(r.Path, "/v1/models/")
	if !found {
		if r.Path == "/monitoring/prometheus/metrics" {
			if !is(r, "GET") {
				return Reading{}, wrongMethod(r, "GET, HEAD")
			}
			return Reading{Call: Call{Verb: "metrics", Server: true}, Path: r.Path}, nil
		}
		return Reading{}, unknownPath(tensorFlowName, r)
	}
	spec, verb, posted := strings.Cut(rest, ":")
	name, which, deeper := strings.Cut(spec, "/")
	call := Call{Verb: verb, Version: Latest}
	if !posted {
		call.Verb = "status"
		if which == "metadata" {
			call.Verb, which, deeper = "metadata", "", false
		} else if v, ok := strings.CutSuffix(which, "/metadata"); ok {
			call.Verb, which = "metadata", v
		}
	}
	switch verb {
	case "predict", "classify", "regress", "":
	default:
		return Reading{}, unknownPath(tensorFlowName, r)
	}
	if posted && verb == "" {
		return Reading{}, unknownPath(tensorFlowName, r)
	}
	var err error
	if call.Model, err = readName(name); err != nil {
		return Reading{}, err
	}
	canonical, between := strings.HasPrefix(r.Path, "/v1/models/"), ""
	if deeper {
		kind, value, _ := strings.Cut(which, "/")
		switch {
		case strings.EqualFold(kind, "versions") && value != "":
			if call.Version, err = readNumber(value); err != nil {
				return Reading{}, err
			}
			canonical = canonical && kind == "versions" && value == call.Version
			if !canonical {
				between = "/versions/" + call.Version
			}
		case strings.EqualFold(kind, "labels") && value != "":
			label, err := readName(value)
			if err != nil {
				return Reading{}, err
			}
			call.Version = Label + label
			canonical = canonical && kind == "labels"
			if !canonical {
				between = "/labels/" + value
			}
		default:
			return Reading{}, unknownPath(tensorFlowName, r)
		}
	}
	switch {
	case posted && r.Method != "POST":
		return Reading{}, wrongMethod(r, "POST")
	case !posted && !is(r, "GET"):
		return Reading{}, wrongMethod(r, "GET, HEAD")
	}
	got := Reading{Call: call, Path: r.Path}
	if !canonical {
		end := ""
		switch {
		case posted:
			end = ":" + verb
		case call.Verb == "metadata":
			end = "/metadata"
		}
		got.Path = "/v1/models/" + name + between + end
	}
	return got, nil
}

const tensorFlowName = "tensorflow"

// readNumber reads a version in digits as the server does, into an int64. Its canonical form has no
// leading zeros.
func readNumber(digits string) (string, error) {
	n, err := strconv.ParseUint(digits, 10, 63)
	if err != nil || strings.Trim(digits, "0123456789") != "" || n > math.MaxInt64 {
		return "", &Unread{Reason: BadName, Cause: "the path names a version that is no number of 63 bits"}
	}
	return strconv.FormatUint(n, 10), nil
}

func tensorFlowCalls() map[string]*method {
	const prediction, service = "/tensorflow.serving.PredictionService/", "/tensorflow.serving.ModelService/"
	return map[string]*method{
		prediction + "Predict":                          {verb: "predict", shape: specAt1, answer: specAt2, counts: tfTensors},
		prediction + "Classify":                         {verb: "classify", shape: specAt1, answer: specAt2, counts: tfExamples},
		prediction + "Regress":                          {verb: "regress", shape: specAt1, answer: specAt2, counts: tfExamples},
		prediction + "MultiInference":                   {verb: "multi_inference", shape: tasksAt1, answer: tasksAt1, counts: tfExamples},
		prediction + "GetModelMetadata":                 {verb: "metadata", shape: specAt1, answer: specAt1},
		service + "GetModelStatus":                      {verb: "status", shape: specAt1},
		service + "HandleReloadConfigRequest":           {verb: "reload", server: true},
		"/tensorflow.serving.SessionService/SessionRun": {verb: "session", shape: specAt1, answer: specAt3, counts: tfTensors},
		"/tensorflow.ProfilerService/Profile":           {verb: "profile", server: true},
		"/tensorflow.ProfilerService/Terminate":         {verb: "profile", server: true},
		"/tensorflow.ProfilerService/Monitor":           {verb: "profile", server: true},
	}
}
