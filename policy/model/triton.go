package model

import "strings"

const tritonName = "triton"

// triton is the dialect of NVIDIA Triton: the Open Inference Protocol and its extensions, over REST and
// gRPC. Triton decodes a request once its whole body has arrived.
//
// Values of the restricted APIs' headers are for the operator to set on a route. Their names over HTTP
// are the operator's too, so no list here can have them.
func triton() *Dialect {
	return &Dialect{
		name: tritonName, rest: readTriton, calls: tritonCalls(), lists: true, refusal: errorText, namesModels: true, versions: numbers, served: servedAsV2, actsOnWhole: true,
		verbs: []string{"predict", "generate", "metadata", "status", "list", "config", "stats", "health", "metrics",
			"load", "unload", "shared_memory", "trace", "logging", "reflection"},
		drops: append([]string{"x-vertex-ai-triton-redirect", "triton-grpc-protocol-*"}, steering[:]...),
		plan:  planTriton, tensors: true,
	}
}

// tritonEndpoints are about the server. Metrics have a port of their own.
var tritonEndpoints = [...]endpoint{
	{"GET", "/v2", "metadata", true, nil},
	{"GET", "/v2/health/live", "health", true, nil},
	{"GET", "/v2/health/ready", "health", true, nil},
	{"POST", "/v2/repository/index", "list", true, nil},
	{"GET", "/v2/logging", "logging", true, nil},
	{"POST", "/v2/logging", "logging", true, nil},
	{"GET", "/v2/trace/setting", "trace", true, nil},
	{"POST", "/v2/trace/setting", "trace", true, nil},
	{"GET", "/metrics", "metrics", true, nil},
}

var tritonModels = [...]endpoint{
	{method: "GET", path: "", verb: "metadata"},
	{method: "GET", path: "ready", verb: "status"},
	{method: "POST", path: "infer", verb: "predict"},
	{method: "POST", path: "generate", verb: "generate"},
	{method: "POST", path: "generate_stream", verb: "generate"},
	{method: "GET", path: "config", verb: "config"},
	{method: "GET", path: "stats", verb: "stats"},
	{method: "GET", path: "trace/setting", verb: "trace"},
	{method: "POST", path: "trace/setting", verb: "trace"},
}

// sharedMemory are the verbs behind the kind of memory, or one region of it.
var sharedMemory = [...]endpoint{
	{method: "GET", path: "status", verb: "shared_memory"},
	{method: "POST", path: "register", verb: "shared_memory"},
	{method: "POST", path: "unregister", verb: "shared_memory"},
}

// allStatistics is what Triton takes for the statistics of all models, even if one of them is called
// stats. It is refused, as a ModelStatistics call without a name is: a rule about one model would
// otherwise show those of all.
const allStatistics = "/v2/models/stats"

// readTriton reads a request by the patterns of Triton's src/http_server.cc. Triton reads no query.
func readTriton(r *Request) (Reading, error) {
	if r.Path == allStatistics {
		return Reading{}, unknownPath(tritonName, r)
	}
	if got, found, err := find(tritonEndpoints[:], r); found {
		return withoutQuery(got), err
	}
	if rest, ok := strings.CutPrefix(r.Path, v2ModelsPrefix); ok {
		return readV2Model(tritonName, tritonModels[:], r, rest, readPlainName, readNumber)
	}
	if rest, ok := strings.CutPrefix(r.Path, "/v2/repository/"); ok {
		return readTritonRepository(r, rest)
	}
	rest, ok := strings.CutPrefix(r.Path, "/v2/systemsharedmemory/")
	if !ok {
		rest, ok = strings.CutPrefix(r.Path, "/v2/cudasharedmemory/")
	}
	if !ok {
		return Reading{}, unknownPath(tritonName, r)
	}
	if region, ok := strings.CutPrefix(rest, "region/"); ok {
		var name string
		name, rest, _ = strings.Cut(region, "/")
		if _, err := readPlainName(name); err != nil {
			return Reading{}, err
		}
	}
	e, err := lookUp(sharedMemory[:], r, rest)
	if e == nil && err == nil {
		err = unknownPath(tritonName, r)
	}
	if err != nil {
		return Reading{}, err
	}
	return Reading{Call: Call{Verb: e.verb, Server: true}, Path: r.Path}, nil
}

