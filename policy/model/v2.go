package model

import "strings"

// v2Name is the dialect's name in causes.
const v2Name = "v2"

// v2 is the dialect of servers of the Open Inference Protocol, such as KServe's Python server and
// MLServer, over REST and gRPC. Triton has the dialect triton.
//
// These are ASGI applications. They decode the path before they look for its segments, so an encoded
// slash ends the name of a model.
func v2() *Dialect {
	return &Dialect{
		name: v2Name, rest: readV2, calls: v2Calls(), lists: true, refusal: errorText, namesModels: true, versions: words, served: servedAsV2,
		verbs: []string{"predict", "explain", "generate", "metadata", "status", "list", "health", "metrics", "docs", "load", "unload", "reflection"},
		drops: append([]string{"seldon-model", "seldon-internal-model", "mm-model-id*", "mm-vmodel-id*"}, steering[:]...),
		plan:  planV2, tensors: true,
	}
}

// v2Endpoints are about the server. The list of models in /v2/models and the paths of version 1 are
// KServe's, the repository and the documents are MLServer's.
var v2Endpoints = [...]endpoint{
	{"GET", "/v2", "metadata", true, nil},
	{"GET", "/v2/health/live", "health", true, nil},
	{"GET", "/v2/health/ready", "health", true, nil},
	{"GET", "/v2/models", "list", true, nil},
	{"GET", "/v1/models", "list", true, nil},
	{"POST", "/v2/repository/index", "list", true, nil},
	{"GET", "/v2/docs", "docs", true, nil},
	{"GET", "/v2/docs/dataplane.json", "docs", true, nil},
	{"GET", "/docs", "docs", true, nil},
	{"GET", "/openapi.json", "docs", true, nil},
	{"GET", "/", "health", true, nil},
	{"GET", "/metrics", "metrics", true, nil},
}

// v2Models are what may stand behind the name of a model, or its version.
var v2Models = [...]endpoint{
	{method: "GET", path: "", verb: "metadata"},
	{method: "GET", path: "ready", verb: "status"},
	{method: "POST", path: "infer", verb: "predict"},
	{method: "POST", path: "infer_stream", verb: "predict"},
	{method: "POST", path: "generate", verb: "generate"},
	{method: "POST", path: "generate_stream", verb: "generate"},
	{method: "GET", path: "docs", verb: "docs"},
	{method: "GET", path: "docs/dataplane.json", verb: "docs"},
}

// v1Models are the verbs behind a colon in the paths of version 1.
var v1Models = [...]endpoint{
	{method: "POST", path: "predict", verb: "predict"},
	{method: "POST", path: "explain", verb: "explain"},
}

// v2Repository are the verbs behind the name of a model in a repository.
var v2Repository = [...]endpoint{
	{method: "POST", path: "load", verb: "load"},
	{method: "POST", path: "unload", verb: "unload"},
}

const (
	v2ModelsPrefix     = "/v2/models/"
	v2RepositoryPrefix = "/v2/repository/models/"
)

// readV2 reads a request over REST. MLServer takes the version of a model from the query, if the path
// has none, so the query is dropped.
func readV2(r *Request) (Reading, error) {
	if got, found, err := find(v2Endpoints[:], r); found {
		return withoutQuery(got), err
	}
	if rest, ok := strings.CutPrefix(r.Path, v2ModelsPrefix); ok {
		return readV2Model(v2Name, v2Models[:], r, rest, readName, readWord)
	}
	if rest, ok := strings.CutPrefix(r.Path, v2RepositoryPrefix); ok {
		name, verb, _ := strings.Cut(rest, "/")
		return readNamed(v2Name, v2Repository[:], r, name, "", verb, readName)
	}
	rest, ok := strings.CutPrefix(r.Path, modelsPrefix)
	if !ok {
		return Reading{}, unknownPath(v2Name, r)
	}
	name, verb, posted := strings.Cut(rest, ":")
	if posted {
		return readNamed(v2Name, v1Models[:], r, name, Latest, verb, readName)
	}
	return readNamed(v2Name, v1Status[:], r, name, Latest, "", readName)
}

