package model

import (
	"errors"
	"strconv"
	"strings"
	"time"
	"unicode/utf8"

	"sallyport/proxy/message"
)

// Language models may think for minutes before they begin to answer.
const (
	thinkingHead = 10 * time.Minute
	thinkingIdle = 5 * time.Minute
)

// openAI is the dialect of servers with OpenAI's API, such as vLLM, llama.cpp and KServe's. A request
// names the model in the member "model" of its JSON body, or in the part "model" of a form. Requests
// for one model's description name it in the path, and llama.cpp takes it from the query of a GET.
func openAI() *Dialect {
	return &Dialect{
		name: openAIName, rest: readOpenAI, slashedIDs: true, lists: true, refusal: errorObject, namesModels: true, modelInBody: true, served: servedAsModel,
		verbs:     openAIVerbs[:],
		canonical: canonicalID, head: thinkingHead, idle: thinkingIdle, drops: steering[:], plan: planOpenAI,
	}
}

const openAIName = "openai"

var openAIVerbs = [...]string{"chat", "complete", "generate", "embed", "rerank", "score", "classify", "tokenize", "predict", "transcribe",
	"speak", "image", "moderate", "metadata", "list", "config", "stats", "health", "version", "metrics", "docs",
	"load", "unload", "delete", "lora", "slots", "pause", "scale", "profile", "session", "files", "control"}

func scanOpenAI(r *Reading, o *ScanOptions) Scanner {
	return jsonScanner(r, o, canonicalID, "model")
}

func scanOpenAIForm(r *Reading, o *ScanOptions) Scanner {
	return formScanner(r, o, canonicalID)
}

