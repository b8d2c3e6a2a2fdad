package model

import (
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

// openAI is the dialect of servers with OpenAI's API, such as vLLM and llama.cpp. A request names the
// model in the member "model" of its JSON body. The requests for one model's description name it in
// the path.
func openAI() *Dialect {
	return &Dialect{
		name: "openai", rest: readOpenAI, slashedIDs: true, lists: true, refusal: errorObject, namesModels: true, modelInBody: true,
		verbs:     openAIVerbs[:],
		canonical: canonicalID, head: thinkingHead, idle: thinkingIdle,
	}
}

var openAIVerbs = [...]string{"chat", "complete", "embed", "rerank", "score", "classify", "tokenize", "predict", "metadata", "list", "health", "version", "metrics"}

func scanOpenAI(r *Reading, o *ScanOptions) Scanner {
	return jsonScanner(r, o, canonicalID, "model")
}

// openAIEndpoints are those of OpenAI's API that model servers have.
var openAIEndpoints = [...]endpoint{
	{"POST", "/v1/chat/completions", "chat", false, scanOpenAI},
	{"POST", "/v1/responses", "chat", false, scanOpenAI},
	{"POST", "/v1/messages", "chat", false, scanOpenAI},
	{"POST", "/v1/completions", "complete", false, scanOpenAI},
	{"POST", "/v1/embeddings", "embed", false, scanOpenAI},
	{"POST", "/v1/rerank", "rerank", false, scanOpenAI},
	{"POST", "/v1/score", "score", false, scanOpenAI},
	{"POST", "/classify", "classify", false, scanOpenAI},
	{"POST", "/tokenize", "tokenize", false, scanOpenAI},
	{"POST", "/detokenize", "tokenize", false, scanOpenAI},
	{"POST", "/invocations", "predict", false, scanOpenAI},
	{"GET", "/v1/models", "list", true, nil},
	{"GET", "/health", "health", true, nil},
	{"GET", "/ping", "health", true, nil},
	{"GET", "/version", "version", true, nil},
	{"GET", "/metrics", "metrics", true, nil},
}

// modelsPrefix is the path of the list of models. Below it is one model's description.
const modelsPrefix = "/v1/models/"

// readOpenAI reads the model from GET or HEAD /v1/models/ID. Servers decode the path once and take
// the rest for the ID, slashes included: "meta-llama%2FLlama-3" and "meta-llama/Llama-3" are one
// model. They redirect away a slash after the ID. An ID that starts with a slash is refused, because
// servers that merge slashes read another one.
func readOpenAI(r *Request) (Reading, error) {
	if got, found, err := find(openAIEndpoints[:], r); found {
		return got, err
	}
	id, ok := strings.CutPrefix(r.Path, modelsPrefix)
	if !ok {
		return Reading{}, unknownPath("openai", r)
	}
	if !is(r, "GET") {
		return Reading{}, wrongMethod(r, "GET, HEAD")
	}
	id = message.Unescape(strings.TrimSuffix(id, "/"))
	name, err := canonicalID(id)
	if strings.HasPrefix(id, "/") {
		err = errModelPath
	}
	if err != nil {
		return Reading{}, &Unread{Reason: BadName, Cause: "the path names a model that servers could read in different ways: " + err.Error()}
	}
	return Reading{Call: Call{Verb: "metadata", Model: name}, Path: r.Path, Query: r.Query, HasQuery: r.HasQuery}, nil
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