var v1Status = [...]endpoint{{method: "GET", verb: "status"}}

// withoutQuery drops the query of a request, which nobody reads; but that of metrics chooses some of
// them.
func withoutQuery(got Reading) Reading {
	if got.Call.Verb != "metrics" {
		got.Query, got.HasQuery = "", false
	}
	return got
}

// readV2Model reads what stands behind /v2/models/: NAME[/versions/VERSION][/VERB].
func readV2Model(dialect string, table []endpoint, r *Request, rest string, readName, readVersion func(string) (string, error)) (Reading, error) {
	name, verb, _ := strings.Cut(rest, "/")
	version, path := Latest, r.Path
	if v, ok := strings.CutPrefix(verb, "versions/"); ok {
		v, verb, _ = strings.Cut(v, "/")
		var err error
		if version, err = readVersion(v); err != nil {
			return Reading{}, err
		}
		if version != v { // it lost leading zeros
			path = strings.Replace(r.Path, "/versions/"+v, "/versions/"+version, 1)
		}
	}
	got, err := readNamed(dialect, table, r, name, version, verb, readName)
	if err == nil {
		got.Path = path
	}
	return got, err
}

// readNamed reads a request for a model whose name, as the path has it, and verb are known. A slash at
// the end of the path makes another path, which these servers do not have.
func readNamed(dialect string, table []endpoint, r *Request, name, version, verb string, readName func(string) (string, error)) (Reading, error) {
	name, err := readName(name)
	if err != nil {
		return Reading{}, err
	}
	e, err := lookUp(table, r, verb)
	switch {
	case err != nil:
		return Reading{}, err
	case e == nil || strings.HasSuffix(r.Path, "/"):
		return Reading{}, unknownPath(dialect, r)
	}
	return Reading{Call: Call{Verb: e.verb, Model: name, Version: version}, Path: r.Path}, nil
}

// readWord reads a version that is any word.
func readWord(escaped string) (string, error) {
	if escaped == "" || len(escaped) > maxModelName || checkVersion([]byte(escaped)) != nil {
		return "", &Unread{Reason: BadName, Cause: "the path names a version that is no word of letters, digits and .-_"}
	}
	return escaped, nil
}

const (
	v2Service      = "/inference.GRPCInferenceService/"
	mlserverModels = "/inference.model_repository.ModelRepositoryService/"
)

// v2Calls lists the methods. KServe and MLServer have different numbers for the name of the model to
// load (1 and 2), so that call of the common service is about the server.
func v2Calls() map[string]*method {
	named, repository := nameVersion(1, 2), nameVersion(2, 0)
	return map[string]*method{
		v2Service + "ServerLive":                 {verb: "health", server: true},
		v2Service + "ServerReady":                {verb: "health", server: true},
		v2Service + "ServerMetadata":             {verb: "metadata", server: true},
		v2Service + "ModelReady":                 {verb: "status", shape: named},
		v2Service + "ModelMetadata":              {verb: "metadata", shape: named},
		v2Service + "ModelInfer":                 {verb: "predict", shape: named, answer: nameVersion(1, 2), counts: v2Inputs},
		v2Service + "ModelStreamInfer":           {verb: "predict", shape: named, answer: answerAt2, streams: true, counts: v2Inputs},
		v2Service + "RepositoryIndex":            {verb: "list", server: true},
		v2Service + "RepositoryModelLoad":        {verb: "load", server: true},
		v2Service + "RepositoryModelUnload":      {verb: "unload", server: true},
		mlserverModels + "RepositoryIndex":       {verb: "list", server: true},
		mlserverModels + "RepositoryModelLoad":   {verb: "load", shape: repository},
		mlserverModels + "RepositoryModelUnload": {verb: "unload", shape: repository},
	}
}