// openAIEndpoints are those of OpenAI's and Anthropic's API and the servers' own. All are without /v1,
// as servers have many of them twice. Where a server has a path under one name only, it answers the
// other with 404.
var openAIEndpoints = [...]endpoint{
	{"POST", "/chat/completions", "chat", false, scanOpenAI},
	{"POST", "/responses", "chat", false, scanOpenAI},
	{"POST", "/messages", "chat", false, scanOpenAI},
	{"POST", "/completions", "complete", false, scanOpenAI},
	{"POST", "/completion", "complete", false, scanOpenAI},
	{"POST", "/infill", "complete", false, scanOpenAI},
	{"POST", "/generate", "generate", false, scanOpenAI},
	{"POST", "/inference/v1/generate", "generate", false, scanOpenAI},
	{"POST", "/embeddings", "embed", false, scanOpenAI},
	{"POST", "/embedding", "embed", false, scanOpenAI},
	{"POST", "/pooling", "embed", false, scanOpenAI},
	{"POST", "/v2/embed", "embed", false, scanOpenAI},
	{"POST", "/rerank", "rerank", false, scanOpenAI},
	{"POST", "/reranking", "rerank", false, scanOpenAI},
	{"POST", "/v2/rerank", "rerank", false, scanOpenAI},
	{"POST", "/score", "score", false, scanOpenAI},
	{"POST", "/generative_scoring", "score", false, scanOpenAI},
	{"POST", "/classify", "classify", false, scanOpenAI},
	{"POST", "/moderations", "moderate", false, scanOpenAI},
	{"POST", "/tokenize", "tokenize", false, scanOpenAI},
	{"POST", "/detokenize", "tokenize", false, scanOpenAI},
	{"POST", "/apply-template", "tokenize", false, scanOpenAI},
	{"POST", "/messages/count_tokens", "tokenize", false, scanOpenAI},
	{"POST", "/responses/input_tokens", "tokenize", false, scanOpenAI},
	{"POST", "/chat/completions/render", "tokenize", false, scanOpenAI},
	{"POST", "/completions/render", "tokenize", false, scanOpenAI},
	{"POST", "/invocations", "predict", false, scanOpenAI},
	{"POST", "/audio/transcriptions", "transcribe", false, scanOpenAIForm},
	{"POST", "/audio/translations", "transcribe", false, scanOpenAIForm},
	{"POST", "/audio/speech", "speak", false, scanOpenAI},
	{"POST", "/images/generations", "image", false, scanOpenAI},
	{"POST", "/images/edits", "image", false, scanOpenAIForm},
	{"POST", "/images/variations", "image", false, scanOpenAIForm},

	{"GET", "/models", "list", true, nil},
	{"GET", "/props", "control", true, nil},
	{"GET", "/server_info", "config", true, nil},
	{"GET", "/tokenizer_info", "config", true, nil},
	{"GET", "/load", "stats", true, nil},
	{"GET", "/health", "health", true, nil},
	{"GET", "/ping", "health", true, nil},
	{"POST", "/ping", "health", true, nil},
	{"GET", "/version", "version", true, nil},
	{"GET", "/metrics", "metrics", true, nil},
	{"GET", "/openapi.json", "docs", true, nil},
	{"GET", "/docs", "docs", true, nil},

	{"POST", "/models/load", "load", false, scanOpenAI},
	{"POST", "/models/unload", "unload", false, scanOpenAI},
	{"POST", "/load_lora_adapter", "lora", true, nil},
	{"POST", "/unload_lora_adapter", "lora", true, nil},
	{"GET", "/lora-adapters", "lora", true, nil},
	{"POST", "/lora-adapters", "lora", true, nil},
	{"GET", "/slots", "slots", true, nil},
	{"POST", "/props", "control", true, nil},
	{"POST", "/chat/completions/control", "control", true, nil},
	{"POST", "/streams/lookup", "control", true, nil},
	{"GET", "/tools", "control", true, nil},
	{"POST", "/tools", "control", true, nil},
	{"POST", "/pause", "pause", true, nil},
	{"POST", "/resume", "pause", true, nil},
	{"GET", "/is_paused", "pause", true, nil},
	{"POST", "/sleep", "pause", true, nil},
	{"POST", "/wake_up", "pause", true, nil},
	{"GET", "/is_sleeping", "pause", true, nil},
	{"POST", "/scale_elastic_ep", "scale", true, nil},
	{"POST", "/is_scaling_elastic_ep", "scale", true, nil},
	{"POST", "/start_profile", "profile", true, nil},
	{"POST", "/stop_profile", "profile", true, nil},
	{"POST", "/update_weights", "control", true, nil},
	{"POST", "/init_weight_transfer_engine", "control", true, nil},
	{"POST", "/start_weight_update", "control", true, nil},
	{"POST", "/finish_weight_update", "control", true, nil},
	{"GET", "/get_world_size", "control", true, nil},
	{"POST", "/collective_rpc", "control", true, nil},
	{"POST", "/abort_requests", "control", true, nil},
	{"POST", "/reset_prefix_cache", "control", true, nil},
	{"POST", "/reset_mm_cache", "control", true, nil},
	{"POST", "/reset_encoder_cache", "control", true, nil},
}

// openAIStored are the paths below which a server keeps what callers gave it. Anybody who may ask there
// sees what others asked, and a file of a batch names models that no head shows.
var openAIStored = [...]struct{ path, verb string }{
	{"/files", "files"},
	{"/uploads", "files"},
	{"/batches", "files"},
	{"/messages/batches", "files"},
	{"/vector_stores", "files"},
	{"/fine_tuning", "control"},
	{"/assistants", "session"},
	{"/threads", "session"},
	{"/conversations", "session"},
	{"/responses/", "session"},
	{"/chat/completions/", "session"},
	{"/slots/", "slots"},
}

// modelsPrefix is the path of the list of models. Below it is one model's description.
const modelsPrefix = "/v1/models/"

// withoutV1 cuts what OpenAI's API may stand behind: /v1, and /openai, where KServe has it.
func withoutV1(path string) string {
	for _, prefix := range [...]string{"/openai", "/v1"} {
		if rest, ok := strings.CutPrefix(path, prefix); ok && strings.HasPrefix(rest, "/") {
			path = rest
		}
	}
	return path
}