// readTritonRepository reads what stands behind /v2/repository/: [REPOSITORY/]index or
// [REPOSITORY/]models/NAME/VERB. The number of segments tells these apart.
func readTritonRepository(r *Request, rest string) (Reading, error) {
	switch n := strings.Count(rest, "/"); {
	case n == 1:
		name, verb, _ := strings.Cut(rest, "/")
		got, err := readNamed(tritonName, tritonIndex[:], r, name, "", verb, readPlainName)
		got.Call.Model, got.Call.Server = "", true
		return got, err
	case n == 3:
		repository, behind, _ := strings.Cut(rest, "/")
		if _, err := readPlainName(repository); err != nil {
			return Reading{}, err
		}
		rest = behind
	}
	rest, ok := strings.CutPrefix(rest, "models/")
	if !ok || strings.Count(rest, "/") != 1 {
		return Reading{}, unknownPath(tritonName, r)
	}
	name, verb, _ := strings.Cut(rest, "/")
	return readNamed(tritonName, v2Repository[:], r, name, "", verb, readPlainName)
}

var tritonIndex = [...]endpoint{{method: "POST", path: "index", verb: "list"}}

// readPlainName reads a name for servers that decode no escapes: "a%20b" is not "a b" there.
func readPlainName(name string) (string, error) {
	if err := checkName(name); err != nil {
		return "", &Unread{Reason: BadName, Cause: "the path names what servers could read in different ways: " + err.Error()}
	}
	return name, nil
}

// tritonCalls lists the methods. A version is a number in digits. The trace settings may be those of one
// model, or, like the other settings, of the server, so those calls are about the server. Statistics
// must name their model here, although Triton takes no name for all models.
func tritonCalls() map[string]*method {
	named, repository := nameVersion(1, 2).numbered(), nameVersion(2, 0)
	return map[string]*method{
		v2Service + "ServerLive":                   {verb: "health", server: true},
		v2Service + "ServerReady":                  {verb: "health", server: true},
		v2Service + "ServerMetadata":               {verb: "metadata", server: true},
		v2Service + "ModelReady":                   {verb: "status", shape: named},
		v2Service + "ModelMetadata":                {verb: "metadata", shape: named},
		v2Service + "ModelInfer":                   {verb: "predict", shape: named, answer: nameVersion(1, 2), counts: v2Inputs},
		v2Service + "ModelStreamInfer":             {verb: "predict", shape: named, answer: answerAt2, streams: true, counts: v2Inputs},
		v2Service + "ModelConfig":                  {verb: "config", shape: named},
		v2Service + "ModelStatistics":              {verb: "stats", shape: named},
		v2Service + "RepositoryIndex":              {verb: "list", server: true},
		v2Service + "RepositoryModelLoad":          {verb: "load", shape: repository},
		v2Service + "RepositoryModelUnload":        {verb: "unload", shape: repository},
		v2Service + "SystemSharedMemoryStatus":     {verb: "shared_memory", server: true},
		v2Service + "SystemSharedMemoryRegister":   {verb: "shared_memory", server: true},
		v2Service + "SystemSharedMemoryUnregister": {verb: "shared_memory", server: true},
		v2Service + "CudaSharedMemoryStatus":       {verb: "shared_memory", server: true},
		v2Service + "CudaSharedMemoryRegister":     {verb: "shared_memory", server: true},
		v2Service + "CudaSharedMemoryUnregister":   {verb: "shared_memory", server: true},
		v2Service + "TraceSetting":                 {verb: "trace", server: true},
		v2Service + "LogSettings":                  {verb: "logging", server: true},
	}
}
