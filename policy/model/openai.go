package model

import (
	"strconv"
	"strings"
	"time"

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
		scanner:   func(*message.Head) Scanner { return &objectScanner{keys: []string{"model"}, canon: canonicalID} },
		canonical: canonicalID, head: thinkingHead, idle: thinkingIdle,
	}
}

// readOpenAI reads the model from GET /v1/models/ID.
func readOpenAI(h *message.Head) Call {
	c := readModels(h)
	if c.Verb != "get" && c.Verb != "head" {
		c.Model = "" // only the body names it
	}
	c.Model, _ = canonicalID(c.Model)
	return c
}

// errorObject writes a refusal as OpenAI's error object, from which its client
// libraries take message, type, param and code.
func errorObject(_ int, text, reason, requestID string) (contentType string, body []byte) {
	return "application/json", []byte(`{"error":{"message":` + strconv.Quote(text) + `,"type":"gateway_error","param":null,"code":` + strconv.Quote(reason) + "}" + tail(reason, requestID))
}

// modelsPrefix is where OpenAI's API has its models, each under its id.
const modelsPrefix = "/v1/models/"

// readModels reads the id of the model behind /v1/models/. Its servers decode the path
// once and take all that follows for the id, slashes too: "meta-llama%2FLlama-3" and
// "meta-llama/Llama-3" are one model. A slash at the end, which some of them redirect
// away, is no part of it.
func readModels(h *message.Head) Call {
	c := readMethod(h)
	if id, ok := strings.CutPrefix(h.Path, modelsPrefix); ok {
		c.Model = strings.Trim(message.Unescape(id), "/")
	}
	return c
}