// readOpenAI reads a request. Servers decode the path once: llama.cpp takes /v1/chat%2Fcompletions for
// a chat, and no table has such a path.
func readOpenAI(r *Request) (Reading, error) {
	path := withoutV1(r.Path)
	e, err := lookUp(openAIEndpoints[:], r, path)
	if err != nil {
		return Reading{}, err
	}
	if e != nil {
		got := Reading{Call: Call{Verb: e.verb, Server: e.server}, Path: r.Path, Query: r.Query, HasQuery: r.HasQuery, scanner: e.scanner}
		return openAIQuery(r, got, e.server && e.method == "GET")
	}
	if id, ok := strings.CutPrefix(path, "/models/"); ok {
		return readModelID(r, id)
	}
	for i := range openAIStored {
		s := &openAIStored[i]
		rest, ok := strings.CutPrefix(path, s.path)
		if !ok || strings.Contains(rest, "%") || rest != "" && rest[0] != '/' && !strings.HasSuffix(s.path, "/") {
			continue
		}
		if !is(r, "GET") && r.Method != "POST" && r.Method != "DELETE" {
			return Reading{}, wrongMethod(r, "GET, HEAD, POST, DELETE")
		}
		return openAIQuery(r, Reading{Call: Call{Verb: s.verb, Server: true}, Path: r.Path, Query: r.Query, HasQuery: r.HasQuery}, false)
	}
	return Reading{}, unknownPath(openAIName, r)
}

// openAIQuery reads the model that the query may name. llama.cpp takes it from there for a GET about the
// server, and ignores it otherwise; but other servers may not.
func openAIQuery(r *Request, got Reading, counts bool) (Reading, error) {
	name, found, err := queryParameter(r, "model")
	if err == nil && found && !counts {
		err = errQueryModel
	}
	if err == nil && found {
		got.Call.Server = false
		got.Call.Model, err = canonicalID(name)
	}
	if err != nil {
		return Reading{}, &Unread{Reason: BadName, Cause: "the query names a model, or seems to: " + err.Error()}
	}
	return got, nil
}

var errQueryModel = errors.New("servers ignore it there, or do not")

// readModelID reads the model from what stands behind /v1/models/. Servers decode the path once and take
// the rest for the ID, slashes included: "meta-llama%2FLlama-3" and "meta-llama/Llama-3" are one
// model. They redirect away a slash after the ID. An ID that starts with a slash is refused, because
// servers that merge slashes read another one.
func readModelID(r *Request, id string) (Reading, error) {
	id = message.Unescape(strings.TrimSuffix(id, "/"))
	name, err := canonicalID(id)
	if strings.HasPrefix(id, "/") {
		err = errModelPath
	}
	if err != nil {
		return Reading{}, &Unread{Reason: BadName, Cause: "the path names a model that servers could read in different ways: " + err.Error()}
	}
	verb := "metadata"
	switch {
	case r.Method == "DELETE":
		verb = "delete"
	case !is(r, "GET"):
		return Reading{}, wrongMethod(r, "GET, HEAD, DELETE")
	}
	return openAIQuery(r, Reading{Call: Call{Verb: verb, Model: name}, Path: r.Path, Query: r.Query, HasQuery: r.HasQuery}, false)
}

// canonicalID accepts the name of a model as it is written. Servers that load models by path or
// from a hub take "a//b", "a/", "./a/b" and "x/../a/b" for "a/b", so such names are refused. An
// absolute path such as "/models/a" is a name: vLLM makes it from the path it was started with.
func canonicalID(name string) (string, error) {
	if name == "" || len(name) > maxModelName || !utf8.ValidString(name) {
		return "", errModelName
	}
	for _, r := range name {
		if r < ' ' || r >= 0x7f && r < 0xa0 || r == utf8.RuneError {
			return "", errModelName
		}
	}
	for segment := range strings.SplitSeq(strings.TrimPrefix(name, "/"), "/") {
		if segment == "" || segment == "." || segment == ".." {
			return "", errModelPath
		}
	}
	return name, nil
}

// errorObject writes a refusal as OpenAI's error object, from which its client
// libraries take message, type, param and code.
func errorObject(_ int, text, reason, requestID string) (contentType string, body []byte) {
	return "application/json", []byte(`{"error":{"message":` + strconv.Quote(text) + `,"type":"gateway_error","param":null,"code":` + strconv.Quote(reason) + "}" + tail(reason, requestID))
}
