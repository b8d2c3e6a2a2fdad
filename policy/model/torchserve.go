package model

import "strings"

const torchServeName = "torchserve"

// torchServe is the dialect of TorchServe: its ports for inference, management and metrics, and gRPC. It
// decodes a path as a whole, and acts on a request once the whole body has arrived.
//
// TorchServe takes any path of three or four segments that ends with /predict for a prediction by the
// model of its first segment, and reads the name of the model from the query or a form where the path
// has none. Only documented paths are read here, and no model is called predict.
func torchServe() *Dialect {
	return &Dialect{
		name: torchServeName, rest: readTorchServe, calls: torchServeCalls(), lists: true, refusal: errorCode, namesModels: true, versions: words, served: servedAsV2, actsOnWhole: true,
		verbs: []string{"predict", "explain", "metadata", "status", "list", "health", "metrics", "docs",
			"load", "unload", "scale", "set_default", "control", "reflection"},
		drops: steering[:],
	}
}

// torchServeEndpoints are about the server. To register a model (POST /models) is to run the archive that
// the query names, so it is about the server as a whole.
var torchServeEndpoints = [...]endpoint{
	{"GET", "/ping", "health", true, nil},
	{"GET", "/metrics", "metrics", true, nil},
	{"GET", "/api-description", "docs", true, nil},
	{"OPTIONS", "/", "docs", true, nil},
	{"GET", "/models", "list", true, nil},
	{"POST", "/models", "load", true, nil},
	{"GET", "/workflows", "list", true, nil},
	{"POST", "/workflows", "load", true, nil},
	{"GET", "/token", "control", true, nil},
}

// These are what may stand behind a model, or its version. TorchServe predicts whatever the method is.
var (
	torchPredict = [...]endpoint{{method: "POST", verb: "predict"}, {method: "PUT", verb: "predict"}, {method: "GET", verb: "predict"}}
	torchExplain = [...]endpoint{{method: "POST", verb: "explain"}}
	torchInvoke  = [...]endpoint{{method: "POST", verb: "predict"}}
	torchManaged = [...]endpoint{{method: "GET", verb: "metadata"}, {method: "PUT", verb: "scale"}, {method: "DELETE", verb: "unload"}}
	torchDefault = [...]endpoint{{method: "PUT", verb: "set_default"}}
	torchFlow    = [...]endpoint{{method: "GET", verb: "metadata"}, {method: "DELETE", verb: "unload"}}
	torchV2      = [...]endpoint{{method: "POST", path: "infer", verb: "predict"}, {method: "POST", path: "explain", verb: "explain"}}
)

// readTorchServe reads a request. A query that names a model or version beside the path is refused:
// TorchServe takes it from there in some places.
func readTorchServe(r *Request) (Reading, error) {
	if r.Path == "/invocations" {
		name, found, err := queryParameter(r, "model_name")
		if err != nil || !found || strings.ContainsAny(r.Query, "&;") {
			return Reading{}, &Unread{Reason: BadName, Cause: "the query of /invocations is not one parameter model_name"}
		}
		if name, err = readTorchName(name); err != nil {
			return Reading{}, err
		}
		if r.Method != "POST" {
			return Reading{}, wrongMethod(r, "POST")
		}
		return Reading{Call: Call{Verb: "predict", Model: name, Version: Latest}, Path: r.Path, Query: r.Query, HasQuery: true}, nil
	}
	got, err := readTorchPath(r)
	if err != nil {
		return Reading{}, err
	}
	for _, name := range [...]string{"model_name", "model_version"} {
		if _, found, err := queryParameter(r, name); err != nil || found && !got.Call.Server {
			return Reading{}, &Unread{Reason: BadName, Cause: "the query names a model or version beside the path"}
		}
	}
	got.Query, got.HasQuery = r.Query, r.HasQuery
	return got, nil
}

