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

// openAI is the dialect of servers with OpenAI's API, such as vLLM. A request names the
// model in the member "model" of its JSON body. The requests for one model's description
// name it in the path.
func openAI() *Dialect {
	return &Dialect{
		name: "openai", read: readOpenAI, slashedIDs: true, checkVerb: checkMethod, refusal: errorObject, namesModels: true,
		scanner:   func(h *message.Head) Scanner { return jsonScanner(h, canonicalID, "model") },
		canonical: canonicalID, head: thinkingHead, idle: thinkingIdle,
	}
}

// modelsPrefix is the path of the list of models. Below it is one model's description.
const modelsPrefix = "/v1/models/"

// readOpenAI reads the model from GET or HEAD /v1/models/ID. Servers decode the path once and take
// the rest for the ID, slashes included: "meta-llama%2FLlama-3" and "meta-llama/Llama-3" are one
// model. They redirect away a slash after the ID. An ID that starts with a slash stays unread,
// because servers that merge slashes read another one.
func readOpenAI(h *message.Head) Call {
	c := readMethod(h)
	if c.Verb != "get" && c.Verb != "head" {
		return c
	}
	if id, ok := strings.CutPrefix(h.Path, modelsPrefix); ok {
		if id = message.Unescape(strings.TrimSuffix(id, "/")); !strings.HasPrefix(id, "/") {
			c.Model, _ = canonicalID(id)
		}
	}
	return c
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