func readTorchPath(r *Request) (Reading, error) {
	if got, found, err := find(torchServeEndpoints[:], r); found {
		return got, err
	}
	if rest, ok := strings.CutPrefix(r.Path, "/predictions/"); ok {
		return readTorchModel(torchPredict[:], r, rest)
	}
	if rest, ok := strings.CutPrefix(r.Path, "/explanations/"); ok {
		return readTorchModel(torchExplain[:], r, rest)
	}
	if rest, ok := strings.CutPrefix(r.Path, "/wfpredict/"); ok {
		return readNamed(torchServeName, torchInvoke[:], r, rest, Latest, "", readTorchName)
	}
	if rest, ok := strings.CutPrefix(r.Path, "/workflows/"); ok {
		return readNamed(torchServeName, torchFlow[:], r, rest, "", "", readTorchName)
	}
	if rest, ok := strings.CutPrefix(r.Path, "/models/"); ok {
		if name, ok := strings.CutSuffix(rest, "/invoke"); ok {
			return readNamed(torchServeName, torchInvoke[:], r, name, Latest, "", readTorchName)
		}
		if versioned, ok := strings.CutSuffix(rest, "/set-default"); ok && strings.Contains(versioned, "/") {
			return readTorchModel(torchDefault[:], r, versioned)
		}
		return readTorchModel(torchManaged[:], r, rest)
	}
	if rest, ok := strings.CutPrefix(r.Path, v2ModelsPrefix); ok {
		name, verb, _ := strings.Cut(rest, "/")
		return readNamed(torchServeName, torchV2[:], r, name, Latest, verb, readTorchName)
	}
	rest, ok := strings.CutPrefix(r.Path, modelsPrefix)
	if !ok {
		return Reading{}, unknownPath(torchServeName, r)
	}
	name, verb, posted := strings.Cut(rest, ":")
	if !posted {
		return readNamed(torchServeName, v1Status[:], r, name, Latest, "", readTorchName)
	}
	return readNamed(torchServeName, v1Models[:], r, name, Latest, verb, readTorchName)
}

// readTorchModel reads NAME[/VERSION].
func readTorchModel(table []endpoint, r *Request, rest string) (Reading, error) {
	name, version, versioned := strings.Cut(rest, "/")
	if !versioned {
		return readNamed(torchServeName, table, r, name, Latest, "", readTorchName)
	}
	if strings.Contains(version, "/") {
		return Reading{}, unknownPath(torchServeName, r)
	}
	word, err := readWord(version)
	if err != nil || isTorchWord(word) {
		return Reading{}, &Unread{Reason: BadName, Cause: "the path names a version that is no word of letters, digits and .-_, or a word of paths"}
	}
	return readNamed(torchServeName, table, r, name, word, "", readTorchName)
}

// readTorchName reads the name of a model that is no word of TorchServe's paths.
func readTorchName(escaped string) (string, error) {
	name, err := readName(escaped)
	if err == nil && isTorchWord(name) {
		err = &Unread{Reason: BadName, Cause: "the path names a model by a word that TorchServe takes for a verb"}
	}
	return name, err
}

func isTorchWord(s string) bool { return s == "predict" || s == "invoke" || s == "set-default" }

// torchServeCalls lists the methods. To register a model runs the archive that the message names.
func torchServeCalls() map[string]*method {
	const inference, management = "/org.pytorch.serve.grpc.inference.InferenceAPIsService/", "/org.pytorch.serve.grpc.management.ManagementAPIsService/"
	versioned := nameVersion(1, 2)
	return map[string]*method{
		inference + "Ping":               {verb: "health", server: true},
		inference + "Predictions":        {verb: "predict", shape: versioned},
		inference + "StreamPredictions":  {verb: "predict", shape: versioned},
		inference + "StreamPredictions2": {verb: "predict", shape: versioned, streams: true},
		management + "DescribeModel":     {verb: "metadata", shape: versioned},
		management + "ListModels":        {verb: "list", server: true},
		management + "RegisterModel":     {verb: "load", server: true},
		management + "ScaleWorker":       {verb: "scale", shape: versioned},
		management + "SetDefault":        {verb: "set_default", shape: versioned},
		management + "UnregisterModel":   {verb: "unload", shape: versioned},
	}
}
